"""New files of keys."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ...system.files import DiskFiles

_RSA_BITS = 2048  # RFC 8301 §3.2; the record of a longer key does not fit into every answer
_PEM = Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()


def new_key(algorithm: Literal["rsa", "ed25519"]) -> bytes:
    """Return a new private key in PEM form. Blocks, for up to a second."""
    if algorithm == "ed25519":
        return Ed25519PrivateKey.generate().private_bytes(*_PEM)
    return generate_private_key(65537, _RSA_BITS).private_bytes(*_PEM)


def write_key(path: str, content: bytes, owner: os.stat_result | None = None) -> None:
    """Write a new file, of mode 0600, and the directories above it, of mode 0700. Blocks.

    Args:
        path: of the file.
        content: of the file.
        owner: root writes as the owner of this directory, who may have put links below it; None:
            as root.

    Raises:
        FileExistsError: the file exists, and stays as it is.
        OSError: it cannot be written.
    """
    files = DiskFiles()
    is_root = os.geteuid() == 0
    with _acting_as(owner) if is_root and owner is not None else nullcontext():
        directory = os.path.dirname(path)
        files.make_directories(directory)
        file = files.create(path)
        try:
            file.write(content)
            file.sync()
        except BaseException:
            files.unlink(path)
            raise
        finally:
            file.close()
        files.sync_directory(directory)


@contextmanager
def _acting_as(owner: os.stat_result) -> Iterator[None]:
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
