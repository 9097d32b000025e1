"""Send a message straight to a server, without the queue: the client of an application."""
