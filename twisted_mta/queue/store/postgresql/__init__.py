"""The store of several machines: one queue in PostgreSQL."""
