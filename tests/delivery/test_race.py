"""The addresses of one host, tried beside each other (RFC 8305 §5), and in which order."""

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.delivery.hops import HopTestCase
from tests.delivery.test_relay import HOP, OPENING, PARTING, TAKEN, message
from twisted_mta.delivery.address_order import in_order, kernel_source
from twisted_mta.delivery.race import Race, Winner
from twisted_mta.mail.next_hop import Target

V6 = Target("mx.example", "2001:db8::1", 25)
V4 = Target("mx.example", "192.0.2.1", 25)
BACKUP = Target("backup.example", "192.0.2.2", 25)


class RaceTests(SynchronousTestCase):
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

    def test_the_first_alone(self) -> None:
        result = self.race("a", "b")
        self.clock.advance(0.9)
        self.assertEqual(list(self.attempts), ["a"])
        self.attempts["a"].callback("A")
        self.assertEqual(self.successResultOf(result), Winner("A", ("b",)))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_next_beside_it_after_a_head_start(self) -> None:
        """Whichever is first wins, and the other is dropped without a word."""
        for winner, loser in (("b", "a"), ("a", "b")):
            self.setUp()
            result = self.race("a", "b", "c")
            self.clock.advance(1)
            self.assertEqual(list(self.attempts), ["a", "b"])
            self.attempts[winner].callback("won")
            self.assertEqual(self.successResultOf(result), Winner("won", (loser, "c")))
            self.assertEqual((self.cancelled, self.failed), ([loser], []))
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_next_at_once_after_a_failure(self) -> None:
        result = self.race("a", "b", "c")
        self.refuse("a")
        self.assertEqual(list(self.attempts), ["a", "b"])
        self.clock.advance(1)
        self.assertEqual(list(self.attempts), ["a", "b", "c"])
        self.attempts["c"].callback("C")
        self.assertEqual(self.successResultOf(result), Winner("C", ("b",)))
        self.assertEqual(self.failed, ["a"])

    def test_all_fail(self) -> None:
        result = self.race("a", "b")
        self.clock.advance(1)
        self.refuse("b")
        self.assertNoResult(result)
        self.refuse("a")
        self.assertIsNone(self.successResultOf(result))
        self.assertEqual(self.failed, ["b", "a"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_called_off(self) -> None:
        result = self.race("a", "b", "c")
        self.clock.advance(1)
        result.addErrback(lambda _: None)
        result.cancel()
        self.assertEqual(self.cancelled, ["a", "b"])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class OrderTests(SynchronousTestCase):
    def test_both_families_by_turns(self) -> None:
        """IPv6 first, by precedence (RFC 6724 §2.1); equals stay as they came."""
        self.assertEqual(
            in_order(["192.0.2.2", "192.0.2.1", "2001:db8::2", "2001:db8::1", "192.0.2.3"]),
            ["2001:db8::2", "192.0.2.2", "2001:db8::1", "192.0.2.1", "192.0.2.3"],
        )

    def test_this_machine_as_it_came(self) -> None:
        self.assertEqual(in_order(["127.0.0.1", "::1"]), ["127.0.0.1", "::1"])

    def test_rules(self) -> None:
        """RFC 6724 §6, by what we would connect from."""
        for sources, expected in (
            # Rule 1: there is no way to it.
            ({"192.0.2.1": "198.51.100.1"}, ["192.0.2.1", "2001:db8::1"]),
            # Rule 2: from an address of this link only.
            (
                {"2001:db8::1": "fe80::1", "192.0.2.1": "198.51.100.1"},
                ["192.0.2.1", "2001:db8::1"],
            ),
            # Rule 5: from a network of our own (fc00::/7) to the world.
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

    def test_the_kernel_knows_where_we_come_from(self) -> None:
        self.assertEqual(kernel_source("127.0.0.1"), "127.0.0.1")
        self.assertIsNone(kernel_source("no address"))


class ConnectingTests(HopTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.use()
        self.targets = [V6, V4, BACKUP]

    def test_a_family_that_leads_nowhere(self) -> None:
        """The other one is tried after a second and not after 30."""
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

    def test_the_other_host_only_when_all_of_the_first_have_failed(self) -> None:
        """Preference is what the domain says; only the addresses of one host are alike."""
        self.network.swallow(V6.address, 25)
        self.network.swallow(V4.address, 25)
        self.server(*OPENING, *TAKEN, target=BACKUP)
        delivering = self.relay.deliver(HOP, message())
        self.network.advance(1)
        self.network.advance(29.5)
        self.assertNoResult(delivering)
        self.network.advance(0.5)
        self.assertEqual(self.outcome(delivering).remote, str(BACKUP))

    def test_the_loser_is_tried_where_the_winner_turns_us_away(self) -> None:
        self.server(("send", b"450 4.3.2 Busy\r\n"), *PARTING, target=V6)
        self.server(*OPENING, *TAKEN, target=V4)
        self.assertEqual(self.send_one().remote, str(V4))

    def test_a_target_that_failed_is_passed_over_for_a_while(self) -> None:
        """The next message does not wait for it again, and later ones try."""
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
