"""The queue of an MTA that does not run, as its control socket would give it.

It is read from its files, or from the database that it is in. The requests are those of
`queue_api`, as far as they change nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ..agent.operator_suspensions import MOST_COUNTED
from ..agent.shard import QUEUE, shard_directory, shards_there
from ..agent.shared_state import known_machine, known_url
from ..health.trouble import Trouble
from ..interfaces import Executor, WallTime
from ..mail.address import Mailbox
from ..mail.next_hop import NextHop
from ..mail.printable import printable
from ..queue.operator.operations import (
    FIRST,
    CountWaiting,
    ReadSuspended,
    Summarize,
    Summarized,
    Suspended,
    WaitingCounts,
)
from ..queue.operator.selection import Selection
from ..queue.operator.suspended import SuspendedDestination, SuspendedDestinations
from ..queue.store.contract import NewerSchema, StateInUse, StoreError
from ..queue.store.spool import Spool
from ..queue.store.stopped import Reading, StoppedQueue
from ..queue.store.suspended_file import SUSPENDED_FILE, SuspendedFile
from ..system.files import DiskFiles
from .control.client import NotRunning, Refused
from .http import Request, Response
from .questions import Deliver, Question, ShardQuestion
from .queue_api import QueueAPI
from .report import ProcessReport


class _Queue(Protocol):
    """A queue that is only read."""

    def perform(self, operation: Reading) -> Any: ...

    def close(self) -> None: ...


class StoppedMTA:
    """Answers requests for the queue in a state directory. It blocks.

    Args:
        state_dir: of the MTA. No process can start on it before `close`.
        wall_time: for ages.
        executor: runs calls in the caller's turn.
        clock: for time-outs that never come.
        seconds: a monotonic clock, for a database that does not answer.

    Raises:
        NotRunning: there is no queue, or an MTA has been started on it.
        Refused: it cannot be read.
    """

    def __init__(
        self,
        state_dir: str,
        *,
        wall_time: WallTime,
        executor: Executor,
        clock: IReactorTime,
        seconds: Callable[[], float],
    ) -> None:
        self._queues: dict[int, _Queue] = {}
        suspended = SuspendedDestinations(wall_time)
        self._agents = _StoppedAgents(
            self._queues, suspended, wall_time=wall_time, executor=executor
        )
        self._api = QueueAPI(self._agents, clock=clock)
        try:
            if os.path.exists(os.path.join(state_dir, QUEUE)):
                self._open_files(state_dir, executor)
            else:
                self._open_database(state_dir, executor, seconds)
            read: Suspended = self._queues[0].perform(ReadSuspended())
            suspended.replace(read.destinations)
        except (FileNotFoundError, NotADirectoryError, StateInUse) as error:
            self.close()
            raise NotRunning(printable(str(error))) from None
        except (OSError, StoreError, NewerSchema) as error:
            self.close()
            raise Refused(printable(str(error))) from None

    def _open_files(self, state_dir: str, executor: Executor) -> None:
        suspended = SuspendedFile(os.path.join(state_dir, SUSPENDED_FILE))
        for number in (0, *shards_there(state_dir)):
            directory = shard_directory(state_dir, number)
            spool = Spool(os.path.join(directory, "body"), files=DiskFiles(), executor=executor)
            path = os.path.join(directory, QUEUE)
            queue = StoppedQueue(path, spool=spool, suspended=suspended)
            queue.open(os.path.join(directory, "queue.lock"))
            self._queues[number] = queue

    def _open_database(
        self, state_dir: str, executor: Executor, seconds: Callable[[], float]
    ) -> None:
        files = DiskFiles()
        url = known_url(state_dir, files)
        if url is None:
            raise FileNotFoundError(f"{state_dir} has no queue")
        # The client of PostgreSQL takes longer to import than the rest.
        from ..queue.store.postgresql.stopped import StoppedDatabase

        queue = StoppedDatabase(
            url,
            machine=known_machine(state_dir, files),
            files=files,
            executor=executor,
            seconds=seconds,
        )
        queue.open()
        self._queues[0] = queue

    def close(self) -> None:
        """Let processes open the queue."""
        for queue in self._queues.values():
            queue.close()
        self._queues.clear()

    def get(self, path: str) -> Any:
        """Return the JSON at ``path``.

        Raises:
            Refused: the request is wrong, or the files cannot be read.
        """
        response = self._answered(path)
        if response.pieces is not None:
            raise Refused(f"{path} is no JSON")
        answer = json.loads(response.body)
        if response.code >= 400:
            raise Refused(printable(str(answer.get("error"))))
        return answer

    def post(self, path: str, body: Any = None) -> Any:
        """Refuse: a queue that no process works on is not changed."""
        raise NotRunning(f"no MTA is running, and {path} is for a running one")

    def content(self, path: str) -> Iterator[bytes]:
        """Yield the content at ``path``, piece by piece.

        Raises:
            Refused: the request is wrong, or the files cannot be read.
        """
        response = self._answered(path)
        if response.code >= 400:
            raise Refused(printable(str(json.loads(response.body).get("error"))))
        if response.pieces is None:
            yield response.body
            return
        while piece := _result(response.pieces()):
            yield piece

    def _answered(self, path: str) -> Response:
        place, _, query = path.partition("?")
        request = Request(method="GET", path=place, query=query)
        answered: Response = _result(maybeDeferred(self._api.answer, request))
        return answered


def _result(deferred: Deferred[Any]) -> Any:
    """Return the result of a Deferred that has fired, as everything here blocks."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    (result,) = results
    if not isinstance(result, Failure):
        return result
    error = result.value
    assert error is not None
    if isinstance(error, OSError | StoreError | ValueError | LookupError):
        raise Refused(printable(str(error)))
    raise error


async def _waiting(shard: Any, names: Sequence[str]) -> Mapping[str, int]:
    """Return how many recipients wait for domains; of next hops it is not known."""
    counts = {}
    for name in names:
        if SuspendedDestination(name, 0.0).is_domain:
            domains: Sequence[str] = [name]
        elif name.startswith("."):
            domains = await _domains_below(shard, name)
        else:
            continue
        asked = CountWaiting(tuple(domains), MOST_COUNTED)
        counted: WaitingCounts = await shard.commit.perform(asked)
        counts[name] = sum(counted.by_domain.values())
    return counts


async def _domains_below(shard: Any, name: str) -> Sequence[str]:
    """Return the domains below a ``.domain`` that have mail."""
    domains: dict[str, None] = {}
    after: int | None = FIRST
    while after is not None:
        asked = Summarize("domain", Selection(domain=name), after)
        found: Summarized = await shard.commit.perform(asked)
        domains.update(dict.fromkeys(found.groups))
        after = found.next
    return list(domains)


class _StoppedAgents:
    """Queues without an agent (`questions.Agents`)."""

    def __init__(
        self,
        queues: Mapping[int, _Queue],
        suspended: SuspendedDestinations,
        *,
        wall_time: WallTime,
        executor: Executor,
    ) -> None:
        self._queues = queues
        self._suspended = suspended
        self._agent: Any = SimpleNamespace(
            wall_time=wall_time,
            file_executor=executor,
            operator_suspensions=SimpleNamespace(waiting=_waiting),
        )
        self._executor = executor

    def ask(self, question: Question, **arguments: Any) -> Deferred[Any]:
        """Fail: there is no agent."""
        raise NotRunning("no MTA is running")

    def ask_shard(self, shard: int, question: ShardQuestion, **arguments: Any) -> Deferred[Any]:
        """Answer a question that changes nothing."""
        queue = self._queues[shard]
        stopped: Any = SimpleNamespace(
            commit=SimpleNamespace(
                perform=lambda operation: self._executor(queue.perform, operation)
            ),
            runner=SimpleNamespace(
                waiting=lambda ids: {}, suspended_destination=self._suspended_destination
            ),
        )
        return Deferred.fromCoroutine(question.answer(self._agent, stopped, **arguments))

    def _suspended_destination(self, mailbox: Mailbox) -> SuspendedDestination | None:
        # Without the configuration the next hop of a domain is not known.
        return self._suspended.find(mailbox.domain, NextHop("error"))

    def shards(self) -> Sequence[int]:
        """Return the numbers of all shards of the queue."""
        return list(self._queues)

    def reports(self) -> Sequence[ProcessReport]:
        """Return nothing: no process runs."""
        return ()

    def troubles(self) -> Sequence[Trouble]:
        """Return nothing: no process runs."""
        return ()

    def trace(self, wanted: Any, deliver: Deliver) -> Callable[[], object]:
        """Fail: nothing happens that could be traced."""
        raise NotRunning("no MTA is running")
