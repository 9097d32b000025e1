"""What systemd hears, by a datagram socket as it has one."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.daemon.systemd import ServiceManager

READY = "READY=1\nSTATUS=ready"
STOPPING = "STOPPING=1\nSTATUS=draining"
ALIVE = "WATCHDOG=1"
MINUTE = "60000000"  # microseconds


class Told(SynchronousTestCase):
    """A service manager that keeps what it is told."""

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
        """Return what it was told since it was last asked."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.heard.recv(4096).decode("utf-8"))
        return found


class Life(Told):
    def test_nothing_is_said_before_it_is_ready(self) -> None:
        self.manager(WATCHDOG_USEC=MINUTE)
        self.clock.advance(120.0)
        self.assertEqual(self.said(), [])

    def test_it_is_ready_once_and_stops_once(self) -> None:
        manager = self.manager()
        manager.ready()
        self.assertEqual(self.said(), [READY])
        manager.stopping()
        self.assertEqual(self.said(), [STOPPING])

    def test_a_reload_begins_at_a_time_and_ends(self) -> None:
        manager = self.manager()
        manager.ready()
        self.clock.advance(2.5)
        self.said()
        manager.reloading()
        self.assertEqual(self.said(), ["RELOADING=1\nMONOTONIC_USEC=3500000"])
        manager.reloaded()
        self.assertEqual(self.said(), [READY])

    def test_a_reload_during_the_start_does_not_make_it_ready(self) -> None:
        manager = self.manager()
        manager.reloading()
        manager.reloaded()
        self.assertEqual(self.said(), [])

    def test_a_reload_does_not_undo_the_end(self) -> None:
        manager = self.manager()
        manager.ready()
        manager.reloading()
        manager.stopping()
        self.said()
        manager.reloaded()
        manager.reloading()
        self.assertEqual(self.said(), [])


class Watchdog(Told):
    def test_it_is_alive_at_half_the_time_that_it_is_given(self) -> None:
        self.manager(WATCHDOG_USEC=MINUTE).ready()
        self.assertEqual(self.said(), [READY, ALIVE])
        self.clock.advance(29.9)
        self.assertEqual(self.said(), [])
        self.clock.advance(0.2)
        self.assertEqual(self.said(), [ALIVE])
        self.clock.advance(30.0)
        self.assertEqual(self.said(), [ALIVE])

    def test_a_drain_is_alive(self) -> None:
        manager = self.manager(WATCHDOG_USEC=MINUTE)
        manager.ready()
        manager.stopping()
        self.said()
        self.clock.advance(30.0)
        self.assertEqual(self.said(), [ALIVE])

    def test_nobody_who_does_not_ask_is_told(self) -> None:
        for wanted in ({}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}):
            self.manager(**wanted).ready()
            self.clock.advance(600.0)
            self.assertEqual(self.said(), [READY])
            self.assertEqual(self.clock.getDelayedCalls(), [])


class Addresses(Told):
    def test_a_name_that_begins_with_an_at_sign_is_abstract(self) -> None:
        name = f"twisted-mta/{os.getpid()}/a@b"
        try:
            self.heard = self.bound(f"\0{name}")
        except OSError:
            self.skipTest("this system has no abstract names")
        self.manager(NOTIFY_SOCKET=f"@{name}").ready()
        self.assertEqual(self.said(), [READY])

    def test_without_one_nothing_is_said(self) -> None:
        manager = ServiceManager({}, clock=self.clock, monotonic=lambda: 0)
        manager.ready()
        manager.reloading()
        manager.stopping()
        self.assertEqual(self.said(), [])

    def test_whoever_is_gone_does_not_disturb(self) -> None:
        os.unlink(self.path)
        manager = self.manager(WATCHDOG_USEC=MINUTE)
        manager.ready()
        self.clock.advance(30.0)
        manager.stopping()

    def test_whoever_does_not_read_does_not_hold_up_what_is_said_again(self) -> None:
        self.manager(WATCHDOG_USEC=MINUTE).ready()
        sent = 1
        while sent:  # until one that has sent nothing yet cannot send anything
            sent = self.flood()
        before = os.times().elapsed
        self.clock.advance(30.0)  # while this waits, so does all mail
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
