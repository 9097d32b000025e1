"""Events of descriptors without a log context: the same events, in the same order."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.system.events import skip_log_context
from twisted_mta.testing.thread_reactor import ThreadReactor


class Selectable:
    """One end of a pair of sockets; notes its events.

    Args:
        events: where it notes them.
        name: by which it notes them.
        reads: called for each event of an octet to read; returns why the connection is over.
    """

    def __init__(
        self, events: list[str], name: str, reads: Callable[[], Exception | None] = lambda: None
    ) -> None:
        self.socket, self.peer = socket.socketpair()
        self.socket.setblocking(False)
        self._events = events
        self._name = name
        self._reads = reads

    def fileno(self) -> int:
        return self.socket.fileno()

    def logPrefix(self) -> str:
        return self._name

    def doRead(self) -> Exception | None:
        octets = self.socket.recv(100)
        if not octets:
            return CONNECTION_DONE
        self._events.append(f"{self._name} reads {octets.decode()}")
        return self._reads()

    def doWrite(self) -> None:
        self._events.append(f"{self._name} writes")

    def connectionLost(self, reason: Failure) -> None:
        self._events.append(f"{self._name} is over: {reason.type.__name__}")

    def close(self) -> None:
        self.socket.close()
        self.peer.close()


class Events(SynchronousTestCase):
    def setUp(self) -> None:
        self.events: list[str] = []
        self.reactor: Any = ThreadReactor()
        self.addCleanup(self.reactor.close)
        if not hasattr(self.reactor, "_poller"):
            self.skipTest("no epoll here")
        skip_log_context(self.reactor)

    def add(
        self, name: str, octets: bytes = b"", reads: Callable[[], Exception | None] = lambda: None
    ) -> Selectable:
        added = Selectable(self.events, name, reads)
        self.addCleanup(added.close)
        self.addCleanup(self.reactor.removeWriter, added)
        self.addCleanup(self.reactor.removeReader, added)
        self.reactor.addReader(added)
        added.peer.send(octets)
        return added

    def test_each_event_reaches_its_selectable(self) -> None:
        self.add("first", b"1")
        self.add("second")
        self.reactor.addWriter(self.add("third", b"3"))
        self.reactor.doIteration(0)
        self.assertCountEqual(self.events, ["first reads 1", "third reads 3", "third writes"])

    def test_without_a_timeout_an_event_is_waited_for(self) -> None:
        self.add("first", b"1")
        self.reactor.doIteration(None)
        self.assertEqual(self.events, ["first reads 1"])

    def test_the_end_of_a_connection_is_reported(self) -> None:
        self.add("first").peer.close()
        over = self.add("second", b"2", lambda: ConnectionDone())
        self.reactor.doIteration(0)
        self.assertCountEqual(
            self.events,
            ["first is over: ConnectionDone", "second reads 2", "second is over: ConnectionDone"],
        )
        self.assertNotIn(over, self.reactor.getReaders())

    def test_a_failure_ends_the_connection_and_no_other(self) -> None:
        def fail() -> None:
            raise ValueError("a bug")

        self.add("first", b"1", fail)
        self.add("second", b"2")
        self.reactor.doIteration(0)
        self.assertCountEqual(
            self.events, ["first reads 1", "first is over: ValueError", "second reads 2"]
        )
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_an_exit_or_a_cancellation_ends_the_connection_and_no_other(self) -> None:
        for kind in (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit):
            self.events.clear()

            def fail(kind: type[BaseException] = kind) -> None:
                raise kind("a bug")

            self.add("first", b"1", fail)
            self.reactor.addWriter(self.add("second", b"2", fail))
            self.add("third", b"3")
            self.reactor.doIteration(0)
            over = f"is over: {kind.__name__}"
            self.assertCountEqual(
                self.events,
                [
                    *("first reads 1", f"first {over}", "second reads 2", f"second {over}"),
                    "third reads 3",
                ],
            )
            self.assertEqual(len(self.flushLoggedErrors(kind)), 2)

    def test_a_failure_at_the_end_of_a_connection_does_not_affect_others(self) -> None:
        def fail(reason: Failure) -> None:
            raise KeyError("a bug")

        for name in ("first", "second"):
            self.add(name, b"x", lambda: ConnectionDone()).connectionLost = fail  # type: ignore[method-assign]
        self.reactor.doIteration(0)
        self.assertCountEqual(self.events, ["first reads x", "second reads x"])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 2)

    def test_a_connection_that_an_event_has_closed_has_none_any_more(self) -> None:
        both: list[Selectable] = []

        def close_all() -> None:
            for each in both:
                self.reactor.removeReader(each)

        both += [self.add("first", b"x", close_all), self.add("second", b"x", close_all)]
        self.reactor.doIteration(0)
        self.assertEqual(len(self.events), 1)

    def test_another_reactor_is_not_changed(self) -> None:
        clock: Any = Clock()
        before = dict(vars(clock))
        skip_log_context(clock)
        self.assertEqual(vars(clock), before)
