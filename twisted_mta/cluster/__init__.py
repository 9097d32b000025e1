"""The machines of one queue: which are alive, and what holds for all of them together."""
