"""The delivery that queues: who may send what to whom, the trace field, and the way to the disk.

`250` to the final dot is said when `accept` has fired, which is after the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config import RelayCertificate
from ..interfaces import (
    Accept,
    ContentDecision,
    Decision,
    Expand,
    Ids,
    NewBody,
    Refused,
    Sink,
    Take,
    WallTime,
)
from ..mail.address import Mailbox, folded, literal_address, u_labels
from ..mail.body import Body
from ..mail.envelope import Envelope, Parameters, Recipient, RecipientNumber
from ..mail.final_recipient import Expansions, FinalRecipient
from ..mail.message import Message
from ..mail.printable import printable
from ..mail.reply import Reply
from ..mail.tls_facts import TLSFacts
from ..message.header import HeaderScanner
from ..message.mime.smtputf8 import needs_smtputf8
from ..message.trace import mailbox_of, received, with_type
from ..policy.capacity import NO_DISK, Capacity, is_full
from ..policy.networks import Network, Networks
from ..policy.submission import Submission, SubmissionPolicy
from ..smtp.extension.dsn import forwarded, merged
from ..smtp.extension.lasting import decided, lasting
from ..smtp.extension.views import SessionView
from ..smtp.server.dialect import one_for_all
from ..smtp.server.session import Session
from .division import LOOP, Division, Found, divide, named_by_all_ways

_SHOWN = 10  # members of a list in one line of the log

_LOOPBACK = ("127.0.0.1", "::1")

_T = TypeVar("_T")

RELAYING_DENIED = Reply.of(550, "7.1", "Relaying denied")
NO_SUCH_MAILBOX = Reply.of(550, "1.1", "No such mailbox here")
TOO_MANY_HOPS = Reply.of(554, "4.6", "Too many hops")
HEADER_TOO_LARGE = Reply.of(552, "3.4", "Header section exceeds the limit of this server")
NOT_STORED = Reply.of(451, "3.0", "The message could not be stored, try again later")
TOO_MANY_RECIPIENTS = Reply.of(452, "5.3", "Too many recipients, send to the rest later")

# Those of one message, when aliases are expanded: RCPT commands are limited by the session.
_MOST_RECIPIENTS = 10_000

# Octets of an address in a Delivered-To field that is not ASCII (RFC 5321 §4.5.3.1.3); those that
# we write are (`message.trace.passed`).
_LONGEST_UTF8 = 256


@frozen(kw_only=True)
class IntakePolicy:
    """What the intake of one listener takes.

    Attributes:
        hostname: our name in the trace field.
        local_domains: canonical, all for which mail is taken, those of aliases alone among them;
            the first is where ``<postmaster>`` goes.
        relay_from: networks whose clients may send to anywhere.
        relay_certificates: client certificates whose owners may (RFC 3207 §4).
        local_only: nobody may, whoever it is.
        direct: whether messages are taken by `Intake.direct`, and not into the queue.
        submission: what is asked of those who have authenticated.
        missing_members: what becomes of mail for an alias of which some members do not exist: the
            others get it and the sender hears of these, or it is refused.
        max_hops: Received fields (RFC 5321 §6.3).
        max_header_size: octets.
        lifetime: seconds after which an undelivered message is returned.
    """

    hostname: str
    local_domains: tuple[str, ...]
    relay_from: tuple[Network, ...] = ()
    relay_certificates: tuple[RelayCertificate, ...] = ()
    local_only: bool = False
    direct: bool = False
    submission: SubmissionPolicy = field(factory=SubmissionPolicy)
    missing_members: Literal["notice", "refuse"] = "notice"
    max_hops: int = 100
    max_header_size: int = 1024 * 1024
    lifetime: float = 5 * 24 * 3600.0


class Intake:
    """Receives mail into the queue (`interfaces.Delivery`).

    Args:
        policy: see there.
        accept: puts a message into the queue.
        direct: takes it otherwise, where the policy says so.
        new_body: begins the content of one.
        exists: whether mail for a mailbox in one of our domains is taken.
        refusal: what is known to become of mail for a mailbox, if that is a failure.
        expand: where mail for a mailbox in one of our domains goes.
        alias_of: what is the same for all mailboxes of ours that have one alias.
        ids: queue ids.
        wall_time: for the trace field.
        capacity: decides whether one more message can be taken.
        count: told of each message by which protocol it came, as `message.trace.with_type` says.
        submission: decides on the mail of those who have authenticated; None where nobody does.
    """

    _log = Logger()

    def __init__(
        self,
        policy: IntakePolicy,
        *,
        accept: Accept,
        direct: Take | None = None,
        new_body: NewBody,
        exists: Callable[[Mailbox], bool],
        refusal: Callable[[Mailbox], Reply | None] = lambda mailbox: None,
        expand: Expand = lambda mailbox, reverse_path: (FinalRecipient(mailbox),),
        alias_of: Callable[[Mailbox], str] = str,
        ids: Ids,
        wall_time: WallTime,
        capacity: Capacity,
        count: Callable[[str], object] = lambda protocol: None,
        submission: Submission | None = None,
    ) -> None:
        self.update(policy)
        self.submission = submission
        self.accept = accept
        self.direct = direct
        self.new_body = new_body
        self.ids = ids
        self.wall_time = wall_time
        self.capacity = capacity
        self.count = count
        self._exists = exists
        self._refusal = refusal
        self._expand = expand
        self._alias_of = alias_of

    def update(self, policy: IntakePolicy) -> None:
        """Take by another policy from now on."""
        self.policy = policy
        self._local = dict.fromkeys(policy.local_domains)
        written = (each for name in policy.local_domains for each in (name, u_labels(name)))
        self._written = dict.fromkeys(each.encode() for each in written)
        self._relay_from = Networks(policy.relay_from)

    def mail(
        self, session: Session, reverse_path: Mailbox | None, parameters: Parameters
    ) -> Decision:
        """Take any reverse-path that the client may use, if there is room for a message.

        And if what is asked for with it can be kept (`smtp.extension.lasting`).
        """
        refusal = self.capacity.refusal()
        if refusal is None and self.submission is not None:
            refusal = self.submission.mail(self.policy.submission, session, reverse_path)
            if refusal is not None:
                self._log.info(
                    "refused {reverse_path} of user={user}, client {peer}: {reply}",
                    reverse_path=_shown(reverse_path),
                    user=printable(session.identity or ""),
                    peer=session.peer.address,
                    reply=refusal,
                )
        if refusal is not None or not parameters:
            return refusal
        return decided(parameters, now=self.wall_time(), trusted=lambda: self.may_relay(session))

    def rcpt(
        self, session: Session, forward_path: Mailbox, parameters: Parameters
    ) -> Decision | Deferred[Decision]:
        """Take what `may_send_to` says, if the account has not sent too much."""
        decision = self.may_send_to(session, forward_path)
        policy = self.policy.submission
        if decision is None and self._is_counted(session, policy.recipients_per_hour):
            return self._counted(session, "recipients")
        return decision

    def _is_counted(self, session: Session, limit: int) -> bool:
        return self.submission is not None and session.identity is not None and limit > 0

    def _counted(
        self, session: Session, what: Literal["recipients", "messages"]
    ) -> Deferred[Decision]:
        assert self.submission is not None
        counted = self.submission.count(self.policy.submission, session, what)
        return Deferred.fromCoroutine(counted)

    def may_send_to(self, session: Session, forward_path: Mailbox) -> Decision:
        """Take what is ours and exists, and from those who may relay, anything."""
        mailbox = self.canonical(session, forward_path)
        final = self.decide(session, mailbox)
        refusal = final if isinstance(final, Reply) else self._keep(session, mailbox, final)
        if refusal is None:
            return None
        self._log.info(
            "refused {recipient} from {reverse_path}, client {peer}: {reply}",
            recipient=printable(str(forward_path)),
            reverse_path=_shown(_reverse_path(session)),
            peer=session.peer.address,
            reply=refusal,
        )
        return refusal

    def decide(self, session: SessionView, mailbox: Mailbox) -> Sequence[FinalRecipient] | Reply:
        """Return where mail for a `canonical` mailbox goes, or the reply that refuses it."""
        if mailbox.domain in self._local:
            try:
                return self._final_recipients(session, mailbox)
            except Refused as not_now:
                return not_now.reply
        if self.may_relay(session):
            return self._refusal(mailbox) or (FinalRecipient(mailbox),)
        return RELAYING_DENIED

    def open(self, session: Session) -> Sink | Reply | Deferred[Sink | Reply]:
        """Begin a message, if the account has not sent too much."""
        if not self._is_counted(session, self.policy.submission.messages_per_hour):
            return self.begin(session)

        def counted(refusal: Decision) -> Sink | Reply:
            return self.begin(session) if refusal is None else refusal

        return self._counted(session, "messages").addCallback(counted)

    def begin(self, session: Session) -> Sink | Reply:
        """Begin a message: its id, its trace field, its body."""
        return self.capacity.refusal() or _Reception(self, session)

    def lookup(
        self, session: SessionView, mailbox: Mailbox
    ) -> tuple[Mailbox, Sequence[Mailbox]] | Reply | None:
        """Return who a mailbox of ours is (`smtp.extension.verify.Lookup`)."""
        local = self.policy.local_domains[0]
        mailbox = self.canonical(
            session, mailbox if mailbox.domain else evolve(mailbox, domain=local)
        )
        if mailbox.domain not in self._local:
            return None
        found = self.decide(session, mailbox)
        if isinstance(found, Reply):
            return found
        return mailbox, [each.mailbox for each in found if each.refusal is None]

    def ended(self, session: Session) -> None:
        """Do nothing: all that is kept of a session is in its transaction."""

    def recipients(self, session: Session) -> Found:
        """Return the recipients of a transaction, aliases expanded, each mailbox once."""
        transaction = session.transaction
        assert transaction is not None
        expansions, transaction.expansions = transaction.expansions, Expansions()
        recipients: dict[tuple[str, str, Mailbox | None], Recipient] = {}
        refused: dict[RecipientNumber, FinalRecipient] = {}
        ways: dict[RecipientNumber, list[tuple[Mailbox, ...]]] = {}
        places: list[list[RecipientNumber]] = []
        aliases: dict[int, Recipient] = {}
        for accepted in transaction.recipients:
            places.append([])
            written = self.canonical(session, accepted.mailbox)
            final = expansions.final.get(written, (FinalRecipient(written),))
            several = len(final) > 1
            if several:
                alias = Recipient(RecipientNumber(len(aliases)), written, accepted.parameters)
                if alias.is_to_notify("SUCCESS"):
                    aliases[len(places) - 1] = alias
            # One for all that it leads to: there may be thousands.
            own = passed_on = accepted.parameters
            if several or (final and final[0].mailbox != written):
                passed_on = forwarded(own, accepted.mailbox, several=several)
                if several and own:
                    own = forwarded(own, written, several=True)
            for each in final:
                mailbox = each.mailbox
                local_part = mailbox.local_part
                if mailbox.domain in self._local:
                    local_part = folded(local_part)
                parameters = own if mailbox == written else passed_on
                key = local_part, mailbox.domain, each.reverse_path
                known = recipients.get(key)
                if known is None:
                    recipients[key] = Recipient(
                        RecipientNumber(len(recipients)),
                        mailbox,
                        parameters,
                        original=None if mailbox == written else accepted.mailbox,
                        reverse_path=each.reverse_path,
                        aliases=each.aliases,
                    )
                    if each.refusal is not None:
                        refused[recipients[key].number] = each
                else:
                    ways.setdefault(known.number, [known.aliases]).append(each.aliases)
                    if known.parameters != parameters:
                        both = merged(known.parameters, parameters)
                        recipients[key] = evolve(known, parameters=both)
                places[-1].append(recipients[key].number)
        found = named_by_all_ways(tuple(recipients.values()), ways)
        return Found(found, places, aliases, refused, ways)

    def looping(self, found: Found, delivered_to: Sequence[bytes]) -> list[RecipientNumber]:
        """Return the recipients to whom aliases lead that a message has come through before.

        Args:
            found: all of them.
            delivered_to: what its Delivered-To fields say. Whoever writes a false one harms their
                own message alone.
        """
        # What is not ours is not parsed: reading a domain can cost as much as 1,000 of those.
        # What is not ASCII is normalized, which is quadratic in characters that combine with one.
        ours = [
            each
            for each in delivered_to
            if (each.isascii() or len(each) <= _LONGEST_UTF8) and _domain_of(each) in self._written
        ]
        named = dict.fromkeys(filter(None, map(mailbox_of, ours)))
        before = {self._alias_of(each) for each in named if each.domain in self._local}
        if not before:
            return []
        return found.looping(lambda alias: self._alias_of(alias) in before)

    def canonical(self, session: SessionView, mailbox: Mailbox) -> Mailbox:
        """Return ``mailbox`` in one of our domains if it names us by other means."""
        if not mailbox.domain:  # RFC 5321 §4.1.1.3: <postmaster>
            return Mailbox(mailbox.local_part, self.policy.local_domains[0])
        if mailbox.domain[0] == "[" and literal_address(mailbox.domain) == session.local_address:
            return Mailbox(mailbox.local_part, self.policy.local_domains[0])
        return mailbox

    def _final_recipients(
        self, session: SessionView, mailbox: Mailbox
    ) -> Sequence[FinalRecipient] | Reply:
        """Return where mail for a mailbox of ours goes, if all of it can be delivered."""
        expanded = self._expand(mailbox, _reverse_path(session))
        if isinstance(expanded, Reply):
            refusal = expanded
        elif list(expanded) == [FinalRecipient(mailbox)]:
            return self._undeliverable(mailbox) or expanded
        else:
            missing = [each for each in expanded if each.refusal is not None]
            if not missing:
                return expanded
            self._say_missing(mailbox, missing)
            if self.policy.missing_members == "notice":
                return expanded
            refusal = missing[0].refusal or NO_SUCH_MAILBOX
        postmaster = Mailbox("postmaster", self.policy.local_domains[0])
        if not _is_postmaster(mailbox) or self._undeliverable(postmaster):
            return refusal
        # RFC 5321 §4.5.1: it always exists, whatever its alias leads to.
        self._log.warn(
            "mail for {mailbox} goes to {postmaster}, since its alias leads nowhere: {reply}",
            mailbox=printable(str(mailbox)),
            postmaster=postmaster,
            reply=refusal,
        )
        return (FinalRecipient(postmaster),)

    def _say_missing(self, mailbox: Mailbox, missing: Sequence[FinalRecipient]) -> None:
        shown = ", ".join(f"<{each.mailbox}> ({each.refusal})" for each in missing[:_SHOWN])
        more = len(missing) - _SHOWN
        self._log.warn(
            "the alias {mailbox} leads to members that get nothing: {members}{_more}",
            mailbox=printable(str(mailbox)),
            members=printable(shown),
            _more=f" and {more} more" if more > 0 else "",
        )

    def _undeliverable(self, mailbox: Mailbox) -> Reply | None:
        """Return what is known to become of mail for a mailbox, if that is a failure."""
        ours = mailbox.domain in self._local
        # RFC 5321 §4.5.1: postmaster always exists.
        if ours and not _is_postmaster(mailbox) and not self._exists(mailbox):
            return NO_SUCH_MAILBOX
        return self._refusal(mailbox)

    def _keep(
        self, session: Session, mailbox: Mailbox, final: Sequence[FinalRecipient]
    ) -> Reply | None:
        """Keep where a mailbox leads, or return the reply that there are too many recipients."""
        transaction = session.transaction
        assert transaction is not None
        known = transaction.expansions
        if mailbox in known.final:
            return None
        if known.final and known.count + len(final) > _MOST_RECIPIENTS:
            return TOO_MANY_RECIPIENTS
        known.add(mailbox, final)
        return None

    def may_relay(self, session: SessionView) -> bool:
        """Whether a client may send to anywhere."""
        if self.policy.local_only:
            return False
        if session.identity is not None:
            return True
        address, tls = session.peer.address, session.tls
        if address is None:
            # A UNIX socket is as near as loopback. A client whom a proxy does not know is nobody.
            return session.proxy is None and any(map(self._relay_from.cover, _LOOPBACK))
        return self._relay_from.cover(address) or (tls is not None and self._is_licence(tls))

    def _is_licence(self, tls: TLSFacts) -> bool:
        # RFC 3207 §4: relaying can be granted on what the handshake proved.
        return any(each.covers(tls) for each in self.policy.relay_certificates)


class _Reception:
    """The content of one message on its way into the queue (`interfaces.Sink`)."""

    def __init__(self, intake: Intake, session: Session) -> None:
        transaction = session.transaction
        assert transaction is not None
        self._intake = intake
        self._session = session
        self._received_at = intake.wall_time()
        self._id = intake.ids()
        self._found = intake.recipients(session)
        self._divided: Division | None = None
        # RFC 5321 §7.2: who sees the trace field learns of nobody whom the sender did not name.
        self._written: Mailbox | None = None
        if len(transaction.recipients) == 1:
            self._written = intake.canonical(session, transaction.recipients[0].mailbox)
        self._reverse_path = transaction.reverse_path
        self._parameters = lasting(
            transaction.parameters,
            now=self._received_at,
            trusted=lambda: intake.may_relay(session),
        )
        self._declared = "SMTPUTF8" in self._parameters
        self._policy = intake.policy.submission
        self._added = b""
        submitted = intake.submission is not None and session.identity is not None
        self._header: bytearray | None = (
            bytearray() if submitted and self._policy.reads_header else None
        )
        self._scanner = HeaderScanner()
        self._refusal: Reply | None = None
        self._ascii = True
        self._writer = intake.new_body(self._id)
        self._present = True
        intake.capacity.reserve()

    def write(self, content: bytes) -> None:
        """Take a piece of the content (`interfaces.Sink`)."""
        if self._refusal is not None:
            return
        if not self._scanner.ended:
            self._scanner.feed(content)
            self._refusal = self._header_refusal()
            if self._header is not None:
                self._header += content
        if self._ascii and not content.isascii():
            self._ascii = False
        if self._refusal is None:
            try:
                self._writer.write(content)
            except (OSError, MemoryError) as error:
                self._refusal = self._storage_refusal(error)
        if self._refusal is not None:
            self._writer.discard()

    def finish(self) -> ContentDecision | Deferred[ContentDecision]:
        """Make the message durable (`interfaces.Sink`)."""
        if self._refusal is None and self._header is not None:
            self._complete(bytes(self._header[: self._scanner.size]))
        if self._refusal is None:
            self._divide()
        if self._refusal is not None:
            self._leave(None)
            self._say_refused(self._refusal)
            return self._refusal
        try:
            body = self._writer.seal()
        except BaseException:
            self.abort()
            raise
        ended: Deferred[ContentDecision]
        if isinstance(body, Deferred):
            ended = body.addCallbacks(self._accept, self._not_sealed)
        else:
            ended = self._accept(body)
        return ended.addBoth(self._leave)

    def _divide(self) -> None:
        """See who gets the message, now that its header says where it has been."""
        found = self._found
        looping: Sequence[RecipientNumber] = ()
        if delivered_to := self._scanner.delivered_to:
            looping = self._intake.looping(found, delivered_to)
        if not (looping or found.refused):
            return
        each_answered = self._session.greeting == "LHLO"
        self._divided = divide(found, looping, each_answered=each_answered)
        if not self._divided.recipients:
            self._refusal = LOOP
            self._writer.discard()

    def _say_refused(self, reply: Reply) -> None:
        self._intake._log.info(
            "{id} refused: from {reverse_path}, client {peer}: {reply}",
            id=self._id,
            reverse_path=_shown(self._reverse_path),
            peer=self._session.peer.address,
            reply=reply,
        )

    def abort(self) -> None:
        """Forget the content (`interfaces.Sink`)."""
        self._writer.discard()
        self._leave(None)

    def _complete(self, header: bytes) -> None:
        """See what a submitted message lacks (RFC 6409 §8)."""
        intake, identity = self._intake, self._session.identity
        assert intake.submission is not None
        assert identity is not None
        added = intake.submission.added(
            self._policy,
            identity,
            header,
            id=self._id,
            hostname=intake.policy.hostname,
            time=self._received_at,
        )
        if isinstance(added, Reply):
            self._refusal = added
            self._writer.discard()
        else:
            self._added = added

    def _leave(self, result: _T) -> _T:
        """Give back the room that the message took, once."""
        if self._present:
            self._present = False
            self._intake.capacity.release()
        return result

    def _accept(self, body: Body) -> Deferred[ContentDecision]:
        session, policy = self._session, self._intake.policy
        found = self._found
        divided = self._divided or Division(
            found.recipients, (), found.places, (), tuple(found.aliases.values())
        )
        assert session.greeting is not None
        if self._ascii and self._parameters.get("BODY") == "8BITMIME":
            # RFC 6152 §3: nothing needs a next hop that takes 8 bits.
            del self._parameters["BODY"]
        if self._declared and not self._is_international(body):
            del self._parameters["SMTPUTF8"]
        message = Message(
            id=self._id,
            envelope=Envelope(self._reverse_path, divided.recipients, self._parameters),
            trace=received(
                greeting=session.greeting,
                helo=session.helo,
                peer_address=session.peer.address,
                peer_name=session.peer.name,
                by=policy.hostname,
                queue_id=self._id,
                recipient=self._written,
                tls=session.tls,
                authenticated=session.identity is not None,
                smtputf8=self._declared,
                priority=int(self._parameters.get("MT-PRIORITY") or 0),
                time=self._received_at,
            )
            + self._added,
            body=body,
            received_at=self._received_at,
            expires_at=self._received_at + policy.lifetime,
            expanded=divided.expanded,
            refused=divided.refused,
        )
        if message.released_at > message.received_at:
            message = evolve(message, expires_at=message.released_at + policy.lifetime)
        taking: Deferred[ContentDecision]
        if policy.direct and self._intake.direct is not None:
            taking = self._intake.direct(message, divided.places)
        else:
            queued = Reply.of(250, "0.0", f"Queued as {self._id}")
            taking = self._intake.accept(message).addCallback(lambda _: queued)
        if any(divided.answers):
            taking.addCallback(_with_answers, divided.answers)
        return taking.addCallbacks(self._accepted, self._not_accepted, callbackArgs=(message,))

    def _is_international(self, body: Body) -> bool:
        """Whether a message that came with SMTPUTF8 needs it on its way (RFC 6531 §3.2).

        What its recipients need is said by their addresses, and our trace field needs nothing
        (`message.trace.in_ascii`).
        """
        if self._reverse_path is not None and not self._reverse_path.is_ascii:
            return True
        return not self._scanner.is_ascii or (not self._ascii and needs_smtputf8(body))

    def _accepted(self, decision: ContentDecision, message: Message) -> ContentDecision:
        try:
            self._say_accepted(decision, message)
        except Exception:
            # It is ours whether it is logged or not, and its client is to hear so.
            self._intake._log.failure("{id} was accepted, and not counted", id=self._id)
        return decision

    def _say_accepted(self, decision: ContentDecision, message: Message) -> None:
        if isinstance(decision, Sequence) and not any(map(_accepts, decision)):
            self._say_refused(one_for_all(decision))
            return
        session = self._session
        assert session.greeting is not None
        protocol = with_type(
            session.greeting,
            tls=session.tls is not None,
            authenticated=session.identity is not None,
            smtputf8=self._declared,
        )
        self._intake.count(protocol)
        self._intake._log.info(
            "{id} accepted: from={sender} recipients={recipients} size={size} client={client}"
            " helo={helo} with={protocol}{_user}{_tls}",
            id=self._id,
            sender=_shown(self._reverse_path),
            recipients=len(message.envelope.recipients),
            size=message.body.size,
            client=session.peer.address,
            helo=printable(session.helo),
            protocol=protocol,
            _user=f" user={printable(session.identity)}" if session.identity else "",
            user=session.identity,
            _tls=f' tls="{session.tls.description}"' if session.tls else "",
            tls=session.tls.description if session.tls else None,
        )

    def _not_accepted(self, failure: Failure) -> ContentDecision:
        refused = failure.check(Refused)
        if refused is None:
            return failure  # type: ignore[return-value]  # the protocol logs it and says 451
        assert isinstance(failure.value, Refused)
        return failure.value.reply

    def _not_sealed(self, failure: Failure) -> ContentDecision:
        # Whatever it is: of a disk, or of a thread that could not be started.
        failure.trap(Exception)
        assert isinstance(failure.value, Exception)
        return self._storage_refusal(failure.value)

    def _header_refusal(self) -> Reply | None:
        policy = self._intake.policy
        if self._scanner.received > policy.max_hops:
            return TOO_MANY_HOPS
        if self._scanner.size > policy.max_header_size:
            return HEADER_TOO_LARGE
        return None

    def _storage_refusal(self, error: Exception) -> Reply:
        text = str(error) or type(error).__name__
        self._intake._log.error(
            "{id} could not be stored: {error}", id=self._id, error=printable(text)
        )
        self._intake.capacity.write_failed(getattr(error, "strerror", None) or text)
        return NO_DISK if isinstance(error, OSError) and is_full(error) else NOT_STORED


def _accepts(decision: Decision) -> bool:
    return decision is None or decision.code < 300


def _with_answers(taken: ContentDecision, answers: Sequence[Reply | None]) -> ContentDecision:
    """Return a decision for each RCPT, where some have one of their own."""
    if not isinstance(taken, Sequence):
        return [answer or taken for answer in answers]
    others = iter(taken)
    return [answer or next(others) for answer in answers]


def _domain_of(delivered_to: bytes) -> bytes:
    """Return the domain in a Delivered-To field, as it is written but for its case."""
    return delivered_to.rpartition(b"@")[2].rstrip(b" \t\r\n>.").lower()


def _is_postmaster(mailbox: Mailbox) -> bool:
    return mailbox.local_part.partition("+")[0].lower() == "postmaster"


def _reverse_path(session: SessionView) -> Mailbox | None:
    return session.transaction.reverse_path if session.transaction else None


def _shown(mailbox: Mailbox | None) -> str:
    return f"<{printable(str(mailbox))}>" if mailbox else "<>"
