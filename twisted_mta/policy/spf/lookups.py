"""The DNS queries of one SPF check, within its limits (RFC 7208 §4.6.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred, TimeoutError

from ...dns.failure import LookupFailed, NoSuchDomain
from ...interfaces import Clock

_T = TypeVar("_T", bound=Sequence[object])

_MOST_TERMS = 10  # that need the DNS
_MOST_VOIDS = 2  # of those, that find nothing there

MOST_NAMES = 10
"""The most hosts of one ``mx`` or ``ptr`` whose addresses are looked up."""

# Terms and answers that are looked at in a turn of the reactor. Answers in the cache come at once,
# and a hostile check has thousands of them.
_MOST_IN_A_TURN = 500


class LimitExceeded(Exception):
    """The records of a check need more than the standard allows; the message says what."""


class Unanswered(Exception):
    """A query has no answer, for now or in time; the message says why."""


class Lookups:
    """Counts what a check needs, and waits for answers.

    Args:
        clock: for the time, and for turns of the reactor.
        patience: seconds for the whole check.
    """

    def __init__(self, clock: Clock, patience: float) -> None:
        self._clock = clock
        self._patience = patience
        self._deadline = clock.seconds() + patience
        self._terms = 0
        self._voids = 0
        self._work = 0  # of this turn of the reactor

    def count(self) -> None:
        """Count a term that needs the DNS.

        Raises:
            LimitExceeded: there are too many.
        """
        self._terms += 1
        if self._terms > _MOST_TERMS:
            raise LimitExceeded(f"more than {_MOST_TERMS} terms that need the DNS")

    def count_void(self) -> None:
        """Count a term that finds nothing.

        Raises:
            LimitExceeded: there are too many.
        """
        self._voids += 1
        if self._voids > _MOST_VOIDS:
            raise LimitExceeded(f"more than {_MOST_VOIDS} terms that find nothing in the DNS")

    async def ask(self, lookup: Deferred[_T]) -> _T | None:
        """Return the answer to a query; None: NXDOMAIN.

        Raises:
            Unanswered: there is none, or the time for the check is over.
        """
        if not lookup.called:
            left = self._deadline - self._clock.seconds()
            lookup.addTimeout(max(0.0, left), self._clock)
        try:
            answer: _T | None = await lookup
        except NoSuchDomain:
            answer = None
        except LookupFailed as failed:
            raise Unanswered(str(failed)) from None
        except TimeoutError:
            raise Unanswered(f"no result within {self._patience:g} s") from None
        if self.count_work(1 + len(answer or ())):
            await self.next_turn()
        return answer

    def count_work(self, much: int) -> bool:
        """Count work, and return whether others are to have their turn before it (`next_turn`).

        Args:
            much: terms and answers that are looked at next.
        """
        self._work += much
        return self._work > _MOST_IN_A_TURN

    def next_turn(self) -> Deferred[None]:
        """Return a Deferred that fires once others had their turn."""
        self._work = 0
        turn: Deferred[None] = Deferred(lambda _: timer.cancel())
        timer = self._clock.callLater(0, turn.callback, None)
        return turn
