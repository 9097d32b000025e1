"""Greylisting as a policy: RCPT of an unknown network, sender and recipient is deferred."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from hashlib import sha256
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil

from ...interfaces import WallTime
from ...mail.address import Mailbox, folded, is_postmaster
from ...mail.assessment import Verdict
from ...mail.reply import Reply
from ..answers import EnvelopeView
from ..chain import Count
from ..examination import PolicySession
from ..lists.exemptions import Exemptions
from .decisions import Decisions, TooMany
from .file import Attempt, Decision

NAME = "greylist"
"""The name of the policy, in the log and the counters."""

_BUSY = Reply.fixed(451, "7.1", "Greylisted, try again later")
_DIGITS = re.compile("[0-9]+")
_KEY = 16  # octets


class GreylistPolicy:
    """Defers RCPT, until the same is tried again after some minutes.

    What tries again is a mail server with a queue. Servers that send from several addresses of a
    network, /24 of IPv4 or /64 of IPv6, and senders that differ in numbers alone, as those of
    mailing lists do, are taken together. A network is not asked any more once it has passed
    several times.

    The null reverse-path is treated as any other. The postmaster is exempt, clients on this machine
    are, and what the allow list has.

    Args:
        decisions: of all listeners.
        exemptions: from the policy.
        delay: seconds until another attempt is accepted.
        wall_time: of attempts.
        count: counts recipients that have passed.
    """

    def __init__(
        self,
        decisions: Decisions,
        exemptions: Exemptions,
        *,
        delay: float,
        wall_time: WallTime,
        count: Count,
    ) -> None:
        self._decisions = decisions
        self._exemptions = exemptions
        self._delay = delay
        self._wall_time = wall_time
        self._count = count

    def rcpt(self, session: PolicySession, recipient: Mailbox) -> Awaitable[Reply | None] | None:
        """Return the deferral of a recipient; None: it is accepted."""
        attempt = self._attempt(session, recipient)
        return None if attempt is None else self._deferral(session, recipient, attempt)

    async def _deferral(
        self, session: PolicySession, recipient: Mailbox, attempt: Attempt
    ) -> Reply | None:
        try:
            decision = await self._decisions.decide(attempt)
        except TooMany:
            return _BUSY
        if decision is None:
            return None
        if decision.wait <= 0:
            self._passed(session, attempt, decision)
            return None
        reply = _reply(decision)
        return await self._exemptions.refusal(NAME, session, recipient, reply)

    def message(
        self, session: PolicySession, envelope: EnvelopeView, content: object
    ) -> Awaitable[Reply | None]:
        """Return the deferral that has waited for the signatures of a message."""
        return self._exemptions.after_content(NAME, session)

    async def foretell(self, session: PolicySession, recipient: Mailbox) -> Reply | None:
        """Return the deferral that a client would get now; nothing is remembered."""
        attempt = self._attempt(session, recipient)
        decision = None if attempt is None else await self._decisions.foretell(attempt)
        if decision is None or decision.wait <= 0:
            return None
        return await self._exemptions.refusal(NAME, session, recipient, _reply(decision))

    def _attempt(self, session: PolicySession, recipient: Mailbox) -> Attempt | None:
        """Return what is looked up; None: the recipient is exempt."""
        examination = session.examination
        if (
            examination is None
            or session.address is None
            or is_postmaster(recipient)
            or self._exemptions.client(session) is not None
        ):
            return None
        network = _network(session.address)
        if network is None:
            return None
        key = "\0".join((network, _sender(examination.sender), _recipient(recipient)))
        digest = sha256(key.encode("utf-8", "surrogatepass")).digest()[:_KEY]
        return Attempt(network, digest, self._delay, self._wall_time())

    def _passed(self, session: PolicySession, attempt: Attempt, decision: Decision) -> None:
        self._count(NAME, "pass")
        examination = session.examination
        if examination is None:
            return
        words = {
            "network": f"{attempt.network} has passed often enough",
            "known": "it has passed before",
            "again": "it was tried again",
        }
        verdict = Verdict(NAME, "pass", words.get(decision.why, ""))
        if verdict not in examination.opinion.verdicts:
            examination.opinion.verdicts.append(verdict)


def _network(address: str) -> str | None:
    """Return the network of a client; None: it is this machine."""
    parsed = ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    client = mapped or parsed
    if client.is_loopback:
        return None
    return str(ip_network((client, 24 if client.version == 4 else 64), strict=False))


def _sender(sender: Mailbox | None) -> str:
    """Return a reverse-path without numbers and tag: each message may have others."""
    if sender is None:
        return ""
    name = folded(sender.local_part)
    return f"{_DIGITS.sub('#', name.partition('+')[0] or name)}@{sender.domain}"


def _recipient(recipient: Mailbox) -> str:
    return f"{folded(recipient.local_part)}@{recipient.domain}"


def _reply(decision: Decision) -> Reply:
    seconds = ceil(decision.wait)
    # In digits alone: there are clients that read when to try again.
    unit = "second" if seconds == 1 else "seconds"
    return Reply.of(451, "7.1", f"Greylisted, try again in {seconds} {unit}")
