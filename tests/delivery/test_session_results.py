"""What a session with an exchanger says for reports on TLS (RFC 8460 §4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import evolve

from tests.delivery.hops import HopTestCase
from tests.delivery.test_relay import FIRST, HOP, OPENING, PARTING, SECOND, TAKEN, message
from tests.server.authority import Authority, self_signed
from tests.tls.test_client import HELLO, SECURED, TLS_OPENING
from tests.tls.test_verification import TOO_WEAK, shown
from twisted_mta.delivery.relay import Relay
from twisted_mta.mail.envelope import TLS_OPTIONAL
from twisted_mta.mail.message import Message
from twisted_mta.mail.next_hop import NextHop
from twisted_mta.mail.tls_policy import TLSPolicy
from twisted_mta.mail.tls_result import TLSResult
from twisted_mta.mail.tlsa import TLSA
from twisted_mta.testing.peer import ScriptStep
from twisted_mta.tls.small_hello import POSSIBLE

MX = NextHop("smtp", domain="there.example")
WITHOUT_TLS: list[ScriptStep] = [*OPENING, *TAKEN, *PARTING]
REFUSED: list[ScriptStep] = [*TLS_OPENING, ("send", b"454 4.7.0 Not now\r\n")]


class _Policies:
    """The same policy for all hosts."""

    def __init__(self, policy: TLSPolicy) -> None:
        self._policy = policy

    def policy(self, *of: object) -> TLSPolicy:
        return self._policy


class SessionResultsTestCase(HopTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.results: list[TLSResult] = []
        self.use()

    def use(self, *destinations: Any, **settings: Any) -> Relay:
        relay = super().use(*destinations, **settings)
        relay.connections.note_tls_result = self.results.append
        return relay

    def under(self, policy: TLSPolicy) -> None:
        self.relay.connections.policies = _Policies(policy)

    def send_to(self, next_hop: NextHop = MX, mail: Message | None = None) -> Sequence[TLSResult]:
        """Deliver a message; return the results since the last one."""
        self.results.clear()
        delivering = self.relay.deliver(next_hop, mail or message())
        self.network.settle()
        self.network.pump([400.0] if not delivering.called else [])
        self.successResultOf(delivering)
        return list(self.results)

    def only(self, results: Sequence[TLSResult]) -> tuple[str, str]:
        (result,) = results
        return result.result or "success", result.information


class Sessions(SessionResultsTestCase):
    def test_tls_that_was_negotiated_is_a_success(self) -> None:
        self.server_with(shown(self_signed("x")), *TLS_OPENING, *SECURED, *TAKEN, *TAKEN, *PARTING)
        (result,) = self.send_to()
        self.assertEqual(
            result,
            TLSResult(
                recipient_domain="there.example",
                policy_domain="there.example",
                policy_type="no-policy-found",
                receiving_mx="mx1.example",
                receiving_ip="192.0.2.1",
                sending_ip=result.sending_ip,
            ),
        )
        self.assertIsNotNone(result.sending_ip)
        # The session goes on.
        self.assertEqual(self.send_to(), [])

    def test_a_server_that_does_not_offer_tls(self) -> None:
        self.server(*WITHOUT_TLS)
        self.assertEqual(self.only(self.send_to()), ("starttls-not-supported", ""))

    def test_a_server_that_refuses_tls(self) -> None:
        self.server(*REFUSED, *TAKEN[:1], *TAKEN[1:], *PARTING)
        self.assertEqual(self.only(self.send_to())[0], "starttls-not-supported")

    def test_a_server_without_the_tls_that_is_required(self) -> None:
        self.use(tls="encrypt")
        self.server(*OPENING, *PARTING)
        type, reason = self.only(self.send_to())
        self.assertEqual(type, "starttls-not-supported")
        self.assertIn("STARTTLS is not offered", reason)

    def test_a_refusal_of_the_tls_that_is_required(self) -> None:
        self.use(tls="encrypt")
        self.server(*REFUSED, *PARTING)
        type, reason = self.only(self.send_to())
        self.assertEqual((type, reason), ("starttls-not-supported", "Not now"))

    def test_a_handshake_that_fails_counts_once_and_the_mail_in_clear_not_at_all(self) -> None:
        for _ in range(1 + POSSIBLE):  # a small ClientHello is tried too
            self.server(*TLS_OPENING, ("send", b"220 Go\r\n"), HELLO, ("close",))
        self.server(*WITHOUT_TLS)
        type, reason = self.only(self.send_to())
        self.assertEqual(type, "validation-failure")
        self.assertIn("mx1.example[192.0.2.1]:25", reason)

    def test_each_host_that_was_tried_counts(self) -> None:
        self.targets = [FIRST, SECOND]
        self.use(tls="encrypt")
        self.server(*OPENING, *PARTING)
        self.server_with(
            shown(self_signed("x")), *TLS_OPENING, *SECURED, *TAKEN, *PARTING, target=SECOND
        )
        self.assertEqual(
            [(each.receiving_mx, each.result) for each in self.send_to()],
            [("mx1.example", "starttls-not-supported"), ("mx2.example", None)],
        )

    def test_what_says_nothing_of_tls_does_not_count(self) -> None:
        self.assertEqual(self.send_to(), [])  # nothing listens
        self.relay.connections.unreachable.clear()
        self.server(("send", b"554 Go away\r\n"), *PARTING)
        self.assertEqual(self.send_to(), [])
        self.server(("close",))
        self.assertEqual(self.send_to(), [])

    def test_without_tls_of_ours_nothing_counts(self) -> None:
        self.use(tls="none")
        self.server(*WITHOUT_TLS)
        self.assertEqual(self.send_to(), [])

    def test_mail_with_tls_required_no_does_not_count(self) -> None:
        """Neither does its session for the mail that follows."""
        self.server(*WITHOUT_TLS)
        mail = message()
        envelope = evolve(mail.envelope, parameters={TLS_OPTIONAL: "NO"})
        self.assertEqual(self.send_to(mail=evolve(mail, envelope=envelope)), [])

    def test_hosts_of_routes_do_not_count(self) -> None:
        self.server(*WITHOUT_TLS)
        self.assertEqual(self.send_to(HOP), [])


class Verification(SessionResultsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority()
        self.use(tls="verify", authorities=self.file("ca.pem", self.authority.issued.pem))

    def test_the_type_tells_what_is_wrong_with_a_certificate(self) -> None:
        issue = self.authority.issue
        for issued, expected in (
            (
                issue("x", names=["mx1.example"], days=(-9, -1), for_clients=False),
                "certificate-expired",
            ),
            (
                issue("x", names=["mx1.example"], days=(1, 9), for_clients=False),
                "certificate-expired",
            ),
            (issue("x", names=["other.example"], for_clients=False), "certificate-host-mismatch"),
            (issue("mx1.example", for_clients=False), "certificate-host-mismatch"),
            (self_signed("x", names=["mx1.example"]), "certificate-not-trusted"),
            (
                Authority("Other").issue("x", names=["mx1.example"], for_clients=False),
                "certificate-not-trusted",
            ),
            (issue("x", names=["mx1.example"], for_clients=True), "validation-failure"),
        ):
            self.server_with(shown(issued), *TOO_WEAK)
            type, reason = self.only(self.send_to())
            self.assertEqual(type, expected, reason)
            self.assertIn("its certificate", reason)

    def test_a_server_that_is_verified_is_a_success(self) -> None:
        issued = self.authority.issue("x", names=["mx1.example"], for_clients=False)
        self.server_with(shown(issued), *TLS_OPENING, *SECURED, *TAKEN, *PARTING)
        self.assertEqual(self.only(self.send_to())[0], "success")


class Policies(SessionResultsTestCase):
    DANE = TLSPolicy(
        level="encrypt",
        kind="tlsa",
        domain="mx.there.example",
        strings=("3 1 1 0123",),
    )

    def test_a_result_names_the_policy(self) -> None:
        self.under(self.DANE)
        self.server_with(shown(self_signed("x")), *TLS_OPENING, *SECURED, *TAKEN, *PARTING)
        (result,) = self.send_to()
        self.assertEqual(
            (result.policy_type, result.policy_domain, result.policy_strings, result.result),
            ("tlsa", "mx.there.example", ("3 1 1 0123",), None),
        )
        self.assertEqual(result.recipient_domain, "there.example")

    def test_a_server_that_gets_the_mail_though_dane_proves_little_is_a_success(self) -> None:
        """RFC 7672 §2.2.1: the MX records are not secure."""
        issued = self_signed("x")
        record = TLSA(3, 0, 0, issued.der)
        self.under(evolve(self.DANE, level="dane", tlsa=(record,), unproven_host=True))
        self.server_with(shown(issued), *TLS_OPENING, *SECURED, *TAKEN, *PARTING)
        self.assertEqual(self.only(self.send_to())[0], "success")

    def test_a_server_that_fits_no_tlsa_record(self) -> None:
        record = TLSA(3, 0, 0, self_signed("x").der)
        self.under(evolve(self.DANE, level="dane", tlsa=(record,)))
        self.server_with(shown(self_signed("x")), *TOO_WEAK)
        type, reason = self.only(self.send_to())
        self.assertEqual(type, "validation-failure")
        self.assertIn("fit none of its TLSA record", reason)

    def test_a_policy_that_allows_no_session_is_a_failure(self) -> None:
        self.under(
            evolve(self.DANE, problem="its TLSA records are bogus", trouble="dnssec-invalid")
        )
        (result,) = self.send_to()
        self.assertEqual(
            (result.policy_type, result.result, result.information, result.sending_ip),
            ("tlsa", "dnssec-invalid", "its TLSA records are bogus", None),
        )

    def test_a_policy_that_could_not_be_had_is_a_failure_beside_the_session(self) -> None:
        self.under(
            TLSPolicy(
                level="may",
                kind="sts",
                trouble="sts-policy-fetch-error",
                trouble_reason="no answer within 60 s",
            )
        )
        self.server_with(shown(self_signed("x")), *TLS_OPENING, *SECURED, *TAKEN, *PARTING)
        policy, session = self.send_to()
        self.assertEqual(
            (policy.policy_type, policy.result, policy.information),
            ("sts", "sts-policy-fetch-error", "no answer within 60 s"),
        )
        self.assertEqual((session.policy_type, session.result), ("no-policy-found", None))
