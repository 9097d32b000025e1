"""``python -m tests.benchmark.machines``: one queue in PostgreSQL, for one to three machines.

Every machine is an MTA with a state directory of its own, and all of them, the database, the next
hop and the generators are on this one machine: what is measured is the work for a message, by its
place, and not what several machines would reach. The same messages go to an MTA with its queue in
SQLite. A generator for each MTA sends over 20 connections; a round ends when the next hop has all.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import psycopg
from attrs import evolve, frozen

from ..functional.machine import eventually, folder
from ..functional.mta import MTA
from ..functional.postgresql import PostgreSQL
from ..functional.sinks import SMTPSink
from .contestant import commits, route
from .load import PATIENCE, Work, send
from .processes import cpu_seconds


@frozen
class Setup:
    """What takes the messages.

    Attributes:
        name: for the table.
        machines: MTAs.
        workers: processes of each.
        shared: whether their queue is in PostgreSQL.
    """

    name: str
    machines: int = 1
    workers: int = 1
    shared: bool = True


SETUPS = (
    Setup("SQLite", shared=False),
    Setup("1 machine"),
    Setup("1 machine, 2 workers", workers=2),
    Setup("2 machines", 2),
    Setup("3 machines", 3),
)


@frozen
class Figures:
    """What one round has measured.

    Attributes:
        accepted: messages that were accepted in a second.
        delivered: messages in a second, from the first connection to the last delivery.
        mta: CPU time of all MTAs for a message, in µs.
        database: that of all processes of PostgreSQL.
        operations: in a transaction, on average.
    """

    accepted: float
    delivered: float
    mta: float
    database: float
    operations: float


@frozen
class Running:
    """A setup that runs."""

    setup: Setup
    mtas: Sequence[MTA]
    hop: SMTPSink
    database: PostgreSQL

    def cpu(self) -> tuple[float, float]:
        """Return the CPU seconds of the MTAs and of the database so far."""
        return sum(cpu_seconds(mta.pid) for mta in self.mtas), cpu_seconds(self.database.pid)

    def commits(self) -> tuple[float, float]:
        """Return how many transactions and operations were committed so far."""
        batches, operations = zip(*map(commits, self.mtas), strict=True)
        return sum(batches), sum(operations)


@contextlib.contextmanager
def running(home: Path, setup: Setup, database: PostgreSQL) -> Iterator[Running]:
    """Start a setup with an empty queue, and stop it afterwards."""
    home.mkdir()
    home.chmod(0o755)
    with contextlib.ExitStack() as stack:
        hop = stack.enter_context(SMTPSink(home))
        mtas = []
        for number in range(setup.machines):
            place = home / f"machine-{number}"
            place.mkdir()
            queue = ("--queue", database.url) if setup.shared else ()
            workers = ("--workers", str(setup.workers)) if setup.workers > 1 else ()
            mta = MTA(place, "--route", route(hop), *queue, *workers)
            mtas.append(stack.enter_context(mta))
        yield Running(setup, mtas, hop, database)


def measured(running: Running, work: Work) -> Figures:
    """Send messages, an equal part to each MTA, and wait until all have arrived."""
    mtas, taken = running.mtas, running.hop.count
    part = evolve(work, messages=work.messages // len(mtas))
    expected = taken() + part.messages * len(mtas)
    mta, database = running.cpu()
    batches, operations = running.commits()
    start = time.monotonic()
    with ThreadPoolExecutor(len(mtas)) as generators:
        sent = list(generators.map(lambda each: send(each.smtp, part), mtas))
    eventually(lambda: taken() >= expected, "the delivery of all messages", PATIENCE)
    seconds = time.monotonic() - start
    time.sleep(0.3)  # work after the last message costs CPU time too
    done = part.messages * len(mtas)
    mta_after, database_after = running.cpu()
    batches_after, operations_after = running.commits()
    return Figures(
        accepted=done / max(each.seconds for each in sent),
        delivered=done / seconds,
        mta=(mta_after - mta) * 1e6 / done,
        database=(database_after - database) * 1e6 / done,
        operations=(operations_after - operations) / max(1, batches_after - batches),
    )


def _empty(database: PostgreSQL) -> None:
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS twisted_mta CASCADE")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmark.machines",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--messages", type=int, default=3000, help="in each round (3000)")
    parser.add_argument("--octets", type=int, default=4096, help="of each message (4096)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", action="append", choices=[each.name for each in SETUPS], help="repeatable"
    )
    options = parser.parse_args(arguments)
    work = Work(options.messages, options.octets)
    chosen = [each for each in SETUPS if not options.only or each.name in options.only]
    columns = ("accepted/s", "delivered/s", "MTA µs", "PostgreSQL µs", "operations/commit")
    print("queue".ljust(22), *(f"{each:>17}" for each in columns), flush=True)
    with folder("machines") as place:
        place.chmod(0o755)
        with PostgreSQL(place) as database:
            for number, setup in enumerate(chosen):
                _empty(database)
                with running(place / f"setup-{number}", setup, database) as started:
                    measured(started, evolve(work, messages=work.messages // 3))  # to warm up
                    rounds = [measured(started, work) for _ in range(options.rounds)]
                figures = [
                    median(values)
                    for values in zip(
                        *(
                            (f.accepted, f.delivered, f.mta, f.database, f.operations)
                            for f in rounds
                        ),
                        strict=True,
                    )
                ]
                shown = (f"{each:17,.1f}" if each < 100 else f"{each:17,.0f}" for each in figures)
                print(setup.name.ljust(22), *shown, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
