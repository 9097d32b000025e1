"""The checker of accounts, and the authenticator with checkers that fail, stall or cannot judge."""

from __future__ import annotations

import hmac
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.logs import logged_lines
from twisted_mta.auth.account_addresses import AccountAddresses
from twisted_mta.auth.accounts import SCRAM_ITERATIONS, Account, Accounts
from twisted_mta.auth.authenticator import AccountRealm, Authenticator, Login
from twisted_mta.auth.checker import AccountsChecker
from twisted_mta.auth.credentials import (
    CertificateCredentials,
    IScramProof,
    IVerifiedCertificate,
    ScramCredentials,
    TokenCredentials,
)
from twisted_mta.auth.throttle import Throttle, ThrottleSettings
from twisted_mta.auth.withheld import Withheld
from twisted_mta.mail.tls_facts import TLSFacts
from twisted_mta.smtp.peer import Peer
from twisted_mta.smtp.sasl.evidence import (
    Certificate,
    CramProof,
    Evidence,
    Foreign,
    Password,
    ScramLookup,
    ScramProof,
    ScramSalt,
    Token,
)
from twisted_mta.smtp.sasl.scram import scram_keys
from twisted_mta.smtp.server.replies import AUTH_UNAVAILABLE, NOT_AUTHENTICATED
from twisted_mta.smtp.server.session import Session
from twisted_mta.smtp.server.settings import SessionSettings
from twisted_mta.system.executors import inline_executor
from twisted_mta.system.limits import LocalLimits

PASSWORD = "open sesame 71"
MESSAGE = b"signed by both"
PIN, OTHER_PIN = "a1" * 32, "b2" * 32


def secret(octets: int) -> bytes:
    return bytes(range(octets))


def proof(
    name: str, password: str = PASSWORD, algorithm: str = "sha256", **more: Any
) -> ScramProof:
    keys = scram_keys(algorithm, password, secret(16), SCRAM_ITERATIONS)
    mask = hmac.digest(keys.stored, MESSAGE, algorithm)
    return ScramProof(
        name,
        algorithm,
        ScramSalt(secret(16), SCRAM_ITERATIONS),
        message=MESSAGE,
        proof=bytes(one ^ other for one, other in zip(keys.client, mask, strict=True)),
        **more,
    )


class CheckerTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        accounts = (
            Account.of("ann", PASSWORD, certificates=(PIN,), secret=secret),
            Account.of("printer", None, certificates=(OTHER_PIN,), secret=secret),
        )
        self.addresses = AccountAddresses(
            Accounts({each.name: each for each in accounts}), ("localhost",)
        )
        self.checker = AccountsChecker(self.addresses, inline_executor)

    def found(self, credentials: Any) -> str | None:
        """Return the account of credentials; None if they are refused."""
        deferred: Deferred[str] = Deferred()
        try:
            result = self.checker.requestAvatarId(credentials)
        except UnauthorizedLogin:
            return None
        if not isinstance(result, Deferred):
            return str(result)
        result.addErrback(lambda failure: failure.trap(UnauthorizedLogin) and None)
        result.chainDeferred(deferred)
        return self.successResultOf(deferred)


class OfAccounts(CheckerTestCase):
    def test_a_password_is_checked_for_its_account_alone(self) -> None:
        for name, password, account in (
            ("ann", PASSWORD, "ann"),
            ("ANN@localhost", PASSWORD, "ann"),
            ("ann", "wrong", None),
            ("ann", "", None),
            ("printer", PASSWORD, None),
            ("printer", "", None),
            ("eve", PASSWORD, None),
            ("ann@far.example", PASSWORD, None),
        ):
            credentials = UsernamePassword(name.encode(), password.encode())
            self.assertEqual(self.found(credentials), account, (name, password))

    def test_a_proof_is_checked_for_its_account_alone(self) -> None:
        for evidence, account in (
            (proof("ann"), "ann"),
            (proof("Ann@localhost"), "ann"),
            (proof("ann", algorithm="sha1"), "ann"),
            (proof("ann", "wrong"), None),
            (proof("printer"), None),
            (proof("eve"), None),
        ):
            self.assertEqual(self.found(ScramCredentials(evidence)), account, evidence)

    def test_a_certificate_is_that_of_the_account_that_the_client_names(self) -> None:
        for name, pin, account in (
            ("", PIN, "ann"),
            ("ann", PIN, "ann"),
            ("Ann@localhost", PIN, "ann"),
            ("printer", OTHER_PIN, "printer"),
            ("printer", PIN, None),
            ("eve", PIN, None),
            ("", "c3" * 32, None),
            ("ann", "", None),
        ):
            credentials = CertificateCredentials(name, pin, "CN=x", "CN=y")
            self.assertEqual(self.found(credentials), account, (name, pin))

    def test_an_account_has_a_salt_for_each_algorithm_and_others_have_none(self) -> None:
        expected = ScramSalt(secret(16), SCRAM_ITERATIONS)
        self.assertEqual(self.checker.scram_salt("ann", "sha256"), expected)
        self.assertEqual(self.checker.scram_salt("ann@localhost", "sha1"), expected)
        self.assertIsNone(self.checker.scram_salt("ann", "sha512"))
        self.assertIsNone(self.checker.scram_salt("printer", "sha256"))
        self.assertIsNone(self.checker.scram_salt("eve", "sha256"))

    def test_certificates_are_checked_only_where_an_account_has_one(self) -> None:
        all_of_them = (IUsernamePassword, IScramProof, IVerifiedCertificate)
        self.assertEqual(self.checker.credentialInterfaces, all_of_them)
        none = AccountAddresses(Accounts({"bob": Account("bob")}), ())
        checker = AccountsChecker(none, inline_executor)
        self.assertEqual(checker.credentialInterfaces, all_of_them[:2])


@implementer(ICredentialsChecker)
class Answering:
    """A checker of passwords that answers as the test says."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def requestAvatarId(self, credentials: Any) -> Any:
        return self.answer()


class Judging(CheckerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.counted: list[tuple[str, str]] = []
        self.session = Session(SessionSettings(hostname="mx.example"), peer=Peer("192.0.2.1"))
        self.session.auth.mechanism = "PLAIN"

    def judged(self, evidence: Evidence, checker: Any = None, **settings: Any) -> Deferred[Any]:
        portal = Portal(AccountRealm(), [checker or self.checker])
        authenticator = Authenticator(
            portal=portal,
            clock=self.clock,
            secret=b"secret",
            account_of=self.addresses.name_of,
            may_act_as=self.addresses.may_act_as,
            count=lambda *labels: self.counted.append(labels),
            **settings,
        )
        return authenticator.judge(self.session, evidence)

    def test_no_secret_is_in_the_text_of_evidence_or_credentials(self) -> None:
        for value in (
            Password("ann", "Geheim71"),
            Token("ann", "Geheim71"),
            TokenCredentials("ann", "Geheim71"),
            CramProof("ann", b"challenge", b"Geheim71"),
            Authenticator(portal=Portal(AccountRealm()), clock=self.clock, secret=b"Geheim71"),
            Foreign("ann", "Geheim71"),
        ):
            self.assertNotIn("Geheim71", repr(value))

    def test_good_evidence_of_each_kind_is_a_login(self) -> None:
        facts = TLSFacts("TLSv1.3", "AES", 256, peer_fingerprint=PIN, peer_verified=True)
        for evidence in (
            Password("ann", PASSWORD),
            Password("ann", PASSWORD, "Ann@localhost"),
            proof("ann"),
            proof("ann", authzid="ann@localhost"),
            Certificate("", facts),
        ):
            login = self.successResultOf(self.judged(evidence))
            self.assertIsInstance(login, Login)
            self.assertEqual(login.identity, "ann")
        self.assertEqual(set(self.counted), {("PLAIN", "ok")})

    def test_a_foreign_authorization_identity_is_refused_with_good_evidence(self) -> None:
        for evidence in (Password("ann", PASSWORD, "printer"), proof("ann", authzid="printer")):
            self.assertEqual(self.successResultOf(self.judged(evidence)), NOT_AUTHENTICATED)
        self.assertEqual(self.counted, [("PLAIN", "failed")] * 2)

    def test_an_avatar_with_a_foreign_authorization_identity_is_logged_out(self) -> None:
        logouts: list[str] = []

        class Realm:
            def requestAvatar(self, name: Any, mind: Any, *interfaces: Any) -> Any:
                return interfaces[0], name, lambda: logouts.append(name)

        portal = Portal(Realm(), [self.checker])
        authenticator = Authenticator(portal=portal, clock=self.clock, secret=b"secret")
        judged = authenticator.judge(self.session, Password("ann", PASSWORD, "eve"))
        self.assertEqual(self.successResultOf(judged), NOT_AUTHENTICATED)
        self.assertEqual(logouts, ["ann"])
        good = authenticator.judge(self.session, Password("ann", PASSWORD))
        self.successResultOf(good).logout()
        self.assertEqual(logouts, ["ann", "ann"])

    def test_evidence_that_no_checker_takes_is_454(self) -> None:
        for evidence in (Token("ann", "x"), Foreign("ann", object())):
            self.assertEqual(self.successResultOf(self.judged(evidence)), AUTH_UNAVAILABLE)
        self.assertEqual(self.counted, [("PLAIN", "error")] * 2)

    def test_a_checker_that_does_not_answer_is_454_after_30_seconds(self) -> None:
        silent: Deferred[str] = Deferred()
        logged = logged_lines(self, "no verdict of a checker within 30 s")
        judged = self.judged(Password("ann", PASSWORD), Answering(lambda: silent))
        self.clock.advance(29.9)
        self.assertNoResult(judged)
        self.clock.advance(0.2)
        self.assertEqual(self.successResultOf(judged), AUTH_UNAVAILABLE)
        self.assertEqual(self.counted, [("PLAIN", "error")])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(logged), 1)

    def test_an_account_name_may_be_octets_and_an_empty_one_is_454(self) -> None:
        login = self.successResultOf(
            self.judged(Password("x", "y"), Answering(lambda: "r\u00e9my".encode()))
        )
        self.assertEqual(login.identity, "r\u00e9my")
        empty = self.judged(Password("x", "y"), Answering(lambda: b""))
        self.assertEqual(self.successResultOf(empty), AUTH_UNAVAILABLE)
        self.assertEqual(len(self.flushLoggedErrors(Withheld)), 1)

    def test_after_too_many_failures_nothing_is_judged_and_no_turn_is_kept(self) -> None:
        throttle = Throttle(
            ThrottleSettings(per_account=2, delay=1.0), limits=LocalLimits(), clock=self.clock
        )
        for delay in (1.0, 1.0):
            judged = self.judged(Password("ann", "wrong"), throttle=throttle)
            self.clock.advance(delay - 0.1)
            self.assertNoResult(judged)
            self.clock.advance(0.1)
            self.assertEqual(self.successResultOf(judged), NOT_AUTHENTICATED)
        for _ in range(2):
            judged = self.judged(Password("ann@localhost", PASSWORD), throttle=throttle)
            self.assertEqual(self.successResultOf(judged), AUTH_UNAVAILABLE)
        self.clock.advance(600)
        self.successResultOf(self.judged(Password("ann", PASSWORD), throttle=throttle))
        results = [result for _, result in self.counted]
        self.assertEqual(results, ["failed", "failed", "throttled", "throttled", "ok"])

    def test_with_a_delay_of_zero_a_failure_is_answered_at_once(self) -> None:
        throttle = Throttle(ThrottleSettings(delay=0.0), limits=LocalLimits(), clock=self.clock)
        judged = self.judged(Password("ann", "wrong"), throttle=throttle)
        self.assertEqual(self.successResultOf(judged), NOT_AUTHENTICATED)

    def test_an_exception_of_a_checker_keeps_no_turn(self) -> None:
        throttle = Throttle(ThrottleSettings(), limits=LocalLimits(), clock=self.clock)
        broken = self.judged(Password("ann", PASSWORD), Answering(lambda: 1 / 0), throttle=throttle)
        self.assertEqual(self.successResultOf(broken), AUTH_UNAVAILABLE)
        self.assertEqual(len(self.flushLoggedErrors(Withheld)), 1)
        good = self.judged(Password("ann", PASSWORD), throttle=throttle)
        self.assertEqual(self.successResultOf(good).identity, "ann")

    def test_a_lookup_returns_the_salt_of_an_account_or_one_that_stays_the_same(self) -> None:
        def salt(name: str, algorithm: str = "sha256") -> Any:
            return self.successResultOf(self.judged(ScramLookup(name, algorithm)))

        self.assertEqual(salt("ann"), ScramSalt(secret(16), SCRAM_ITERATIONS))
        self.assertEqual(salt("eve"), salt("EVE"))
        self.assertEqual((len(salt("eve").salt), salt("eve").iterations), (16, SCRAM_ITERATIONS))
        self.assertEqual(len({salt("eve"), salt("eve", "sha1"), salt("bob")}), 3)
        self.assertEqual(self.counted, [])
