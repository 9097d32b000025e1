"""Tables and long lines on terminals of several widths."""

import os
from io import StringIO
from unittest.mock import patch

from rich.cells import cell_len

from tests.tidy import TidyTestCase
from twisted_mta.cli import terminal
from twisted_mta.cli.terminal import show, wrapped

COLUMNS = ("Id", "Received", "Size", "From", "To", "State", "Attempts", "Next attempt", "Last")
BUSY = "mx.example.org[192.0.2.1]:25: 450 4.2.0 Greylisted, see https://example.org/" + "x" * 90
LONG = f"{'newsletter-' * 5}bounces@lists.example.net"


def row(id: str, to: str, last: str = BUSY, *, sender: str = "ann@example.net") -> tuple[str, ...]:
    times = ("2026-11-30 07:48:58", "2026-11-30 07:54:16")
    return (id, times[0], "12345", sender, to, "deferred", "1", times[1], last)


ROWS = [
    row("1M8NPVBP9R020", "bob@example.org"),
    row("1M8NPVBP9R020", "carol.williams@partner.example.org"),
    row("1M8NPVBQS79A0", f"{'very-' * 12}long@example.org", "", sender=LONG),
]


class Screen(StringIO):
    def isatty(self) -> bool:
        return True


class Tables(TidyTestCase):
    def drawn(self, width: int) -> list[str]:
        screen = StringIO()
        show([], [("", COLUMNS, list(ROWS))], file=screen, width=width)
        return screen.getvalue().splitlines()

    def test_no_line_is_longer_than_the_terminal(self) -> None:
        for width in (20, 40, 60, 80, 120, 200):
            self.assertLessEqual(max(map(cell_len, self.drawn(width))), width)

    def test_words_stay_whole_in_80_columns(self) -> None:
        text = "\n".join(self.drawn(80))
        for cell in (*COLUMNS, *ROWS[0][:8], ROWS[1][4], ROWS[2][4]):
            self.assertIn(cell, text)
        self.assertIn("  mx.example.org[192.0.2.1]:25: 450 4.2.0 Greylisted, see\n", text)

    def test_80_columns_have_three_lines_for_each_recipient(self) -> None:
        lines = self.drawn(80)
        self.assertEqual(
            lines[:3],
            [
                "Id             Received             Size   From",
                "  To                                    State     Attempts  Next attempt",
                "  Last",
            ],
        )
        self.assertIn(
            "  bob@example.org                       deferred  1         2026-11-30 07:54:16", lines
        )

    def test_a_message_with_two_recipients_is_named_once(self) -> None:
        text = "\n".join(self.drawn(80))
        self.assertEqual((text.count("1M8NPVBP9R020"), text.count("1M8NPVBQS79A0")), (1, 1))

    def test_a_wide_terminal_has_a_line_for_each_recipient(self) -> None:
        header = self.drawn(200)[1].split("   ")
        self.assertEqual([cell.strip() for cell in header if cell.strip()], list(COLUMNS))


class LongLines(TidyTestCase):
    LINE = "  Why: " + "the reply of the next hop " * 8 + "https://example.org/" + "x" * 90

    def wrapped(self, columns: int, screen: StringIO) -> list[str]:
        with (
            patch.object(terminal.sys, "stdout", screen),
            patch.dict(os.environ, COLUMNS=str(columns)),
        ):
            return wrapped(self.LINE)

    def test_a_terminal_gets_lines_of_its_width_with_a_hanging_indent(self) -> None:
        lines = self.wrapped(60, Screen())
        self.assertTrue(all(len(line) <= 60 for line in lines[:-1]))
        self.assertTrue(all(line.startswith("    ") for line in lines[1:]))
        self.assertEqual(" ".join(map(str.strip, lines)), self.LINE.strip())

    def test_an_address_longer_than_a_line_stays_whole(self) -> None:
        self.assertEqual(self.wrapped(60, Screen())[-1].strip(), self.LINE.split()[-1])

    def test_a_pipe_gets_the_line_as_it_is(self) -> None:
        self.assertEqual(self.wrapped(60, StringIO()), [self.LINE])
