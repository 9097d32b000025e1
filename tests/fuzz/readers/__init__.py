"""Every reader of the program, each as a function of octets, with words that mean something to it.

What a reader refuses is not of interest here: how long it takes to do so is.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..scaling import Reader
from . import addresses, content, dialogue, operator

_ALL = (*content.READERS, *addresses.READERS, *dialogue.READERS, *operator.READERS)

READERS: Mapping[str, Reader] = {reader.name: reader for reader in _ALL}
"""By their names."""
