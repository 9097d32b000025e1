"""The settings of one listener by which mail is taken into the queue."""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen

from ..config import RelayCertificate
from ..policy.feedback.fields import FeedbackTerms
from ..policy.networks import Network
from ..policy.submission import SubmissionPolicy


@frozen(kw_only=True)
class IntakePolicy:
    """What the intake of one listener accepts.

    Attributes:
        hostname: our name in the trace field.
        local_domains: canonical; all domains that mail is taken for, including those that have
            aliases alone. ``<postmaster>`` without a domain belongs to the first.
        relay_domains: canonical; domains of others that every client may send to.
        relay_from: networks whose clients may relay.
        relay_certificates: client certificates whose owners may relay (RFC 3207 §4).
        local_only: whether no client may relay, authenticated or not.
        relays_all: whether all mail may go to any domain: it comes from our own program or from
            users of this machine, or goes into a Maildir whatever its domain.
        direct: whether messages are delivered at once instead of queued (`Intake.direct`).
        submission: what authenticated clients are held to.
        signs: whether mail of clients that may relay may be signed: there are keys.
        feedback: for which mail of our users reports of complaints are asked; None: for none.
        suppresses: whether there is a list of addresses that get no mail of our users.
        missing_members: for an alias some of whose members do not exist: ``notice`` delivers to the
            others and bounces these to the sender, ``refuse`` refuses the recipient.
        max_hops: Received fields (RFC 5321 §6.3).
        max_header_size: octets.
        authserv_id: our name in Authentication-Results fields (RFC 8601 §2.5); empty: none are
            written.
        lifetime: seconds after which an undelivered message is bounced.
    """

    hostname: str
    local_domains: tuple[str, ...]
    relay_domains: tuple[str, ...] = ()
    relay_from: tuple[Network, ...] = ()
    relay_certificates: tuple[RelayCertificate, ...] = ()
    local_only: bool = False
    relays_all: bool = False
    direct: bool = False
    submission: SubmissionPolicy = field(factory=SubmissionPolicy)
    signs: bool = False
    feedback: FeedbackTerms | None = None
    suppresses: bool = False
    missing_members: Literal["notice", "refuse"] = "notice"
    max_hops: int = 100
    max_header_size: int = 1024 * 1024
    authserv_id: str = ""
    lifetime: float = 5 * 24 * 3600.0
