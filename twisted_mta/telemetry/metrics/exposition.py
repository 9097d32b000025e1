"""Metrics as Prometheus reads them: its own text format, or OpenMetrics where that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate, product
from typing import Any

from attrs import frozen
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from .snapshot import Distribution, Key, Snapshot
from .table import PREFIX, TABLE, Metric

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

# A counter that appears only when it first counts hides that first time from `rate()`; metrics with
# so few time series show all of them from the start.
_SHOWN_FROM_THE_START = 16


_openmetrics: Callable[[Any], bytes] = openmetrics.generate_latest


@frozen
class Exposition:
    """Metrics, written.

    Attributes:
        content_type: of the format that was chosen.
        content: the text.
    """

    content_type: str
    content: bytes


def exposition(snapshot: Snapshot, *, version: str = "", accept: str = "") -> Exposition:
    """Return metrics as text.

    Args:
        snapshot: of all processes together.
        version: of this program, for its information metric.
        accept: the Accept field of who asks: OpenMetrics is written where it is named there.
    """
    registry: Any = CollectorRegistry()
    registry.register(_Collector(snapshot, version))
    # The version that is asked for is not looked at: a number that cannot be read would be an
    # error, and 1.0.0 is what every scraper takes.
    if any(
        kind.partition(";")[0].strip().lower() == "application/openmetrics-text"
        for kind in accept.split(",")
    ):
        return Exposition(OPENMETRICS, _openmetrics(registry))
    return Exposition(TEXT, generate_latest(registry))


class _Collector:
    def __init__(self, snapshot: Snapshot, version: str) -> None:
        self._snapshot = snapshot
        self._version = version

    def describe(self) -> list[Family]:
        """Return nothing: the registry has one collector, and need not look for duplicates."""
        return []

    def collect(self) -> Iterator[Family]:
        """Yield all families (called by the registry)."""
        for metric in TABLE:
            yield _family(metric, self._snapshot)
        build = GaugeMetricFamily(
            f"{PREFIX}build_info", "Which version this is; always 1.", labels=["version"]
        )
        build.add_metric([self._version], 1)
        yield build


def _keys(metric: Metric, counted: dict[Key, Any]) -> list[Key]:
    """Return the time series to show, in the order of the table."""
    shown: dict[Key, None] = {}
    if metric.kind != "gauge" and metric.combinations <= _SHOWN_FROM_THE_START:
        for values in product(*metric.labels.values()):
            shown[(metric, *values)] = None
    shown.update(dict.fromkeys(sorted(counted, key=lambda key: key[1:])))
    return list(shown)


def _family(metric: Metric, snapshot: Snapshot) -> Family:
    labels = list(metric.labels)
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=labels)
        none = Distribution((0,) * (len(metric.bounds) + 1), 0.0)
        seen = {key: value for key, value in snapshot.distributions.items() if key[0] is metric}
        les = [*(str(float(bound)) for bound in metric.bounds), "+Inf"]
        for key in _keys(metric, seen):
            one = seen.get(key, none)
            cumulative = accumulate(one.counts)
            histogram.add_metric(list(key[1:]), list(zip(les, cumulative, strict=True)), one.sum)
        return histogram
    counted = {key: number for key, number in snapshot.numbers.items() if key[0] is metric}
    family: CounterMetricFamily | GaugeMetricFamily = (
        CounterMetricFamily(metric.name, metric.help, labels=labels)
        if metric.kind == "counter"
        else GaugeMetricFamily(metric.name, metric.help, labels=labels)
    )
    for key in _keys(metric, counted):
        family.add_metric(list(key[1:]), counted.get(key, 0))
    return family
