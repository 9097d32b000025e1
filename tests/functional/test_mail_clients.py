"""Mail programs that submit to a running MTA with AUTH."""

import smtplib
import subprocess
import unittest

from .machine import LOOPBACK, need, path_of, run
from .mail import ProgramTestCase, message, trusting
from .mta import MTA, TOOL

PASSWORD = "open sesame 71"


class Submission(ProgramTestCase):
    options: tuple[str, ...] = ()

    def setUp(self) -> None:
        super().setUp()
        self.users = self.home / "users"
        self.add("ann", "ann@sender.example")
        self.mta = self.enterContext(
            MTA(
                self.home,
                *("--submission", f"tcp:0:interface={LOOPBACK}"),
                *("--submissions", f"tcp:0:interface={LOOPBACK}"),
                *("--users", str(self.users)),
                *("--route", "*=discard:"),
                *self.options,
            )
        )

    def add(self, name: str, address: str) -> None:
        added = run(
            *(TOOL, "users", "add", "--file", self.users, "--address", address, name),
            text=f"{PASSWORD}\n",
        )
        self.assertEqual(added.returncode, 0, added.stdout)

    def assertSubmitted(self, text: bytes = b"Good morning!") -> bytes:
        (mail,) = self.mta.wait_for_mail("localhost", "bob")
        self.assertIn(b" with ESMTPSA ", b" ".join(mail.split(b"\n\n", 1)[0].split()))
        self.assertIn(b"\nDate: ", mail)
        self.assertIn(b"\nMessage-I", mail)
        self.assertIn(text, mail)
        log = self.mta.output()
        self.assertIn(" user=ann", log)
        self.assertNotIn(PASSWORD, log)
        return mail


class Swaks(Submission):
    options = ("--auth", "memory:tim:toady")

    def swaks(self, *options: str) -> "subprocess.CompletedProcess[str]":
        need("swaks")
        return run(
            *("swaks", "--server", LOOPBACK, "--ehlo", "client.example"),
            *("--from", "ann@sender.example", "--to", "bob@localhost", "--body", "Good morning!"),
            *options,
        )

    def test_plain_over_starttls_is_accepted(self) -> None:
        sent = self.swaks(
            *("--port", str(self.mta.submission), "--tls", "--auth", "PLAIN"),
            *("--auth-user", "ann", "--auth-password", PASSWORD),
        )
        self.assertEqual(sent.returncode, 0, sent.stdout)
        self.assertSubmitted()

    def test_login_under_implicit_tls_is_accepted(self) -> None:
        sent = self.swaks(
            *("--port", str(self.mta.submissions), "--tls-on-connect", "--auth", "LOGIN"),
            *("--auth-user", "ann", "--auth-password", PASSWORD),
        )
        self.assertEqual(sent.returncode, 0, sent.stdout)
        self.assertSubmitted()

    def test_cram_md5_is_offered_if_the_checker_has_passwords(self) -> None:
        sent = self.swaks(
            *("--port", str(self.mta.submission), "--tls", "--auth", "CRAM-MD5"),
            *("--auth-user", "tim", "--auth-password", "toady", "--from", "tim@localhost"),
        )
        if "AUTH CRAM-MD5 not available" in sent.stdout:
            raise unittest.SkipTest("this swaks has no CRAM-MD5")
        self.assertEqual(sent.returncode, 0, sent.stdout)
        (mail,) = self.mta.wait_for_mail("localhost", "bob")
        self.assertIn(b" with ESMTPSA ", b" ".join(mail.split()))

    def test_a_wrong_password_and_another_users_address_are_refused(self) -> None:
        sent = self.swaks(
            *("--port", str(self.mta.submission), "--tls", "--auth", "PLAIN"),
            *("--auth-user", "ann", "--auth-password", "sesame"),
        )
        self.assertNotEqual(sent.returncode, 0)
        self.assertIn("535 5.7.8", sent.stdout)
        sent = self.swaks(
            *("--port", str(self.mta.submission), "--tls", "--auth", "PLAIN"),
            *("--auth-user", "ann", "--auth-password", PASSWORD, "--from", "eve@sender.example"),
        )
        self.assertNotEqual(sent.returncode, 0)
        self.assertIn("550 5.7.1", sent.stdout)


class Others(Submission):
    def test_smtplib_chooses_a_mechanism(self) -> None:
        with smtplib.SMTP(LOOPBACK, self.mta.submission) as client:
            client.starttls(context=trusting())
            client.login("ann", PASSWORD)
            client.sendmail("ann@sender.example", ["bob@localhost"], message())
        self.assertSubmitted()

    def test_curl_submits_a_message(self) -> None:
        need("curl")
        (self.home / "message").write_bytes(message())
        sent = run(
            "curl",
            *("--silent", "--show-error", "--insecure", "--noproxy", "*"),
            *("--user", f"ann:{PASSWORD}"),
            *("--mail-from", "ann@sender.example", "--mail-rcpt", "bob@localhost"),
            *("--upload-file", str(self.home / "message")),
            f"smtps://{LOOPBACK}:{self.mta.submissions}/client.example",
        )
        self.assertEqual(sent.returncode, 0, sent.stdout)
        self.assertSubmitted()

    def msmtp(self, mechanism: str) -> None:
        need("msmtp")
        (self.home / "password").write_text(PASSWORD)
        sent = subprocess.run(
            [
                *(path_of("msmtp"), "--host", LOOPBACK, f"--port={self.mta.submission}"),
                *("--tls=on", "--tls-starttls=on", "--tls-certcheck=off", f"--auth={mechanism}"),
                *("--user=ann", f"--passwordeval=cat {self.home / 'password'}"),
                *("--from=ann@sender.example", "--domain=client.example", "bob@localhost"),
            ],
            input=b"Subject: Greetings\n\nGood morning!\n",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.assertEqual(sent.returncode, 0, sent.stdout)
        self.assertSubmitted()
        name = mechanism.upper()
        self.assertIn(f"authenticated as user=ann by {name}", self.mta.output())

    def test_msmtp_authenticates_by_scram_sha_256(self) -> None:
        self.msmtp("scram-sha-256")

    def test_msmtp_authenticates_by_scram_sha_1(self) -> None:
        self.msmtp("scram-sha-1")

    def test_msmtp_authenticates_by_plain(self) -> None:
        self.msmtp("plain")

    def test_s_nail_submits_a_message(self) -> None:
        need("s-nail")
        (self.home / "rc").write_text(
            f"""
            set v15-compat tls-verify=ignore smtp-hostname=sender.example
            set from=ann@sender.example smtp-auth=login
            set mta=smtps://ann:{PASSWORD.replace(" ", "%20")}@{LOOPBACK}:{self.mta.submissions}
            """
        )
        sent = subprocess.run(
            [
                *(path_of("s-nail"), "-:/", "-X", f"source {self.home / 'rc'}"),
                *("-r", "ann@sender.example", "-S", "sendwait"),
                *("-s", "Greetings", "bob@localhost"),
            ],
            input=b"Good morning!\n",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.assertEqual(sent.returncode, 0, sent.stdout)
        self.assertSubmitted()
