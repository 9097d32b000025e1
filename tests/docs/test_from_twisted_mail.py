"""The page for those who come from twisted.mail."""

import re
from pathlib import Path

from twisted.mail import smtp
from twisted.trial.unittest import SynchronousTestCase

PAGE = Path(__file__).parents[2] / "docs" / "from-twisted-mail.rst"


class Names(SynchronousTestCase):
    def test_every_public_name_of_the_module_is_on_the_page(self) -> None:
        named = re.findall(r"``([A-Za-z0-9_]+)``", PAGE.read_text(encoding="utf-8"))
        self.assertEqual(set(smtp.__all__) - set(named), set())
