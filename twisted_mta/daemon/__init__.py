"""What belongs to twistd alone: the plugin's service and its options."""

from .options import Options
from .service import makeService

__all__ = ["Options", "makeService"]
