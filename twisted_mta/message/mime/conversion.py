"""A content of 8 bits, or of binary, made into one of 7 for a next hop that takes no other.

RFC 6152 §3, RFC 3030 §3, RFC 2045 §6. Pure, but for reading the body. Only the parts that need it
are encoded, and the fields that say so change with them; all other octets stay as they are, so that
a large message passes through in pieces. The content is read twice: once to see what each part
needs, and once for every time that it is sent.

Nothing is left out. Every octet of the content is copied, encoded, or in a header section of which
one field says now how the body is encoded; each reading counts them, and fails if any is missing.

A signature over the content (DKIM, RFC 6376 §5.3) does not survive this, which is why a content of
7 bits is never touched.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Literal

from attrs import define, evolve, field, frozen

from ...mail.body import Body
from ...mail.message import Message
from ...mail.printable import printable
from ...mail.reply import Reply
from .encoding import Base64, Encoder, QuotedPrintable, is_mostly_ascii
from .sections import (
    IDENTITY,
    MOST_ENTITIES,
    Delimiter,
    Entity,
    Header,
    Piece,
    Section,
    TooManyParts,
    fields,
    sections,
)

_ASCII = bytes(range(128))
_LONGEST_LINE = 998  # octets without CR LF, RFC 5322 §2.1.1
_PIECE = 65_536  # octets that are handed out at a time, about

_TYPE, _ENCODING = b"content-type", b"content-transfer-encoding"

Treatment = Literal["quoted-printable", "base64"]


class CannotConvert(Exception):
    """A content that cannot be made into 7 bits without damage.

    Attributes:
        reply: what its recipients get (RFC 3463 §3.7: X.6.3, conversion required but not
            supported).
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        text = f"the next hop takes 7 bits alone, and the message cannot be converted: {reason}"
        self.reply = Reply.of(554, "6.3", text)


def needs_conversion(body: Body) -> bool:
    """Whether ``body`` has anything that 7 bits, in lines, do not carry.

    Raises:
        OSError: it cannot be read.
    """
    measure = _Measure()
    for chunk in body.chunks():
        measure.feed(chunk)
        if measure.faulty or measure.long:
            return True
    measure.end()
    return measure.faulty or measure.long


def converted(message: Message) -> Message:
    """Return ``message`` with a content of 7 bits, and an envelope that asks for no more.

    Blocks while the content is read, once or twice.

    Raises:
        CannotConvert: it cannot be; why.
        OSError: its body cannot be read.
    """
    if not message.trace.isascii():
        raise CannotConvert("its trace fields have octets over 127 (RFC 6532)")
    envelope = message.envelope
    parameters = {name: value for name, value in envelope.parameters.items() if name != "BODY"}
    return evolve(
        message,
        body=to_seven_bit(message.body),
        envelope=evolve(envelope, parameters=parameters),
    )


def to_seven_bit(body: Body, most: int = MOST_ENTITIES) -> Body:
    """Return a body of 7 bits, of the same meaning; ``body`` itself, if it is one.

    No octet of it is over 127, no line over 998 octets unless it was so in what is not encoded
    here, and CR and LF are only in line ends. Its size is found out when it is asked for first.

    Args:
        body: a message, of any octets; read here once, twice if it has to be changed, and again by
            each use of the result.
        most: messages and body parts that it may have.

    Raises:
        CannotConvert: it cannot be converted; why.
        OSError: it cannot be read.
    """
    if not needs_conversion(body):
        return body
    return SevenBitBody(body, _plan(body, most))


@define
class _Measure:
    """What a run of octets has in it.

    Attributes:
        octets: how many.
        high: how many of them are over 127.
        bare: whether there is a NUL, or a CR or LF that is no line end.
        long: whether a line has more than 998 octets.
        utf8: whether they are UTF-8.
    """

    octets: int = 0
    high: int = 0
    bare: bool = False
    long: bool = False
    utf8: bool = True
    _decoder: codecs.IncrementalDecoder = field(
        factory=lambda: codecs.getincrementaldecoder("utf-8")()
    )
    _held: bytes = b""
    _line: int = 0

    @property
    def faulty(self) -> bool:
        """Whether it is more than ASCII in lines."""
        return self.bare or self.high > 0

    def feed(self, octets: bytes) -> None:
        """Take the next octets, cut anywhere."""
        self.octets += len(octets)
        if not octets.isascii():
            self.high += len(octets.translate(None, _ASCII))
        if self.utf8 and self.high:
            self._decode(octets)
        octets = self._held + octets
        self._held = b""
        if octets.endswith(b"\r"):
            octets, self._held = octets[:-1], b"\r"
        self._look(octets)

    def end(self) -> _Measure:
        """Take note that nothing follows; return itself."""
        self._look(self._held)
        self._held = b""
        if self.utf8 and self.high:
            self._decode(b"", final=True)
        return self

    def _decode(self, octets: bytes, *, final: bool = False) -> None:
        try:
            self._decoder.decode(octets, final)
        except UnicodeDecodeError:
            self.utf8 = False

    def _look(self, octets: bytes) -> None:
        breaks = octets.count(b"\r\n")
        if octets.count(b"\r") != breaks or octets.count(b"\n") != breaks or b"\0" in octets:
            self.bare = True
        if self.long:
            return
        if not breaks:
            self._line += len(octets)
            self.long = self._line > _LONGEST_LINE
            return
        first, last = octets.find(b"\r\n"), octets.rfind(b"\r\n")
        before, self._line = self._line + first, len(octets) - last - 2
        self.long = max(before, self._line) > _LONGEST_LINE or _has_long_line(octets, first, last)


def _has_long_line(octets: bytes, first: int, last: int) -> bool:
    """Whether a line between two line ends is too long."""
    at = first
    while at < last:
        # The last line end that is near enough; most lines are short, so this takes long strides.
        stride = octets.rfind(b"\r\n", at + 1, at + _LONGEST_LINE + 4)
        if stride < 0:
            return True
        at = stride
    return False


@frozen(eq=False)
class _Run:
    """Sections that are encoded as one body.

    Attributes:
        treatment: how.
        utf8: whether they are UTF-8.
        retyped: whether they are what stands in a multipart that has no part.
    """

    treatment: Treatment
    utf8: bool
    retyped: bool = False


@frozen
class _Plan:
    """What becomes of each section, by its number; what is not in it stays as it is.

    Attributes:
        runs: of the sections that are encoded, the run that each belongs to.
        heads: of header sections, the run that they are to describe.
        octets: of the whole content.
    """

    runs: dict[int, _Run]
    heads: dict[int, _Run]
    octets: int


@define
class _Text:
    """What stands behind a header section, or behind the last delimiter of a multipart.

    Attributes:
        head: the header section that says what it is, if any does.
        numbers: of its sections.
        measure: of their octets.
    """

    head: Header | None
    numbers: set[int] = field(factory=set)
    measure: _Measure = field(factory=_Measure)

    def add(self, section: Piece | Delimiter) -> None:
        self.numbers.add(section.number)
        self.measure.feed(section.octets)

    def has(self, delimiter: Delimiter) -> bool:
        """Whether a delimiter is the last one of a multipart which has had none before it."""
        return self.is_of(delimiter) and delimiter.closing

    def is_of(self, delimiter: Delimiter) -> bool:
        """Whether the text is what stands before the first delimiter of a multipart."""
        return self.head is not None and self.head.number == delimiter.multipart


def _plan(body: Body, most: int) -> _Plan:
    runs: dict[int, _Run] = {}
    heads: dict[int, _Run] = {}
    text = _Text(None)

    def decide(*, described: bool = True) -> None:
        head = text.head if described else None
        run = _run(None if head is None else head.entity, text.measure.end())
        if run is not None:
            runs.update(dict.fromkeys(text.numbers, run))
            if head is not None:
                heads[head.number] = run

    source = _Counted(body)
    try:
        for section in sections(source.chunks(), most):
            if isinstance(section, Header):
                decide()
                text = _Text(section)
                _check(section.octets)
            elif isinstance(section, Piece) or text.has(section):
                text.add(section)
            else:
                decide(described=not text.is_of(section))
                text = _Text(None)
    except TooManyParts as error:
        raise CannotConvert(str(error)) from None
    decide()
    return _Plan(runs, heads, source.octets)


class _Counted:
    """A body, and how many of its octets were read."""

    def __init__(self, body: Body) -> None:
        self.octets = 0
        self._body = body

    def chunks(self) -> Iterator[bytes]:
        for chunk in self._body.chunks():
            self.octets += len(chunk)
            yield chunk


def _check(header: bytes) -> None:
    """Refuse a header section that 7 bits do not carry: there is no encoding for one."""
    measure = _Measure()
    measure.feed(header)
    if measure.end().high:
        # RFC 6532 §3: for SMTPUTF8 alone.
        raise CannotConvert("a header section of it has octets over 127 (RFC 6532)")
    if measure.bare:
        raise CannotConvert("a header section of it has NUL, or CR or LF outside line ends")


def _run(entity: Entity | None, measure: _Measure) -> _Run | None:
    """Return what has to become of a text; None: nothing.

    Args:
        entity: what its header section says of it; None: it stands in a multipart, and is no part.
        measure: of its octets.

    Raises:
        CannotConvert: it would have to be changed, and cannot be.
    """
    if not (measure.faulty or measure.long):
        return None
    if entity is None:
        # RFC 2046 §5.1.1: programs ignore it, and no field could say how it is encoded. People
        # may read it, and this encoding even as it stands.
        return _Run("quoted-printable", measure.utf8)
    if entity.kind == "sealed":
        if measure.faulty:
            raise CannotConvert(printable(entity.reason))
        return None
    if entity.encoding not in IDENTITY:
        if measure.faulty:
            raise CannotConvert(
                f"a part said to be {printable(entity.encoding)} has octets that are not"
            )
        return None
    # Without a part it is no multipart, which could not be encoded (RFC 2045 §6.4). What has a
    # content type that is wrong is text (RFC 2045 §5.2).
    retyped = entity.kind == "multipart"
    text = retyped or entity.type.startswith("text/")
    quoted = text and not measure.bare and is_mostly_ascii(measure.octets, measure.high)
    return _Run("quoted-printable" if quoted else "base64", measure.utf8, retyped)


class SevenBitBody:
    """A body whose octets are made as they are read (`mail.envelope.Body`)."""

    def __init__(self, body: Body, plan: _Plan) -> None:
        self._body = body
        self._plan = plan
        self._size: int | None = None

    @property
    def size(self) -> int:
        """Octets. The first time, the whole body is read for it.

        Raises:
            CannotConvert: see `chunks`.
            OSError: it cannot be read.
        """
        if self._size is None:
            self._size = sum(map(len, self.chunks()))
        return self._size

    def chunks(self) -> Iterator[bytes]:
        """Yield the content, in pieces of any size but empty.

        Raises:
            CannotConvert: not every octet of the body has gone somewhere. The last piece is not
                yielded then.
            OSError: it cannot be read, or is not the body that it was.
        """
        held: list[bytes] = []
        octets = 0
        for piece in self._pieces():
            if octets >= _PIECE:
                yield b"".join(held)
                held, octets = [], 0
            held.append(piece)
            octets += len(piece)
        if octets:
            yield b"".join(held)

    def _pieces(self) -> Iterator[bytes]:
        source = _Counted(self._body)
        kept = 0  # octets that were copied, encoded, or are in a header section
        run: _Run | None = None
        encoder: Encoder | None = None
        for section in sections(source.chunks()):
            this = self._run(section)
            if this is not run:
                if encoder is not None:
                    yield encoder.end()
                    kept += encoder.octets
                run, encoder = this, None if this is None else _encoder(this.treatment)
            if encoder is not None:
                yield encoder.feed(section.octets)
                continue
            yield self._header(section) if isinstance(section, Header) else section.octets
            kept += len(section.octets)
        end = b""
        if encoder is not None:
            end = encoder.end() + encoder.line_end
            kept += encoder.octets
        if source.octets != self._plan.octets:
            raise OSError(f"it had {self._plan.octets} octets, and has {source.octets}")
        if kept != source.octets:
            raise CannotConvert(f"of its {source.octets} octets, {kept} would be left")
        yield end

    def _run(self, section: Section) -> _Run | None:
        return None if isinstance(section, Header) else self._plan.runs.get(section.number)

    def _header(self, section: Header) -> bytes:
        """Return a header section that says what its body is now."""
        entity = section.entity
        if entity.kind == "sealed":
            return section.octets
        run = self._plan.heads.get(section.number)
        new: dict[bytes, bytes] = {}
        if entity.top and (run is not None or not section.number):
            names = [name for name, _ in fields(section.octets) or ()]
            if b"mime-version" not in names:
                new[b"mime-version"] = b"MIME-Version: 1.0\r\n"  # RFC 2045 §4
        if run is not None:
            if run.retyped or (entity.top and not entity.typed):
                # RFC 1428 §3: the name of a charset that nobody has told.
                charset = b"utf-8" if run.utf8 else b"unknown-8bit"
                new[_TYPE] = b"Content-Type: text/plain; charset=" + charset + b"\r\n"
            new[_ENCODING] = _encoding(run.treatment)
        elif entity.encoding in ("8bit", "binary"):
            new[_ENCODING] = _encoding("7bit")  # it was so all along, or its parts are now
        return _rewritten(section.octets, new)


def _encoding(encoding: str) -> bytes:
    return b"Content-Transfer-Encoding: " + encoding.encode("ascii") + b"\r\n"


def _encoder(treatment: Treatment) -> Encoder:
    return Base64() if treatment == "base64" else QuotedPrintable()


def _rewritten(header: bytes, new: dict[bytes, bytes]) -> bytes:
    """Return a header section with fields in place of those of their names, or added to them.

    Of the fields that go, all but the encoding stays to be read, under a name of no meaning.
    """
    found = fields(header) or []
    end = header[sum(len(octets) for _, octets in found) :]
    written: list[bytes] = []
    for name, octets in found:
        if name not in new:
            written.append(octets)
            continue
        if name != _ENCODING:
            written.append(b"X-Original-" + octets)
        written.append(new.pop(name))
    return b"".join(written) + b"".join(new.values()) + end
