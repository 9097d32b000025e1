"""What systemd is told (sd_notify): that we are ready, stop, reload, or are alive."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping

from twisted.internet.task import LoopingCall

from .interfaces import Clock


class ServiceManager:
    """Whoever started us, if it wants to be told; otherwise what is said goes nowhere.

    Args:
        environment: where ``NOTIFY_SOCKET`` and ``WATCHDOG_USEC`` are looked up.
        clock: for the watchdog.
        monotonic: microseconds, by the clock that systemd measures a reload with.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        clock: Clock,
        monotonic: Callable[[], int],
    ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._watchdog = environment.get("WATCHDOG_USEC", "")
        self._monotonic = monotonic
        self._alive = LoopingCall(self._tell, "WATCHDOG=1")
        self._alive.clock = clock

    def ready(self, status: str) -> None:
        """Say that the service does its work, and from now on that it is alive."""
        self._tell(f"READY=1\nSTATUS={status}")
        if self._watchdog.isdecimal() and not self._alive.running:
            # sd_watchdog_enabled(3): at half the time after which systemd takes us for dead.
            self._alive.start(int(self._watchdog) / 2_000_000)

    def reloading(self) -> None:
        """Say that settings are read again; `ready` says when that is over."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={self._monotonic()}")

    def stopping(self) -> None:
        """Say that the end has begun; a drain is alive all the same."""
        self._tell("STOPPING=1\nSTATUS=draining")

    def _tell(self, state: str) -> None:
        if not self._address:
            return
        # A name that begins with @ is in the abstract namespace.
        address = self._address.replace("@", "\0", 1)
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.setblocking(False)
            out.sendto(state.encode("utf-8"), address)
