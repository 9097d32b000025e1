"""Messages on their way out are signed with the keys of the domain in From (RFC 6376 §5)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from typing import TypeVar

from attrs import evolve, frozen
from twisted.internet.defer import Deferred

from ...interfaces import Executor, WallTime
from ...mail.body import Body, MemoryBody
from ...mail.message import Message
from ...mail.queue_id import QueueId
from ...message.mime.conversion import SevenBitBody
from ...message.trace import with_fields
from ..dmarc.author import author
from .body_hashes import body_hash
from .canonicalization import relaxed_body
from .signing import sign_all
from .signing_keys import SigningKey, SigningKeys

_T = TypeVar("_T")

_SMALL = 16_384  # octets of a content that is signed at once: 8 ms at the most, hostile or not
_LONGEST_HEADER = 1 << 20  # octets
_MOST_KNOWN = 256  # contents whose hash is remembered, and messages whose signatures are
_LONGEST_KNOWN = 16_384  # octets of the header of one of them


@frozen
class _Content:
    """What is signed of a content.

    Attributes:
        header: the header section, each field with its CR LF.
        hash: of what follows, in relaxed form.
    """

    header: bytes
    hash: bytes


class Signer:
    """Signs messages; `sign` is an `interfaces.Sign`.

    A content in a file is read once for all its transactions, as far as memory serves. Signatures
    take most of the time, and are made once for all transactions that send the same octets; the
    time in them is that of the first one.

    Args:
        keys: in force.
        wall_time: for the time in signatures.
        executor: signs large contents.
    """

    def __init__(self, keys: SigningKeys, *, wall_time: WallTime, executor: Executor) -> None:
        self._keys = keys
        self._wall_time = wall_time
        self._executor = executor
        self._known: dict[QueueId, _Content] = {}  # of files; the newest last
        # Messages whose file is being read, and the transactions that wait for its hash.
        self._reading: dict[QueueId, list[Deferred[None]]] = {}
        self._known_fields = lru_cache(maxsize=_MOST_KNOWN)(self._fields)

    def sign(self, message: Message) -> Message | Deferred[Message]:
        """Return a message with a signature of each key of its From domain in front.

        It is returned as it is where it may not be signed (`Assessment.signs`), where no key is for
        its From domain, and where readers may not agree upon what its From field is.
        """
        if not message.assessment.signs or not self._keys:
            return message
        if isinstance(message.body, MemoryBody) and message.body.size <= _SMALL:
            return self._signed(message, None)[0]
        if isinstance(message.body, MemoryBody | SevenBitBody):  # not kept: it may be large
            return self._executor(self._signed, message, None).addCallback(_message)
        return self._sign_file(message)

    def _sign_file(self, message: Message) -> Deferred[Message]:
        id = message.id
        known = self._known.get(id)
        if known is not None:
            return self._executor(self._signed, message, known).addCallback(_message)
        if id in self._reading:
            read: Deferred[None] = Deferred()
            self._reading[id].append(read)
            return read.addCallback(lambda _: self._sign_file(message))
        self._reading[id] = []
        signed = self._executor(self._signed, message, None).addCallback(self._remember, id)
        return signed.addBoth(self._read, id)

    def _remember(self, signed: tuple[Message, _Content | None], id: QueueId) -> Message:
        message, content = signed
        if content is not None and len(content.header) <= _LONGEST_KNOWN:
            self._known[id] = content
            if len(self._known) > _MOST_KNOWN:
                del self._known[next(iter(self._known))]
        return message

    def _read(self, result: _T, id: QueueId) -> _T:
        """Let the others go on: with the hash, or else one of them reads the file."""
        for each in self._reading.pop(id):
            each.callback(None)
        return result

    def _signed(self, message: Message, known: _Content | None) -> tuple[Message, _Content | None]:
        """Sign a message; blocks.

        Raises:
            OSError: the content cannot be read.
        """
        rest: bytes | Iterator[bytes] = b""
        if known is not None:
            header = known.header
        elif isinstance(message.body, MemoryBody):
            header, rest = _divided_at_once(message.body.content)
        else:
            header, rest = _divided(message.body)
        section = message.trace + header
        keys = self._keys.of(author(section).domain) if _is_plain(section) else ()
        if not keys:
            return message, None
        content = known or _Content(header, _hash(rest))
        sign = self._known_fields if len(section) <= _LONGEST_KNOWN else self._fields
        fields = sign(section, content.hash, keys)
        return evolve(message, trace=with_fields(message.trace, fields)), content

    def _fields(self, section: bytes, hash: bytes, keys: tuple[SigningKey, ...]) -> bytes:
        return sign_all(section, hash, keys, time=int(self._wall_time()))


def _message(signed: tuple[Message, _Content | None]) -> Message:
    return signed[0]


def _is_plain(section: bytes) -> bool:
    """Whether a header section is short, and has no CR and no LF but at the ends of lines."""
    ends = section.count(b"\r\n")
    return (
        len(section) <= _LONGEST_HEADER
        and section.count(b"\r") == ends
        and section.count(b"\n") == ends
    )


def _hash(body: bytes | Iterator[bytes]) -> bytes:
    # A whole body takes a quarter of the time of one in pieces, where it is as small as most.
    return sha256(relaxed_body(body)).digest() if isinstance(body, bytes) else body_hash(body)


def _divided_at_once(content: bytes) -> tuple[bytes, bytes]:
    if content.startswith(b"\r\n"):
        return b"", content[2:]
    end = content.find(b"\r\n\r\n")
    return (content, b"") if end < 0 else (content[: end + 2], content[end + 4 :])


def _divided(content: Body) -> tuple[bytes, Iterator[bytes]]:
    """Return the header section of a content, and the pieces of what follows the empty line.

    A header section that is too long is cut off.
    """
    pieces = content.chunks()
    header = bytearray()
    for piece in pieces:
        start = max(0, len(header) - 3)
        header += piece
        if header.startswith(b"\r\n"):
            return b"", _after(bytes(header[2:]), pieces)
        end = header.find(b"\r\n\r\n", start)
        if end >= 0:
            return bytes(header[: end + 2]), _after(bytes(header[end + 4 :]), pieces)
        if len(header) > _LONGEST_HEADER:
            break
    return bytes(header), iter(())


def _after(first: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from pieces
