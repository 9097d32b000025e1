"""The tables and the plot in the documentation show the results of one run."""

import json

from twisted.trial.unittest import SynchronousTestCase

from .page import PLOT, RESULTS, TABLES, measurements, plot, tables
from .results import summaries

AGAIN = "run: python -m tests.benchmark.page"


class Page(SynchronousTestCase):
    def setUp(self) -> None:
        self.content = json.loads(RESULTS.read_text("utf-8"))

    def test_the_tables_show_the_results(self) -> None:
        self.assertEqual(TABLES.read_text("utf-8"), tables(self.content), AGAIN)

    def test_the_plot_shows_the_results(self) -> None:
        drawn = plot(summaries(measurements(self.content)))
        self.assertEqual(PLOT.read_text("utf-8"), drawn, AGAIN)
