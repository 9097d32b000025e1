"""Is all well? What page, readiness, metrics, tool and log say of troubles as they come and go."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import smtplib
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import TypeVar

from tests.server.authority import Authority

from .clock import WallClock
from .machine import LOOPBACK, children, eventually, free_port, need, need_proc, path_of, runs
from .mail import ProgramTestCase, message, submit
from .mta import MTA
from .sinks import Sink

SOON = 5.0
"""Seconds within which a trouble is seen, and seen to be over."""

_T = TypeVar("_T")


class HealthTestCase(ProgramTestCase):
    def get(self, mta: MTA, path: str) -> tuple[int, str]:
        asked = HTTPConnection(LOOPBACK, mta.web, timeout=10)
        with contextlib.closing(asked):
            asked.request("GET", path)
            answer = asked.getresponse()
            return answer.status, answer.read().decode()

    def metric(self, mta: MTA, kind: str, severity: str) -> float:
        pattern = rf'^twisted_mta_trouble{{kind="{kind}",severity="{severity}"}} (\S+)$'
        (found,) = re.findall(pattern, self.get(mta, "/metrics")[1], re.MULTILINE)
        return float(found)

    @contextlib.contextmanager
    def soon(self, what: str) -> Iterator[Callable[[Callable[[], _T]], _T]]:
        """Wait for several conditions, all of which have to hold within `SOON`."""
        began = time.monotonic()

        def wait(check: Callable[[], _T]) -> _T:
            return eventually(check, what, SOON)

        yield wait
        self.assertLess(time.monotonic() - began, SOON, what)

    def assertSeen(
        self, mta: MTA, kind: str, severity: str, *, page: str, readyz: str, code: int = 200
    ) -> None:
        with self.soon(f"{kind} to be seen") as wait:
            wait(lambda: (found := self.get(mta, "/readyz"))[0] == code and readyz in found[1])
            wait(lambda: page in self.get(mta, "/")[1])
            wait(lambda: self.metric(mta, kind, severity) == 1)
        self.assertEqual(self.get(mta, "/healthz")[0], 200)
        shown = mta.tool("status").stdout
        self.assertRegex(shown, rf"(?m)^trouble\W+{severity}, for \d+ s: .*{re.escape(page)}")
        mta.wait_for(lambda: re.search(rf"\] {kind}: .*{re.escape(page)}", mta.output()), "a line")

    def assertOver(self, mta: MTA, kind: str, severity: str, *, page: str, readyz: str) -> None:
        with self.soon(f"the end of {kind}") as wait:
            wait(lambda: (found := self.get(mta, "/readyz"))[0] == 200 and readyz not in found[1])
            wait(lambda: page not in self.get(mta, "/")[1])
            wait(lambda: self.metric(mta, kind, severity) == 0)
        mta.wait_for(
            lambda: re.search(rf"\] {kind}: over after \d+ s: .*{re.escape(page)}", mta.output()),
            "a line about the end",
        )


class OwnDisk(MTA):
    """An MTA whose state directory is a small file system in memory."""

    def __init__(self, home: Path, *options: str, toml: str = "") -> None:
        super().__init__(home, *options, toml=toml)
        self.state.mkdir(mode=0o700)

    def command(self) -> list[str | Path]:
        """Return the command that mounts the state directory and starts the MTA."""
        script = 'mount -t tmpfs -o size=40m,mode=700 tmpfs "$1" && shift && exec "$@"'
        return [
            *(path_of("unshare"), "--mount", "--propagation", "private"),
            *(path_of("sh"), "-c", script, "sh", self.state),
            *super().command(),
        ]

    @property
    def disk(self) -> Path:
        """Its state directory, as it is seen from outside."""
        return Path(f"/proc/{self.pid}/root{self.state}")


class FullDisk(HealthTestCase):
    def test_a_full_disk_is_seen_and_seen_to_have_room_again(self) -> None:
        need("unshare")
        need_proc()
        toml = '[mta]\nminimum_free_disk = "8 MiB"\n'
        with OwnDisk(self.home, toml=toml) as mta:
            self.assertEqual(self.get(mta, "/readyz"), (200, "ready\n"))
            filling = mta.disk / "filling"
            with filling.open("wb") as file:
                free = os.statvfs(mta.disk)
                file.write(b"x" * (free.f_bavail * free.f_frsize - (12 << 20)))
            with self.soon("a warning") as wait:
                wait(lambda: "and mail is refused below 8,388,608" in self.get(mta, "/readyz")[1])
                self.assertEqual(self.metric(mta, "disk", "warning"), 1)
            with filling.open("ab") as file:
                file.write(b"x" * (6 << 20))
            text = "octets of the disk are free, and minimum_free_disk is 8,388,608"
            with self.soon("the full disk") as wait:
                wait(lambda: (seen := self.get(mta, "/readyz"))[0] == 503 and text in seen[1])
                self.assertIn("not ready: ", self.get(mta, "/")[1])
                self.assertEqual(self.metric(mta, "disk", "critical"), 1)
            with contextlib.suppress(OSError), filling.open("ab") as file:
                while True:  # outcomes of deliveries cannot be written either
                    file.write(b"x" * 4096)
                    file.flush()
            self.assertEqual(self.get(mta, "/healthz")[0], 200)
            with self.assertRaises(smtplib.SMTPResponseException) as refused:
                submit(mta.smtp, message(), "bob@localhost")
            self.assertEqual(refused.exception.smtp_code, 452)
            mta.wait_for(lambda: text in mta.output(), "a line")
            filling.unlink()
            self.assertOver(mta, "disk", "critical", page=text, readyz=text)
            submit(mta.smtp, message(), "bob@localhost")


class StoppedWorker(HealthTestCase):
    def test_a_stopped_worker_is_seen_and_replaced(self) -> None:
        need_proc()
        with MTA(self.home, "--workers", "2") as mta:
            first, second = mta.wait_for(
                lambda: found if len(found := children(mta.pid)) == 2 else [], "both workers"
            )
            self.assertEqual(self.get(mta, "/readyz"), (200, "ready\n"))
            text = "worker 1 is not answering"
            os.kill(second, signal.SIGSTOP)
            stopped = time.monotonic()
            self.assertSeen(mta, "workers", "warning", page=text, readyz=text)
            eventually(
                lambda: not runs(second) and self.metric(mta, "workers", "warning") == 0,
                "its successor",
                45 - (time.monotonic() - stopped),
            )
            self.assertEqual(self.get(mta, "/readyz"), (200, "ready\n"))
            self.assertTrue(runs(first))
            self.assertNotIn(text, self.get(mta, "/")[1])
            self.assertIn("worker 1 has not answered for 30 s, and is killed", mta.output())
            submit(mta.smtp, message(), "bob@localhost")
            mta.wait_for_mail("localhost", "bob")

    def test_a_worker_that_goes_on_is_seen_to(self) -> None:
        need_proc()
        with MTA(self.home, "--workers", "2") as mta:
            workers = mta.wait_for(
                lambda: found if len(found := children(mta.pid)) == 2 else [], "both workers"
            )
            text = "worker 1 is not answering"
            os.kill(workers[1], signal.SIGSTOP)
            try:
                self.assertSeen(mta, "workers", "warning", page=text, readyz=text)
            finally:
                os.kill(workers[1], signal.SIGCONT)
            self.assertOver(mta, "workers", "warning", page=text, readyz=text)


class DeadNextHop(HealthTestCase):
    def test_a_dead_next_hop_is_seen_with_the_mail_that_waits(self) -> None:
        port = free_port()
        toml = '[queue]\nretry_minimum = "1 s"\nretry_maximum = "1 s"\n'
        route = f"relay.example=smtp://{LOOPBACK}:{port}"
        with MTA(self.home, "--route", route, toml=toml) as mta:
            for _ in range(3):
                submit(mta.smtp, message(), "bob@relay.example")
            name = f"smtp:{LOOPBACK}:{port}"
            brief = "next hops are suspended"
            self.assertSeen(mta, "next_hops", "warning", page=name, readyz=brief)
            self.assertNotIn(name, self.get(mta, "/readyz")[1])
            mta.wait_for(lambda: "(3 recipients" in self.get(mta, "/")[1], "the mail behind it")
            sink = self.enterContext(Sink(self.home, port=port))
            sink.wait_for_messages(3)
            with self.soon("the end of the suspension") as wait:
                wait(lambda: self.get(mta, "/readyz") == (200, "ready\n"))
                wait(lambda: self.metric(mta, "next_hops", "warning") == 0)


class ExpiredCertificate(HealthTestCase):
    def test_a_certificate_that_expires_is_seen_until_it_is_renewed(self) -> None:
        need("cc")
        authority = Authority()
        path = self.home / "mx.pem"
        authority.issue("mx.example").save(str(self.home), "mx.pem")
        clock = WallClock(self.home)
        mta = MTA(self.home, "--tls-certificate", str(path))
        mta.environment = clock.environment
        with mta:
            self.assertEqual(self.get(mta, "/readyz"), (200, "ready\n"))
            clock.set(29 * 86_400.0)
            text = "the certificate expires on"
            self.assertSeen(mta, "certificate", "warning", page=text, readyz=text)
            self.assertEqual(self.metric(mta, "clock", "warning"), 1)
            clock.set(40 * 86_400.0)
            text = "the certificate expired on"
            self.assertSeen(mta, "certificate", "critical", page=text, readyz=text)
            authority.issue("mx.example", days=(-1, 400)).save(str(self.home), "mx.pem")
            self.assertEqual(mta.tool("reload").returncode, 0)
            self.assertOver(mta, "certificate", "critical", page=text, readyz=text)
