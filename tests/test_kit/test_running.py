"""`running`: a real listener in a thread, for blocking programs."""

from __future__ import annotations

import os
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from email.message import EmailMessage

from twisted.internet.error import CannotListenError
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.testing import RunningMTA, running

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MAIL = "Subject: Hi\r\n\r\nGood morning!\r\n"


def send(mta: RunningMTA, *recipients: str, mail: str = MAIL) -> None:
    with smtplib.SMTP(mta.host, mta.port, timeout=10) as client:
        client.sendmail("ann@sender.test", recipients, mail)


def descriptors() -> Counter[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}").partition(":")[0])
        except FileNotFoundError:  # that of listdir itself
            continue
    return Counter(each for each in found if each in ("socket", "anon_inode", "pipe"))


class Receiving(SynchronousTestCase):
    def test_mail_for_any_recipient_is_in_the_inbox_once_its_client_hears_250(self) -> None:
        with running() as mta:
            send(mta, "bob@user.test", "eve@elsewhere.example")
            (message,) = mta.inbox
        self.assertEqual(message.sender, "ann@sender.test")
        self.assertEqual(message.to, ("bob@user.test", "eve@elsewhere.example"))
        self.assertEqual((message.subject, message.text), ("Hi", "Good morning!\n"))
        self.assertEqual(message.raw, MAIL.encode())

    def test_the_null_sender_is_empty(self) -> None:
        with running() as mta:
            with smtplib.SMTP(mta.host, mta.port, timeout=10) as client:
                client.sendmail("", ["bob@user.test"], MAIL)
            self.assertEqual(mta.inbox[0].sender, "")

    def test_wait_for_returns_a_message_that_comes_later(self) -> None:
        with running() as mta:
            sending = threading.Timer(0.05, send, (mta, "Bob@user.test"))
            sending.start()
            self.addCleanup(sending.join)
            self.assertEqual(mta.wait_for("bob@USER.test").subject, "Hi")

    def test_wait_for_returns_each_message_once_in_order(self) -> None:
        with running() as mta:
            send(mta, "bob@user.test", mail="Subject: one\r\n\r\n")
            send(mta, "eve@user.test", mail="Subject: two\r\n\r\n")
            send(mta, "bob@user.test", mail="Subject: three\r\n\r\n")
            subjects = [mta.wait_for("bob@user.test").subject for _ in range(2)]
            self.assertEqual(subjects, ["one", "three"])
            self.assertEqual(mta.wait_for("eve@user.test").subject, "two")

    def test_mail_that_does_not_come_is_an_error_that_names_the_mail_that_came(self) -> None:
        with running() as mta:
            send(mta, "eve@user.test")
            error = self.assertRaises(TimeoutError, mta.wait_for, "bob@user.test", timeout=0.01)
        self.assertEqual(
            str(error), "no new message for bob@user.test in 0.01 s; found mail for: eve@user.test"
        )

    def test_a_server_is_emptied(self) -> None:
        with running() as mta:
            send(mta, "bob@user.test")
            mta.clear()
            self.assertEqual(mta.inbox, [])
            self.assertRaises(TimeoutError, mta.wait_for, "bob@user.test", timeout=0)

    def test_two_servers_run_at_once(self) -> None:
        with running() as one, running() as other:
            send(one, "bob@user.test")
            self.assertNotEqual(one.port, other.port)
            self.assertEqual((len(one.inbox), len(other.inbox)), (1, 0))

    def test_a_message_above_the_size_is_refused(self) -> None:
        with running(max_message_size=1000) as mta:
            large = EmailMessage()
            large.set_content("x\n" * 1000)
            error = self.assertRaises(
                smtplib.SMTPSenderRefused, send, mta, "bob@user.test", mail=large.as_string()
            )
            self.assertEqual(error.smtp_code, 552)


class Secured(SynchronousTestCase):
    def test_mail_comes_under_starttls_that_trusts_the_authority(self) -> None:
        with running(tls="starttls") as mta:
            trust = ssl.create_default_context(cafile=mta.authorities)
            trust.verify_flags |= ssl.VERIFY_X509_STRICT  # the default of Python 3.13
            with smtplib.SMTP("localhost", mta.port, timeout=10) as client:
                client.starttls(context=trust)
                client.sendmail("ann@sender.test", ["bob@user.test"], MAIL)
            self.assertEqual(len(mta.inbox), 1)
        self.assertFalse(os.path.exists(mta.authorities))

    def test_mail_comes_under_implicit_tls(self) -> None:
        with running(tls="implicit") as mta:
            trust = ssl.create_default_context(cafile=mta.authorities)
            with smtplib.SMTP_SSL(mta.host, mta.port, context=trust, timeout=10) as client:
                client.sendmail("ann@sender.test", ["bob@user.test"], MAIL)
            self.assertEqual(len(mta.inbox), 1)

    def test_a_user_logs_in(self) -> None:
        with running(users={"ann": "secret"}) as mta:
            with smtplib.SMTP(mta.host, mta.port, timeout=10) as client:
                client.login("ann", "secret")
                client.sendmail("ann@sender.test", ["bob@user.test"], MAIL)
            self.assertEqual(mta.inbox[0].user, "ann")

    def test_a_wrong_password_and_mail_without_a_login_are_refused(self) -> None:
        with running(users={"ann": "secret"}) as mta:
            with smtplib.SMTP(mta.host, mta.port, timeout=10) as client:
                for _ in range(2):
                    error = self.assertRaises(
                        smtplib.SMTPAuthenticationError, client.login, "ann", "wrong"
                    )
                    self.assertEqual(error.smtp_code, 535)
            refused = self.assertRaises(smtplib.SMTPSenderRefused, send, mta, "bob@user.test")
            self.assertEqual(refused.smtp_code, 530)

    def test_under_tls_a_login_in_clear_is_not_offered(self) -> None:
        with (
            running(users={"ann": "secret"}, tls="starttls") as mta,
            smtplib.SMTP(mta.host, mta.port, timeout=10) as client,
        ):
            client.ehlo()
            self.assertFalse(client.has_extn("auth"))
            client.starttls(context=ssl.create_default_context(cafile=mta.authorities))
            client.login("ann", "secret")


class Failing(SynchronousTestCase):
    """Recipients that make failures happen."""

    def refused(self, mta: RunningMTA, recipient: str) -> tuple[int, bytes]:
        error = self.assertRaises(smtplib.SMTPRecipientsRefused, send, mta, recipient)
        (answer,) = error.recipients.values()
        return answer

    def test_a_code_is_the_answer_to_the_recipient(self) -> None:
        with running() as mta:
            self.assertEqual(
                self.refused(mta, "bob+550@user.test"), (550, b"5.1.1 as the recipient asks")
            )
            self.assertEqual(self.refused(mta, "bob+451@user.test")[0], 451)
            self.assertEqual(mta.inbox, [])

    def test_other_recipients_of_the_message_are_accepted(self) -> None:
        with running() as mta:
            send(mta, "bob+550@user.test", "eve@user.test")
            self.assertEqual(mta.inbox[0].to, ("eve@user.test",))

    def test_a_code_behind_data_is_the_answer_to_the_content(self) -> None:
        with running() as mta:
            error = self.assertRaises(
                smtplib.SMTPDataError, send, mta, "eve@user.test", "bob+data-554@user.test"
            )
            self.assertEqual(error.smtp_code, 554)
            self.assertEqual(mta.inbox, [])

    def test_the_connection_is_closed_at_the_recipient(self) -> None:
        with running() as mta:
            self.assertRaises(smtplib.SMTPServerDisconnected, send, mta, "bob+drop@user.test")
            self.assertEqual(mta.inbox, [])

    def test_the_message_is_taken_and_its_answer_lost(self) -> None:
        with running() as mta:
            self.assertRaises(smtplib.SMTPServerDisconnected, send, mta, "bob+data-drop@user.test")
            self.assertEqual(len(mta.inbox), 1)

    def test_the_answer_comes_late(self) -> None:
        for recipient in ("bob+slow-50@user.test", "bob+data-slow-50@user.test"):
            with running() as mta, smtplib.SMTP(mta.host, mta.port, timeout=0.2) as client:
                arguments = ("ann@sender.test", [recipient], MAIL)
                self.assertRaises(smtplib.SMTPException, client.sendmail, *arguments)

    def test_other_tags_are_ordinary_addresses(self) -> None:
        with running() as mta:
            send(mta, "bob+news@user.test", "bob+250@user.test", "550@user.test")
            self.assertEqual(len(mta.inbox[0].to), 3)


class Ending(SynchronousTestCase):
    def test_no_thread_port_or_descriptor_stays(self) -> None:
        threads, before = set(threading.enumerate()), descriptors()
        with running(tls="starttls") as mta:
            lingering = socket.create_connection((mta.host, mta.port))
            self.addCleanup(lingering.close)
            self.assertTrue(lingering.recv(100).startswith(b"220 localhost "))
        self.assertLessEqual(set(threading.enumerate()), threads)
        self.assertRaises(ConnectionRefusedError, send, mta, "bob@user.test")
        lingering.close()
        self.assertLessEqual(descriptors(), before)

    def test_an_error_in_the_block_stops_the_server(self) -> None:
        def fail() -> None:
            with running() as mta:
                raise LookupError(str(mta.port))

        error = self.assertRaises(LookupError, fail)
        address = ("127.0.0.1", int(str(error)))
        self.assertRaises(ConnectionRefusedError, socket.create_connection, address)

    def test_it_may_be_stopped_twice(self) -> None:
        mta = running()
        mta.stop()
        mta.stop()

    def test_an_error_of_the_start_is_raised_and_leaves_nothing(self) -> None:
        threads, before = set(threading.enumerate()), descriptors()
        with running() as mta:
            during = descriptors()
            start: Callable[[], object] = lambda: running(port=mta.port)  # noqa: E731
            self.assertRaises(CannotListenError, start)
            self.assertLessEqual(descriptors(), during)
        self.assertRaises(ValueError, lambda: running(tls="sometimes"))  # type: ignore[arg-type]
        self.assertLessEqual(set(threading.enumerate()), threads)
        self.assertLessEqual(descriptors(), before)


IN_A_FRESH_PROCESS = """
import signal, smtplib, ssl, sys
handlers = [signal.getsignal(number) for number in signal.valid_signals()]
from twisted_mta.testing import running
with running(users={"ann": "secret"}, tls="starttls") as mta:
    with smtplib.SMTP(mta.host, mta.port, timeout=10) as client:
        client.starttls(context=ssl.create_default_context(cafile=mta.authorities))
        client.login("ann", "secret")
        client.sendmail("ann@sender.test", ["bob@user.test"], "Subject: Hi\\r\\n\\r\\n")
    assert mta.wait_for("bob@user.test").subject == "Hi"
assert "twisted.internet.reactor" not in sys.modules
assert "twisted_mta.service" not in sys.modules, "a whole agent takes twice as long to import"
assert handlers == [signal.getsignal(number) for number in signal.valid_signals()]
"""


class Beside(SynchronousTestCase):
    def test_no_reactor_is_installed_and_no_signal_handler_set(self) -> None:
        ran = subprocess.run(
            [sys.executable, "-c", IN_A_FRESH_PROCESS],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": ROOT},
        )
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))
