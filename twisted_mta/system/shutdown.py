"""The end of a reactor: what it ends with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorCore


class AtShutdown:
    """Calls a function when a reactor shuts down, after the triggers of the application.

    A reactor without system events, such as a clock of a test, never does.

    Args:
        reactor: waits for the Deferred that ``end`` returns, before it ends.
        end: called once at most.
    """

    def __init__(self, reactor: Any, end: Callable[[], object]) -> None:
        self._reactor = reactor
        self._end = end
        self._trigger: Any = None

    def start(self) -> None:
        """Wait for the shutdown; nothing happens if it waits already."""
        if self._trigger is None and IReactorCore.providedBy(self._reactor):
            self._trigger = self._add(self._begun)

    def stop(self) -> None:
        """Wait no more."""
        trigger, self._trigger = self._trigger, None
        if trigger is not None:
            self._reactor.removeSystemEventTrigger(trigger)

    def _add(self, call: Callable[[], object]) -> Any:
        return self._reactor.addSystemEventTrigger("before", "shutdown", call)

    def _begun(self) -> None:
        # Once more, as the last one: a trigger of the application may use what ends here, and end
        # it itself.
        self._trigger = self._add(self._last)

    def _last(self) -> object:
        self._trigger = None
        return self._end()
