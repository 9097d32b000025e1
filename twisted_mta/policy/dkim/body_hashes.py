"""Hashes of one body for any number of signatures, computed while the body streams by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from attrs import frozen

from .canonicalization import Canonicalization, body_canonicalizer, content_end

if TYPE_CHECKING:
    from hashlib import _Hash

_LARGEST_PIECE = 65_536  # octets that are canonicalized at once


@frozen
class BodyHash:
    """The SHA-256 hash of a body in canonical form.

    Attributes:
        digest: 32 octets.
        uncovered: octets behind the limit (``l=``) that the hash does not cover; None: the body is
            shorter than the limit.
    """

    digest: bytes
    uncovered: int | None


class BodyHashes:
    """The hashes of a body that comes in pieces, cut anywhere.

    Signatures with the same canonicalization and limit share one hash. Time is linear in the size
    of the body, and memory does not depend on it.
    """

    def __init__(self) -> None:
        self._bodies: dict[Canonicalization, _Body] = {}
        self._is_read = False

    def want(self, canonicalization: Canonicalization, limit: int | None = None) -> None:
        """Ask for a hash before the first piece; ``limit`` (``l=``) is in canonical octets."""
        self._bodies.setdefault(canonicalization, _Body(canonicalization)).want(limit)

    def reader(self) -> Callable[[bytes], None] | None:
        """Return `feed` for the first that asks for it, and None for others.

        So several can share the hashes, each without knowing of the others.
        """
        if self._is_read:
            return None
        self._is_read = True
        return self.feed

    def feed(self, piece: bytes) -> None:
        """Take the next octets of the body."""
        bodies = self._bodies.values()
        if len(piece) <= _LARGEST_PIECE:
            for body in bodies:
                body.feed(piece)
            return
        for start in range(0, len(piece), _LARGEST_PIECE):
            for body in bodies:
                body.feed(piece[start : start + _LARGEST_PIECE])

    def result(self, canonicalization: Canonicalization, limit: int | None = None) -> BodyHash:
        """Return a hash that was asked for; no more pieces may come.

        Raises:
            KeyError: it was not asked for.
        """
        return self._bodies[canonicalization].result(limit)


class _Body:
    """A body in one canonical form, and its hashes by limit."""

    def __init__(self, canonicalization: Canonicalization) -> None:
        self._canonicalization = canonicalization
        self._canonicalizer = body_canonicalizer(canonicalization)
        self._hashes: dict[int | None, _Hash] = {}
        # Where the body would end if no more text came: its length without the line ends at the
        # end, and copies of the hashes there. Line ends are hashed at once all the same, since
        # there may be fifty million octets of them before the next text.
        self._content = 0
        self._at_content: dict[int | None, _Hash] | None = None
        self._length = 0
        self._finished = False

    def want(self, limit: int | None) -> None:
        self._hashes.setdefault(limit, hashlib.sha256())

    def feed(self, piece: bytes) -> None:
        self._take(self._canonicalizer.feed(piece))

    def _take(self, text: bytes) -> None:
        content = content_end(text)
        if content:
            self._update(text[:content] if content < len(text) else text)
            self._content = self._length
            self._at_content = None
        if content < len(text):
            if self._at_content is None:
                self._at_content = {limit: one.copy() for limit, one in self._hashes.items()}
            self._update(text[content:])

    def _update(self, text: bytes) -> None:
        for limit, one in self._hashes.items():
            if limit is None or limit >= self._length + len(text):
                one.update(text)
            elif limit > self._length:
                one.update(text[: limit - self._length])
        self._length += len(text)

    def result(self, limit: int | None) -> BodyHash:
        if not self._finished:
            self._finished = True
            self._take(self._canonicalizer.finish())
            if self._at_content is not None:
                self._hashes = self._at_content
                self._length = self._content
            # RFC 6376 §3.4.3, §3.4.4: all line ends at the end are one; an empty body is one line
            # end in the simple form, and nothing in the relaxed form.
            if self._length or self._canonicalization == "simple":
                self._update(b"\r\n")
        digest = self._hashes[limit].digest()
        uncovered = 0 if limit is None else self._length - limit
        return BodyHash(digest, uncovered if uncovered >= 0 else None)


def body_hash(pieces: Iterable[bytes], canonicalization: Canonicalization = "relaxed") -> bytes:
    """Return the SHA-256 hash (``bh=``) of a whole body; 32 octets.

    Args:
        pieces: the body, cut anywhere.
        canonicalization: of the body.
    """
    hashes = BodyHashes()
    hashes.want(canonicalization)
    for piece in pieces:
        hashes.feed(piece)
    return hashes.result(canonicalization).digest
