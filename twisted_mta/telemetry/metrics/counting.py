"""The metrics of one process."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from .snapshot import Distribution, Key, Snapshot
from .table import OTHER, Metric


class Metrics:
    """Counters, gauges and histograms of one process.

    Only for the reactor's thread: nothing is locked. Label values are given in the order of the
    table; a value that is not in the table counts as ``other``.
    """

    def __init__(self) -> None:
        self._numbers: dict[Key, float] = {}
        self._observed: dict[Key, list[int]] = {}
        self._sums: dict[Key, float] = {}
        self._read: list[tuple[Key, Callable[[], float | None]]] = []

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None:
        """Increase a counter.

        Raises:
            ValueError: the number of labels is wrong, or it is not a counter.
        """
        key: Key = (metric, *labels)
        try:
            self._numbers[key] += by
        except KeyError:
            key = _bounded(key, "counter")
            self._numbers[key] = self._numbers.get(key, 0) + by

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Set a gauge.

        Raises:
            ValueError: the number of labels is wrong, or it is not a gauge.
        """
        self._numbers[_bounded((metric, *labels), "gauge")] = value

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Add a value to a histogram.

        Raises:
            ValueError: the number of labels is wrong, or it is not a histogram.
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
        """Call ``number`` at each snapshot, for a counter or gauge that is kept elsewhere.

        Several numbers of one time series are added; None: no number.

        Raises:
            ValueError: the number of labels is wrong, or it is a histogram.
        """
        self._read.append((_bounded((metric, *labels), "counter", "gauge"), number))

    def snapshot(self) -> Snapshot:
        """Return all metrics as they are now."""
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
    """Return the key with ``other`` for each label value that is not in the table."""
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
