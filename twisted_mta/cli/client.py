"""The MTA that a command of the tool asks, and how the tool ends if it cannot answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import click

from ..admin.control.client import ControlClient, NotRunning, Refused
from ..admin.status import VERSION
from ..mail.printable import printable
from ..system.ownership import name_of

_DEFAULT_STATE_DIR = "mta-state"

# `agent.shard.QUEUE` and `agent.shared_state.URL_FILE`, whose packages take a while to import.
_QUEUES = ("queue.sqlite", "queue.url")

REFUSED = 1
"""Exit status: refused, or not found."""

NOT_RUNNING = 3
"""Exit status: no MTA runs on the state directory."""

_Answer = TypeVar("_Answer")

state_dir_option: Callable[[Any], Any] = click.option(
    "--state-dir",
    metavar="DIR",
    help="state directory of the MTA  [default: $STATE_DIRECTORY, else ./mta-state]",
)
json_option: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="write JSON, for programs"
)


def client(state_dir: str | None, *, timeout: float = 30.0) -> ControlClient:
    """Return a client of the MTA on a state directory.

    Args:
        state_dir: the value of ``--state-dir``; None: that of the option before the command, else
            ``$STATE_DIRECTORY``, else ``./mta-state``.
        timeout: seconds that each step of an answer may take.
    """
    return ControlClient(state_directory(state_dir), timeout=timeout)


def state_directory(state_dir: str | None) -> str:
    """Return the state directory that ``--state-dir`` and the environment name (`client`)."""
    if state_dir is None:
        state_dir = click.get_current_context().find_root().params.get("state_dir")
    if state_dir and state_dir.startswith("~"):
        raise click.UsageError(
            f"--state-dir {printable(state_dir)}: only a shell replaces ~; expected the whole path,"
            f" such as {printable(os.path.expanduser(state_dir))}"
        )
    named = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]  # systemd separates by colons
    if not state_dir and not named and os.geteuid() == 0:
        _require_root_owned(_DEFAULT_STATE_DIR)
    return state_dir or named or _DEFAULT_STATE_DIR


class Reader(Protocol):
    """Answers requests that change nothing (`ControlClient`, `StoppedMTA`)."""

    def get(self, path: str) -> Any:
        """Return the JSON at ``path``."""
        ...

    def content(self, path: str) -> Iterator[bytes]:
        """Yield the content at ``path``, piece by piece."""
        ...


def reader(state_dir: str | None, *, timeout: float = 30.0) -> Reader:
    """Return a client of the running MTA, which reads the queue itself where none runs.

    Args:
        state_dir: see `client`.
        timeout: seconds that each step of an answer of the MTA may take.
    """
    return _EitherReader(client(state_dir, timeout=timeout), state_directory(state_dir))


class _EitherReader:
    def __init__(self, asker: ControlClient, directory: str) -> None:
        self._reader: Reader = asker
        self._directory: str | None = directory

    def get(self, path: str) -> Any:
        try:
            return self._reader.get(path)
        except NotRunning as error:
            return self._read_files(error).get(path)

    def content(self, path: str) -> Iterator[bytes]:
        try:
            yield from self._reader.content(path)
        except NotRunning as error:
            yield from self._read_files(error).content(path)

    def _read_files(self, error: NotRunning) -> Reader:
        """Turn to the files of the queue, once; an MTA that stops half-way is an error."""
        directory, self._directory = self._directory, None
        if directory is None:
            raise error
        self._reader = _stopped(directory, error)
        return self._reader


def _stopped(directory: str, not_running: NotRunning) -> Reader:
    if not any(os.path.exists(os.path.join(directory, name)) for name in _QUEUES):
        raise failure(str(not_running), NOT_RUNNING)
    # Imported here: commands that ask a running MTA start faster without them.
    from twisted.internet.task import Clock

    from ..admin.stopped import StoppedMTA
    from ..system.executors import inline_executor
    from ..system.real_world import monotonic_microseconds, wall_time

    try:
        stopped = StoppedMTA(
            directory,
            wall_time=wall_time,
            executor=inline_executor,
            clock=Clock(),
            seconds=lambda: monotonic_microseconds() / 1e6,
        )
    except NotRunning:
        raise failure(str(not_running), NOT_RUNNING) from None
    except Refused as error:
        raise failure(str(error)) from None
    click.get_current_context().call_on_close(stopped.close)
    return stopped


def _require_root_owned(directory: str) -> None:
    """Exit if root would ask an MTA of another user without having named it."""
    try:
        owner = os.stat(directory).st_uid
    except OSError:
        return  # the client reports that nothing runs there
    if owner != 0:
        raise failure(
            f"./{directory} belongs to user {printable(name_of(owner))}, and this runs as root;"
            " name it with --state-dir"
        )


def failure(problem: str, status: int = REFUSED) -> click.exceptions.Exit:
    """Write an error; return the exception that ends the tool with ``status``."""
    click.echo(f"twisted-mta: {problem}", err=True)
    return click.exceptions.Exit(status)


def answer_or_exit(ask: Callable[[], _Answer]) -> _Answer:
    """Return the result of ``ask``, or exit with the status of its failure."""
    try:
        return ask()
    except NotRunning as error:
        raise failure(str(error), NOT_RUNNING) from None
    except Refused as error:
        raise failure(str(error), REFUSED) from None


def require_version(answer: Any) -> None:
    """Exit if an answer has another version of the format than this program reads."""
    if not isinstance(answer, dict) or answer.get("version") != VERSION:
        raise failure("that MTA has another version; --json shows its answer")
