"""The real clock, randomness and processor: the only module that reads them.

All others are handed what they need of these (`twisted_mta.interfaces`), so that a whole MTA can
run in memory, on a simulated clock, from a seed. Only the rooms that join others import this one.
"""

from __future__ import annotations

import os
import random  # noqa: TID251 - the one place where randomness comes from
import time
from base64 import b64encode
from threading import get_native_id


def wall_time() -> float:
    """Return seconds since the epoch by the machine's clock (`interfaces.WallTime`)."""
    return time.time()  # noqa: TID251 - the one place where wall time comes from


def monotonic_microseconds() -> int:
    """Return microseconds of the monotonic clock, since some moment in the past."""
    return time.monotonic_ns() // 1000  # systemd compares it with its own


class BlockedTime:
    """Tells how many seconds the calling thread has waited, since some moment in the past.

    On Linux the time in which it was ready to run, and others had the processors, does not count.
    The file that says so stays open: to open it takes as long as all else, twice for each commit.
    """

    def __init__(self) -> None:
        self._thread = 0  # that the open file is about
        self._statistics: int | None = None

    def __call__(self) -> float:
        """Return the seconds."""
        off_processor = time.monotonic() - time.thread_time()  # noqa: TID251 - real work takes real time
        try:
            thread = get_native_id()
            if self._statistics is None or thread != self._thread:
                self.close()
                flags = os.O_RDONLY | os.O_CLOEXEC
                self._statistics = os.open("/proc/thread-self/schedstat", flags)
                self._thread = thread
            # Nanoseconds on a processor, nanoseconds ready to run, and time slices.
            ready = int(os.pread(self._statistics, 64, 0).split()[1]) / 1e9
        except (
            OSError,
            LookupError,
            ValueError,
        ):  # other systems, and kernels that do not count it
            return off_processor
        return off_processor - ready

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        statistics, self._statistics = self._statistics, None
        if statistics is not None:
            os.close(statistics)

    __del__ = close


def give_way() -> None:
    """Yield the processor to processes that are ready to run; return at once if none is."""
    if hasattr(os, "sched_yield"):  # macOS has none
        os.sched_yield()


def secret_octets(count: int) -> bytes:
    """Return unguessable octets, from the operating system."""
    return os.urandom(count)  # noqa: TID251 - the one place where secrets come from


def system_random() -> random.Random:
    """Return a new source of randomness (`interfaces.Random`), seeded by the operating system.

    For jitter, shuffling and unique names, never for a secret: secrets come from `secret_octets`,
    `cryptography` and OpenSSL. `random.SystemRandom` would cost a system call for each number.
    """
    return random.Random(os.urandom(32))  # noqa: TID251 - the one place where seeds come from


def nonce() -> str:
    """Return 24 characters from the operating system's randomness (`smtp.sasl.exchange.Nonce`)."""
    return b64encode(os.urandom(18)).decode("ascii")  # noqa: TID251 - the one place where nonces come from
