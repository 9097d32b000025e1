"""The Python examples on the pages run."""

import ast
import re
import textwrap
import unittest
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta import Config

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


def examples(page: str) -> list[str]:
    """Return the Python blocks of a page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?: {3}.*\n|\n)+)", text, re.MULTILINE)
    return [textwrap.dedent(block) for block in blocks]


class Examples(SynchronousTestCase):
    def test_all_of_them_are_python(self) -> None:
        for page in ("tutorial.rst", "embedding.rst", "testing.rst"):
            for example in examples(page):
                ast.parse(example)

    def test_a_test_of_an_agent_in_memory_passes(self) -> None:
        names: dict[str, Any] = {"__name__": "example"}
        exec(examples("testing.rst")[0], names)
        result = unittest.TestResult()
        names["Returned"]("test_mail_is_returned_after_five_days").run(result)
        self.assertEqual((result.testsRun, result.errors, result.failures), (1, [], []))

    def test_an_extension_is_given_to_an_agent(self) -> None:
        (example,) = (text for text in examples("embedding.rst") if "XTICKET" in text)
        names: dict[str, Any] = {
            "config": Config(state_dir=self.mktemp()),
            "reactor": Clock(),
        }
        exec(example, names)
        self.assertEqual(names["TICKET"].mail["XTICKET"]("ann"), "ann")
