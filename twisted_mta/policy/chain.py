"""The chain of policies of a listener: whom it asks at each stage, in which order, and how long."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from types import CoroutineType
from typing import IO, Any, Literal, cast

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import Clock
from ..mail.address import Mailbox
from ..mail.assessment import Verdict
from ..mail.printable import printable, shown_client
from ..mail.reply import Reply
from ..message.authentication_results import MethodResult
from ..message.header import Header
from ..system.coroutines import outcome
from ..system.deadline import within
from .answers import Answer, Answers, EnvelopeView, Hold, Mark, Noted, Quarantine, Rewrite
from .composed import composed
from .examination import Examination, Opinion, PolicySession

Stage = Literal["client", "helo", "mail", "rcpt", "data", "header", "message"]
STAGES: tuple[Stage, ...] = ("client", "helo", "mail", "rcpt", "data", "header", "message")

Asking = Coroutine[Deferred[Any], Any, "Reply | None"]

OpenContent = Callable[[], IO[bytes]]

BodyReader = Callable[[bytes], object]
"""Takes the octets behind the header section, in pieces cut anywhere."""

NO_VERDICT = Reply.fixed(451, "7.1", "No verdict on this mail for now, try again later")

Count = Callable[[str, str], object]
"""Counts a verdict, by the name of the policy and the result."""


@frozen(kw_only=True)
class Member:
    """A policy in a chain.

    Attributes:
        name: for the log, the counters and the operator.
        policy: with the methods of `protocol.Policy` that it needs.
        timeout: seconds for one answer.
        on_failure: the answer where the policy raises an exception, or takes too long; None: the
            mail goes on.
        strangers_only: whether it is asked only about clients that may not relay and have not
            authenticated themselves.
        concludes: for a policy that calls `Examination.conclude`: what is recorded where it fails.
        reads_content: whether it reads the content that its ``message`` is handed; otherwise that
            may be None.
        about: which of several of that name it is, for the log; empty: there are no others.
    """

    name: str
    policy: object
    timeout: float
    on_failure: Answer = NO_VERDICT
    strangers_only: bool = False
    concludes: Sequence[MethodResult] | None = None
    reads_content: bool = True
    about: str = ""


_Call = tuple[Member, Callable[..., Any]]


class PolicyChain:
    """Asks policies about sessions and mail.

    Args:
        groups: those of one group are asked at the same time, and the groups one after the other;
            a refusal of one group ends the stage. Within a group the answers count in its order.
        clock: for deadlines.
        count: counts verdicts.
    """

    _log = Logger()

    def __init__(
        self,
        groups: Sequence[Sequence[Member]],
        *,
        clock: Clock,
        count: Count = lambda policy, result: None,
    ) -> None:
        self.groups = tuple(map(tuple, groups))
        self._clock = clock
        self._count = count
        self._calls: Mapping[str, Sequence[Sequence[_Call]]] = {
            stage: [calls for group in self.groups if (calls := _calls(group, stage))]
            for stage in (*STAGES, "body")
        }
        self._message_calls = [_calls(group, "message") for group in self.groups]
        self._read_content = [
            any(member.reads_content for member, _ in calls) for calls in self._message_calls
        ]
        self._for_all = any(not each.strangers_only for group in self.groups for each in group)
        self._awaited = [
            each.name for group in self.groups for each in group if each.concludes is not None
        ]

    def asks(self, stage: Stage, session: PolicySession | None = None) -> bool:
        """Whether a policy has a say at a stage (of a session)."""
        calls = self._calls[stage]
        if session is None or session.is_stranger:
            return bool(calls)
        return any(not member.strangers_only for group in calls for member, _ in group)

    def concerns(self, session: PolicySession) -> bool:
        """Whether any policy is asked about mail of a client."""
        return session.is_stranger or self._for_all

    def examine(self, session: PolicySession, sender: Mailbox | None) -> Examination:
        """Begin the examination of a transaction."""
        awaited = self._awaited if session.is_stranger else ()
        session.examination = Examination(session, sender, awaited=awaited)
        return session.examination

    # The stages. The coroutine of each returns the refusal, or None to go on.

    def client(self, session: PolicySession) -> Asking:
        """Ask about a client that has connected."""
        return self._ask("client", session)

    def helo(self, session: PolicySession) -> Asking:
        """Ask about the name in a greeting."""
        return self._ask("helo", session)

    def mail(self, session: PolicySession, sender: Mailbox | None) -> Asking:
        """Ask about a reverse-path."""
        return self._ask("mail", session, sender)

    def rcpt(self, session: PolicySession, recipient: Mailbox) -> Asking:
        """Ask about a recipient."""
        return self._ask("rcpt", session, recipient)

    def data(self, session: PolicySession, envelope: EnvelopeView) -> Asking:
        """Ask about a message before its content."""
        return self._ask("data", session, envelope)

    def header(self, session: PolicySession, envelope: EnvelopeView, header: Header) -> Asking:
        """Ask about a header section."""
        return self._ask("header", session, envelope, header)

    async def message(
        self, session: PolicySession, envelope: EnvelopeView, open_content: OpenContent
    ) -> Reply | None:
        """Ask about a whole message, once all that is to be concluded about it is.

        Args:
            session: that it came in.
            envelope: of the message.
            open_content: opens the message, if a policy reads it.

        Raises:
            OSError: it cannot be opened.
        """
        content: IO[bytes] | None = None
        examination = session.examination
        try:
            for group, calls, read_content in zip(
                self.groups, self._message_calls, self._read_content, strict=True
            ):
                refusal = self._refusal_of_unread(group, session)
                if refusal is not None:
                    return refusal
                if content is None and read_content:
                    content = open_content()
                shown = content
                if content is not None and examination is not None:
                    # Each group sees what those before it have changed.
                    shown = composed(content, examination.opinion.rewrites)
                about = (envelope, shown)
                refusal = await self._ask_group("message", calls, session, about)
                if refusal is not None:
                    return refusal
                if examination is not None and not examination.is_complete:
                    await self._conclusions(group, examination)
        finally:
            if content is not None:
                content.close()
        return None

    async def _conclusions(self, group: Sequence[Member], examination: Examination) -> None:
        """Wait until the policies of a group have concluded, each at most until its deadline."""
        for member in group:
            if member.concludes is None or examination.is_concluded(member.name):
                continue
            concluded = examination.concluded(member.name)
            try:
                await concluded.addTimeout(member.timeout, self._clock)
            except TimeoutError:
                examination.conclude(member.name, member.concludes)

    def body_readers(
        self, session: PolicySession, envelope: EnvelopeView, header: Header
    ) -> list[BodyReader]:
        """Return where the octets behind the header section are to go."""
        readers: list[BodyReader] = []
        for member, method in self._asked("body", session):
            try:
                reader = method(session, envelope, header)
                if isinstance(reader, CoroutineType):
                    reader.close()
                if reader is not None and not callable(reader):
                    raise TypeError(f"found {reader!r}, expected a function or None")
            except Exception:
                self._body_failed(member, session)
            else:
                if reader is not None:
                    readers.append(self._guarded(member, session, reader))
        return readers

    def _body_failed(self, member: Member, session: PolicySession) -> None:
        self._log.failure("the policy {policy} failed: body", policy=member.name)
        if session.examination is not None:
            session.examination.unread.add(member.name)
        self._conclude(member, session)

    def _refusal_of_unread(self, group: Sequence[Member], session: PolicySession) -> Reply | None:
        """Return the refusal by a policy of a group that has failed while it took the body."""
        examination = session.examination
        if examination is not None and examination.unread:
            for member in group:
                if member.name in examination.unread:
                    answers = (member.on_failure,)
                    refusal = self._taken(member, answers, examination.opinion, session, "message")
                    if refusal is not None:
                        return refusal
        return None

    def _guarded(self, member: Member, session: PolicySession, reader: BodyReader) -> BodyReader:
        """Return a reader that fails for its own policy alone."""

        def read(octets: bytes) -> None:
            nonlocal reader
            try:
                reader(octets)
            except Exception:
                self._body_failed(member, session)
                reader = _ignore

        return read

    # Asking.

    def _asked(self, stage: str, session: PolicySession) -> list[_Call]:
        return [
            (member, method)
            for group in self._calls[stage]
            for member, method in group
            if session.is_stranger or not member.strangers_only
        ]

    async def _ask(self, stage: Stage, session: PolicySession, *about: object) -> Reply | None:
        for calls in self._calls[stage]:
            refusal = await self._ask_group(stage, calls, session, about)
            if refusal is not None:
                return refusal
        return None

    async def _ask_group(
        self,
        stage: Stage,
        calls: Sequence[_Call],
        session: PolicySession,
        about: tuple[object, ...],
    ) -> Reply | None:
        examination = session.examination
        opinion = session.opinion if examination is None else examination.opinion
        asked = calls if session.is_stranger else [c for c in calls if not c[0].strangers_only]
        # All are asked before the first answer is waited for.
        answering = [self._answer(stage, each, session, about) for each in asked]
        for (member, _), answer in zip(asked, answering, strict=True):
            answers = answer if isinstance(answer, tuple) else await answer
            if not answers:
                continue
            refusal = self._taken(member, answers, opinion, session, stage)
            if refusal is not None:
                return refusal
        return None

    def _answer(
        self, stage: Stage, call: _Call, session: PolicySession, about: tuple[object, ...]
    ) -> tuple[Answer, ...] | Deferred[tuple[Answer, ...]]:
        """Return the answers of one policy; never fails."""
        member, method = call
        try:
            given = method(session, *about)
            if isinstance(given, CoroutineType):  # quicker than the abstract class
                given = outcome(given)
            if given is None:
                return ()
            if not isinstance(given, Deferred):
                return _sequence(given)
            answer = given
        except Exception:
            return self._failure(Failure(), stage, member, session)
        if not answer.called:
            answer = within(answer, member.timeout, self._clock)
        answer.addCallback(_sequence)
        return answer.addErrback(self._failure, stage, member, session)

    def _failure(
        self, failure: Failure, stage: Stage, member: Member, session: PolicySession
    ) -> tuple[Answer, ...]:
        if failure.check(CancelledError):
            self._log.info(
                "the policy {policy} was canceled: {stage}", policy=member.name, stage=stage
            )
        elif failure.check(TimeoutError):
            self._log.warn(
                "the policy {policy} had no answer within {timeout:g} s: {stage}",
                policy=member.name,
                timeout=member.timeout,
                stage=stage,
            )
        else:
            self._log.failure(
                "the policy {policy} failed: {stage}", failure, policy=member.name, stage=stage
            )
        self._conclude(member, session)
        return (member.on_failure,)

    def _conclude(self, member: Member, session: PolicySession) -> None:
        if member.concludes is not None and session.examination is not None:
            session.examination.conclude(member.name, member.concludes)

    def _taken(
        self,
        member: Member,
        answers: Sequence[Answer],
        opinion: Opinion,
        session: PolicySession,
        stage: Stage,
    ) -> Reply | None:
        refusal = self._take(member, answers, opinion, stage)
        if refusal is not None:
            self._log.info(
                "refused by {policy}: client {_peer}: {reply}",
                policy=member.name,
                _peer=shown_client(session.address),
                peer=session.address,
                reply=refusal,
            )
        return refusal

    def _take(
        self, member: Member, answers: Sequence[Answer], opinion: Opinion, stage: Stage
    ) -> Reply | None:
        """Carry the answers of one policy over into ``opinion``; return its refusal, if any."""
        for answer in answers:
            if isinstance(answer, Reply):
                if answer.code >= 400:
                    result = "refuse" if answer.code >= 500 else "defer"
                    if member.about and stage == "message":
                        self._note(member, result, opinion)
                    else:
                        self._count(member.name, result)
                    return answer
            elif isinstance(answer, Mark):
                opinion.fields += answer.fields
                self._note(member, "mark", opinion, printable(answer.reason))
            elif isinstance(answer, Rewrite):
                opinion.rewrites.append(answer)
                opinion.fields += answer.add
                self._note(member, "rewrite", opinion)
            elif isinstance(answer, Quarantine):
                reason = printable(answer.reason) or "quarantined by policy"
                opinion.quarantine = opinion.quarantine or reason
                self._note(member, "quarantine", opinion, reason)
            elif isinstance(answer, Hold):
                opinion.hold = opinion.hold or answer.reason
                self._note(member, "hold", opinion, answer.reason)
            elif isinstance(answer, Noted):
                self._note(member, answer.result, opinion)
        return None

    def count(self, results: Iterable[MethodResult]) -> None:
        """Count what the policies have found."""
        for result in results:
            self._count(result.method, result.result)

    def next_turn(self) -> Deferred[None]:
        """Return a Deferred that fires once others had their turn."""
        turn: Deferred[None] = Deferred(lambda _: timer.cancel())
        timer = self._clock.callLater(0, turn.callback, None)
        return turn

    def _note(self, member: Member, result: str, opinion: Opinion, text: str = "") -> None:
        self._count(member.name, result)
        text = ": ".join(filter(None, (member.about, text)))
        opinion.verdicts.append(Verdict(member.name, result, text))


def _calls(group: Sequence[Member], stage: str) -> Sequence[_Call]:
    """Return the methods of a group for a stage."""
    return [
        (member, method)
        for member in group
        if (method := getattr(member.policy, stage, None)) is not None
        # Of an application's policy, ``data`` may be something else.
        and (stage != "data" or callable(method))
    ]


def _sequence(answers: Answers) -> tuple[Answer, ...]:
    each = tuple(answers) if isinstance(answers, list | tuple) else (answers,)
    for answer in each:
        if not isinstance(answer, Reply | Rewrite | Mark | Quarantine | Hold | Noted | None):
            raise TypeError(
                f"found {answer!r}, expected None, Reply, Rewrite, Mark or Quarantine, or a list"
            )
    return cast("tuple[Answer, ...]", each)


def _ignore(octets: bytes) -> None:
    """Take no notice."""
