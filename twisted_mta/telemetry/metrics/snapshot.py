"""A snapshot of metrics: a value that crosses between processes and can be added up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from attrs import field, frozen

from .table import TABLE, Metric

Key: TypeAlias = tuple[Metric, *tuple[str, ...]]
"""One time series: a metric and the values of its labels, in their order."""

_BY_NAME = {metric.name: metric for metric in TABLE}


@frozen
class Distribution:
    """The observations of a histogram.

    Attributes:
        counts: observations in each bucket, not cumulative; the last bucket is above all bounds.
        sum: of all observed values.
    """

    counts: tuple[int, ...]
    sum: float

    def __add__(self, other: Distribution) -> Distribution:
        return Distribution(
            tuple(map(sum, zip(self.counts, other.counts, strict=True))),
            self.sum + other.sum,
        )


@frozen
class Snapshot:
    """The metrics of one process, or of several, at one moment.

    Time series that were never counted are not in it.

    Attributes:
        numbers: counters and gauges.
        distributions: histograms.
    """

    numbers: Mapping[Key, float] = field(factory=dict)
    distributions: Mapping[Key, Distribution] = field(factory=dict)

    def series(self, metric: Metric) -> Iterator[tuple[tuple[str, ...], float]]:
        """Yield (label values, number) of each time series of a counter or a gauge."""
        for key, number in self.numbers.items():
            if key[0] is metric:
                yield key[1:], number

    def total(self, metric: Metric, **labels: str) -> float:
        """Return the sum over all time series of a counter with these ``labels``."""
        places = {name: place for place, name in enumerate(metric.labels)}
        return sum(
            number
            for values, number in self.series(metric)
            if all(values[places[name]] == value for name, value in labels.items())
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain types: by name, a list of ``{"labels": …, "value": …}``.

        Histograms have ``bounds``, ``counts`` and ``sum`` instead of a value.
        """
        written: dict[str, list[dict[str, Any]]] = {}
        for key, number in self.numbers.items():
            written.setdefault(key[0].name, []).append({"labels": _labels(key), "value": number})
        for key, distribution in self.distributions.items():
            written.setdefault(key[0].name, []).append(
                {
                    "labels": _labels(key),
                    "bounds": list(key[0].bounds),
                    "counts": list(distribution.counts),
                    "sum": distribution.sum,
                }
            )
        return written

    @classmethod
    def from_json(cls, written: Any) -> Snapshot:
        """Return the snapshot that `to_json` wrote, without metrics that are not in the table.

        Raises:
            ValueError: ``written`` has another shape.
        """
        numbers: dict[Key, float] = {}
        distributions: dict[Key, Distribution] = {}
        try:
            for name, series in written.items():
                metric = _BY_NAME.get(name)
                if metric is None:
                    continue
                for each in series:
                    key: Key = (metric, *(str(each["labels"][label]) for label in metric.labels))
                    if metric.kind == "histogram":
                        counts = tuple(int(count) for count in each["counts"])
                        if len(counts) != len(metric.bounds) + 1:
                            raise ValueError(
                                f"{name}: found {len(counts)} buckets,"
                                f" expected {len(metric.bounds) + 1}"
                            )
                        distributions[key] = Distribution(counts, float(each["sum"]))
                    else:
                        value = each["value"]
                        numbers[key] = value if isinstance(value, int) else float(value)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not the metrics of a process: {error!r}") from None
        return cls(numbers, distributions)


def _labels(key: Key) -> dict[str, str]:
    return dict(zip(key[0].labels, key[1:], strict=True))


def added(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Return the sum of the metrics of several processes; gauges fold as the table says."""
    numbers: dict[Key, float] = {}
    distributions: dict[Key, Distribution] = {}
    for snapshot in snapshots:
        for key, number in snapshot.numbers.items():
            if key not in numbers:
                numbers[key] = number
            elif key[0].fold == "sum":
                numbers[key] += number
            else:
                numbers[key] = (min if key[0].fold == "min" else max)(numbers[key], number)
        for key, distribution in snapshot.distributions.items():
            known = distributions.get(key)
            distributions[key] = distribution if known is None else known + distribution
    return Snapshot(numbers, distributions)


def without_gauges(snapshot: Snapshot) -> Snapshot:
    """Return the part of a snapshot that outlives its process."""
    return Snapshot(
        {key: number for key, number in snapshot.numbers.items() if key[0].kind == "counter"},
        snapshot.distributions,
    )


Life: TypeAlias = tuple[int, float]
"""A process: its id and the time of its start, since ids are reused."""


class Totals:
    """The sum over all processes, past ones included: no counter ever decreases.

    If a process dies, only what it has counted since its last report is lost.
    """

    def __init__(self) -> None:
        self._gone = Snapshot()
        self._last: dict[Life, Snapshot] = {}

    def heard(self, life: Life, snapshot: Snapshot) -> None:
        """Take the report of a process."""
        self._last[life] = snapshot

    def alive(self, lives: Sequence[Life]) -> None:
        """Take the list of all processes that are alive; keep the counters of all others."""
        for life in [life for life in self._last if life not in lives]:
            self._gone = added((self._gone, without_gauges(self._last.pop(life))))

    def sum(self) -> Snapshot:
        """Return the sum of all last reports."""
        return added((self._gone, *self._last.values()))
