"""Connections to PostgreSQL that give up a server which does not answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen

_T = TypeVar("_T")


class PatientConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that gives up a server which does not answer at all.

    Attributes:
        seconds: a monotonic clock; None: it waits for as long as it takes.
        patience: seconds that a statement may take.
    """

    seconds: Callable[[], float] | None = None
    patience = 40.0

    def wait(self, gen: PQGen[_T], interval: float = 0.1, timeout: float | None = None) -> _T:
        """Run the generator of a statement to its end.

        Raises:
            psycopg.OperationalError: the server did not answer in time; the connection is closed.
        """
        if self.seconds is not None:
            gen = self._limited(gen, self.seconds)
        return super().wait(gen, interval, timeout)

    def _limited(self, gen: PQGen[_T], seconds: Callable[[], float]) -> PQGen[_T]:
        deadline = seconds() + self.patience
        try:
            state = next(gen)
            while True:
                ready = yield state
                if not ready and seconds() > deadline:
                    self.pgconn.finish()
                    raise psycopg.OperationalError("the server does not answer")
                state = gen.send(ready)
        except StopIteration as stop:
            result: _T = stop.value
            return result
