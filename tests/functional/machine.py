"""What functional tests need of the machine: installed programs, free ports, folders, waiting.

A program that is missing or does not work skips the tests that need it, with the reason. Where
``CI`` is set it is a failure: otherwise a broken machine would look like a green one.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NoReturn, TypeVar

from attrs import frozen
from twisted.trial.unittest import SkipTest

from .forked import is_script, run_script

ROOT = Path(__file__).resolve().parent.parent.parent
LOOPBACK = "127.0.0.1"
PATIENCE = 60.0
"""Seconds to wait for another program; a loaded machine may take long."""
PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
"""Where programs are looked for; servers are in ``/usr/sbin``."""

_T = TypeVar("_T")


class Unusable(Exception):
    """A program that a test needs is not installed, or does not work on this machine."""


class Unready(Exception):
    """A program did not start, or did not reach a state in time."""


@frozen
class Trial:
    """A command that shows whether a program works, and has the version that the tests need.

    Attributes:
        command: the program and its arguments.
        output: matches the output of a program that works; the exit status is not looked at.
        text: the input.
        may_be_forbidden: whether the machine may forbid what the command does, like a container
            without privileges: that is no failure under CI.
    """

    command: Sequence[str]
    output: str = ""
    text: str = ""
    may_be_forbidden: bool = False


_TRIALS: Mapping[str, Trial] = {
    "cc": Trial(
        ("cc", "-x", "c", "-o", os.devnull, "-", "-ldl"),
        r"\A\Z",
        text="#include <dlfcn.h>\nint main(void) { return 0; }\n",
    ),
    "clamav-milter": Trial(("clamav-milter", "--version"), r"clamav-milter"),
    "clamd": Trial(("clamd", "--version"), r"ClamAV \d"),
    "curl": Trial(("curl", "--version"), r"(?m)^Protocols: .*\bsmtps\b"),
    "dnsmasq": Trial(("dnsmasq", "--version"), r"Dnsmasq version"),
    "dovecot": Trial(("dovecot", "--version"), r"(?m)^2\.3\."),  # 2.4 has other settings
    "haproxy": Trial(("haproxy", "-v"), r"HA-?Proxy version"),
    "ip": Trial(
        (
            *("sh", "-c"),
            "ip netns add mta-try-$$ && ip link add mta-try type bridge && echo permitted;"
            " ip link delete mta-try; ip netns delete mta-try-$$",
        ),
        r"(?m)^permitted$",
        may_be_forbidden=True,
    ),
    "msmtp": Trial(("msmtp", "--version"), r"TLS/SSL library: (?!none)"),
    "node": Trial(("node", "--version"), r"(?m)^v\d"),
    "nsd": Trial(("nsd", "-v"), r"NSD version"),
    "nsd-checkconf": Trial(("nsd-checkconf", "-h"), r"usage:"),
    "opendkim": Trial(("opendkim", "-V"), r"OpenDKIM Filter v2\.1[1-9]"),  # ed25519
    "opendmarc": Trial(("opendmarc", "-V"), r"OpenDMARC Filter v1\.[4-9]"),
    "openssl": Trial(("openssl", "version"), r"OpenSSL (1\.1\.1|[3-9])"),  # -addext
    "perl": Trial(("perl", "-MMail::SPF", "-MJSON::PP", "-e", "print 'Mail::SPF'"), r"\AMail::SPF"),
    "postalias": Trial(("postalias", "-h"), r"usage:"),
    "postfix": Trial(("postconf", "-d", "mail_version"), r"= (3\.([4-9]|\d\d)|[4-9])"),  # postlogd
    "reformime": Trial(("reformime", "-i"), r"section: 1", text="Subject: Hello\n\nHello\n"),
    "rspamd": Trial(("rspamd", "--version"), r"Rspamd daemon version [3-9]"),
    "s-nail": Trial(("s-nail", "-V"), r"s-nail v"),
    "smtp-sink": Trial(("smtp-sink",), r"usage:"),
    "smtp-source": Trial(("smtp-source",), r"usage:"),
    "strace": Trial(("strace", "-o", "/dev/stdout", "true"), r"execve"),
    "swaks": Trial(("swaks", "--support"), r"=== TLS supported"),
    "systemd-analyze": Trial(("systemd-analyze", "--version"), r"systemd \d"),
    "systemd-socket-activate": Trial(("systemd-socket-activate", "--version"), r"systemd \d"),
    "unbound": Trial(("unbound", "-V"), r"Version \d"),
    "unshare": Trial(
        (
            *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("--propagation", "private"),
            *("sh", "-c", "mount --bind /tmp /tmp && echo permitted"),
        ),
        r"(?m)^permitted$",
        may_be_forbidden=True,
    ),
}
"""Trials by program; of another program, only the file is looked for."""

_ROOTS_ALONE = ("postfix", "dovecot")
"""The programs that only root can start."""


def path_of(program: str) -> str:
    """Return the path of a program.

    Raises:
        Unusable: it is not installed, or may not be executed.
    """
    path = shutil.which(program, path=PATH)
    if path is None:
        file = shutil.which(program, mode=os.F_OK, path=PATH)
        raise Unusable(f"{file} may not be executed" if file else f"{program} is not installed")
    return path


def need(*programs: str) -> None:
    """Skip the test if one of ``programs`` is missing or does not work; fail it under ``CI``."""
    for program in programs:
        reason = _fault(program, PATH)
        if reason is not None:
            trial = _TRIALS.get(program)
            cannot_run(reason, fail=trial is None or not trial.may_be_forbidden)


def cannot_run(reason: str, *, fail: bool = True) -> NoReturn:
    """Skip the test that runs because of a program; where ``CI`` is set, fail it.

    Args:
        reason: names the program, and says what is wrong with it.
        fail: False: skip it under CI too.
    """
    if fail and os.environ.get("CI"):
        raise AssertionError(reason)
    raise SkipTest(reason)


@cache
def _fault(program: str, path: str) -> str | None:
    """Return what is wrong with a program; None if it works."""
    try:
        path_of(program)
        if program in _ROOTS_ALONE and os.geteuid() != 0:
            return f"{program} has to be started by root"
        trial = _TRIALS.get(program)
        if trial is None:
            return None
        done = run(*trial.command, text=trial.text, timeout=PATIENCE)
    except Unusable as unusable:
        return str(unusable)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{program} does not work: {error}"
    if re.search(trial.output, done.stdout):
        return None
    answer = done.stdout.strip().split("\n", 1)[0] or f"exit status {done.returncode}"
    return f"{program} does not work, or has another version: {' '.join(trial.command)}: {answer}"


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


@cache
def has_ipv6() -> bool:
    """Whether the loopback interface has its IPv6 address; in some containers it has not."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def listens(port: int) -> bool:
    """Whether a connection to ``port`` is accepted."""
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), 1.0):
        return True
    return False


def greets(port: int) -> bool:
    """Whether an SMTP server that takes connections at ``port`` greets within some seconds."""
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), 5.0) as client:
        return client.recv(4) == b"220 "
    return False


def run(
    *arguments: str | Path, text: str | None = None, timeout: float = 120.0
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end with ``text`` as input; its output includes standard error."""
    program, *rest = map(str, arguments)
    if is_script(program):
        done = run_script([program, *rest], text=text or "", timeout=timeout)
        done.stdout += done.stderr
        return done
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
