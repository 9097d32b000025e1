"""Test cases whose every test ends with nothing open: files, descriptors, ports, timers."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from twisted.internet import reactor  # noqa: F401, TID251 - installed here, and not within a test
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.testing.inventory import Double, inventory


class Tidy:
    """Checks, after all cleanups of a test, that nothing which it opened is still open.

    Descriptors of the process are compared with those before the test. The doubles that the test
    has made list what is open in them (`twisted_mta.testing.inventory`).

    Attributes:
        kept_open: ends of names that may stay open.
    """

    kept_open: tuple[str, ...] = ()

    def run(self, result: Any) -> Any:
        """Run the test, with the check as its last cleanup."""
        with inventory() as doubles:
            before = descriptors()
            self.addCleanup(self._check, before, doubles)  # type: ignore[attr-defined]
            return super().run(result)  # type: ignore[misc]

    def _check(self, before: Mapping[int, str], doubles: list[Double]) -> None:
        left = [line for double in doubles for line in double.left_open()]
        if new_descriptors(before):
            gc.collect()  # a cycle may keep a closed test's files
            left += new_descriptors(before)
        left = [each for each in left if not each.endswith(self.kept_open)]
        if left:
            raise AssertionError(f"the test has left open: {', '.join(left)}")


class TidyTestCase(Tidy, SynchronousTestCase):
    """A `SynchronousTestCase` whose every test ends with nothing open."""


def descriptors() -> dict[int, str]:
    """Return the open descriptors of this process, with the names of their files."""
    names = {}
    for number in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        with suppress(FileNotFoundError):  # the descriptor of the listing is closed by now
            names[int(number)] = os.readlink(f"/proc/self/fd/{number}")
    return names


def new_descriptors(before: Mapping[int, str]) -> list[str]:
    """Return the names of descriptors that are open now and were not before."""
    return [name for number, name in descriptors().items() if before.get(number) != name]
