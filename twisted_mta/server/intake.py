"""The intake of one listener: which senders, recipients and relaying clients it accepts.

It is the delivery (`interfaces.Delivery`) that queues. The content of a message goes to a
`Reception`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..interfaces import Accept, Expand, Ids, NewBody, Refused, Sink, Take, WallTime
from ..mail.address import Mailbox, is_postmaster, literal_address, u_labels
from ..mail.decision import Decision
from ..mail.envelope import Parameters, RecipientNumber
from ..mail.final_recipient import Expansions, FinalRecipient
from ..mail.message import Message
from ..mail.printable import printable, shown_client
from ..mail.queue_id import QueueId
from ..mail.reply import Reply
from ..message.delivery_fields import read_delivered_to
from ..policy.answers import EnvelopeView
from ..policy.capacity import Capacity
from ..policy.chain import Stage
from ..policy.examination import Examination
from ..policy.relaying import Relaying
from ..policy.sending_limits import SendingLimits, What, account_of, kind_of
from ..policy.submission import Submission
from ..routing.routes import DISCARD
from ..smtp.extension.envelope_parameters import envelope_parameters, reply_to_mail
from ..smtp.extension.views import SessionView
from ..smtp.server.session import Session
from ..smtp.server.transaction import Accepted, Transaction
from .content_examination import ContentExamination
from .intake_policy import IntakePolicy
from .policy_stages import PolicyStages, end_notes, rewritten_recipients
from .reception import Reception, shown
from .recipients import ExpandedRecipients, expanded

RELAYING_DENIED = Reply.of(550, "7.1", "Relaying denied")
NO_SUCH_MAILBOX = Reply.of(550, "1.1", "No such mailbox here")
TOO_MANY_RECIPIENTS = Reply.of(452, "5.3", "Too many recipients, send to the rest later")

# Mail that a policy takes and gives to no recipient.
_NOWHERE = Mailbox("policy", DISCARD)

_SHOWN = 10  # members of an alias in one line of the log

# Final recipients of one transaction. The session limits its RCPT (1,000 by default), but one of
# them may be an alias with thousands of members.
_MOST_RECIPIENTS = 10_000

# Octets of an address outside ASCII in a Delivered-To field (RFC 5321 §4.5.3.1.3); the fields that
# we write (`message.delivery_fields`) have no longer one.
_LONGEST_UTF8 = 256


class Intake:
    """Takes mail into the queue (`interfaces.Delivery`).

    Args:
        policy: of the listener.
        accept: puts a message into the queue.
        direct: delivers a message at once, where ``policy.direct`` is set; None: all are queued.
        new_body: begins the body of a message.
        exists: whether a mailbox in one of our domains exists.
        refusal: returns the reply with which mail for a mailbox is known to fail, or None.
        expand: returns where mail for a mailbox in one of our domains leads.
        alias_of: returns the same text for all mailboxes of ours that share an alias.
        ids: queue ids.
        wall_time: for the trace field.
        capacity: decides whether one more message can be taken.
        count: called for each accepted message with its protocol (`message.received.with_type`).
        submission: decides on mail of authenticated clients; None where no client authenticates.
        sending_limits: of accounts; None: there are none.
        suppressed: returns the refusal of a recipient of our users that is on the suppression list;
            None: there is no list.
        feedback_id: returns the id of a message of an account for reports of complaints.
        policies: asked besides; None: there are none.

    Attributes:
        policy: changed by `update`.
        submission: as above.
        sending_limits: as above.
        policies: as above.
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
        sending_limits: SendingLimits | None = None,
        suppressed: Callable[[Mailbox], Awaitable[Reply | None]] | None = None,
        feedback_id: Callable[[QueueId, str], str] = lambda id, account: "",
        policies: PolicyStages | None = None,
    ) -> None:
        self.update(policy)
        self.sending_limits = sending_limits
        self.submission = submission
        self.policies = policies
        self._accept = accept
        self._direct = direct
        self._new_body = new_body
        self._exists = exists
        self._refusal = refusal
        self._expand = expand
        self._alias_of = alias_of
        self._ids = ids
        self._wall_time = wall_time
        self._capacity = capacity
        self._count = count
        self._suppressed = suppressed
        self._feedback_id = feedback_id

    def update(self, policy: IntakePolicy) -> None:
        """Apply another policy to mail that begins from now on."""
        self.policy = policy
        self._relaying = Relaying(
            policy.relay_from,
            policy.relay_certificates,
            local_only=policy.local_only,
            everyone=policy.relays_all,
        )
        self._local = dict.fromkeys(policy.local_domains)
        self._relayed = dict.fromkeys(policy.relay_domains)
        written = (each for name in policy.local_domains for each in (name, u_labels(name)))
        self._local_as_written = dict.fromkeys(each.encode() for each in written)

    def trusts(self, session: SessionView) -> bool:
        """Whether the client may relay (`smtp.server.settings.SessionSettings.trusts`)."""
        return self._relaying.allows(session)

    def lacks_capacity(self) -> Reply | None:
        """Return the reply that there is no capacity for a message; None: there is."""
        return self._capacity.refusal()

    def decides_on(self, stage: Stage) -> bool:
        """Whether a policy has a say at a stage."""
        return self.policies is not None and self.policies.chain.asks(stage)

    # `interfaces.Delivery`.

    def client(self, session: Session) -> Decision | Deferred[Decision]:
        """Ask the policies about a client."""
        if self.policies is None:
            return None
        return self.policies.client(session, is_stranger=not self.trusts(session))

    def helo(self, session: Session) -> Decision | Deferred[Decision]:
        """Ask the policies about the name in a greeting."""
        if self.policies is None:
            return None
        return self.policies.helo(session, is_stranger=not self.trusts(session))

    def mail(
        self, session: Session, reverse_path: Mailbox | None, parameters: Parameters
    ) -> Decision | Deferred[Decision]:
        """Accept any reverse-path that the client may use, while there is capacity.

        Parameters that cannot be kept are refused (`smtp.extension.envelope_parameters`).
        """
        refusal = self._capacity.refusal()
        if refusal is None and self.submission is not None:
            refusal = self.submission.mail(self.policy.submission, session, reverse_path)
            if refusal is not None:
                self._log.info(
                    "refused {reverse_path} of user={user}, client {_peer}: {reply}",
                    reverse_path=shown(reverse_path),
                    user=printable(session.identity or ""),
                    _peer=shown_client(session.peer.address),
                    peer=session.peer.address,
                    reply=refusal,
                )
        if refusal is not None:
            return refusal
        accepted: Decision = None
        trusted = self._relaying.allows(session)
        if parameters:
            accepted = reply_to_mail(
                parameters,
                now=self._wall_time(),
                trusted=trusted,
                under_tls=session.tls is not None,
            )
            if accepted is not None and accepted.code >= 400:
                return accepted
        if self.policies is None:
            return accepted
        decided = self.policies.mail(session, reverse_path, is_stranger=not trusted)
        if decided is None or not isinstance(decided, Deferred):
            return decided or accepted
        return decided.addCallback(lambda decision: decision or accepted)

    def rcpt(
        self, session: Session, forward_path: Mailbox, parameters: Parameters
    ) -> Decision | Deferred[Decision]:
        """Accept what `may_send_to` and the policies accept, within the account's limit an hour."""
        examination = self._examination(session)
        if examination is not None:
            self._apply_sender(session, examination)
        decision = self.may_send_to(session, forward_path)
        counted: Decision | Deferred[Decision] = decision
        if decision is None and self._are_limited:
            counted = self._counted(session, "recipients")
        if decision is None and self._is_suppressible(session, forward_path):
            counted = Deferred.fromCoroutine(self._refused_by_list(forward_path, counted))
        if examination is None or decision is not None:
            return counted
        if not isinstance(counted, Deferred):
            return self._ask_about_recipient(examination, session, forward_path)
        return counted.addCallback(self._ask_unless_refused, examination, session, forward_path)

    def _is_suppressible(self, session: Session, forward_path: Mailbox) -> bool:
        if self._suppressed is None or not self.policy.suppresses:
            return False
        mailbox = self.canonical(session, forward_path)
        return mailbox.domain not in self._local and self._relaying.allows(session)

    async def _refused_by_list(
        self, recipient: Mailbox, counted: Decision | Deferred[Decision]
    ) -> Decision:
        refusal = await counted if isinstance(counted, Deferred) else counted
        if refusal is None and self._suppressed is not None:
            refusal = await self._suppressed(recipient)
            if refusal is not None:
                self._log.info(
                    "refused {recipient}: {reply}",
                    recipient=printable(str(recipient)),
                    reply=refusal,
                )
        return refusal

    def _ask_unless_refused(
        self,
        refusal: Decision,
        examination: Examination,
        session: Session,
        forward_path: Mailbox,
    ) -> Decision | Deferred[Decision]:
        return refusal or self._ask_about_recipient(examination, session, forward_path)

    def _examination(self, session: Session) -> Examination | None:
        """Return the examination of the present transaction; None where no policy is asked."""
        return None if self.policies is None else self.policies.examination(session)

    def _apply_sender(self, session: Session, examination: Examination) -> None:
        """Put the reverse-path in force that a policy gave in answer to MAIL."""
        transaction = session.transaction
        if transaction is not None and not transaction.recipients:
            for each in examination.opinion.rewrites:
                if each.sender is not None:
                    transaction.reverse_path = Mailbox.parse(each.sender) if each.sender else None

    def _ask_about_recipient(
        self, examination: Examination, session: Session, forward_path: Mailbox
    ) -> Decision | Deferred[Decision]:
        assert self.policies is not None
        before = len(examination.opinion.rewrites)
        asked = self.policies.rcpt(session, forward_path)

        def decided(refusal: Decision) -> Decision:
            recipients = rewritten_recipients(examination, before)
            if refusal is None and recipients is not None:
                self._replace(session, forward_path, recipients)
            return refusal

        return asked.addCallback(decided) if isinstance(asked, Deferred) else decided(asked)

    def _replace(
        self, session: Session, forward_path: Mailbox, recipients: Sequence[Mailbox]
    ) -> None:
        """Let the mail for a recipient lead to those that a policy gave in its place."""
        transaction = session.transaction
        if transaction is not None:
            mailbox = self.canonical(session, forward_path)
            transaction.expansions.final[mailbox] = self._given_by_policy(session, recipients)

    def _given_by_policy(
        self, session: Session, recipients: Sequence[Mailbox]
    ) -> tuple[FinalRecipient, ...]:
        """Return where mail leads for recipients that a policy gave: it may relay."""
        if not recipients:
            return (FinalRecipient(_NOWHERE),)
        final: dict[FinalRecipient, None] = {}
        for each in recipients:
            led = self.decide(session, self.canonical(session, each))
            final.update(dict.fromkeys((FinalRecipient(each),) if isinstance(led, Reply) else led))
        return tuple(final)

    def open(self, session: Session) -> Sink | Reply | Deferred[Sink | Reply]:
        """Begin a message that the policies accept, within the account's limit of messages."""
        if not self._are_limited:
            return self._ask_before_content(session)

        def decided(refusal: Decision) -> Sink | Reply | Deferred[Sink | Reply]:
            return self._ask_before_content(session) if refusal is None else refusal

        counted = self._counted(session, "messages")
        return decided(None) if counted is None else counted.addCallback(decided)

    def _ask_before_content(self, session: Session) -> Sink | Reply | Deferred[Sink | Reply]:
        if self.policies is None or not self.policies.chain.asks("data"):
            return self.begin(session)
        transaction = session.transaction
        assert transaction is not None
        asked = self.policies.data(session, _envelope(transaction, transaction.parameters))

        def decided(refusal: Decision) -> Sink | Reply:
            return self.begin(session) if refusal is None else refusal

        return asked.addCallback(decided) if isinstance(asked, Deferred) else decided(asked)

    def ended(self, session: Session) -> None:
        """Let policies know (`interfaces.Delivery`)."""
        end_notes(session)

    @property
    def _are_limited(self) -> bool:
        limits = self.sending_limits
        return limits is not None and limits.are_set(self.policy.submission.limits)

    def _counted(self, session: Session, what: What) -> Deferred[Decision] | None:
        """Count one more recipient or message of an account; None: it has no limit."""
        limits, listener = self.sending_limits, self.policy.submission.limits
        account = account_of(session, self.policy.relay_certificates)
        if limits is None or account is None or not limits.limit(account, what, listener):
            return None
        counted = limits.add(account, what, listener, kind=kind_of(session))
        return Deferred.fromCoroutine(counted)

    # Recipients.

    def may_send_to(self, session: Session, forward_path: Mailbox) -> Decision:
        """Accept existing mailboxes of ours and of relay domains; any, if the client may relay."""
        mailbox = self.canonical(session, forward_path)
        final = self.decide(session, mailbox)
        refusal = final if isinstance(final, Reply) else self._keep(session, mailbox, final)
        if refusal is None:
            return None
        self._log.info(
            "refused {recipient} from {reverse_path}, client {_peer}: {reply}",
            recipient=printable(str(forward_path)),
            reverse_path=shown(_reverse_path(session)),
            _peer=shown_client(session.peer.address),
            peer=session.peer.address,
            reply=refusal,
        )
        return refusal

    def decide(self, session: SessionView, mailbox: Mailbox) -> Sequence[FinalRecipient] | Reply:
        """Return where mail for a `canonical` mailbox leads, or the reply that refuses it."""
        if mailbox.domain in self._local:
            try:
                return self._final_recipients(session, mailbox)
            except Refused as deferred:
                return deferred.reply
        if mailbox.domain in self._relayed or self._relaying.allows(session):
            return self._refusal(mailbox) or (FinalRecipient(mailbox),)
        return RELAYING_DENIED

    def lookup(
        self, session: SessionView, mailbox: Mailbox
    ) -> tuple[Mailbox, Sequence[Mailbox]] | Reply | None:
        """Return a mailbox of ours and where it leads (`smtp.extension.verify.Lookup`)."""
        if not mailbox.domain:
            mailbox = evolve(mailbox, domain=self.policy.local_domains[0])
        mailbox = self.canonical(session, mailbox)
        if mailbox.domain not in self._local:
            return None
        final = self.decide(session, mailbox)
        if isinstance(final, Reply):
            return final
        reached = (each.mailbox for each in final if each.refusal is None)
        # Mail that an alias discards reaches no mailbox that could be named.
        return mailbox, [each for each in reached if each.domain != DISCARD] or [mailbox]

    def canonical(self, session: SessionView, mailbox: Mailbox) -> Mailbox:
        """Return a mailbox with its domain's canonical name, if the domain is ours."""
        if not mailbox.domain:  # RFC 5321 §4.1.1.3: <postmaster>
            return Mailbox(mailbox.local_part, self.policy.local_domains[0])
        if mailbox.domain[0] == "[" and literal_address(mailbox.domain) == session.local_address:
            return Mailbox(mailbox.local_part, self.policy.local_domains[0])
        return mailbox

    def _keep(
        self, session: Session, mailbox: Mailbox, final: Sequence[FinalRecipient]
    ) -> Reply | None:
        """Keep where a mailbox leads, or return the reply that there are too many recipients."""
        transaction = session.transaction
        assert transaction is not None
        known = transaction.expansions
        if known.final:
            if mailbox in known.final:
                return None
            if known.count + len(final) > _MOST_RECIPIENTS:
                return TOO_MANY_RECIPIENTS
        known.add(mailbox, final)
        return None

    def _final_recipients(
        self, session: SessionView, mailbox: Mailbox
    ) -> Sequence[FinalRecipient] | Reply:
        """Return where mail for a mailbox of ours leads, if it can be delivered there."""
        final = self._expand(mailbox, _reverse_path(session))
        if isinstance(final, Reply):
            refusal = final
        elif list(final) == [FinalRecipient(mailbox)]:
            return self._undeliverable(mailbox) or final
        else:
            missing = [each for each in final if each.refusal is not None]
            if not missing:
                return final
            self._log_missing(mailbox, missing)
            if self.policy.missing_members == "notice":
                return final
            refusal = missing[0].refusal or NO_SUCH_MAILBOX
        postmaster = Mailbox("postmaster", self.policy.local_domains[0])
        if not is_postmaster(mailbox) or self._undeliverable(postmaster):
            return refusal
        # RFC 5321 §4.5.1: postmaster exists, even if its alias leads nowhere.
        self._log.warn(
            "mail for {mailbox} goes to {postmaster}, since its alias leads nowhere: {reply}",
            mailbox=printable(str(mailbox)),
            postmaster=postmaster,
            reply=refusal,
        )
        return (FinalRecipient(postmaster),)

    def _undeliverable(self, mailbox: Mailbox) -> Reply | None:
        """Return the reply with which mail for a mailbox is known to fail, or None."""
        ours = mailbox.domain in self._local
        # RFC 5321 §4.5.1: postmaster always exists.
        if ours and not is_postmaster(mailbox) and not self._exists(mailbox):
            return NO_SUCH_MAILBOX
        return self._refusal(mailbox)

    def _log_missing(self, mailbox: Mailbox, missing: Sequence[FinalRecipient]) -> None:
        members = ", ".join(f"<{each.mailbox}> ({each.refusal})" for each in missing[:_SHOWN])
        more = len(missing) - _SHOWN
        self._log.warn(
            "the alias {mailbox} leads to members that get nothing: {members}{_more}",
            mailbox=printable(str(mailbox)),
            members=printable(members),
            _more=f" and {more} more" if more > 0 else "",
        )

    # Messages.

    def begin(self, session: Session, account: str | None = None) -> Reception | Reply:
        """Begin the reception of a message, or return the reply that there is no capacity.

        Args:
            session: that it comes in.
            account: that an application sends it for; None: the one of the session.
        """
        refusal = self._capacity.refusal()
        if refusal is not None:
            return refusal
        transaction = session.transaction
        assert transaction is not None
        received_at = self._wall_time()
        id = self._ids()
        completes = self._relaying.allows(session)
        parameters = envelope_parameters(transaction.parameters, now=received_at, trusted=completes)
        expansions = transaction.expansions
        recipients = self._take_recipients(session)
        named = None
        if len(transaction.recipients) == 1:
            named = self.canonical(session, transaction.recipients[0].mailbox)
        reception = Reception(
            session,
            policy=self.policy,
            id=id,
            received_at=received_at,
            parameters=parameters,
            recipients=recipients,
            named=named,
            find_looping=self._looping,
            submission=None if session.identity is None else self.submission,
            completes=completes,
            feedback_id=lambda: self._feedback_id(
                id, account or account_of(session, self.policy.relay_certificates) or ""
            ),
            new_body=partial(self._new_body, id),
            capacity=self._capacity,
            take=self._direct if self.policy.direct and self._direct is not None else self._queue,
            count=self._count,
        )
        examination = self._examination(session)
        if self.policies is not None and examination is not None:
            self._apply_sender(session, examination)
            reception.examine(
                ContentExamination(
                    self.policies.chain,
                    examination,
                    _envelope(transaction, parameters),
                    self.policy.authserv_id,
                ),
                partial(
                    self._given_instead,
                    session,
                    len(transaction.recipients),
                    {
                        self.canonical(session, each.mailbox): each
                        for each in transaction.recipients
                    },
                    expansions,
                ),
            )
        return reception

    def _given_instead(
        self,
        session: Session,
        rcpts: int,
        accepted: Mapping[Mailbox, Accepted],
        known: Expansions,
        recipients: Sequence[Mailbox],
        parameters: Mapping[Mailbox, Parameters],
    ) -> ExpandedRecipients:
        """Return the recipients that a policy gave in place of all.

        Args:
            session: of the message.
            rcpts: the number of its RCPT commands.
            accepted: those of them, by their canonical mailbox.
            known: where these lead.
            recipients: given by the policy; one that was accepted keeps its parameters.
            parameters: of those to which the policy gave any.
        """
        expansions = Expansions()
        given = []
        for each in recipients or (_NOWHERE,):
            mailbox = self.canonical(session, each) if recipients else each
            kept = accepted.get(mailbox)
            if kept is not None and mailbox in known.final:
                final: Sequence[FinalRecipient] = known.final[mailbox]
            else:
                final = self._given_by_policy(session, recipients and (each,))
            if mailbox not in expansions.final:
                expansions.add(mailbox, final)
                given.append(
                    Accepted(mailbox, parameters.get(each) or (kept.parameters if kept else {}))
                )
        instead = expanded(
            given,
            expansions,
            canonical=lambda mailbox: mailbox,
            local_domains=self._local,
        )
        everyone = tuple(each.number for each in instead.recipients)
        return evolve(instead, by_rcpt=[everyone] * rcpts)

    def _take_recipients(self, session: Session) -> ExpandedRecipients:
        """Return the expanded recipients of a transaction, which keeps its expansions no longer."""
        transaction = session.transaction
        assert transaction is not None
        expansions, transaction.expansions = transaction.expansions, Expansions()
        return expanded(
            transaction.recipients,
            expansions,
            canonical=partial(self.canonical, session),
            local_domains=self._local,
        )

    def _looping(
        self, recipients: ExpandedRecipients, delivered_to: Sequence[bytes]
    ) -> Sequence[RecipientNumber]:
        """Return the recipients that the message would reach again (`reception.FindLooping`).

        A sender that forges a Delivered-To field harms its own message alone.
        """
        # Fields of other domains are not parsed: to parse one domain can cost as much as 1,000
        # comparisons. Text outside ASCII is normalized, which is quadratic in the characters that
        # combine with one.
        ours = [
            each
            for each in delivered_to
            if (each.isascii() or len(each) <= _LONGEST_UTF8)
            and _domain_of(each) in self._local_as_written
        ]
        mailboxes = dict.fromkeys(filter(None, map(read_delivered_to, ours)))
        passed = {self._alias_of(each) for each in mailboxes if each.domain in self._local}
        if not passed:
            return []
        return recipients.looping(lambda alias: self._alias_of(alias) in passed)

    def _queue(
        self, message: Message, by_rcpt: Sequence[Sequence[RecipientNumber]]
    ) -> Deferred[None]:
        """Put a message into the queue (`interfaces.Take`)."""
        return self._accept(message)


def _domain_of(delivered_to: bytes) -> bytes:
    """Return the domain in a Delivered-To field as it is written, in lower case."""
    return delivered_to.rpartition(b"@")[2].rstrip(b" \t\r\n>.").lower()


def _envelope(transaction: Transaction, parameters: Parameters) -> EnvelopeView:
    recipients = tuple(each.mailbox for each in transaction.recipients)
    return EnvelopeView(transaction.reverse_path, recipients, parameters)


def _reverse_path(session: SessionView) -> Mailbox | None:
    return session.transaction.reverse_path if session.transaction else None
