"""Relay mail to other hosts by SMTP or LMTP: one transaction per group of recipients.

A `Relay` looks up the terms of each recipient and begins an attempt (`attempts.Attempts`) for those
that share them; all attempts share the `connections.Connections`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from ..config import Destination, ReplyAction, SourcePool
from ..interfaces import (
    Executor,
    Locate,
    NoteTLSResult,
    Regrouped,
    Sign,
    TLSPolicies,
    WallTime,
    unsigned,
)
from ..mail.message import Message
from ..mail.next_hop import Host, NextHop
from ..mail.outcome import Outcome
from ..mail.reply import Reply
from ..mail.tls_policy import TLSSetting
from ..smtp.extension.outgoing import OutgoingExtension
from ..smtp.extension.standard import OUTGOING
from ..smtp.sasl.exchange import Nonce
from ..system.outbox import Outbox
from ..system.slices import Sliced
from ..system.work import Work
from ..tls.client import ClientContexts
from ..tls.memory import TLSMemory
from .address_order import SourceOf
from .attempts import Attempts
from .connections import Connections
from .reply_actions import Acted, ReplyActions
from .settings import RelaySettings
from .source_pools import Choice, Counts, SourcePools
from .terms import (
    DestinationFor,
    HostTerms,
    LoadedTerms,
    RecipientGroup,
    Terms,
    TermsBook,
    load_terms,
)
from .tokens.accounts import TokenAccounts

__all__ = ["Relay", "RelaySettings"]


_MOST_SOURCES = 5  # addresses that one attempt tries, where actions on replies demand others


def _no_executor(*args: object, **more: object) -> Any:
    raise AssertionError("nothing that is judged here blocks")


class Relay:
    """Delivers to other hosts; `deliver` is an `interfaces.Deliver`.

    Args:
        reactor: for connections and time: `IReactorTCP`, `IReactorTime`, and `IReactorUNIX` where
            routes name UNIX sockets.
        locate: looks up the targets of a next hop.
        helo: our name in EHLO.
        contexts: makes the TLS side of connections.
        tls_level: the TLS that a connection must have, where ``destination_for`` is None.
        source_address: addresses to connect from, where ``destination_for`` is None: each for
            targets of its own family; None: the system chooses.
        settings: the limits and timeouts for all next hops.
        destination_for: the settings by domain; None: the same everywhere. Where a destination
            names files, `update` with the result of `load_terms` comes before the first delivery.
        memory: the hosts known to do TLS.
        policies: decides on the TLS with each host; None: by the settings and ``memory``.
        note_tls_result: takes note of sessions with mail exchangers, for reports on TLS.
        nonce: makes nonces for AUTH; without it SCRAM mechanisms are not used.
        source_of: see `address_order.in_order`.
        executor: runs the derivation of SCRAM keys and the conversion of contents; without it,
            a message that needs conversion is bounced.
        sign: signs messages, as they go out in each transaction.
        extensions: the SMTP extensions that are used where a server announces them.
        wall_time: seconds since the epoch; without it, the reactor's time.
        outbox: collects commands until the end of the reactor's turn; without it, a new one.
        tokens: see `Connections`.
        grouped: likewise.
        sent_counts: of the addresses in pools, for all processes; None: no address warms up.
        sent_executor: where those are read and written; None: as files are.

    Attributes:
        connections: to all next hops.
        terms: the terms in force.
        sources: the pools of source addresses in force.
        reply_actions: the actions on replies in force.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        locate: Locate,
        helo: str,
        contexts: ClientContexts | None = None,
        tls_level: TLSSetting = "may",
        source_address: str | Sequence[str] | None = None,
        settings: RelaySettings | None = None,
        destination_for: DestinationFor | None = None,
        memory: TLSMemory | None = None,
        policies: TLSPolicies | None = None,
        note_tls_result: NoteTLSResult = lambda result: None,
        nonce: Nonce | None = None,
        source_of: SourceOf | None = None,
        executor: Executor | None = None,
        sign: Sign = unsigned,
        extensions: Sequence[OutgoingExtension] = OUTGOING,
        wall_time: WallTime | None = None,
        outbox: Outbox | None = None,
        tokens: TokenAccounts | None = None,
        grouped: Callable[[NextHop], NextHop] = lambda next_hop: next_hop,
        sent_counts: Counts | None = None,
        sent_executor: Executor | None = None,
    ) -> None:
        settings = settings or RelaySettings()
        self.locate = locate
        self.connections = Connections(
            reactor=reactor,
            helo=helo,
            settings=settings,
            contexts=contexts,
            memory=memory,
            policies=policies,
            note_tls_result=note_tls_result,
            nonce=nonce,
            source_of=source_of,
            executor=executor,
            sign=sign,
            extensions=extensions,
            wall_time=wall_time,
            outbox=outbox,
            tokens=tokens,
            grouped=grouped,
        )
        if destination_for is None:
            sources = (source_address,) if isinstance(source_address, str) else source_address
            everywhere = Destination(
                domain="*",
                tls=tls_level,
                source_address=None if sources is None else tuple(sources),
                messages_per_connection=settings.messages_per_connection,
            )
            destination_for = _Everywhere(everywhere)
        self._destination_for = destination_for
        self.terms = TermsBook(destination_for)
        self.sources = SourcePools(
            sent_counts,
            executor=sent_executor or executor,
            wall_time=wall_time or reactor.seconds,
            seconds=reactor.seconds,
        )
        self.reply_actions = ReplyActions()
        self._pace = Sliced(reactor, executor or _no_executor)
        self._attempts = Attempts(self.connections)

    # Settings.

    def load_terms(
        self, destinations: Iterable[Destination], *, mta_sts_authorities: str | None = None
    ) -> Work[LoadedTerms]:
        """Read the files of all destinations; nothing is in force before `update`.

        Args:
            destinations: each complete (`Config.all_destinations`).
            mta_sts_authorities: see `terms.load_terms`.

        Raises:
            CertificateError: a certificate, key or authority cannot be used.
            ConfigError: a password file cannot be used.
        """
        return load_terms(
            self.connections.contexts, destinations, mta_sts_authorities=mta_sts_authorities
        )

    def update(
        self,
        loaded: LoadedTerms,
        *,
        destination_for: DestinationFor | None = None,
        helo: str | None = None,
        source_pools: Sequence[SourcePool] = (),
        reply_actions: Sequence[ReplyAction] = (),
    ) -> list[str]:
        """Put settings in force for new connections, and close idle ones.

        A transaction under way ends as it began; its connection is closed after it.

        Args:
            loaded: the contents of the destinations' files.
            destination_for: the settings by domain; None: as before.
            helo: our name in EHLO; None: as before.
            source_pools: the pools of source addresses.
            reply_actions: the actions on replies.

        Returns:
            Lines that describe the changes, printable.
        """
        self._destination_for = destination_for or self._destination_for
        before, self.terms = self.terms, TermsBook(self._destination_for, loaded.credentials)
        self.sources.use(source_pools)
        self.reply_actions = ReplyActions(reply_actions)
        self.connections.renew(helo)
        if self.connections.tokens is not None:
            self.connections.tokens.use(self.terms.token_accounts)
        return [*self.terms.changes(before), *self.connections.contexts.use(loaded.contexts)]

    def access(self, next_hop: NextHop) -> object:
        """Return all that decides whether a next hop has a session for us; to be compared."""
        contexts = self.connections.contexts
        host_terms = self.terms.host_terms(next_hop, next_hop.destination or next_hop.domain)
        return tuple((terms, contexts.contents(terms.tls)) for terms in host_terms)

    # Deliveries.

    def deliver(self, next_hop: NextHop, message: Message) -> Deferred[Sequence[Outcome]]:
        """Try to deliver ``message`` to all recipients of its envelope.

        There is one transaction per group of recipients with the same terms, one after the other.

        Returns:
            An outcome for each recipient, in the order of the envelope. It fails with `Regrouped`
            alone: any error defers the recipients.
        """
        try:
            groups = self.terms.groups(next_hop, message)
        except Exception:
            self.log.failure("Cannot deliver {id}", id=str(message.id))
            reply = Reply.of(451, "3.0", "internal error, see the log")
            return succeed(
                [Outcome(recipient.number, reply) for recipient in message.envelope.recipients]
            )
        if len(groups) == 1 and not self.reply_actions and not _pools(groups[0].host_terms):
            attempt = self._attempts.begin(self.locate, next_hop, message, groups[0].host_terms)
            return attempt.result
        return Deferred.fromCoroutine(self._deliver_groups(next_hop, message, groups))

    async def _deliver_groups(
        self, next_hop: NextHop, message: Message, groups: Iterable[RecipientGroup]
    ) -> Sequence[Outcome]:
        outcomes: dict[int, Outcome] = {}
        for group in groups:
            part = message.for_recipients(group.recipients)
            for outcome in await self._deliver_group(next_hop, part, group.host_terms):
                outcomes[outcome.number] = outcome
        return [outcomes[recipient.number] for recipient in message.envelope.recipients]

    async def _deliver_group(
        self, next_hop: NextHop, message: Message, host_terms: HostTerms
    ) -> Sequence[Outcome]:
        """Deliver to recipients with the same terms; from other addresses, where an action says so.

        Returns:
            An outcome for each recipient, in any order.
        """
        outcomes: dict[int, Outcome] = {}
        refused: list[str] = []
        while True:
            try:
                tried = await self._deliver_from_pool(next_hop, message, host_terms, refused)
            except Regrouped:
                if not outcomes:
                    raise
                tried = None
            if tried is None:
                return list(outcomes.values())  # no further address is left
            again = []
            for each in await self._acted(message, tried):
                outcome, action = each.outcome, each.action
                outcomes[outcome.number] = outcome
                if action is None:
                    continue
                self._note_action(message, outcome, action)
                if action.action == "other_source" and outcome.source is not None:
                    again.append(outcome.number)
                    if outcome.source not in refused:
                        refused.append(outcome.source)
                    if action.duration is not None:
                        self.sources.avoid(outcome.source, next_hop, action.duration)
            if not again or len(refused) >= _MOST_SOURCES or self.connections.stopped is not None:
                return list(outcomes.values())
            recipients = [each for each in message.envelope.recipients if each.number in again]
            message = message.for_recipients(recipients)

    async def _acted(self, message: Message, outcomes: Sequence[Outcome]) -> Sequence[Acted]:
        if not self.reply_actions:
            return [Acted(each) for each in outcomes]
        try:
            return await self._pace.work(self.reply_actions.apply(message, outcomes))
        except Exception:  # also at a stop
            return [Acted(each) for each in outcomes]

    def _note_action(self, message: Message, outcome: Outcome, action: ReplyAction) -> None:
        self.connections.traffic.reply_actions[action.action] += 1
        self.log.info(
            "{id}: [[reply_action]] {rule} applies: {reply}",
            id=str(message.id),
            rule=str(action),
            reply=str(outcome.reply),
        )

    async def _deliver_from_pool(
        self,
        next_hop: NextHop,
        message: Message,
        host_terms: HostTerms,
        refused: Sequence[str],
    ) -> Sequence[Outcome] | None:
        """Try once, from the addresses that the pools of the terms have now.

        Args:
            next_hop: where the message goes.
            message: with recipients that have the same terms.
            host_terms: the terms.
            refused: source addresses that are not used.

        Returns:
            The outcomes; None: no address is left besides those of ``refused``.
        """
        choices: dict[str, Choice] = {}
        try:
            for name in _pools(host_terms):
                choices[name] = await self.sources.choose(name, next_hop, refused)
        except (OSError, sqlite3.Error):
            self.log.failure("the messages of source addresses cannot be counted")
            self._give_back(choices, None)
            return self._waiting(message, "the messages of its addresses cannot be counted", None)
        if choices and not any(each.addresses for each in choices.values()):
            if refused:
                return None
            seconds, day = self.sources.tomorrow()
            names = ", ".join(choices)
            text = f"no address of {names} may send more today; it waits until {day}"
            return self._waiting(message, text, seconds)
        chosen = tuple(_chosen(terms, choices) for terms in host_terms)
        attempt = self._attempts.begin(self.locate, next_hop, message, chosen)
        try:
            return await attempt.result
        finally:
            self._give_back(choices, attempt.source if attempt.answered else None)

    def _give_back(self, choices: Mapping[str, Choice], used: str | None) -> None:
        for each in choices.values():
            self.sources.give_back(each, used)

    def _waiting(self, message: Message, why: str, seconds: float | None) -> Sequence[Outcome]:
        reply = Reply.of(451, "4.5", f"Source pool: {why}")
        return [
            Outcome(each.number, reply, retry_after=seconds) for each in message.envelope.recipients
        ]

    # The end.

    def close(self) -> Deferred[None]:
        """Send QUIT on idle connections, and on the others after their transaction.

        Returns:
            Fires when no connection is left.
        """
        return self.connections.close()

    def abort_unsent(self) -> None:
        """End every transaction whose content is not yet sent completely; begin no new one.

        Those recipients are deferred with a reply of our own. A transaction that waits for the
        reply to its final dot goes on waiting: ending it would deliver the message twice.
        """
        self._attempts.abort_unsent()

    def abort(self) -> None:
        """Drop every connection at once; the recipients of open transactions are deferred."""
        self._attempts.abort()
        self._pace.stop()


def _pools(host_terms: HostTerms) -> list[str]:
    """Return the names of the source pools of terms, each once."""
    names = [each.source_pool for each in host_terms if each.source_pool]
    return list(dict.fromkeys(names)) if names else names


def _chosen(terms: Terms, choices: Mapping[str, Choice]) -> Terms:
    if not terms.source_pool:
        return terms
    choice = choices[terms.source_pool]
    addresses = tuple(each.address for each in choice.addresses)
    return evolve(terms, source_addresses=addresses, helos=choice.helos)


@frozen
class _Everywhere:
    """A `DestinationFor` with the same settings for every domain."""

    destination: Destination

    def __call__(self, domain: str, hosts: tuple[Host, ...], exchanger: str = "") -> Destination:
        return self.destination
