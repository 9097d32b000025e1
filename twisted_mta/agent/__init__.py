"""All that works on mail in one process, joined."""
