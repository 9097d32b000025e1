"""Notifications to systemd (sd_notify): ready, reloading, stopping, alive."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping

from twisted.internet.task import LoopingCall

from ..interfaces import Clock

# Seconds to wait where the reader of the socket has not caught up: a start whose one notification
# is lost would look as if it hung. The watchdog's are soon sent again.
_PATIENCE = 1.0

_LONGEST = 500  # characters of the state


class ServiceManager:
    """The service manager, if it wants notifications; otherwise they go nowhere.

    Args:
        environment: variables, among them ``NOTIFY_SOCKET`` and ``WATCHDOG_USEC``.
        clock: for the watchdog.
        monotonic: returns microseconds, by the clock that systemd times a reload with.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        clock: Clock,
        monotonic: Callable[[], int],
    ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # a name in the abstract namespace
            self._address = f"\0{self._address[1:]}"
        watchdog = environment.get("WATCHDOG_USEC", "")
        self._limit = int(watchdog) if watchdog.isdecimal() else 0
        self._monotonic = monotonic
        self._is_ready = False
        self._status = "ready"
        self._alive = LoopingCall(self._notify, "WATCHDOG=1", patience=0.0)
        self._alive.clock = clock

    def ready(self) -> None:
        """Notify that the service is ready, and from now on that it is alive."""
        self._is_ready = True
        self._notify(f"READY=1\nSTATUS={self._status}")
        if self._limit > 0 and not self._alive.running:
            # sd_watchdog_enabled(3): at half the time after which systemd takes the service for
            # dead.
            self._alive.start(self._limit / 2_000_000)

    def reloading(self) -> None:
        """Notify that settings are read again, until `reloaded`.

        Before the service is ready, and once it stops, nothing is sent: it would end that state.
        """
        if self._is_ready:
            self._notify(f"RELOADING=1\nMONOTONIC_USEC={self._monotonic()}")

    def reloaded(self) -> None:
        """Notify that the service goes on, with new settings or with the old ones."""
        if self._is_ready:
            self._notify(f"READY=1\nSTATUS={self._status}")

    def status(self, text: str) -> None:
        """Notify of the state, if it has changed: one printable line, which is cut off."""
        if self._is_ready and text[:_LONGEST] != self._status:
            self._status = text[:_LONGEST]
            self._notify(f"STATUS={self._status}", patience=0.0)

    def stopping(self) -> None:
        """Notify that the drain has begun; the watchdog still hears that it is alive."""
        self._is_ready = False
        self._notify("STOPPING=1\nSTATUS=draining")

    def _notify(self, state: str, patience: float = _PATIENCE) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.settimeout(patience)
            out.sendto(state.encode("utf-8"), self._address)
