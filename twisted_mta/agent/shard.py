"""A shard: one process's part of the queue, with its store and its runner.

The first shard is the state directory itself, the others are folders in it. When there are fewer
processes than before, the remaining ones take over the shards of the others.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from attrs import frozen
from twisted.logger import Logger

from ..mail.counted import counted
from ..queue.commit import GroupCommit
from ..queue.operator.tallies import Tallies
from ..queue.operator.waiting_mail import WaitingMail
from ..queue.runner import Runner
from ..queue.store.contract import Store, StoreError
from ..queue.store.lock import StateLock
from ..queue.store.spool import Spool
from .files_hold import FilesHold

QUEUE = "queue.sqlite"
"""The file of a shard's queue, in its folder."""

_log = Logger()

_FOLDER = re.compile(r"shard-([1-9][0-9]*)\Z")


@frozen
class Shard:
    """One shard of the queue.

    Attributes:
        number: 0 is the state directory itself.
        lock: the process that holds it works on the shard.
        spool: the body files.
        store: the database.
        commit: its transactions.
        runner: delivers its mail.
        tallies: count its recipients by age and by reason of deferral.
        waiting: counts its recipients that wait for suspended next hops.
        waiting_for_operator: counts those that wait for destinations which the operator has
            suspended.
        hold: keeps its files for a copy.
    """

    number: int
    lock: StateLock
    spool: Spool
    store: Store
    commit: GroupCommit
    runner: Runner
    tallies: Tallies
    waiting: WaitingMail
    waiting_for_operator: WaitingMail
    hold: FilesHold

    def recover(self, *, taken_over: bool) -> None:
        """Open the store, and log the messages that a crash has damaged.

        Args:
            taken_over: whether the shard was another worker's.

        Raises:
            StoreError: the store cannot be opened, now or ever (`GroupCommit.start`).
        """
        recovery = self.commit.start()
        if recovery is None:
            return
        for name in recovery.swept:
            _log.info("removed body {name}: its message was never acknowledged", name=name)
        for id in recovery.quarantined:
            _log.error("{id} has lost its body file; it is kept and not delivered", id=id)
        for id in recovery.removed:
            _log.info("{id} removed by the operator: that was asked for before the last end", id=id)
        if taken_over and recovery.census.messages:
            _log.info(
                "shard {shard} of a former worker is taken over: {_messages}",
                shard=self.number,
                messages=recovery.census.messages,
                _messages=counted(recovery.census.messages, "message"),
            )


def shard_directory(state_dir: str, number: int) -> str:
    """Return the directory of a shard."""
    return state_dir if number == 0 else os.path.join(state_dir, f"shard-{number}")


def need_queue(state_dir: str, number: int) -> None:
    """Check that the queue of a shard exists.

    Raises:
        StoreError: it does not.
    """
    path = os.path.join(shard_directory(state_dir, number), QUEUE)
    if not os.path.exists(path):
        raise StoreError(
            f"{path} was there before and has gone; when it is back, it is used, and until then"
            " none is made in its place"
        )


def shards_there(state_dir: str) -> list[int]:
    """Return the numbers of all shards that have a folder, in rising order; shard 0 has none.

    Raises:
        OSError: the state directory cannot be read.
    """
    matches = (_FOLDER.match(name) for name in os.listdir(state_dir))
    return sorted(int(match[1]) for match in matches if match)


def shares(state_dir: str, workers: int, *, shared: bool = False) -> list[Sequence[int]]:
    """Return which shards each worker works on, its own first.

    Args:
        state_dir: the state directory.
        workers: how many there are.
        shared: whether the queue is shared: then a shard is only a worker's place for files, and
            those of former workers have no mail.

    Raises:
        OSError: the state directory cannot be read.
    """
    there = [] if shared else shards_there(state_dir)
    orphans = [number for number in there if number >= workers]
    return [
        (worker, *(number for number in orphans if number % workers == worker))
        for worker in range(workers)
    ]
