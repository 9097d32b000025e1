"""A queue that several machines share: leases are renewed, and nothing is sent without one."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..cluster.identity import machine_id
from ..interfaces import Clock, Executor, Files
from ..mail.body import Body
from ..mail.message import Message
from ..mail.queue_id import QueueId
from ..queue.commit import GroupCommit
from ..queue.ids import QueueIds
from ..queue.operator.operations import ReadRetried, Retried
from ..queue.pending import PROBE
from ..queue.runner import Runner
from ..queue.store.contract import Leased, Result, Settle, StoreError
from ..queue.store.postgresql.store import PostgreSQLStore, large_messages
from ..queue.store.spool import Spool
from .shard import QUEUE, shard_directory, shards_there
from .shared_state import known_url, note_url

_BEAT = 5.0  # seconds between renewals of the leases
_SURVEYS = 6  # renewals between searches for mail that other machines have left


@frozen
class GuardedBody:
    """A body that can be sent as long as its message is leased (`mail.body.Body`).

    Attributes:
        body: the body.
        is_leased: whether the lease is certain.
    """

    body: Body
    is_leased: Callable[[], bool]

    @property
    def size(self) -> int:
        """The number of octets."""
        return self.body.size

    def chunks(self) -> Iterator[bytes]:
        """Yield the content in pieces.

        Raises:
            OSError: the body cannot be read, or the lease has ended. That is checked before each
                piece and at the end: before the final dot, and before the last piece of a BDAT.
        """
        for chunk in self.body.chunks():
            self._check()
            yield chunk
        self._check()

    def _check(self) -> None:
        if not self.is_leased():
            raise OSError("the lease of the message could not be renewed; it is left to others")


class SharedQueue:
    """The store of a shared queue, what keeps its leases, and what copies its large bodies.

    Args:
        store: the store.
        clock: for renewals.
        ids: of new messages; they get the number of this worker.
        executor: where large bodies are copied, one at a time.
    """

    _log = Logger()

    def __init__(
        self, store: PostgreSQLStore, *, clock: Clock, ids: Any, executor: Executor
    ) -> None:
        self.store = store
        store.brings_bodies = True
        self._clock = clock
        self._ids = ids
        self._executor = executor
        self._commit: GroupCommit | None = None
        self._beats = 0
        self._retries: set[int] = set()  # of other processes, at the last look
        self._known = 0  # `PostgreSQLStore.taken_over` at the last search
        self._next: Any = None

    def opened(self) -> None:
        """Draw ids with the number of this worker, which may be another one than before."""
        if isinstance(self._ids, QueueIds):
            self._ids.worker = self.store.number

    def start(
        self,
        commit: GroupCommit,
        runner: Runner,
        take_suspended: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        """Begin to renew the leases.

        Args:
            commit: of the queue.
            runner: delivers its mail.
            take_suspended: reads which destinations are suspended: other machines change that.
        """
        self._commit = commit
        self._next = self._clock.callLater(_BEAT, self._beat, commit, runner, take_suspended)

    def stop(self) -> None:
        """End it."""
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._executor(self.store.end_transfers).addErrback(lambda failure: None)

    def _beat(
        self,
        commit: GroupCommit,
        runner: Runner,
        take_suspended: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self._next = self._clock.callLater(_BEAT, self._beat, commit, runner, take_suspended)
        commit.perform(PROBE).addErrback(lambda failure: None)  # `is_open` shows the failure
        # After the probe, in its batch.
        Deferred.fromCoroutine(take_suspended()).addErrback(
            self._not_taken, "which destinations are suspended"
        )
        retried = commit.perform(ReadRetried(frozenset(self._retries)))
        retried.addCallback(self._take_retried, runner).addErrback(
            self._not_taken, "which mail was retried by other processes"
        )
        self._beats += 1
        if self._beats % _SURVEYS == 0 or self.store.taken_over != self._known:
            self._known = self.store.taken_over
            runner.survey()

    def _take_retried(self, retried: Retried, runner: Runner) -> None:
        """Pass on the retries that were not there at the last look."""
        before, self._retries = self._retries, {each.id for each in retried.retries}
        runner.take_retried([each for each in retried.retries if each.id not in before])

    def _not_taken(self, failure: Failure, what: str) -> None:
        if not failure.check(StoreError, CancelledError):  # `is_open` shows the failure
            self._log.failure("it was not found out {what}", failure, what=what)

    # Large bodies (`queue.store.contract.Transfers`).

    def bring(self, message: Message) -> Deferred[None]:
        """Copy the body of a message that is about to be accepted into the database."""
        return self._executor(self.store.bring, message)

    def fetch(self, result: Result) -> Deferred[Any] | None:
        """Copy the large bodies of a result from the database into files."""
        messages = large_messages(result)
        if not messages:
            return None
        return self._executor(self._fetch, messages).addCallback(self._fetched, result)

    def _fetch(self, messages: Sequence[Message]) -> Mapping[QueueId, StoreError]:
        """Copy the bodies of messages; return those that failed. Blocks."""
        failed: dict[QueueId, StoreError] = {}
        for message in messages:
            try:
                self.store.fetch(message)
            except StoreError as error:
                failed[message.id] = error
        return failed

    def _fetched(self, failed: Mapping[QueueId, StoreError], result: Result) -> Result:
        if not isinstance(result, Leased):
            for error in failed.values():
                raise error
            return result
        for message in result.messages:
            if message.id in failed:
                self._log.error(
                    "the body of {id} cannot be read, and its lease ends: {error}",
                    id=message.id,
                    error=str(failed[message.id]),
                )
                self._release(message)
        messages = tuple(each for each in result.messages if each.id not in failed)
        return evolve(result, messages=messages)

    def _release(self, message: Message) -> None:
        """End a lease without an attempt: the next survey finds the mail."""
        untried = tuple(each.number for each in message.envelope.recipients)
        if self._commit is not None:
            released = self._commit.perform(Settle(message, untried=untried))
            released.addErrback(lambda failure: None)  # at a stop; leases end then

    def guarded(self, message: Message) -> Message:
        """Return a message whose content ends with its lease."""
        return evolve(
            message, body=GuardedBody(message.body, partial(self.store.is_leased, message))
        )


def shared_queue(
    url: str,
    state_dir: str,
    *,
    worker: int,
    spool: Spool,
    files: Files,
    secret: Callable[[int], bytes],
    clock: Clock,
    ids: Any,
    executor: Executor,
) -> SharedQueue:
    """Return the queue in a database, for a process of the machine with a state directory.

    Args:
        url: of the database.
        state_dir: of the machine.
        worker: which of its processes this is, from 0.
        spool: the directory of copies of large bodies, of this process alone.
        files: the disk.
        secret: returns unguessable octets.
        clock: for renewals.
        ids: of new messages.
        executor: where large bodies are copied, one at a time.
    """
    store = shared_store(
        url,
        state_dir,
        worker=worker,
        spool=spool,
        files=files,
        secret=secret,
        seconds=clock.seconds,
    )
    return SharedQueue(store, clock=clock, ids=ids, executor=executor)


def shared_store(
    url: str,
    state_dir: str,
    *,
    worker: int,
    spool: Spool,
    files: Files,
    secret: Callable[[int], bytes],
    seconds: Callable[[], float],
) -> PostgreSQLStore:
    """Return the store in a database, for a process of the machine with a state directory."""
    return PostgreSQLStore(
        url,
        machine=partial(_machine, url, state_dir, files, secret),
        slot=worker,
        spool=spool,
        files=files,
        seconds=seconds,
    )


def _machine(url: str, state_dir: str, files: Files, secret: Callable[[int], bytes]) -> str:
    """Return the random id of this machine, which is made once; note the database. Blocks.

    Raises:
        StoreError: the id cannot be read, or there is mail in a queue of this machine alone.
    """
    try:
        for number in (0, *shards_there(state_dir)):
            embedded = os.path.join(shard_directory(state_dir, number), QUEUE)
            if os.path.exists(embedded):
                raise StoreError(
                    f"{embedded} may have mail: move it with twisted-mta queue move --to URL, or"
                    " deliver it with --queue sqlite: and move the file away"
                )
        machine = machine_id(state_dir, files, secret)
        if known_url(state_dir, files) != url:
            note_url(url, state_dir, files, secret)
        return machine
    except (OSError, ValueError) as error:
        raise StoreError(str(error)) from error
