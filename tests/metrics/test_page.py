"""The page that documents the metrics names all of them, and their labels."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.metrics import TABLE

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "admin.rst"


class Page(SynchronousTestCase):
    def test_every_metric_and_every_label_is_on_it(self) -> None:
        text = PAGE.read_text(encoding="utf-8")
        table = text[text.index("   * - Metric\n") : text.index("Some questions")]
        for metric in TABLE:
            self.assertIn(f"``{metric.name.removeprefix('twisted_mta_')}``", table)
            for label in metric.labels:
                self.assertIn(f"``{label}``", table)
