"""Reports of complaints (RFC 5965), as providers write them, and as strangers do."""

from __future__ import annotations

import base64
import quopri

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.message.feedback_report import FeedbackReport, read_feedback_report

HEAD = (
    "From: <staff@provider.test>\n"
    "Message-ID: <1@provider.test>\n"
    "MIME-Version: 1.0\n"
    'Content-Type: multipart/report; report-type=feedback-report; boundary="b"\n\n'
)
TEXT = "--b\nContent-Type: text/plain\n\nThis is a complaint.\n"
FACTS = (
    "--b\nContent-Type: message/feedback-report\n\n"
    "Feedback-Type: abuse\nUser-Agent: Reporter/1.0\nVersion: 1\n"
    "Original-Rcpt-To: bob@provider.test\nSource-IP: 192.0.2.1\n"
)
ORIGINAL = (
    "Received: from us\nFrom: ann@us.test\nCFBL-Address: fbl@us.test; report=arf\n"
    "CFBL-Feedback-ID: abc-123_x\nSubject: Offer\n"
)
FOUND = FeedbackReport("abuse", ("abc-123_x",), "Reporter/1.0", "<1@provider.test>")


def read(text: str, size: int = 1 << 20) -> FeedbackReport | None:
    octets = text.replace("\n", "\r\n").encode("utf-8", "surrogateescape")
    chunks = [octets[start : start + size] for start in range(0, len(octets), size)]
    return read_feedback_report(chunks)


class Reports(SynchronousTestCase):
    def test_the_header_of_the_message_tells_the_id(self) -> None:
        whole = f"--b\nContent-Type: message/rfc822\n\n{ORIGINAL}\nBuy it!\n--b--\n"
        header = f"--b\nContent-Type: text/rfc822-headers\n\n{ORIGINAL}--b--\n"
        for third in (whole, header):
            self.assertEqual(read(HEAD + TEXT + FACTS + third), FOUND)
            self.assertEqual(read(HEAD + TEXT + FACTS + third, size=7), FOUND)
            self.assertEqual(read(HEAD + FACTS + third), FOUND)

    def test_an_encoded_header_is_decoded(self) -> None:
        crlf = ORIGINAL.replace("\n", "\r\n").encode()
        for encoding, encoded in (
            ("base64", base64.encodebytes(crlf).decode()),
            ("quoted-printable", quopri.encodestring(crlf).decode().replace("\r\n", "\n")),
        ):
            third = (
                "--b\nContent-Type: text/rfc822-headers\n"
                f"Content-Transfer-Encoding: {encoding}\n\n{encoded}\n--b--\n"
            )
            self.assertEqual(read(HEAD + TEXT + FACTS + third), FOUND, encoding)

    def test_the_report_itself_may_tell_the_id(self) -> None:
        facts = FACTS + "CFBL-Feedback-ID: abc-123_x\n--b--\n"
        self.assertEqual(read(HEAD + TEXT + facts), FOUND)

    def test_a_report_without_an_id_and_of_an_odd_type_is_one_all_the_same(self) -> None:
        facts = FACTS.replace("abuse", "\x1b[2J") + "--b--\n"
        self.assertEqual(
            read(HEAD + TEXT + facts), FeedbackReport("other", (), "Reporter/1.0", FOUND.message_id)
        )

    def test_other_mail_is_none(self) -> None:
        for text in (
            "",
            "\n",
            "Subject: hi\n\nCFBL-Feedback-ID: x\n",
            HEAD.replace("feedback-report", "delivery-status") + TEXT + FACTS,
            HEAD.replace("multipart/report", "multipart/mixed") + TEXT + FACTS,
            HEAD + TEXT + "--b--\n",
            HEAD,
        ):
            self.assertIsNone(read(text), text)

    def test_hostile_reports_are_bounded(self) -> None:
        many = HEAD + FACTS + "--b\n\nCFBL-Feedback-ID: x\n" * 5_000
        report = read(many)
        self.assertEqual(report and report.ids, ())
        long = (
            HEAD + FACTS + "x" * (1 << 20) + f"\n--b\nContent-Type: message/rfc822\n\n{ORIGINAL}\n"
        )
        report = read(long)
        self.assertEqual(report and report.ids, ())
        ids = "".join(f"CFBL-Feedback-ID: {number}\n" for number in range(500))
        report = read(HEAD + FACTS + ids + f"CFBL-Feedback-ID: {'y' * 5000}\n--b--\n")
        self.assertEqual(len(report.ids if report else ()), 10)
        broken = "--b\nContent-Type: text/rfc822-headers\nContent-Transfer-Encoding: base64\n\nA\n"
        report = read(HEAD + FACTS + broken)
        self.assertEqual(report and report.ids, ())
