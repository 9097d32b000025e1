"""Block and allow lists: which mail of strangers is refused, and which is exempt from that."""
