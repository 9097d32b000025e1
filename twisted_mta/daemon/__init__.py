"""The plugin of twistd: its service and its options."""

from __future__ import annotations

import gc
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .options import Options
    from .service import makeService

__all__ = ["Options", "makeService"]

_MODULES = {"Options": "options", "makeService": "service"}
_NEVER = 1_000_000


def __getattr__(name: str) -> object:
    """Import the program when twistd asks for its options (PEP 562).

    Only the youngest objects are collected meanwhile: the others are modules and classes, which
    stay, and visiting them over and over would take a sixth of the start.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    youngest, *older = gc.get_threshold()
    gc.set_threshold(youngest, _NEVER, _NEVER)
    try:
        modules = {each: import_module(f".{_MODULES[each]}", __name__) for each in __all__}
    finally:
        gc.set_threshold(youngest, *older)
    globals().update({each: getattr(module, each) for each, module in modules.items()})
    return globals()[name]
