"""The envelope of mail that the application hands over, read from the values that it gives."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime

from attrs import frozen

from ..mail.address import AddressError, Mailbox
from ..mail.envelope import Parameters
from .command import CommandError
from .extension.dsn import DSN

Notify = str | Iterable[str] | None
"""Of which events the sender wants notice (RFC 3461 §4.1): ``SUCCESS``, ``FAILURE`` and ``DELAY``,
or ``NEVER`` alone; several as a sequence, or with commas. None: of failures and delays."""

HoldUntil = datetime | float | None
"""The time before which no delivery is tried (RFC 4865): a datetime with its offset from UTC, or
seconds since the epoch. None: it begins at once."""


@frozen
class ApplicationEnvelope:
    """The envelope of one message of the application.

    Attributes:
        sender: the reverse-path; None is the null one.
        recipients: each as it was written, and the mailbox.
        parameters: as those of MAIL.
        recipient_parameters: as those of each RCPT.
    """

    sender: Mailbox | None
    recipients: Sequence[tuple[str, Mailbox]]
    parameters: Parameters
    recipient_parameters: Parameters


def read_envelope(
    sender: str | Mailbox,
    recipients: Iterable[str | Mailbox],
    *,
    notify: Notify,
    hold_until: HoldUntil,
    now: float,
    longest: float,
) -> ApplicationEnvelope:
    """Return the envelope that the application asks for.

    Args:
        sender: the reverse-path; empty: the null one.
        recipients: mailboxes.
        notify: see `Notify`.
        hold_until: see `HoldUntil`.
        now: wall time, seconds since the epoch.
        longest: seconds that a message may be held.

    Raises:
        TypeError: a value has the wrong type.
        ValueError: an address is none, there are no recipients, NOTIFY cannot be read, or the time
            has passed, is too far away, or has no offset from UTC.
    """
    parameters: dict[str, str | int | None] = {"BODY": "8BITMIME", "SMTPUTF8": None}
    held = _held_until(hold_until, now, longest)
    if held is not None:
        parameters["HOLDUNTIL"] = held
    wanted = _notify(notify)
    return ApplicationEnvelope(
        _mailbox("sender", sender) if not isinstance(sender, str) or sender else None,
        _recipients(recipients),
        parameters,
        {} if wanted is None else {"NOTIFY": wanted},
    )


def _recipients(recipients: Iterable[str | Mailbox]) -> Sequence[tuple[str, Mailbox]]:
    if isinstance(recipients, str | bytes | Mailbox):
        raise TypeError(f"recipients: found {recipients!r}, expected a sequence of mailboxes")
    read = {str(each): _mailbox("recipients", each) for each in recipients}
    if not read:
        raise ValueError("recipients: found none, expected at least one mailbox")
    return list(read.items())


def _mailbox(name: str, text: str | Mailbox) -> Mailbox:
    if isinstance(text, Mailbox):
        return text
    if not isinstance(text, str):
        raise TypeError(f"{name}: found {text!r}, expected a mailbox as text")
    try:
        return Mailbox.parse(text)
    except AddressError as error:
        raise ValueError(f"{name}: found {text!r}, expected a mailbox: {error}") from None


def _notify(notify: Notify) -> str | None:
    if notify is None:
        return None
    try:
        text = notify if isinstance(notify, str) else ",".join(notify)
    except TypeError:
        raise TypeError(f"notify: found {notify!r}, expected names of events") from None
    try:
        return str(DSN.rcpt["NOTIFY"](text))
    except CommandError:
        raise ValueError(
            f"notify: found {notify!r}, expected NEVER, or some of SUCCESS, FAILURE, DELAY"
        ) from None


def _held_until(until: HoldUntil, now: float, longest: float) -> int | None:
    if until is None:
        return None
    if isinstance(until, datetime):
        if until.utcoffset() is None:
            raise ValueError(f"hold_until: found {until!r}, expected a datetime with a time zone")
        seconds = until.timestamp()
    elif isinstance(until, int | float) and not isinstance(until, bool):
        seconds = until
    else:
        raise TypeError(f"hold_until: found {until!r}, expected a datetime, or seconds")
    if not math.isfinite(seconds) or seconds < now:
        raise ValueError(f"hold_until: found {until!r}, expected a time that has not passed")
    if seconds - now > longest:
        raise ValueError(
            f"hold_until: found {until!r}, expected a time within {longest / 86400:g} days"
        )
    return math.ceil(seconds)
