"""Past attempts: what a store remembers of the tries that did not deliver a recipient."""

from __future__ import annotations

from attrs import frozen

from ...mail.reply import Reply
from ...mail.tls_facts import TLSFacts

KEPT_ATTEMPTS = 5
"""Attempts that are remembered of each recipient, the latest."""

KEPT_TRANSCRIPTS = 2
"""Attempts whose transcript is remembered, the latest."""


@frozen(kw_only=True)
class PastAttempt:
    """An attempt after which the recipient was deferred.

    Attributes:
        attempt: its number, from 1.
        ended_at: wall time.
        next_hop: its name as people see it.
        reply: the last reply, the next hop's or our own.
        remote: the host that gave the reply, ``host[address]:port``; None: it is our own.
        tls: the TLS that protected the session; None: no TLS.
        uncertain: whether the message may have been delivered (`Outcome.uncertain`).
        unreachable: whether the failure is the next hop's, not the message's
            (`Outcome.unreachable`).
        transcript: the SMTP session (`Outcome.transcript`); empty where there was no session, or
            where it is no longer kept.
        machine: that has made it, for people; empty: the queue is that of one machine.
    """

    attempt: int
    ended_at: float
    next_hop: str
    reply: Reply
    remote: str | None = None
    tls: TLSFacts | None = None
    uncertain: bool = False
    unreachable: bool = False
    transcript: str = ""
    machine: str = ""
