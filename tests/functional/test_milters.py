"""Filters of Debian, asked by the MTA itself."""

from __future__ import annotations

import json
import smtplib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tests.policy.dkim.key_files import write_key
from tests.policy.dkim.keys import key, record
from twisted_mta.policy.dkim.body_hashes import body_hash
from twisted_mta.policy.dkim.signing import sign_all

from .machine import LOOPBACK, PATIENCE, free_port, has_ipv6, need
from .mail import ProgramTestCase, message, submit
from .milters import EICAR, GTUBE, ClamAV, OpenDMARC, Rspamd
from .mta import MTA
from .nsd import NSD
from .opendkim import OpenDKIM

KEY = key("rsa", "sender.example", "r")
OFF = '[policy]\nspf = "off"\ndkim = "off"\ndmarc = "off"\narc = "off"\n'


class Filter(Protocol):
    @property
    def endpoint(self) -> str: ...


def table(filter: Filter) -> str:
    """Return the table of a filter."""
    return f"[[milter]]\nendpoint = '{filter.endpoint}'\n"


class FilterTestCase(ProgramTestCase):
    def folder(self, name: str) -> Path:
        """Return a new folder for the files of a program."""
        made = self.home / name
        made.mkdir()
        return made

    def refusal(self, mta: MTA, content: bytes, *recipients: str) -> tuple[int, str]:
        """Return the reply that refuses a message at its end."""
        with self.assertRaises(smtplib.SMTPDataError) as refused:
            submit(mta.smtp, content, *(recipients or ("bob@localhost",)))
        text = refused.exception.smtp_error
        assert isinstance(text, bytes)
        return refused.exception.smtp_code, text.decode()


def header(mail: bytes) -> str:
    """Return the header section of a message, unfolded."""
    return " ".join(mail.split(b"\n\n", 1)[0].decode().split())


def signed(content: bytes) -> bytes:
    """Return a message with a DKIM signature in front."""
    section, _, body = content.partition(b"\r\n\r\n")
    return sign_all(section + b"\r\n", body_hash([body]), [KEY], time=1_790_000_000) + content


class _LocalClient(smtplib.SMTP):
    """A client that connects to a UNIX socket, whose path is its host."""

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(timeout)
        client.connect(host)
        return client


class WithRspamd(FilterTestCase):
    """Rspamd refuses the test line, and marks other mail."""

    def setUp(self) -> None:
        super().setUp()
        need("rspamd")

    def test_it_learns_where_mail_comes_from(self) -> None:
        port, path = free_port(), self.home / "submission.sock"
        rspamd = self.enterContext(Rspamd(self.folder("rspamd")))
        toml = f'[mta]\nlocal_submission = "unix:{path}"\n{OFF}{table(rspamd)}'
        clients: dict[str, Callable[[], smtplib.SMTP]] = {
            # As with Postfix, a user of this machine is one on loopback.
            "X-Client: 127.0.0.1": lambda: _LocalClient(str(path), timeout=PATIENCE),
        }
        if has_ipv6():
            toml += f"[[listener]]\nendpoint = 'tcp6:{port}:interface=\\:\\:1'\n"
            clients["X-Client: ::1"] = lambda: smtplib.SMTP("::1", port, timeout=PATIENCE)
        mta = self.enterContext(MTA(self.home, toml=toml))
        for number, (field, connect) in enumerate(clients.items()):
            with connect() as client:
                client.sendmail("ann@sender.example", f"bob{number}@localhost", message())
            (mail,) = mta.wait_for_mail("localhost", f"bob{number}")
            self.assertIn(field, header(mail))

    def test_spam_is_refused_and_what_looks_like_it_is_marked(self) -> None:
        rspamd = self.enterContext(Rspamd(self.folder("rspamd")))
        mta = self.enterContext(MTA(self.home, toml=table(rspamd) + OFF))
        code, text = self.refusal(mta, message("Buy", f"{GTUBE}\r\n"))
        self.assertEqual((code, text[:5]), (554, "5.7.1"), text)
        submit(mta.smtp, message("SPAM of a kind"), "bob@localhost")
        submit(mta.smtp, message("Greetings"), "carol@localhost")
        (marked,) = mta.wait_for_mail("localhost", "bob")
        (other,) = mta.wait_for_mail("localhost", "carol")
        self.assertIn(b"\nX-Spam: Yes\n", marked)
        self.assertNotIn(b"\nX-Spam:", other)
        log = mta.output()
        self.assertIn(f"milter=rewrite ({rspamd.endpoint})", log)
        self.assertIn(f"milter=refuse ({rspamd.endpoint})", log)


class WithOpenDMARC(FilterTestCase):
    """OpenDMARC refuses what a policy says, by the results of others; it is asked over IPv6."""

    def setUp(self) -> None:
        super().setUp()
        need("opendmarc")

    def check(self, mta: MTA) -> None:
        """Assert that unsigned mail is refused, and signed mail has a result."""
        code, text = self.refusal(mta, message())
        self.assertEqual((code, text[:5]), (550, "5.7.1"))
        self.assertIn("rejected by DMARC policy for sender.example", text)
        submit(mta.smtp, signed(message()), "bob@localhost")
        (mail,) = mta.wait_for_mail("localhost", "bob")
        self.assertIn(
            "Authentication-Results: opendmarc.example; dmarc=pass (p=reject dis=none)"
            " header.from=sender.example",
            header(mail),
        )

    def opendmarc(self, trusted: str) -> OpenDMARC:
        records = {"_dmarc.sender.example": "v=DMARC1; p=reject"}
        return self.enterContext(OpenDMARC(self.folder("opendmarc"), records, trusted=trusted))

    def test_it_reads_our_results(self) -> None:
        need("nsd", "nsd-checkconf")
        text = record(KEY).decode("ascii")
        strings = " ".join(f'"{text[at : at + 200]}"' for at in range(0, len(text), 200))
        zone = f'@ TXT "v=spf1 -all"\nr._domainkey TXT {strings}\n'
        server = self.enterContext(NSD(self.home, {"sender.example": zone}))
        toml = (
            '[mta]\nrelay_from = ["192.0.2.1"]\n'
            f'[dns]\nnameservers = ["{LOOPBACK}:{server.port}"]\n'
            '[policy]\ndmarc = "off"\narc = "off"\n' + table(self.opendmarc("mta.example"))
        )
        self.check(self.enterContext(MTA(self.home, toml=toml)))

    def test_it_takes_mail_that_spf_alone_aligns(self) -> None:
        need("nsd", "nsd-checkconf")
        zone = f'@ TXT "v=spf1 ip4:{LOOPBACK} -all"\n'
        server = self.enterContext(NSD(self.home, {"sender.example": zone}))
        toml = (
            '[mta]\nrelay_from = ["192.0.2.1"]\n'
            f'[dns]\nnameservers = ["{LOOPBACK}:{server.port}"]\n'
            '[policy]\ndmarc = "off"\narc = "off"\n' + table(self.opendmarc("mta.example"))
        )
        mta = self.enterContext(MTA(self.home, toml=toml))
        submit(mta.smtp, message(), "bob@localhost", sender="ann@sender.example")
        (mail,) = mta.wait_for_mail("localhost", "bob")
        self.assertIn("dmarc=pass (p=reject dis=none)", header(mail))

    def test_it_reads_the_results_of_opendkim(self) -> None:
        need("opendkim")
        keys = {KEY.record_name: record(KEY)}
        opendkim = self.enterContext(OpenDKIM(self.folder("opendkim"), keys))
        filters = table(opendkim) + table(self.opendmarc("opendkim.example"))
        self.check(self.enterContext(MTA(self.home, toml=OFF + filters)))


class WithClamAV(FilterTestCase):
    """ClamAV's milter is asked over a UNIX socket."""

    def setUp(self) -> None:
        super().setUp()
        need("clamd", "clamav-milter")

    def test_a_virus_is_refused_by_each_worker(self) -> None:
        filter = self.enterContext(ClamAV(self.folder("clamav"), "Reject"))
        mta = self.enterContext(MTA(self.home, "--workers", "2", toml=table(filter) + OFF))
        for number in range(4):
            self.assertEqual(
                self.refusal(mta, message("A virus", f"{EICAR}\r\n")),
                (550, "5.7.1 Found Eicar-Test.UNOFFICIAL"),
            )
            submit(mta.smtp, message(f"Number {number}"), "bob@localhost")
        for mail in mta.wait_for_mail("localhost", "bob", 4):
            self.assertIn("X-Virus-Status: Clean", header(mail))

    def test_a_virus_is_held_and_the_operator_sees_why(self) -> None:
        filter = self.enterContext(ClamAV(self.folder("clamav"), "Quarantine"))
        mta = self.enterContext(MTA(self.home, toml=table(filter) + OFF))
        submit(mta.smtp, message("A virus", f"{EICAR}\r\n"), "bob@localhost")
        submit(mta.smtp, message("Greetings"), "carol@localhost")
        mta.wait_for_mail("localhost", "carol")
        (entry,) = json.loads(mta.tool("queue", "list", "--json").stdout)["messages"]
        shown = mta.tool("queue", "show", entry["id"])
        self.assertIn("Eicar-Test", shown.stdout)
        self.assertEqual(mta.mail("localhost", "bob"), [])
        released = mta.tool("queue", "release", entry["id"])
        self.assertEqual(released.returncode, 0, released.stderr)
        self.assertIn(EICAR.encode(), mta.wait_for_mail("localhost", "bob")[0])


class WithOpenDKIM(FilterTestCase):
    """OpenDKIM signs, and another verifies what the first has signed."""

    def setUp(self) -> None:
        super().setUp()
        need("opendkim")

    def test_one_verifies_what_the_other_signs(self) -> None:
        file = Path(write_key(str(self.home / "key.pem"), "rsa-2048"))
        signer = self.enterContext(
            OpenDKIM(self.folder("signer"), signs=("sender.example", "r", file))
        )
        records = {KEY.record_name: record(KEY)}
        verifier = self.enterContext(OpenDKIM(self.folder("verifier"), records))
        mta = self.enterContext(MTA(self.home, toml=table(signer) + table(verifier)))
        for number in range(3):
            submit(mta.smtp, message(f"Number {number}"), "bob@localhost")
        for mail in mta.wait_for_mail("localhost", "bob", 3):
            self.assertIn("DKIM-Signature: v=1; a=rsa-sha256;", header(mail))
            self.assertIn("Authentication-Results: opendkim.example; dkim=pass", header(mail))
        self.assertIn("checked: client=127.0.0.1 milter=rewrite (tcp:127.0.0.1:", mta.output())

    def test_a_filter_that_is_restarted_is_asked_again(self) -> None:
        verifier = self.enterContext(OpenDKIM(self.folder("verifier")))
        mta = self.enterContext(MTA(self.home, toml=table(verifier)))
        submit(mta.smtp, message("One"), "bob@localhost")
        verifier.stop()
        with self.assertRaisesRegex(Exception, "451"):
            submit(mta.smtp, message("Two"), "bob@localhost")
        verifier.start()
        submit(mta.smtp, message("Three"), "bob@localhost")
        self.assertEqual(len(mta.wait_for_mail("localhost", "bob", 2)), 2)
