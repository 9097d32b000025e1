"""The MTA as a process: ``twistd -n mta``."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import smtplib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from twisted.application.service import IService
from zope.interface.verify import verifyObject

from tests.functional.machine import eventually
from tests.tidy import TidyTestCase
from twisted_mta.daemon.service import Options, makeService

ENDED_WHEN_READY = """
import os, signal
from twisted.logger import globalLogPublisher
from twisted.scripts.twistd import run

def observe(event):
    if str(event.get("log_format")).startswith("ready: "):
        os.kill(os.getpid(), signal.SIGTERM)

globalLogPublisher.addObserver(observe)
run()
"""

ENDED_WHILE_THE_REACTOR_STARTS = """
import os, signal
from twisted.internet import reactor
from twisted.scripts.twistd import run

# The reactor's own trigger comes before: its handlers are set, and those of the daemon not again.
reactor.addSystemEventTrigger("during", "startup", os.kill, os.getpid(), signal.SIGTERM)
run()
"""

WITHOUT_WORKERS = """
import sys
from twisted.scripts.twistd import run

sys.executable = "/nonexistent/python"
run()
"""

PATIENCE = 30.0
"""Seconds to wait for a process; a loaded machine may take long."""


class Making(TidyTestCase):
    def test_making_the_service_opens_nothing(self) -> None:
        directory = Path(self.mktemp()).absolute()
        threads = set(threading.enumerate())
        handler = signal.getsignal(signal.SIGTERM)
        interval = sys.getswitchinterval()
        options = Options()
        options.parseOptions(
            ["--state-dir", str(directory), "--smtp", "tcp:0:interface=127.0.0.1", "--web", "off"]
        )
        service = makeService(options)
        self.assertTrue(verifyObject(IService, service))
        self.assertFalse(directory.exists())
        self.assertLessEqual(set(threading.enumerate()), threads)
        self.assertIs(signal.getsignal(signal.SIGTERM), handler)
        self.assertEqual(sys.getswitchinterval(), interval)


class ProcessTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.home.mkdir(parents=True)

    def command(self, *options: str) -> list[str]:
        return [
            str(Path(sys.executable).with_name("twistd")),
            "-n",
            "--pidfile=",
            "mta",
            *("--hostname", "mta.example"),
            *(() if "--web" in options else ("--web", "off")),
            *(() if "--smtp" in options else ("--smtp", "tcp:0:interface=127.0.0.1")),
            *options,
        ]

    def run_to_its_end(self, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*options),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE,
            check=False,
        )

    @contextlib.contextmanager
    def running(self, *options: str) -> Iterator[Running]:
        process = subprocess.Popen(
            self.command(*options),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        # A process that hangs is killed, which closes the pipe that the test reads.
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        try:
            yield Running(process)
        finally:
            watchdog.cancel()
            process.kill()
            process.communicate()

    def assertOneClearLine(self, ended: subprocess.CompletedProcess[str], *words: str) -> None:
        """It has ended with status 1, and one line that says why."""
        said = ended.stdout + ended.stderr
        self.assertEqual(ended.returncode, 1, said)
        self.assertNotIn("Traceback", said)
        (line,) = [line for line in said.splitlines() if "twisted-mta: " in line]
        for word in words:
            self.assertIn(word, line)


class Running:
    """A process that is ready.

    Attributes:
        ready: its line in the log.
        port: of its SMTP listener.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.output: IO[str] = process.stdout
        self.ready = self.wait_for("ready")
        found = re.search(r"smtp tcp 127\.0\.0\.1:(\d+)", self.ready)
        self.port = int(found[1]) if found else 0

    def wait_for(self, word: str) -> str:
        """Read what it says up to a line with ``word``."""
        said = []
        for line in self.output:
            said.append(line)
            if re.search(rf"\b{word}\b", line):
                return line
        raise AssertionError(f"it ended before {word!r}:\n{''.join(said)}")

    def end(self, *signals: int) -> tuple[int, str]:
        """Send signals; return its status and what it said since `wait_for`."""
        for number in signals:
            self.process.send_signal(number)
        rest = self.output.read()
        return self.process.wait(PATIENCE), rest

    def client(self) -> Any:
        """Return a connection that has said EHLO."""
        client = smtplib.SMTP("127.0.0.1", self.port, timeout=PATIENCE)
        client.ehlo("client.example")
        return client


class Lifecycle(ProcessTestCase):
    def test_the_process_is_ready_once_it_listens_and_exits_with_status_0(self) -> None:
        with self.running("--web", "tcp:0:interface=127.0.0.1") as mta:
            self.assertRegex(mta.ready, r"ready: smtp tcp 127\.0\.0\.1:\d+, web tcp 127\.0\.0\.1:")
            with mta.client() as client:
                client.sendmail("ann@sender.example", ["bob@localhost"], "Subject: Hi\r\n\r\n")
            status, rest = mta.end(signal.SIGTERM)
        self.assertEqual(status, 0, rest)
        self.assertNotIn("Traceback", rest)

    def test_the_process_may_be_ended_as_soon_as_it_is_ready(self) -> None:
        self.ends_with_status_0(ENDED_WHEN_READY)

    def test_the_process_may_be_ended_while_the_reactor_starts(self) -> None:
        self.ends_with_status_0(ENDED_WHILE_THE_REACTOR_STARTS)

    def ends_with_status_0(self, script: str) -> None:
        ended = subprocess.run(
            [sys.executable, "-c", script, *self.command()[1:]],
            cwd=self.home,
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)
        self.assertIn("Server Shut Down.", ended.stdout)

    def test_the_log_says_what_to_try(self) -> None:
        with self.running() as mta:
            line = mta.wait_for("try")
            command = line[line.index("python3 -c") :].replace("python3", sys.executable, 1)
            shown = mta.wait_for("cat")
            subprocess.run(command, shell=True, check=True, timeout=PATIENCE)
            self.assertIn(str(self.home), shown)
            mta.wait_for("delivered")
            content = subprocess.run(
                shown[shown.index("cat ") :],
                shell=True,
                check=True,
                timeout=PATIENCE,
                capture_output=True,
            ).stdout
            self.assertIn(b"It works.", content)

    def test_an_open_transaction_ends_before_the_process(self) -> None:
        with self.running() as mta:
            client = mta.client()
            for command in ("MAIL FROM:<ann@sender.example>", "RCPT TO:<bob@localhost>", "DATA"):
                client.docmd(command)
            mta.process.send_signal(signal.SIGTERM)
            mta.wait_for("Closed")
            client.send("Subject: Hi\r\n\r\n.\r\n")
            self.assertEqual(client.getreply()[0], 250)
            self.assertEqual(client.getreply()[0], 421)
            client.close()
            status, rest = mta.end()
        self.assertEqual(status, 0, rest)

    def test_the_same_signal_twice_at_once_counts_as_one(self) -> None:
        with self.running() as mta:
            client = mta.client()
            client.docmd("MAIL FROM:<ann@sender.example>")
            mta.process.send_signal(signal.SIGTERM)
            mta.wait_for("Closed")
            mta.process.send_signal(signal.SIGTERM)
            client.close()
            status, rest = mta.end()
        self.assertEqual(status, 0, rest)
        self.assertNotIn("Traceback", rest)

    def test_a_second_signal_during_the_drain_cuts_sessions_off(self) -> None:
        settings = self.home / "mta.toml"
        settings.write_text('[mta]\ndrain_timeout = "1 h"\n', encoding="utf-8")
        with self.running("--config", str(settings)) as mta:
            client = mta.client()
            client.docmd("MAIL FROM:<ann@sender.example>")
            mta.process.send_signal(signal.SIGTERM)
            mta.wait_for("Closed")
            # A signal within half a second counts as the same one.
            self.assertRaises(subprocess.TimeoutExpired, mta.process.wait, 0.6)
            status, rest = mta.end(signal.SIGTERM)
            client.close()
        self.assertEqual(status, 0, rest)
        self.assertIn("told once more to end", rest)
        self.assertNotIn("Traceback", rest)

    def test_only_the_owner_can_read_the_state_directory(self) -> None:
        with self.running() as mta:
            state = self.home / "mta-state"
            self.assertEqual(state.stat().st_mode & 0o777, 0o700)
            others = [
                path.name
                for path in state.rglob("*")
                if path.is_file() and path.stat().st_mode & 0o077
            ]
            self.assertEqual(others, [])
            mta.end(signal.SIGTERM)


class Refusing(ProcessTestCase):
    def test_an_unknown_option_is_refused(self) -> None:
        ended = self.run_to_its_end("--hostnaem", "x")
        self.assertEqual(ended.returncode, 1, ended)
        self.assertIn("hostnaem", ended.stdout + ended.stderr)
        self.assertNotIn("Traceback", ended.stdout + ended.stderr)

    def test_a_value_that_cannot_be_used_is_refused(self) -> None:
        ended = self.run_to_its_end("--relay-from", "300.0.0.0/8")
        self.assertEqual(ended.returncode, 1, ended)
        self.assertIn("300.0.0.0/8", ended.stdout + ended.stderr)
        self.assertNotIn("Traceback", ended.stdout + ended.stderr)
        self.assertFalse((self.home / "mta-state").exists())

    def test_a_port_in_use_fails_the_start(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            ended = self.run_to_its_end("--smtp", endpoint)
        self.assertOneClearLine(ended, endpoint, "ddress already in use")

    def test_a_state_directory_in_use_fails_the_start(self) -> None:
        with self.running() as mta:
            ended = self.run_to_its_end()
            self.assertOneClearLine(ended, str(self.home / "mta-state"), str(mta.process.pid))
            with mta.client() as client:
                self.assertEqual(client.noop()[0], 250)

    def test_a_state_directory_that_cannot_be_made_fails_the_start(self) -> None:
        (self.home / "file").touch()
        ended = self.run_to_its_end("--state-dir", str(self.home / "file" / "state"))
        self.assertOneClearLine(ended, str(self.home / "file"))

    def test_a_certificate_that_cannot_be_read_fails_the_start(self) -> None:
        ended = self.run_to_its_end("--tls-certificate", str(self.home / "none.pem"))
        self.assertOneClearLine(ended, "none.pem")

    def test_a_file_that_is_no_queue_fails_the_start(self) -> None:
        state = self.home / "mta-state"
        state.mkdir(mode=0o700)
        (state / "queue.sqlite").write_bytes(os.urandom(10_000))  # noqa: TID251 - any will do
        ended = self.run_to_its_end()
        self.assertOneClearLine(ended, "queue.sqlite")

    def test_workers_that_cannot_start_fail_the_start(self) -> None:
        # The failure is known before the reactor runs, and stops that, too.
        program = [sys.executable, "-c", WITHOUT_WORKERS, *self.command("--workers", "2")[1:]]
        ended = subprocess.run(
            program,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE,
            check=False,
        )
        self.assertOneClearLine(ended, "no process can be started")


class InTheBackground(ProcessTestCase):
    def test_a_failed_start_in_the_background_is_reported_to_the_operator(self) -> None:
        ended = subprocess.run(
            [
                str(Path(sys.executable).with_name("twistd")),
                *("--pidfile", "pid", "--logfile", "log", "mta"),
                *("--smtp", "tcp:0:interface=300.1.1.1", "--web", "off"),
            ],
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=30,
        )
        self.assertEqual(ended.returncode, 1, ended)
        self.assertIn("cannot listen on tcp:0:interface=300.1.1.1", ended.stderr + ended.stdout)
        # The process in the background ends a moment after it has given the reason.
        eventually(lambda: os.listdir(self.home) == ["log"], "the pid file to be removed")
