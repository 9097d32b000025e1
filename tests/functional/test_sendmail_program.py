"""``twisted-mta-sendmail`` in the place of sendmail: while the MTA is up, restarting and down."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from email import message_from_bytes
from email.message import Message
from pathlib import Path

from twisted.trial.unittest import SkipTest

from twisted_mta.message.maildrop import WaitingEnvelope, written

from .cron import Cron
from .machine import ROOT, eventually, need
from .mail import ProgramTestCase
from .mta import MTA

_TOML = """
[mta]
local_submission = "unix:{home}/submission.sock"
local_submission_directory = "{home}/drop"
recipients = "existing"
workers = {workers}

[[listener]]
kind = "smtp"
endpoint = "tcp:0:interface=127.0.0.1"
"""

_CONF = """
# for all users
socket = {home}/submission.sock
directory = "{home}/drop"
state_dir = {home}/mta-state
domain = localhost
"""

_PROGRAM = """#!{python} -P
import sys
sys.path.insert(0, {root!r})
from twisted_mta.submitter.command import main
main()
"""

_TEXT = "Subject: Greetings\nTo: bob\n\nGood morning!\n"


class SendmailTestCase(ProgramTestCase):
    """An MTA that is not started, with mailboxes, and the program beside it."""

    workers = 1

    def setUp(self) -> None:
        super().setUp()
        self.mta = MTA(self.home, toml=_TOML.format(home=self.home, workers=self.workers))
        self.addCleanup(self.mta.stop)
        for name in ("bob", "eve", pwd.getpwuid(os.getuid()).pw_name, "daemon"):
            self.mta.maildir("localhost", name).joinpath("new").mkdir(parents=True)
        self.mta.state.chmod(0o700)
        conf = self.home / "sendmail.conf"
        conf.write_text(_CONF.format(home=self.home))
        self.environment = {**os.environ, "TWISTED_MTA_SENDMAIL": str(conf), "MAILRC": os.devnull}
        self.environment.pop("PYTHONPATH", None)
        self.sendmail = self.home / "sendmail"
        self.sendmail.write_text(_PROGRAM.format(python=sys.executable, root=str(ROOT)))
        self.sendmail.chmod(0o755)
        for name in ("mailq", "newaliases"):
            (self.home / name).symlink_to(self.sendmail)

    def run_program(
        self, *words: str | Path, text: str = _TEXT, user: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            list(map(str, words)),
            input=text,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            user=user,
            group=None if user is None else pwd.getpwnam(user).pw_gid,
            extra_groups=None if user is None else [],
            check=False,
        )

    def send(self, *words: str, text: str = _TEXT, user: str | None = None) -> str:
        done = self.run_program(self.sendmail, *words, text=text, user=user)
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout

    def make_directory(self) -> None:
        """Run the MTA until it has made the directory where mail waits."""
        with self.mta:
            self.mta.wait_for((self.home / "drop").is_dir, "the directory of waiting mail")

    def waiting(self) -> list[str]:
        return sorted(os.listdir(self.home / "drop"))

    def mail(self, name: str = "bob", count: int = 1) -> list[Message]:
        return [
            message_from_bytes(each) for each in self.mta.wait_for_mail("localhost", name, count)
        ]


class Sending(SendmailTestCase):
    def test_a_message_arrives_while_the_mta_is_up(self) -> None:
        with self.mta:
            said = self.send("-v", "bob", text="hello\n.\nno more\n")
            self.assertIn("the MTA has taken the message: 250 2.0.0 Queued as", said)
            (mail,) = self.mail()
        user = pwd.getpwuid(os.getuid()).pw_name
        self.assertEqual(mail["Return-Path"], f"<{user}@localhost>")
        self.assertIn(f"<{user}@localhost>", mail["From"])
        self.assertIn(f"(from user id {os.getuid()})", mail["Received"])
        self.assertTrue(mail["Date"] and mail["Message-ID"])
        self.assertEqual(mail.get_payload(), "hello\n")

    def test_recipients_of_the_header_and_hidden_ones(self) -> None:
        with self.mta:
            self.send("-t", "-i", "-f", "eve", text="To: bob\nBcc: eve@localhost\n\n.\n..x\n")
            (mail,), (hidden,) = self.mail(), self.mail("eve")
        for each in (mail, hidden):
            self.assertEqual((each["To"], each["Bcc"]), ("bob", None))
            self.assertEqual(each.get_payload(), ".\n..x\n")

    def test_the_exit_status_tells_what_is_wrong_and_others_get_the_mail(self) -> None:
        with self.mta:
            done = self.run_program(self.sendmail, "bob", "nosuch")
            self.assertEqual(done.returncode, os.EX_NOUSER)
            self.assertIn("nosuch@localhost: 550 5.1.1 No such mailbox here", done.stdout)
            self.mail()
            for status, *words in (
                (os.EX_USAGE, "-Z"),
                (os.EX_USAGE,),
                (os.EX_DATAERR, "a b c"),
                (os.EX_DATAERR, "bob@local@host"),
                (os.EX_CONFIG, "-C", "/nonexistent", "bob"),
            ):
                done = self.run_program(self.sendmail, *words)
                self.assertEqual(done.returncode, status, (words, done.stdout))

    def test_mail_waits_while_the_mta_is_down_and_arrives_at_its_start(self) -> None:
        self.make_directory()
        said = self.send("-v", "bob", "nosuch")
        self.assertIn("the message waits for the MTA in", said)
        self.assertEqual(len(self.waiting()), 1)
        self.mta.start()
        (mail,) = self.mail()
        self.assertIn(f"(from user id {os.getuid()})", mail["Received"])
        (notice,) = self.mail(pwd.getpwuid(os.getuid()).pw_name)
        self.assertIn("550 5.1.1 No such mailbox here", notice.as_string())
        eventually(lambda: not self.waiting(), "an empty directory")

    def test_recipients_of_a_long_list_get_it_in_several_transactions(self) -> None:
        self.mta = MTA(
            self.home,
            *("--route", "list.example=discard:"),
            toml=_TOML.format(home=self.home, workers=1),
        )
        self.addCleanup(self.mta.stop)
        many = [f"b{number}@list.example" for number in range(1_500)]
        with self.mta:
            self.send("bob", *many)
            self.mail()
            self.mta.wait_for(
                lambda: self.mta.output().count("discarded: ") >= len(many), "the whole list"
            )
        self.send("bob", *many)
        self.assertEqual(len(self.waiting()), 2)
        self.mta.start()
        self.mail(count=2)
        self.mta.wait_for(
            lambda: self.mta.output().count("discarded: ") >= len(many), "the whole list"
        )

    def test_nothing_is_lost_while_the_mta_is_restarted_and_killed(self) -> None:
        self.mta.start()
        sending = [self._sender() for _ in range(2)]
        for end in (self.mta.terminate, self.mta.kill):
            end()
            time.sleep(0.5)
            self.mta.start()
        counts = []
        for each in sending:
            said, _ = each.communicate(timeout=120)
            self.assertEqual(each.returncode, 0, said)
            counts.append(int(said.split()[-1]))
        self.assertEqual(counts, [15, 15])
        self.mta.wait_for(lambda: not self.waiting(), "all that waits")
        mail = self.mail(count=30)
        self.assertEqual(len({each["Subject"] for each in mail}), 30)

    def _sender(self) -> subprocess.Popen[str]:
        script = (
            "for i in $(seq 15); do printf 'Subject: %s-%s\\n\\nhi\\n' $$ $i"
            f" | {self.sendmail} bob || exit 1; sleep 0.1; done; echo $i"
        )
        return subprocess.Popen(
            ["sh", "-c", script], env=self.environment, stdout=subprocess.PIPE, text=True
        )

    def wait_for_line(self, text: str) -> None:
        """Wait for a line of the log: a thread may deliver before the reactor logs what it took."""
        self.mta.wait_for(lambda: text in self.mta.output(), text)

    def test_another_user_sends_and_waits_and_is_known_by_its_id(self) -> None:
        if os.getuid() != 0:
            raise SkipTest("only root can be another user")
        # Another user need not reach the folders that the tests run from.
        shutil.copytree(
            ROOT / "twisted_mta",
            self.home / "lib" / "twisted_mta",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        python = "/usr/bin/python3"
        if not os.path.exists(python):
            raise SkipTest("there is no python3 of the system")
        trial = "import sys; sys.exit(sys.version_info < (3, 11))"
        if self.run_program(python, "-c", trial, user="daemon").returncode != 0:
            raise SkipTest("the system's python3 is too old")
        self.sendmail.write_text(_PROGRAM.format(python=python, root=str(self.home / "lib")))
        number = pwd.getpwnam("daemon").pw_uid
        with self.mta:
            self.send("bob", user="daemon")
            self.mail()
            self.wait_for_line("client=unix helo=localhost")
        self.send("bob", user="daemon")
        denied = self.run_program("ls", self.home / "drop", user="daemon")
        self.assertNotEqual(denied.returncode, 0)
        self.mta.start()
        for mail in self.mail(count=2):
            self.assertEqual(mail["Return-Path"], "<daemon@localhost>")
            self.assertIn(f"(from user id {number})", mail["Received"])
        self.wait_for_line(f"user=uid:{number}")
        listed = self.run_program(self.home / "mailq", user="daemon")
        self.assertEqual(listed.returncode, os.EX_NOPERM, listed.stdout)

    def test_mailq_newaliases_and_smtp(self) -> None:
        with self.mta:
            listed = self.run_program(self.home / "mailq")
            self.assertEqual(listed.returncode, 0, listed.stdout)
            reloaded = self.run_program(self.home / "newaliases")
            self.assertEqual(reloaded.returncode, 0, reloaded.stdout)
            dialogue = "EHLO x\nMAIL FROM:<>\nRCPT TO:<bob@localhost>\nDATA\nA: b\n\nhi\n.\nQUIT\n"
            spoken = self.run_program(self.sendmail, "-bs", text=dialogue.replace("\n", "\r\n"))
            self.assertEqual(spoken.returncode, 0, spoken.stdout)
            self.mail()

    def test_without_a_socket_mail_of_the_owner_goes_by_the_directory_at_once(self) -> None:
        self.mta = MTA(self.home)
        self.addCleanup(self.mta.stop)
        conf = self.home / "sendmail.conf"
        conf.write_text(
            f"socket = {self.home}/none\nstate_dir = {self.mta.state}\ndomain=localhost"
        )
        with self.mta:
            self.send("bob")
            # The program returns when it was taken in.
            self.assertEqual(os.listdir(self.mta.state / "maildrop"), [])
            self.mail()


class SendingToWorkers(SendmailTestCase):
    workers = 2

    def test_mail_arrives_and_waits(self) -> None:
        with self.mta:
            self.send("bob")
            self.mail()
        self.send("bob", "nosuch")
        self.mta.start()
        self.mail(count=2)
        self.mail(pwd.getpwuid(os.getuid()).pw_name)


class Programs(SendmailTestCase):
    """Programs that people use, with the MTA up, and down."""

    def check(self, *command: str | Path, text: str = "Good morning!\n") -> None:
        """Run a program that mails bob, with the MTA up, and down."""
        with self.mta:
            done = self.run_program(*command, text=text)
            self.assertEqual(done.returncode, 0, done.stdout)
            self.mail()
        done = self.run_program(*command, text=text)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.mta.start()
        for mail in self.mail(count=2):
            self.assertEqual(mail["Subject"], "Greetings")
            self.assertIn("Good morning!", mail.get_payload())

    def test_php(self) -> None:
        need("php")
        code = 'exit(mail("bob@localhost", "Greetings", "Good morning!\n.\n", "Cc: eve") ? 0 : 1);'
        self.check("php", "-d", f"sendmail_path={self.sendmail} -t -i", "-r", code)

    def test_s_nail(self) -> None:
        need("s-nail")
        self.check("s-nail", "-n", f"-Smta={self.sendmail}", "-sGreetings", "bob@localhost")


class CronJobs(SendmailTestCase):
    """Debian's cron mails the output of its jobs with the program as ``/usr/sbin/sendmail``."""

    def setUp(self) -> None:
        super().setUp()
        need("cron", "sendmail", "unshare")

    def cron(self, *commands: str) -> Cron:
        """Return a cron that runs commands of root at its start, and mails bob."""
        home = self.home / "cron"
        home.mkdir(exist_ok=True)
        cron = Cron(
            home,
            self.sendmail,
            [("root", command) for command in commands],
            mail_to="bob@localhost",
            environment={"TWISTED_MTA_SENDMAIL": str(self.home / "sendmail.conf")},
        )
        self.addCleanup(cron.stop)
        return cron

    def test_output_of_a_job_arrives_whether_the_mta_is_up_or_down(self) -> None:
        cron = self.cron("echo the output; echo an error >&2")
        with self.mta, cron:
            self.mail()
        with cron:
            eventually(
                lambda: [name[:5] for name in self.waiting()] == ["mail-"], "a message that waits"
            )
        self.mta.start()
        for mail in self.mail(count=2):
            self.assertEqual(mail["Return-Path"], "<root@localhost>")
            self.assertEqual(mail["From"], "root (Cron Daemon)")
            self.assertTrue(mail["Subject"].endswith(" echo the output; echo an error >&2"))
            self.assertIn("(from user id 0)", mail["Received"])
            self.assertEqual(mail.get_payload(), "the output\nan error\n")

    def test_output_of_each_job_arrives_while_the_mta_restarts_and_is_killed(self) -> None:
        jobs = [f"sleep {number / 4}; echo job {number}" for number in range(12)]
        self.mta.start()
        with self.cron(*jobs):
            for end in (self.mta.terminate, self.mta.kill):
                end()
                time.sleep(0.5)
                self.mta.start()
            # A kill between a commit and the end of a file makes a second copy.
            said = {f"job {number}\n" for number in range(12)}
            self.mta.wait_for(
                lambda: {each.get_payload() for each in self.mail()} == said, "the output of each"
            )


class HostileUsers(SendmailTestCase):
    """What local users may try on the socket; the others go on."""

    @property
    def path(self) -> str:
        """The path of the socket."""
        return str(self.home / "submission.sock")

    def connection(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        self.addCleanup(client.close)
        client.settimeout(30)
        client.connect(self.path)
        return client

    def test_floods_of_one_user_end_at_the_limit_and_the_message_waits(self) -> None:
        with self.mta:
            clients = [self.connection() for _ in range(55)]
            greetings = [each.recv(4) for each in clients]
            self.assertEqual(greetings.count(b"220 "), 50)
            self.assertEqual(greetings.count(b"421 "), 5)
            self.send("bob")  # waits, as there is no connection for this user
            self.mail()
            python = "/usr/bin/python3"  # another user need not reach the one of the tests
            if os.getuid() == 0 and os.path.exists(python):
                code = f"from socket import *; s = socket(AF_UNIX); s.connect({self.path!r})"
                code += "; print(s.recv(4))"
                other = self.run_program(python, "-c", code, user="daemon")
                self.assertEqual(other.stdout, "b'220 '\n")

    def test_mail_leaves_the_rest_of_the_disk_to_the_queue(self) -> None:
        self.make_directory()
        conf = self.home / "sendmail.conf"
        lines = conf.read_text()
        # More than any disk has.
        conf.write_text(f"{lines}\nminimum_free_disk = {(1 << 42) - 1}\n")
        done = self.run_program(self.sendmail, "bob")
        self.assertEqual(done.returncode, os.EX_TEMPFAIL, done.stdout)
        self.assertIn("it cannot wait in", done.stdout)
        self.assertRegex(done.stdout, r"found \d+ octets free, expected \d+ or more")
        self.assertEqual(self.waiting(), [])
        conf.write_text(f"{lines}\nminimum_free_disk = 0\n")
        self.send("bob")
        self.assertEqual(len(self.waiting()), 1)

    def test_a_flood_that_waits_is_counted_and_another_user_is_served_first(self) -> None:
        if os.getuid() != 0:
            raise SkipTest("only root can be another user")
        self.make_directory()
        envelope = WaitingEnvelope("flood@localhost", ("eve@localhost",))
        for number in range(3_000):
            path = self.home / "drop" / f"mail-{number}"
            path.write_bytes(written(envelope) + b"Subject: flood\r\n\r\nx\r\n")
            os.chown(path, pwd.getpwnam("daemon").pw_uid, -1)
        self.send("bob")
        self.mta.start()
        self.mail()
        self.assertLess(len(self.mta.mail("localhost", "eve")), 2_000)
        status = self.mta.tool("status")
        self.assertRegex(status.stdout, r"mail of this machine: [1-9]\d* waiting to be taken in")
        facts = json.loads(self.mta.tool("status", "--json").stdout)
        self.assertGreater(facts["local_submission"]["waiting"], 0)

    def test_half_a_message_and_another_protocol_leave_nothing(self) -> None:
        with self.mta:
            half = self.connection()
            half.sendall(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<bob@localhost>\r\nDATA\r\nSubject: h")
            self.assertTrue(half.recv(1000))
            half.close()
            for octets in (b"\0" * 100_000, b"GET / HTTP/1.1\r\n\r\n" * 100, b"x" * 1_000_000):
                client = self.connection()
                with contextlib.suppress(OSError):
                    client.sendall(octets)
                    client.shutdown(socket.SHUT_WR)
                    while client.recv(65_536):
                        pass
            self.send("bob")
            self.assertEqual(len(self.mail()), 1)
            self.assertEqual(self.mta.terminate(), 0, self.mta.output())

    def test_a_killed_program_leaves_no_message(self) -> None:
        with self.mta:
            program = subprocess.Popen(
                [self.sendmail, "bob"], env=self.environment, stdin=subprocess.PIPE
            )
            assert program.stdin is not None
            program.stdin.write(b"Subject: half\n\nhal")
            program.stdin.flush()
            time.sleep(0.3)
            program.send_signal(signal.SIGKILL)
            program.wait()
            program.stdin.close()
            self.send("bob")
            self.assertEqual([each["Subject"] for each in self.mail()], ["Greetings"])
