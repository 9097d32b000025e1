"""Explanations: why a message is still in the queue, and where mail for an address would go."""
