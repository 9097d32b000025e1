"""The pages that are written from the program are up to date."""

import runpy
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


def generated(generator: str) -> str:
    """Return the page that a generator writes."""
    page: str = runpy.run_path(str(DOCS / "_ext" / generator))["page"]()
    return page


class GeneratedPages(SynchronousTestCase):
    def check(self, page: str, generator: str) -> None:
        self.assertEqual(
            (DOCS / page).read_text(encoding="utf-8"),
            generated(generator),
            f"run: python docs/_ext/{generator} > docs/{page}",
        )

    def test_the_page_of_settings_shows_the_settings(self) -> None:
        self.check("settings.rst", "settings_page.py")

    def test_the_page_of_the_tool_shows_its_commands(self) -> None:
        self.check("twisted-mta.rst", "tool_page.py")

    def test_the_page_of_the_tool_has_every_command_and_option(self) -> None:
        page = generated("tool_page.py")
        for words in ("queue remove", "--dry-run", "--older AGE", "status", "check", "reload"):
            self.assertIn(words, page)
