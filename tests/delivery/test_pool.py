"""Which connection serves which message."""

from attrs import define
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.delivery.pool import Pool
from twisted_mta.envelope import NextHop, Target
from twisted_mta.smtp.client_step import TLSLevel

HOP = NextHop("smtp", domain="example.net")
OTHER = NextHop("smtp", domain="example.org")
TARGET = Target("mx.example", "192.0.2.1", 25)


@define(eq=False)
class FakeConnection:
    target: Target = TARGET
    level: TLSLevel = "may"
    messages: int = 1


class PoolTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pool: Pool[FakeConnection] = Pool(messages=3, connections=2)

    def test_what_was_used_last_is_used_next(self) -> None:
        """So the others grow old, and close."""
        first, second = FakeConnection(), FakeConnection()
        for connection in (first, second):
            self.assertIsNone(self.pool.keep(connection, HOP, "may"))
        self.assertEqual(self.pool.idle, (first, second))
        self.assertIs(self.pool.take(HOP, "may"), second)
        self.assertIs(self.pool.take_to(TARGET, "may"), first)
        self.assertIsNone(self.pool.take(HOP, "may"))
        self.assertIsNone(self.pool.take_to(TARGET, "may"))
        self.assertEqual(self.pool.idle, ())

    def test_by_next_hop_and_target_and_level(self) -> None:
        connection = FakeConnection()
        self.pool.keep(connection, HOP, "may")
        self.assertIsNone(self.pool.take(OTHER, "may"))
        self.assertIsNone(self.pool.take(HOP, "encrypt"))
        self.assertIsNone(self.pool.take_to(TARGET, "encrypt"))
        self.assertIsNone(self.pool.take_to(Target("mx.example", "192.0.2.2", 25), "may"))
        self.assertIs(self.pool.take_to(TARGET, "may"), connection)

    def test_a_connection_in_clear_is_for_its_own_next_hop_only(self) -> None:
        """After a failed handshake: others at the target have yet to try theirs."""
        connection = FakeConnection(level="none")
        self.pool.keep(connection, HOP, "may")
        self.assertIsNone(self.pool.take_to(TARGET, "may"))
        self.assertIs(self.pool.take(HOP, "may"), connection)

    def test_surplus(self) -> None:
        worn, first, second, third = (FakeConnection(messages=n) for n in (3, 1, 1, 1))
        self.assertIs(self.pool.keep(worn, HOP, "may"), worn)
        self.assertIsNone(self.pool.keep(first, HOP, "may"))
        self.assertIsNone(self.pool.keep(second, HOP, "may"))
        self.assertIs(self.pool.keep(third, HOP, "may"), first)
        self.assertEqual(self.pool.idle, (second, third))

    def test_discard(self) -> None:
        connection = FakeConnection()
        self.pool.keep(connection, HOP, "may")
        self.pool.discard(connection)
        self.pool.discard(connection)
        self.assertIsNone(self.pool.take(HOP, "may"))
