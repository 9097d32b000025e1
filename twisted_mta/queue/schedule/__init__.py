"""Scheduling: when a recipient is tried, and in which order."""
