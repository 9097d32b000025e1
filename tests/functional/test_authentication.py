"""The documented way to mail that others can authenticate, with a name server on loopback.

Keys are made and checked by the tool, records are pasted into a zone as the tool prints them, and
dkimpy, another implementation of DKIM, verifies what next hops get.
"""

from __future__ import annotations

import re
import smtplib
from email import message_from_bytes
from pathlib import Path

import dkim
import dns.message
import dns.query
import dns.rdatatype

from tests.policy.dkim.key_files import write_key
from twisted_mta.cli.dkim.records import zone_lines
from twisted_mta.config import DKIMKey
from twisted_mta.policy.dkim.signing_keys import SigningKey

from .machine import LOOPBACK, need, run
from .mail import ProgramTestCase, trusting
from .mta import MTA
from .nsd import NSD
from .sinks import Sink

STRANGER = "127.0.0.9"
IMPOSTOR = "127.0.0.66"

MAIL = b"""\
From: Ann <ann@example.net>
To: Bob <bob@far.example>
Subject: Greetings
Date: Mon, 02 Nov 2026 10:00:00 +0000
Message-ID: <1@example.net>

Good morning!
""".replace(b"\n", b"\r\n")

FROM_STRANGER = MAIL.replace(b"ann@example.net", b"eve@stranger.example")

ZONES = {
    "example.net": '@ MX 10 mta.example.\n@ TXT "v=spf1 mx -all"\n',
    "stranger.example": (
        f'@ TXT "v=spf1 ip4:{STRANGER} -all"\n'
        '_dmarc TXT "v=DMARC1; p=quarantine"\n'
        f"mx A {STRANGER}\n"
        'mx TXT "v=spf1 a -all"\n'
    ),
    "strict.example": '@ TXT "v=spf1 -all"\n_dmarc TXT "v=DMARC1; p=reject"\n',
    "example": "",  # DMARC walks up to it
    "127.in-addr.arpa": "9.0.0 PTR mx.stranger.example.\n",
}


class AuthenticationTestCase(ProgramTestCase):
    """A running MTA for example.net with an account, a name server, and a next hop."""

    policy = ""

    def setUp(self) -> None:
        super().setUp()
        need("nsd", "nsd-checkconf")
        self.sink = self.enterContext(Sink(self.home))
        self.zones = dict(ZONES)
        self.nsd = NSD(self.home, self.zones)
        self.users = self.home / "users"
        self.mta = MTA(self.home, toml="# written by `configure`\n")
        self.configure()
        self.tool("users", "add", "--file", self.users, "--address", "@example.net", "ann")

    def configure(self, *tables: str) -> None:
        """Write the configuration, with further tables."""
        submission = f'submission = "tcp:0:interface={LOOPBACK}"\n'
        text = (
            f'[mta]\nlocal_domains = ["example.net"]\nrecipients = "any"\n{submission}'
            f'users = "{self.users}"\nrelay_from = ["{LOOPBACK}/32"]\n'
            f'routes = {{"far.example" = "smtp://{LOOPBACK}:{self.sink.port}"}}\n'
            f'[dns]\nnameservers = ["{LOOPBACK}:{self.nsd.port}"]\n'
            f"[policy]\n{self.policy}"
        )
        (self.home / "mta.toml").write_text("\n".join((text, *tables)), encoding="utf-8")

    def tool(self, *words: str | Path, status: int = 0) -> str:
        """Run ``twisted-mta``; return its output."""
        program = Path(self.mta.command()[0]).with_name("twisted-mta")
        done = run(program, *words, text="secret\n")
        self.assertEqual(done.returncode, status, done.stdout)
        return done.stdout

    def txt(self, name: bytes, timeout: float = 5) -> bytes | None:
        """Return a TXT record, as dkimpy asks for it."""
        question = dns.message.make_query(name.decode(), "TXT")
        answer = dns.query.udp(question, LOOPBACK, timeout=timeout, port=self.nsd.port)
        records = [record for each in answer.answer for record in each]
        return b"".join(records[0].strings) if records else None


class Signing(AuthenticationTestCase):
    """`[[dkim]]`, from the new key to the signature at the next hop."""

    def new_key(self, selector: str, algorithm: str) -> str:
        """Make a key by the tool, and publish its record; return its table."""
        config = self.home / "mta.toml"
        output = self.tool(
            *("dkim", "new", "--config", config, "--state-dir", self.mta.state),
            *("--selector", selector, "--algorithm", algorithm),
        )
        found = re.search(r"In a zone file:\n\n(.*?)\n\nor, .*?(\[\[dkim\]\]\n.*)", output, re.S)
        assert found is not None, output
        self.zones["example.net"] += f"{found[1]}\n"
        (check,) = re.findall(r"^twisted-mta (dkim check .*)$", output, re.M)
        self.checks = [*getattr(self, "checks", []), check]
        return found[2]

    def submit(self) -> bytes:
        """Submit a message with AUTH; return what the next hop got."""
        before = len(self.sink.received())
        with smtplib.SMTP(LOOPBACK, self.mta.submission, timeout=60) as client:
            client.starttls(context=trusting())
            client.login("ann", "secret")
            client.sendmail("ann@example.net", ["bob@far.example"], MAIL)
        return self.sink.wait_for_messages(before + 1)[-1]

    def selectors(self, content: bytes) -> list[bytes]:
        """Return the selectors of all signatures; dkimpy verifies each."""
        found: list[bytes] = re.findall(
            rb"(?<=[ \t;])s=([^;]+);", content.partition(b"\r\n\r\n")[0]
        )
        for number in range(len(found)):
            verifier = dkim.DKIM(content)
            self.assertTrue(verifier.verify(number, dnsfunc=self.txt), content)
            self.assertEqual(verifier.domain, b"example.net")
        return found

    def test_mail_of_an_account_is_signed_and_its_key_is_rotated_by_reloads(self) -> None:
        first, second = self.new_key("s1", "rsa"), self.new_key("e1", "ed25519")
        third = self.new_key("s2", "rsa")
        self.configure(first, second)
        self.enterContext(self.nsd)
        self.assertIn(
            "s1._domainkey.example.net: the same key (rsa, 2048 bits)\n"
            "e1._domainkey.example.net: the same key (ed25519, 256 bits)\n",
            self.tool("dkim", "check", "--config", self.home / "mta.toml"),
        )
        self.enterContext(self.mta)
        self.assertEqual(self.selectors(self.submit()), [b"s1", b"e1"])

        self.configure(first, second, third)
        self.reload()
        self.assertEqual(self.selectors(self.submit()), [b"s1", b"e1", b"s2"])

        self.configure(second, third)
        said = self.reload()
        self.assertIn("s2._domainkey.example.net", said)
        self.assertEqual(self.selectors(self.submit()), [b"e1", b"s2"])

    def reload(self) -> str:
        return self.tool("reload", "--state-dir", self.mta.state)


class Strangers(AuthenticationTestCase):
    """Mail from addresses that may not relay, at their own place of the loopback network."""

    policy = 'dmarc = "enforce"\n'

    def setUp(self) -> None:
        super().setUp()
        file = write_key(str(self.home / "stranger.pem"), "rsa-2048")
        key = SigningKey.read(DKIMKey(domain="stranger.example", selector="s1", key=file))
        record = "\n".join(zone_lines(key))
        self.zones["stranger.example"] += f"{record}\n"
        self.key = (self.home / "stranger.pem").read_bytes()
        self.enterContext(self.nsd)
        self.enterContext(self.mta)

    def signed(self, content: bytes) -> bytes:
        signature: bytes = dkim.sign(content, b"s1", b"stranger.example", self.key)
        return signature + content

    def send(self, content: bytes, *, source: str = STRANGER) -> None:
        with smtplib.SMTP(
            LOOPBACK, self.mta.smtp, "mx.stranger.example", timeout=60, source_address=(source, 0)
        ) as client:
            client.sendmail("eve@stranger.example", ["ann@example.net"], content)

    def received(self) -> bytes:
        (content,) = self.mta.wait_for_mail("example.net", "ann")
        return content

    def test_one_field_above_received_has_the_results_of_all_methods(self) -> None:
        forged = b"Authentication-Results: mta.example; dmarc=pass header.from=bank.example\r\n"
        self.send(forged + self.signed(FROM_STRANGER))
        header = message_from_bytes(self.received())
        self.assertEqual(
            header.keys()[:4], ["Return-Path", "Delivered-To", "Authentication-Results", "Received"]
        )
        (field,) = header.get_all("Authentication-Results") or ()
        name, *results = (" ".join(part.split()) for part in field.split(";"))
        self.assertEqual(name, "mta.example")
        for number, expected in (
            (0, r"spf=pass .*smtp\.helo=mx\.stranger\.example"),
            (-1, r"spf=pass .*smtp\.mailfrom=stranger\.example"),
        ):
            self.assertRegex(results[number], expected)
        found = "; ".join(results)
        for expected in (
            r"dkim=pass .*header\.d=stranger\.example",
            r"dmarc=pass .*header\.from=stranger\.example",
            rf"iprev=pass .*policy\.iprev={STRANGER}",
        ):
            self.assertRegex(found, expected)
        self.assertNotIn("bank.example", found)

    def test_mail_in_the_name_of_a_domain_that_asks_for_quarantine_is_among_junk(self) -> None:
        self.send(FROM_STRANGER, source=IMPOSTOR)
        junk = self.mta.maildir("example.net", "ann") / ".Junk" / "new"
        self.mta.wait_for(lambda: junk.is_dir() and any(junk.iterdir()), "a message among junk")
        (path,) = junk.iterdir()
        self.assertIn(b"dmarc=fail", path.read_bytes())
        self.assertEqual(self.mta.mail("example.net", "ann"), [])

    def test_mail_in_the_name_of_a_domain_that_asks_for_rejection_is_refused(self) -> None:
        forged = MAIL.replace(b"ann@example.net", b"ceo@strict.example")
        with self.assertRaises(smtplib.SMTPDataError) as raised:
            self.send(forged, source=IMPOSTOR)
        self.assertEqual(raised.exception.smtp_code, 550)
        self.assertIn(b"5.7.26", raised.exception.smtp_error)
        # Another domain answers for this one, as it does for the mail of mailing lists.
        self.send(self.signed(forged), source=IMPOSTOR)
        junk = self.mta.maildir("example.net", "ann") / ".Junk" / "new"
        self.mta.wait_for(lambda: junk.is_dir() and any(junk.iterdir()), "a message among junk")

    def test_mail_of_a_client_that_may_relay_is_not_examined(self) -> None:
        self.send(FROM_STRANGER, source=LOOPBACK)
        self.assertNotIn(b"Authentication-Results", self.received())
