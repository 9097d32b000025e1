"""What decides on a session or a message, apart from the protocol."""
