"""The troubles of one process, gathered from what its parts count anyway."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from ..health.trouble import Severity, Trouble
from ..mail.counted import counted
from ..mail.queue_id import QueueId
from ..queue.ids import time_of
from ..system.process_use import descriptors_for_connections, lowest_free_descriptor
from .agent import Agent
from .disks import Space

_NEARLY = 0.9  # of a table, or of the descriptors
_FEW_INODES = 1000


def troubles(agent: Agent) -> Iterator[Trouble]:
    """Yield the troubles that an agent knows of, without any work that grows with the queue."""
    yield from _disks(agent)
    yield from _descriptors()
    if agent.resolver.trouble:
        yield Trouble(kind="dns", text=agent.resolver.trouble)
    for fault in agent.listeners.certificate_faults():
        yield Trouble(
            kind="certificate",
            subject=fault.file,
            text=fault.text,
            severity="critical" if fault.invalid else "warning",
        )
    yield from agent.connections.refused_credentials.troubles()
    yield from agent.connections.unsafe_hosts.troubles()
    yield from agent.tokens.troubles()
    yield from _tables(agent)
    yield from _queue(agent)


def _disks(agent: Agent) -> Iterator[Trouble]:
    shortage = agent.capacity.shortage()
    if shortage is not None:
        yield Trouble(kind=shortage.what, text=shortage.text, stops=True)
    low = agent.capacity.low()
    if low:
        yield Trouble(kind="disk", text=low, severity="warning")
    disks = agent.disks
    disks.look()
    if disks.state is not None:
        yield from _inodes("", "the disk of the state directory", disks.state)
    if disks.maildir is not None:
        where = "the file system of Maildirs"
        yield from _inodes("inodes of Maildirs", where, disks.maildir)
        least = agent.capacity.minimum_free
        if disks.maildir.octets < 2 * least:
            full = disks.maildir.octets < least
            yield Trouble(
                kind="disk",
                subject="Maildirs",
                text=f"{disks.maildir.octets:,} octets of {where} are free, and minimum_free_disk"
                f" is {least:,}: local mail waits in the queue once it is full",
                severity="critical" if full else "warning",
            )


def _inodes(subject: str, where: str, space: Space) -> Iterator[Trouble]:
    if space.inodes is not None and space.inodes < _FEW_INODES:
        severity: Severity = "warning" if space.inodes else "critical"
        text = counted(space.inodes, f"inode of {where} is free", f"inodes of {where} are free")
        yield Trouble(kind="disk", subject=subject or "inodes", text=text, severity=severity)


def _descriptors() -> Iterator[Trouble]:
    try:
        used = lowest_free_descriptor()
    except OSError as error:
        text = f"no descriptor is left for another connection: {error.strerror}"
        yield Trouble(kind="descriptors", text=text, stops=True)
        return
    limit, for_connections = descriptors_for_connections()
    counts = f"{used:,} of {limit:,} descriptors are in use (LimitNOFILE, ulimit -n)"
    if used >= for_connections:
        text = f"{counts}, and the rest is for mail on its way: connections wait"
        yield Trouble(kind="descriptors", text=text, stops=True)
    elif used >= _NEARLY * for_connections:
        text = f"{counts}, and from {for_connections:,} on connections wait"
        yield Trouble(kind="descriptors", text=text, severity="warning")


def _tables(agent: Agent) -> Iterator[Trouble]:
    for name, entries, most in agent.table_sizes():
        if entries >= _NEARLY * most > 0:
            text = f"{entries:,} of {most:,} entries of {name} are in use"
            yield Trouble(kind="tables", subject=name, text=text)


def _queue(agent: Agent) -> Iterator[Trouble]:
    quarantined = failures = 0
    oldest: QueueId | None = None
    for shard in agent.counted_shards:
        census = shard.commit.census()
        quarantined += census.quarantined
        failures += census.failures
        first = shard.tallies.oldest()
        if census.recipients and first is not None:
            oldest = first if oldest is None else min(first, oldest)
    # Workers have parts of the queue of their own.
    own_part = agent.config.workers > 1 and not agent.has_shared_queue
    where = f"worker {agent.worker}" if own_part else ""
    of_whom = f" of {where}" if where else ""
    if quarantined:
        text = counted(
            quarantined,
            f"message{of_whom} has lost its body file, and is not delivered",
            f"messages{of_whom} have lost their body file, and are not delivered",
        )
        yield Trouble(kind="quarantine", subject=where, text=text)
    new_failures = agent.failures.of(failures)
    if new_failures:
        text = counted(
            new_failures,
            f"failure{of_whom} was recorded that no notice has reported",
            f"failures{of_whom} were recorded that no notice has reported",
        )
        yield Trouble(kind="failures", subject=where, text=text)
    most = agent.config.queue.age_warning
    if most is not None and oldest is not None and agent.wall_time() - time_of(oldest) > most:
        since = datetime.fromtimestamp(time_of(oldest), UTC)
        text = f"the oldest message{of_whom}, {oldest}, waits since {since:%Y-%m-%d %H:%M} UTC"
        yield Trouble(kind="queue_age", subject=where, text=text)
