"""The page of standards and the source name the same RFCs."""

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent.parent


class Standards(SynchronousTestCase):
    def setUp(self) -> None:
        self.cited: dict[str, list[str]] = {}
        for path in sorted((ROOT / "twisted_mta").rglob("*")):
            if path.suffix in (".py", ".sql"):
                for number in re.findall(r"\bRFC[ -]?(\d+)", path.read_text(encoding="utf-8")):
                    self.cited.setdefault(number, []).append(str(path.relative_to(ROOT)))
        page = (ROOT / "docs" / "standards.rst").read_text(encoding="utf-8")
        self.rows = re.findall(r"^   \* - :rfc:`(\d+)`$", page, re.MULTILINE)

    def test_every_rfc_that_the_source_cites_has_a_row(self) -> None:
        missing = {number: files for number, files in self.cited.items() if number not in self.rows}
        self.assertEqual(missing, {})

    def test_every_row_is_cited_in_the_source(self) -> None:
        self.assertEqual([number for number in self.rows if number not in self.cited], [])

    def test_rows_are_in_order_and_single(self) -> None:
        numbers = list(map(int, self.rows))
        self.assertEqual(numbers, sorted(frozenset(numbers)))
