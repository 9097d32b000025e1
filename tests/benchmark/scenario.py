"""The scenarios of a run, and their order.

All contestants of a scenario run at the same time, and get their messages one after the other: idle
ones cost nothing. The order alternates from round to round.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from attrs import evolve, field, frozen

from twisted_mta.telemetry.metrics.table import QUEUE_MESSAGES

from ..functional.machine import Unready
from ..functional.mta import MTA
from ..functional.sinks import SMTPSink
from . import queued
from .client import client_tls
from .contestant import Contestant, Field, commits, metrics, pair, route, total
from .exim import EXIM
from .floors import CONTESTANT, floors
from .forgetful import NAMES
from .idle import CROWDED, crowd, idle
from .load import Work, generated, rates, sized
from .passing import passing
from .results import OURS, THEIRS, Measurement

FLOORS = "floors"
ACCEPT_MANY = "accepted, many messages a connection"
ACCEPT_ONE = "accepted, one message a connection"
ACCEPT_TLS = "accepted, STARTTLS, one message a connection"
RELAY_MANY = "end to end, many messages a connection"
RELAY_ONE = "end to end, one message a connection"
RELAY_LARGE = "end to end, 100 KiB messages"
RELAY_HUGE = "end to end, 1 MiB messages"
RELAY_TLS = "end to end, STARTTLS, one message a connection"
RELAY_HUGE_TLS = "end to end, STARTTLS, 1 MiB messages"
SPREAD = "one message to 100 recipients at 100 next hops"
LATENCY = "latency at half load"
PASSING = "one message of 50 MiB"
IDLE = "idle connections"
CROWD = "{:,} idle connections while working"

WITH = "with them"
WITHOUT = "without"

ACCEPTING: Mapping[str, Work] = {
    ACCEPT_MANY: Work(),
    ACCEPT_ONE: Work(kept=False),
    ACCEPT_TLS: Work(kept=False, tls=True),
}
RELAYING: Mapping[str, Work] = {
    RELAY_MANY: Work(),
    RELAY_ONE: Work(kept=False),
    RELAY_LARGE: Work(octets=100 << 10),
    RELAY_HUGE: Work(octets=1 << 20),
    RELAY_TLS: Work(kept=False, tls=True),
    RELAY_HUGE_TLS: Work(octets=1 << 20, kept=False, tls=True),
}
SPREADING = Work(messages=4, sessions=2, hops=100)

GROUPS = ("floors", "accept", "relay", "spread", "passing", "idle", "crowd", "queued")
"""The parts of a run that ``--only`` selects."""

Record = Callable[[Measurement], object]


@frozen
class Extent:
    """The extent of a run.

    Attributes:
        rounds: of each scenario.
        seconds: for which each contestant is busy in a round, about.
        queues: lengths of the queues at a start.
        crowd: idle connections beside active ones.
        idle: idle connections whose memory is measured.
        large: octets of the large message.
    """

    rounds: int = 5
    seconds: float = 1.5
    queues: Sequence[int] = queued.LENGTHS
    crowd: int = 10_000
    idle: int = 1000
    large: int = 50 << 20


QUICK = Extent(1, 0.3, (1000, 10_000), 500, 200, 5 << 20)
"""For a test of the benchmark itself, in a minute; its figures mean nothing."""


@frozen
class Benchmark:
    """A whole run.

    Attributes:
        place: starts contestants.
        names: of the contestants.
        extent: of the run.
        record: called with each measurement.
    """

    place: Field
    names: Sequence[str]
    extent: Extent
    record: Record
    _rates: dict[str, float] = field(factory=dict, init=False)

    def run(self, groups: Sequence[str] = GROUPS) -> None:
        """Measure, in the order of `GROUPS`.

        Raises:
            Unready: a contestant failed; earlier measurements are valid.
        """
        steps = {
            "floors": self._floors,
            "accept": self._accept,
            "relay": self._relay,
            "spread": self._spread,
            "passing": self._passing,
            "idle": self._idle,
            "crowd": self._crowd,
            "queued": self._queued,
        }
        for group in GROUPS:
            if group in groups:
                steps[group]()

    def _turns(self, running: Sequence[Contestant]) -> Iterator[tuple[int, Contestant]]:
        for number in range(1, self.extent.rounds + 1):
            # The second contestant finds the disk busy with the writes of the first.
            for contestant in running if number % 2 else reversed(running):
                yield number, contestant

    @contextlib.contextmanager
    def _all(self, names: Sequence[str], *, silent: bool = False) -> Iterator[list[Contestant]]:
        with contextlib.ExitStack() as stack:
            yield [
                stack.enter_context(self.place.contestant(name, silent=silent)) for name in names
            ]

    def _keeping(self) -> list[str]:
        return [name for name in self.names if name not in NAMES]

    def _floors(self) -> None:
        place = self.place.home / "floors"
        for number in range(1, min(3, self.extent.rounds) + 1):
            figures = floors(
                place.with_name(f"floors{number}"),
                pair(self.place.home),
                self.extent.seconds / 3,
            )
            self.record(Measurement(FLOORS, CONTESTANT, number, figures))

    def _contest(self, running: Sequence[Contestant], scenario: str, work: Work) -> None:
        own = {each.name: sized(each, work, self.extent.seconds) for each in running}
        for number, contestant in self._turns(running):
            figures = rates(contestant, own[contestant.name])
            self.record(Measurement(scenario, contestant.name, number, figures))
            if scenario == RELAY_MANY:
                self._rates[contestant.name] = figures["end to end/s"]

    def _accept(self) -> None:
        with self._all(self.names, silent=True) as running:
            for scenario, work in ACCEPTING.items():
                self._contest(running, scenario, work)

    def _relay(self) -> None:
        with self._all(self._keeping()) as running:
            for scenario, work in RELAYING.items():
                self._contest(running, scenario, work)
            self._latency(running)

    def _spread(self) -> None:
        with contextlib.ExitStack() as stack:
            running = [
                stack.enter_context(self.place.contestant(name, spread=SPREADING.hops))
                for name in self._keeping()
                if name != EXIM
            ]
            self._contest(running, SPREAD, SPREADING)

    def _latency(self, running: Sequence[Contestant]) -> None:
        for number, contestant in self._turns(running):
            rate = self._rates[contestant.name] / 2
            arguments = ("--rate", rate, "--seconds", 2 * self.extent.seconds)
            figures = generated("latency", contestant.port, *arguments)
            _rest(contestant)
            self.record(
                Measurement(LATENCY, contestant.name, number, {"messages/s": rate, **figures})
            )

    def _passing(self) -> None:
        names = [name for name in self.names if name in (OURS, THEIRS)]
        with self._all(names) as running:
            for contestant in running:  # a warm-up, for one-time allocations
                rates(contestant, Work(20, octets=100 << 10))
                passing(contestant, 1 << 20)
            for number, contestant in self._turns(running):
                figures = passing(contestant, self.extent.large)
                self.record(Measurement(PASSING, contestant.name, number, figures))

    def _idle(self) -> None:
        kinds: Mapping[str, ssl.SSLContext | None] = {"plain": None, "TLS": client_tls()}
        for number in range(1, min(3, self.extent.rounds) + 1):
            figures: dict[str, float] = {}
            for kind, context in kinds.items():
                home = self.place.home / f"idle {kind} {number}".replace(" ", "-")
                home.mkdir()
                figures[f"{kind}, KiB each"] = idle(home, self.extent.idle, context) / 1024
            self.record(Measurement(IDLE, OURS, number, figures))

    def _crowd(self) -> None:
        scenario = CROWD.format(self.extent.crowd)
        with (
            self.place.contestant(OURS, toml=CROWDED) as without,
            self.place.contestant(OURS, toml=CROWDED) as among,
            crowd(among.port, self.extent.crowd),
        ):
            running = [evolve(without, name=WITHOUT), evolve(among, name=WITH)]
            work = sized(running[0], Work(), self.extent.seconds)
            rates(running[1], work)
            for number, contestant in self._turns(running):
                figures = rates(contestant, work)
                self.record(Measurement(scenario, contestant.name, number, figures))

    def _queued(self) -> None:
        homes: list[Path] = []
        for length in self.extent.queues:
            homes.append(self.place.home / f"queued-{length}")
            homes[-1].mkdir()
            homes[-1].chmod(0o755)
            queued.fill(homes[-1] / "mta-state", length)
        work = Work()
        for number in range(1, min(3, self.extent.rounds) + 1):
            for length, home in zip(self.extent.queues, homes, strict=True):
                with SMTPSink(home) as sink:
                    mta = MTA(home, "--route", route(sink))
                    start = time.monotonic()
                    with mta:
                        figures = {"start to ready, s": time.monotonic() - start}
                        if total(metrics(mta), QUEUE_MESSAGES) < length:
                            raise Unready(f"expected {length:,} messages in the queue")
                        contestant = Contestant(
                            OURS, mta.smtp, mta.pid, sink, commits=partial(commits, mta)
                        )
                        figures["resident MiB when ready"] = contestant.resident() / (1 << 20)
                        own = sized(contestant, work, self.extent.seconds)
                        figures |= rates(contestant, own)
                self.record(Measurement(queued.scenario(length), OURS, number, figures))


def _rest(contestant: Contestant) -> None:
    """Wait until a contestant is idle."""
    before = -1.0
    while (now := contestant.cpu()) > before or contestant.queued():
        before = now
        time.sleep(0.1)
