"""Common clients, sending to a running MTA over STARTTLS."""

import socket
import subprocess
import threading

from .machine import LOOPBACK, PATIENCE, need, path_of, run
from .mail import ProgramTestCase, as_stored, message, submit
from .mta import MTA


class Clients(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.mta = self.enterContext(MTA(self.home))

    def assertDelivered(
        self, *, with_type: str = "ESMTPS", text: bytes = b"Good morning!"
    ) -> bytes:
        (mail,) = self.mta.wait_for_mail("localhost", "bob")
        self.assertTrue(mail.startswith(b"Return-Path: <ann@sender.example>\n"), mail)
        received = b" ".join(mail.split(b"\n\n", 1)[0].split())
        self.assertIn(f" with {with_type} ".encode("ascii"), received)
        self.assertIn(text, mail)
        self.assertNotIn(b"\r", mail)
        return mail

    def test_swaks_delivers_into_a_maildir(self) -> None:
        need("swaks")
        sent = run(
            "swaks",
            *("--server", LOOPBACK, "--port", str(self.mta.smtp), "--tls"),
            *("--ehlo", "client.example", "--from", "ann@sender.example"),
            *("--to", "bob@localhost", "--body", "Good morning!"),
        )
        self.assertEqual(sent.returncode, 0, sent.stdout)
        self.assertIn("=== TLS started", sent.stdout)
        self.assertDelivered()

    def test_smtplib_delivers_over_starttls(self) -> None:
        submit(self.mta.smtp, message(), "bob@localhost")
        mail = self.assertDelivered()
        self.assertTrue(mail.endswith(as_stored(message())), mail)

    def test_smtplib_delivers_in_clear(self) -> None:
        submit(self.mta.smtp, message(), "bob@localhost", starttls=False)
        self.assertDelivered(with_type="ESMTP")

    def test_curl_delivers_with_required_tls(self) -> None:
        need("curl")
        (self.home / "message").write_bytes(message())
        sent = run(
            "curl",
            *("--silent", "--show-error", "--ssl-reqd", "--insecure", "--noproxy", "*"),
            *("--mail-from", "ann@sender.example", "--mail-rcpt", "bob@localhost"),
            *("--upload-file", self.home / "message"),
            f"smtp://{LOOPBACK}:{self.mta.smtp}/client.example",
        )
        self.assertEqual(sent.returncode, 0, sent.stdout)
        self.assertDelivered()

    def test_a_message_typed_into_openssl_s_client_is_delivered(self) -> None:
        need("openssl")
        client = subprocess.Popen(
            [
                *(path_of("openssl"), "s_client", "-quiet", "-crlf", "-starttls", "smtp"),
                *("-connect", f"{LOOPBACK}:{self.mta.smtp}"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.addCleanup(client.wait)
        self.addCleanup(client.kill)
        patience = threading.Timer(PATIENCE, client.kill)
        self.addCleanup(patience.cancel)
        patience.start()
        assert client.stdin is not None
        assert client.stdout is not None
        self.addCleanup(client.stdin.close)
        self.addCleanup(client.stdout.close)
        # Some versions show the end of the reply to the EHLO before STARTTLS, some do not: go by
        # the beginning of the reply to ours.
        client.stdin.write("EHLO client.example\n")
        client.stdin.flush()
        while not (line := client.stdout.readline()).startswith("250-"):
            self.assertNotEqual(line, "", "openssl has ended")
        while (line := client.stdout.readline())[3:4] == "-":
            self.assertNotIn("STARTTLS", line)
        self.assertTrue(line.startswith("250 "), line)
        for said, answer in (
            ("MAIL FROM:<ann@sender.example>", "250 "),
            ("RCPT TO:<bob@localhost>", "250 "),
            ("DATA", "354 "),
            ("Subject: Typed\n\nGood morning!\n.", "250 "),
            ("QUIT", "221 "),
        ):
            client.stdin.write(f"{said}\n")
            client.stdin.flush()
            line = client.stdout.readline()
            self.assertTrue(line.startswith(answer), f"{said}: {line}")
        self.assertDelivered()

    def test_quit_after_the_final_dot_gets_both_replies_and_one_delivery(self) -> None:
        # RFC 2920 §3.1 lets a client send them together, and Postfix does.
        groups = (
            (b"EHLO client.example\r\n", 1),
            (b"MAIL FROM:<ann@sender.example>\r\nRCPT TO:<bob@localhost>\r\nDATA\r\n", 3),
            (message() + b".\r\nQUIT\r\n", 2),
        )
        with (
            socket.create_connection((LOOPBACK, self.mta.smtp), PATIENCE) as connection,
            connection.makefile("rb") as replies,
        ):
            codes = [replies.readline()[:4]]
            for octets, expected in groups:
                connection.sendall(octets)
                for _ in range(expected):
                    while (line := replies.readline())[3:4] == b"-":
                        pass
                    codes.append(line[:4])
        self.assertEqual(codes, [b"220 ", b"250 ", b"250 ", b"250 ", b"354 ", b"250 ", b"221 "])
        self.assertDelivered(with_type="ESMTP")
