"""The alerts and the dashboard of docs/monitoring: Prometheus reads them, and the metrics exist."""

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

from tests.functional.machine import ROOT, need
from tests.tidy import TidyTestCase
from twisted_mta.telemetry.metrics.table import PREFIX, TABLE

FOLDER = ROOT / "docs" / "monitoring"
_SELECTOR = re.compile(rf"({PREFIX}\w+)(?:\{{(.*?)\}})?")
_MATCHER = re.compile(r'(\w+)(=~|=)"([^"]*)"')
_BY = re.compile(r"by \(([^)]*)\) \((?:rate|increase)?\(?" + rf"({PREFIX}\w+)")
_OF_PROMETHEUS = ("instance", "job", "le")


def expressions() -> Iterator[str]:
    """Yield the expressions of the alerts and of the dashboard."""
    rules = (FOLDER / "alerts.yml").read_text("utf-8")
    for block in re.findall(r"expr: (?:>-\n((?: {10}.*\n)+)|(.*)\n)", rules):
        yield "".join(block)
    dashboard = json.loads((FOLDER / "dashboard.json").read_text("utf-8"))
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


class Names(TidyTestCase):
    def setUp(self) -> None:
        self.metrics = {each.name: each for each in TABLE}

    def metric(self, name: str) -> Any:
        found = self.metrics.get(name)
        if found is None and name.endswith("_bucket"):
            found = self.metrics.get(name.removesuffix("_bucket"))
            self.assertEqual(found and found.kind, "histogram", name)
        self.assertIsNotNone(found, f"{name} is no metric")
        return found

    def test_every_metric_exists_with_its_labels_and_their_values(self) -> None:
        seen = 0
        for expression in expressions():
            for name, matchers in _SELECTOR.findall(expression):
                seen += 1
                labels = self.metric(name).labels
                for label, how, value in _MATCHER.findall(matchers):
                    if label in _OF_PROMETHEUS:
                        continue
                    self.assertIn(label, labels, expression)
                    for each in value.split("|") if how == "=~" else [value]:
                        self.assertIn(each, labels[label], expression)
            for names, name in _BY.findall(expression):
                for label in names.split(", "):
                    known = (*self.metric(name).labels, *_OF_PROMETHEUS)
                    self.assertIn(label, known, expression)
        self.assertGreater(seen, 25)

    def test_the_panels_of_the_dashboard_have_ids_and_places_of_their_own(self) -> None:
        panels = json.loads((FOLDER / "dashboard.json").read_text("utf-8"))["panels"]
        ids = [panel["id"] for panel in panels]
        places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
        self.assertEqual(len(dict.fromkeys(ids)), len(panels))
        self.assertEqual(len(dict.fromkeys(places)), len(panels))


class Promtool(TidyTestCase):
    def promtool(self, *words: str) -> str:
        need("promtool")
        done = subprocess.run(["promtool", *words], cwd=FOLDER, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_the_alerts_are_rules_of_prometheus(self) -> None:
        self.assertIn("SUCCESS: 15 rules found", self.promtool("check", "rules", "alerts.yml"))

    def test_the_alerts_fire_when_they_should_and_not_before(self) -> None:
        self.assertIn("SUCCESS", self.promtool("test", "rules", "alerts-test.yml"))
