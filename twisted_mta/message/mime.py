"""The MIME structure of a content (RFC 2045, RFC 2046), read as it streams by.

Pure. `sections` cuts a content into headers, bodies and the delimiters between them; put together
again they are the content, octet for octet, whatever it was. A header section is held whole, a body
never is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal

from attrs import evolve, frozen

# Octets of one header section; what is longer is not looked into. A listener takes 1 MiB at most
# by default (`max_header_size`), and parts have a few hundred.
_LONGEST_HEADER = 1 << 20
# Multiparts within one another. Python's own parser recurses, and dies of some hundred.
_DEEPEST = 30
_MOST_ENTITIES = 5_000

# RFC 2046 §5.1.1. A delimiter has dashes around its boundary, and white space behind it.
_LONGEST_BOUNDARY = 70
_PADDING = 900
_LONGEST_DELIMITER = 998

# RFC 5322 §2.2: field-name = 1*ftext, with the white space of §4.5 before the colon; and its lines.
_FIELD = re.compile(rb"([\x21-\x39\x3b-\x7e]+)[ \t]*:([^\r\n\x00]*\r\n(?:[ \t][^\r\n\x00]*\r\n)*)")
# RFC 2045 §5.1, §6.1; comments where white space may be, not within one another.
_TOKEN = rb"([!#$%&'*+\-.0-9A-Z^_`a-z{|}~]+)"
_SPACE = rb"(?:\s|\([^()]*\))*"
_TYPE = re.compile(_SPACE + _TOKEN + rb"/" + _TOKEN + _SPACE)
_PARAMETER = re.compile(
    rb";" + _SPACE + rb"(?:" + _TOKEN + rb"\s*=\s*(\"(?:[^\"\\]|\\.)*\"|[^\s;\"]+))?" + _SPACE,
    re.DOTALL,
)
_ENCODING = re.compile(_SPACE + _TOKEN + _SPACE + rb";?" + _SPACE)
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")  # RFC 2231 §4
_PRINTABLE = re.compile(rb"[ -~]+")
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)

IDENTITY = ("7bit", "8bit", "binary")
"""The encodings that change nothing (RFC 2045 §6.2)."""


class TooManyParts(ValueError):
    """A content with more parts than anybody makes."""


Kind = Literal["leaf", "multipart", "message", "sealed"]


@frozen
class Entity:
    """What a header section says of the body behind it.

    Attributes:
        kind: ``leaf``: octets of one kind; ``multipart``; ``message``: a whole message;
            ``sealed``: what must not, or cannot, be changed or looked into.
        top: whether it is a message and no body part.
        type: the content type in lower case, ``text/plain``.
        encoding: the Content-Transfer-Encoding in lower case, ``7bit`` without one.
        boundary: that of a multipart; empty where there is none that could be used.
        typed: whether there is a Content-Type field.
        reason: why it is sealed.
    """

    kind: Kind
    top: bool
    type: str
    encoding: str
    boundary: bytes = b""
    typed: bool = False
    reason: str = ""


@frozen
class Header:
    """A header section with the empty line behind it, where there is one.

    Attributes:
        number: of this section, from 0; of the body, where it is a leaf or sealed, likewise.
        octets: as they came.
        entity: what they say of the body.
    """

    number: int
    octets: bytes
    entity: Entity


@frozen
class Piece:
    """Some octets of a body, never none.

    Attributes:
        number: of the section.
        octets: as they came.
        ignored: whether it is what stands before the first delimiter of a multipart, or behind its
            last one: nobody is shown it (RFC 2046 §5.1.1).
    """

    number: int
    octets: bytes
    ignored: bool


@frozen
class Delimiter:
    """The line between two parts with the line end before it, which belongs to it.

    Attributes:
        number: of this section.
        octets: as they came.
        multipart: the number of the multipart that it belongs to: that of its header section.
        closing: whether it is the last one of that.
    """

    number: int
    octets: bytes
    multipart: int
    closing: bool


Section = Header | Piece | Delimiter


@frozen
class _Level:
    """A multipart that is being read.

    Attributes:
        line: a line that delimits its parts. The whole line counts: RFC 2046 §5.1.1 would let one
            go on behind its boundary, and then no boundary could begin with another one.
        after: the same, with the line end before it.
        default: the content type of parts that name none.
        number: of the header section that names the boundary.
    """

    line: re.Pattern[bytes]
    after: re.Pattern[bytes]
    default: str
    number: int

    @classmethod
    def of(cls, boundary: bytes, default: str, number: int) -> _Level:
        line = b"--" + re.escape(boundary) + rb"(--)?[ \t]{0,%d}\r\n" % _PADDING
        return cls(re.compile(line), re.compile(rb"\r\n" + line), default, number)


@frozen
class _Found:
    """A delimiter line that was met.

    Attributes:
        start: where it is in what was searched.
        octets: with the line ends around it.
        level: whose it is, the outermost being 0.
        closing: whether it is the last one.
    """

    start: int
    octets: bytes
    level: int
    closing: bool


def sections(chunks: Iterable[bytes]) -> Iterator[Section]:
    """Yield the sections of a content.

    Where delimiters of an outer multipart come before the last one of an inner, that ends too.

    Raises:
        TooManyParts: see there.
    """
    reader = _Reader(iter(chunks))
    default, top = "text/plain", True
    number = entities = 0
    while True:
        entities += 1
        if entities > _MOST_ENTITIES:
            raise TooManyParts(f"it has more than {_MOST_ENTITIES} parts")
        octets, whole = reader.header()
        entity = read_entity(octets, default=default, top=top)
        if len(octets) > _LONGEST_HEADER:
            # Where it was cut, the rest of it comes as the body.
            entity = _sealed(entity, f"it has a header section over {_LONGEST_HEADER} octets")
        elif entity.kind == "multipart" and len(reader.levels) >= _DEEPEST:
            entity = _sealed(entity, f"it has multiparts nested more than {_DEEPEST} deep")
        yield Header(number, octets, entity)
        if entity.kind == "message" and whole:
            number += 1
            default, top = "text/plain", True
            continue
        ignored = entity.kind == "multipart"
        if ignored:
            # RFC 2046 §5.1.5
            inner = "message/rfc822" if entity.type == "multipart/digest" else "text/plain"
            reader.levels.append(_Level.of(entity.boundary, inner, number))
            number += 1
        while True:
            for piece in reader.body():
                yield Piece(number, piece, ignored)
            found = reader.found
            if found is None:
                return
            number += 1
            multipart = reader.levels[found.level].number
            yield Delimiter(number, found.octets, multipart, found.closing)
            number += 1
            del reader.levels[found.level + 1 :]
            if not found.closing:
                break
            reader.levels.pop()
            ignored = True
        default, top = reader.levels[-1].default, False


def fields(header: bytes) -> list[tuple[bytes, bytes]] | None:
    """Return (name, octets of the whole field) for each field of a header section, in order.

    Names are in lower case. None: it has something in it that is no field.
    """
    end = len(header) - (2 if header.endswith(b"\r\n\r\n") or header == b"\r\n" else 0)
    found: list[tuple[bytes, bytes]] = []
    at = 0
    while at < end:
        match = _FIELD.match(header, at, end)
        if not match:
            return None
        found.append((match[1].lower(), match[0]))
        at = match.end()
    return found


def read_entity(header: bytes, *, default: str = "text/plain", top: bool = True) -> Entity:
    """Return what a header section says of its body.

    Args:
        header: its octets.
        default: the content type where it names none.
        top: see `Entity`.
    """
    entity = Entity("leaf", top, default, "7bit")
    found = fields(header)
    if found is None:
        return _sealed(entity, "it has a header that cannot be read")
    types = [octets for name, octets in found if name == b"content-type"]
    encodings = [octets for name, octets in found if name == b"content-transfer-encoding"]
    if len(types) > 1 or len(encodings) > 1:
        return _sealed(entity, "it says twice of what type or encoding a part is")
    if encodings:
        encoding = _ENCODING.fullmatch(encodings[0].partition(b":")[2])
        if not encoding:
            return _sealed(entity, "it has a Content-Transfer-Encoding that cannot be read")
        entity = evolve(entity, encoding=encoding[1].decode("ascii").lower())
    if types:
        read = _content_type(types[0].partition(b":")[2])
        if read is None:
            return _sealed(entity, "it has a Content-Type that cannot be read")
        type, boundary = read
        entity = evolve(entity, typed=True, type=type, boundary=boundary)
    return _of_kind(entity)


def _of_kind(entity: Entity) -> Entity:
    main, _, sub = entity.type.partition("/")
    if main == "multipart":
        if sub in ("signed", "encrypted"):
            # RFC 1847 §2.1: no octet of what was signed may change.
            return _sealed(entity, f"multipart/{sub} must not be changed")
        if not entity.boundary:
            return _sealed(entity, "it has a multipart without a boundary that could be used")
        kind: Kind = "multipart"
    elif entity.type == "message/rfc822":
        kind = "message"
    elif main == "message" and not sub.startswith("global"):
        # RFC 2046 §5.2.2, §5.2.3: of 7 bits, always. What RFC 6532 §3.7 and RFC 6533 add may have
        # any encoding.
        return _sealed(entity, f"{entity.type} has 7 bits and no encoding")
    else:
        return entity
    if entity.encoding not in IDENTITY:
        # RFC 2045 §6.4
        return _sealed(entity, f"{entity.type} is encoded, which it must not be")
    return evolve(entity, kind=kind)


def _sealed(entity: Entity, reason: str) -> Entity:
    return evolve(entity, kind="sealed", reason=reason)


def _content_type(value: bytes) -> tuple[str, bytes] | None:
    """Return type and boundary (empty without one) of a Content-Type; None: it cannot be read."""
    found = _TYPE.match(value)
    if not found:
        return None
    type = f"{found[1].decode('ascii')}/{found[2].decode('ascii')}".lower()
    named: dict[bytes, bytes] = {}
    at = found.end()
    while at < len(value):
        parameter = _PARAMETER.match(value, at)
        if not parameter:
            return None
        name = (parameter[1] or b"").lower()
        if name.partition(b"*")[0] == b"boundary":
            if name in named:
                return None
            named[name] = _unquoted(parameter[2])
        at = parameter.end()
    boundary = _boundary(named)
    return None if boundary is None else (type, boundary)


def _unquoted(value: bytes) -> bytes:
    if not value.startswith(b'"'):
        return value
    # RFC 5322 §2.2.3: line ends are no part of it.
    return _QUOTED_PAIR.sub(rb"\1", value[1:-1].replace(b"\r\n", b""))


def _boundary(named: dict[bytes, bytes]) -> bytes | None:
    """Return the boundary of parameters of that name; empty: there is none; None: there are two.

    It may be written in sections, and in percent encoding (RFC 2231 §3, §4).
    """
    plain = named.pop(b"boundary", None)
    if plain is not None:
        return None if named else _usable(plain)
    extended = named.pop(b"boundary*", None)
    if extended is not None:
        return None if named else _usable(_percent_decoded(extended, first=True))
    boundary = b""
    for number in range(len(named)):
        name = b"boundary*%d" % number
        section = named.get(name)
        if section is None:
            encoded = named.get(name + b"*")
            if encoded is None:
                return None
            section = _percent_decoded(encoded, first=not number)
        boundary += section
        if len(boundary) > _LONGEST_BOUNDARY:
            return b""
    return _usable(boundary)


def _percent_decoded(value: bytes, *, first: bool) -> bytes:
    if first:
        value = value.split(b"'", 2)[-1]  # behind charset and language
    return _PERCENT.sub(lambda found: bytes([int(found[1], 16)]), value)


def _usable(boundary: bytes) -> bytes:
    # RFC 2046 §5.1.1 allows fewer characters yet; these can stand in a line.
    boundary = boundary.rstrip(b" ")
    usable = len(boundary) <= _LONGEST_BOUNDARY and _PRINTABLE.fullmatch(boundary)
    return boundary if usable else b""


class _Reader:
    """Reads headers and bodies from chunks that are cut anywhere.

    Attributes:
        levels: the multiparts that it is within, the outermost first.
        found: the delimiter that ended the body that was read last; None at the end of all.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.levels: list[_Level] = []
        self.found: _Found | None = None
        self._chunks = chunks
        self._buffer = b""  # what was read and not handed out; it begins at the start of a line

    def header(self) -> tuple[bytes, bool]:
        """Return a header section, and whether the empty line ended it, which it includes then.

        It is ended by a delimiter too, by the end of the content, and by its length.
        """
        searched = 0
        while True:
            if self._buffer[:2] == b"\r\n":
                return self._take(2), True
            end = self._buffer.find(b"\r\n\r\n", max(searched - 3, 0))
            searched = len(self._buffer)
            if end >= 0 or searched > _LONGEST_HEADER or not self._more():
                break
        found = self._find(self._buffer if end < 0 else self._buffer[: end + 2], fresh=True)
        if found is not None:
            # A line end before the delimiter stays with the field that it ends.
            return self._take(found.start + 2 if found.start else 0), False
        return (self._take(searched), False) if end < 0 else (self._take(end + 4), True)

    def body(self) -> Iterator[bytes]:
        """Yield what comes before the next delimiter, in pieces; then `found` is that."""
        fresh, at_end = True, False  # a delimiter needs no line end before it
        while True:
            self.found = self._find(self._buffer, fresh=fresh, at_end=at_end)
            if self.found is not None:
                octets = self.found.start
            else:
                octets = len(self._buffer) if at_end else self._sure(fresh=fresh)
            if octets:
                fresh = False
                yield self._take(octets)
            if self.found is not None:
                self._take(len(self.found.octets))
            if self.found is not None or at_end:
                return
            at_end = not self._more()

    def _find(self, text: bytes, *, fresh: bool, at_end: bool = True) -> _Found | None:
        """Return the first delimiter in ``text``, whose last line counts as whole ``at_end``."""
        ended = text + b"\r\n" if at_end and self.levels else text
        first: re.Match[bytes] | None = None
        depth = 0
        last = len(ended)
        # The innermost goes first: where boundaries are the same, or one looks like the end of
        # another, it is meant.
        for number in range(len(self.levels) - 1, -1, -1):
            level = self.levels[number]
            match = level.line.match(ended, 0, last) if fresh else None
            match = match or level.after.search(ended, 0, last)
            if match:
                first, depth = match, number
                last = match.start() + 2  # where a line before it would have its end
                if not match.start():
                    break
        if first is None:
            return None
        octets = first[0][: len(text) - first.start()]
        return _Found(first.start(), octets, depth, first[1] is not None)

    def _sure(self, *, fresh: bool) -> int:
        """Return how many octets of what was read are surely before any delimiter."""
        buffer = self._buffer
        if not self.levels:
            return len(buffer)
        last = buffer.rfind(b"\r\n")
        line = buffer[last + 2 :] if last >= 0 else buffer
        begins = line[:2] == b"--" or line in (b"", b"-")
        if begins and (last >= 0 or fresh) and len(line) <= _LONGEST_DELIMITER:
            return max(last, 0)
        return len(buffer) - buffer.endswith(b"\r")

    def _more(self) -> bool:
        chunk = next(self._chunks, None)
        if chunk is None:
            return False
        self._buffer += chunk
        return True

    def _take(self, octets: int) -> bytes:
        taken, self._buffer = self._buffer[:octets], self._buffer[octets:]
        return taken
