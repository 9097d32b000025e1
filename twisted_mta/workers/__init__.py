"""Processes that share the work of one mail transfer agent: the parent's side and the worker's."""
