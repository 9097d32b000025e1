"""Results of work that goes on where they are not waited for any more."""

from __future__ import annotations

from typing import TypeVar

from twisted.internet.defer import Deferred

_T = TypeVar("_T")


class Lasting(Deferred[_T]):
    """A Deferred that cannot be cancelled: a commit that is under way ends in any case.

    Callbacks may be added by all that work on the result, since none of them can cancel it for the
    others.
    """

    def cancel(self) -> None:
        """Do nothing: the result comes all the same."""
