"""A content of 8 bits, or of binary, made into one of 7 for a next hop that takes no other.

RFC 6152 §3, RFC 3030 §3, RFC 2045 §6. Pure, but for reading the body. Only the parts that need it
are encoded, and the fields that say so change with them; all other octets stay as they are, so that
a large message passes through in pieces. The content is read twice: once to see what each part
needs, and once for every time that it is sent.

A signature over the content (DKIM, RFC 6376 §5.3) does not survive this, which is why a content of
7 bits is never touched.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Literal

from attrs import define, evolve, field, frozen

from ..envelope import Body, Message
from ..smtp.reply import Reply, printable
from .encoding import Base64, Encoder, QuotedPrintable
from .mime import IDENTITY, Entity, Header, Piece, TooManyParts, fields, sections

_ASCII = bytes(range(128))
_LONGEST_LINE = 998  # octets without CR LF, RFC 5322 §2.1.1
_PIECE = 65_536  # octets that are handed out at a time, about

# Quoted-printable makes 3 octets of 1, base64 4 of 3: with more octets over 127 than this it is
# the longer one, and no easier to read either.
_MOSTLY_ASCII = 6

_ENCODING = b"content-transfer-encoding"

Treatment = Literal["quoted-printable", "base64", "omit"]


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


def to_seven_bit(body: Body) -> Body:
    """Return a body of 7 bits, of the same meaning; ``body`` itself, if it is one.

    No octet of it is over 127, no line over 998 octets unless it was so in what is not encoded
    here, and CR and LF are only in line ends. Its size is found out when it is asked for first.

    Args:
        body: a message, of any octets; read here once, twice if it has to be changed, and again by
            each use of the result.

    Raises:
        CannotConvert: it cannot be converted; why.
        OSError: it cannot be read.
    """
    if not needs_conversion(body):
        return body
    return SevenBitBody(body, _plan(body))


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


@frozen
class _Plan:
    """What becomes of each section, by its number; what is not in it stays as it is.

    Attributes:
        treatments: of bodies.
        utf8: of bodies without a content type, those that are UTF-8.
    """

    treatments: dict[int, Treatment]
    utf8: dict[int, bool]


def _plan(body: Body) -> _Plan:
    plan = _Plan({}, {})
    entity: Entity | None = None
    measure, number, ignored = _Measure(), -1, False

    def decide() -> None:
        if entity is not None and measure.octets:
            treatment = _treatment(entity, measure.end(), ignored)
            if treatment is not None:
                plan.treatments[number] = treatment
                plan.utf8[number] = measure.utf8

    try:
        for section in sections(body.chunks()):
            if isinstance(section, Piece):
                if section.number != number:
                    decide()
                    measure, number, ignored = _Measure(), section.number, section.ignored
                measure.feed(section.octets)
            elif isinstance(section, Header):
                decide()
                measure, number, entity = _Measure(), section.number, section.entity
                ignored = False
                _check(section.octets)
    except TooManyParts as error:
        raise CannotConvert(str(error)) from None
    decide()
    return plan


def _check(header: bytes) -> None:
    """Refuse a header section that 7 bits do not carry: there is no encoding for one."""
    measure = _Measure()
    measure.feed(header)
    if measure.end().high:
        # RFC 6532 §3: for SMTPUTF8 alone.
        raise CannotConvert("a header section of it has octets over 127 (RFC 6532)")
    if measure.bare:
        raise CannotConvert("a header section of it has NUL, or CR or LF outside line ends")


def _treatment(entity: Entity, measure: _Measure, ignored: bool) -> Treatment | None:
    """Return what has to become of a body; None: nothing.

    Raises:
        CannotConvert: it would have to be changed, and cannot be.
    """
    if ignored:
        # RFC 2046 §5.1.1: to be ignored, so that it is no loss; and there is no field that could
        # say how it is encoded.
        return "omit" if measure.faulty or measure.long else None
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
    if not (measure.faulty or measure.long):
        return None
    if measure.bare or not entity.type.startswith("text/"):
        return "base64"
    return "quoted-printable" if measure.high * _MOSTLY_ASCII <= measure.octets else "base64"


class SevenBitBody:
    """A body whose octets are made as they are read (`envelope.Body`)."""

    def __init__(self, body: Body, plan: _Plan) -> None:
        self._body = body
        self._plan = plan
        self._size: int | None = None

    @property
    def size(self) -> int:
        """Octets. The first time, the whole body is read for it.

        Raises:
            OSError: it cannot be.
        """
        if self._size is None:
            self._size = sum(map(len, self.chunks()))
        return self._size

    def chunks(self) -> Iterator[bytes]:
        """Yield the content, in pieces of any size but empty.

        Raises:
            OSError: it cannot be read.
        """
        held: list[bytes] = []
        octets = 0
        for piece in self._pieces():
            held.append(piece)
            octets += len(piece)
            if octets >= _PIECE:
                yield b"".join(held)
                held, octets = [], 0
        if octets:
            yield b"".join(held)

    def _pieces(self) -> Iterator[bytes]:
        encoder: Encoder | None = None
        for section in sections(self._body.chunks()):
            if isinstance(section, Piece):
                treatment = self._plan.treatments.get(section.number)
                if treatment is None:
                    yield section.octets
                elif encoder is not None:
                    yield encoder.feed(section.octets)
                continue
            if encoder is not None:
                yield encoder.end()
                encoder = None
            if isinstance(section, Header):
                yield self._header(section)
                encoder = _encoder(self._plan.treatments.get(section.number))
            else:
                yield section.octets
        if encoder is not None:
            yield encoder.end() + encoder.line_end

    def _header(self, section: Header) -> bytes:
        """Return a header section that says what its body is now."""
        entity = section.entity
        if entity.kind == "sealed":
            return section.octets
        encoding: str | None = self._plan.treatments.get(section.number)
        added = b""
        if entity.top and (encoding is not None or not section.number):
            added = self._added(section)
        if encoding is None and entity.encoding in ("8bit", "binary"):
            encoding = "7bit"  # of a part that was so all along, or whose parts are now
        return _rewritten(section.octets, encoding, added)

    def _added(self, section: Header) -> bytes:
        """Return the fields without which the encoding of a message means nothing."""
        names = [name for name, _ in fields(section.octets) or ()]
        # RFC 2045 §4
        added = b"" if b"mime-version" in names else b"MIME-Version: 1.0\r\n"
        if not section.entity.typed and section.number in self._plan.utf8:
            # RFC 1428 §3: the name of a charset that nobody has told.
            charset = b"utf-8" if self._plan.utf8[section.number] else b"unknown-8bit"
            added += b"Content-Type: text/plain; charset=" + charset + b"\r\n"
        return added


def _encoder(treatment: Treatment | None) -> Encoder | None:
    if treatment == "base64":
        return Base64()
    return QuotedPrintable() if treatment == "quoted-printable" else None


def _rewritten(header: bytes, encoding: str | None, added: bytes) -> bytes:
    """Return a header section with another Content-Transfer-Encoding, and with more fields."""
    found = fields(header) or []
    end = header[sum(len(octets) for _, octets in found) :]
    kept = [octets for _, octets in found]
    if encoding is not None:
        new = b"Content-Transfer-Encoding: " + encoding.encode("ascii") + b"\r\n"
        places = [place for place, (name, _) in enumerate(found) if name == _ENCODING]
        if places:
            kept[places[0]] = new
        else:
            added += new
    return b"".join(kept) + added + end
