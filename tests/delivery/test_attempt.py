"""The states of an attempt."""

from twisted.internet.defer import Deferred

from tests.delivery.test_relay import FIRST, HOP, OPENING, PARTING, TAKEN, RelayTestCase, message
from tests.tidy import TidyTestCase
from twisted_mta.delivery.attempt import TRANSITIONS, Attempt, Event, State
from twisted_mta.mail.next_hop import Target


class Table(TidyTestCase):
    def test_every_state_is_reached(self) -> None:
        reached = {State.NEW}
        for row in TRANSITIONS.values():
            reached |= set(row.values())
        self.assertEqual(reached, set(State))

    def test_only_the_end_is_final(self) -> None:
        self.assertEqual([state for state in State if not TRANSITIONS[state]], [State.ENDED])

    def test_every_other_state_may_end(self) -> None:
        for state in State:
            if state is not State.ENDED:
                self.assertIs(TRANSITIONS[state][Event.END], State.ENDED)


class Course(RelayTestCase):
    def attempt(self) -> Attempt:
        """Start an attempt."""
        (group,) = self.relay.terms.groups(HOP, message())
        attempt = Attempt(
            self.relay.connections,
            self.relay.locate,
            HOP,
            message(),
            group.host_terms,
            lambda attempt, outcomes: attempt.result.callback(outcomes or ()),
        )
        self.assertIs(attempt.state, State.NEW)
        attempt.start()
        return attempt

    def test_a_lookup_is_followed_by_connecting_and_a_transaction(self) -> None:
        located: Deferred[list[Target]] = Deferred()
        self.relay.locate = lambda next_hop: located  # type: ignore[assignment, return-value]
        self.server(*OPENING, *TAKEN, *PARTING)
        attempt = self.attempt()
        self.assertIs(attempt.state, State.LOOKUP)
        located.callback([FIRST])
        self.assertIs(attempt.state, State.CONNECTING)
        while attempt.state is State.CONNECTING:
            self.network.step()
        self.assertIs(attempt.state, State.TRANSACTION)
        self.network.settle()
        self.assertIs(attempt.state, State.ENDED)
        self.assertEqual(len(self.successResultOf(attempt.result)), 1)

    def test_an_idle_connection_needs_neither_lookup_nor_connecting(self) -> None:
        self.server(*OPENING, *TAKEN, *TAKEN, *PARTING)
        self.outcome(self.deliver())
        attempt = self.attempt()
        self.assertIs(attempt.state, State.TRANSACTION)
        self.network.settle()
        self.assertIs(attempt.state, State.ENDED)
