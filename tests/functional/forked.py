"""Processes of the program that are forks of `forkserver`, with the methods of `Popen`."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

_SCRIPTS = ("twistd", "twisted-mta")


def is_script(program: str | Path) -> bool:
    """Whether a fork can run this program: it is a script of ours, and forks are possible here."""
    path = Path(program)
    return (
        sys.platform == "linux"
        and path.name in _SCRIPTS
        and path.parent == Path(sys.executable).parent
    )


class Forked:
    """A process that runs a script, like `subprocess.Popen`.

    Args:
        arguments: the script and its arguments.
        folder: the working directory.
        environment: all its variables.
        streams: descriptors of its standard input, output and error.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        streams: tuple[int, int, int],
    ) -> None:
        self.args = arguments
        self.returncode: int | None = None
        self._status, pipe = os.pipe()
        try:
            request = {
                "arguments": arguments,
                "folder": str(folder),
                "environment": dict(environment),
            }
            self.pid = _server().fork(request, (*streams, pipe))
        finally:
            os.close(pipe)

    def poll(self) -> int | None:
        """Return the exit status; None: it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends; return its exit status.

        Raises:
            subprocess.TimeoutExpired: it still runs after ``timeout`` seconds.
        """
        if self.returncode is None:
            readable, _, _ = select.select([self._status], [], [], timeout)
            if not readable:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(os.read(self._status, 16))
            os.close(self._status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def run_script(
    arguments: Sequence[str], *, text: str = "", timeout: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, with ``text`` as input.

    Raises:
        subprocess.TimeoutExpired: it ran for ``timeout`` seconds, and was killed.
    """
    if not is_script(arguments[0]):
        return subprocess.run(
            arguments, input=text, capture_output=True, text=True, timeout=timeout, check=False
        )
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as given,
        tempfile.TemporaryFile("r", encoding="utf-8") as said,
        tempfile.TemporaryFile("r", encoding="utf-8") as complained,
    ):
        given.write(text)
        given.seek(0)
        streams = (given.fileno(), said.fileno(), complained.fileno())
        process = Forked(arguments, Path.cwd(), os.environ, streams)
        try:
            status = process.wait(timeout)
        finally:
            process.kill()
            process.wait()
        for stream in (said, complained):
            stream.seek(0)
        return subprocess.CompletedProcess(arguments, status, said.read(), complained.read())


class _Server:
    """The `forkserver` of this process."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._one_at_a_time = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                (
                    sys.executable,
                    Path(__file__).with_name("forkserver.py"),
                    str(theirs.fileno()),
                ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # trial's workers speak with their parent over their own
                pass_fds=(theirs.fileno(),),
            )
        atexit.register(self._end)

    def fork(self, request: Mapping[str, object], descriptors: Sequence[int]) -> int:
        """Return the process id of a new fork."""
        with self._one_at_a_time:
            socket.send_fds(self._requests, [json.dumps(request).encode("ascii")], descriptors)
            return int(self._requests.recv(16))

    def _end(self) -> None:
        self._requests.close()
        self._process.wait()


@cache
def _server() -> _Server:
    return _Server()
