"""What a filter changes in one message: its fields, its body, its envelope."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, compress, count, islice
from typing import IO

from attrs import define, field

from ...mail.address import AddressError, Mailbox
from ...mail.envelope import NO_PARAMETERS, Parameters
from ...mail.printable import printable
from ...message.header import raw_fields
from ...smtp.command import CommandError, ParameterReader
from ...smtp.extension.dsn import DSN
from .packets import (
    AddField,
    AddRecipient,
    Change,
    ChangeField,
    ChangeSender,
    DeleteRecipient,
    InsertField,
    MilterError,
    Quarantine,
    ReplaceBody,
)

_NAME = re.compile(rb"([\x21-\x39\x3b-\x7e]+)[ \t]*:")
_WHOLE_NAME = re.compile(rb"[\x21-\x39\x3b-\x7e]+")  # RFC 5322 §2.2: 1*ftext
_LINE_END = re.compile(rb"\r\n|\r|\n")
_AT_A_TIME = 500  # fields that are read between two turns of the reactor
_JOINED = 10_000  # fields that are joined between two turns
_MOST = 5_000  # modifications of one message, without the pieces of a body


class Fields:
    """The fields of a message as a filter sees and changes them; our Received is not among them.

    A field that is deleted keeps its place, as in Sendmail, so that numbers do not change. Fields
    are octets in a list and no objects of a class: a header section may have 200,000, and the
    garbage collector would look at each of them again and again.

    Args:
        above: the fields above our Received: results of the checks, and marks of policies.
        section: the header section that came.
        keeps_space: whether values have the white space behind the colon (`Terms.keeps_space`).
    """

    def __init__(self, above: bytes, section: bytes, *, keeps_space: bool) -> None:
        first = list(raw_fields(above))
        self._unread = chain(first, raw_fields(section))
        self._above = len(first)  # how many stand above our Received
        self._octets: list[bytes] = []  # of each field, with the CR LF
        # Its name in lower case; empty: it is no field, and the filter does not see it.
        self._names: list[bytes] = []
        self._known: dict[bytes, bytes] = {}  # names, so that each is in memory once
        self._space = b"" if keeps_space else b" "
        self._numbers: dict[bytes, list[int]] = {}  # by name, as far as it was asked for
        self.changed = False

    def read(self) -> bool:
        """Read some of the fields, before all else; return whether there are more."""
        some = list(islice(self._unread, _AT_A_TIME))
        self._octets += some
        self._names += map(self._name, some)
        return len(some) == _AT_A_TIME

    def shown(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield (name, value) of each field; a folded value has LF at the end of its lines."""
        for known, octets in zip(self._names, self._octets, strict=True):
            if known:
                name, _, value = octets.partition(b":")
                value = value.removesuffix(b"\n").removesuffix(b"\r").replace(b"\r\n", b"\n")
                if self._space:
                    # Sendmail takes one space away, and puts it back.
                    value = value.removeprefix(b" ")
                yield name.rstrip(b" \t"), value

    def add(self, name: bytes, value: bytes) -> None:
        """Add a field at the end."""
        self._octets.append(self._made(name, value))
        lower = name.lower()
        self._names.append(lower)
        if lower in self._numbers:
            self._numbers[lower].append(len(self._names) - 1)
        self.changed = True

    def insert(self, index: int, name: bytes, value: bytes) -> None:
        """Insert a field: number 0 stands for our Received, 1 for the first that was shown.

        Our own results stay at the top. An index behind the last field stands for the end.
        """
        at = min(max(index - 1, 0), len(self._octets))
        if at == 0 and self._above:
            at = 1
        self._octets.insert(at, self._made(name, value))
        self._names.insert(at, name.lower())
        if at < self._above:
            self._above += 1
        self._numbers.clear()
        self.changed = True

    def change(self, index: int, name: bytes, value: bytes) -> None:
        """Change the index-th field of a name; there is none: add it. Empty: delete it."""
        numbers = self._numbers_of(name.lower())
        number = max(index, 1)
        if number <= len(numbers):
            self._octets[numbers[number - 1]] = self._made(name, value) if value else b""
            self.changed = True
        elif value:
            self.add(name, value)

    @property
    def above(self) -> bytes:
        """The fields above our Received."""
        return b"".join(self._octets[: self._above])

    def section(self) -> Iterator[bytes]:
        """Yield the header section below our Received, in pieces that are made in a millisecond."""
        for start in range(self._above, len(self._octets), _JOINED):
            yield b"".join(self._octets[start : start + _JOINED])

    def _name(self, octets: bytes) -> bytes:
        match = _NAME.match(octets)
        name = b"" if match is None else match[1].lower()
        return self._known.setdefault(name, name)

    def _numbers_of(self, name: bytes) -> list[int]:
        """Return the places of the fields of a name, in lower case."""
        found = self._numbers.get(name)
        if found is None:
            found = list(compress(count(), map(name.__eq__, self._names)))
            self._numbers[name] = found
        return found

    def _made(self, name: bytes, value: bytes) -> bytes:
        """Return the octets of a field.

        Raises:
            MilterError: it is none, or would be several.
        """
        if not _WHOLE_NAME.fullmatch(name):
            raise MilterError(f"found {name[:80]!r}, expected the name of a header field")
        lines = _LINE_END.split(value.rstrip(b"\r\n"))
        if any(line[:1] not in (b" ", b"\t") for line in lines[1:]):
            raise MilterError(f"found a value of {name[:80]!r} that is several fields")
        return name + b":" + self._space + b"\r\n".join(lines) + b"\r\n"


class NewBody:
    """Writes a body that a filter gives in pieces, in lines that end with CR LF.

    Args:
        file: for the octets.
        largest: octets that are taken.
    """

    def __init__(self, file: IO[bytes], largest: int) -> None:
        self.file = file
        self._left = largest
        self._carry = b""  # a CR at the end of a piece

    def write(self, octets: bytes) -> None:
        """Take a piece.

        Raises:
            MilterError: the body is too large.
            OSError: the disk refused it.
        """
        octets = self._carry + octets
        self._carry = b"\r" if octets.endswith(b"\r") else b""
        self._put(octets[: len(octets) - len(self._carry)])

    def end(self) -> IO[bytes]:
        """End the last line; return the file."""
        self._put(self._carry)
        if self.file.tell():
            self.file.seek(-1, 2)
            if self.file.read(1) != b"\n":
                self._put(b"\r\n")
        return self.file

    def _put(self, octets: bytes) -> None:
        written = _LINE_END.sub(b"\r\n", octets)
        self._left -= len(written)
        if self._left < 0:
            raise MilterError("found a new body above the largest message, expected a smaller one")
        self.file.write(written)


@define
class Changes:
    """The modifications of one message so far.

    Attributes:
        fields: of the message.
        recipients: in force.
        new_body: makes the writer of another body.
        section: the header section, once all modifications are carried out; None: it stays.
        sender: the new reverse-path, ``""`` for the null one; None: it stays.
        mail: parameters of MAIL that came with it.
        rcpt: parameters of RCPT of recipients that were added.
        body: the new one; None: it stays.
        hold: why the message is to be held; empty: it is not.
        readdressed: whether recipients were added or removed.
    """

    fields: Fields
    recipients: dict[Mailbox, None]
    new_body: Callable[[], NewBody]
    section: bytes | None = None
    sender: str | None = None
    mail: Parameters = NO_PARAMETERS
    rcpt: dict[Mailbox, Parameters] = field(factory=dict)
    body: NewBody | None = None
    hold: str = ""
    readdressed: bool = False
    _count: int = 0

    def apply(self, change: Change) -> None:
        """Carry a modification out.

        Raises:
            MilterError: it cannot be.
            OSError: the disk refused a piece of a body.
        """
        if isinstance(change, ReplaceBody):
            if self.body is None:
                self.body = self.new_body()
            self.body.write(change.octets)
            return
        self._count += 1
        if self._count > _MOST:
            raise MilterError(f"found more than {_MOST} modifications, expected fewer")
        match change:
            case AddField(name, value):
                self.fields.add(name, value)
            case InsertField(index, name, value):
                self.fields.insert(index, name, value)
            case ChangeField(index, name, value):
                self.fields.change(index, name, value)
            case ChangeSender(address, arguments):
                mailbox = _mailbox(address)
                self.sender = "" if mailbox is None else str(mailbox)
                self.mail = _parameters(arguments, DSN.mail)
            case AddRecipient(address, arguments):
                recipient = _recipient(address)
                parameters = _parameters(arguments, DSN.rcpt)
                if recipient not in self.recipients:
                    self.recipients[recipient] = None
                    self.rcpt[recipient] = parameters
                    self.readdressed = True
            case DeleteRecipient(address):
                recipient = _recipient(address)
                if recipient in self.recipients:
                    del self.recipients[recipient]
                    self.readdressed = True
            case Quarantine(reason):
                self.hold = printable(reason.decode("utf-8", "replace")) or "held by a filter"


def _mailbox(address: bytes) -> Mailbox | None:
    """Return the mailbox of an address with or without its brackets; None: the null path."""
    text = address.strip()
    if text.startswith(b"<") and text.endswith(b">"):
        text = text[1:-1]
    if not text:
        return None
    try:
        return Mailbox.parse(text.decode("utf-8"))
    except (AddressError, UnicodeDecodeError):
        raise MilterError(f"found {address[:200]!r}, expected an address") from None


def _recipient(address: bytes) -> Mailbox:
    mailbox = _mailbox(address)
    if mailbox is None:
        raise MilterError("found an empty address, expected that of a recipient")
    return mailbox


def _parameters(arguments: bytes, readers: Mapping[str, ParameterReader]) -> Parameters:
    """Read parameters of MAIL or RCPT: those of DSN (RFC 3461). Others are ours to decide."""
    found: dict[str, str | int | None] = {}
    for word in arguments.split():
        keyword, equals, value = word.decode("utf-8", "replace").partition("=")
        read = readers.get(keyword.upper())
        if read is None:
            continue
        try:
            found[keyword.upper()] = read(value if equals else None)
        except CommandError:
            raise MilterError(f"found the parameter {word[:200]!r}, expected a valid one") from None
    return found
