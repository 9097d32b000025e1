"""The README's two commands: each complete on a machine that has only Python."""

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

README = Path(__file__).resolve().parent.parent.parent / "README.md"


class Commands(SynchronousTestCase):
    def setUp(self) -> None:
        text = README.read_text(encoding="utf-8")
        self.blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)

    def test_the_readme_has_two_commands_and_both_are_for_a_shell(self) -> None:
        self.assertEqual([kind for kind, _ in self.blocks], ["sh", "sh"])

    def test_each_makes_its_virtual_environment_and_installs(self) -> None:
        for _, command in self.blocks:
            self.assertIn("python3 -m venv", command)
            self.assertIn("pip install", command)

    def test_the_first_starts_the_mta_and_the_second_passes_the_tests(self) -> None:
        (_, start), (_, test) = self.blocks
        self.assertIn("twistd -n mta", start)
        self.assertRegex(test, r"bin/(trial|pytest|python -m (twisted\.trial|pytest))\b")
