"""A reactor for one thread, beside any other: it is not installed, and sets no signal handler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..system.timers import use_monotonic_time

if TYPE_CHECKING:
    from twisted.internet.selectreactor import SelectReactor as _Reactor
else:
    try:
        from twisted.internet.epollreactor import EPollReactor as _Reactor
    except ImportError:
        from twisted.internet.selectreactor import SelectReactor as _Reactor


class ThreadReactor(_Reactor):
    """A reactor with monotonic timers, for one thread.

    It is made, and its ports are bound, in any thread before `run_in_thread`.
    """

    # The thread of the application's reactor stays the one that Twisted knows.
    _registerAsIOThread = False

    def __init__(self) -> None:
        super().__init__()
        use_monotonic_time(self)

    def run_in_thread(self) -> None:
        """Run until `stop` is called."""
        self.run(installSignalHandlers=False)

    def close(self) -> None:
        """Close all descriptors; the reactor does not run, and will not run again."""
        reactor: Any = self
        for each in reactor.removeAll():
            each.connectionLost(None)
        for each in list(self._internalReaders):
            self._internalReaders.discard(each)
            each.connectionLost(None)
        poller = getattr(self, "_poller", None)
        if poller is not None:
            poller.close()
