"""The page that documents the metrics names all of them, and their labels."""

import re
from pathlib import Path

import twisted_mta
from tests.tidy import TidyTestCase
from twisted_mta.telemetry.metrics import TABLE, table

PAGE = Path(__file__).resolve().parent.parent.parent.parent / "docs" / "admin.rst"


class Page(TidyTestCase):
    def test_the_page_has_every_metric_and_label(self) -> None:
        text = PAGE.read_text(encoding="utf-8")
        table = text[text.index("   * - Metric\n") : text.index("Some questions")]
        for metric in TABLE:
            self.assertIn(f"``{metric.name.removeprefix('twisted_mta_')}``", table)
            for label in metric.labels:
                self.assertIn(f"``{label}``", table)


class Use(TidyTestCase):
    def test_every_metric_is_counted_somewhere(self) -> None:
        package = Path(str(twisted_mta.__file__)).parent
        sources = [
            path.read_text(encoding="utf-8")
            for path in sorted(package.rglob("*.py"))
            if path.name != "table.py"
        ]
        names = {id(metric): name for name, metric in vars(table).items()}
        for metric in TABLE:
            name = f"table.{names[id(metric)]}"
            self.assertTrue(
                any(re.search(rf"\b{re.escape(name)}\b", source) for source in sources), name
            )
