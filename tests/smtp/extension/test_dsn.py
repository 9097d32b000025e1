"""DSN parameters (RFC 3461): how they are read, encoded and passed on."""

from __future__ import annotations

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.mail.envelope import Recipient
from twisted_mta.mail.message import Message
from twisted_mta.mail.utf8_address import decode_utf8_address, encode_utf8_address
from twisted_mta.mail.xtext import decode_xtext, encode_xtext
from twisted_mta.smtp.client.agreement import Agreement
from twisted_mta.smtp.client.outgoing import OutgoingTransaction
from twisted_mta.smtp.command import CommandError
from twisted_mta.smtp.extension.dsn import DSN
from twisted_mta.smtp.extension.standard import extensions_for_lines, standard_extensions

from ..player import message


class XText(SynchronousTestCase):
    """RFC 3461 §4."""

    def test_xtext_is_decoded(self) -> None:
        for text, decoded in (
            ("", ""),
            ("a-Z~!*,<>", "a-Z~!*,<>"),
            ("+2B+3D+20", "+= "),
            ("+C3+A4", "ä"),
            ("+2B41", "+41"),
        ):
            self.assertEqual(decode_xtext(text), decoded)

    def test_malformed_xtext_is_refused(self) -> None:
        for text in (
            "+",
            "+4",
            "+4g",
            "+2b",
            "=",
            "a b",
            "ä",
            "\x7f",
            "\0",
            "+FF",
            "+C3",
            "+ED+A0+80",
        ):
            self.assertRaises(ValueError, decode_xtext, text)

    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def test_encoding_is_ascii_and_reversible(self, text: str) -> None:
        encoded = encode_xtext(text)
        self.assertRegex(encoded, r"\A[!-<>-~]*\Z")
        self.assertEqual(decode_xtext(encoded), text)


class InternationalAddresses(SynchronousTestCase):
    """RFC 6533 §3."""

    def test_both_encodings_mean_the_same(self) -> None:
        for form in (r"\x{142}\x{2B}@example.pl", "ł\\x{2B}@example.pl"):
            self.assertEqual(decode_utf8_address(form), "ł+@example.pl")
        self.assertEqual(encode_utf8_address("ł+@example.pl"), r"\x{142}\x{2B}@example.pl")

    def test_malformed_encodings_are_refused(self) -> None:
        for text in (
            "",
            "a b",
            "a+b",
            "a=b",
            r"a\b",
            r"\x{}",
            r"\x{110000}",
            r"\x{D800}",
            "\u2028",
        ):
            self.assertRaises(ValueError, decode_utf8_address, text)

    @given(
        st.text(
            st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp", "Zs", "Cn", "Co"]),
            min_size=1,
        )
    )
    def test_encoding_is_ascii_and_reversible(self, text: str) -> None:
        encoded = encode_utf8_address(text)
        self.assertRegex(encoded, r"\A[!-*,-<>-~]+\Z")
        self.assertEqual(decode_utf8_address(encoded), text)


class Reading(SynchronousTestCase):
    def test_values_are_kept_in_a_form_for_any_next_hop(self) -> None:
        notify, orcpt = DSN.rcpt["NOTIFY"], DSN.rcpt["ORCPT"]
        self.assertEqual(DSN.mail["RET"]("hdrs"), "HDRS")
        self.assertEqual(DSN.mail["ENVID"]("a+2Bb"), "a+2Bb")
        self.assertEqual(notify("delay,success,delay"), "SUCCESS,DELAY")
        self.assertEqual(orcpt("RFC822;Bob+2B@x"), "rfc822;Bob+2B@x")
        self.assertEqual(orcpt("utf-8;ł@x"), r"utf-8;\x{142}@x")

    def test_an_original_recipient_too_long_in_ascii_is_refused(self) -> None:
        DSN.rcpt["ORCPT"]("utf-8;" + "ł" * 70)
        self.assertRaises(CommandError, DSN.rcpt["ORCPT"], "utf-8;" + "ł" * 71)

    def test_an_international_address_of_type_rfc822_is_read_as_utf_8(
        self,
    ) -> None:
        orcpt = DSN.rcpt["ORCPT"]  # so Postfix says it
        self.assertEqual(
            orcpt("rfc822;jos+C3+A9@example.net"), orcpt("utf-8;jos\\x{E9}@example.net")
        )
        for address in ("+C3+A9+0D", "+C3", "jos+C3+A9@example.net+00"):
            self.assertRaises(CommandError, orcpt, f"rfc822;{address}")

    def test_dsn_is_not_offered_for_deliveries_of_twisted_mail(self) -> None:
        self.assertIn(DSN, standard_extensions(1, 1))
        self.assertNotIn(DSN, extensions_for_lines(1, 1))


class Notify(SynchronousTestCase):
    def test_notify_selects_the_events(self) -> None:
        for notify, events in (
            (None, ["FAILURE", "DELAY"]),  # RFC 3461 §4.1
            ("NEVER", []),
            ("SUCCESS", ["SUCCESS"]),
            ("FAILURE", ["FAILURE"]),
            ("SUCCESS,DELAY", ["SUCCESS", "DELAY"]),
        ):
            parameters = {} if notify is None else {"NOTIFY": notify}
            recipient = evolve(message().envelope.recipients[0], parameters=parameters)
            self.assertEqual(
                [
                    event
                    for event in ("SUCCESS", "FAILURE", "DELAY")
                    if recipient.is_to_notify(event)  # type: ignore[arg-type]
                ],
                events,
            )


class PassingOn(SynchronousTestCase):
    """RFC 3461 §5.2.1, §5.2.2."""

    def with_parameters(self) -> Message:
        sent = message(
            "b@example.net", "c@example.net", parameters={"RET": "HDRS", "ENVID": "x+2By"}
        )

        def asking(recipient: Recipient, **parameters: str) -> Recipient:
            return evolve(recipient, parameters=parameters)

        first, second = sent.envelope.recipients
        recipients = (asking(first, NOTIFY="SUCCESS,DELAY", ORCPT="rfc822;B@x"), second)
        return sent.for_recipients(recipients)

    def offered(self, **capabilities: str) -> OutgoingTransaction:
        transaction = OutgoingTransaction(
            self.with_parameters(), "mx.example", Agreement(capabilities)
        )
        transaction.offer()
        self.mail = transaction.mail()
        return transaction

    def test_a_next_hop_with_dsn_gets_the_parameters_as_they_came(self) -> None:
        transaction = self.offered(DSN="")
        self.assertEqual(self.mail, b"MAIL FROM:<a@client.example> RET=HDRS ENVID=x+2By\r\n")
        self.assertEqual(
            transaction.rcpt(0),
            b"RCPT TO:<b@example.net> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;B@x\r\n",
        )
        self.assertEqual(transaction.rcpt(1), b"RCPT TO:<c@example.net>\r\n")

    def test_a_next_hop_without_dsn_gets_none_of_them(self) -> None:
        transaction = self.offered(PIPELINING="")
        self.assertEqual(self.mail, b"MAIL FROM:<a@client.example>\r\n")
        self.assertEqual(transaction.rcpt(0), b"RCPT TO:<b@example.net>\r\n")
