"""Notifications to a service manager, received by a datagram socket."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile

from twisted.internet.task import Clock

from tests.tidy import TidyTestCase
from twisted_mta.daemon.systemd import ServiceManager

READY = "READY=1\nSTATUS=ready"
STOPPING = "STOPPING=1\nSTATUS=draining"
ALIVE = "WATCHDOG=1"
MINUTE = "60000000"  # microseconds


class NotifyTestCase(TidyTestCase):
    """A service manager that records notifications."""

    def setUp(self) -> None:
        # The name of a socket has 107 octets at most: the folder of the test runner may be deep.
        folder = self.enterContext(tempfile.TemporaryDirectory(prefix="mta-notify-"))
        self.path = os.path.join(folder, "user@1000.notify")
        self.clock = Clock()
        self.heard = self.bound(self.path)

    def bound(self, name: str) -> socket.socket:
        heard = self.enterContext(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        heard.bind(name)
        heard.setblocking(False)
        return heard

    def manager(self, **environment: str) -> ServiceManager:
        return ServiceManager(
            {"NOTIFY_SOCKET": self.path, **environment},
            clock=self.clock,
            monotonic=lambda: 1_000_000 + int(self.clock.seconds() * 1_000_000),
        )

    def said(self) -> list[str]:
        """Return the notifications since the last call."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.heard.recv(4096).decode("utf-8"))
        return found


class Lifecycle(NotifyTestCase):
    def test_no_reload_is_notified_before_the_service_is_ready(self) -> None:
        self.manager(WATCHDOG_USEC=MINUTE)
        self.clock.advance(120.0)
        self.assertEqual(self.said(), [])

    def test_ready_and_stopping_are_notified(self) -> None:
        manager = self.manager()
        manager.ready()
        self.assertEqual(self.said(), [READY])
        manager.stopping()
        self.assertEqual(self.said(), [STOPPING])

    def test_a_change_of_the_state_is_notified_once(self) -> None:
        manager = self.manager()
        manager.status("not ready: the disk is full")
        self.assertEqual(self.said(), [])
        manager.ready()
        self.said()
        for _ in range(3):
            manager.status("not ready: the disk is full")
        self.assertEqual(self.said(), ["STATUS=not ready: the disk is full"])
        manager.reloaded()
        self.assertEqual(self.said(), ["READY=1\nSTATUS=not ready: the disk is full"])
        manager.status("x" * 5000)
        self.assertEqual(self.said(), ["STATUS=" + "x" * 500])
        manager.stopping()
        self.said()
        manager.status("ready")
        self.assertEqual(self.said(), [])

    def test_a_reload_is_notified_with_its_time_and_its_end(self) -> None:
        manager = self.manager()
        manager.ready()
        self.clock.advance(2.5)
        self.said()
        manager.reloading()
        self.assertEqual(self.said(), ["RELOADING=1\nMONOTONIC_USEC=3500000"])
        manager.reloaded()
        self.assertEqual(self.said(), [READY])

    def test_a_reload_during_the_start_does_not_notify_ready(self) -> None:
        manager = self.manager()
        manager.reloading()
        manager.reloaded()
        self.assertEqual(self.said(), [])

    def test_a_reload_during_the_drain_notifies_nothing(self) -> None:
        manager = self.manager()
        manager.ready()
        manager.reloading()
        manager.stopping()
        self.said()
        manager.reloaded()
        manager.reloading()
        self.assertEqual(self.said(), [])


class Watchdog(NotifyTestCase):
    def test_the_watchdog_is_notified_at_half_its_time(self) -> None:
        self.manager(WATCHDOG_USEC=MINUTE).ready()
        self.assertEqual(self.said(), [READY, ALIVE])
        self.clock.advance(29.9)
        self.assertEqual(self.said(), [])
        self.clock.advance(0.2)
        self.assertEqual(self.said(), [ALIVE])
        self.clock.advance(30.0)
        self.assertEqual(self.said(), [ALIVE])

    def test_the_watchdog_is_notified_during_a_drain(self) -> None:
        manager = self.manager(WATCHDOG_USEC=MINUTE)
        manager.ready()
        manager.stopping()
        self.said()
        self.clock.advance(30.0)
        self.assertEqual(self.said(), [ALIVE])

    def test_without_a_watchdog_none_is_notified(self) -> None:
        for wanted in ({}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}):
            self.manager(**wanted).ready()
            self.clock.advance(600.0)
            self.assertEqual(self.said(), [READY])
            self.assertEqual(self.clock.getDelayedCalls(), [])


class Addresses(NotifyTestCase):
    def test_an_address_with_an_at_sign_is_abstract(self) -> None:
        name = f"twisted-mta/{os.getpid()}/a@b"
        try:
            self.heard = self.bound(f"\0{name}")
        except OSError:
            self.skipTest("this system has no abstract names")
        self.manager(NOTIFY_SOCKET=f"@{name}").ready()
        self.assertEqual(self.said(), [READY])

    def test_without_an_address_nothing_is_sent(self) -> None:
        manager = ServiceManager({}, clock=self.clock, monotonic=lambda: 0)
        manager.ready()
        manager.reloading()
        manager.stopping()
        self.assertEqual(self.said(), [])

    def test_a_service_manager_that_has_gone_is_no_error(self) -> None:
        os.unlink(self.path)
        manager = self.manager(WATCHDOG_USEC=MINUTE)
        manager.ready()
        self.clock.advance(30.0)
        manager.stopping()

    def test_watchdog_notifications_do_not_wait_for_a_full_socket(self) -> None:
        self.manager(WATCHDOG_USEC=MINUTE).ready()
        sent = 1
        while sent:  # until a new socket cannot send
            sent = self.flood()
        before = os.times().elapsed
        self.clock.advance(30.0)  # mail must not wait for this
        self.assertLess(os.times().elapsed - before, 0.5)
        self.assertNotIn(ALIVE, self.said()[2:])

    def flood(self) -> int:
        """Say as much as one sender can, and return how much."""
        sent = 0
        flood = self.enterContext(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        flood.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                flood.sendto(b"X_NOISE=1", self.path)
                sent += 1
        return sent
