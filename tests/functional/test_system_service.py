"""The MTA as a service: under systemd, and in a container.

The units and commands are read from the documentation, and tried as far as possible without a
running systemd or container engine.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .machine import (
    LOOPBACK,
    PATIENCE,
    ROOT,
    children,
    eventually,
    free_port,
    listens,
    need,
    need_proc,
    path_of,
    runs,
)
from .mail import ProgramTestCase, message, submit
from .mta import MTA

_BIN = Path(sys.executable).parent


def blocks(page: str) -> Mapping[str, str]:
    """Return the code blocks of a page, by caption."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    captioned = re.findall(r"^ +:caption: (.*)\n\n((?: {3}.*\n|\n)+)", text, re.MULTILINE)
    return {caption: textwrap.dedent(block).strip() + "\n" for caption, block in captioned}


class Units(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        need("systemd-analyze")
        place = "/etc/systemd/system/"
        self.units = {
            caption.removeprefix(place): block
            for caption, block in blocks("systemd.rst").items()
            if caption.startswith(place)
        }
        for name, block in self.units.items():
            # The programs of this test's environment.
            block = block.replace("/opt/mta/bin", str(_BIN))
            (self.home / name).parent.mkdir(exist_ok=True)
            (self.home / name).write_text(block, encoding="utf-8")

    def analyze(self, *arguments: str) -> str:
        done = subprocess.run(
            [path_of("systemd-analyze"), *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            cwd=self.home,
            env={**os.environ, "SYSTEMD_COLORS": "0"},
        )
        said = done.stdout + done.stderr
        self.assertEqual(done.returncode, 0, said)
        return said

    def test_systemd_accepts_every_line_of_the_units(self) -> None:
        self.assertEqual(
            list(self.units), ["mta.service", "mta.socket", "mta.service.d/sockets.conf"]
        )
        self.assertEqual(self.analyze("verify", "--man=no", "./mta.socket", "./mta.service"), "")

    def test_the_exposure_of_the_service_is_low(self) -> None:
        for drop_in in (True, False):
            if not drop_in:
                shutil.rmtree(self.home / "mta.service.d")
            said = self.analyze("security", "--offline=true", "--threshold=20", "./mta.service")
            self.assertIn("Overall exposure level for mta.service: 1.", said)

    def test_the_stop_timeout_covers_the_drain(self) -> None:
        """`drain_timeout`, 60 s for next hops, and 10 s until the parent kills its workers."""
        stop = re.search(r"^TimeoutStopSec=(\d+)$", self.units["mta.service"], re.MULTILINE)
        assert stop is not None
        self.assertGreaterEqual(int(stop[1]), 10 + 60 + 10)

    def test_every_line_of_the_unit_is_explained(self) -> None:
        text = (ROOT / "docs" / "systemd.rst").read_text(encoding="utf-8")
        reasons = text[text.index("Why each line is there") :]
        given = re.findall(r"``([A-Za-z]+)(…?)=", reasons)
        for setting in re.findall(r"^([A-Za-z]+)=", self.units["mta.service"], re.MULTILINE):
            if setting not in ("Description", "WantedBy"):
                self.assertTrue(
                    any(
                        setting == name or (more and setting.startswith(name))
                        for name, more in given
                    ),
                    setting,
                )


class Notified(ProgramTestCase):
    """A notification socket like that of systemd."""

    def setUp(self) -> None:
        need_proc()
        super().setUp()
        self.heard = self.enterContext(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self.heard.bind(str(self.home / "notify"))
        self.heard.settimeout(PATIENCE)

    def said(self) -> Iterator[list[str]]:
        """Yield all notifications apart from the watchdog's."""
        while True:
            lines = self.heard.recv(4096).decode("utf-8").splitlines()
            if lines != ["WATCHDOG=1"]:
                yield lines

    def test_the_parent_notifies_systemd_of_its_state(self) -> None:
        toml = "[mta]\nmax_hops = 50\n"
        mta = MTA(self.home, "--workers", "2", "--config", "mta.toml")
        (self.home / "mta.toml").write_text(toml, encoding="utf-8")
        mta.smtp = free_port()
        self.addCleanup(mta.kill)
        told = (f"NOTIFY_SOCKET={self.home}/notify", "WATCHDOG_USEC=400000", "WATCHDOG_PID=1")
        mta.spawn(["env", *told, *mta.command()])
        said = self.said()
        self.assertEqual(next(said), ["READY=1", "STATUS=ready"])
        self.assertTrue(listens(mta.smtp))
        self.assertIn("ready: ", mta.output())

        for _ in range(2):
            self.assertEqual(self.heard.recv(4096), b"WATCHDOG=1")
        workers = children(mta.pid)
        self.assertEqual(len(workers), 2)
        for worker in workers:
            environment = Path(f"/proc/{worker}/environ").read_bytes()
            self.assertNotIn(b"NOTIFY_SOCKET", environment)
            self.assertNotIn(b"WATCHDOG_", environment)

        for content in (toml.replace("50", "60"), "[mta]\nmax_hops = -1\n"):
            (self.home / "mta.toml").write_text(content, encoding="utf-8")
            os.kill(mta.pid, signal.SIGHUP)
            began = next(said)
            self.assertEqual(began[0], "RELOADING=1")
            self.assertRegex(began[1], r"^MONOTONIC_USEC=\d+$")
            self.assertEqual(next(said), ["READY=1", "STATUS=ready"])

        os.kill(mta.pid, signal.SIGTERM)
        self.assertEqual(next(said), ["STOPPING=1", "STATUS=draining"])
        self.assertEqual(mta.wait(), 0, mta.output())


# Becomes a program that gets the sockets of its first arguments, as from systemd.
_HAND_OVER = """
import fcntl, os, sys
count = int(sys.argv[1])
sockets = [fcntl.fcntl(int(each), fcntl.F_DUPFD_CLOEXEC, 100) for each in sys.argv[2 : 2 + count]]
for number, each in enumerate(sockets, 3):
    os.dup2(each, number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count))
os.execv(sys.argv[2 + count], sys.argv[2 + count :])
"""


class Activator(MTA):
    """systemd-socket-activate, which waits for a client and then becomes the MTA.

    Args:
        home: see `MTA`.
        sockets: that are passed to it; the caller keeps and closes them.
    """

    def __init__(self, home: Path, sockets: Sequence[socket.socket]) -> None:
        # Whoever has bound a socket may have bound it for everybody.
        super().__init__(home, "--workers", "2", "--recipients", "any")
        self.descriptors = [each.fileno() for each in sockets]

    def command(self) -> list[str | Path]:
        """Return the command line, with these sockets and no others."""
        command = super().command()
        place = command.index("--smtp")
        del command[place : place + 2]
        for number in range(len(self.descriptors)):
            command += ["--smtp", f"systemd:domain=INET:index={number}"]
        names = ":".join("smtp" for _ in self.descriptors)
        return [path_of("systemd-socket-activate"), f"--fdname={names}", *command]

    def spawn(self, arguments: Sequence[str | Path]) -> None:
        """Start it with the sockets."""
        handed = list(map(str, (len(self.descriptors), *self.descriptors)))
        with self.log.open("ab") as log:
            self._logged_before = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-c", _HAND_OVER, *handed, *map(str, arguments)],
                stdout=log,
                stderr=log,
                cwd=self.home,
                pass_fds=self.descriptors,
            )


class Activated(ProgramTestCase):
    def test_each_message_is_accepted_across_restarts(self) -> None:
        need("systemd-socket-activate")
        sockets = [self.enterContext(socket.create_server((LOOPBACK, 0))) for _ in range(2)]
        ports = [each.getsockname()[1] for each in sockets]
        mta = Activator(self.home, sockets)
        self.addCleanup(mta.kill)
        taken = 0
        for _ in range(2):
            mta.spawn(mta.command())
            mta.wait_for(lambda: "Listening on" in mta.output(), "the activator")
            self.assertNotIn("ready: ", mta.output())
            for port in (*ports, *ports):  # the first connection starts it
                submit(port, message(), "bob@localhost")
                taken += 1
            self.assertEqual(len(children(mta.pid)), 2)
            self.assertEqual(mta.terminate(), 0, mta.output())
            self.assertTrue(all(map(listens, ports)))
        with MTA(self.home) as last:
            last.wait_for_mail("localhost", "bob", taken)
            self.assertEqual(len(last.mail("localhost", "bob")), taken)


class First(ProgramTestCase):
    """The MTA as process 1, as in a container."""

    def setUp(self) -> None:
        need_proc()
        need("unshare")
        super().setUp()
        self.unshare: list[str | Path] = [
            *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
        ]

    def start(self, mta: MTA, command: list[str | Path]) -> int:
        """Start it; return its process id outside of the namespace."""
        mta.spawn([*self.unshare, *command])
        mta.wait_for(lambda: "ready: " in mta.output(), "the start")
        (first,) = children(mta.pid)
        status = Path(f"/proc/{first}/status").read_text("ascii")
        self.assertRegex(status, r"\nNSpid:\t\d+\t1\n")
        return first

    def test_the_documented_command_starts_it_and_restarts_workers(self) -> None:
        recipe = blocks("containers.rst")["Containerfile"].replace("/opt/mta/bin", str(_BIN))
        written = {
            name: json.loads(words)
            for name, words in re.findall(r"^ *(ENTRYPOINT|CMD) (\[.*\])$", recipe, re.MULTILINE)
        }
        health = json.loads(re.findall(r"^ +CMD (\[.*\])$", recipe, re.MULTILINE)[0])
        self.assertEqual(written["CMD"], ["--config", "/etc/mta/mta.toml"])
        mta = MTA(self.home)
        mta.smtp, web = free_port(), free_port()
        (self.home / "mta.toml").write_text(
            f'[mta]\nworkers = 2\nsmtp = "tcp:{mta.smtp}:interface={LOOPBACK}"\n'
            f'web = "tcp:{web}:interface={LOOPBACK}"\n',
            encoding="utf-8",
        )
        health = [word.replace(":8025/", f":{web}/") for word in health]
        self.assertNotEqual(subprocess.run(health, capture_output=True).returncode, 0)
        self.addCleanup(mta.kill)
        state = ("env", f"STATE_DIRECTORY={mta.state}")
        first = self.start(mta, [*state, *written["ENTRYPOINT"], "--config", "mta.toml"])
        self.assertEqual(subprocess.run(health).returncode, 0)
        submit(mta.smtp, message(), "bob@localhost")
        mta.wait_for_mail("localhost", "bob")

        before = children(first)
        os.kill(before[0], signal.SIGKILL)
        mta.wait_for(lambda: " works again" in mta.output(), "the successor")
        self.assertEqual(len(children(first)), 2)
        self.assertFalse(Path(f"/proc/{before[0]}").exists(), "its end was not noticed")

        os.kill(first, signal.SIGTERM)
        self.assertEqual(mta.wait(), 0, mta.output())
        self.assertIn(f"STOPSIGNAL {signal.SIGTERM.name}\n", recipe)

    def test_files_of_a_killed_process_with_the_same_number_are_no_obstacle(self) -> None:
        path = self.home / "mta.sock"
        mta = MTA(self.home, "--smtp", f"unix:{path}", "--workers", "2")
        mta.smtp = free_port()
        self.addCleanup(mta.kill)
        (self.home / "twistd.pid").write_text("1", encoding="ascii")
        for _ in range(2):
            first = self.start(mta, mta.command())
            workers = children(first)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                self.assertEqual(client.makefile("rb").readline()[:3], b"220")
            submit(mta.smtp, message(), "bob@localhost")
            os.kill(first, signal.SIGKILL)
            mta.wait()
            eventually(lambda: not any(map(runs, workers)), "the end of the workers")  # noqa: B023
            # All of these files name process 1, which will exist again.
            self.assertEqual(os.readlink(f"{path}.lock"), "1")
            self.assertEqual((mta.state / "lock").read_text("ascii"), "1\n")
            self.assertTrue((mta.state / "control.sock").is_socket())
        self.start(mta, mta.command())
        mta.wait_for_mail("localhost", "bob", 2)


class Background(ProgramTestCase):
    """``twistd`` without ``-n``, whose first process reports the result of the start."""

    def setUp(self) -> None:
        need_proc()
        super().setUp()
        self.mta = MTA(self.home, "--workers", "2")
        self.mta.smtp = free_port()
        self.log = self.home / "background.log"
        self.pidfile = self.home / "mta.pid"

    def start(self) -> subprocess.CompletedProcess[str]:
        command = list(map(str, self.mta.command()))
        where = ["--pidfile", str(self.pidfile), "--logfile", str(self.log)]
        command[1 : command.index("mta")] = where
        self.addCleanup(self.end)
        return subprocess.run(
            command, cwd=self.home, capture_output=True, text=True, timeout=PATIENCE
        )

    def end(self) -> None:
        """End the daemon if it runs."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int(self.pidfile.read_text("ascii")), signal.SIGKILL)

    def test_a_daemon_with_workers_accepts_mail_and_drains(self) -> None:
        done = self.start()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout + done.stderr, "")
        pid = int(self.pidfile.read_text("ascii"))
        eventually(lambda: "ready: " in self.log.read_text("utf-8"), "the start")
        workers = children(pid)
        self.assertEqual(len(workers), 2)
        submit(self.mta.smtp, message(), "bob@localhost")
        eventually(lambda: self.mta.mail("localhost", "bob"), "the mail")
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: not any(map(runs, (pid, *workers))), "its end")
        self.assertFalse(self.pidfile.exists())

    def test_a_failed_start_is_reported_by_the_first_process(self) -> None:
        with socket.create_server((LOOPBACK, self.mta.smtp)):
            done = self.start()
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"cannot listen on tcp:{self.mta.smtp}", done.stderr)
        # It reports the failure before it ends itself.
        eventually(lambda: "Address already in use" in self.log.read_text("utf-8"), "the log")
        eventually(lambda: not self.pidfile.exists(), "its end")
        self.assertFalse(self.pidfile.exists())
