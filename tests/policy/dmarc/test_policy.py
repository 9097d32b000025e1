"""DMARC as a policy: its result, and what becomes of the mail."""

from collections.abc import Sequence
from io import BytesIO
from ipaddress import ip_network
from typing import Any, Literal

from twisted.internet.defer import Deferred

from tests.policy.dmarc.names import Names
from tests.tidy import TidyTestCase
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.reply import Reply
from twisted_mta.message.authentication_results import MethodResult
from twisted_mta.message.header import Header
from twisted_mta.policy.answers import Answers, EnvelopeView, Quarantine
from twisted_mta.policy.dmarc.observation import Observation
from twisted_mta.policy.dmarc.policy import DMARCPolicy, TrustedForwarders
from twisted_mta.policy.examination import Examination, PolicySession
from twisted_mta.smtp.peer import Peer
from twisted_mta.smtp.server.session import Session
from twisted_mta.smtp.server.settings import SessionSettings

REPORTS = "rua=mailto:reports@example.com"


def spf(result: str, mailbox: str) -> MethodResult:
    return MethodResult("spf", result, properties=(("smtp.mailfrom", mailbox),))


def helo(result: str, name: str) -> MethodResult:
    return MethodResult("spf", result, properties=(("smtp.helo", name),))


def dkim(result: str, domain: str, selector: str = "s") -> MethodResult:
    return MethodResult("dkim", result, properties=(("header.d", domain), ("header.s", selector)))


class PolicyTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.names = Names()
        self.observed: list[Observation] = []

    def record(self, text: str, domain: str = "example.com") -> None:
        self.names.texts[f"_dmarc.{domain}"] = [text]

    def begin(
        self,
        *lines: str,
        sender: str | None = "a@sender.example",
        peer: str = "192.0.2.1",
        mode: Literal["check", "enforce"] = "enforce",
        forwarders: Sequence[Any] = (),
    ) -> Deferred[Answers]:
        """Hand a message to the policy; its answer waits for SPF, DKIM and ARC."""
        policy = DMARCPolicy(
            self.names,
            enforces=mode == "enforce",
            forwarders=TrustedForwarders(forwarders),
            observe=self.observed.append,
        )
        view = Session(SessionSettings(hostname="mx.example"), peer=Peer(peer))
        session = PolicySession(view, is_stranger=True)
        path = None if sender is None else Mailbox.parse(sender)
        self.examination = session.examination = Examination(
            session, path, awaited=("spf", "dkim", "arc", "dmarc")
        )
        envelope = EnvelopeView(path, ())
        section = "".join(f"{line}\r\n" for line in lines).encode()
        policy.header(session, envelope, Header(section))
        return Deferred.fromCoroutine(policy.message(session, envelope, BytesIO(section)))

    def conclude(self, *results: MethodResult, sealer: str = "") -> None:
        for method in ("spf", "dkim"):
            self.examination.conclude(method, [one for one in results if one.method == method])
        self.examination.trusted_chain = sealer
        self.examination.conclude("arc", [])

    def handle(
        self,
        *results: MethodResult,
        author: str = "a@example.com",
        lines: Sequence[str] = (),
        sealer: str = "",
        **settings: Any,
    ) -> str:
        """Return what becomes of a message: taken, quarantined, or the reply that refuses it."""
        answer = self.begin(f"From: {author}", *lines, **settings)
        self.conclude(*results, sealer=sealer)
        return self.outcome(self.successResultOf(answer))

    def outcome(self, answer: Answers) -> str:
        if isinstance(answer, Reply):
            return f"{answer.code} {answer.enhanced}"
        return "quarantined" if isinstance(answer, Quarantine) else repr(answer)

    @property
    def result(self) -> MethodResult:
        (result,) = [one for one in self.examination.results if one.method == "dmarc"]
        return result


class Results(PolicyTestCase):
    def test_an_aligned_domain_of_either_method_passes(self) -> None:
        self.record("v=DMARC1; p=reject")
        for found in (spf("pass", "b@mail.example.com"), dkim("pass", "example.com")):
            self.assertEqual(self.handle(found, sender="b@mail.example.com"), "None")
            self.assertEqual(self.result.result, "pass")
            self.assertEqual(self.result.properties, (("header.from", "example.com"),))
            self.assertEqual(self.result.comment, "p=reject at example.com")

    def test_mail_with_no_aligned_domain_fails(self) -> None:
        self.record("v=DMARC1; p=none; sp=reject; t=y")
        self.handle(
            spf("pass", "b@sender.example"),
            dkim("pass", "sender.example"),
            dkim("fail", "example.com"),
            author="a@news.example.com",
        )
        self.assertEqual(self.result.result, "fail")
        self.assertEqual(
            self.result.properties,
            (("header.from", "news.example.com"), ("policy.dmarc", "quarantine")),
        )
        self.assertEqual(self.result.comment, "p=none sp=reject t=y at example.com")

    def test_a_partial_signature_does_not_count(self) -> None:
        self.record("v=DMARC1; p=reject")
        self.assertEqual(self.handle(dkim("policy", "example.com")), "550 5.7.26")

    def test_the_helo_identity_counts_for_the_null_reverse_path_alone(self) -> None:
        self.record("v=DMARC1; p=reject")
        found = helo("pass", "Mail.Example.com")
        self.assertEqual(self.handle(found, spf("none", "b@sender.example")), "550 5.7.26")
        self.assertEqual(self.handle(found, sender=None), "None")
        self.assertEqual(self.result.result, "pass")

    def test_a_domain_without_a_record_has_the_result_none(self) -> None:
        self.assertEqual(self.handle(), "None")
        self.assertEqual(
            self.result, MethodResult("dmarc", "none", "", (("header.from", "example.com"),))
        )

    def test_mail_without_a_domain_in_from_has_the_result_none(self) -> None:
        self.assertEqual(self.handle(author="Group:;"), "None")
        self.assertEqual(self.result, MethodResult("dmarc", "none"))

    def test_several_author_domains_are_an_error(self) -> None:
        for lines in ((), ("From: b@example.net",)):
            author = "a@example.com" if lines else "a@example.com, b@example.net"
            self.assertEqual(self.handle(author=author, lines=lines), "quarantined")
            self.assertEqual(self.result.result, "permerror")
            self.assertIn("several", self.result.reason)
        self.assertEqual(self.handle(author="a@b, c@d", mode="check"), "None")

    def test_the_answer_waits_for_the_other_policies_and_the_records(self) -> None:
        self.record("v=DMARC1; p=reject")
        self.names.hold("_dmarc.example.com")
        answer = self.begin("From: a@example.com")
        self.conclude(dkim("pass", "example.com"))
        self.assertNoResult(answer)
        self.names.release("_dmarc.example.com")
        self.assertIsNone(self.successResultOf(answer))
        answer = self.begin("From: a@example.com")
        self.assertNoResult(answer)
        self.conclude()
        self.assertEqual(self.outcome(self.successResultOf(answer)), "550 5.7.26")


class TemporaryErrors(PolicyTestCase):
    """A failure of the DNS never refuses mail."""

    def setUp(self) -> None:
        super().setUp()
        self.record("v=DMARC1; p=reject; np=quarantine")

    def check_error(self, reason: str, *results: MethodResult, **settings: Any) -> None:
        self.assertEqual(self.handle(*results, **settings), "None")
        self.assertEqual((self.result.result, self.result.reason), ("temperror", reason))

    def test_of_the_record(self) -> None:
        self.names.fail("_dmarc.example.com")
        self.check_error("no answer for _dmarc.example.com", dkim("pass", "example.com"))

    def test_of_the_organizational_domain(self) -> None:
        self.record("v=DMARC1; p=reject", "news.example.com")
        self.names.fail("_dmarc.example.com")
        self.check_error(
            "no answer about alignment", dkim("pass", "a.example.com"), author="a@news.example.com"
        )

    def test_of_an_aligned_signature_or_sender(self) -> None:
        self.check_error("no answer about DKIM", dkim("temperror", "example.com"))
        self.check_error(
            "no answer about SPF", spf("temperror", "b@example.com"), sender="b@example.com"
        )
        self.assertEqual(self.handle(dkim("temperror", "example.net")), "quarantined")
        self.assertEqual(self.handle(spf("temperror", "b@example.net")), "550 5.7.26")

    def test_of_the_existence_of_the_author_domain(self) -> None:
        self.names.fail("news.example.com")
        self.check_error("no answer for news.example.com", author="a@news.example.com")

    def test_another_aligned_domain_passes_all_the_same(self) -> None:
        self.handle(dkim("temperror", "example.com"), dkim("pass", "example.com"))
        self.assertEqual(self.result.result, "pass")


class Enforcement(PolicyTestCase):
    def test_each_request_has_its_effect(self) -> None:
        for request, outcome in (
            ("none", "None"),
            ("quarantine", "quarantined"),
            ("reject", "550 5.7.26"),
            ("none; t=y", "None"),
            ("quarantine; t=y", "None"),
            ("reject; t=y", "quarantined"),
        ):
            self.record(f"v=DMARC1; p={request}")
            self.assertEqual(self.handle(), outcome, request)
            self.assertEqual(self.handle(mode="check"), "None", request)

    def test_the_reply_names_the_method_and_the_domain(self) -> None:
        self.record("v=DMARC1; p=reject", "xn--bcher-kva.example")
        answer = self.begin("From: a@bücher.example")
        self.conclude()
        self.assertEqual(
            str(self.successResultOf(answer)),
            "550 5.7.26 DMARC: neither SPF nor DKIM shows that the mail is from"
            " xn--bcher-kva.example, whose policy asks to refuse such mail",
        )

    def test_mail_that_something_speaks_for_is_quarantined_instead_of_refused(self) -> None:
        self.record("v=DMARC1; p=reject")
        self.assertEqual(self.handle(dkim("pass", "list.example")), "quarantined")
        self.assertEqual(self.handle(sealer="list.example"), "quarantined")
        self.assertEqual(self.handle(lines=["List-Id: <a.list.example>"]), "quarantined")
        # An empty List-Id, and SPF of another domain, do not.
        found = spf("pass", "b@sender.example")
        self.assertEqual(self.handle(found, lines=["List-Id: "]), "550 5.7.26")

    def test_a_fault_of_the_dns_refuses_no_mail(self) -> None:
        self.record("v=DMARC1; p=reject")
        settings: dict[str, Any] = {"forwarders": ["forwarder.example"]}
        for found in (
            dkim("temperror", "list.example"),
            spf("temperror", "b@mx.forwarder.example"),
            helo("temperror", "forwarder.example"),
        ):
            self.assertEqual(self.handle(found, **settings), "quarantined")
            self.assertEqual(self.result.result, "fail")
        for found in (spf("temperror", "b@other.example"), helo("temperror", "other.example")):
            self.assertEqual(self.handle(found, **settings), "550 5.7.26")

    def test_trusted_forwarders_are_exempt(self) -> None:
        self.record("v=DMARC1; p=reject")
        networks = [ip_network("192.0.2.0/24")]
        self.assertEqual(self.handle(forwarders=networks), "None")
        self.assertEqual(self.handle(forwarders=networks, peer="::ffff:192.0.2.1"), "None")
        self.assertEqual(self.handle(forwarders=networks, peer="198.51.100.1"), "550 5.7.26")
        domains = ["forwarder.example"]
        for found in (
            spf("pass", "b@forwarder.example"),
            helo("pass", "mx.forwarder.example"),
            dkim("pass", "forwarder.example"),
        ):
            self.assertEqual(self.handle(found, forwarders=domains), "None")
        for found in (spf("fail", "b@forwarder.example"), dkim("fail", "forwarder.example")):
            self.assertEqual(self.handle(found, forwarders=domains), "550 5.7.26")
        found = dkim("pass", "badforwarder.example")
        self.assertEqual(self.handle(found, forwarders=domains), "quarantined")

    def test_subdomains_have_requests_of_their_own(self) -> None:
        self.record("v=DMARC1; p=none; sp=quarantine; np=reject")
        self.names.texts["there.example.com"] = ["x"]
        self.assertEqual(self.handle(), "None")
        self.assertEqual(self.handle(author="a@there.example.com"), "quarantined")
        self.assertEqual(self.handle(author="a@made-up.example.com"), "550 5.7.26")

    def test_a_name_below_it_shows_that_a_domain_exists_without_a_query(self) -> None:
        self.record("v=DMARC1; p=none; sp=quarantine; np=reject")
        self.names.texts["_dmarc.there.example.com"] = ["x"]
        self.assertEqual(self.handle(author="a@there.example.com"), "quarantined")
        self.assertNotIn("there.example.com", self.names.queries)

    def test_hostile_results_are_no_domains(self) -> None:
        self.record("v=DMARC1; p=reject")
        for domain in ("", "[192.0.2.1]", "exa\r\nmple.com", "x" * 300, "\ud800.com", "a b"):
            self.assertEqual(self.handle(dkim("pass", domain)), "550 5.7.26", domain)


class Observations(PolicyTestCase):
    def observe(self, *results: MethodResult, **settings: Any) -> Observation:
        self.handle(*results, **settings)
        (observation,) = self.observed
        self.observed.clear()
        return observation

    def test_a_message_that_passes(self) -> None:
        self.record(f"v=DMARC1; p=reject; {REPORTS}")
        observation = self.observe(
            dkim("fail", "example.com", "old"),
            dkim("pass", "list.example", "l"),
            dkim("pass", "mail.example.com", "m"),
            dkim("pass", "example.com", "e"),
            spf("softfail", "b@sender.example"),
            peer="::ffff:192.0.2.7",
        )
        self.assertEqual(observation.published.domain, "example.com")
        row = observation.row
        self.assertEqual((row.source, row.disposition), ("192.0.2.7", "pass"))
        self.assertEqual((row.dkim, row.spf, row.reasons), (True, False, ()))
        self.assertEqual((row.header_from, row.envelope_from), ("example.com", "sender.example"))
        self.assertEqual((row.spf_domain, row.spf_result), ("sender.example", "softfail"))
        # RFC 9990 §3.1.3: that of the author domain first, those that fail last.
        self.assertEqual(row.signatures[0].selector, "e")
        self.assertEqual(row.signatures[-1].selector, "old")

    def test_an_aligned_signature_comes_before_others(self) -> None:
        self.record(f"v=DMARC1; p=reject; {REPORTS}")
        row = self.observe(dkim("pass", "a.example", "a"), dkim("pass", "m.example.com", "m")).row
        self.assertEqual([one.selector for one in row.signatures], ["m", "a"])

    def test_a_message_that_fails(self) -> None:
        self.record(f"v=DMARC1; p=reject; {REPORTS}")
        row = self.observe(sender=None).row
        self.assertEqual((row.disposition, row.reasons, row.envelope_from), ("reject", (), ""))

    def test_another_handling_than_that_asked_for_has_its_reason(self) -> None:
        for record, settings, disposition, reasons in (
            ("p=reject", {"mode": "check"}, "none", ["local_policy"]),
            ("p=quarantine; t=y", {}, "none", ["policy_test_mode"]),
            ("p=reject; t=y", {"mode": "check"}, "none", ["policy_test_mode", "local_policy"]),
            ("p=reject", {"lines": ["List-Id: <x>"]}, "quarantine", ["mailing_list"]),
            ("p=reject", {"sealer": "x.example"}, "quarantine", ["local_policy"]),
            ("p=reject", {"forwarders": [ip_network("192.0.2.1")]}, "none", ["trusted_forwarder"]),
            ("p=none", {}, "none", []),
        ):
            self.record(f"v=DMARC1; {record}; {REPORTS}")
            found: Any = settings
            row = self.observe(**found).row
            self.assertEqual(row.disposition, disposition, record)
            self.assertEqual([reason.type for reason in row.reasons], reasons, record)

    def test_a_temporary_error_is_a_reason(self) -> None:
        self.record(f"v=DMARC1; p=reject; {REPORTS}")
        row = self.observe(dkim("temperror", "example.com")).row
        self.assertEqual((row.disposition, row.reasons[0].type), ("none", "local_policy"))

    def test_domains_that_ask_for_no_reports_are_not_observed(self) -> None:
        self.record("v=DMARC1; p=reject")
        self.handle()
        self.assertEqual(self.observed, [])

    def test_reports_that_pass_are_not_observed(self) -> None:
        """Two receivers would send each other reports about their reports for ever."""
        self.record(f"v=DMARC1; p=reject; {REPORTS}")
        lines = ["Subject: Report Domain: mx.example Submitter: example.com"]
        self.handle(dkim("pass", "example.com"), lines=lines)
        self.assertEqual(self.observed, [])
        self.assertEqual(self.observe(lines=lines).row.disposition, "reject")
