"""What one process counts."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from .snapshot import Distribution, Key, Snapshot
from .table import OTHER, Metric


class Metrics:
    """Counters, gauges and histograms of one process.

    For the reactor's thread alone: nothing is locked. Label values are given in the order of the
    table; one that is not there is counted as ``other``.
    """

    def __init__(self) -> None:
        self._numbers: dict[Key, float] = {}
        self._observed: dict[Key, list[int]] = {}
        self._sums: dict[Key, float] = {}
        self._read: list[tuple[Key, Callable[[], float | None]]] = []

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None:
        """Raise a counter.

        Raises:
            ValueError: it has not so many labels, or is no counter.
        """
        key: Key = (metric, *labels)
        try:
            self._numbers[key] += by
        except KeyError:
            key = _bounded(key, "counter")
            self._numbers[key] = self._numbers.get(key, 0) + by

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Say what a gauge shows from now on.

        Raises:
            ValueError: it has not so many labels, or is no gauge.
        """
        self._numbers[_bounded((metric, *labels), "gauge")] = value

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Put a value into a histogram.

        Raises:
            ValueError: it has not so many labels, or is no histogram.
        """
        key: Key = (metric, *labels)
        counts = self._observed.get(key)
        if counts is None:
            key = _bounded(key, "histogram")
            counts = self._observed.setdefault(key, [0] * (len(metric.bounds) + 1))
            self._sums.setdefault(key, 0.0)
        counts[bisect_left(metric.bounds, value)] += 1
        self._sums[key] += value

    def read(self, metric: Metric, number: Callable[[], float | None], *labels: str) -> None:
        """Ask for a number that somebody else keeps, each time that a snapshot is taken.

        Several numbers of one time series are added up; None is no number.

        Raises:
            ValueError: it has not so many labels, or is a histogram.
        """
        self._read.append((_bounded((metric, *labels), "counter", "gauge"), number))

    def snapshot(self) -> Snapshot:
        """Return all that was counted so far."""
        numbers = dict(self._numbers)
        for key, read in self._read:
            number = read()
            if number is not None:
                numbers[key] = numbers.get(key, 0) + number
        return Snapshot(
            numbers,
            {
                key: Distribution(tuple(counts), self._sums[key])
                for key, counts in self._observed.items()
            },
        )


def _bounded(key: Key, *kinds: str) -> Key:
    """Return the key with ``other`` for each label value that the table does not have."""
    metric, *values = key
    if metric.kind not in kinds or len(values) != len(metric.labels):
        raise ValueError(f"{metric.name} is a {metric.kind} with labels {list(metric.labels)}")
    return (
        metric,
        *(
            value if value in allowed else OTHER
            for value, allowed in zip(values, metric.labels.values(), strict=True)
        ),
    )
