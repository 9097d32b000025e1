"""Targets of the benchmark, and verdicts on them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen

from . import queued, scenario
from .results import CPU, OURS, THEIRS, Summary

_IN_ONE_PROCESS = (OURS,)


@frozen
class Target:
    """A bound for one figure.

    Attributes:
        scenario: its name.
        figure: its name.
        bound: in the unit of the figure, or as a ratio.
        at_most: whether less is better.
        against: the contestant to which the ratio is; None: no ratio.
        ours: the contestants that count; empty: the best one of ours.
        reference: the scenario of ``against``, if it is another one.
    """

    scenario: str
    figure: str
    bound: float
    at_most: bool = False
    against: str | None = None
    ours: Sequence[str] = ()
    reference: str | None = None

    def __str__(self) -> str:
        """The target in one phrase."""
        sign = "≤" if self.at_most else "≥"
        than = "" if self.against is None else f" × {self.reference or self.against}"
        return f"{self.scenario}: {self.figure} {sign} {self.bound:g}{than}"


@frozen
class Verdict:
    """Whether a target was met.

    Attributes:
        target: the target.
        measured: in the unit of the target; None: not measured.
        whose: the contestant of the figure.
    """

    target: Target
    measured: float | None = None
    whose: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target was met; None: not measured."""
        if self.measured is None:
            return None
        if self.target.at_most:
            return self.measured <= self.target.bound
        return self.measured >= self.target.bound


def targets(lengths: Sequence[int] = queued.LENGTHS, crowd: int = 10_000) -> list[Target]:
    """Return all targets; those of long queues apply to the longest of ``lengths``."""
    accepted, end_to_end, cpu = "accepted/s", "end to end/s", CPU
    long, short = (queued.scenario(each) for each in (max(lengths), min(lengths)))
    among = scenario.CROWD.format(crowd)
    without, ours = scenario.WITHOUT, (scenario.WITH,)
    return [
        Target(scenario.ACCEPT_MANY, accepted, 4.0, against=THEIRS),
        Target(scenario.ACCEPT_MANY, accepted, 1.0, against="aiosmtpd"),
        Target(scenario.ACCEPT_ONE, accepted, 2.5, against=THEIRS),
        Target(scenario.RELAY_MANY, end_to_end, 2.5, against=THEIRS),
        Target(scenario.RELAY_ONE, end_to_end, 2.0, against=THEIRS),
        Target(scenario.ACCEPT_TLS, accepted, 2.0, against=THEIRS),
        Target(scenario.RELAY_LARGE, end_to_end, 2.0, against=THEIRS),
        Target(scenario.RELAY_HUGE, end_to_end, 1.8, against=THEIRS),
        Target(scenario.RELAY_TLS, end_to_end, 1.6, against=THEIRS),
        Target(scenario.SPREAD, end_to_end, 2.0, against=THEIRS),
        # CPU time beside Postfix's, which a machine with more processors turns into rates.
        Target(scenario.RELAY_MANY, cpu, round(1 / 4, 3), at_most=True, against=THEIRS),
        Target(scenario.RELAY_ONE, cpu, round(1 / 3.5, 3), at_most=True, against=THEIRS),
        Target(scenario.RELAY_LARGE, cpu, round(1 / 2.5, 3), at_most=True, against=THEIRS),
        Target(scenario.RELAY_HUGE, cpu, round(1 / 3, 3), at_most=True, against=THEIRS),
        Target(scenario.RELAY_TLS, cpu, round(1 / 2, 3), at_most=True, against=THEIRS),
        Target(scenario.SPREAD, cpu, round(1 / 3, 3), at_most=True, against=THEIRS),
        Target(scenario.ACCEPT_MANY, cpu, 400.0, at_most=True, ours=_IN_ONE_PROCESS),
        Target(scenario.RELAY_MANY, cpu, 900.0, at_most=True, ours=_IN_ONE_PROCESS),
        Target(scenario.LATENCY, "p50 ms", 5.0, at_most=True, ours=_IN_ONE_PROCESS),
        Target(scenario.LATENCY, "p99 ms", 50.0, at_most=True, ours=_IN_ONE_PROCESS),
        Target(scenario.IDLE, "plain, KiB each", 8.0, at_most=True),
        Target(scenario.IDLE, "TLS, KiB each", 40.0, at_most=True),
        Target(scenario.PASSING, "growth MiB", 4.0, at_most=True),
        Target(scenario.PASSING, "accepted MiB/s", 50.0),
        Target(long, "start to ready, s", 2.0, at_most=True),
        Target(long, "resident MiB when ready", 150.0, at_most=True),
        # "No slower" has to allow for noise; 10 % is a choice, not a measured spread.
        Target(long, accepted, 0.9, against=OURS, ours=_IN_ONE_PROCESS, reference=short),
        Target(long, end_to_end, 0.9, against=OURS, ours=_IN_ONE_PROCESS, reference=short),
        Target(among, accepted, 0.8, against=without, ours=ours),
        Target(among, end_to_end, 0.8, against=without, ours=ours),
    ]


def judged(target: Target, found: Sequence[Summary]) -> Verdict:
    """Return the verdict on a target.

    Ratios to Postfix are medians of the ratios by round; all other ratios are those of medians.
    """
    by_name = {(one.scenario, one.figure): one for one in found}
    summary = by_name.get((target.scenario, target.figure))
    base = by_name.get((target.reference or target.scenario, target.figure))
    if summary is None or base is None:
        return Verdict(target)
    values: dict[str, float] = {}
    for name, median in summary.medians.items():
        if not (name in target.ours if target.ours else is_ours(name)):
            continue
        if target.against is None:
            values[name] = median
        elif target.against == THEIRS:
            ratio = summary.ratio(name)
            if ratio is not None:
                values[name] = ratio
        elif base.medians.get(target.against):
            values[name] = median / base.medians[target.against]
    if not values:
        return Verdict(target)
    choose: Callable[..., str] = min if target.at_most else max
    whose = choose(values, key=values.__getitem__)
    return Verdict(target, values[whose], whose)


def is_ours(name: str) -> bool:
    """Whether a contestant is ours, in one process or in many."""
    return name == OURS or name.endswith(" workers")
