"""The plan of a conversion to 7 bits: which parts of a content are encoded, and how."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from attrs import define, field, frozen

from ...mail.body import Body
from ...mail.printable import printable
from ...mail.reply import Reply
from .encoding import is_mostly_ascii
from .entity import IDENTITY, Entity
from .measure import Measure
from .sections import Delimiter, Header, Piece, TooManyParts, sections

TransferEncoding = Literal["quoted-printable", "base64"]


class CannotConvert(Exception):
    """A content cannot be converted to 7 bits without damage.

    Attributes:
        reply: the reply for its recipients (RFC 3463 §3.7: X.6.3, conversion required but not
            supported).
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        text = f"the next hop takes 7 bits alone, and the message cannot be converted: {reason}"
        self.reply = Reply.of(554, "6.3", text)


@frozen(eq=False)
class EncodedRun:
    """Consecutive sections that are encoded as one body.

    Attributes:
        encoding: their new encoding.
        utf8: Whether they are UTF-8.
        retyped: Whether they are the whole content of a multipart without parts, which becomes
            plain text.
    """

    encoding: TransferEncoding
    utf8: bool
    retyped: bool = False


@frozen
class Plan:
    """The conversion of a content, by the numbers of its sections.

    Attributes:
        runs: from the number of each encoded section to its run; all others stay as they are.
        headers: from the number of a header section to the run that it has to describe.
        octets: the size of the whole content.
    """

    runs: dict[int, EncodedRun]
    headers: dict[int, EncodedRun]
    octets: int


class CountedBody:
    """A body that counts the octets read from it."""

    def __init__(self, body: Body) -> None:
        self.octets = 0
        self._body = body

    def chunks(self) -> Iterator[bytes]:
        """Yield the content."""
        for chunk in self._body.chunks():
            self.octets += len(chunk)
            yield chunk


@define
class _Text:
    """The text behind a header section, or behind the closing delimiter of a multipart.

    Attributes:
        header: the header section that describes it, if there is one.
        numbers: the numbers of its sections.
        measure: the measure of its octets.
    """

    header: Header | None
    numbers: set[int] = field(factory=set)
    measure: Measure = field(factory=Measure)

    def add(self, section: Piece | Delimiter) -> None:
        self.numbers.add(section.number)
        self.measure.feed(section.octets)

    def is_preamble_of(self, delimiter: Delimiter) -> bool:
        """Whether it stands before the first delimiter of that multipart."""
        return self.header is not None and self.header.number == delimiter.multipart

    def includes(self, delimiter: Delimiter) -> bool:
        """Whether it goes on behind a delimiter, which closes a multipart without parts."""
        return self.is_preamble_of(delimiter) and delimiter.closing


def plan_conversion(body: Body, most_entities: int, *, raw_headers: bool = False) -> Plan:
    """Read a body and decide which of its sections are encoded, and how.

    Args:
        body: the content.
        most_entities: the messages and body parts that it may have.
        raw_headers: whether header sections may have octets over 127, which stay as they are.

    Raises:
        CannotConvert: a section would have to change and cannot, or there are more than
            ``most_entities`` messages and body parts.
        OSError: the body cannot be read.
    """
    runs: dict[int, EncodedRun] = {}
    headers: dict[int, EncodedRun] = {}
    text = _Text(None)

    def decide(*, described: bool = True) -> None:
        header = text.header if described else None
        run = _run(None if header is None else header.entity, text.measure.end())
        if run is not None:
            runs.update(dict.fromkeys(text.numbers, run))
            if header is not None:
                headers[header.number] = run

    source = CountedBody(body)
    try:
        for section in sections(source.chunks(), most_entities):
            if isinstance(section, Header):
                decide()
                text = _Text(section)
                _check_header(section.octets, raw=raw_headers)
            elif isinstance(section, Piece) or text.includes(section):
                text.add(section)
            else:
                decide(described=not text.is_preamble_of(section))
                text = _Text(None)
    except TooManyParts as error:
        raise CannotConvert(str(error)) from None
    decide()
    return Plan(runs, headers, source.octets)


def _check_header(header: bytes, *, raw: bool) -> None:
    """Raise `CannotConvert` for a header section beyond 7 bits: no encoding exists for one.

    Octets over 127 are allowed where ``raw``.
    """
    measure = Measure()
    measure.feed(header)
    if measure.end().high and not raw:
        # RFC 6532 §3: for SMTPUTF8 alone.
        raise CannotConvert("a header section of it has octets over 127 (RFC 6532)")
    if measure.bare:
        raise CannotConvert("a header section of it has NUL, or CR or LF outside line ends")


def _run(entity: Entity | None, measure: Measure) -> EncodedRun | None:
    """Return the run that a text becomes; None: it stays as it is.

    Args:
        entity: the properties from its header section; None: it is the preamble or epilogue of a
            multipart.
        measure: the measure of its octets.

    Raises:
        CannotConvert: it would have to change, and cannot.
    """
    if not (measure.faulty or measure.long):
        return None
    if entity is None:
        # RFC 2046 §5.1.1: programs ignore a preamble, and no field could declare its encoding.
        # People may read it, and quoted-printable even undecoded.
        return EncodedRun("quoted-printable", measure.utf8)
    if entity.kind == "opaque":
        if measure.faulty:
            raise CannotConvert(printable(entity.reason))
        return None
    if entity.encoding not in IDENTITY:
        if measure.faulty:
            raise CannotConvert(
                f"a part declared as {printable(entity.encoding)} has octets that are not"
            )
        return None
    # A multipart without parts becomes text: RFC 2045 §6.4 allows no encoding for a multipart, and
    # §5.2 makes text of a wrong content type.
    retyped = entity.kind == "multipart"
    text = retyped or entity.type.startswith("text/")
    quoted = text and not measure.bare and is_mostly_ascii(measure.octets, measure.high)
    return EncodedRun("quoted-printable" if quoted else "base64", measure.utf8, retyped)
