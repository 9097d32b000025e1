"""The executor of a store's transactions, which fail, take time, or crash the machine on cue.

A store fails at its contract: nothing of a transaction is durable, or all of it, and in either case
the agent may hear of it, hear that it failed, or be dead before.
"""

from __future__ import annotations

import enum
import errno
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, execute, fail, succeed

from ..queue.store.contract import Operation, Result
from .files import UnsyncedFiles
from .machine import Machine


class Fate(enum.Enum):
    """What happens to a transaction."""

    GOOD = "it is durable"
    REFUSED = "it fails, and nothing of it is durable"
    IN_DOUBT = "it is durable, and fails all the same"
    CRASH_BEFORE = "the machine crashes before anything of it is durable"
    CRASH_AFTER = "it is durable, and the machine crashes before it has said so"


@frozen
class _Step:
    fate: Fate
    error: Exception


class Commits:
    """Runs the calls of a store for one machine (`interfaces.Executor`).

    Args:
        files: the disk of body files, whose power stays on during a transaction.

    Attributes:
        machine: whose store it is; after a crash it answers no more.
        crash: crashes the machine.
        seconds: returns how long the next transaction takes; it is durable at the end of that time,
            or at its beginning where `early` says so.
        early: returns whether the next transaction is durable at the beginning of its time.
        written: called with the operations and results of each transaction that is durable, before
            the agent hears of it; a result is None where it fails in doubt.
    """

    def __init__(self, files: UnsyncedFiles) -> None:
        self.files = files
        self.machine: Machine | None = None
        self.crash: Callable[[], object] = lambda: None
        self.seconds: Callable[[], float] = lambda: 0.0
        self.early: Callable[[], bool] = lambda: False
        self.written: Callable[[Sequence[Operation], Sequence[Result]], object] = (
            lambda operations, results: None
        )
        self._steps: deque[_Step] = deque()

    def next(self, fate: Fate, error: Exception, *, after: int = 0) -> None:
        """Give the next transaction a fate.

        Args:
            fate: what happens to it.
            error: with which it fails, if it fails.
            after: the number of transactions before it that are good.
        """
        self._steps.extend([_Step(Fate.GOOD, error)] * after)
        self._steps.append(_Step(fate, error))

    def forget(self) -> None:
        """Let all transactions be good that have not begun."""
        self._steps.clear()

    def __call__(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Call a method of the store; the Deferred never fires where the machine crashes."""
        assert self.machine is not None
        if not self.machine.is_up:
            return Deferred()
        if getattr(function, "__name__", "") != "apply":
            return execute(function, *args, **kwargs)
        step = self._steps.popleft() if self._steps else None
        seconds = self.seconds()
        if not seconds:
            return self._run(step, function, args[0])
        answer: Deferred[Any] = Deferred()
        if self.early():
            result = self._run(step, function, args[0])
            self.machine.callLater(seconds, lambda: result.chainDeferred(answer))
        else:
            self.machine.callLater(
                seconds, lambda: self._run(step, function, args[0]).chainDeferred(answer)
            )
        return answer

    def _run(
        self, step: _Step | None, apply: Callable[..., Any], operations: Sequence[Operation]
    ) -> Deferred[Any]:
        fate = step.fate if step is not None else Fate.GOOD
        if fate is Fate.CRASH_BEFORE:
            self.crash()
            return Deferred()
        if step is not None and fate is Fate.REFUSED:
            return fail(step.error)
        if step is not None and fate is Fate.IN_DOUBT:
            # The store looks at its files after the commit, and takes back its leases on an error.
            self.files.fail_next("identity", OSError(errno.EIO, str(step.error)))
        applied: list[Any] = []
        # A power cut between the commit and the end of the call is one after the call.
        self.files.steady = True
        execute(apply, operations).addBoth(applied.append)
        self.files.steady = False
        (result,) = applied
        if isinstance(result, list):
            self.written(operations, result)
        elif fate is Fate.IN_DOUBT:
            self.written(operations, [None] * len(operations))
        if fate is Fate.CRASH_AFTER:
            self.crash()
            return Deferred()
        return succeed(result) if isinstance(result, list) else fail(result)
