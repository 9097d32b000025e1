"""What functional tests need of the machine: installed programs, free ports, folders, waiting.

A missing program skips the test that needs it. Where ``CI`` is set it is a failure: otherwise a
broken machine would look like a green one.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from twisted.trial.unittest import SkipTest, SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent.parent
LOOPBACK = "127.0.0.1"
PATIENCE = 30.0
"""Seconds to wait for another program; a loaded machine may take long."""
PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
"""Where programs are looked for; servers are in ``/usr/sbin``."""

_T = TypeVar("_T")


class Missing(Exception):
    """A program that a test needs is not installed."""


class Unready(Exception):
    """A program did not start, or did not reach a state in time."""


def path_of(program: str) -> str:
    """Return the path of a program.

    Raises:
        Missing: it is not installed.
    """
    path = shutil.which(program, path=PATH)
    if path is None:
        raise Missing(f"{program} is not installed")
    return path


def need(test: SynchronousTestCase, *programs: str) -> None:
    """Skip ``test`` if one of ``programs`` is missing; fail it under ``CI``."""
    try:
        for program in programs:
            path_of(program)
        for program in ("postfix", "dovecot"):
            if program in programs and os.geteuid() != 0:
                raise Missing(f"{program} has to be started by root")
    except Missing as missing:
        if os.environ.get("CI"):
            test.fail(str(missing))
        raise SkipTest(str(missing)) from None


def need_proc() -> None:
    """Skip the test on systems without the ``/proc`` of Linux."""
    if not Path("/proc/self/stat").exists():
        raise SkipTest("there is no /proc on this system")


def eventually(check: Callable[[], _T], what: str, patience: float = PATIENCE) -> _T:
    """Call ``check`` until it returns a true value, and return that.

    ``what`` completes "waited 30 s for".

    Raises:
        Unready: ``patience`` seconds are over.
    """
    deadline = time.monotonic() + patience
    while not (answer := check()):
        if time.monotonic() > deadline:
            raise Unready(f"waited {patience:g} s for {what}")
        time.sleep(0.02)
    return answer


def free_port() -> int:
    """Return a TCP port of the loopback interface on which no process listens now.

    It is not an ephemeral port: a client that keeps trying such a port while no server listens on
    it will connect to itself one day, and then no server can listen there.
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
    """Run a program to its end with ``text`` as input; its output includes standard error."""
    program, *rest = map(str, arguments)
    return subprocess.run(
        [path_of(program), *rest],
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
    """Yield a new folder that other users may read, and remove it afterwards."""
    path = Path(tempfile.mkdtemp(prefix=f"mta-{name}-"))
    path.chmod(0o755)  # smtp-sink and Postfix drop root's privileges before they write
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def children(pid: int) -> list[int]:
    """Return the child processes of ``pid`` that have not ended, oldest first."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
        return [int(child) for child in listed if runs(int(child))]
    return []


def runs(pid: int) -> bool:
    """Whether a process exists and has not ended; a zombie has."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        state = (
            Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()[0]
        )
        return state not in "ZX"
    return False
