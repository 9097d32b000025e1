"""What a state directory knows of a queue in a database: which one it is, and the machine's id."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..cluster.identity import MACHINE_FILE
from ..interfaces import Files

URL_FILE = "queue.url"
"""The file with the URL of the database, for commands while the MTA is down."""


def known_machine(directory: str, files: Files) -> str:
    """Return the id of the machine with a state directory; empty: it has none. Blocks."""
    try:
        with files.open(os.path.join(directory, MACHINE_FILE)) as file:
            return file.read(32).decode("ascii", "replace")
    except FileNotFoundError:
        return ""


def note_url(url: str, directory: str, files: Files, secret: Callable[[int], bytes]) -> None:
    """Note in a state directory which database has its queue. Blocks.

    Raises:
        OSError: the file cannot be written.
    """
    path = os.path.join(directory, URL_FILE)
    name = f"{path}.{secret(8).hex()}.new"  # unique
    file = files.create(name)
    try:
        file.write(url.encode() + b"\n")
        file.sync()
        files.replace(name, path)
    finally:
        file.close()
        files.unlink(name)
    files.sync_directory(directory)


def known_url(directory: str, files: Files) -> str | None:
    """Return the URL of the database with the queue of a state directory. Blocks.

    Returns:
        None where the queue is not known to be in one.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        with files.open(os.path.join(directory, URL_FILE)) as file:
            return file.read(65536).decode("utf-8", "replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
