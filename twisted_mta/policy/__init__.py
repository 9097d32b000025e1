"""Decisions on sessions and messages apart from the protocol: relaying, submission, capacity."""
