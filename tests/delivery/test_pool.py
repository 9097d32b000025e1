"""The pool of idle connections."""

from attrs import define

from tests.tidy import TidyTestCase
from twisted_mta.delivery.pool import Pool
from twisted_mta.delivery.terms import Terms
from twisted_mta.mail.next_hop import NextHop, Target
from twisted_mta.mail.tls_policy import TLSPolicy
from twisted_mta.smtp.sasl.client import Credentials
from twisted_mta.tls.client import ClientTLS

HOP = NextHop("smtp", domain="example.net")
OTHER = NextHop("smtp", domain="example.org")
TARGET = Target("mx.example", "192.0.2.1", 25)
MAY = Terms(messages=3)
ENCRYPT = Terms(level="encrypt", messages=3)
CLEAR = Terms(level="none", messages=3)
POLICY = TLSPolicy(level="may")


@define(eq=False)
class FakeConnection:
    target: Target = TARGET
    terms: Terms = MAY
    policy: TLSPolicy = POLICY
    messages: int = 1


class PoolTests(TidyTestCase):
    def setUp(self) -> None:
        self.pool: Pool[FakeConnection] = Pool(most=2)

    def test_the_last_used_connection_is_taken_first(self) -> None:
        """Surplus connections stay idle, and time out."""
        first, second = FakeConnection(), FakeConnection()
        for connection in (first, second):
            self.assertIsNone(self.pool.keep(connection, HOP, (MAY,)))
        self.assertEqual(self.pool.idle, (first, second))
        self.assertIs(self.pool.take(HOP, (MAY,)), second)
        self.assertIs(self.pool.take_to(TARGET, MAY, POLICY), first)
        self.assertIsNone(self.pool.take(HOP, (MAY,)))
        self.assertIsNone(self.pool.take_to(TARGET, MAY, POLICY))
        self.assertEqual(self.pool.idle, ())

    def test_a_connection_to_one_of_equal_exchangers_is_found_by_its_target_alone(self) -> None:
        target = Target("mx.example", "192.0.2.1", 25, equal=True)
        connection = FakeConnection(target)
        self.assertIsNone(self.pool.keep(connection, HOP, (MAY,)))
        self.assertIsNone(self.pool.serving(HOP, (MAY,)))
        self.assertIsNone(self.pool.take(HOP, (MAY,)))
        self.assertIs(self.pool.take_to(TARGET, MAY, POLICY), connection)
        self.assertEqual(self.pool.idle, ())

    def test_connections_are_found_by_next_hop_target_and_level(self) -> None:
        connection = FakeConnection()
        self.pool.keep(connection, HOP, (MAY,))
        self.assertIsNone(self.pool.take(OTHER, (MAY,)))
        self.assertIsNone(self.pool.take(HOP, (ENCRYPT,)))
        self.assertIsNone(self.pool.take_to(TARGET, ENCRYPT, POLICY))
        for target in (
            Target("mx.example", "192.0.2.2", 25),
            Target("mx.example", "192.0.2.1", 587),
            Target("other.example", "192.0.2.1", 25),
        ):
            self.assertIsNone(self.pool.take_to(target, MAY, POLICY))
            self.assertFalse(self.pool.has(target, MAY, POLICY))
        self.assertTrue(self.pool.has(TARGET, MAY, POLICY))
        self.assertIs(self.pool.take_to(TARGET, MAY, POLICY), connection)

    def test_a_connection_never_serves_other_terms(self) -> None:
        """Any difference counts: credentials, authorities, client certificate, source address."""
        connection = FakeConnection()
        self.pool.keep(connection, HOP, (MAY,))
        for other in (
            Terms(messages=3, credentials=Credentials("us", "secret")),
            Terms(messages=3, tls=ClientTLS(authorities="/ca.pem")),
            Terms(messages=3, tls=ClientTLS(certificate="/us.pem")),
            Terms(messages=3, source_addresses=("192.0.2.9",)),
            Terms(messages=3, implicit_tls=True),
            Terms(messages=3, dialect="lmtp"),
            Terms(messages=3, require_memory=True),
        ):
            self.assertIsNone(self.pool.take(HOP, (other,)))
            self.assertIsNone(self.pool.take_to(TARGET, other, POLICY))
        self.assertIs(self.pool.take_to(TARGET, Terms(messages=3), POLICY), connection)

    def test_a_connection_never_serves_another_policy_of_the_same_target(self) -> None:
        """The host may have published TLSA records, or a policy of MTA-STS, since it was made."""
        first, second = FakeConnection(), FakeConnection(policy=TLSPolicy(level="dane"))
        for connection in (first, second):
            self.pool.keep(connection, HOP, (MAY,))
        for other in (
            TLSPolicy(level="verify"),
            TLSPolicy(level="may", server_name="example.net"),
            TLSPolicy(level="may", remembered=True),
            TLSPolicy(level="may", problem="its policy cannot be had"),
            TLSPolicy(level="dane", names=("mx.example",)),
        ):
            self.assertIsNone(self.pool.take_to(TARGET, MAY, other))
        # What is known of its source is no part of a policy.
        same = TLSPolicy(level="may", source="elsewhere")
        self.assertIs(self.pool.take_to(TARGET, MAY, same), first)
        self.assertIs(self.pool.take_to(TARGET, MAY, TLSPolicy(level="dane")), second)

    def test_a_provider_with_many_names_for_an_address_costs_no_search(self) -> None:
        self.pool.most = 200
        compared = []

        class Counted(FakeConnection):
            @property
            def terms(self) -> Terms:  # type: ignore[override]
                compared.append(self)
                return MAY

            @terms.setter
            def terms(self, terms: Terms) -> None:
                pass

        for number in range(200):
            target = Target(f"mx{number}.example", "192.0.2.1", 25)
            self.pool.keep(Counted(target), HOP, (MAY,))
        compared.clear()
        target = Target("mx1.example", "192.0.2.1", 25)
        self.assertIsNotNone(self.pool.take_to(target, MAY, POLICY))
        self.assertEqual(len(compared), 1)

    def test_a_connection_in_clear_is_for_its_own_next_hop_only(self) -> None:
        """It follows a failed handshake, which other next hops at the target have not tried."""
        connection = FakeConnection(terms=CLEAR)
        self.pool.keep(connection, HOP, (MAY,))
        self.assertIsNone(self.pool.take_to(TARGET, MAY, POLICY))
        self.assertIs(self.pool.take(HOP, (MAY,)), connection)

    def test_the_longest_idle_connection_of_a_full_pool_is_surplus(self) -> None:
        worn, first, second, third = (FakeConnection(messages=n) for n in (3, 1, 1, 1))
        self.assertIs(self.pool.keep(worn, HOP, (MAY,)), worn)
        self.assertIsNone(self.pool.keep(first, HOP, (MAY,)))
        self.assertIsNone(self.pool.keep(second, HOP, (MAY,)))
        self.assertIs(self.pool.keep(third, HOP, (MAY,)), first)
        self.assertEqual(self.pool.idle, (second, third))

    def test_a_discarded_connection_is_found_no_more(self) -> None:
        connection = FakeConnection()
        self.pool.keep(connection, HOP, (MAY,))
        self.pool.discard(connection)
        self.pool.discard(connection)
        self.assertIsNone(self.pool.take(HOP, (MAY,)))
