"""The environment of an agent: time, randomness, files, threads, DNS; tests hand in their own."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from ..delivery.address_order import SourceOf, kernel_source
from ..interfaces import Executor, Files, Ids, Random, Resolver, WallTime
from ..smtp.sasl.exchange import Nonce
from ..system.real_world import (
    give_way,
    nonce,
    secret_octets,
    wall_time,
)


@frozen(kw_only=True)
class Environment:
    """Everything that an agent uses besides the reactor; None stands for the real thing.

    Attributes:
        wall_time: the time of day, seconds since the epoch.
        random: for jitter, orders and names.
        ids: queue ids.
        files: the file system.
        commit_executor: where the queue's transactions run, one at a time.
        file_executor: where other files are read and written.
        password_executor: where passwords are hashed; 19 MiB and 20 ms for each.
        resolver: the DNS.
        secret: returns so many octets that cannot be guessed.
        nonce: returns a text that is used once, in AUTH.
        source_of: returns the local address that leads to another; None: source addresses are
            unknown.
        give_way: yields the processor to clients on this machine (`queue.commit.GroupCommit`).
        patience: seconds for which outcomes wait to share the commit of a message (likewise).
    """

    wall_time: WallTime = wall_time
    random: Random | None = None
    ids: Ids | None = None
    files: Files | None = None
    commit_executor: Executor | None = None
    file_executor: Executor | None = None
    password_executor: Executor | None = None
    resolver: Resolver | None = None
    secret: Callable[[int], bytes] = secret_octets
    nonce: Nonce = nonce
    source_of: SourceOf | None = kernel_source
    give_way: Callable[[], object] = give_way
    patience: float = 0.005
