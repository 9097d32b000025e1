"""Results of the benchmark: ratios, verdicts, tables and charts."""

from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from . import scenario
from .plot import Chart, svg
from .results import CPU, OURS, THEIRS, Measurement, Summary, percentile, summaries
from .table import amount, figures, grid, rst, verdicts
from .target import Target, Verdict, judged, targets

RATE = "accepted/s"


def measured(contestant: str, *rates: float, task: str = "task") -> list[Measurement]:
    return [
        Measurement(task, contestant, number, {RATE: rate}) for number, rate in enumerate(rates, 1)
    ]


class Ratios(SynchronousTestCase):
    def test_ratios_compare_rounds_not_medians(self) -> None:
        (found,) = summaries([*measured(OURS, 100, 300, 800), *measured(THEIRS, 50, 300, 100)])
        self.assertEqual(found.medians, {OURS: 300, THEIRS: 100})
        self.assertEqual(found.ratios, {OURS: [2.0, 1.0, 8.0]})
        self.assertEqual(found.ratio(OURS), 2.0)

    def test_a_round_of_only_one_contestant_is_left_out(self) -> None:
        (found,) = summaries([*measured(OURS, 100, 300), *measured(THEIRS, 50)])
        self.assertEqual(found.ratios, {OURS: [2.0]})

    def test_without_postfix_there_are_no_ratios(self) -> None:
        (found,) = summaries(measured(OURS, 100))
        self.assertIsNone(found.ratio(OURS))

    def test_a_percentile_is_one_of_the_values(self) -> None:
        values = [float(each) for each in range(100, 0, -1)]
        self.assertEqual(percentile(values, 0.5), 51.0)
        self.assertEqual(percentile(values, 0.99), 100.0)
        self.assertEqual(percentile([7.0], 0.99), 7.0)


class Verdicts(SynchronousTestCase):
    def verdict(self, target: Target, *found: Measurement) -> tuple[float | None, str, bool | None]:
        verdict = judged(target, summaries(found))
        return verdict.measured, verdict.whose, verdict.met

    def test_the_best_of_our_contestants_counts(self) -> None:
        found = (
            *measured(OURS, 300),
            *measured("2 workers", 450),
            *measured("exim", 900),
            *measured(THEIRS, 100),
        )
        target = Target("task", RATE, 4.0, against=THEIRS)
        self.assertEqual(self.verdict(target, *found), (4.5, "2 workers", True))
        alone = Target("task", RATE, 4.0, against=THEIRS, ours=(OURS,))
        self.assertEqual(self.verdict(alone, *found), (3.0, OURS, False))

    def test_a_target_may_be_an_upper_bound(self) -> None:
        found = (*measured(OURS, 300), *measured("2 workers", 450))
        target = Target("task", RATE, 400.0, at_most=True)
        self.assertEqual(self.verdict(target, *found), (300, OURS, True))

    def test_a_target_may_compare_two_scenarios(self) -> None:
        found = (*measured(OURS, 200, task="short"), *measured(OURS, 150, task="long"))
        target = Target("long", RATE, 0.9, against=OURS, reference="short")
        self.assertEqual(self.verdict(target, *found), (0.75, OURS, False))

    def test_a_target_without_a_measurement_is_neither_met_nor_missed(self) -> None:
        target = Target("task", RATE, 4.0, against=THEIRS)
        self.assertEqual(self.verdict(target, *measured(OURS, 300)), (None, "", None))
        self.assertEqual(self.verdict(target), (None, "", None))

    def test_every_target_names_a_scenario_of_the_benchmark(self) -> None:
        known = {
            *scenario.ACCEPTING,
            *scenario.RELAYING,
            scenario.LATENCY,
            scenario.SPREAD,
            scenario.PASSING,
            scenario.IDLE,
            scenario.CROWD.format(7),
            "1,000 queued",
        }
        self.assertEqual({each.scenario for each in targets((10, 1000), 7)} - known, set())


class Tables(SynchronousTestCase):
    def test_figures_keep_three_digits(self) -> None:
        said = [amount(each) for each in (12345.6, 99.94, 9.876, 0.01234, 0.0)]
        self.assertEqual(said, ["12,346", "99.9", "9.88", "0.012", "0.000"])

    def test_contestants_are_columns_with_their_ratios(self) -> None:
        found = summaries([*measured(THEIRS, 100), *measured(OURS, 250), *measured("aiosmtpd", 50)])
        self.assertEqual(
            figures("task", found),
            [
                ["task", THEIRS, OURS, "aiosmtpd (keeps nothing)"],
                [RATE, "100", "250 (×2.50)", "50.0 (×0.50)"],
            ],
        )

    def test_cpu_time_is_also_shown_as_that_of_postfix_by_its_own(self) -> None:
        times = [
            Measurement("task", name, 1, {CPU: us}) for name, us in ((THEIRS, 900), (OURS, 300))
        ]
        self.assertEqual(
            figures("task", summaries(times))[1:],
            [[CPU, "900", "300 (×0.33)"], ["CPU of postfix / its own", "–", "3.00"]],
        )
        self.assertEqual(len(figures("task", summaries(times[1:]))), 2)

    def test_a_missing_figure_is_a_dash(self) -> None:
        found = [
            Summary("task", "one", {OURS: 1.0, THEIRS: 2.0}, {}),
            Summary("task", "other", {OURS: 1.0}, {}),
        ]
        self.assertEqual(figures("task", found)[2], ["other", "1.00", "–"])

    def test_columns_are_as_wide_as_their_widest_cell(self) -> None:
        self.assertEqual(
            grid([["a", "long head"], ["word", "1"]]), "a     long head\nword          1"
        )

    def test_a_verdict_is_written_in_words(self) -> None:
        target = Target("task", RATE, 2.5, against=THEIRS)
        said = verdicts([Verdict(target, 3.0, OURS), Verdict(target, 1.0, OURS), Verdict(target)])
        self.assertEqual(
            said[1:],
            [
                ["task: accepted/s ≥ 2.5 × postfix", "3.00", OURS, "met"],
                ["task: accepted/s ≥ 2.5 × postfix", "1.00", OURS, "not met"],
                ["task: accepted/s ≥ 2.5 × postfix", "–", "", "not measured"],
            ],
        )

    def test_rows_are_written_as_a_list_table(self) -> None:
        self.assertEqual(
            rst([["a", ""], ["b", "1"]]),
            ".. list-table::\n   :header-rows: 1\n\n   * - a\n     -\n   * - b\n     - 1\n",
        )


class Bars(SynchronousTestCase):
    def drawn(self, *charts: Chart) -> list[tuple[float, str]]:
        """Return (length, color) of each bar."""
        picture = ElementTree.fromstring(svg(charts))
        background, *bars = picture.iter("{http://www.w3.org/2000/svg}rect")
        self.assertEqual(background.get("height"), picture.get("height"))
        return [(float(bar.attrib["width"]), bar.attrib["fill"]) for bar in bars]

    def test_bars_have_proportional_lengths(self) -> None:
        (long, _), (short, _) = self.drawn(Chart("title", {"a": 200.0, "b": 50.0}))
        self.assertEqual(long, 4 * short)

    def test_a_name_has_one_color_in_all_charts_and_faint_names_are_gray(self) -> None:
        first = Chart("first", {"a": 1.0, "b": 1.0, "c": 2.0}, faint=("c",))
        (_, a), (_, b), (_, c), (_, again) = self.drawn(first, Chart("second", {"b": 3.0}))
        self.assertEqual(b, again)
        self.assertEqual(len({a, b, c}), 3)
        self.assertEqual(c, "#999999")

    def test_names_are_escaped(self) -> None:
        self.assertEqual(len(self.drawn(Chart("<&>", {'a & "b" <c>': 0.0}))), 1)
