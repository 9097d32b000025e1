"""Counters, gauges and histograms of one process, and their sums over many.

`Metrics` counts in one process; a `Snapshot` of it crosses to another; `added` and `Totals` sum
over processes; `exposition` writes the sum for Prometheus.
"""

from .counting import Metrics
from .snapshot import Distribution, Snapshot, Totals, added
from .table import TABLE, Metric

__all__ = ["TABLE", "Distribution", "Metric", "Metrics", "Snapshot", "Totals", "added"]
