"""What the allow list exempts from other lists, and how far a stranger proves to be on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from attrs import define, frozen
from twisted.internet.defer import TimeoutError

from ...interfaces import Clock, Resolver
from ...mail.address import Mailbox, is_postmaster
from ...mail.assessment import Verdict
from ...mail.printable import printable
from ...mail.reply import Reply
from ...message.authentication_results import MethodResult
from .. import iprev
from ..chain import Count
from ..dkim import policy as dkim
from ..dmarc.alignment import Alignment
from ..dmarc.discovery import walk
from ..dmarc.identifiers import Identified
from ..examination import Examination, PolicySession
from ..spf import policy as spf
from .access_list import AccessList, Entry

NAME = "allow"
"""The name of the list, in the log and the counters."""

_PATIENCE = 10.0  # seconds for SPF, or for the reverse name
_MIXED = Reply.fixed(452, "5.3", "Send to this recipient in a transaction of its own")

Standing = Literal["exempt", "pending", "none"]
"""``pending``: the sender is on the list, and a signature may prove that the mail is its own."""


@define
class _Refusals:
    """The refusals of a transaction that wait for its signatures, by policy; see `Exemptions`.

    Attributes:
        waiting: the replies.
        exempt: whether a recipient was accepted that they do not concern.
    """

    waiting: dict[str, Reply]
    exempt: bool = False


@frozen(eq=False)
class Exemptions:
    """Decides whether mail is exempt from what other lists say.

    Attributes:
        allowed: returns the list.
        resolver: for the domains of organizations.
        clock: for deadlines.
        count: counts the mail that was exempt.
    """

    allowed: Callable[[], AccessList]
    resolver: Resolver
    clock: Clock
    count: Count = lambda policy, result: None

    def client(self, session: PolicySession) -> Entry | None:
        """Return the entry that exempts a client by its address."""
        return self.allowed().address(session.address)

    async def refusal(
        self,
        policy: str,
        session: PolicySession,
        recipient: Mailbox,
        reply: Reply,
        *,
        of_recipient: bool = False,
    ) -> Reply | None:
        """Return what is left of a refusal by a policy, for a recipient.

        A refusal of a sender that a signature may prove to be on the allow list waits for the end
        of the content (`after_content`). It concerns the whole message then: recipients that are
        exempt anyway are to be sent to apart.

        Args:
            policy: its name.
            session: with the transaction.
            recipient: as the client gave it.
            reply: the refusal.
            of_recipient: whether it is about this recipient alone; then it does not wait.
        """
        examination = session.examination
        if is_postmaster(recipient) and not of_recipient:
            standing: Standing = "exempt"  # RFC 5321 §4.5.1: it is reached as long as possible
        else:
            standing = await self._standing(policy, session, recipient)
        if examination is None or standing == "none" or (standing == "pending" and of_recipient):
            return reply
        refusals = examination.memory.setdefault(Exemptions, _Refusals({}))
        assert isinstance(refusals, _Refusals)
        if standing == "exempt":
            if refusals.waiting:
                return _MIXED
            refusals.exempt = True
            return None
        if refusals.exempt:
            return _MIXED
        refusals.waiting.setdefault(policy, reply)
        return None

    async def after_content(self, policy: str, session: PolicySession) -> Reply | None:
        """Return the refusal by a policy that has waited for signatures; None: there is none."""
        examination = session.examination
        reply = None if examination is None else pending(examination, policy)
        if examination is None or reply is None or examination.sender is None:
            return None
        sender = examination.sender
        entry = self.allowed().sender(sender)
        if entry is not None and await self._is_signed(policy, sender, entry, examination):
            return None
        return reply

    async def _is_aligned(self, domain: str, signing: Sequence[str]) -> bool:
        """Whether one of several domains is, or belongs to the organization of, another one."""
        if domain in signing:
            return True
        if not signing or domain.startswith("["):
            return False
        alignment = Alignment(await walk(domain, self.resolver, whole=False), self.resolver)
        for each in signing:
            if await alignment.of(each) in ("strict", "relaxed"):
                return True
        return False

    async def of_message(self, policy: str, session: PolicySession) -> bool:
        """Whether a message is exempt whatever its recipients, once its signatures are known."""
        examination = session.examination
        if examination is None:
            return False
        if await self._is_proven(policy, session, examination):
            return True
        sender = examination.sender
        entry = None if sender is None else self.allowed().sender(sender)
        return (
            entry is not None
            and sender is not None
            and await self._is_signed(policy, sender, entry, examination)
        )

    async def _is_signed(
        self, policy: str, sender: Mailbox, entry: Entry, examination: Examination
    ) -> bool:
        found = Identified.of((), await examination.concluded(dkim.NAME), null_path=False)
        if not await self._is_aligned(sender.domain, found.dkim.passed):
            return False
        self._exempt(policy, examination, entry, f"{sender.domain} by DKIM")
        return True

    async def _standing(self, policy: str, session: PolicySession, recipient: Mailbox) -> Standing:
        allowed, examination = self.allowed(), session.examination
        entry = allowed.recipient(recipient)
        if examination is None:
            return "none" if entry is None else "exempt"
        if entry is not None:
            self._exempt(policy, examination, entry)
            return "exempt"
        if await self._is_proven(policy, session, examination):
            return "exempt"
        sender = examination.sender
        if sender is None or self.allowed().sender(sender) is None:
            return "none"
        # With the policy of DKIM, its result is awaited at the end of the content.
        return "none" if examination.is_concluded(dkim.NAME) else "pending"

    async def _is_proven(
        self, policy: str, session: PolicySession, examination: Examination
    ) -> bool:
        """Whether the client is on the list, or a name or sender that SPF proves to be its own."""
        allowed, proof = self.allowed(), ""
        entry = allowed.address(session.address)
        if entry is None and allowed.has("client"):
            await within_patience(examination, iprev.NAME, self.clock)
            entry = allowed.host("client", session.reverse_name or "")
        named, sender = allowed.host("helo", session.helo), examination.sender
        sending = None if sender is None else allowed.sender(sender)
        if entry is None and (named is not None or sending is not None):
            # A name that is claimed counts where its owner has named this very client.
            results = await within_patience(examination, spf.NAME, self.clock)
            if named is not None and _passes(results, "smtp.helo"):
                entry, proof = named, f"{session.helo} by SPF"
            elif sender is not None and sending and _passes(results, "smtp.mailfrom"):
                entry, proof = sending, f"{sender.domain} by SPF"
        if entry is None:
            return False
        self._exempt(policy, examination, entry, proof)
        return True

    def _exempt(self, policy: str, examination: Examination, entry: Entry, proof: str = "") -> None:
        words = [f"over {policy}, line {entry.line}: {entry.text}", proof]
        verdict = Verdict(NAME, "pass", printable(", ".join(filter(None, words))))
        if verdict not in examination.opinion.verdicts:
            examination.opinion.verdicts.append(verdict)
            self.count(NAME, "pass")


def pending(examination: Examination, policy: str) -> Reply | None:
    """Return the refusal by a policy that waits for the signatures of a message."""
    refusals = examination.memory.get(Exemptions)
    return refusals.waiting.get(policy) if isinstance(refusals, _Refusals) else None


async def within_patience(
    examination: Examination, policy: str, clock: Clock
) -> Sequence[MethodResult]:
    """Return what a policy has found; nothing where that takes too long."""
    if examination.is_concluded(policy):
        return await examination.concluded(policy)
    try:
        return await examination.concluded(policy).addTimeout(_PATIENCE, clock)
    except TimeoutError:
        return ()


def _passes(results: Sequence[MethodResult], identity: str) -> bool:
    return any(
        each.result == "pass" and any(name == identity for name, _ in each.properties)
        for each in results
    )
