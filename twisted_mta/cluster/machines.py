"""The machines of a cluster, as one of them sees them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import asdict, frozen

from ..health.trouble import Trouble
from ..mail.printable import printable

_APART = 5.0  # seconds by which clocks may differ: due times are wall times


@frozen(kw_only=True)
class Machine:
    """A machine, as it was at its last transaction.

    Attributes:
        id: the random id in its state directory.
        hostname: a label for people; several machines may have the same.
        version: of the program.
        workers: its processes.
        settings: a digest of the limits in its settings.
        since: wall time of its start, by the database's clock.
        silent: seconds since its last transaction, by the database's clock.
        ahead: seconds by which its wall clock was ahead of the database's.
        alive: whether its credits are its own.
        leases: recipients that its processes have leased.
    """

    id: str
    hostname: str
    version: str
    workers: int
    settings: str
    since: float
    silent: float
    ahead: float
    alive: bool
    leases: int = 0

    @property
    def name(self) -> str:
        """Its name for people: the label, and the beginning of the id."""
        return printable(f"{self.hostname} ({self.id[:8]})")


@frozen(kw_only=True)
class OwnMachine:
    """What a machine says of itself.

    Attributes:
        id: the random id in its state directory.
        hostname: a label for people.
        version: of the program.
        workers: its processes.
        settings: a digest of the limits in its settings.
    """

    id: str
    hostname: str
    version: str
    workers: int
    settings: str


@frozen(kw_only=True)
class ClusterStatus:
    """The machines of a queue, as one of them has seen them.

    Attributes:
        own: the id of the machine that has seen them.
        seen: seconds ago; None: none have been seen yet.
        machines: all that were alive within a day, with this one.
        limits: what this machine may rely on (`credits.Standing`), in words.
        problem: why the database was of no use the last time, printable; empty: it was.
    """

    own: str
    seen: float | None
    machines: tuple[Machine, ...]
    limits: str
    problem: str

    def to_json(self) -> dict[str, Any]:
        """Return it in plain types."""
        return asdict(self)

    def troubles(self) -> Iterator[Trouble]:
        """Yield what is wrong with the machines."""
        if self.problem:
            yield Trouble(
                kind="machines",
                subject="limits",
                text="the limits of all machines cannot be exchanged, and this one goes on with"
                f" its share of them: {self.problem}",
                remedy="See to the database, or to the way there.",
            )
        mine = next((each for each in self.machines if each.id == self.own), None)
        for each in self.machines:
            if not each.alive:
                silent = each.silent + (self.seen or 0.0)
                yield Trouble(
                    kind="machines",
                    subject=each.id,
                    text=f"{each.name} has been silent for {silent:.0f} s; the others deliver its"
                    " mail",
                )
                continue
            if abs(each.ahead) > _APART:
                way = "ahead of" if each.ahead > 0 else "behind"
                yield Trouble(
                    kind="machines",
                    subject=f"clock of {each.id}",
                    text=f"the clock of {each.name} is {abs(each.ahead):.0f} s {way} that of the"
                    " database",
                    remedy="Let NTP set the clocks of all machines and of the database.",
                )
            if mine is not None and each.settings != mine.settings:
                yield Trouble(
                    kind="machines",
                    subject=f"settings of {each.id}",
                    text=f"{each.name} has other limits in its settings than this machine",
                    remedy="Give all machines the same [[destination]], [account_limits],"
                    " [[source_pool]] and connections_per_hop.",
                )
