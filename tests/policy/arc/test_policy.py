"""The policy on the seam: what it concludes about chains, and which sealers it trusts."""

from io import BytesIO

from twisted.internet.defer import Deferred

from tests.policy.dkim.keys import Records
from twisted_mta.dns.failure import LookupFailed
from twisted_mta.message.authentication_results import MethodResult
from twisted_mta.message.header import Header
from twisted_mta.policy.answers import EnvelopeView
from twisted_mta.policy.arc.policy import ARCPolicy
from twisted_mta.policy.dkim.policy import DKIMPolicy
from twisted_mta.policy.examination import Examination, PolicySession
from twisted_mta.smtp.peer import Peer
from twisted_mta.smtp.server.session import Session
from twisted_mta.smtp.server.settings import SessionSettings

from .chains import BODY, HEADER, LISTS, NOW, RELAY, chain
from .test_validation import ChainTestCase

ENVELOPE = EnvelopeView(None, ())


class Seam(ChainTestCase):
    def conclude(
        self, header: bytes, body: bytes = BODY, trusted: tuple[str, ...] = ()
    ) -> tuple[MethodResult, str]:
        """Return the result of ARC, beside DKIM on the same body, and the trusted sealer."""
        policy = ARCPolicy(self.records, lambda: NOW, trusted)
        beside = DKIMPolicy(self.records, lambda: NOW)
        view = Session(SessionSettings(hostname="mx.example"), peer=Peer("192.0.2.1"))
        session = PolicySession(view, is_stranger=True)
        examination = session.examination = Examination(session, None, awaited=["dkim", "arc"])
        section = Header(header)
        readers = []
        for each in (beside, policy):
            self.assertIsNone(each.header(session, ENVELOPE, section))
            readers.append(each.body(session, ENVELOPE, section))
        for reader in filter(None, readers):
            reader(body)
        message = policy.message(session, ENVELOPE, BytesIO())
        if message is not None:  # otherwise it is concluded by now
            self.assertIsNone(self.successResultOf(Deferred.fromCoroutine(message)))
        (result,) = self.successResultOf(examination.concluded("arc"))
        return result, examination.trusted_chain

    def test_a_chain_that_passes_names_its_newest_sealer(self) -> None:
        result, trusted = self.conclude(chain(2))
        self.assertEqual(
            result,
            MethodResult(
                "arc",
                "pass",
                "",
                (("header.oldest-pass", "0"), ("smtp.remote-ip", "192.0.2.1")),
                "newest of 2: relay.example",
            ),
        )
        self.assertEqual(trusted, "")

    def test_mail_without_a_chain_has_none(self) -> None:
        self.assertEqual(self.conclude(HEADER), (MethodResult("arc", "none"), ""))

    def test_the_newest_sealer_may_be_trusted(self) -> None:
        for trusted, expected in (
            (("relay.example",), "relay.example"),
            (("other.example", "relay.example"), "relay.example"),
            (("example",), "relay.example"),
            (("lists.example",), ""),
            (("elay.example",), ""),
        ):
            self.assertEqual(self.conclude(chain(2), trusted=trusted)[1], expected)

    def test_a_chain_that_fails_is_not_trusted(self) -> None:
        result, trusted = self.conclude(chain(1), b"x\r\n", ("lists.example",))
        self.assertEqual((result.result, trusted), ("fail", ""))
        result, trusted = self.conclude(b"ARC-Seal: i=1\r\n" + HEADER, trusted=("lists.example",))
        self.assertEqual((result.result, trusted), ("fail", ""))

    def test_a_fault_of_the_dns_is_no_reason_to_refuse_what_a_trusted_sealer_sends(self) -> None:
        self.records = Records(RELAY)
        self.records.records[LISTS.record_name] = LookupFailed(LISTS.record_name, "TXT", "timeout")
        result, trusted = self.conclude(chain(2), trusted=("relay.example",))
        self.assertEqual((result.result, trusted), ("temperror", "relay.example"))

    def test_a_header_of_very_many_lines_is_not_validated(self) -> None:
        result, _ = self.conclude(chain(1) + b"a:\r\n" * 10_000)
        self.assertEqual(result.result, "fail")
        self.assertEqual(self.records.asked, [])

    def test_the_body_is_read_only_for_a_chain_that_may_pass(self) -> None:
        policy = ARCPolicy(self.records, lambda: NOW)
        view = Session(SessionSettings(hostname="mx.example"), peer=Peer("192.0.2.1"))
        session = PolicySession(view, is_stranger=True)
        for header, reads in ((HEADER, False), (b"ARC-Seal: i=1\r\n", False), (chain(1), True)):
            session.examination = Examination(session, None, awaited=["arc"])
            reader = policy.body(session, ENVELOPE, Header(header))
            self.assertEqual(reader is not None, reads)

    def test_keys_are_looked_up_at_the_end_of_the_header(self) -> None:
        policy = ARCPolicy(self.records, lambda: NOW)
        view = Session(SessionSettings(hostname="mx.example"), peer=Peer("192.0.2.1"))
        session = PolicySession(view, is_stranger=True)
        session.examination = Examination(session, None, awaited=["arc"])
        policy.header(session, ENVELOPE, Header(chain(1)))
        self.assertEqual(self.records.asked, [LISTS.record_name])

    def test_mail_that_is_not_examined_is_not_read(self) -> None:
        policy = ARCPolicy(self.records, lambda: NOW)
        view = Session(SessionSettings(hostname="mx.example"), peer=Peer("192.0.2.1"))
        session = PolicySession(view, is_stranger=True)
        header = Header(chain(1))
        self.assertIsNone(policy.header(session, ENVELOPE, header))
        self.assertIsNone(policy.body(session, ENVELOPE, header))
        self.assertIsNone(policy.message(session, ENVELOPE, BytesIO()))
        self.assertEqual(self.records.asked, [])
