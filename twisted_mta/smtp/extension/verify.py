"""VRFY and EXPN (RFC 5321 §3.5): which mailboxes are here, for clients with permission.

    VRFY bob                250 2.1.5 <bob@example.net>
    EXPN team               250-2.1.5 <bob@example.net>
                            250 2.1.5 <eve@example.org>

All other clients get the replies of a server that does not tell (§7.3): 252, and 502.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from attrs import frozen

from ...mail.address import AddressError, Mailbox
from ...mail.reply import Reply
from ..command import CommandError
from ..peer import Peer
from ..server import replies
from . import Extension
from .views import SessionView

Lookup = Callable[[SessionView, Mailbox], "tuple[Mailbox, Sequence[Mailbox]] | Reply | None"]
"""Looks up a mailbox, which may lack its domain.

Returns the mailbox with its domain, and the mailboxes that mail for it goes to: itself, or the
members of an alias. Or the reply that refuses it; None where the mailbox is not ours.
"""

_LARGEST = 100  # mailboxes in one reply: clients give up on longer ones


@frozen(kw_only=True)
class _ForSome(Extension):
    """VRFY or EXPN, announced to clients with permission (RFC 5321 §3.5.2).

    Attributes:
        allowed: returns whether a client has permission.
    """

    allowed: Callable[[Peer], bool]

    def announcement(self, session: SessionView) -> str | None:
        """Return the keyword, which is the verb, for a client with permission."""
        return self.keyword if self.allowed(session.peer) else None


def vrfy(allowed: Callable[[Peer], bool], lookup: Lookup) -> Extension:
    """Return the extension that tells whether a mailbox is here."""
    return _ForSome(
        keyword="VRFY",
        commands={"VRFY": partial(_verify, lookup)},
        not_offered=replies.NOT_VERIFIED,
        allowed=allowed,
    )


def expn(allowed: Callable[[Peer], bool], lookup: Lookup) -> Extension:
    """Return the extension that tells which mailboxes an alias leads to."""
    return _ForSome(
        keyword="EXPN",
        commands={"EXPN": partial(_expand, lookup)},
        not_offered=replies.NOT_IMPLEMENTED,
        allowed=allowed,
    )


def _verify(lookup: Lookup, session: SessionView, argument: str) -> Reply:
    mailbox, utf8 = _mailbox("VRFY", session, argument)
    result = lookup(session, mailbox)
    if result is None:
        return replies.NOT_VERIFIED
    return result if isinstance(result, Reply) else _shown([result[0]], utf8)


def _expand(lookup: Lookup, session: SessionView, argument: str) -> Reply:
    mailbox, utf8 = _mailbox("EXPN", session, argument)
    result = lookup(session, mailbox)
    if result is None:
        return replies.NOT_EXPANDED
    return result if isinstance(result, Reply) else _shown(result[1], utf8)


def _shown(mailboxes: Sequence[Mailbox], utf8: bool) -> Reply:
    if len(mailboxes) > _LARGEST:
        return Reply.of(252, "1.5", f"The alias leads to {len(mailboxes)} mailboxes")
    if not utf8 and not all(each.is_ascii for each in mailboxes):
        return replies.ANSWER_NEEDS_UTF8  # RFC 6531 §3.7.4.2
    return Reply(250, "1.5", *(f"<{each}>" for each in mailboxes), utf8=utf8)


def _mailbox(verb: str, session: SessionView, argument: str) -> tuple[Mailbox, bool]:
    """Return the mailbox, and whether the reply may be UTF-8 (RFC 6531 §3.7.4.2)."""
    written, _, parameter = argument.rpartition(" ")
    utf8 = parameter.upper() == "SMTPUTF8" and "SMTPUTF8" in session.mail_parameters
    if not utf8:
        written = argument
    # RFC 5321 §4.1.1.6: a user name or a mailbox; with or without the brackets of a path.
    if written[:1] == "<" and written[-1:] == ">":
        written = written[1:-1]
    if not written:
        raise CommandError(Reply.of(501, "5.4", f"Syntax: {verb} address"))
    if not written.isascii() and not utf8:
        raise CommandError(replies.NEEDS_UTF8)
    try:
        if "@" in written:
            return Mailbox.parse(written), utf8
        return Mailbox(Mailbox.parse(f"{written}@x").local_part, ""), utf8
    except AddressError as error:
        raise CommandError(Reply.of(501, "1.3", f"Bad address: {error}")) from None
