"""Policy services."""
