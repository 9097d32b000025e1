"""Real programs on free loopback ports: started in folders of their own, ended by process id.

A program that is not there skips the test that needs it, with a reason; the runner counts the
skips at the end of its report. Where ``CI`` is set, a missing program is a failure: otherwise a
broken machine would look like a green one.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Self, TypeVar

from twisted.trial.unittest import SkipTest, SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent.parent
LOOPBACK = "127.0.0.1"
PATIENCE = 30.0
"""Seconds to wait for what another program is about to do; a loaded machine may take long."""

_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
_T = TypeVar("_T")


class Missing(Exception):
    """A program that is needed is not on this machine."""


class Unready(Exception):
    """A program did not come up, or did not do in time what it was to do."""


def found(program: str) -> str:
    """Return the path of a program.

    Raises:
        Missing: it is not installed.
    """
    path = shutil.which(program, path=_PATH)
    if path is None:
        raise Missing(f"{program} is not installed")
    return path


def need(test: SynchronousTestCase, *programs: str) -> None:
    """Skip ``test`` where one of ``programs`` is missing; under ``CI`` let it fail."""
    try:
        for program in programs:
            found(program)
        for program in ("postfix", "dovecot"):
            if program in programs and os.geteuid() != 0:
                raise Missing(f"{program} has to be started by root")
    except Missing as missing:
        if os.environ.get("CI"):
            test.fail(str(missing))
        raise SkipTest(str(missing)) from None


def need_proc() -> None:
    """Skip the test where there is no ``/proc`` of Linux to read."""
    if not Path("/proc/self/stat").exists():
        raise SkipTest("there is no /proc on this system")


def eventually(check: Callable[[], _T], what: str, patience: float = PATIENCE) -> _T:
    """Ask ``check`` until it answers something true, and return that.

    Raises:
        Unready: it did not within ``patience`` seconds.
    """
    deadline = time.monotonic() + patience
    while not (answer := check()):
        if time.monotonic() > deadline:
            raise Unready(f"waited {patience:g} s for {what}")
        time.sleep(0.02)
    return answer


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on just now.

    It is none of those that systems give to clients: a client that keeps trying such a port while
    nobody listens there comes to connect to itself some day, and then nobody else can listen.
    """
    while True:
        port = random.randrange(10240, 32768)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind((LOOPBACK, port))
            return port


def listens(port: int) -> bool:
    """Whether a connection to ``port`` is accepted."""
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), 1.0):
        return True
    return False


def run(
    *arguments: str | Path, text: str | None = None, timeout: float = 120.0
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end with ``text`` on its standard input; standard error is joined in."""
    program, *rest = map(str, arguments)
    return subprocess.run(
        [found(program), *rest],
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        timeout=timeout,
        check=False,
    )


@contextlib.contextmanager
def folder(name: str) -> Iterator[Path]:
    """Hand out a new folder that others may look into, and remove it afterwards."""
    path = Path(tempfile.mkdtemp(prefix=f"mta-{name}-"))
    path.chmod(0o755)  # smtp-sink and Postfix give up root's rights before they write
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Program:
    """A process whose output goes to a file in ``home``.

    Args:
        home: its current folder.
        log: name of the file in ``home`` that its output is appended to.

    Attributes:
        environment: what it finds in its environment besides ours.
    """

    def __init__(self, home: Path, log: str) -> None:
        self.environment: Mapping[str, str] = {}
        self.home = home
        self.log = home / log
        self.process: subprocess.Popen[bytes] | None = None

    def spawn(self, arguments: Sequence[str | Path]) -> None:
        """Start the process."""
        with self.log.open("ab") as log:
            self._logged_before = log.tell()
            self.process = subprocess.Popen(
                list(map(str, arguments)),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PATH": _PATH, **self.environment},
            )

    @property
    def pid(self) -> int:
        """The process id while it runs."""
        assert self.process is not None
        return self.process.pid

    def output(self) -> str:
        """Return what it has written since it was last started."""
        with self.log.open("rb") as log:
            log.seek(self._logged_before)
            return log.read().decode("utf-8", "replace")

    def wait(self) -> int:
        """Return its exit status when it has ended by itself.

        Raises:
            subprocess.TimeoutExpired: it goes on.
        """
        assert self.process is not None
        return self.process.wait(PATIENCE)

    def alive(self) -> bool:
        """Whether it is still running."""
        return self.process is not None and self.process.poll() is None

    def wait_for(self, check: Callable[[], _T], what: str) -> _T:
        """Wait until ``check`` answers something true, as long as the process lives.

        Raises:
            Unready: the process has ended, or time is over; carries its output.
        """

        def ask() -> _T:
            answer = check()
            if not answer and not self.alive():
                raise Unready(f"it ended before {what}")
            return answer

        try:
            return eventually(ask, what)
        except Unready as unready:
            raise Unready(f"{unready}\n{self.output()}") from None

    def kill(self) -> None:
        """End it at once, as a power failure would (SIGKILL)."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def terminate(self) -> int:
        """Ask it to end (SIGTERM) and return its exit status.

        Raises:
            subprocess.TimeoutExpired: it goes on.
        """
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


_BOUND = re.compile(
    r"\b(smtp|submission|submissions|lmtp|web)\W+(?:tcp\W+)?((?:\d+\.){3}\d+):(\d+)"
)


def children(pid: int) -> list[int]:
    """Return the processes that ``pid`` has started and that have not ended, oldest first."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
        return [int(child) for child in listed if runs(int(child))]
    return []


def runs(pid: int) -> bool:
    """Whether a process is there and has not ended, whether its end was noticed or not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        state = (
            Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()[0]
        )
        return state not in "ZX"
    return False


class MTA(Program):
    """``twistd -n mta`` with a state of its own, below ``home``.

    SMTP and the web page listen on ports that the system chose at the first start, and on the same
    ones after a restart, as real servers do.

    Args:
        home: where ``mta-state`` is made.
        options: further options.
        toml: the content of a configuration file, if there is to be one.
        reactor: the name of Twisted's reactor; empty: the one for this system.
    """

    def __init__(self, home: Path, *options: str, toml: str = "", reactor: str = "") -> None:
        super().__init__(home, "mta.log")
        self.reactor = reactor
        self.options = options
        self.state = home / "mta-state"
        self.smtp = 0
        self.lmtp = 0
        self.submission = 0
        self.submissions = 0
        self.web = 0
        if toml:
            (home / "mta.toml").write_text(toml, encoding="utf-8")
            self.options = ("--config", str(home / "mta.toml"), *options)

    def start(self) -> None:
        """Start it, or start it again, and return when it says that it is ready."""
        self.spawn(self.command())
        bound = self.wait_for(self._bound, "the MTA is ready")
        self.smtp = bound["smtp"]
        self.submission = bound.get("submission", 0)
        self.submissions = bound.get("submissions", 0)
        self.lmtp = bound.get("lmtp", 0)
        self.web = bound.get("web", 0)

    def command(self) -> list[str | Path]:
        """Return what starts it."""
        return [
            Path(sys.executable).with_name("twistd"),
            *((f"--reactor={self.reactor}",) if self.reactor else ()),
            "-n",
            "--pidfile=",
            "mta",
            *("--state-dir", self.state),
            *("--hostname", "mta.example"),
            *("--smtp", f"tcp:{self.smtp}:interface={LOOPBACK}"),
            *("--web", f"tcp:{self.web}:interface={LOOPBACK}"),
            *self.options,
        ]

    def _bound(self) -> Mapping[str, int]:
        for line in self.output().splitlines():
            if re.search(r"\bready\b", line):
                return {kind: int(port) for kind, _, port in _BOUND.findall(line)}
        return {}

    def is_ready(self) -> bool:
        """Whether ``/readyz`` says that mail is taken."""
        with contextlib.suppress(OSError, HTTPException):
            asked = HTTPConnection(LOOPBACK, self.web, timeout=5)
            with contextlib.closing(asked):
                asked.request("GET", "/readyz")
                return asked.getresponse().status == 200
        return False

    def maildir(self, domain: str, local_part: str) -> Path:
        """Return the Maildir of a local mailbox, whether it exists or not."""
        return self.state / "maildir" / domain / local_part

    def mail(self, domain: str, local_part: str) -> list[bytes]:
        """Return the messages that were delivered to a local mailbox, oldest name first."""
        new = self.maildir(domain, local_part) / "new"
        return [path.read_bytes() for path in sorted(new.glob("*"))] if new.is_dir() else []

    def wait_for_mail(self, domain: str, local_part: str, count: int = 1) -> list[bytes]:
        """Return the messages of a mailbox once there are ``count`` of them."""
        self.wait_for(
            lambda: len(self.mail(domain, local_part)) >= count,
            f"{count} messages for {local_part}@{domain}",
        )
        return self.mail(domain, local_part)

    def __enter__(self) -> Self:
        self.start()
        return self


class Sink(Program):
    """The next hop of `tests.functional.sink`: takes any message and keeps a ledger.

    Args:
        home: where its ledger and messages go.
        port: the port to listen on; 0 lets the system choose.
        keep: whether the messages themselves are kept, not only their hashes.
    """

    def __init__(self, home: Path, *, port: int = 0, keep: bool = True) -> None:
        super().__init__(home, "sink.log")
        self.port = port
        self.keep = keep
        self.ledger = home / "sink.ledger"
        self.messages = home / "sink.messages"

    def start(self, *options: str) -> None:
        """Start it and return when it listens."""
        arguments: list[str | Path] = [
            sys.executable,
            Path(__file__).with_name("sink.py"),
            *("--port", str(self.port)),
            *("--ledger", self.ledger),
            *options,
        ]
        if self.keep:
            arguments += ["--messages", self.messages]
        self.spawn(arguments)
        self.port = int(self.wait_for(self._port, "the sink listens"))

    def _port(self) -> str:
        said = re.search(r"^listening (\d+)$", self.output(), re.MULTILINE)
        return said[1] if said else ""

    def received(self) -> list[bytes]:
        """Return all messages so far, in order of arrival."""
        return [path.read_bytes() for path in sorted(self.messages.glob("*.eml"))]

    def wait_for_messages(self, count: int = 1) -> list[bytes]:
        """Return the messages once there are ``count`` of them."""
        self.wait_for(lambda: len(self.received()) >= count, f"{count} messages at the sink")
        return self.received()

    def __enter__(self) -> Self:
        self.start()
        return self


class SMTPSink(Program):
    """Postfix's smtp-sink, which discards what it gets and counts it.

    Args:
        home: its current folder.
        options: further options of smtp-sink(1).
    """

    def __init__(self, home: Path, *options: str) -> None:
        super().__init__(home, "smtp-sink.log")
        self.options = options
        self.port = free_port()

    def start(self) -> None:
        """Start it and return when it listens."""
        user = ("-u", "nobody") if os.geteuid() == 0 else ()
        self.spawn(
            (found("smtp-sink"), "-c", *user, *self.options, f"inet:{LOOPBACK}:{self.port}", "1024")
        )
        self.wait_for(lambda: listens(self.port), "smtp-sink listens")

    def count(self) -> int:
        """Return how many messages it has taken."""
        with self.log.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - 256))
            counters = re.findall(rb"mesg=(\d+)", log.read())
        return int(counters[-1]) if counters else 0

    def __enter__(self) -> Self:
        self.start()
        return self
