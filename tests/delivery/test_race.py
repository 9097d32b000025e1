"""Connecting to the addresses of one host concurrently (RFC 8305 §5), and their order."""

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.delivery.hops import HopTestCase
from tests.delivery.test_relay import HOP, OPENING, PARTING, TAKEN, message
from tests.tidy import TidyTestCase
from twisted_mta.delivery.address_order import in_order, kernel_source
from twisted_mta.delivery.race import Race, Winner
from twisted_mta.mail.next_hop import Target

V6 = Target("mx.example", "2001:db8::1", 25)
V4 = Target("mx.example", "192.0.2.1", 25)
BACKUP = Target("backup.example", "192.0.2.2", 25)


class RaceTests(TidyTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.attempts: dict[str, Deferred[str]] = {}
        self.cancelled: list[str] = []
        self.failed: list[str] = []

    def attempt(self, target: str) -> "Deferred[str]":
        def cancelled(_: object) -> None:
            self.cancelled.append(target)

        self.attempts[target] = Deferred(cancelled)
        return self.attempts[target]

    def race(self, *targets: str) -> "Deferred[Winner[str, str] | None]":
        return Race(
            targets,
            self.attempt,
            clock=self.clock,
            head_start=1.0,
            failed=lambda target, _: self.failed.append(target),
        ).start()

    def refuse(self, target: str) -> None:
        self.attempts[target].errback(Failure(ConnectionRefusedError()))

    def test_the_first_target_alone_wins_at_once(self) -> None:
        result = self.race("a", "b")
        self.clock.advance(0.9)
        self.assertEqual(list(self.attempts), ["a"])
        self.attempts["a"].callback("A")
        self.assertEqual(self.successResultOf(result), Winner("A", ("b",)))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_next_target_is_tried_after_a_head_start(self) -> None:
        """The first to be established wins, and the other is canceled."""
        for winner, loser in (("b", "a"), ("a", "b")):
            self.setUp()
            result = self.race("a", "b", "c")
            self.clock.advance(1)
            self.assertEqual(list(self.attempts), ["a", "b"])
            self.attempts[winner].callback("won")
            self.assertEqual(self.successResultOf(result), Winner("won", (loser, "c")))
            self.assertEqual((self.cancelled, self.failed), ([loser], []))
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_next_target_is_tried_at_once_after_a_failure(self) -> None:
        result = self.race("a", "b", "c")
        self.refuse("a")
        self.assertEqual(list(self.attempts), ["a", "b"])
        self.clock.advance(1)
        self.assertEqual(list(self.attempts), ["a", "b", "c"])
        self.attempts["c"].callback("C")
        self.assertEqual(self.successResultOf(result), Winner("C", ("b",)))
        self.assertEqual(self.failed, ["a"])

    def test_a_race_in_which_all_fail_has_no_winner(self) -> None:
        result = self.race("a", "b")
        self.clock.advance(1)
        self.refuse("b")
        self.assertNoResult(result)
        self.refuse("a")
        self.assertIsNone(self.successResultOf(result))
        self.assertEqual(self.failed, ["b", "a"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_canceled_race_cancels_its_connections(self) -> None:
        result = self.race("a", "b", "c")
        self.clock.advance(1)
        result.addErrback(lambda _: None)
        result.cancel()
        self.assertEqual(self.cancelled, ["a", "b"])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class OrderTests(TidyTestCase):
    def test_the_two_families_alternate(self) -> None:
        """IPv6 first, by precedence (RFC 6724 §2.1); equals keep their order."""
        self.assertEqual(
            in_order(["192.0.2.2", "192.0.2.1", "2001:db8::2", "2001:db8::1", "192.0.2.3"]),
            ["2001:db8::2", "192.0.2.2", "2001:db8::1", "192.0.2.1", "192.0.2.3"],
        )

    def test_loopback_addresses_keep_their_order(self) -> None:
        self.assertEqual(in_order(["127.0.0.1", "::1"]), ["127.0.0.1", "::1"])

    def test_the_rules_of_rfc_6724_decide(self) -> None:
        """RFC 6724 §6, by the source address of a connection."""
        for sources, expected in (
            # Rule 1: the address is unreachable.
            ({"192.0.2.1": "198.51.100.1"}, ["192.0.2.1", "2001:db8::1"]),
            # Rule 2: from a link-local address.
            (
                {"2001:db8::1": "fe80::1", "192.0.2.1": "198.51.100.1"},
                ["192.0.2.1", "2001:db8::1"],
            ),
            # Rule 5: from a unique local address (fc00::/7) to a global one.
            (
                {"2001:db8::1": "fd00::1", "192.0.2.1": "198.51.100.1"},
                ["192.0.2.1", "2001:db8::1"],
            ),
            # Rule 6: precedence.
            (
                {"2001:db8::1": "2001:db8::9", "192.0.2.1": "198.51.100.1"},
                ["2001:db8::1", "192.0.2.1"],
            ),
        ):
            for addresses in (["2001:db8::1", "192.0.2.1"], ["192.0.2.1", "2001:db8::1"]):
                self.assertEqual(in_order(addresses, sources.get), expected, sources)

    def test_the_kernel_selects_the_source_address(self) -> None:
        self.assertEqual(kernel_source("127.0.0.1"), "127.0.0.1")
        self.assertIsNone(kernel_source("no address"))


class ConnectingTests(HopTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.use()
        self.targets = [V6, V4, BACKUP]

    def test_a_family_without_connectivity_costs_one_second(self) -> None:
        """The other family is tried after one second instead of 30."""
        self.network.swallow(V6.address, 25)
        self.server(*OPENING, *TAKEN, *PARTING, target=V4)
        delivering = self.relay.deliver(HOP, message())
        self.network.advance(0.9)
        self.assertNoResult(delivering)
        self.network.advance(0.1)
        outcome = self.outcome(delivering)
        self.assertTrue(outcome.delivered)
        self.assertEqual(outcome.remote, str(V4))
        self.assertEqual(outcome.setup, 1.0)
        self.network.advance(5)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_the_next_host_is_tried_once_all_addresses_of_the_first_failed(self) -> None:
        """Preference orders hosts; only the addresses of one host are tried concurrently."""
        self.network.swallow(V6.address, 25)
        self.network.swallow(V4.address, 25)
        self.server(*OPENING, *TAKEN, target=BACKUP)
        delivering = self.relay.deliver(HOP, message())
        self.network.advance(1)
        self.network.advance(29.5)
        self.assertNoResult(delivering)
        self.network.advance(0.5)
        self.assertEqual(self.outcome(delivering).remote, str(BACKUP))

    def test_the_loser_is_tried_where_the_winner_refuses_the_session(self) -> None:
        self.server(("send", b"450 4.3.2 Busy\r\n"), *PARTING, target=V6)
        self.server(*OPENING, *TAKEN, target=V4)
        self.assertEqual(self.send_one().remote, str(V4))

    def test_a_target_that_failed_is_passed_over_for_a_while(self) -> None:
        """The next message does not wait for it, and later ones try it again."""
        self.targets = [V4, BACKUP]
        self.network.swallow(V4.address, 25)
        self.server(*OPENING, *TAKEN, *PARTING, target=BACKUP)
        first = self.relay.deliver(HOP, message())
        self.network.advance(30)
        self.assertTrue(self.outcome(first).delivered)
        self.network.advance(4.5)
        self.relay.abort()
        self.network.settle()
        self.server(*OPENING, *TAKEN, *PARTING, target=BACKUP)
        self.assertEqual(self.send_one().setup, 0.0)
        self.network.advance(6)
        self.server(*OPENING, *TAKEN, *PARTING, target=BACKUP)
        self.relay.deliver(HOP, message())
        self.network.advance(29)
        self.assertEqual(len(self.network.connections), 2)
        self.network.advance(1)
        self.assertEqual(len(self.network.connections), 3)

    def test_the_only_target_is_never_passed_over(self) -> None:
        self.targets = [V4]
        self.assertTrue(self.send_one().unreachable)
        self.server(*OPENING, *TAKEN, target=V4)
        self.assertTrue(self.send_one().delivered)
