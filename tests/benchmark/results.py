"""Measurements, with their medians and ratios over rounds. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from attrs import frozen

OURS = "twisted-mta"
THEIRS = "postfix"

CPU = "CPU µs/message"
"""User and system time of all processes of a contestant."""

MANY = "{} workers"
"""The name of our MTA with this number of workers."""


@frozen
class Measurement:
    """The figures of one contestant in one round of a scenario.

    Attributes:
        scenario: its name.
        contestant: its name.
        round: from 1.
        figures: by name, which contains the unit.
    """

    scenario: str
    contestant: str
    round: int
    figures: Mapping[str, float]


@frozen
class Summary:
    """One figure of one scenario over all rounds.

    Attributes:
        scenario: its name.
        figure: its name.
        medians: by contestant, in the order of their first measurement.
        ratios: by contestant: to Postfix, for each round with a figure of Postfix.
    """

    scenario: str
    figure: str
    medians: dict[str, float]
    ratios: dict[str, list[float]]

    def ratio(self, contestant: str) -> float | None:
        """Return the median of the ratios of ``contestant`` to Postfix."""
        ratios = self.ratios.get(contestant)
        return statistics.median(ratios) if ratios else None


def summaries(measurements: Sequence[Measurement]) -> list[Summary]:
    """Return medians and ratios for each scenario and figure, in the order of measurement."""
    values: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for one in measurements:
        for figure, value in one.figures.items():
            by_name = values.setdefault((one.scenario, figure), {})
            by_name.setdefault(one.contestant, {})[one.round] = value
    return [
        Summary(
            scenario,
            figure,
            {name: statistics.median(rounds.values()) for name, rounds in by_name.items()},
            {
                name: ratios
                for name, rounds in by_name.items()
                if name != THEIRS and (ratios := _ratios(rounds, by_name.get(THEIRS, {})))
            },
        )
        for (scenario, figure), by_name in values.items()
    ]


def _ratios(ours: Mapping[int, float], theirs: Mapping[int, float]) -> list[float]:
    # The speed of the machine changes from round to round, so figures of one round are compared.
    return [ours[number] / theirs[number] for number in sorted(ours) if theirs.get(number)]


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value that the fraction ``part`` (0 to 1) of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
