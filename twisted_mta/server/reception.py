"""The reception of one message: its content is checked, written to a body, and handed on.

`finish` fires once the message is taken, which for the queue is after the commit: 250 is never
written earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..interfaces import BodyWriter, Refused, Take
from ..mail.address import Mailbox
from ..mail.assessment import UNKNOWN, Assessment
from ..mail.body import Body, MemoryBody
from ..mail.decision import ContentDecision, Decision
from ..mail.envelope import TLS_OPTIONAL, Envelope, Parameters, RecipientNumber
from ..mail.message import Message
from ..mail.printable import printable, shown_client
from ..mail.queue_id import QueueId
from ..mail.reply import Reply
from ..message.authentication_results import (
    MethodResult,
    authentication_results,
    without_own,
)
from ..message.header_scanner import HeaderScanner
from ..message.mime.smtputf8 import needs_smtputf8
from ..message.received import received, with_type
from ..policy.capacity import NO_DISK, Capacity, is_full
from ..policy.feedback.fields import feedback_fields
from ..policy.missing_fields import missing_fields
from ..policy.submission import Submission
from ..smtp.server.dialect import one_for_all
from ..smtp.server.session import Session
from ..system.coroutines import outcome
from ..system.lasting import Lasting
from ..system.line_logger import LineLogger
from .content_examination import ContentExamination
from .held_header import HeldHeader
from .intake_policy import IntakePolicy
from .recipients import LOOP, DividedRecipients, ExpandedRecipients

TOO_MANY_HOPS = Reply.of(554, "4.6", "Too many hops")
HEADER_TOO_LARGE = Reply.of(552, "3.4", "Header section exceeds the limit of this server")
NOT_STORED = Reply.of(451, "3.0", "The message could not be stored, try again later")

_SHARE = 65_536  # octets of a header section that the memory of one message covers

GivenInstead = Callable[[Sequence[Mailbox], Mapping[Mailbox, Parameters]], ExpandedRecipients]
"""Returns the recipients that a policy gives in place of those of the transaction.

The second argument has the parameters of RCPT of some of them.
"""

FindLooping = Callable[[ExpandedRecipients, Sequence[bytes]], Sequence[RecipientNumber]]
"""Returns the numbers of the recipients that a message would reach again, by the values of its
Delivered-To fields."""


class Reception:
    """One message on its way in (`interfaces.Sink`).

    Args:
        session: that the message comes in, within its transaction; without a greeting, it stands
            for our own program (`application_mail`).
        policy: of the listener.
        id: the queue id.
        received_at: wall time, seconds since the epoch.
        parameters: of MAIL, as they are kept with the message; changed here.
        recipients: of the transaction.
        named: the recipient that the trace field names; None: none, since one of several would
            be shown to the others (RFC 5321 §7.2).
        find_looping: finds the recipients that the message has reached before.
        submission: checks the header; None for clients that are not authenticated.
        feedback_id: returns the id of the message for reports of complaints (RFC 9477 §3.2).
        completes: whether missing fields are added (`policy.missing_fields`).
        new_body: begins the body.
        capacity: that the message takes its share of, until it is taken or given up.
        take: takes the message, into the queue or to its mailboxes.
        count: called for each accepted message with its protocol (`message.received.with_type`).
    """

    _log = LineLogger()

    def __init__(
        self,
        session: Session,
        *,
        policy: IntakePolicy,
        id: QueueId,
        received_at: float,
        parameters: dict[str, str | int | None],
        recipients: ExpandedRecipients,
        named: Mailbox | None,
        find_looping: FindLooping,
        submission: Submission | None,
        completes: bool,
        feedback_id: Callable[[], str],
        new_body: Callable[[], BodyWriter],
        capacity: Capacity,
        take: Take,
        count: Callable[[str], object],
    ) -> None:
        transaction = session.transaction
        assert transaction is not None
        self._session = session
        self._policy = policy
        self._id = id
        self._received_at = received_at
        self._reverse_path = transaction.reverse_path
        self._parameters = parameters
        self._recipients = recipients
        self._named = named
        self._find_looping = find_looping
        self._submission = submission
        self._completes = completes
        self._feedback_id = feedback_id
        self._new_body = new_body
        self._writer = new_body()
        self._capacity = capacity
        self._take = take
        self._count = count
        self._smtputf8 = "SMTPUTF8" in parameters  # the content may not need it
        self._divided: DividedRecipients | None = None  # None: all of them get the message
        self._scanner = HeaderScanner()
        reads_header = submission is not None and policy.submission.reads_header
        self._header: bytearray | None = bytearray() if reads_header or completes else None
        self._added = b""  # fields that the message lacked
        self._signs = False  # whether the message may be signed for its From domain
        self._begun = False  # whether any content has come
        self._ascii = True  # so far
        self._refusal: Reply | None = None
        self._examined: ContentExamination | None = None  # None: no policy is asked
        self._held: HeldHeader | None = None  # None: the header section passes as it comes
        if session.identity is not None and policy.authserv_id:
            # RFC 8601 §5: an account may not pretend to have results of ours either.
            self._held = HeldHeader(partial(_without_own, policy.authserv_id))
        self._given_instead: GivenInstead | None = None
        self._shares = 1  # of the capacity
        capacity.reserve()

    @property
    def id(self) -> QueueId:
        """The queue id."""
        return self._id

    def examine(self, examination: ContentExamination, given_instead: GivenInstead) -> None:
        """Let policies decide on the message; before any content.

        Args:
            examination: asks them.
            given_instead: returns the recipients that a policy gives in place of all.
        """
        self._examined = examination
        examination.examination.begin_content(str(self._id), self._fields)
        self._held = HeldHeader(examination.begin, examination.show)
        self._given_instead = given_instead

    def write(self, content: bytes) -> None:
        """Take a piece of the content (`interfaces.Sink`)."""
        if self._refusal is not None:
            return
        if content and not self._begun:
            self._begun = True
            if content[:1] in (b" ", b"\t"):
                # It would continue the fields that are put in front of it (RFC 5322 §2.2.3): an
                # empty line makes it the text that it is.
                content = b"\r\n" + content
        if not self._scanner.ended:
            self._scanner.feed(content)
            self._refusal = self._header_refusal()
            if self._header is not None:
                self._header += content
        if self._ascii and not content.isascii():
            self._ascii = False
        if self._held is not None and self._refusal is None:
            content = self._held.pass_on(content, self._scanner)
            self._refusal = self._reserve_for_header(self._held.held)
        if self._refusal is None:
            self._store(content)
        if self._refusal is not None:
            self._writer.discard()

    def _store(self, content: bytes) -> None:
        try:
            self._writer.write(content)
        except (OSError, MemoryError) as error:
            self._refusal = self._storage_refusal(error)

    def _reserve_for_header(self, held: int) -> Reply | None:
        """Count the memory of a long header section that is held back."""
        while held > self._shares * _SHARE:
            refusal = self._capacity.refusal()
            if refusal is not None:
                return refusal
            self._capacity.reserve()
            self._shares += 1
        return None

    def finish(self) -> ContentDecision | Deferred[ContentDecision]:
        """Make the message durable (`interfaces.Sink`)."""
        if self._refusal is None and self._header is not None:
            self._complete(bytes(self._header[: self._scanner.size]))
        if self._refusal is None and self._examined is not None:
            asking = outcome(self._ask_policies(self._examined))
            if isinstance(asking, Deferred):
                return self._uninterrupted(asking.addCallback(lambda _: self._finish()))
        else:
            self._end_header()
            if self._refusal is not None:
                self._writer.discard()
        finished = self._finish()
        if isinstance(finished, Lasting) or not isinstance(finished, Deferred):
            return finished
        return self._uninterrupted(finished)

    def _uninterrupted(self, finishing: Deferred[ContentDecision]) -> Deferred[ContentDecision]:
        """Return a Deferred with the same result; if it is cancelled, ``finishing`` goes on.

        A commit that is under way may not lose its content.
        """
        waited_for: Deferred[ContentDecision] = Deferred()

        def finished(result: ContentDecision | Failure) -> None:
            self._release()
            waited_for.callback(result)  # after a cancellation, it drops the result

        finishing.addBoth(finished)
        return waited_for

    def _end_header(self) -> None:
        if self._refusal is None and self._held is not None:
            self._store(self._held.end(self._scanner))

    async def _ask_policies(self, examined: ContentExamination) -> None:
        """Ask the policies about the complete message, and do as they say."""
        try:
            await self._examine(examined)
        except BaseException as error:
            if not isinstance(error, OSError | MemoryError):
                self.abort()
                raise
            self._refusal = self._storage_refusal(error)
        if self._refusal is not None:
            self._writer.discard()

    async def _examine(self, examined: ContentExamination) -> None:
        self._end_header()
        opinion = examined.examination.opinion
        opinion.added = self._added
        if self._refusal is None:
            self._refusal = await examined.refusal(self._writer.open)
        self._added = opinion.added
        self._log_checked(examined)
        if self._refusal is not None:
            return
        if not examined.rewrites:
            return
        self._parameters.update(opinion.mail_parameters)
        for each in examined.rewrites:
            if each.sender is not None:
                self._reverse_path = Mailbox.parse(each.sender) if each.sender else None
        recipients = examined.recipients_instead
        if recipients is not None and self._given_instead is not None:
            given = self._given_instead(recipients, opinion.rcpt_parameters)
            self._recipients, self._named = given, None
        if examined.changes_content:
            await self._rewrite(examined)

    async def _rewrite(self, examined: ContentExamination) -> None:
        with self._writer.open() as content:
            self._writer.discard()
            self._writer = self._new_body()
            self._scanner, self._ascii = HeaderScanner(), True
            await examined.rewrite(content, self._store_anew)
        self._refusal = self._refusal or self._header_refusal()

    def _store_anew(self, content: bytes) -> None:
        self._scanner.feed(content)
        if self._ascii and not content.isascii():
            self._ascii = False
        self._writer.write(content)

    def _finish(self) -> ContentDecision | Deferred[ContentDecision]:
        if self._refusal is None:
            self._divide()
        if self._refusal is not None:
            self._release()
            self._log_refused(self._refusal)
            return self._refusal
        try:
            body = self._writer.seal()
        except BaseException:
            self.abort()
            raise
        if isinstance(body, MemoryBody) or not isinstance(body, Deferred):
            return self._sealed(body)
        return body.addCallbacks(self._sealed, self._not_sealed)

    def abort(self) -> None:
        """Forget the content (`interfaces.Sink`)."""
        self._writer.discard()
        self._release()

    def _release(self) -> None:
        """Give the message's share of the capacity back, once."""
        shares, self._shares = self._shares, 0
        for _ in range(shares):
            self._capacity.release()

    def _header_refusal(self) -> Reply | None:
        if self._scanner.hops > self._policy.max_hops:
            return TOO_MANY_HOPS
        if self._scanner.size > self._policy.max_header_size:
            return HEADER_TOO_LARGE
        return None

    def _complete(self, header: bytes) -> None:
        """Check the header of one of our own clients, and add missing fields (RFC 6409 §8)."""
        sender: bytes | Reply = b""
        if self._submission is not None and self._session.identity is not None:
            policy = self._policy.submission
            sender = self._submission.header(policy, self._session.identity, header)
        if isinstance(sender, Reply):
            self._refusal = sender
            self._writer.discard()
            return
        self._added = sender
        if self._completes:
            self._added += missing_fields(
                header, id=self._id, hostname=self._policy.hostname, time=self._received_at
            )
            self._signs = self._policy.signs and self._is_by_author(header)
            if self._signs and self._policy.feedback is not None:
                terms = self._policy.feedback
                self._added += feedback_fields(header, terms, self._feedback_id)

    def _is_by_author(self, header: bytes) -> bool:
        """Whether the account is the author; a client that may relay without one is believed."""
        identity = self._session.identity
        if identity is None:
            return True
        return self._submission is not None and self._submission.is_author(identity, header)

    def _divide(self) -> None:
        """Decide on each recipient, now that the header is known."""
        recipients = self._recipients
        looping: Sequence[RecipientNumber] = ()
        if delivered_to := self._scanner.delivered_to:
            looping = self._find_looping(recipients, delivered_to)
        if not (looping or recipients.refused):
            return
        self._divided = recipients.divide(looping, per_rcpt=self._session.greeting == "LHLO")
        if not self._divided.taken:
            self._refusal = LOOP
            self._writer.discard()

    def _sealed(self, body: Body) -> Deferred[ContentDecision]:
        divided = self._divided or self._recipients.undivided()
        try:
            message = self._message(body, divided)
            taking = self._take(message, divided.by_rcpt)
        except BaseException:
            self._release()
            raise
        return taking.addCallbacks(
            self._taken, self._not_taken, callbackArgs=(message, divided.answers)
        )

    def _message(self, body: Body, recipients: DividedRecipients) -> Message:
        session, policy, examined = self._session, self._policy, self._examined
        if self._ascii and self._parameters.get("BODY") == "8BITMIME":
            # RFC 6152 §3: the next hop need not take 8 bits.
            del self._parameters["BODY"]
        if self._smtputf8 and not self._needs_smtputf8(body):
            del self._parameters["SMTPUTF8"]
        if self._scanner.tls_optional and "REQUIRETLS" not in self._parameters:
            self._parameters[TLS_OPTIONAL] = "NO"  # RFC 8689 §4.1
        confirmed_name = None if examined is None else examined.reverse_name
        found = UNKNOWN if examined is None else examined.assessment
        trace = received(
            greeting=session.greeting,
            helo=session.helo,
            peer_address=session.peer.address,
            peer_name=session.peer.name or confirmed_name,
            user=session.peer.user,
            names_client=session.identity is None or not policy.submission.hides_client,
            by=policy.hostname,
            queue_id=self._id,
            recipient=self._named,
            tls=session.tls,
            authenticated=session.identity is not None,
            # RFC 6531 §3.7.3: UTF-8 stands in the field only where its protocol says so.
            smtputf8=self._smtputf8 and session.greeting is not None,
            priority=int(self._parameters.get("MT-PRIORITY") or 0),
            time=self._received_at,
        )
        message = Message(
            id=self._id,
            envelope=Envelope(self._reverse_path, recipients.taken, self._parameters),
            trace=self._fields() + trace + self._added,
            body=body,
            received_at=self._received_at,
            expires_at=self._received_at + policy.lifetime,
            expanded=recipients.expanded,
            refused=recipients.refused,
            assessment=self._assessed(found),
        )
        if message.released_at > message.received_at:
            message = evolve(message, expires_at=message.released_at + policy.lifetime)
        return message

    def _assessed(self, found: Assessment) -> Assessment:
        own = self._policy.suppresses and self._session.greeting is None
        return evolve(found, signs=self._signs, own=own) if self._signs or own else found

    def _fields(self) -> bytes:
        """Return the fields above our Received: results of the checks, and marks of policies."""
        identity, name = self._session.identity, self._policy.authserv_id
        examined = self._examined
        fields = b"" if examined is None else examined.fields
        if identity is None or not name:
            return fields
        if examined is not None and examined.examination.opinion.replaced is not None:
            return fields  # our own is among them, unless a filter has removed it
        # RFC 8601 §2.7.4. The name of the account is nothing that recipients need to know.
        sender = "" if self._reverse_path is None else str(self._reverse_path)
        properties = (("smtp.mailfrom", sender),) if sender else ()
        return (
            authentication_results(name, [MethodResult("auth", "pass", properties=properties)])
            + fields
        )

    def _needs_smtputf8(self, body: Body) -> bool:
        """Whether a message that came with SMTPUTF8 needs it at the next hop (RFC 6531 §3.2).

        The recipients are not considered, since their addresses show it, nor is our trace field,
        which can be written in ASCII (`message.received.without_utf8_recipient`).
        """
        if self._reverse_path is not None and not self._reverse_path.is_ascii:
            return True
        return not self._scanner.is_ascii or (not self._ascii and needs_smtputf8(body))

    def _taken(
        self, decision: ContentDecision, message: Message, answers: Sequence[Reply | None]
    ) -> ContentDecision:
        self._release()
        if decision is None:
            decision = Reply.of(250, "0.0", f"Queued as {self._id}")
        if answers and any(answers):
            decision = _with_answers(decision, answers)
        try:
            self._log_taken(decision, message)
        except Exception:
            # The message is ours even if it cannot be logged, and the reply has to say so.
            self._log.failure("{id} was accepted, and not counted", id=self._id)
        return decision

    def _log_taken(self, decision: ContentDecision, message: Message) -> None:
        if isinstance(decision, list | tuple) and not any(map(_accepts, decision)):
            self._log_refused(one_for_all(decision))
            return
        session = self._session
        user = session.identity
        if user is None and session.peer.user is not None:
            user = f"uid:{session.peer.user}"
        if session.greeting is None:
            self._log.info(
                "{id} submitted by the application: from={sender} recipients={recipients}"
                " size={size}{_user}",
                id=self._id,
                sender=shown(self._reverse_path),
                recipients=len(message.envelope.recipients),
                size=message.body.size,
                _user=f" user={user}" if user else "",
                user=user,
            )
            return
        helo, client = printable(session.helo), session.peer.address
        protocol = with_type(
            session.greeting,
            tls=session.tls is not None,
            authenticated=session.identity is not None,
            smtputf8=self._smtputf8,
        )
        self._count(protocol)
        self._log.info(
            "{id} accepted: from={sender} recipients={recipients} size={size} client={_client}"
            " helo={_helo} with={protocol}{_user}{_tls}",
            id=self._id,
            sender=shown(self._reverse_path),
            recipients=len(message.envelope.recipients),
            size=message.body.size,
            _client=shown_client(client),
            client=client,
            _helo=_word(helo),
            helo=helo,
            protocol=protocol,
            _user=f" user={_word(printable(user))}" if user else "",
            user=user,
            _tls=f' tls="{session.tls.description}"' if session.tls else "",
            tls=session.tls.description if session.tls else None,
        )

    def _log_checked(self, examined: ContentExamination) -> None:
        verdicts = examined.verdicts
        if verdicts:
            self._log.info(
                "{id} checked: client={_client} {verdicts}",
                id=self._id,
                _client=shown_client(self._session.peer.address),
                client=self._session.peer.address,
                verdicts=" ".join(map(str, verdicts)),
            )

    def _log_refused(self, reply: Reply) -> None:
        self._log.info(
            "{id} refused: from {reverse_path}, client {_peer}: {reply}",
            id=self._id,
            reverse_path=shown(self._reverse_path),
            _peer=shown_client(self._session.peer.address),
            peer=self._session.peer.address,
            reply=reply,
        )

    def _not_taken(self, failure: Failure) -> ContentDecision:
        self._release()
        refused = failure.check(Refused)
        if refused is None:
            return failure  # type: ignore[return-value]  # the protocol logs it and says 451
        assert isinstance(failure.value, Refused)
        return failure.value.reply

    def _not_sealed(self, failure: Failure) -> ContentDecision:
        failure.trap(Exception)  # of a disk, or of a thread that could not be started
        assert isinstance(failure.value, Exception)
        return self._storage_refusal(failure.value)

    def _storage_refusal(self, error: Exception) -> Reply:
        text = str(error) or type(error).__name__
        self._log.error("{id} could not be stored: {error}", id=self._id, error=printable(text))
        self._capacity.write_failed(getattr(error, "strerror", None) or text)
        return NO_DISK if isinstance(error, OSError) and is_full(error) else NOT_STORED


def shown(reverse_path: Mailbox | None) -> str:
    """Return a reverse-path as the log shows it."""
    return f"<{printable(str(reverse_path))}>" if reverse_path else "<>"


def _without_own(authserv_id: str, section: bytes, rest: bytes) -> bytes:
    return without_own(section, authserv_id) + rest


def _accepts(decision: Decision) -> bool:
    return decision is None or decision.code < 300


def _with_answers(taken: ContentDecision, answers: Sequence[Reply | None]) -> ContentDecision:
    """Return a decision for each RCPT: its own answer, or else what was decided on the content."""
    if not isinstance(taken, Sequence):
        return [answer or taken for answer in answers]
    others = iter(taken)
    return [answer or next(others) for answer in answers]


def _word(text: str) -> str:
    """Return printable text as one value of a line of the log: in quotes where it has spaces."""
    return '"{}"'.format(text.replace('"', r"\x22")) if " " in text else text
