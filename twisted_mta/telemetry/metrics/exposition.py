"""Metrics for Prometheus: in its text format, or in OpenMetrics on request."""

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

# A counter that appears with its first event hides that event from `rate()`; so metrics with few
# time series expose all of them from the start.
_SHOWN_FROM_THE_START = 16


_openmetrics: Callable[[Any], bytes] = openmetrics.generate_latest


@frozen
class Exposition:
    """The text of metrics.

    Attributes:
        content_type: of the format.
        content: the text.
    """

    content_type: str
    content: bytes


def exposition(snapshot: Snapshot, *, version: str = "", accept: str = "") -> Exposition:
    """Return metrics as text.

    Args:
        snapshot: of all processes together.
        version: of this program, for its information metric.
        accept: the Accept field of the request; OpenMetrics is written if it is named there.
    """
    registry: Any = CollectorRegistry()
    registry.register(_Collector(snapshot, version))
    # The version in Accept is ignored: an invalid one would be an error, and every scraper accepts
    # 1.0.0.
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
        """Return nothing: with one collector the registry need not look for duplicates."""
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
    """Return the time series to expose, in the order of the table."""
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
            distribution = seen.get(key, none)
            buckets = list(zip(les, accumulate(distribution.counts), strict=True))
            histogram.add_metric(list(key[1:]), buckets, distribution.sum)
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
