"""What systemd is told (sd_notify): that we are ready, stop, reload, or are alive."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping

from twisted.internet.task import LoopingCall

from ..interfaces import Clock

# Seconds to wait where the reader of the socket has not caught up: a start is not to be taken for
# one that hangs because its one word was lost. That we are alive is said again soon anyhow.
_PATIENCE = 1.0


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
        if self._address.startswith("@"):  # a name in the abstract namespace
            self._address = f"\0{self._address[1:]}"
        watchdog = environment.get("WATCHDOG_USEC", "")
        self._limit = int(watchdog) if watchdog.isdecimal() else 0
        self._monotonic = monotonic
        self._is_ready = False
        self._alive = LoopingCall(self._tell, "WATCHDOG=1", patience=0.0)
        self._alive.clock = clock

    def ready(self) -> None:
        """Say that the service does its work, and from now on that it is alive."""
        self._is_ready = True
        self._tell("READY=1\nSTATUS=ready")
        if self._limit > 0 and not self._alive.running:
            # sd_watchdog_enabled(3): at half the time after which systemd takes us for dead.
            self._alive.start(self._limit / 2_000_000)

    def reloading(self) -> None:
        """Say that settings are read again; `reloaded` says when that is over.

        Nothing is said before the service is ready, or once it stops: that would end either.
        """
        if self._is_ready:
            self._tell(f"RELOADING=1\nMONOTONIC_USEC={self._monotonic()}")

    def reloaded(self) -> None:
        """Say that the service goes on, with new settings or with the old ones."""
        if self._is_ready:
            self._tell("READY=1\nSTATUS=ready")

    def stopping(self) -> None:
        """Say that the end has begun; a drain is alive all the same."""
        self._is_ready = False
        self._tell("STOPPING=1\nSTATUS=draining")

    def _tell(self, state: str, patience: float = _PATIENCE) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.settimeout(patience)
            out.sendto(state.encode("utf-8"), self._address)
