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
# Octets of a Content-Type or Content-Transfer-Encoding with its folds: one that is longer cannot be
# read. Each is matched in one call, in which nothing else happens.
_LONGEST_FIELD = 16_384
# Multiparts within one another. Python's own parser recurses, and dies of some hundred.
_DEEPEST = 30
_PIECE = 65_536  # octets that are searched at a time
MOST_ENTITIES = 5_000
"""Messages and body parts of one content."""

# RFC 2046 §5.1.1. A delimiter has dashes around its boundary, and white space behind it.
_LONGEST_BOUNDARY = 70
_PADDING = 900
_LONGEST_DELIMITER = 998

# Quantifiers are possessive (`*+`): what one has taken, the next one does not get to try. With two
# that take the same octets, a match that fails would else cost the square of their number.
#
# RFC 5322 §2.2: field-name = 1*ftext, with the white space of §4.5 before the colon; and its lines.
_FIELD = re.compile(
    rb"([\x21-\x39\x3b-\x7e]++)[ \t]*+:([^\r\n\x00]*+\r\n(?:[ \t][^\r\n\x00]*+\r\n)*+)"
)
# RFC 2045 §5.1, §6.1; comments where white space may be, not within one another.
_TOKEN = rb"([!#$%&'*+\-.0-9A-Z^_`a-z{|}~]++)"
_SPACE = rb"(?:\s++|\([^()]*+\))*+"
_TYPE = re.compile(_SPACE + _TOKEN + rb"/" + _TOKEN + _SPACE)
_PARAMETER = re.compile(
    rb";" + _SPACE + rb"(?:" + _TOKEN + rb"\s*+=\s*+(\"(?:[^\"\\]|\\.)*+\"|[^\s;\"]++))?+" + _SPACE,
    re.DOTALL,
)
_ENCODING = re.compile(_SPACE + _TOKEN + _SPACE + rb";?+" + _SPACE)
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")  # RFC 2231 §4
_PRINTABLE = re.compile(rb"[\t -~]+")
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
# The line end before a line that may end a header section: the empty one, or a delimiter.
_LAST_LINE_END = re.compile(rb"\r\n(?=\r\n|--)")

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
        boundary: of its delimiters. The whole line counts: RFC 2046 §5.1.1 would let one go on
            behind its boundary, and then no boundary could begin with another one.
        default: the content type of parts that name none.
        number: of the header section that names the boundary.
    """

    boundary: bytes
    default: str
    number: int


@frozen
class _Found:
    """A delimiter line that was met.

    Attributes:
        octets: with the line ends around it.
        level: whose it is, the outermost being 0.
        closing: whether it is the last one.
    """

    octets: bytes
    level: int
    closing: bool


def sections(chunks: Iterable[bytes], most: int = MOST_ENTITIES) -> Iterator[Section]:
    """Yield the sections of a content, in time that grows with its size alone.

    Where delimiters of an outer multipart come before the last one of an inner, that ends too.

    Args:
        chunks: the content.
        most: messages and body parts that are looked for.

    Raises:
        TooManyParts: see there.
    """
    reader = _Reader(_pieces(chunks))
    default, top = "text/plain", True
    number = entities = 0
    while True:
        entities += 1
        if entities > most:
            raise TooManyParts(f"it has more than {most} parts")
        octets, end = reader.header()
        entity = read_entity(octets, default=default, top=top)
        if end == "length":
            entity = _sealed(entity, f"it has a header section of over {_LONGEST_HEADER} octets")
        if entity.kind == "multipart" and len(reader.levels) >= _DEEPEST:
            entity = _sealed(entity, f"it has multiparts nested more than {_DEEPEST} deep")
        yield Header(number, octets, entity)
        if entity.kind == "message" and end == "line":
            number += 1
            default, top = "text/plain", True
            continue
        ignored = entity.kind == "multipart"
        if ignored:
            # RFC 2046 §5.1.5
            inner = "message/rfc822" if entity.type == "multipart/digest" else "text/plain"
            reader.enter(_Level(entity.boundary, inner, number))
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
            reader.leave(found.level if found.closing else found.level + 1)
            if not found.closing:
                break
            ignored = True
        default, top = reader.levels[-1].default, False


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), _PIECE):
            yield chunk[start : start + _PIECE]


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
        encoding = _ENCODING.fullmatch(_value(encodings[0]))
        if not encoding:
            return _sealed(entity, "it has a Content-Transfer-Encoding that cannot be read")
        entity = evolve(entity, encoding=encoding[1].decode("ascii").lower())
    if types:
        read = _content_type(_value(types[0]))
        if read is None:
            return _sealed(entity, "it has a Content-Type that cannot be read")
        type, boundary = read
        entity = evolve(entity, typed=True, type=type, boundary=boundary)
    return _of_kind(entity)


def _value(field: bytes) -> bytes:
    """Return the value of a field, unfolded (RFC 5322 §2.2.3); nothing of one that is too long."""
    if len(field) > _LONGEST_FIELD:
        return b""
    return field.partition(b":")[2].replace(b"\r\n", b"")


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
    return _QUOTED_PAIR.sub(rb"\1", value[1:-1]) if value.startswith(b'"') else value


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
    boundary = boundary.rstrip(b" \t")
    usable = len(boundary) <= _LONGEST_BOUNDARY and _PRINTABLE.fullmatch(boundary)
    return boundary if usable else b""


class _Reader:
    """Reads headers and bodies from chunks that are cut anywhere.

    It goes from one line that begins as a delimiter does to the next, and sees each octet a few
    times, however many parts and multiparts there are.

    Attributes:
        levels: the multiparts that it is within, the outermost first.
        found: the delimiter that ended the body that was read last; None at the end of all.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.levels: list[_Level] = []
        self.found: _Found | None = None
        self._boundaries: dict[bytes, int] = {}  # the levels by their boundaries
        # How their delimiters begin, the innermost first, and the octet of the content before which
        # none is left that begins so: each octet is searched once for each of them.
        self._ahead: dict[bytes, int] = {}
        self._taken = 0  # octets of the content that were handed out
        self._chunks = chunks
        self._buffer = bytearray()  # what was read and not handed out
        self._fresh = True  # whether that begins at the start of a line

    def enter(self, level: _Level) -> None:
        """Be within one more multipart."""
        self.levels.append(level)
        self._index()

    def leave(self, level: int) -> None:
        """Be no more within the multipart of that number, nor in those within it."""
        del self.levels[level:]
        self._index()

    def _index(self) -> None:
        # The innermost goes last: where boundaries are the same, it is meant.
        self._boundaries = {each.boundary: number for number, each in enumerate(self.levels)}
        starts = [b"\r\n--" + boundary for boundary in reversed(self._boundaries)]
        self._ahead = {each: self._ahead.get(each, 0) for each in starts}

    def header(self) -> tuple[bytes, Literal["line", "delimiter", "end", "length"]]:
        """Return a header section, and what ended it.

        The empty line is included, where it was that; a line end before a delimiter stays with the
        field that it ends. By its length it is ended where it is too long; and else by the end of
        the content.
        """
        buffer = self._buffer
        line = searched = 0
        at_end = False
        while True:
            if buffer.startswith(b"\r\n", line):
                return self._take(line + 2), "line"
            found = self._delimiter(line, line, at_end=at_end)
            if isinstance(found, _Found):
                return self._take(line), "delimiter"
            match = _LAST_LINE_END.search(buffer, searched) if found == "none" else None
            searched = match.start() + 2 if match else max(searched, len(buffer) - 3)
            if searched > _LONGEST_HEADER:
                end = buffer.rfind(b"\r\n", 0, _LONGEST_HEADER) + 2
                return self._take(end if end >= 2 else _LONGEST_HEADER), "length"
            if match is not None:
                line = searched
                continue
            if at_end:
                return self._take(len(buffer)), "end"
            at_end = not self._more()

    def body(self) -> Iterator[bytes]:
        """Yield what comes before the next delimiter, in pieces; then `found` is that."""
        buffer = self._buffer
        self.found = None
        fresh, at_end = self._fresh, False  # at its beginning, a delimiter needs no line end
        while True:
            begin = 0
            found = self._delimiter(0, 0, at_end=at_end) if fresh else "none"
            searched = 0
            while found == "none":
                begin = self._next(searched)
                if begin < 0:
                    begin = len(buffer) if at_end else self._sure()
                    break
                found = self._delimiter(begin, begin + 2, at_end=at_end)
                searched = begin + 2
            if begin:
                fresh = False
                yield self._take(begin)
            if isinstance(found, _Found):
                self.found = found
                self._take(len(found.octets))
                return
            if at_end:
                return
            at_end = not self._more()

    def _delimiter(
        self, begin: int, line: int, *, at_end: bool
    ) -> _Found | Literal["none", "unfinished"]:
        """Return the delimiter that a line is, with the line end before it.

        Args:
            begin: where that line end is; the same as ``line`` where it has none.
            line: where it begins.
            at_end: whether nothing follows what was read.
        """
        buffer = self._buffer
        if not self.levels:
            return "none"
        if not buffer.startswith(b"--", line):
            half = b"--".startswith(bytes(buffer[line : line + 2]))
            return "unfinished" if half and not at_end else "none"
        end = buffer.find(b"\r\n", line, line + _LONGEST_DELIMITER + 2)
        if end < 0:
            end = len(buffer)
            if not at_end and end - line <= _LONGEST_DELIMITER + 1:
                return "unfinished"
        if end - line > _LONGEST_DELIMITER:
            return "none"
        padded = bytes(buffer[line + 2 : end])
        text = padded.rstrip(b" \t")
        if len(padded) - len(text) > _PADDING:
            return "none"
        level, closing = self._boundaries.get(text, -1), False
        if text.endswith(b"--"):
            # Where a boundary looks like the end of another one, the innermost is meant.
            other = self._boundaries.get(text[:-2], -1)
            if other > level:
                level, closing = other, True
        if level < 0:
            return "none"
        return _Found(bytes(buffer[begin : end + 2]), level, closing)

    def _next(self, start: int) -> int:
        """Return where the next line that begins as a delimiter does has its line end; -1: none."""
        buffer, taken = self._buffer, self._taken
        first, size = -1, len(buffer)
        for line, ahead in self._ahead.items():
            at = ahead - taken if ahead - taken > start else start
            if at + len(line) > size or 0 <= first <= at:
                continue
            if not buffer.startswith(line, at):
                found = buffer.find(line, at)
                at = found if found >= 0 else size - len(line) + 1
                self._ahead[line] = taken + at
                if found < 0 or 0 <= first < found:
                    continue
            first = at
        return first

    def _sure(self) -> int:
        """Return how many octets of what was read no delimiter begins within."""
        buffer = self._buffer
        last = buffer.rfind(b"\r", max(0, len(buffer) - _LONGEST_BOUNDARY - 4))
        if last >= 0 and any(line.startswith(bytes(buffer[last:])) for line in self._ahead):
            return last
        return len(buffer)

    def _more(self) -> bool:
        chunk = next(self._chunks, None)
        if chunk is None:
            return False
        self._buffer += chunk
        return True

    def _take(self, octets: int) -> bytes:
        taken = bytes(self._buffer[:octets])
        del self._buffer[:octets]
        self._taken += len(taken)
        if taken:
            self._fresh = taken.endswith(b"\r\n")
        return taken
