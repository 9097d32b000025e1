"""Conversion of an 8-bit or binary content to 7 bits, for a next hop that takes no other.

RFC 6152 §3, RFC 3030 §3, RFC 2045 §6. Only the parts that need it are encoded, and their header
fields change accordingly; all other octets stay as they are, so that a large message passes through
in pieces. The content is read once for the plan, and again each time that it is sent.

No octet is lost. Each is copied, or encoded, or belongs to a header section of which one field now
declares the encoding of the body; each reading counts the octets, and fails if one is missing.

A signature over the content (DKIM, RFC 6376 §5.3) does not survive a conversion, so a content of 7
bits is never touched.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import evolve

from ...mail.body import Body
from ...mail.message import Message
from .conversion_plan import (
    CannotConvert,
    CountedBody,
    EncodedRun,
    Plan,
    TransferEncoding,
    plan_conversion,
)
from .encoding import Base64, Encoder, QuotedPrintable
from .entity import raw_fields
from .measure import Measure
from .sections import MOST_ENTITIES, Header, Section, sections

_PIECE = 65_536  # octets, about, that are yielded at a time

_TYPE, _ENCODING = b"content-type", b"content-transfer-encoding"


def needs_conversion(body: Body) -> bool:
    """Whether ``body`` is anything but ASCII in lines of at most 998 octets.

    Raises:
        OSError: the body cannot be read.
    """
    measure = Measure()
    for chunk in body.chunks():
        measure.feed(chunk)
        if measure.faulty or measure.long:
            return True
    measure.end()
    return measure.faulty or measure.long


def converted(message: Message, *, raw_headers: bool = False) -> Message:
    """Return ``message`` with a content of 7 bits, and without the BODY parameter.

    Blocks while the content is read, once or twice.

    Args:
        message: with a content of 8 bits, or a binary one.
        raw_headers: see `to_seven_bit`.

    Raises:
        CannotConvert: the content, or a trace field, cannot be converted.
        OSError: the body cannot be read.
    """
    if not message.trace.isascii():
        raise CannotConvert("its trace fields have octets over 127 (RFC 6532)")
    envelope = message.envelope
    parameters = {name: value for name, value in envelope.parameters.items() if name != "BODY"}
    return evolve(
        message,
        body=to_seven_bit(message.body, raw_headers=raw_headers),
        envelope=evolve(envelope, parameters=parameters),
    )


def to_seven_bit(
    body: Body, most_entities: int = MOST_ENTITIES, *, raw_headers: bool = False
) -> Body:
    """Return a body of 7 bits with the same meaning; ``body`` itself, if it already is one.

    No octet of it is over 127. Lines have at most 998 octets, except in parts that were encoded
    already, and CR and LF stand only in line ends. Its size is computed when it is first asked for.

    Args:
        body: the content; read once here, twice if it has to change, and again by each use of the
            result.
        most_entities: the messages and body parts that it may have.
        raw_headers: whether octets over 127 in header fields stay as they are, undeclared; else
            they rule out a conversion.

    Raises:
        CannotConvert: it cannot be converted.
        OSError: it cannot be read.
    """
    if not needs_conversion(body):
        return body
    return SevenBitBody(body, plan_conversion(body, most_entities, raw_headers=raw_headers))


class SevenBitBody:
    """A body that is converted while it is read (a `mail.body.Body`)."""

    def __init__(self, body: Body, plan: Plan) -> None:
        self._body = body
        self._plan = plan
        self._size: int | None = None

    @property
    def size(self) -> int:
        """The number of octets. The first use reads and converts the whole body.

        Raises:
            CannotConvert: see `chunks`.
            OSError: the body cannot be read.
        """
        if self._size is None:
            self._size = sum(map(len, self.chunks()))
        return self._size

    def chunks(self) -> Iterator[bytes]:
        """Yield the converted content, in pieces of one octet or more.

        Raises:
            CannotConvert: an octet of the body is missing in the result. The last piece is not
                yielded then.
            OSError: the body cannot be read, or has changed since it was planned.
        """
        waiting: list[bytes] = []
        octets = 0
        for piece in self._pieces():
            if octets >= _PIECE:
                yield b"".join(waiting)
                waiting, octets = [], 0
            waiting.append(piece)
            octets += len(piece)
        if octets:
            yield b"".join(waiting)

    def _pieces(self) -> Iterator[bytes]:
        source = CountedBody(self._body)
        kept = 0  # octets that were copied, encoded, or stand in a header section
        run: EncodedRun | None = None
        encoder: Encoder | None = None
        for section in sections(source.chunks()):
            next_run = self._run(section)
            if next_run is not run:
                if encoder is not None:
                    yield encoder.end()
                    kept += encoder.octets
                run, encoder = next_run, None if next_run is None else _encoder(next_run.encoding)
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

    def _run(self, section: Section) -> EncodedRun | None:
        return None if isinstance(section, Header) else self._plan.runs.get(section.number)

    def _header(self, section: Header) -> bytes:
        """Return a header section that describes the converted body."""
        entity = section.entity
        if entity.kind == "opaque":
            return section.octets
        run = self._plan.headers.get(section.number)
        new: dict[bytes, bytes] = {}
        if entity.top_level and (run is not None or not section.number):
            names = [name for name, _ in raw_fields(section.octets) or ()]
            if b"mime-version" not in names:
                new[b"mime-version"] = b"MIME-Version: 1.0\r\n"  # RFC 2045 §4
        if run is not None:
            if run.retyped or (entity.top_level and not entity.typed):
                # RFC 1428 §3: the name of an unknown charset.
                charset = b"utf-8" if run.utf8 else b"unknown-8bit"
                new[_TYPE] = b"Content-Type: text/plain; charset=" + charset + b"\r\n"
            new[_ENCODING] = _encoding_field(run.encoding)
        elif entity.encoding in ("8bit", "binary"):
            new[_ENCODING] = _encoding_field("7bit")  # it was 7bit, or its parts now are
        return _with_fields(section.octets, new)


def _encoding_field(encoding: str) -> bytes:
    return b"Content-Transfer-Encoding: " + encoding.encode("ascii") + b"\r\n"


def _encoder(encoding: TransferEncoding) -> Encoder:
    return Base64() if encoding == "base64" else QuotedPrintable()


def _with_fields(header: bytes, new: dict[bytes, bytes]) -> bytes:
    """Return a header section in which ``new`` fields replace those of their names, or are added.

    A replaced field other than the encoding stays readable, under the name ``X-Original-…``.
    """
    fields = raw_fields(header) or []
    end = header[sum(len(octets) for _, octets in fields) :]
    written: list[bytes] = []
    for name, octets in fields:
        if name not in new:
            written.append(octets)
            continue
        if name != _ENCODING:
            written.append(b"X-Original-" + octets)
        written.append(new.pop(name))
    return b"".join(written) + b"".join(new.values()) + end
