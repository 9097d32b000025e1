"""The attempts under way: begun, continued beyond the limits of a server, and aborted."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve
from twisted.internet.defer import Deferred

from ..interfaces import Locate, Regrouped
from ..mail.message import Message
from ..mail.next_hop import NextHop
from ..mail.outcome import Outcome
from ..mail.reply import Reply
from .attempt import Attempt
from .connections import Connections
from .terms import HostTerms
from .wishes import wished


class Attempts:
    """Begins attempts, and ends them at a stop.

    Args:
        connections: open and keep the connections of all attempts.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._open: dict[Attempt, None] = {}

    def begin(
        self, locate: Locate, next_hop: NextHop, message: Message, host_terms: HostTerms
    ) -> Attempt:
        """Begin an attempt for all recipients of ``message``.

        Args:
            locate: looks up the targets of the next hop.
            next_hop: where the message goes.
            message: with the recipients of this attempt only.
            host_terms: the terms with the hosts of ``next_hop``.

        Returns:
            The attempt; ``result`` has an outcome for each recipient, in the order of the envelope.
            It fails with `Regrouped` alone.
        """
        host_terms = wished(next_hop, message, host_terms)
        attempt = Attempt(self._connections, locate, next_hop, message, host_terms, self._ended)
        self._start(attempt)
        return attempt

    def _start(self, attempt: Attempt) -> None:
        self._open[attempt] = None
        attempt.start()

    def _ended(self, attempt: Attempt, outcomes: Sequence[Outcome] | None) -> None:
        if outcomes is None or len(outcomes) == len(attempt.message.envelope.recipients):
            self._part_ended(attempt, outcomes)
        else:
            del self._open[attempt]
            all_outcomes = Deferred.fromCoroutine(self._deliver_rest(outcomes, attempt))
            all_outcomes.chainDeferred(attempt.result)

    def _part_ended(self, attempt: Attempt, outcomes: Sequence[Outcome] | None) -> None:
        """Fire the result of an attempt with its own outcomes."""
        del self._open[attempt]
        if outcomes is None:
            attempt.result.errback(Regrouped())
        else:
            attempt.result.callback(outcomes)

    async def _deliver_rest(
        self, outcomes: Sequence[Outcome], attempt: Attempt
    ) -> Sequence[Outcome]:
        """Deliver to the recipients beyond the server's limit for a transaction (RFC 9422)."""
        message = attempt.message
        recipients = message.envelope.recipients
        by_number = {outcome.number: outcome for outcome in outcomes}
        # A loop, and no further `begin`: hundreds of transactions may end at once, by the limits
        # that a server has announced.
        while rest := tuple(each for each in recipients if each.number not in by_number):
            last = outcomes[-1]
            if last.reply.code == 421 or last.uncertain:
                # The server is closing or silent: no further connections for the rest.
                outcomes = [evolve(last, number=each.number, uncertain=False) for each in rest]
            else:
                part = Attempt(
                    attempt.connections,
                    attempt.locate,
                    attempt.next_hop,
                    message.for_recipients(rest),
                    attempt.host_terms,
                    self._part_ended,
                )
                self._start(part)
                try:
                    outcomes = await part.result
                except Regrouped:
                    reply = Reply.of(451, "4.4", "Its mail exchangers have changed meanwhile")
                    outcomes = [Outcome(each.number, reply) for each in rest]
            by_number.update((outcome.number, outcome) for outcome in outcomes)
        return [by_number[each.number] for each in recipients]

    def abort_unsent(self) -> None:
        """End every transaction whose content is not yet sent completely; begin no new one.

        Those recipients are deferred with a reply of our own. A transaction that waits for the
        reply to its final dot goes on waiting: ending it would deliver the message twice.
        """
        self._connections.stopped = Reply.of(451, "3.2", "we are closing")
        for attempt in tuple(self._open):
            attempt.abort_unsent()

    def abort(self) -> None:
        """Drop every connection at once; the recipients of open transactions are deferred."""
        before = self._connections.stopped
        self.abort_unsent()
        self._connections.abort()
        self._connections.stopped = before
