"""The durable queue: what is stored, when it is due, who works on it."""
