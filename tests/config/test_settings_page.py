"""The page of settings is made from the settings."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.config.reference import page

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "settings.rst"


class SettingsPage(SynchronousTestCase):
    def test_it_says_what_the_settings_say(self) -> None:
        self.assertEqual(
            PAGE.read_text(encoding="utf-8"),
            page(),
            "run: python -m twisted_mta.config.reference > docs/settings.rst",
        )
