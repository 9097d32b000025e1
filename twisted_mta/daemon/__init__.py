"""The plugin of twistd: its service and its options."""

from .options import Options
from .service import makeService

__all__ = ["Options", "makeService"]
