"""A secret key in a file of the state directory, made once: of SRS, and of salts for AUTH."""

from __future__ import annotations

import binascii
from collections.abc import Callable

from ..interfaces import Files
from ..mail.printable import printable

_OCTETS = 32  # the length of a SHA-256


def kept_secret(
    path: str,
    *,
    files: Files,
    secret: Callable[[int], bytes],
    lost: str,
    known: bytes | None = None,
) -> bytes:
    """Return the key in a file, which is made if it is missing (mode 0600). Blocks.

    If several processes ask at once, all get the key of the first.

    Args:
        path: of the file; its directory exists.
        files: the disk.
        secret: returns unguessable octets, such as ``os.urandom``.
        lost: the consequence of a new key, for an error.
        known: the key that was read before. If the file is missing now, the state directory has
            disappeared: no new key is made, and this one stays.

    Raises:
        OSError: the file can be neither read nor made.
        ValueError: the file does not contain a key.
    """
    try:
        return _read(path, files, lost)
    except FileNotFoundError:
        if known is not None:
            return known
    name = f"{path}.{secret(8).hex()}.new"  # unique
    file = files.create(name)
    try:
        try:
            file.write(binascii.hexlify(secret(_OCTETS)) + b"\n")
            file.sync()
        finally:
            file.close()
        files.rename(name, path)
    except FileExistsError:
        pass  # another process was faster
    finally:
        files.unlink(name)
    files.sync_directory(path.rpartition("/")[0] or ".")
    return _read(path, files, lost)


def _read(path: str, files: Files, lost: str) -> bytes:
    with files.open(path) as file:
        content = file.read(1024)
    try:
        key = binascii.unhexlify(content.strip())
    except binascii.Error:
        key = b""
    if len(key) != _OCTETS:
        raise ValueError(
            f"{printable(path)}: not a key; if the file is removed, a new one is made, and {lost}"
        )
    return key
