"""Asks one filter about sessions and their mail, and returns its changes as answers of a policy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import IO

from attrs import define, field
from twisted.internet.defer import CancelledError, TimeoutError
from twisted.logger import Logger

from ...mail.address import Mailbox
from ...mail.printable import printable
from ...mail.reply import Reply
from ...message.header_scanner import HeaderScanner
from ..answers import Answer, EnvelopeView, Hold, Noted, Rewrite
from ..default_action import UNAVAILABLE
from ..examination import Examination, PolicySession
from . import macros
from .changes import Changes, Fields, NewBody
from .connection import Connection, Connections
from .packets import Answer as FilterAnswer
from .packets import Command, MilterError, Refusal, Verdict, connect, packet, strings

NAME = "milter"
"""The name of all filters in the log and the counters."""

REFUSED = Reply.fixed(550, "7.1", "Command rejected")
CLOSING = Reply.fixed(421, "3.2", "Service closing, try again later")

_CHUNK = 65_535  # octets of a body in one packet (MILTER_CHUNK_SIZE)


@define(eq=False)
class _Conversation:
    """What one filter was told in a session, and what it has decided.

    Attributes:
        connection: to the filter; None: it is not asked, or not now.
        decided: its decision on the whole session; None: it goes on.
        examination: of the transaction that it knows.
        recipients: of that transaction, which it was told of.
        of_message: its decision on the whole transaction; None: it goes on.
        failed: whether the filter failed in this transaction.
        body: the file of a new body, until it is handed on.
    """

    connection: Connection | None = None
    decided: Verdict | Reply | None = None
    examination: Examination | None = None
    recipients: dict[Mailbox, None] = field(factory=dict)
    of_message: Verdict | None = None
    failed: bool = False
    body: IO[bytes] | None = None

    def begin(self, examination: Examination | None) -> None:
        """Forget the transaction before."""
        self.examination, self.of_message, self.failed = examination, None, False
        self.recipients = {}

    def close_body(self) -> None:
        """Forget a new body."""
        body, self.body = self.body, None
        if body is not None:
            body.close()


class MilterPolicy:
    """A filter as a policy (`policy.protocol.Policy`).

    Args:
        about: the endpoint of the filter, for the log.
        connections: to the filter.
        default: the answer where the filter fails; None: the mail goes on.
        hostname: our name.
        version: the name of this program, with its version.
        is_local: whether a domain is ours.
        new_file: makes an empty file for a new body.
        largest: octets of the largest body.
    """

    _log = Logger()

    def __init__(
        self,
        about: str,
        connections: Connections,
        *,
        default: Reply | None,
        hostname: str,
        version: str,
        is_local: Callable[[str], bool],
        new_file: Callable[[], IO[bytes]],
        largest: int,
    ) -> None:
        self.about = about
        self.default = default
        self._connections = connections
        self._hostname = hostname
        self._version = version
        self._is_local = is_local
        self._new_file = new_file
        self._largest = largest

    # The stages.

    async def client(self, session: PolicySession) -> Answer:
        """Tell of a client; a filter that cannot be reached is tried again at MAIL."""
        conversation = self._begin(session)
        return await self._early(conversation, partial(self._open, session, conversation))

    async def helo(self, session: PolicySession) -> Answer:
        """Tell of a greeting; a transaction goes on behind it only if the greeting is refused."""
        conversation = self._begin(session)
        conversation.begin(None)
        return await self._early(conversation, partial(self._greet, session, conversation))

    async def mail(self, session: PolicySession, sender: Mailbox | None) -> Answer | list[Answer]:
        """Tell of a reverse-path."""
        conversation = self._begin(session)
        conversation.begin(session.examination)
        return await self._guarded(conversation, partial(self._mail, session, conversation, sender))

    async def rcpt(self, session: PolicySession, recipient: Mailbox) -> Answer | list[Answer]:
        """Tell of a recipient."""
        conversation = self._begin(session)
        examination = session.examination
        if examination is not None and conversation.examination is not examination:
            # The filter is new since the transaction began: a reload has added it. Or it was told
            # of a greeting that was refused, and has forgotten the transaction.
            refusal = await self.mail(session, examination.sender)
            if refusal is not None:
                return refusal
        if _is_over(conversation):
            return self._standing(conversation)
        answer = await self._guarded(
            conversation, partial(self._rcpt, session, conversation, recipient)
        )
        if answer is None:
            conversation.recipients[recipient] = None
        return answer

    async def message(
        self, session: PolicySession, envelope: EnvelopeView, content: IO[bytes]
    ) -> Answer | list[Answer]:
        """Show the whole message; return what the filter changes."""
        conversation = self._begin(session)
        for recipient in envelope.recipients:
            if recipient not in conversation.recipients and not _is_over(conversation):
                refusal = await self.rcpt(session, recipient)
                if refusal is not None:
                    return refusal
        if _is_over(conversation):
            return self._standing(conversation, at_end=True)
        changes = self._changes(session, conversation, envelope, content)
        answer = await self._guarded(
            conversation,
            partial(self._content, session, conversation, changes, content),
            at_end=True,
        )
        if answer is not None:
            return answer
        return [*self._answers(conversation, changes)]

    def _ended(self, conversation: _Conversation) -> None:
        """Give the connection back at the end of a session."""
        connection, conversation.connection = conversation.connection, None
        if connection is not None:
            self._connections.release(connection)

    # What the filter knows.

    def _begin(self, session: PolicySession) -> _Conversation:
        conversation = session.memory.get(self)
        if not isinstance(conversation, _Conversation):
            conversation = session.memory[self] = _Conversation()
            session.at_end.append(lambda: self._ended(conversation))
        return conversation

    async def _open(self, session: PolicySession, conversation: _Conversation) -> FilterAnswer:
        """Connect, and tell of the client."""
        connection = conversation.connection = await self._connections.open()
        try:
            return await self._connect(session, connection)
        except (MilterError, TimeoutError):
            if not connection.is_kept:
                raise
        connection.close()
        # The filter had closed a connection that was kept, or does not go on with it.
        self._connections.distrust()
        connection = conversation.connection = await self._connections.open(fresh=True)
        return await self._connect(session, connection)

    async def _connect(self, session: PolicySession, connection: Connection) -> FilterAnswer:
        name, address = macros.client(session)
        told = connect(name.encode(), address, session.peer.port)
        return await self._tell(session, connection, Command.CONNECT, told)

    async def _greet(self, session: PolicySession, conversation: _Conversation) -> FilterAnswer:
        """Tell of the client, if that is still to be done, and of its greeting."""
        connection = conversation.connection
        if connection is None or not connection.is_open:
            answer = await self._open(session, conversation)
            connection = conversation.connection
            if answer is not Verdict.CONTINUE:
                return answer
        assert connection is not None
        if connection.dialogue.in_transaction:
            connection.note(Command.ABORT)
        told = packet(Command.HELO, strings(session.helo.encode()))
        return await self._tell(session, connection, Command.HELO, told)

    async def _mail(
        self, session: PolicySession, conversation: _Conversation, sender: Mailbox | None
    ) -> FilterAnswer:
        connection = conversation.connection
        if connection is None or not connection.is_open:
            answer = await self._greet(session, conversation)
            if answer is not Verdict.CONTINUE:
                self._keep(conversation, answer)
                return answer
            connection = conversation.connection
        assert connection is not None
        if connection.dialogue.in_transaction:
            connection.note(Command.ABORT)
        path = "<>" if sender is None else f"<{sender}>"
        told = packet(Command.MAIL, strings(path.encode()))
        values = macros.of_mailbox("mail", sender, self._is_local)
        return await self._tell(session, connection, Command.MAIL, told, values)

    async def _rcpt(
        self, session: PolicySession, conversation: _Conversation, recipient: Mailbox
    ) -> FilterAnswer:
        told = packet(Command.RCPT, strings(f"<{recipient}>".encode()))
        values = macros.of_mailbox("rcpt", recipient, self._is_local)
        return await self._tell(session, _connected(conversation), Command.RCPT, told, values)

    async def _tell(
        self,
        session: PolicySession,
        connection: Connection,
        command: Command,
        told: bytes,
        values: macros.Values | None = None,
    ) -> FilterAnswer:
        examination = session.examination
        known = [macros.of_session(session, hostname=self._hostname, version=self._version)]
        if values is not None:
            known.append(values)
        if examination is not None and examination.id:
            known.append({"i": examination.id})
        return await connection.tell(
            command, told, macros.chosen(connection.dialogue.terms, command, *known)
        )

    async def _content(
        self,
        session: PolicySession,
        conversation: _Conversation,
        changes: Changes,
        content: IO[bytes],
    ) -> FilterAnswer:
        """Show header and body, and take what the filter changes."""
        connection = _connected(conversation)
        while changes.fields.read():
            await connection.turn()
        answer = await self._tell(session, connection, Command.DATA, packet(Command.DATA))
        if answer is not Verdict.CONTINUE:
            return answer
        if connection.dialogue.terms.sees(Command.HEADER):
            for name, value in changes.fields.shown():
                told = packet(Command.HEADER, strings(name, value))
                answer = await connection.tell(Command.HEADER, told)
                if answer is not Verdict.CONTINUE:
                    return answer
        told = packet(Command.END_OF_HEADER)
        answer = await self._tell(session, connection, Command.END_OF_HEADER, told)
        if answer is not Verdict.CONTINUE:
            return answer
        if connection.dialogue.terms.sees(Command.BODY):
            for piece in iter(lambda: content.read(_CHUNK), b""):
                answer = await connection.tell(Command.BODY, packet(Command.BODY, piece))
                if answer is Verdict.SKIP:
                    break
                if answer is not Verdict.CONTINUE:
                    return answer
        told = packet(Command.END_OF_BODY)
        answer = await self._tell(session, connection, Command.END_OF_BODY, told)
        while not isinstance(answer, Verdict | Refusal):
            changes.apply(answer)
            answer = await connection.answer(Command.END_OF_BODY)
        if changes.fields.changed or changes.body is not None:
            pieces: list[bytes] = []
            for piece in changes.fields.section():
                if pieces:
                    await connection.turn()
                pieces.append(piece)
            changes.section = b"".join(pieces)
        return answer

    # What follows from its answers.

    async def _early(
        self, conversation: _Conversation, ask: Callable[[], Awaitable[FilterAnswer]]
    ) -> Answer:
        """Return the answer before a transaction."""
        decided = conversation.decided
        if decided is not None:
            return decided if isinstance(decided, Reply) else None
        try:
            answer = await ask()
            if answer is Verdict.NO_CONNECTION:
                raise MilterError("the filter has no connection")
        except Exception as error:
            self._fail(conversation, error)
            if isinstance(error, CancelledError):
                raise
            return None
        return self._keep(conversation, answer)

    def _keep(self, conversation: _Conversation, answer: FilterAnswer) -> Reply | None:
        """Keep a decision on the client or its greeting; return the refusal."""
        refusal = _refusal(answer)
        if refusal is not None and answer is not Verdict.REJECT:
            return refusal
        if answer is Verdict.ACCEPT:
            conversation.decided = Verdict.ACCEPT
        elif refusal is not None:
            conversation.decided = refusal
        return refusal

    async def _guarded(
        self,
        conversation: _Conversation,
        ask: Callable[[], Awaitable[FilterAnswer]],
        *,
        at_end: bool = False,
    ) -> Answer | list[Answer]:
        """Return the answer within a transaction; None: the filter has no objection so far."""
        if conversation.decided is not None:
            return self._standing(conversation, at_end=at_end)
        try:
            answer = await ask()
            if answer is Verdict.NO_CONNECTION:
                raise MilterError("the filter has no connection")
        except Exception as error:
            self._fail(conversation, error)
            conversation.failed = True
            if isinstance(error, CancelledError):
                raise
            return self._standing(conversation, at_end=at_end)
        if answer is not Verdict.CONTINUE and answer is not Verdict.ACCEPT:
            conversation.close_body()
        refusal = _refusal(answer)
        if refusal is not None:
            return refusal
        if answer in (Verdict.ACCEPT, Verdict.DISCARD):
            assert isinstance(answer, Verdict)
            if answer is Verdict.DISCARD or not at_end:
                conversation.of_message = answer
            if at_end and answer is Verdict.DISCARD:
                return self._standing(conversation, at_end=True)
        return None

    def _standing(
        self, conversation: _Conversation, *, at_end: bool = False
    ) -> Answer | list[Answer]:
        """Return what a decision for the rest of the transaction means for one stage of it."""
        if isinstance(conversation.decided, Reply):
            return conversation.decided
        if conversation.failed:
            if self.default is not None:
                return self.default
            return [Noted("temperror")] if at_end else None
        if not at_end:
            return None
        if conversation.of_message is Verdict.DISCARD:
            self._log.info("the filter {filter} discards a message", filter=self.about)
            return [Noted("discard"), Rewrite(recipients=())]
        return [Noted("pass")]

    def _fail(self, conversation: _Conversation, error: Exception) -> None:
        conversation.close_body()
        connection, conversation.connection = conversation.connection, None
        if connection is not None:
            if connection.is_kept:
                self._connections.distrust()
            connection.close()
        if isinstance(error, CancelledError):
            return
        what = "no answer in time" if isinstance(error, TimeoutError) else str(error)
        self._log.warn(
            "the filter {filter} failed: {error}",
            filter=self.about,
            error=printable(what or type(error).__name__),
        )

    def _changes(
        self,
        session: PolicySession,
        conversation: _Conversation,
        envelope: EnvelopeView,
        content: IO[bytes],
    ) -> Changes:
        examination = session.examination
        assert examination is not None
        connection = conversation.connection
        recipients = examination.recipients_instead
        if recipients is None:
            recipients = envelope.recipients

        def new_body() -> NewBody:
            conversation.body = self._new_file()
            return NewBody(conversation.body, self._largest)

        return Changes(
            Fields(
                examination.fields(),
                examination.opinion.added + _header(content),
                keeps_space=connection is not None and connection.dialogue.terms.keeps_space,
            ),
            dict.fromkeys(recipients),
            new_body,
        )

    def _answers(self, conversation: _Conversation, changes: Changes) -> Iterator[Answer]:
        """Yield what the modifications of a filter that has accepted mean."""
        examination = conversation.examination
        assert examination is not None
        changed = changes.section is not None
        conversation.body = None
        if changed:
            examination.opinion.replace_fields(changes.fields.above)
        if changes.sender is not None:
            examination.opinion.mail_parameters.update(changes.mail)
        examination.opinion.rcpt_parameters.update(changes.rcpt)
        if changed or changes.sender is not None or changes.readdressed:
            yield Rewrite(
                sender=changes.sender,
                recipients=tuple(changes.recipients) if changes.readdressed else None,
                header=changes.section,
                body=None if changes.body is None else changes.body.end(),
            )
        else:
            yield Noted("pass")
        if changes.hold:
            yield Hold(changes.hold)


def _is_over(conversation: _Conversation) -> bool:
    """Whether the filter is asked nothing more about the transaction."""
    return (
        conversation.decided is not None
        or conversation.of_message is not None
        or conversation.failed
    )


def _connected(conversation: _Conversation) -> Connection:
    connection = conversation.connection
    if connection is None or not connection.is_open:
        raise MilterError("the filter closed the connection")
    return connection


def _refusal(answer: FilterAnswer) -> Reply | None:
    if isinstance(answer, Refusal):
        return answer.reply
    return _REFUSALS.get(answer) if isinstance(answer, Verdict) else None


_REFUSALS: Mapping[Verdict, Reply] = {
    Verdict.REJECT: REFUSED,
    Verdict.DEFER: UNAVAILABLE,
    Verdict.SHUTDOWN: CLOSING,
}


def _header(content: IO[bytes]) -> bytes:
    """Return the header section of a content, and place it where the body begins."""
    scanner, held = HeaderScanner(), bytearray()
    content.seek(0)
    while not scanner.ended and (piece := content.read(_CHUNK)):
        held += piece
        scanner.feed(piece)
    content.seek(scanner.size + 2 if scanner.ended else scanner.size)
    return bytes(held[: scanner.size])
