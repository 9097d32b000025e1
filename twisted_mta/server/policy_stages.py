"""The policies of a listener, asked about its sessions at each stage."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define
from twisted.internet.defer import Deferred

from ..mail.address import Mailbox
from ..mail.decision import Decision
from ..mail.reply import Reply
from ..policy.answers import EnvelopeView
from ..policy.chain import PolicyChain
from ..policy.examination import Examination, Opinion, PolicySession
from ..smtp.server.session import Session
from ..system.coroutines import outcome


@define
class _Notes:
    """What is kept for a session (`Session.notes`).

    Attributes:
        seen: the session as policies see it.
        client_asked: whether they were asked about the client, and did not refuse it.
        helo_asked: whether they were asked about its present name, and did not refuse it.
        of_client: what they found out about the client alone.
    """

    seen: PolicySession
    client_asked: bool = False
    helo_asked: bool = False
    of_client: Opinion | None = None


class PolicyStages:
    """Asks a chain of policies about sessions.

    Args:
        chain: of the listener.
    """

    def __init__(self, chain: PolicyChain) -> None:
        self.chain = chain

    def client(self, session: Session, *, is_stranger: bool) -> Decision | Deferred[Decision]:
        """Ask about a client before it is greeted."""
        notes = self._notes(session, is_stranger)
        if not self.chain.asks("client", notes.seen):
            return None
        return outcome(self._client(notes, instead_of_greeting=True))

    def helo(self, session: Session, *, is_stranger: bool) -> Decision | Deferred[Decision]:
        """Ask about the name in a greeting."""
        return outcome(self._helo(self._notes(session, is_stranger)))

    def mail(
        self, session: Session, reverse_path: Mailbox | None, *, is_stranger: bool
    ) -> Decision | Deferred[Decision]:
        """Begin the examination of a transaction, and ask about its reverse-path."""
        notes = self._notes(session, is_stranger)
        notes.seen.examination = None
        if not self.chain.concerns(notes.seen):
            return None
        return outcome(self._mail(notes, reverse_path))

    def rcpt(self, session: Session, recipient: Mailbox) -> Decision | Deferred[Decision]:
        """Ask about a recipient of the present transaction."""
        examination = self.examination(session)
        if examination is None or not self.chain.asks("rcpt", examination.session):
            return None
        return outcome(self.chain.rcpt(examination.session, recipient))

    def data(self, session: Session, envelope: EnvelopeView) -> Decision | Deferred[Decision]:
        """Ask about a message before its content."""
        examination = self.examination(session)
        if examination is None or not self.chain.asks("data", examination.session):
            return None
        return outcome(self.chain.data(examination.session, envelope))

    def examination(self, session: Session) -> Examination | None:
        """Return the examination of the present transaction; None where no policy is asked."""
        notes = session.notes
        return notes.seen.examination if isinstance(notes, _Notes) else None

    def _notes(self, session: Session, is_stranger: bool) -> _Notes:
        notes = session.notes
        # XCLIENT makes the session that of another client.
        if not isinstance(notes, _Notes) or notes.seen.peer is not session.peer:
            end_notes(session)
            notes = session.notes = _Notes(PolicySession(session))
        notes.seen.is_stranger = is_stranger
        return notes

    async def _client(self, notes: _Notes, *, instead_of_greeting: bool = False) -> Reply | None:
        refusal = await self.chain.client(notes.seen)
        notes.client_asked = refusal is None
        notes.of_client = Opinion(notes.seen.opinion)
        if instead_of_greeting and refusal is not None:
            # RFC 5321 §3.1 and §4.3.2: in place of the greeting come 554 and 421 alone.
            code = 421 if refusal.code < 500 else 554
            return Reply.of(code, refusal.status, *refusal.lines)
        return refusal

    async def _helo(self, notes: _Notes) -> Reply | None:
        seen = notes.seen
        notes.helo_asked = False
        # There was no greeting for a client that a proxy speaks for since (XCLIENT).
        refusal = None if notes.client_asked else await self._client(notes)
        if refusal is not None:
            return refusal
        # What was found out about another name is forgotten with it, as RFC 3207 §4.2 asks after
        # STARTTLS. RFC 5321 §4.1.4: the greeting also ends a transaction, unless it is refused.
        before = seen.examination, seen.opinion
        seen.examination, seen.opinion = None, Opinion(notes.of_client)
        refusal = await self.chain.helo(seen)
        if refusal is not None:
            seen.examination, seen.opinion = before
        notes.helo_asked = refusal is None
        return refusal

    async def _mail(self, notes: _Notes, reverse_path: Mailbox | None) -> Reply | None:
        # The last greeting may have been another client's (XCLIENT).
        refusal = None if notes.helo_asked else await self._helo(notes)
        if refusal is not None:
            return refusal
        self.chain.examine(notes.seen, reverse_path)
        return await self.chain.mail(notes.seen, reverse_path)


def end_notes(session: Session) -> None:
    """Let the policies that were asked about a session know that it has ended."""
    notes, session.notes = session.notes, None
    if isinstance(notes, _Notes):
        notes.seen.end()


def rewritten_recipients(examination: Examination, since: int) -> Sequence[Mailbox] | None:
    """Return the recipients that policies gave in place of one; None: it stays.

    Args:
        examination: of the transaction.
        since: how many rewrites there were before it.
    """
    given = [each.recipients for each in examination.opinion.rewrites[since:]]
    return next((each for each in reversed(given) if each is not None), None)
