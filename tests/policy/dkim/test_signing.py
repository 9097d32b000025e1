"""Signatures of our own mail, and dkimpy's opinion of them."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.policy.dkim.body_hashes import body_hash
from twisted_mta.policy.dkim.key_record import KeyType
from twisted_mta.policy.dkim.signing import sign, sign_all
from twisted_mta.policy.dkim.signing_keys import SigningKey

from .judge import verdicts
from .keys import key, record

KINDS: tuple[KeyType, ...] = ("rsa", "ed25519")
NOW = 1_764_500_000
HEADER = b"""\
From: Ann <ann@example.net>\r
To: bob@example.com,\r
\t carol@example.com\r
Subject:   Hello\t \r
Date: Mon, 30 Nov 2026 10:00:00 +0000\r
Message-ID: <1@example.net>\r
"""
FIELDS = (
    b"From: a\r\n",
    b"To:\r\n",
    b"to:b\t\r\n  c\r\n",
    b"Subject: \xc3\xa9\r\n",
    b"X: y\r\n",
    b"List-Id: \t<z>\r\n",
    b"Content-Type:a  b\r\n",
)
BODY = b"Hello  Bob, \r\n\r\n\tthis is it.\r\n\r\n\r\n"


def signed(header: bytes = HEADER, body: bytes = BODY, *keys: SigningKey) -> bytes:
    """Return a signed message."""
    fields = sign_all(header, body_hash([body]), keys or (key(),), time=NOW)
    return fields + header + b"\r\n" + body


def judged(message: bytes, *keys: SigningKey) -> list[bool]:
    """Return what dkimpy says of the signatures of a message."""
    records = {each.record_name: record(each) for each in keys or (key(),)}
    return verdicts(message, records)


def signed_names(header: bytes) -> list[str]:
    """Return the names of the fields that a signature of ours names."""
    field = sign(header, b"", key("ed25519"), time=NOW)
    (names,) = re.findall(rb"\sh=([^;]*);", field)
    return [name.strip().lower() for name in names.decode().split(":")]


class Signing(SynchronousTestCase):
    def test_dkimpy_accepts_our_signatures_of_both_kinds(self) -> None:
        for kind in KINDS:
            self.assertEqual(judged(signed(HEADER, BODY, key(kind)), key(kind)), [True])

    def test_several_keys_sign_one_message(self) -> None:
        keys = key("rsa"), key("ed25519", selector="s2")
        self.assertEqual(judged(signed(HEADER, BODY, *keys), *keys), [True, True])

    def test_the_field_is_folded_and_names_what_signed_it(self) -> None:
        field = sign(HEADER, body_hash([BODY]), key(), time=NOW)
        self.assertTrue(field.startswith(b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;"))
        self.assertTrue(field.endswith(b"==\r\n"))
        self.assertLessEqual(max(map(len, field.split(b"\r\n"))), 78)
        for tag in (b" d=example.net;", b" s=s1;", b" t=1764500000;"):
            self.assertIn(tag, field)

    def test_a_later_field_of_a_name_that_readers_show_makes_it_fail(self) -> None:
        message = signed()
        for name in (
            *("From", "To", "Cc", "Reply-To", "Subject", "Date", "Message-ID", "In-Reply-To"),
            *("References", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"),
        ):
            added = name.encode() + b": x\r\n" + message
            self.assertEqual(judged(added), [False], name)

    def test_later_trace_and_list_fields_leave_it_valid(self) -> None:
        header = b"List-Id: <a>\r\nSender: ann@example.net\r\nResent-To: x@a.example\r\n" + HEADER
        message = signed(header)
        for name in (b"Received", b"List-Id", b"Sender", b"Resent-To", b"X-Spam"):
            self.assertEqual(judged(name + b": y\r\n" + message), [True], name)

    def test_fields_that_are_signed_where_they_are_present(self) -> None:
        for name in (
            *("Sender", "Resent-From", "List-Unsubscribe", "List-Unsubscribe-Post"),
            *("Feedback-ID", "CFBL-Address", "CFBL-Feedback-ID"),
        ):
            self.assertNotIn(name.lower(), signed_names(HEADER))
            header = name.encode() + b": x\r\n" + HEADER
            self.assertEqual(signed_names(header).count(name.lower()), 1)
            self.assertEqual(judged(signed(header).replace(b": x\r\n", b": z\r\n")), [False])

    def test_fields_that_are_signed_once_more_than_they_are_there(self) -> None:
        names = signed_names(HEADER + b"Content-Type: a\r\nContent-Language: en\r\nCC: x\r\n" * 2)
        counts = {name: names.count(name) for name in names}
        self.assertEqual(
            counts,
            {
                "from": 2,
                "to": 2,
                "subject": 2,
                "date": 2,
                "message-id": 2,
                "cc": 3,
                "reply-to": 1,
                "in-reply-to": 1,
                "references": 1,
                "mime-version": 1,
                "content-type": 3,
                "content-transfer-encoding": 1,
                "content-disposition": 1,
                "content-language": 3,
            },
        )

    def test_a_name_that_would_end_the_list_is_not_signed(self) -> None:
        header = HEADER + b"List-A;l=0: x\r\nContent-B=: y\r\n"
        self.assertEqual(signed_names(header), signed_names(HEADER))
        self.assertEqual(judged(signed(header)), [True])

    def test_a_signature_stays_short_whatever_the_header_is(self) -> None:
        header = HEADER + b"To: a\r\n" * 20_000
        self.assertLess(len(sign(header, b"", key("ed25519"), time=NOW)), 8_000)

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(
            st.sampled_from(FIELDS),
            max_size=8,
        ),
        st.lists(st.sampled_from([b"\r\n", b" ", b"\t", b"a", b".", b"\xff"]), max_size=12),
    )
    def test_dkimpy_accepts_what_we_sign_whatever_it_is(
        self, fields: list[bytes], body: list[bytes]
    ) -> None:
        header = b"From: first\r\n" + b"".join(fields)
        # Without a line end at the end of the body, dkimpy keeps the white space there.
        text = b"".join(body) + b"\r\n"
        self.assertEqual(
            judged(signed(header, text, key("ed25519")), key("ed25519")), [True], (header, text)
        )
