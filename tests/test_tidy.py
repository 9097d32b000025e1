"""Test cases notice what their tests leave open."""

from __future__ import annotations

import os
from unittest import TestResult

from twisted.trial.unittest import SynchronousTestCase

from tests.tidy import TidyTestCase
from twisted_mta.testing.files import UnsyncedFiles
from twisted_mta.testing.reactor import MemoryReactor


class Untidy(TidyTestCase):
    """Tests that each leave something open, or nothing; run by `Noticing`."""

    def nothing(self) -> None:
        files = UnsyncedFiles()
        files.create("/a").close()
        with files.open("/a"):
            pass
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        self.addCleanup(os.close, write)
        call = MemoryReactor().callLater(1, int)
        self.addCleanup(call.cancel)

    def a_file(self) -> None:
        UnsyncedFiles().create("/left")

    def a_descriptor(self) -> None:
        self.pipe = os.pipe()

    def a_timer(self) -> None:
        MemoryReactor().callLater(7, int)

    def a_file_lost_in_a_crash(self) -> None:
        files = UnsyncedFiles()
        files.create("/lost")
        files.crash()


class Noticing(SynchronousTestCase):
    def problems(self, name: str) -> str:
        result = TestResult()
        test = Untidy(name)
        test.run(result)
        for descriptor in getattr(test, "pipe", ()):
            os.close(descriptor)
        return "".join(text for _, text in result.errors)

    def test_a_test_that_closes_all_passes(self) -> None:
        self.assertEqual(self.problems("nothing"), "")
        self.assertEqual(self.problems("a_file_lost_in_a_crash"), "")

    def test_an_open_file_descriptor_or_timer_fails_the_test(self) -> None:
        self.assertIn("the test has left open: /left", self.problems("a_file"))
        self.assertIn("the test has left open: pipe:", self.problems("a_descriptor"))
        self.assertIn("the test has left open: <DelayedCall", self.problems("a_timer"))
