"""The machines of a cluster, as one of them sees them."""

from __future__ import annotations

from typing import Any

from attrs import asdict, frozen


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

    def to_json(self) -> dict[str, Any]:
        """Return it in plain types."""
        return asdict(self)


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
