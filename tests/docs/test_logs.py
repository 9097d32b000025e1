"""The page of the log has the fields that the program logs, and no others."""

import re
import runpy
from functools import cache
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.telemetry.log_lines import _RENAMED

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"

EVENTS = {
    "accepted": "{id} accepted: ",
    "submitted by the application": "{id} submitted ",
    "delivered, deferred, failed, discarded": "{id} {status}: ",
    "held, released, retried, removed by the operator": "{id} {status} by the operator",
    "refused: a recipient": "refused {recipient} ",
    "refused: a content": "{id} refused: ",
    "a notice": "{id} is the notice ",
    "a next hop is suspended": "{next_hop} is suspended ",
    "a trouble begins": "{kind}: {text}. ",
    "a trouble is over": "{kind}: over after ",
}
"""The rows of the table of useful lines, each with the beginning of its text in the source."""


@cache
def source_lines() -> list[Any]:
    """Return the lines that the program can log."""
    return list(runpy.run_path(str(DOCS / "_ext" / "log_lines.py"))["lines"]())


def names(text: str) -> list[str]:
    return re.findall(r"``(\w+)``", text)


class Fields(SynchronousTestCase):
    def setUp(self) -> None:
        self.page = (DOCS / "logs.rst").read_text(encoding="utf-8")
        self.lines = source_lines()

    def logged(self, beginning: str = "") -> set[str]:
        return {
            _RENAMED.get(name, name)
            for line in self.lines
            if line.text.startswith(beginning)
            for name in line.fields
        }

    def test_every_field_of_the_source_is_described_and_no_other(self) -> None:
        section = self.page.partition("\nFields\n---")[2].partition("\nEvery line\n---")[0]
        described = names(" ".join(re.findall(r"^   \* - (.*)$", section, re.MULTILINE)))
        self.assertEqual(self.logged() - set(described), set(), "describe in docs/logs.rst")
        self.assertEqual(set(described) - self.logged(), set(), "remove from docs/logs.rst")
        self.assertEqual(len(described), len(set(described)))

    def test_the_useful_lines_have_the_fields_that_the_page_lists(self) -> None:
        section = self.page.partition("program have all of these:\n")[2].partition(
            "\n.. code-block"
        )[0]
        rows = dict(re.findall(r"^   \* - (.*)\n((?:     .*\n)+)", section, re.MULTILINE))
        self.assertEqual(rows.keys() - {"Line"}, EVENTS.keys())
        for row, beginning in EVENTS.items():
            self.assertEqual(sorted(names(rows[row])), sorted(self.logged(beginning)), row)

    def test_lines_are_found_in_the_source(self) -> None:
        self.assertGreater(len(self.lines), 100)
