"""What the policies about strangers would say of mail from a client, before any of it is sent.

The same policies are asked that the listener has, without a content: DKIM and ARC, which need one,
are left out, and DMARC is evaluated for mail that has no signature. Nothing is logged or counted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

from attrs import asdict
from twisted.internet.defer import CancelledError, Deferred, FirstError, TimeoutError

from ...config import PolicySettings
from ...interfaces import Clock, Resolver
from ...mail.address import Mailbox, address_literal
from ...mail.assessment import Verdict
from ...mail.reply import Reply
from ...message.authentication_results import MethodResult
from ...policy import iprev
from ...policy.chain import Member
from ...policy.dmarc.discovery import walk
from ...policy.dmarc.evaluation import evaluate
from ...policy.dmarc.handling import Evidence, handling
from ...policy.dmarc.identifiers import Identified
from ...policy.dmarc.policy import TrustedForwarders
from ...policy.dnsbl import blocklist
from ...policy.dnsbl.dnsbl_policy import DNSBLPolicy
from ...policy.examination import Examination, PolicySession
from ...policy.greylist import greylist_policy
from ...policy.greylist.greylist_policy import GreylistPolicy
from ...policy.lists import deny_policy
from ...policy.lists.exemptions import pending
from ...policy.spf import policy as spf
from ...server.intake import Intake
from ...smtp.peer import Peer
from ...smtp.server.session import Session
from ...smtp.server.settings import SessionSettings

_PATIENCE = 7.0  # seconds for each of three steps; an operator waits for 25 s at most

# Several look-ups at the same time end with FirstError when they are canceled.
_TOO_LATE = (TimeoutError, CancelledError, FirstError)

_FORETOLD = (iprev.NAME, spf.NAME, deny_policy.NAME, blocklist.NAME, greylist_policy.NAME)
"""Policies that look at client, greeting and envelope, and change nothing."""


class Forecaster:
    """Foretells for one process.

    Args:
        resolver: the DNS.
        clock: for deadlines.
    """

    def __init__(self, resolver: Resolver, clock: Clock) -> None:
        self._resolver = resolver
        self._clock = clock

    async def foretell(
        self,
        intake: Intake,
        settings: PolicySettings,
        *,
        client: str,
        helo: str | None,
        sender: Mailbox | None,
        recipient: Mailbox,
    ) -> dict[str, Any]:
        """Return what policies would say, in plain types for JSON.

        Args:
            intake: of the listener to which the client would connect.
            settings: of policies.
            client: its address.
            helo: the name in its greeting; None: its confirmed reverse name, or its address.
            sender: the reverse-path; None: the null one.
            recipient: the mailbox in RCPT.
        """
        view = Session(SessionSettings(hostname="explain"), peer=Peer(client))
        view.greeting, view.helo = "EHLO", helo or ""
        if intake.trusts(view):
            return {"stranger": False, "helo": helo, "verdicts": [], "refusals": [], "dmarc": None}
        members = self._members(intake)
        session = PolicySession(view, is_stranger=True)
        # Lists may wait for signatures, which nothing is known of here.
        awaited = [each.name for each in self._all(intake) if each.concludes is not None]
        found = Examination(session, sender, awaited=awaited)
        session.examination = found
        refusals: list[dict[str, str]] = []
        for member in members:
            asking = Deferred.fromCoroutine(self._asked(member, session, found, recipient))
            try:
                reply = await asking.addTimeout(_PATIENCE, self._clock)
            except _TOO_LATE:
                found.conclude(member.name, member.concludes or ())
                reply = None
            if (waiting := pending(found, member.name)) is not None:
                assert sender is not None
                text = f"{waiting}, unless a DKIM signature of {sender.domain} passes"
                refusals.append({"policy": member.name, "reply": text})
            if reply is not None:
                refusals.append({"policy": member.name, "reply": str(reply)})
            if member.name == iprev.NAME and helo is None:
                view.helo = session.reverse_name or address_literal(client)
        dmarc = None
        if settings.dmarc != "off" and sender is not None and not sender.domain.startswith("["):
            by_spf = [each for each in found.results if each.method == spf.NAME]
            evaluating = Deferred.fromCoroutine(
                self._dmarc(settings, client, sender.domain, by_spf)
            )
            try:
                dmarc = await evaluating.addTimeout(_PATIENCE, self._clock)
            except _TOO_LATE:
                text = f"header.from={sender.domain}, no answer in time"
                dmarc = {**asdict(Verdict("dmarc", "temperror", text)), "action": "none"}
        return {
            "stranger": True,
            "helo": view.helo or address_literal(client),
            "verdicts": [asdict(each) for each in found.verdicts],
            "refusals": refusals,
            # Other programs, many of which remember what they are asked.
            "not_asked": [f"{e.name} {e.about}" for e in self._all(intake) if e.about],
            "dmarc": dmarc,
        }

    def _members(self, intake: Intake) -> list[Member]:
        """Return the policies of a listener that can be foretold, iprev first."""
        members = [each for each in self._all(intake) if each.name in _FORETOLD]
        return sorted(members, key=lambda each: _FORETOLD.index(each.name))

    def _all(self, intake: Intake) -> list[Member]:
        groups = () if intake.policies is None else intake.policies.chain.groups
        return [each for group in groups for each in group]

    async def _asked(
        self, member: Member, session: PolicySession, found: Examination, recipient: Mailbox
    ) -> Reply | None:
        """Ask a policy about the envelope; return its refusal, once it has a result."""
        if isinstance(member.policy, GreylistPolicy):
            return await member.policy.foretell(session, recipient)
        stages: tuple[tuple[str, tuple[object, ...]], ...] = (
            ("client", ()),
            ("helo", ()),
            ("mail", (found.sender,)),
            ("rcpt", (recipient,)),
        )
        for stage, about in stages:
            method = getattr(member.policy, stage, None)
            answer = None if method is None else method(session, *about)
            if isinstance(answer, Awaitable):
                answer = await answer
            if isinstance(answer, Reply) and answer.code >= 400:
                return answer
        if isinstance(member.policy, DNSBLPolicy):
            marks = await member.policy.marks(session)
            found.opinion.verdicts += (Verdict(member.name, "mark", str(each)) for each in marks)
        if member.concludes is not None:
            await found.concluded(member.name)
        return None

    async def _dmarc(
        self,
        settings: PolicySettings,
        client: str,
        domain: str,
        by_spf: Sequence[MethodResult],
    ) -> dict[str, Any]:
        """Return what DMARC says of a mail whose author has the domain of the reverse-path."""
        found = Identified.of(by_spf, (), null_path=False)
        evaluation = await evaluate(
            await walk(domain, self._resolver), found.spf, found.dkim, self._resolver
        )
        words = [f"header.from={domain}"]
        action = "none"
        if evaluation.policy is not None:
            published = evaluation.policy.published
            words.append(f"p={evaluation.request} at {published.domain}")
            if evaluation.result == "fail":
                forwarders = TrustedForwarders(settings.trusted_forwarders)
                evidence = Evidence(
                    enforced=settings.dmarc == "enforce",
                    from_forwarder=forwarders.include(client, found.authenticated),
                    is_uncertain=forwarders.include(None, found.uncertain),
                )
                testing = published.record.testing
                action = handling(evaluation.request, testing=testing, evidence=evidence).action
        if evaluation.reason:
            words.append(evaluation.reason)
        verdict = Verdict("dmarc", evaluation.result, ", ".join(words))
        return {**asdict(verdict), "action": action}
