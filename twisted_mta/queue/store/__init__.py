"""Stores of the queue: their contract, and the embedded one in SQLite."""
