"""The policy on the seam: what it concludes about mail of strangers."""

from io import BytesIO

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.message.authentication_results import MethodResult
from twisted_mta.message.header import Header
from twisted_mta.policy.answers import EnvelopeView
from twisted_mta.policy.dkim.body_hashes import body_hash
from twisted_mta.policy.dkim.policy import DKIMPolicy
from twisted_mta.policy.dkim.signing import sign_all
from twisted_mta.policy.examination import Examination, PolicySession
from twisted_mta.smtp.peer import Peer
from twisted_mta.smtp.server.session import Session
from twisted_mta.smtp.server.settings import SessionSettings

from .keys import Records, key

NOW = 1_764_500_000
HEADER = b"From: Ann <ann@example.net>\r\nSubject: Hello\r\n"
BODY = b"Hello\r\n"
ENVELOPE = EnvelopeView(None, ())


class Seam(SynchronousTestCase):
    def setUp(self) -> None:
        self.records = Records(key(), key("ed25519", selector="s2"))
        self.policy = DKIMPolicy(self.records, lambda: NOW)
        view = Session(SessionSettings(hostname="mx.example"), peer=Peer("192.0.2.1"))
        self.session = PolicySession(view, is_stranger=True)
        self.session.examination = Examination(self.session, None, awaited=["dkim"])

    def signed(self) -> bytes:
        keys = key(), key("ed25519", selector="s2")
        return sign_all(HEADER, body_hash([BODY]), keys, time=NOW) + HEADER

    def begin(self, header: bytes) -> Examination:
        section = Header(header)
        self.assertIsNone(self.policy.header(self.session, ENVELOPE, section))
        reader = self.policy.body(self.session, ENVELOPE, section)
        if reader is not None:
            for octet in BODY:
                reader(bytes([octet]))
        assert self.session.examination is not None
        return self.session.examination

    def conclude(self, header: bytes) -> list[MethodResult]:
        examination = self.begin(header)
        message = self.policy.message(self.session, ENVELOPE, BytesIO())
        if message is not None:  # otherwise it is concluded by now
            self.assertIsNone(self.successResultOf(Deferred.fromCoroutine(message)))
        self.assertTrue(examination.is_concluded("dkim"))
        return list(examination.results)

    def test_each_signature_has_a_result(self) -> None:
        results = self.conclude(self.signed())
        self.assertEqual([each.result for each in results], ["pass", "pass"])
        self.assertEqual(dict(results[1].properties)["header.a"], "ed25519-sha256")

    def test_unsigned_mail_is_known_to_be_unsigned_at_the_end_of_its_header(self) -> None:
        examination = self.begin(HEADER)
        self.assertTrue(examination.is_concluded("dkim"))
        self.assertEqual(self.conclude(HEADER), [MethodResult("dkim", "none")])
        self.assertEqual(self.records.asked, [])

    def test_keys_are_looked_up_at_the_end_of_the_header(self) -> None:
        self.policy.header(self.session, ENVELOPE, Header(self.signed()))
        self.assertEqual(
            self.records.asked, ["s1._domainkey.example.net", "s2._domainkey.example.net"]
        )

    def test_a_header_of_very_many_lines_or_octets_is_not_verified(self) -> None:
        for filler in (b"a:\r\n" * 10_000, b"a: " + b"x" * 270_000 + b"\r\n"):
            self.setUp()
            (result,) = self.conclude(self.signed() + filler)
            self.assertEqual((result.result, self.records.asked), ("policy", []))

    def test_the_body_is_read_only_for_signatures(self) -> None:
        self.assertIsNone(self.policy.body(self.session, ENVELOPE, Header(HEADER)))

    def test_mail_that_is_not_examined_is_not_read(self) -> None:
        self.session.examination = None
        header = Header(self.signed())
        self.policy.header(self.session, ENVELOPE, header)
        self.assertIsNone(self.policy.body(self.session, ENVELOPE, header))
        self.assertEqual(self.records.asked, [])
        self.assertIsNone(self.policy.message(self.session, ENVELOPE, BytesIO()))

    def test_another_policy_that_reads_the_hashes_does_not_read_twice(self) -> None:
        header = Header(self.signed())
        self.assertIsNotNone(self.policy.body(self.session, ENVELOPE, header))
        other = DKIMPolicy(self.records, lambda: NOW)
        self.assertIsNone(other.body(self.session, ENVELOPE, header))
