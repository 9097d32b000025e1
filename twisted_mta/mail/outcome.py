"""The outcome of one attempt for one recipient."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen
from twisted.python.reflect import safe_repr

from .envelope import RecipientNumber
from .printable import printable
from .reply import Reply
from .tls_facts import TLSFacts

_LONGEST = 300  # characters of what was found in place of outcomes


@frozen
class Outcome:
    """The outcome of one attempt for one recipient: delivered, deferred or failed.

    Attributes:
        number: the recipient's number in the envelope.
        reply: ``2yz`` delivered, ``4yz`` deferred, ``5yz`` failed; our own where no peer replied.
        remote: the peer that replied, ``host[address]:port``; None: the reply is our own.
        tls: the TLS session of the transaction; None: in clear, or without a connection.
        uncertain: Whether the final dot was sent and no reply came: the message may have been
            delivered.
        setup: seconds of the attempt until a connection was ready for the transaction (DNS,
            connecting, handshakes).
        unreachable: Whether this deferral is about the next hop and not about the message: DNS
            failed, no target took a connection, or no session became usable (the greeting, EHLO,
            TLS or AUTH failed or got ``421``). Any other message would get the same, so the next
            hop is suspended. A reply to MAIL, RCPT or DATA is always about the message.
        transcript: the dialogue of a deferred attempt, as printable lines without secrets and
            content; empty for any other outcome, and where there was no dialogue.
        notifies: Whether the next hop was given the sender's wishes for notices (RFC 3461): if it
            took the message, the notices are its task and no longer ours.
        expired: Whether the failure is our own, since no attempt has succeeded in time.
        answered: Whether the next hop gave the reply although ``remote`` is None: an application's
            own delivery.
        source: our address that the message left from, or was refused from, where it is one of a
            pool.
        retry_after: seconds until the next attempt of a deferred recipient; None: by the retry
            times.
        suspends: seconds for which the next hop is suspended, by an action of the operator.
        temporary: Whether a ``5yz``, which is kept as the peer said it, defers all the same.
    """

    number: RecipientNumber
    reply: Reply
    remote: str | None = None
    tls: TLSFacts | None = None
    uncertain: bool = False
    setup: float = 0.0
    unreachable: bool = False
    transcript: str = field(default="", eq=False, repr=False)
    notifies: bool = False
    temporary: bool = False
    expired: bool = False
    answered: bool = False
    source: str | None = None
    retry_after: float | None = None
    suspends: float | None = None

    @property
    def delivered(self) -> bool:
        """Whether the next hop took responsibility for the message."""
        return self.reply.code // 100 == 2

    @property
    def failed(self) -> bool:
        """Whether the recipient has failed for good: no further attempt."""
        return self.reply.code // 100 == 5 and not self.temporary

    @property
    def deferred(self) -> bool:
        """Whether the recipient is tried again."""
        kind = self.reply.code // 100
        return kind != 2 and (kind != 5 or self.temporary)


def checked_outcomes(found: object) -> Sequence[Outcome]:
    """Return what a delivery has returned, if it is the outcomes of an attempt.

    Raises:
        TypeError: it is not; the message is printable.
    """
    if isinstance(found, (list, tuple)):
        for each in found:
            if not isinstance(each, Outcome) or not isinstance(each.reply, Reply):
                break
        else:
            return found
    raise TypeError(
        f"found {printable(safe_repr(found)[:_LONGEST])}, expected a list or tuple of Outcome, each"
        " with a Reply"
    )
