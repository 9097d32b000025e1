"""Charts: their lines, their scale, and the same for readers without graphics."""

from __future__ import annotations

import re

from tests.tidy import TidyTestCase
from twisted_mta.admin.web.chart import Series, Values, chart

TIMES = [1_790_000_000.0 + 60 * minute for minute in range(61)]


def drawn(*values: Values, times: list[float] | None = None, whole: bool = False) -> str:
    series = [Series(f"line {key}", each, key) for key, each in enumerate(values, 1)]
    count = len(values[0])
    return chart(
        "test", "Mail & more", times or TIMES[:count], series, text=lambda x: f"{x:g}", whole=whole
    )


class Charts(TidyTestCase):
    def test_a_line_goes_from_the_left_to_the_right_below_a_round_number(self) -> None:
        made = drawn([0.0, 15.0, 30.0])
        self.assertIn('d="M0.0 99.0h0.1L300.0 69.6L600.0 40.2"', made)
        self.assertIn("<span>50</span><span>0</span>", made)

    def test_a_line_is_broken_where_nothing_is_known(self) -> None:
        (path,) = re.findall(' d="([^"]+)"', drawn([1.0, None, 1.0, 1.0, None]))
        self.assertEqual(path.count("M"), 2)
        self.assertEqual(path.count("L"), 1)

    def test_without_any_value_there_is_no_line(self) -> None:
        made = drawn([None, None])
        self.assertIn("Nothing is known of this time.", made)
        self.assertNotIn("<svg", made)

    def test_zeros_are_at_the_bottom_of_a_scale(self) -> None:
        made = drawn([0.0, 0.0], whole=True)
        self.assertIn("<span>1</span><span>0</span>", made)
        self.assertIn("M0.0 99.0h0.1L600.0 99.0", made)
        self.assertIn("<span>0.5</span>", drawn([0.3, 0.3]))
        self.assertIn("<span>1</span>", drawn([0.3, 0.3], whole=True))

    def test_it_is_told_in_words_and_as_a_table(self) -> None:
        made = drawn([float(each) for each in range(60)], [None] * 59 + [7.0])
        self.assertIn('role="img" aria-labelledby="test-title test-desc"', made)
        self.assertIn('<title id="test-title">Mail &amp; more</title>', made)
        self.assertIn("line 1: at most 59, last 59; line 2: at most 7, last 7</desc>", made)
        self.assertEqual(made.count("<tr>"), 13)
        self.assertIn('<td data-label="line 1">4</td><td data-label="line 2">-</td>', made)

    def test_longer_times_have_the_day(self) -> None:
        made = drawn([1.0, 2.0], times=[TIMES[0], TIMES[0] + 86_401])
        self.assertIn("<span>Mon 14:13</span><span>Tue 14:13</span>", made)
