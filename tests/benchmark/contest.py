"""Two mail transfer agents, side by side on one machine, given the same work in turn."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from attrs import frozen

from ..functional.postfix import Postfix
from ..functional.programs import LOOPBACK, MTA, SMTPSink, Unready, eventually, run
from .processes import cpu_seconds

OURS = "twisted-mta"
THEIRS = "postfix"

MANY = "{} workers"
"""The name of ours with so many workers, beside ours with one."""

SCENARIOS = {"kept": ("-d",), "single": ()}
"""How smtp-source uses connections: many messages on each, or a new one for every message."""


@frozen
class Work:
    """What each contestant is given in each round.

    Attributes:
        messages: how many.
        octets: the size of each, without header.
        sessions: parallel connections of the generator.
    """

    messages: int = 2000
    octets: int = 4096
    sessions: int = 20


@frozen
class Measurement:
    """One contestant, one scenario, one round.

    Attributes:
        contestant: who.
        scenario: a key of `SCENARIOS`.
        round: from 1.
        messages: how many were sent.
        accepted: seconds until the generator had its last ``250``.
        arrived: seconds until the next hop had taken the last message.
        cpu: CPU seconds of all processes of the contestant, until its queue was empty.
    """

    contestant: str
    scenario: str
    round: int
    messages: int
    accepted: float
    arrived: float
    cpu: float

    @property
    def figures(self) -> dict[str, float]:
        """Messages a second, twice, and CPU milliseconds a message."""
        return {
            "accepted/s": self.messages / self.accepted,
            "end to end/s": self.messages / self.arrived,
            "CPU ms/message": self.cpu * 1000 / self.messages,
        }


@frozen
class Contestant:
    """A running mail transfer agent and the sink that it relays to.

    Attributes:
        name: for the table.
        port: where it takes mail.
        pid: the process above all its others.
        sink: its next hop.
        queued: says how many messages it still has in its queue, as far as can be told.
    """

    name: str
    port: int
    pid: int
    sink: SMTPSink
    queued: Callable[[], int]

    def work(self, work: Work, scenario: str, number: int) -> Measurement:
        """Send it ``work``, wait until all of it has arrived, and return what that took.

        Raises:
            Unready: it refused a message, or some did not arrive.
        """
        expected = self.sink.count() + work.messages
        cpu = cpu_seconds(self.pid)
        start = time.monotonic()
        sent = run(
            "smtp-source",
            *SCENARIOS[scenario],
            *("-s", str(work.sessions), "-l", str(work.octets), "-m", str(work.messages)),
            *("-f", "ann@sender.example", "-t", "bob@elsewhere.example"),
            f"{LOOPBACK}:{self.port}",
            timeout=600.0,
        )
        accepted = time.monotonic() - start
        if sent.returncode:
            raise Unready(f"{self.name}: smtp-source: {sent.stdout}")
        eventually(
            lambda: self.sink.count() >= expected,
            f"{self.name} to deliver {work.messages} messages",
            600.0,
        )
        arrived = time.monotonic() - start
        eventually(lambda: self.queued() == 0, f"{self.name} to empty its queue", 60.0)
        time.sleep(0.3)  # what is done after the last delivery costs CPU time too
        return Measurement(
            self.name,
            scenario,
            number,
            work.messages,
            accepted,
            arrived,
            cpu_seconds(self.pid) - cpu,
        )


@contextlib.contextmanager
def contestants(
    home: Path, names: Sequence[str], options: Sequence[str]
) -> Iterator[list[Contestant]]:
    """Start the contestants ``names``, each with a sink of its own, and end them afterwards.

    Args:
        home: a folder on the disk that is to be measured.
        names: of `OURS`, `MANY` and `THEIRS`.
        options: further options of ``twistd mta``.
    """
    with contextlib.ExitStack() as stack:
        running = []
        for name in names:
            place = home / name.replace(" ", "-")
            place.mkdir()
            place.chmod(0o755)
            sink = SMTPSink(place)
            stack.enter_context(sink)
            if name != THEIRS:
                route = f"*=smtp://{LOOPBACK}:{sink.port}"
                workers = () if name == OURS else ("--workers", name.split()[0])
                mta = MTA(place, "--route", route, *workers, *options)
                stack.enter_context(mta)
                running.append(Contestant(name, mta.smtp, mta.pid, sink, lambda: 0))
            else:
                # The defaults otherwise, those for durability among them.
                postfix = Postfix(place, {"relayhost": f"[{LOOPBACK}]:{sink.port}"})
                stack.enter_context(postfix)
                running.append(Contestant(name, postfix.port, postfix.pid, sink, postfix.queued))
        yield running


def alternate(
    running: Sequence[Contestant],
    work: Work,
    scenarios: Sequence[str],
    rounds: int,
    say: Callable[[Measurement], object],
) -> list[Measurement]:
    """Give all contestants the same work in turn, the first one changing from round to round."""
    warm_up = Work(max(work.messages // 10, work.sessions), work.octets, work.sessions)
    for contestant in running:
        contestant.work(warm_up, scenarios[0], 0)
    measurements = []
    for scenario in scenarios:
        for number in range(1, rounds + 1):
            for contestant in running if number % 2 else reversed(running):
                measurement = contestant.work(work, scenario, number)
                measurements.append(measurement)
                say(measurement)
    return measurements


@frozen
class Summary:
    """One figure of one scenario over all rounds.

    Attributes:
        scenario: a key of `SCENARIOS`.
        figure: a key of `Measurement.figures`.
        medians: by contestant.
        ratios: ours to theirs, by round; empty without either.
    """

    scenario: str
    figure: str
    medians: dict[str, float]
    ratios: list[float]

    @property
    def ratio(self) -> float | None:
        """The median of the ratios."""
        return statistics.median(self.ratios) if self.ratios else None


def summaries(measurements: Sequence[Measurement]) -> list[Summary]:
    """Return medians and ratios for each scenario and figure, in the order of measurement."""
    found = []
    for scenario in dict.fromkeys(one.scenario for one in measurements):
        rounds: dict[str, list[Measurement]] = {}
        for one in measurements:
            if one.scenario == scenario:
                rounds.setdefault(one.contestant, []).append(one)
        for values in rounds.values():
            values.sort(key=lambda one: one.round)
        for figure in measurements[0].figures:
            by_name = {
                name: [one.figures[figure] for one in values] for name, values in rounds.items()
            }
            both = zip(by_name.get(OURS, []), by_name.get(THEIRS, []), strict=False)
            found.append(
                Summary(
                    scenario,
                    figure,
                    {name: statistics.median(values) for name, values in by_name.items()},
                    [ours / theirs for ours, theirs in both],
                )
            )
    return found
