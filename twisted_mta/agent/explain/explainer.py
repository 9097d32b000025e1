"""Explains where mail for an address would go, and why a message is still in the queue.

The DNS is asked; nothing is sent or changed. The facts come from the parts that decide: the routes,
the aliases, the intakes of listeners, the lookup of next hops, the relay, the queue.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from attrs import asdict, frozen
from twisted.internet.defer import Deferred

from ...config import Config
from ...config.token_account import TokenAccount
from ...delivery.candidates import candidates
from ...delivery.mailbox_directory import NoMailbox, mailbox_directory
from ...delivery.relay import Relay
from ...delivery.terms import HostTerms
from ...delivery.wishes import wished
from ...interfaces import WallTime
from ...mail.address import AddressError, Mailbox, path
from ...mail.classification import classify
from ...mail.envelope import Recipient
from ...mail.final_recipient import FinalRecipient
from ...mail.message import Message
from ...mail.next_hop import NextHop
from ...mail.printable import printable
from ...mail.queue_id import QueueId
from ...mail.reply import Reply
from ...policy.suppression.suppression import Suppression
from ...queue.operator.operations import Inspect, Inspected
from ...queue.operator.selection import QueuedRecipient
from ...queue.runner import Runner
from ...queue.schedule.backoff import expiry
from ...queue.store.attempts import PastAttempt
from ...routing.alias_walk import ExpansionStep
from ...routing.lookup_report import LookupReporter
from ...server.intake import Intake
from ...smtp.peer import Peer
from ...smtp.server.session import Session
from ...smtp.server.settings import SessionSettings
from ...smtp.server.transaction import Transaction
from ..mailboxes import Mailboxes
from ..shard import Shard
from .facts import attempt_facts, destination_facts, next_hop_facts, step_facts
from .forecast import Forecaster
from .origin import terms, tls
from .waiting import next_attempt, waiting_reasons

_MOST_STEPS = 200  # of aliases in one answer
_MOST_WAYS = 50  # recipients in one answer


@frozen(kw_only=True)
class AddressQuery:
    """A question about mail for an address.

    Attributes:
        address: as it was written.
        client: the address of the client that sends the mail; None: a client that may relay.
        sender: the reverse-path of the mail; None: the null one.
        helo: the name in the client's greeting; None: its name in the DNS, or its address.
    """

    address: str
    client: str | None = None
    sender: str | None = None
    helo: str | None = None


class Explainer:
    """Explains for one process.

    Args:
        config: returns the settings in force.
        mailboxes: know which mailboxes are ours, and where mail goes next.
        intakes: returns those of the listeners, in the order of the configuration.
        relay: delivers to other hosts.
        reporter: reports on the lookups of next hops.
        suppression: the list of addresses that get no mail of our users.
        forecaster: foretells what policies would say.
        shards: returns those of this process.
        home: the runner of new mail.
        wall_time: the time of day.
    """

    def __init__(
        self,
        *,
        config: Callable[[], Config],
        mailboxes: Mailboxes,
        intakes: Callable[[], Sequence[Intake]],
        relay: Relay,
        reporter: LookupReporter,
        suppression: Suppression,
        forecaster: Forecaster,
        shards: Callable[[], Sequence[Shard]],
        home: Runner,
        wall_time: WallTime,
    ) -> None:
        self._config = config
        self._mailboxes = mailboxes
        self._intakes = intakes
        self._relay = relay
        self._reporter = reporter
        self._suppression = suppression
        self._forecaster = forecaster
        self._shards = shards
        self._home = home
        self._wall_time = wall_time

    # A message.

    def message(self, id: QueueId) -> Deferred[dict[str, Any] | None]:
        """Explain why a message is still in the queue; None where this process does not have it."""
        return Deferred.fromCoroutine(self._message(id))

    async def _message(self, id: QueueId) -> dict[str, Any] | None:
        for shard in self._shards():
            inspected = await shard.commit.perform(Inspect(id))
            if isinstance(inspected, Inspected):
                return await self._inspected(inspected, shard.runner)
        return None

    async def _inspected(self, inspected: Inspected, runner: Runner) -> dict[str, Any]:
        message = inspected.message
        ways: dict[tuple[NextHop, str], dict[str, Any]] = {}
        recipients = []
        for entry in inspected.recipients:
            mailbox = entry.recipient.mailbox
            next_hop = self._mailboxes.route(mailbox).for_mail(
                tls_optional=message.envelope.tls_optional
            )
            key = next_hop, mailbox.domain
            if key not in ways and len(ways) < _MOST_WAYS:
                ways[key] = await self._way(mailbox, next_hop, runner, message)
            next_hop = self._mailboxes.groups.grouped(next_hop)
            attempts = inspected.attempts.get(entry.recipient.number, ())
            recipients.append(
                {
                    **self._recipient(inspected, entry, next_hop, runner),
                    "way": ways.get(key),
                    "attempts": [_attempt(each) for each in attempts],
                }
            )
        reverse_path = message.envelope.reverse_path
        return {
            "id": str(message.id),
            "now": self._wall_time(),
            "reverse_path": None if reverse_path is None else str(reverse_path),
            "size": message.body.size,
            "received_at": message.received_at,
            "expires_at": expiry(message, None),
            "quarantine": inspected.quarantine,
            "machine": inspected.machine,
            "assessment": asdict(message.assessment),
            "recipients": recipients,
        }

    def _recipient(
        self, inspected: Inspected, entry: QueuedRecipient, next_hop: NextHop, runner: Runner
    ) -> dict[str, Any]:
        recipient, message = entry.recipient, inspected.message
        status = runner.next_hop_status(next_hop)
        lifetime = status.limits.lifetime if next_hop.limited else None
        waiting = runner.waiting((message.id,)) if entry.leased else {}
        key = message.id, recipient.number
        expected_at = waiting.get(key)
        now = self._wall_time()
        destination = runner.suspended_destination(recipient.mailbox)
        if entry.leased and key not in waiting:
            destination = None  # the attempt under way ends by itself
        reasons = waiting_reasons(
            inspected, entry, status, waits=key in waiting, now=now, destination=destination
        )
        return {
            "number": recipient.number,
            "mailbox": str(recipient.mailbox),
            "original": None if recipient.original is None else str(recipient.original),
            "reverse_path": None if recipient.reverse_path is None else str(recipient.reverse_path),
            "state": entry.state,
            "tried": recipient.attempts,
            "last_reply": None if recipient.last_reply is None else str(recipient.last_reply),
            "classification": None
            if recipient.last_reply is None
            else classify(recipient.last_reply),
            "last_remote": recipient.last_remote,
            "reply_action": self._reply_action(recipient),
            "expires_at": expiry(message, lifetime),
            "leased_to": inspected.leased_to.get(recipient.number, ""),
            "holds": reasons,
            "next_attempt": next_attempt(
                entry, status, expected_at=expected_at, now=now, destination=destination
            ),
        }

    # An address.

    def address(self, query: AddressQuery) -> Deferred[dict[str, Any]]:
        """Explain where mail for an address would go now.

        Raises:
            ValueError: a text in the query is not an address.
        """
        return Deferred.fromCoroutine(self._address(query))

    async def _address(self, query: AddressQuery) -> dict[str, Any]:
        mailbox = read_mailbox(query.address)
        reverse_path = None if query.sender is None else read_mailbox(query.sender)
        intakes = self._intakes()
        session = _session(query.client, reverse_path)
        if intakes:
            mailbox = intakes[0].canonical(session, mailbox)
        mailbox = self._mailboxes.routes.with_domain(mailbox)
        ours = mailbox.domain in self._mailboxes.domains
        decided, steps = self._decided(mailbox, session, intakes, ours, query.client is not None)
        recipients: list[dict[str, Any]] = []
        if not isinstance(decided, Reply):
            for each in decided[:_MOST_WAYS]:
                next_hop = self._mailboxes.route(each.mailbox)
                rewritten = each.reverse_path
                paused = self._home.suspended_destination(each.mailbox)
                recipients.append(
                    {
                        "mailbox": str(each.mailbox),
                        "reverse_path": None if rewritten is None else str(rewritten),
                        "refused": None if each.refusal is None else str(each.refusal),
                        "owner": None if each.owner is None else str(each.owner),
                        "suppressed": await self._suppressed(each.mailbox, next_hop),
                        "suspended_by_operator": None
                        if paused is None
                        else destination_facts(paused),
                        "way": await self._way(each.mailbox, next_hop, self._home),
                    }
                )
        return {
            "address": query.address,
            "now": self._wall_time(),
            "mailbox": str(mailbox),
            "where": self._where(mailbox),
            "client": query.client,
            "sender": query.sender,
            "forecast": await self._forecast(query, reverse_path, mailbox),
            "steps": [
                step_facts(step, self._mailboxes.route(step.mailbox))
                for step in steps[:_MOST_STEPS]
            ],
            "more_steps": max(0, len(steps) - _MOST_STEPS),
            "refused": str(decided) if isinstance(decided, Reply) else None,
            "recipients": recipients,
            "more_recipients": 0
            if isinstance(decided, Reply)
            else max(0, len(decided) - _MOST_WAYS),
        }

    async def _suppressed(self, mailbox: Mailbox, next_hop: NextHop) -> dict[str, Any] | None:
        entry = await self._suppression.find(mailbox) if next_hop.remote else None
        return None if entry is None else asdict(entry)

    async def _forecast(
        self, query: AddressQuery, reverse_path: Mailbox | None, recipient: Mailbox
    ) -> dict[str, Any] | None:
        """Return what policies would say; None: no client is named, or none could connect."""
        config = self._config()
        by_kind = [
            intake
            for listener, intake in zip(config.listeners, self._intakes(), strict=False)
            if listener.kind == "smtp"
        ]
        if query.client is None or not by_kind:
            return None
        return await self._forecaster.foretell(
            by_kind[0],
            config.policy,
            client=query.client,
            helo=query.helo,
            sender=reverse_path,
            recipient=recipient,
        )

    def _decided(
        self,
        mailbox: Mailbox,
        session: Session,
        intakes: Sequence[Intake],
        ours: bool,
        as_client: bool,
    ) -> tuple[Sequence[FinalRecipient] | Reply, Sequence[ExpansionStep]]:
        steps: Sequence[ExpansionStep] = ()
        decided: Sequence[FinalRecipient] | Reply = (FinalRecipient(mailbox),)
        if ours:
            reverse_path = session.transaction.reverse_path if session.transaction else None
            decided, steps = self._mailboxes.explained(mailbox, reverse_path)
        if intakes and (ours or as_client):
            decided = intakes[0].decide(session, mailbox)
        elif not isinstance(decided, Reply):
            decided = self._mailboxes.refusal(mailbox) or decided
        return decided, steps

    def _where(self, mailbox: Mailbox) -> str:
        config = self._config()
        if mailbox.domain in config.virtual_domains:
            return "virtual"
        if mailbox.domain in config.local_domains:
            return "local"
        if mailbox.domain in config.relay_domains:
            return "relay"
        return "srs" if mailbox.domain in self._mailboxes.domains else "elsewhere"

    # A way.

    async def _way(
        self, mailbox: Mailbox, next_hop: NextHop, runner: Runner, message: Message | None = None
    ) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "next_hop": str(next_hop),
            "transport": next_hop.transport,
            "rule": next_hop.rule,
        }
        if next_hop.transport == "error":
            facts["reply"] = str(next_hop.reply)
        elif next_hop.transport == "maildir":
            facts["maildir"] = self._maildir(mailbox)
            facts["maildir_exists"] = self._mailboxes.has_maildir(mailbox)
        config, domain = self._config(), mailbox.domain
        if next_hop.delivery:
            return {
                **facts,
                "terms": terms(config, next_hop, str(next_hop)),
                "exchangers": [],
                "failure": None,
                "targets": [],
                "standings": [next_hop_facts(runner.next_hop_status(next_hop))],
            }
        if not next_hop.remote:
            return facts
        lookup = await self._reporter.report(next_hop)
        next_hop = self._mailboxes.groups.grouped(next_hop)  # which the look-up may have shown
        host_terms = self._relay.terms.host_terms(next_hop, domain)
        if message is not None:
            host_terms = wished(next_hop, message, host_terms)
        targets = await candidates(self._relay.connections, next_hop, host_terms, lookup.targets)
        return {
            **facts,
            "group": next_hop.exchanger or None,
            "sources": await self._sources(next_hop, host_terms),
            "terms": terms(config, next_hop, domain),
            "tokens": self._tokens(host_terms),
            "exchangers": [asdict(each) for each in lookup.exchangers],
            "failure": None if lookup.failure is None else str(lookup.failure),
            "targets": [
                {
                    "host": each.target.name,
                    "address": each.target.address,
                    "port": each.target.port,
                    "passed_over": each.passed_over,
                    "connection_open": each.idle,
                    "tls": tls(config, next_hop, domain, each),
                }
                for each in targets
            ],
            "standings": [next_hop_facts(runner.next_hop_status(next_hop))],
        }

    def _tokens(self, host_terms: HostTerms) -> list[dict[str, Any]]:
        """Return the states of the accounts that log in with tokens."""
        tokens = self._relay.connections.tokens
        accounts = [each.credentials for each in host_terms]
        asked = [each for each in accounts if isinstance(each, TokenAccount)]
        return [asdict(tokens.status(each)) for each in dict.fromkeys(asked)] if tokens else []

    async def _sources(self, next_hop: NextHop, host_terms: HostTerms) -> dict[str, Any] | None:
        """Return the source pools for a next hop, by name; None: there are none."""
        sources = self._relay.sources
        names = dict.fromkeys(each.source_pool for each in host_terms if each.source_pool)
        if not names:
            return None
        _, day = sources.tomorrow()
        try:
            pools = {name: await sources.standing(name, next_hop) for name in names}
        except (OSError, sqlite3.Error) as error:
            return {"tomorrow": day, "problem": printable(str(error)), "pools": {}}
        return {"tomorrow": day, "problem": None, "pools": pools}

    def _reply_action(self, recipient: Recipient) -> str | None:
        """Return the action that applied to the last reply; None: none did."""
        if recipient.last_reply is None:
            return None
        action = self._relay.reply_actions.find(
            recipient.last_reply, recipient.last_remote, recipient.mailbox.domain
        )
        return None if action is None else str(action)

    def _maildir(self, mailbox: Mailbox) -> str:
        try:
            return "/".join((self._config().maildir, *mailbox_directory(mailbox)))
        except NoMailbox as error:
            return str(error.reply)


def _attempt(attempt: PastAttempt) -> dict[str, Any]:
    return {
        **attempt_facts(attempt),
        "tls": None if attempt.tls is None else asdict(attempt.tls),
        "conversation": attempt.transcript.splitlines(),
    }


def read_mailbox(text: str) -> Mailbox:
    """Read a mailbox that an operator typed, in angle brackets or without.

    Raises:
        AddressError: it is not a mailbox.
    """
    if text.startswith("<"):
        mailbox, end = path(text)
        if mailbox is None or end != len(text):
            raise AddressError("not of the form <local-part@domain>")
        return mailbox
    return Mailbox("postmaster", "") if text.lower() == "postmaster" else Mailbox.parse(text)


def _session(client: str | None, reverse_path: Mailbox | None) -> Session:
    """Return the session of a client, as it is at RCPT."""
    session = Session(SessionSettings(hostname="explain"), peer=Peer(client or "192.0.2.0"))
    session.transaction = Transaction(reverse_path, {})
    return session
