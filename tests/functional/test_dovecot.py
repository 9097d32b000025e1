"""Delivery to Debian's Dovecot by LMTP."""

from .dovecot import Dovecot
from .machine import LOOPBACK, eventually, need, run
from .mail import MIB, ProgramTestCase, message, message_with_attachment, submit
from .mta import MTA

DOMAIN = "store.example"


class DovecotTestCase(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        need("dovecot", "/usr/lib/dovecot/lmtp")

    def start(self, route: str, dovecot: Dovecot, *options: str) -> None:
        self.dovecot = self.enterContext(dovecot)
        self.mta = self.enterContext(
            MTA(self.home, "--local-domain", "localhost", "--route", f"{DOMAIN}={route}", *options)
        )

    def by_tcp(self) -> None:
        dovecot = Dovecot(self.home)
        self.start(f"lmtp://{LOOPBACK}:{dovecot.port}", dovecot)

    def submit(self, content: bytes, *users: str) -> None:
        submit(
            self.mta.smtp,
            content,
            *(f"{user}@{DOMAIN}" for user in users),
            sender="sender@localhost",
        )

    def assertStored(self, user: str, content: bytes) -> None:
        (mail,) = self.dovecot.wait_for_mail(user)
        self.assertTrue(mail.endswith(content.replace(b"\r\n", b"\n")), mail[:2000])


class DovecotAsNextHop(DovecotTestCase):
    def test_mail_is_delivered_over_tcp(self) -> None:
        self.by_tcp()
        content = message_with_attachment(MIB)
        self.submit(content, "ann", "bob")
        self.assertStored("ann", content)
        self.assertStored("bob", content)

    def test_mail_is_delivered_over_a_unix_socket(self) -> None:
        dovecot = Dovecot(self.home)
        self.start(f"lmtp+unix:{dovecot.socket}", dovecot)
        self.submit(message(), "ann", "bob")
        self.assertStored("ann", message())
        self.assertStored("bob", message())

    def test_each_recipient_has_its_own_reply(self) -> None:
        """One is unknown, the mailbox of one is full; the others get the mail."""
        self.by_tcp()
        self.submit(message(), "ann", "nobody", "full", "bob")
        self.assertStored("ann", message())
        self.assertStored("bob", message())
        (report,) = self.mta.wait_for_mail("localhost", "sender")
        groups = [group for group in report.split(b"\n\n") if b"Final-Recipient" in group]
        self.assertEqual(len(groups), 2, report)
        for user, status in ((b"nobody", b"5.1.1"), (b"full", b"5.2.2")):
            (group,) = (group for group in groups if user in group)
            self.assertIn(b"Status: " + status, group)
            self.assertIn(b"Remote-MTA", group)
        self.assertEqual(self.dovecot.mail("full"), [])

    def test_a_burst_is_delivered_without_loss_and_duplicates(self) -> None:
        need("smtp-source")
        self.by_tcp()
        sent = run(
            "smtp-source",
            *("-s", "5", "-m", "100", "-d", "-l", "2000"),
            *("-f", "sender@localhost", "-t", f"ann@{DOMAIN}"),
            f"{LOOPBACK}:{self.mta.smtp}",
        )
        self.assertEqual(sent.returncode, 0, sent.stdout)
        self.assertEqual(len(self.dovecot.wait_for_mail("ann", 100)), 100)

    def test_mail_waits_while_dovecot_is_stopped(self) -> None:
        dovecot = Dovecot(self.home)
        configuration = '[queue]\nretry_minimum = "1 s"\n'
        self.mta = self.enterContext(
            MTA(
                self.home,
                *("--local-domain", "localhost"),
                *("--route", f"{DOMAIN}=lmtp://{LOOPBACK}:{dovecot.port}"),
                toml=configuration,
            )
        )
        self.submit(message(), "ann")
        eventually(lambda: "deferred" in self.mta.output().lower(), "a delivery that is deferred")
        self.dovecot = self.enterContext(dovecot)
        self.assertStored("ann", message())


class DovecotWithTLS(DovecotTestCase):
    def test_lmtp_uses_tls_if_dovecot_offers_it(self) -> None:
        need("openssl")
        pair = self.home / "pair.pem"
        made = run(
            "openssl",
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-days", "2", "-subj", "/CN=dovecot.example"),
            *("-keyout", pair, "-out", self.home / "certificate.pem"),
        )
        self.assertEqual(made.returncode, 0, made.stdout)
        with pair.open("a", encoding="ascii") as file:
            file.write((self.home / "certificate.pem").read_text("ascii"))
        dovecot = Dovecot(self.home, pair=pair)
        self.start(f"lmtp://{LOOPBACK}:{dovecot.port}", dovecot)
        self.submit(message(), "ann")
        self.assertStored("ann", message())
        (mail,) = self.dovecot.mail("ann")
        header = b" ".join(mail.split(b"\n\n", 1)[0].split())
        self.assertRegex(header, rb"by dovecot\.example with LMTPS")
