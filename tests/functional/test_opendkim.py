"""Debian's OpenDKIM: it verifies what we sign, and we verify what it signs."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from twisted.internet.defer import Deferred

from tests.policy.dkim.key_files import write_key
from tests.policy.dkim.keys import Records, key, record
from twisted_mta.policy.dkim.body_hashes import BodyHashes, body_hash
from twisted_mta.policy.dkim.signed_header import SignedHeader
from twisted_mta.policy.dkim.signing import sign_all
from twisted_mta.policy.dkim.verification import SignatureResult, Verification

from .machine import LOOPBACK, need
from .mail import ProgramTestCase, message, submit
from .mta import MTA
from .nsd import NSD
from .opendkim import OpenDKIM, signatures, verdicts
from .postfix import Postfix
from .sinks import Sink

KEYS = (
    key("rsa", "sender.example", "r"),
    key("ed25519", "sender.example", "e"),
)
RECORDS = {each.record_name: record(each) for each in KEYS}


def messages(count: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield (header, body) of unusual messages; it accepts no field twice."""
    draw = random.Random(count)
    choices = (
        (b"To:\r\n", b"To: bob@a.example,\r\n\tcarol@a.example\r\n"),
        (b"subject:  Hello \t there \r\n", b"Subject: \xc3\xa9\r\n  \t\r\n x\r\n"),
        (b"X-Empty: \r\n", b"List-Id:<a.example>\r\n"),
        (b"Content-Type:text/plain;\r\n charset=utf-8\r\n", b"MIME-Version : 1.0 (x)\r\n"),
    )
    pieces = (b"\r\n", b" ", b"\t", b"  ", b"word", b".", b"\xc3\xa9", b"\r\n\r\n", b" \r\n")
    for _ in range(count):
        fields = draw.sample(choices, k=draw.randrange(5))
        header = b"From: Ann <ann@sender.example>\r\nDate: Mon, 02 Nov 2026 10:00:00 +0000\r\n"
        header += b"".join(map(draw.choice, fields))
        yield header, b"".join(draw.choices(pieces, k=draw.randrange(30))) + b"\r\n"


def results(mail: bytes) -> list[str]:
    """Return what we say of the signatures of a message."""
    header, _, body = mail.partition(b"\r\n\r\n")
    bodies = BodyHashes()
    verification = Verification(SignedHeader(header + b"\r\n"), bodies, 0.0)
    verification.look_up(Records(*KEYS))
    bodies.feed(body)
    found: list[Sequence[SignatureResult]] = []
    Deferred.fromCoroutine(verification.results()).addCallback(found.append)
    return [each.result for each in found[0]]


class Judge(ProgramTestCase):
    """It reads messages in files, without a mail server."""

    def setUp(self) -> None:
        super().setUp()
        need("opendkim")

    def test_it_accepts_unusual_messages_that_we_sign(self) -> None:
        now = int(time.time())
        for signer in KEYS:
            mails = [
                sign_all(header, body_hash([body]), [signer], time=now) + header + b"\r\n" + body
                for header, body in messages(40)
            ]
            self.assertEqual(verdicts(self.home, mails, RECORDS), [True] * 40)
            changed = [mail + b"x\r\n" for mail in mails]
            self.assertEqual(verdicts(self.home, changed, RECORDS), [False] * 40)

    def test_we_accept_unusual_messages_that_it_signs(self) -> None:
        file = Path(write_key(str(self.home / "key.pem"), "rsa-2048"))
        mails = [header + b"\r\n" + body for header, body in messages(40)]
        # Not the simple form of the header: its reader of files puts a space behind each colon.
        for form in ("relaxed/simple", "relaxed/relaxed"):
            fields = signatures(self.home, mails, ("sender.example", "r", file), form)
            for field, mail in zip(fields, mails, strict=True):
                self.assertEqual(results(field + mail), ["pass"], field + mail)
                self.assertEqual(results(field + mail + b"x"), ["fail"])


class Relayed(ProgramTestCase):
    """As a milter of Postfix."""

    def setUp(self) -> None:
        super().setUp()
        need("postfix", "opendkim")

    def postfix(self, filter: OpenDKIM, port: int) -> Postfix:
        """Start a Postfix that runs mail through OpenDKIM, and relays it to a port."""
        return self.enterContext(
            Postfix(
                self.home,
                {
                    "relayhost": f"[{LOOPBACK}]:{port}",
                    "smtpd_milters": filter.milter,
                    "milter_default_action": "tempfail",
                },
            )
        )

    def test_it_accepts_what_we_sign(self) -> None:
        sink = self.enterContext(Sink(self.home))
        filter = self.enterContext(OpenDKIM(self.home, RECORDS))
        postfix = self.postfix(filter, sink.port)
        keys = [
            f'[[dkim]]\ndomain = "sender.example"\nselector = "{selector}"\nkey = "{file}"\n'
            for selector, file in (
                ("r", write_key(str(self.home / "rsa.pem"), "rsa-2048")),
                ("e", write_key(str(self.home / "ed25519.pem"), "ed25519")),
            )
        ]
        route = f"*=smtp://{LOOPBACK}:{postfix.port}"
        mta = self.enterContext(MTA(self.home, "--route", route, toml="\n".join(keys)))
        submit(mta.smtp, message(), "bob@elsewhere.example")
        (mail,) = sink.wait_for_messages()
        header = b" ".join(mail.split(b"\r\n\r\n", 1)[0].split())
        self.assertEqual(header.count(b"DKIM-Signature:"), 2)
        self.assertIn(b"Authentication-Results: opendkim.example; dkim=pass", header)
        self.assertEqual(header.count(b"dkim=pass"), 2, header)

    def test_we_accept_what_it_signs(self) -> None:
        need("nsd", "nsd-checkconf")
        text = RECORDS["r._domainkey.sender.example"].decode("ascii")
        strings = " ".join(f'"{text[at : at + 200]}"' for at in range(0, len(text), 200))
        zone = f"r._domainkey TXT {strings}\n"
        server = self.enterContext(NSD(self.home, {"sender.example": zone}))
        mta = self.enterContext(
            MTA(
                self.home,
                toml='[mta]\nrelay_from = ["192.0.2.1"]\n'
                f'[dns]\nnameservers = ["{LOOPBACK}:{server.port}"]\n',
            )
        )
        file = Path(write_key(str(self.home / "key.pem"), "rsa-2048"))
        filter = self.enterContext(OpenDKIM(self.home, signs=("sender.example", "r", file)))
        postfix = self.postfix(filter, mta.smtp)
        submit(postfix.port, message(), "bob@localhost", starttls=False)
        (mail,) = mta.wait_for_mail("localhost", "bob")
        header = b" ".join(mail.split(b"\n\n", 1)[0].split())
        self.assertRegex(
            header,
            rb"Authentication-Results: mta\.example; .*dkim=pass \(2048-bit key\)"
            rb" header\.d=sender\.example header\.i=@sender\.example header\.s=r"
            rb" header\.a=rsa-sha256 header\.b=",
        )
