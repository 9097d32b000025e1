"""Asks one policy service about mail, and returns the actions that it asks for as answers."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import IO

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from ...interfaces import Clock
from ...mail.address import Mailbox
from ...mail.printable import printable
from ...mail.reply import Reply
from .. import iprev
from ..answers import Answer, EnvelopeView, Hold, Noted, Rewrite
from ..examination import Examination, PolicySession
from ..lists.exemptions import within_patience
from .answer import Action, Verb, read_action
from .connection import Connections
from .request import State, Subject, attributes, request

NAME = "policy_service"
"""The name of all services in the log and the counters."""

NewInstance = Callable[[], str]
"""Return a word for a message, never one twice."""


@define
class _Turn:
    """What the services have said so far about one command.

    Attributes:
        permits: whether one has said that no other is to be asked.
        deferral: the first reply of DEFER_IF_PERMIT.
        instead: the first reply of DEFER_IF_REJECT, which stands for a refusal.
    """

    permits: bool = False
    deferral: Reply | None = None
    instead: Reply | None = None

    @staticmethod
    def of(examination: Examination) -> _Turn:
        """Return that of the present command."""
        turn = examination.memory.setdefault(_Turn, _Turn())
        assert isinstance(turn, _Turn)
        return turn


class Turns:
    """Stands before the services of a listener, and begins their turn at each command."""

    def mail(self, session: PolicySession, sender: Mailbox | None) -> None:
        """Begin at MAIL."""
        _begin(session)

    def rcpt(self, session: PolicySession, recipient: Mailbox) -> None:
        """Begin at RCPT."""
        _begin(session)

    def data(self, session: PolicySession, envelope: EnvelopeView) -> None:
        """Begin at DATA."""
        _begin(session)

    def message(self, session: PolicySession, envelope: EnvelopeView, content: object) -> None:
        """Begin at the end of the content."""
        _begin(session)


class Deferrals:
    """Stands behind the services of a listener: a deferral that none has refused counts."""

    def mail(self, session: PolicySession, sender: Mailbox | None) -> Reply | None:
        """Return the deferral of a reverse-path."""
        return _deferral(session)

    def rcpt(self, session: PolicySession, recipient: Mailbox) -> Reply | None:
        """Return the deferral of a recipient."""
        return _deferral(session)

    def data(self, session: PolicySession, envelope: EnvelopeView) -> Reply | None:
        """Return the deferral of a message before its content."""
        return _deferral(session)

    def message(
        self, session: PolicySession, envelope: EnvelopeView, content: object
    ) -> Reply | None:
        """Return the deferral of a message."""
        return _deferral(session)


def _begin(session: PolicySession) -> None:
    if session.examination is not None:
        session.examination.memory[_Turn] = _Turn()


def _deferral(session: PolicySession) -> Reply | None:
    return None if session.examination is None else _Turn.of(session.examination).deferral


@define
class _Found:
    """What one service has said of a transaction so far.

    Attributes:
        asked: whether it was asked.
        failed: whether it failed, and the mail went on.
        is_noted: whether a verdict of its is noted already.
        discards: whether the message goes nowhere.
        instead: the recipient that gets it instead of its own.
        besides: further recipients.
    """

    asked: bool = False
    failed: bool = False
    is_noted: bool = False
    discards: bool = False
    instead: Mailbox | None = None
    besides: list[Mailbox] = field(factory=list)


class _Asking:
    """A service as a policy (`policy.protocol.Policy`), which a subclass asks at one stage.

    Whatever is about the whole message is carried out at its end.

    Args:
        about: the endpoint of the service, for the log.
        connections: to the service.
        default: the answer where the service fails; None: the mail goes on.
        context: ``policy_context``.
        new_instance: names messages.
        clock: for the wait for the reverse name of a client.
    """

    _log = Logger()

    def __init__(
        self,
        about: str,
        connections: Connections,
        *,
        default: Reply | None,
        context: str,
        new_instance: NewInstance,
        clock: Clock,
    ) -> None:
        self.about = about
        self.default = default
        self._connections = connections
        self._context = context
        self._new_instance = new_instance
        self._clock = clock

    async def message(
        self, session: PolicySession, envelope: EnvelopeView, content: IO[bytes] | None
    ) -> Answer | list[Answer]:
        """Return what the service has asked for that is about the whole message."""
        return self._at_end(session, envelope)

    # Asking.

    async def _ask(self, session: PolicySession, subject: Subject) -> Answer:
        examination = session.examination
        if examination is None or _Turn.of(examination).permits:
            return None
        found = self._found(examination)
        found.asked = True
        await within_patience(examination, iprev.NAME, self._clock)
        subject = evolve(subject, instance=self._instance(examination), context=self._context)
        try:
            answer = await self._connections.ask(request(attributes(session, subject)))
            action = read_action(answer)
        except CancelledError:
            raise
        except Exception as error:
            self._log.warn(
                "the policy service {service} failed: {error}",
                service=self.about,
                error=printable(str(error) or type(error).__name__),
            )
            found.failed = True
            return self.default
        return self._carried_out(action, _Turn.of(examination), found)

    def _carried_out(self, action: Action, turn: _Turn, found: _Found) -> Answer:
        verb = action.verb
        if verb is Verb.REFUSE:
            refuses = action.reply is not None and action.reply.code >= 500
            return turn.instead if refuses and turn.instead is not None else action.reply
        if verb is Verb.DEFER_IF_PERMIT:
            turn.deferral = turn.deferral or action.reply
        elif verb is Verb.DEFER_IF_REJECT:
            turn.instead = turn.instead or action.reply
        elif verb is Verb.OK:
            turn.permits = True
        elif verb is Verb.DISCARD:
            turn.permits = found.discards = True
            self._log.info(
                "the policy service {service} discards a message: {said}",
                service=self.about,
                said=action.text or "no reason given",
            )
        elif verb is Verb.REDIRECT:
            found.instead = action.mailbox
        elif verb is Verb.BCC and action.mailbox is not None:
            found.besides.append(action.mailbox)
        elif verb is Verb.WARN or verb is Verb.INFO:
            log = self._log.warn if verb is Verb.WARN else self._log.info
            log("the policy service {service} says: {said}", service=self.about, said=action.text)
        elif verb is Verb.HOLD:
            found.is_noted = True
            return Hold(action.text)
        elif verb is Verb.PREPEND:
            found.is_noted = True
            return action.mark
        return None

    # What follows from it for the whole message.

    def _at_end(self, session: PolicySession, envelope: EnvelopeView) -> Answer | list[Answer]:
        examination = session.examination
        if examination is None:
            return None
        found = self._found(examination)
        if found.discards:
            return [Noted("discard"), Rewrite(recipients=())]
        recipients = examination.recipients_instead
        if recipients is None:
            recipients = envelope.recipients
        # Where there are none, another service has discarded the message.
        if found.instead is not None and recipients:
            return Rewrite(recipients=(found.instead,))
        if found.besides and recipients:
            return Rewrite(recipients=(*recipients, *found.besides))
        if found.failed:
            return Noted("temperror")
        return Noted("pass") if found.asked and not found.is_noted else None

    def _found(self, examination: Examination) -> _Found:
        found = examination.memory.setdefault(self, _Found())
        assert isinstance(found, _Found)
        return found

    def _instance(self, examination: Examination) -> str:
        """Return the word for a message, which is the same for all services."""
        instance = examination.memory.get(NAME)
        if not isinstance(instance, str):
            instance = examination.memory[NAME] = self._new_instance()
        return instance


class AskedAtMail(_Asking):
    """A service that is asked about each reverse-path."""

    async def mail(self, session: PolicySession, sender: Mailbox | None) -> Answer:
        """Ask about a reverse-path."""
        return await self._ask(session, Subject(state="MAIL", sender=sender))


class AskedAtRcpt(_Asking):
    """A service that is asked about each recipient."""

    async def rcpt(self, session: PolicySession, recipient: Mailbox) -> Answer:
        """Ask about a recipient."""
        examination = session.examination
        subject = Subject(
            state="RCPT",
            sender=None if examination is None else examination.sender,
            recipient=recipient,
            size=session.declared_size,
        )
        return await self._ask(session, subject)


class AskedAtData(_Asking):
    """A service that is asked about each message before its content."""

    async def data(self, session: PolicySession, envelope: EnvelopeView) -> Answer:
        """Ask about a message."""
        return await self._ask(session, _of_message("DATA", envelope, session.declared_size))


class AskedAtEnd(_Asking):
    """A service that is asked about each message at the end of its content."""

    async def message(
        self, session: PolicySession, envelope: EnvelopeView, content: IO[bytes] | None
    ) -> Answer | list[Answer]:
        """Ask about a message."""
        size = 0 if content is None else content.seek(0, io.SEEK_END)
        examination = session.examination
        subject = evolve(
            _of_message("END-OF-MESSAGE", envelope, size),
            queue_id="" if examination is None else examination.id,
        )
        answer = await self._ask(session, subject)
        return self._at_end(session, envelope) if answer is None else answer


STAGES = {"mail": AskedAtMail, "rcpt": AskedAtRcpt, "data": AskedAtData, "end": AskedAtEnd}
"""The policy of a service, by the stage that it is asked at."""


def _of_message(state: State, envelope: EnvelopeView, size: int) -> Subject:
    recipients = envelope.recipients
    return Subject(
        state=state,
        sender=envelope.sender,
        recipient=recipients[0] if len(recipients) == 1 else None,
        recipients=len(recipients),
        size=size,
    )
