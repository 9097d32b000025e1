"""What a policy answers: `Mark`, `Rewrite`, `Quarantine` or a `Reply`; the envelope it sees."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import IO

from attrs import field, frozen

from ..mail.address import Mailbox
from ..mail.envelope import NO_PARAMETERS, Parameters
from ..mail.reply import Reply

Field = bytes | str | tuple[str, str]
"""A header field: ``Name: value`` with or without its line end, or a name and a value."""

# RFC 5322 §2.2: field-name = 1*ftext; a long value is folded by its writer, and the fold begins
# with white space (§2.2.3).
_FIELD = re.compile(rb"[\x21-\x39\x3b-\x7e]+:[^\r\n\0]*(?:\r\n[ \t][^\r\n\0]*)*")
_NAME = re.compile(r"[\x21-\x39\x3b-\x7e]+")
_LONGEST_LINE = 998  # octets without CR LF, RFC 5322 §2.1.1


def _whole_field(written: Field) -> bytes:
    """Return a field as it stands in a header section, with its CR LF.

    Raises:
        ValueError: it is not one field.
    """
    text = f"{written[0]}: {written[1]}" if isinstance(written, tuple) else written
    octets = text.encode() if isinstance(text, str) else text
    octets = octets.removesuffix(b"\n").removesuffix(b"\r")
    if not _FIELD.fullmatch(octets) or max(map(len, octets.split(b"\r\n"))) > _LONGEST_LINE:
        raise ValueError(
            f"found {octets[:200]!r}, expected one header field, name: value, in lines of at most"
            f" {_LONGEST_LINE} octets"
        )
    return octets + b"\r\n"


def _whole_fields(written: Iterable[Field] | Mapping[str, str]) -> tuple[bytes, ...]:
    if isinstance(written, bytes | str):
        return (_whole_field(written),)
    if isinstance(written, Mapping):
        written = list(written.items())
    return tuple(map(_whole_field, written))


def _names(written: Iterable[str]) -> tuple[str, ...]:
    names = (written,) if isinstance(written, str) else tuple(written)
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"found {name!r}, expected the name of a header field")
    return tuple(name.lower() for name in names)


def _sender(written: str | Mailbox | None) -> str | None:
    if isinstance(written, str) and written:
        Mailbox.parse(written)
    return None if written is None else str(written)


def _recipients(written: Iterable[str | Mailbox] | None) -> tuple[Mailbox, ...] | None:
    if written is None:
        return None
    if isinstance(written, str | Mailbox):
        written = (written,)
    mailboxes = (each if isinstance(each, Mailbox) else Mailbox.parse(each) for each in written)
    return tuple(dict.fromkeys(mailboxes))


@frozen
class Mark:
    """Put header fields in front of the message.

    Attributes:
        fields: whole fields with their CR LF. Given as a mapping, or as a sequence of (name, value)
            and ``name: value``.
        reason: for the log and the operator.

    Raises:
        ValueError: one of them is not a header field.
    """

    fields: tuple[bytes, ...] = field(converter=_whole_fields)
    reason: str = field(default="", kw_only=True)


@frozen
class Quarantine:
    """Take the message, and deliver it among junk.

    Local mailboxes get it in the folder ``.Junk``; for next hops it is marked by a field.

    Attributes:
        reason: for people; printable ASCII is best.
    """

    reason: str = "quarantined by policy"


@frozen(kw_only=True)
class Rewrite:
    """Change the message before it is taken.

    Attributes:
        sender: the reverse-path, as text; ``""``: the null one; None: it stays.
        recipients: instead of all recipients (in answer to ``rcpt``: of that one); none at all:
            the message is accepted and discarded; None: they stay. They may be of any domain: a
            policy may relay.
        add: fields that are put in front of the message, as in `Mark`.
        remove: names of fields, in any case, all of which are removed from its header.
        content: the whole message instead of what came, in lines that end with CR LF; or an open
            file with it; None: it stays.
        header: the header section instead of that of the content, each field with its CR LF; None:
            it stays.
        body: an open file with the body instead of that of the content, to be closed by the reader;
            None: it stays.

    Raises:
        ValueError: an address, a field or a name is not one.
    """

    sender: str | None = field(default=None, converter=_sender)
    recipients: tuple[Mailbox, ...] | None = field(default=None, converter=_recipients)
    add: tuple[bytes, ...] = field(default=(), converter=_whole_fields)
    remove: tuple[str, ...] = field(default=(), converter=_names)
    content: bytes | IO[bytes] | None = None
    header: bytes | None = None
    body: IO[bytes] | None = None

    @property
    def changes_content(self) -> bool:
        """Whether the content is another one."""
        return (
            bool(self.remove)
            or self.content is not None
            or self.header is not None
            or self.body is not None
        )


@frozen
class Hold:
    """Take the message, and hold it in the queue until an operator releases it.

    Attributes:
        reason: for people; printable.
    """

    reason: str


@frozen
class Noted:
    """Note a verdict that changes nothing by itself.

    Attributes:
        result: one word.
    """

    result: str


Answer = Reply | Rewrite | Mark | Quarantine | Hold | Noted | None
"""What a policy answers; None goes on.

A `Reply` of 4yz or 5yz refuses; any other goes on.
"""

Answers = Answer | Sequence[Answer]
"""One answer, or several in their order."""


@frozen
class EnvelopeView:
    """The envelope of a message, as its client gave it.

    Attributes:
        sender: the reverse-path; None: the null one.
        recipients: the forward-paths that were accepted, in their order.
        parameters: of MAIL.
    """

    sender: Mailbox | None
    recipients: tuple[Mailbox, ...]
    parameters: Parameters = NO_PARAMETERS
