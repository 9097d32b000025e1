"""The random id of a machine, in a file of its state directory."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..interfaces import Files
from ..system.kept_secret import kept_secret

MACHINE_FILE = "machine"
"""The file with the random id of the machine, which is the beginning of its content."""


def machine_id(directory: str, files: Files, secret: Callable[[int], bytes]) -> str:
    """Return the random id of the machine with a state directory, which is made once. Blocks.

    Raises:
        OSError: the file can be neither read nor made.
        ValueError: the file does not contain an id.
    """
    path = os.path.join(directory, MACHINE_FILE)
    lost = "its mail in the queue is delivered after half a minute"
    return kept_secret(path, files=files, secret=secret, lost=lost).hex()[:32]
