"""``twisted-mta``, the operator's tool."""

try:
    from .command import main
except KeyboardInterrupt:  # Control-C before the command has begun
    raise SystemExit(1) from None

__all__ = ["main"]
