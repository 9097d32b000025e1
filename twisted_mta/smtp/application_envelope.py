"""The envelope of mail that the application hands over, read from the values that it gives."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from datetime import datetime

from attrs import evolve, frozen

from ..mail.address import AddressError, Mailbox
from ..mail.envelope import NO_PARAMETERS, Parameters
from .command import CommandError
from .extension.dsn import DSN

Notify = str | Iterable[str] | None
"""Of which events the sender wants notice (RFC 3461 §4.1): ``SUCCESS``, ``FAILURE`` and ``DELAY``,
or ``NEVER`` alone; several as a sequence, or with commas. None: of failures and delays."""

HoldUntil = datetime | float | None
"""The time before which no delivery is tried (RFC 4865): a datetime with its offset from UTC, or
seconds since the epoch. None: it begins at once."""


_LONGEST_ACCOUNT = 320  # characters
_PER_STEP = 20  # recipients that are read in one go: less than a millisecond


@frozen
class ApplicationEnvelope:
    """The envelope of one message of the application.

    Attributes:
        sender: the reverse-path; None is the null one.
        recipients: each as it was written, and the mailbox.
        parameters: as those of MAIL.
        recipient_parameters: as those of each RCPT.
        user: the id of the user of this machine whose program has sent the message; None: our own
            application has.
        account: the account that the application sends for, whose limits hold; None: none.
    """

    sender: Mailbox | None
    recipients: Sequence[tuple[str, Mailbox]]
    parameters: Parameters
    recipient_parameters: Parameters
    user: int | None = None
    account: str | None = None


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
    reading = envelope_reading(
        sender, recipients, notify=notify, hold_until=hold_until, now=now, longest=longest
    )
    while True:
        try:
            next(reading)
        except StopIteration as end:
            envelope: ApplicationEnvelope = end.value
            return envelope


def envelope_reading(
    sender: str | Mailbox,
    recipients: Iterable[str | Mailbox],
    *,
    notify: Notify,
    hold_until: HoldUntil,
    now: float,
    longest: float,
    others: Parameters = NO_PARAMETERS,
    user: int | None = None,
    account: str | None = None,
) -> Generator[None, None, ApplicationEnvelope]:
    """Do the same as `read_envelope`, in steps; all but the recipients are read at once.

    ``recipients`` may change after this call. ``others`` are further parameters of MAIL; ``user``
    and ``account`` are those of `ApplicationEnvelope`.
    """
    if account is not None:
        _check_account(account)
    parameters: dict[str, str | int | None] = {"BODY": "8BITMIME", "SMTPUTF8": None, **others}
    held = _held_until(hold_until, now, longest)
    if held is not None:
        parameters["HOLDUNTIL"] = held
    wanted = _notify(notify)
    reverse_path = None
    if not isinstance(sender, str) or sender:
        reverse_path = _mailbox("sender", sender)
    return _reading(
        reverse_path,
        _several(recipients),
        parameters,
        {} if wanted is None else {"NOTIFY": wanted},
        user,
        account,
    )


def _reading(
    sender: Mailbox | None,
    recipients: Sequence[str | Mailbox],
    parameters: Parameters,
    recipient_parameters: Parameters,
    user: int | None,
    account: str | None,
) -> Generator[None, None, ApplicationEnvelope]:
    read: dict[str, Mailbox] = {}
    for number, each in enumerate(recipients):
        if number % _PER_STEP == _PER_STEP - 1:
            yield
        read[str(each)] = _mailbox("recipients", each, may_lack_domain=True)
    return ApplicationEnvelope(
        sender, list(read.items()), parameters, recipient_parameters, user, account
    )


def _check_account(account: str) -> None:
    if not isinstance(account, str):
        raise TypeError(f"account: found {account!r}, expected the name of an account")
    if not account or len(account) > _LONGEST_ACCOUNT or not account.isprintable():
        raise ValueError(
            f"account: found {account[:_LONGEST_ACCOUNT]!r}, expected a printable name of at most"
            f" {_LONGEST_ACCOUNT} characters"
        )


def _several(recipients: Iterable[str | Mailbox]) -> Sequence[str | Mailbox]:
    found = f"recipients: found {recipients!r}, expected a sequence of mailboxes"
    if isinstance(recipients, str | bytes | Mailbox):
        raise TypeError(found)
    try:
        several = tuple(recipients)
    except TypeError:
        raise TypeError(found) from None
    if not several:
        raise ValueError("recipients: found none, expected at least one mailbox")
    return several


def _mailbox(name: str, text: str | Mailbox, *, may_lack_domain: bool = False) -> Mailbox:
    if isinstance(text, Mailbox):
        # It may have been made of parts that no command can have.
        whole = text
        if may_lack_domain and not text.domain:  # of ours
            whole = evolve(text, domain="localhost")
        if _mailbox(name, str(whole)) != whole:
            raise ValueError(f"{name}: found {text!r}, expected a mailbox")
        return text
    if not isinstance(text, str):
        raise TypeError(f"{name}: found {text!r}, expected a mailbox as text")
    try:
        text.encode()  # half of a surrogate pair is no text
        return Mailbox.parse(text)
    except (AddressError, UnicodeEncodeError) as error:
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
    # A whole number may be too large to be a float.
    if (isinstance(seconds, float) and not math.isfinite(seconds)) or seconds < now:
        raise ValueError(f"hold_until: found {until!r}, expected a time that has not passed")
    if seconds > now + longest:
        raise ValueError(
            f"hold_until: found {until!r}, expected a time within {longest / 86400:g} days"
        )
    return math.ceil(seconds)
