"""A message that waits in a directory for the MTA: its envelope in lines, then its content.

The first line is `MAGIC`; then come ``name value`` lines, an empty line, and the content as it was
submitted. Programs of any user write such files, and the MTA reads them: each value is checked
again where it is used. This module loads nothing but the standard library, since
``twisted-mta-sendmail`` has to start in an instant.
"""

from __future__ import annotations

MAGIC = b"twisted-mta waiting mail 1"
"""The first line of a file; the number changes with the format."""

LONGEST_ENVELOPE = 1 << 20
"""Octets of an envelope, with the empty line behind it."""

MOST_RECIPIENTS = 1_000
"""Recipients of one file; there may be several files for one message."""

READY = "mail-"
"""How the name of a complete message begins."""

PARTIAL = "part-"
"""How the name of a message begins that is still being written."""


class WaitingEnvelope:
    """The envelope of a message that waits.

    Attributes:
        sender: the reverse-path; empty: the null one.
        recipients: mailboxes, as text.
        notify: of which events the sender wants notice (RFC 3461 §4.1); empty: the default.
        returned: how much of the message a notice returns (§4.3), FULL or HDRS; empty: the default.
        envelope_id: of the sender (§4.4), not encoded; empty: none.
        user: the id of the user who has submitted it, where root has written the file; else -1.
    """

    def __init__(
        self,
        sender: str,
        recipients: tuple[str, ...],
        *,
        notify: str = "",
        returned: str = "",
        envelope_id: str = "",
        user: int = -1,
    ) -> None:
        self.sender = sender
        self.recipients = recipients
        self.notify = notify
        self.returned = returned
        self.envelope_id = envelope_id
        self.user = user


def written(envelope: WaitingEnvelope) -> bytes:
    """Return an envelope as a file has it, with the empty line behind it.

    Raises:
        ValueError: it is too long, or a value has a line end.
    """
    lines = [("sender", envelope.sender), *(("to", each) for each in envelope.recipients)]
    for name, value in (
        ("notify", envelope.notify),
        ("return", envelope.returned),
        ("envid", envelope.envelope_id),
        ("user", str(envelope.user) if envelope.user >= 0 else ""),
    ):
        if value:
            lines.append((name, value))
    if any("\n" in value or "\r" in value for _, value in lines):
        raise ValueError("found a line end in an address, expected none")
    if len(envelope.recipients) > MOST_RECIPIENTS:
        raise ValueError(f"found more recipients, expected {MOST_RECIPIENTS} at most")
    text = "".join(f"{name} {value}\n" for name, value in lines)
    octets = MAGIC + b"\n" + text.encode("utf-8", "surrogateescape") + b"\n"
    if len(octets) > LONGEST_ENVELOPE:
        raise ValueError(f"found an envelope of {len(octets)} octets, expected {LONGEST_ENVELOPE}")
    return octets


def read_envelope(octets: bytes) -> tuple[WaitingEnvelope, int]:
    """Read an envelope; return it with the number of its octets.

    Args:
        octets: the first `LONGEST_ENVELOPE` octets of a file, or all of it.

    Raises:
        ValueError: there is none.
    """
    if not octets.startswith(MAGIC + b"\n"):
        raise ValueError(f"found another first line, expected {MAGIC.decode()}")
    end = octets.find(b"\n\n", len(MAGIC))
    if end < 0:
        raise ValueError(
            f"found no end of the envelope, expected an empty line within {LONGEST_ENVELOPE} octets"
        )
    try:
        text = octets[len(MAGIC) + 1 : end].decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("found an envelope in another encoding, expected UTF-8") from None
    values: dict[str, str] = {}
    recipients: list[str] = []
    for line in text.split("\n"):
        name, _, value = line.partition(" ")
        if name == "to":
            recipients.append(value)
        elif name in ("sender", "notify", "return", "envid", "user") and name not in values:
            values[name] = value
        else:
            raise ValueError(f"found {name[:20]!r}, expected a line of an envelope")
    user = values.get("user", "")
    if not (user.isascii() and user.isdecimal() and len(user) < 12):
        user = ""
    if len(recipients) > MOST_RECIPIENTS:
        raise ValueError(f"found {len(recipients)} recipients, expected {MOST_RECIPIENTS} at most")
    if "sender" not in values or not recipients:
        raise ValueError("found an envelope that is not complete, expected a sender and recipients")
    return (
        WaitingEnvelope(
            values["sender"],
            tuple(recipients),
            notify=values.get("notify", ""),
            returned=values.get("return", ""),
            envelope_id=values.get("envid", ""),
            user=int(user) if user else -1,
        ),
        end + 2,
    )
