"""The fields of a message as a filter sees them: however many there are, no step takes long."""

from __future__ import annotations

from collections.abc import Callable
from time import thread_time
from typing import TypeVar

from twisted.trial.unittest import SynchronousTestCase

from tests.processor_time import collect_nothing
from twisted_mta.policy.milter.changes import Fields

_T = TypeVar("_T")

MANY = 200_000
LONGEST = 0.02  # seconds


class ManyFields(SynchronousTestCase):
    """A header section of 1 MB."""

    def timed(self, step: Callable[[], _T]) -> _T:
        """Take a step, which others have to wait for."""
        began = thread_time()
        result = step()
        self.assertLess(thread_time() - began, LONGEST)
        return result

    def test_each_step_leaves_time_to_others(self) -> None:
        collect_nothing(self)
        section = b"".join(b"a:%d\r\n" % (number % 10) for number in range(MANY))
        fields = Fields(b"R: 1\r\n", section, keeps_space=True)
        while self.timed(fields.read):
            pass
        self.assertEqual(sum(1 for _ in fields.shown()), MANY + 1)
        self.timed(lambda: fields.change(MANY, b"A", b"last"))
        self.timed(lambda: fields.change(1, b"none", b""))
        self.timed(lambda: fields.insert(2, b"X", b"x"))
        self.timed(lambda: fields.add(b"Y", b"y"))
        pieces, made = [], fields.section()
        while (piece := self.timed(lambda: next(made, None))) is not None:
            pieces.append(piece)
        joined = self.timed(lambda: b"".join(pieces))
        self.assertEqual(joined, b"X:x\r\n" + section[:-5] + b"A:last\r\nY:y\r\n")
        self.assertEqual(fields.above, b"R: 1\r\n")
