"""The results of a run in the documentation.

    python -m tests.benchmark.page

reads ``docs/benchmark-results.json`` and writes the tables and the plot beside it. A test compares
them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..functional.machine import ROOT
from . import scenario
from .forgetful import NAMES
from .plot import Chart, svg
from .results import Measurement, Summary, summaries
from .table import figures, rst, verdicts
from .target import judged, targets

RESULTS = ROOT / "docs" / "benchmark-results.json"
TABLES = RESULTS.with_suffix(".txt")
PLOT = RESULTS.with_suffix(".svg")

_DRAWN = (
    (scenario.ACCEPT_MANY, "accepted/s"),
    (scenario.ACCEPT_ONE, "accepted/s"),
    (scenario.ACCEPT_TLS, "accepted/s"),
    (scenario.RELAY_MANY, "end to end/s"),
    (scenario.RELAY_ONE, "end to end/s"),
    (scenario.RELAY_LARGE, "end to end/s"),
)


def measurements(content: Mapping[str, Any]) -> list[Measurement]:
    """Return the measurements of a run."""
    return [Measurement(**one) for one in content["measurements"]]


def plot(found: Sequence[Summary]) -> str:
    """Return charts of the rates of all contestants, and of ours by the length of the queue."""
    charts = [
        Chart(f"{one.scenario} (messages a second)", one.medians, NAMES)
        for drawn in _DRAWN
        for one in found
        if (one.scenario, one.figure) == drawn
    ]
    curve = {
        one.scenario: one.medians[name]
        for one in found
        if one.scenario.endswith(" queued") and one.figure == "end to end/s"
        for name in one.medians
    }
    if curve:
        charts.append(
            Chart("end to end, with a long queue (messages a second)", curve, tuple(curve))
        )
    return svg(charts)


def tables(content: Mapping[str, Any]) -> str:
    """Return the machine, the targets and all figures, as reStructuredText."""
    found = summaries(measurements(content))
    machine = "; ".join(f"{name}: {value}" for name, value in content["machine"].items())
    asked = targets(content["extent"]["queues"], content["extent"]["crowd"])
    parts = [
        f"Measured on {content['date']} with ``{content['command']}`` ({machine}).\n",
        rst(verdicts([judged(target, found) for target in asked])),
        *(rst(figures(each, found)) for each in dict.fromkeys(one.scenario for one in found)),
    ]
    return "\n".join(parts)


def write(results: Path = RESULTS) -> None:
    """Write tables and plot beside the results."""
    content = json.loads(results.read_text("utf-8"))
    results.with_suffix(".txt").write_text(tables(content), "utf-8")
    results.with_suffix(".svg").write_text(plot(summaries(measurements(content))), "utf-8")


if __name__ == "__main__":
    write(*map(Path, sys.argv[1:2]))
