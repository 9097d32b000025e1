"""Decide where mail goes: routes, exchangers, aliases, and rewritten reverse-paths."""
