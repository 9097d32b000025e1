"""A key, such as that of SRS: made once, kept in the state directory."""

from __future__ import annotations

import binascii
from collections.abc import Callable

from ..interfaces import Files
from ..mail.printable import printable

_OCTETS = 32  # as many as SHA-256 gives


_SRS = "notices about mail that was forwarded before do not come back"


def srs_key(
    path: str,
    *,
    files: Files,
    secret: Callable[[int], bytes],
    lost: str = _SRS,
    known: bytes | None = None,
) -> bytes:
    """Return the key in a file; where there is none, one is made (mode 0600). Blocks.

    Several processes may ask at once: the first one's key is everybody's.

    Args:
        path: of the file; its directory exists.
        files: the disk.
        secret: returns that many octets that nobody can guess, such as ``os.urandom``.
        lost: what is lost without the key that was there, for an error.
        known: the one that was read before. Where there is none now, the state directory has gone
            away: none is made in its place, and this one holds.

    Raises:
        OSError: it can be neither read nor made.
        ValueError: what is there is no key.
    """
    try:
        return _read(path, files, lost)
    except FileNotFoundError:
        if known is not None:
            return known
    name = f"{path}.{secret(8).hex()}.new"  # nobody else's
    file = files.create(name)
    try:
        try:
            file.write(binascii.hexlify(secret(_OCTETS)) + b"\n")
            file.sync()
        finally:
            file.close()
        files.rename(name, path)
    except FileExistsError:
        pass  # somebody else was faster
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
            f"{printable(path)}: no key; without that file a new one is made, and {lost}"
        )
    return key
