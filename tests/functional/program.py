"""A process of a test: started in a folder of its own, and ended by its process id."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self, TypeVar

from .forked import Forked, is_script
from .machine import PATH, PATIENCE, ROOT, Unready, Unusable, cannot_run, eventually

_T = TypeVar("_T")


class Service:
    """A server of a test: ``with`` starts it, and stops it at the end.

    Attributes:
        foreign: whether it is a program of others: if it does not start, half installed or in
            another version, the test is skipped (and fails under ``CI``).
    """

    foreign: ClassVar[bool] = False

    def start(self) -> None:
        """Start it, and return when it is ready."""

    def stop(self) -> None:
        """End it, and return when it has ended."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException as error:
            self.stop()
            if self.foreign and isinstance(error, Unready | Unusable | OSError):
                cannot_run(f"{type(self).__name__} does not start: {error}")
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Program(Service):
    """A process whose output goes to a file.

    A subclass spawns its process in `start`. Of this class itself, `spawn` is called by the test.

    Args:
        home: the working directory.
        log: name of the file in ``home`` that the output is appended to.

    Attributes:
        environment: variables of the process beside those of the test.
    """

    def __init__(self, home: Path, log: str) -> None:
        self.environment: Mapping[str, str] = {}
        self.home = home
        self.log = home / log
        self.process: subprocess.Popen[bytes] | Forked | None = None

    def stop(self) -> None:
        self.kill()

    def spawn(self, arguments: Sequence[str | Path]) -> None:
        """Start the process: as a fork, if it is one of our scripts with no environment of its own.

        What the dynamic linker or Python reads from the environment would not change a fork.
        """
        command = list(map(str, arguments))
        environment = {**os.environ, "PATH": PATH, **self.environment}
        with self.log.open("ab") as log, open(os.devnull, "rb") as nothing:
            self._logged_before = log.tell()
            if is_script(command[0]) and not self.environment:
                streams = (nothing.fileno(), log.fileno(), log.fileno())
                self.process = Forked(command, self.home, environment, streams)
            else:
                self.process = subprocess.Popen(
                    command, cwd=self.home, env=environment, stdin=nothing, stdout=log, stderr=log
                )

    @property
    def pid(self) -> int:
        """The process id."""
        assert self.process is not None
        return self.process.pid

    def output(self) -> str:
        """Return the output since the last start."""
        with self.log.open("rb") as log:
            log.seek(self._logged_before)
            return log.read().decode("utf-8", "replace")

    def wait(self) -> int:
        """Wait until the process ends by itself; return its exit status.

        Raises:
            subprocess.TimeoutExpired: it still runs after `PATIENCE` seconds.
        """
        assert self.process is not None
        return self.process.wait(PATIENCE)

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def wait_for(self, check: Callable[[], _T], what: str) -> _T:
        """Wait until ``check`` returns a true value, as long as the process runs.

        Raises:
            Unready: the process has ended, or time is over; the error has the output.
        """

        def check_alive() -> _T:
            result = check()
            if not result and not self.alive():
                raise Unready(f"it ended before {what}")
            return result

        try:
            return eventually(check_alive, what)
        except Unready as unready:
            raise Unready(f"{unready}\n{self.output()}") from None

    def kill(self) -> None:
        """End the process at once, like a power failure (SIGKILL)."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def terminate(self) -> int:
        """End the process in order (SIGTERM); return its exit status.

        Raises:
            subprocess.TimeoutExpired: it still runs after `PATIENCE` seconds.
        """
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


class Module(Program):
    """A module of these tests as a process: ``python -m MODULE``.

    Args:
        home: the working directory.
        log: name of the file in ``home`` that the output is appended to.
        module: its dotted name.
        arguments: of the command line.
    """

    def __init__(self, home: Path, log: str, module: str, *arguments: str | Path) -> None:
        super().__init__(home, log)
        self.environment = {"PYTHONPATH": str(ROOT)}
        self._command = (sys.executable, "-m", module, *arguments)

    def start(self) -> None:
        self.spawn(self._command)
