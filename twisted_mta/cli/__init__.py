"""``twisted-mta``, the operator's tool."""

from .command import main

__all__ = ["main"]
