"""The agent: everything that one process does with mail, put together."""
