"""Counters, gauges and histograms: what they are, one process's, and the sum of many.

`Metrics` counts in one process, `Snapshot` is what it has counted and crosses to another, `added`
and `Totals` sum over processes, and `exposition` writes the sum as Prometheus reads it.
"""

from .counting import Metrics
from .snapshot import Distribution, Snapshot, Totals, added
from .table import TABLE, Metric

__all__ = ["TABLE", "Distribution", "Metric", "Metrics", "Snapshot", "Totals", "added"]
