"""What the sender of a message demands of the TLS to its next hop (RFC 8689)."""

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tests.delivery.hops import HopTestCase
from tests.delivery.test_relay import HOP, OPENING, PARTING, message
from twisted_mta.config import Destination
from twisted_mta.delivery.terms import Terms
from twisted_mta.delivery.wishes import fitted, is_proved, wished
from twisted_mta.mail.envelope import TLS_OPTIONAL
from twisted_mta.mail.message import Message
from twisted_mta.mail.next_hop import Host, NextHop, Target
from twisted_mta.mail.tls_policy import TLSPolicy, TLSSetting

DOMAIN = NextHop("smtp", domain="away.example")


def sent(*parameters: str, notice: bool = False) -> Message:
    mail = message()
    envelope = evolve(mail.envelope, parameters=dict.fromkeys(parameters))
    return evolve(mail, envelope=evolve(envelope, reverse_path=None) if notice else envelope)


REQUIRED = sent("REQUIRETLS")
OPTIONAL = sent(TLS_OPTIONAL)


class WishedTerms(SynchronousTestCase):
    def level(self, mail: Message, level: TLSSetting, hop: NextHop = DOMAIN) -> tuple[str, str]:
        """Return the level that terms of ``level`` have for a message, and the least one."""
        [terms] = wished(hop, mail, (Terms(level=level),))
        return terms.level, terms.least

    def test_requiretls_demands_a_proof_whatever_the_operator_does_without(self) -> None:
        for level in ("none", "may", "encrypt", "auto"):
            self.assertEqual(self.level(REQUIRED, level), ("auto", "verify"))
        for level in ("verify", "dane", "mta-sts"):
            self.assertEqual(self.level(REQUIRED, level), (level, "verify"))

    def test_tls_required_no_sets_aside_what_the_recipient_publishes_alone(self) -> None:
        self.assertEqual(self.level(OPTIONAL, "auto"), ("may", "none"))
        for level in ("none", "may", "encrypt", "verify", "dane", "mta-sts"):
            self.assertEqual(self.level(OPTIONAL, level), (level, "none"))

    def test_requiretls_overrides_the_field(self) -> None:
        """RFC 8689 §4.1."""
        self.assertEqual(self.level(sent("REQUIRETLS", TLS_OPTIONAL), "auto"), ("auto", "verify"))

    def test_with_credentials_there_is_encryption_at_least(self) -> None:
        [terms] = wished(DOMAIN, OPTIONAL, (Terms(level="auto", least="encrypt"),))
        self.assertEqual((terms.level, terms.least), ("may", "encrypt"))

    def test_other_mail_and_notices_have_the_level_of_the_operator(self) -> None:
        for mail in (sent(), sent("REQUIRETLS", notice=True)):
            self.assertEqual(self.level(mail, "auto"), ("auto", "none"))

    def test_lmtp_on_this_machine_is_no_way_on(self) -> None:
        for name, level in (
            ("/run/lmtp", "auto"),
            ("127.0.0.1", "auto"),
            ("::1", "auto"),
            ("localhost", "auto"),
            ("localhost.evil.example", "verify"),
            ("192.0.2.1", "verify"),
        ):
            hop = NextHop("lmtp", hosts=(Host(name, 24),))
            [terms] = wished(hop, REQUIRED, (Terms(level="auto", dialect="lmtp"),))
            self.assertEqual(terms.least, "none" if level == "auto" else level, name)
            [terms] = wished(evolve(hop, transport="smtp"), REQUIRED, (Terms(level="auto"),))
            self.assertEqual(terms.least, "verify", name)


class Policies(SynchronousTestCase):
    def test_the_source_is_the_message_where_it_decides(self) -> None:
        required, optional = Terms(wish="required"), Terms(wish="optional")
        dane = TLSPolicy(level="dane", source="DANE: _25._tcp.mx.example")
        tested = TLSPolicy(level="verify", source="MTA-STS", testing=True, patterns=("a.example",))
        self.assertEqual(fitted(tested, required), TLSPolicy(level="verify"))
        for policy, terms, level, source in (
            (TLSPolicy(level="may"), required, "verify", "REQUIRETLS of the message"),
            (TLSPolicy(level="verify"), required, "verify", "REQUIRETLS of the message"),
            (dane, required, "dane", dane.source),
            (tested, required, "verify", "REQUIRETLS of the message"),
            (TLSPolicy(level="may"), optional, "may", "TLS-Required: No of the message"),
            (dane, Terms(), "dane", dane.source),
        ):
            found = fitted(policy, terms)
            self.assertEqual((found.level, found.source), (level, source))

    def test_a_name_is_proved_by_dnssec_mta_sts_a_route_or_itself(self) -> None:
        host = Target("mx.example", "192.0.2.1", 25)
        for hop, target, policy, proved in (
            (DOMAIN, host, TLSPolicy(level="may"), False),
            (DOMAIN, evolve(host, secure=True), TLSPolicy(level="may"), True),
            (DOMAIN, host, TLSPolicy(level="verify", patterns=("mx.example",)), True),
            (NextHop("smtp", hosts=(Host("mx.example"),)), host, TLSPolicy(level="may"), True),
            (DOMAIN, Target("away.example", "192.0.2.1", 25), TLSPolicy(level="may"), True),
        ):
            self.assertEqual(is_proved(hop, target, policy), proved)


class Optional(HopTestCase):
    """Mail with ``TLS-Required: No``."""

    def test_a_level_of_the_operator_stays(self) -> None:
        self.use(Destination(domain="*", tls="encrypt"))
        self.server(*OPENING, *PARTING)
        [outcome] = self.send(OPTIONAL)
        self.assertEqual((outcome.reply.enhanced, outcome.deferred), ("4.7.4", True))

    def test_a_server_that_demands_tls_and_has_none_for_us_returns_it(self) -> None:
        """RFC 8689 §4.2.2; other mail is deferred."""
        for mail, fails in ((OPTIONAL, True), (message(), False)):
            self.use()
            self.server(
                *OPENING[:2],
                ("send", b"250-mx.example\r\n250 STARTTLS\r\n"),
                ("expect", b"STARTTLS\r\n"),
                ("send", b"454 4.7.0 no\r\n"),
                ("expect", b"MAIL FROM:<a@client.example>\r\n"),
                ("send", b"530 5.7.0 Must issue a STARTTLS command first\r\n"),
                *PARTING,
            )
            [outcome] = self.send(mail, HOP)
            self.assertEqual((outcome.reply.code, outcome.failed), (530, fails))
