"""LMTP with swaks, smtplib and Postfix as clients."""

import smtplib

from .machine import LOOPBACK, need, run
from .mail import ProgramTestCase, message, submit, trusting
from .mta import MTA
from .postfix import Postfix


class ByLMTP(ProgramTestCase):
    """A running MTA with LMTP listeners on TCP and a UNIX socket."""

    delivery = "queue"

    def setUp(self) -> None:
        super().setUp()
        self.socket = self.home / "lmtp.sock"
        self.mta = MTA(
            self.home,
            *("--lmtp", f"tcp:0:interface={LOOPBACK}", "--lmtp", f"unix:{self.socket}:mode=666"),
            toml=f'[mta]\nlmtp_delivery = "{self.delivery}"\n',
        )
        self.enterContext(self.mta)

    def assertDelivered(self, local_part: str, with_type: str) -> None:
        (mail,) = self.mta.wait_for_mail("localhost", local_part)
        received = b" ".join(mail.split(b"\n\n", 1)[0].split())
        self.assertIn(f" with {with_type} id ".encode("ascii"), received)
        self.assertIn(b"Good morning!", mail)

    def test_swaks_delivers_over_starttls(self) -> None:
        need("swaks")
        sent = run(
            "swaks",
            *("--protocol", "LMTP", "--server", LOOPBACK, "--port", str(self.mta.lmtp), "--tls"),
            *("--ehlo", "client.example", "--from", "ann@sender.example"),
            *("--to", "bob@localhost,eve@localhost", "--body", "Good morning!"),
        )
        self.assertEqual(sent.returncode, 0, sent.stdout)
        self.assertIn("=== TLS started", sent.stdout)
        self.assertDelivered("bob", "LMTPS")
        self.assertDelivered("eve", "LMTPS")

    def test_smtplib_delivers_over_tcp_and_a_unix_socket(self) -> None:
        with smtplib.LMTP(LOOPBACK, self.mta.lmtp) as client:
            client.starttls(context=trusting())
            client.sendmail("ann@sender.example", ["bob@localhost"], message())
        self.assertDelivered("bob", "LMTPS")
        with smtplib.LMTP(str(self.socket)) as client:
            client.sendmail("ann@sender.example", ["eve@localhost"], message())
        self.assertDelivered("eve", "LMTP")

    def test_postfix_delivers_over_tcp_and_a_unix_socket(self) -> None:
        need("postfix")
        postfix = Postfix(
            self.home,
            {
                "transport_maps": (
                    f"inline:{{ {{localhost=lmtp:inet:[{LOOPBACK}]:{self.mta.lmtp}}},"
                    f" {{bob@localhost=lmtp:unix:{self.socket}}} }}"
                ),
                "lmtp_tls_security_level": "may",
            },
        )
        self.enterContext(postfix)
        submit(
            postfix.port, message(), "bob@localhost", "eve@localhost", "ann@localhost",
            starttls=False,
        )  # fmt: skip
        for local_part, with_type in (("bob", "LMTP"), ("eve", "LMTPS"), ("ann", "LMTPS")):
            self.assertDelivered(local_part, with_type)


class StraightToMaildirs(ByLMTP):
    """The same with direct delivery, without the queue."""

    delivery = "direct"

    def test_a_mailbox_that_cannot_be_written_is_deferred_to_the_client(self) -> None:
        broken = self.mta.maildir("localhost", "eve")
        broken.parent.mkdir(parents=True)
        broken.write_text("no folder")
        with smtplib.LMTP(LOOPBACK, self.mta.lmtp) as client:
            client.ehlo("client.example")
            client.docmd("MAIL", "FROM:<ann@sender.example>")
            for name in ("bob", "eve"):
                client.docmd("RCPT", f"TO:<{name}@localhost>")
            client.docmd("DATA")
            client.send(message() + b".\r\n")
            replies = [client.getreply(), client.getreply()]
        self.assertEqual([code for code, _ in replies], [250, 451], replies)
        self.assertDelivered("bob", "LMTP")
