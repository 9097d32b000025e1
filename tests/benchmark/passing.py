"""The relay of one large message: rates and memory."""

from __future__ import annotations

import time

from ..functional.machine import eventually
from .client import Client, content
from .contestant import Contestant, Silence
from .load import PATIENCE
from .processes import forget_peaks, memory

_PIECE = 1 << 20


def passing(contestant: Contestant, octets: int) -> dict[str, float]:
    """Send one message of ``octets``, wait until it has arrived, and return rates and memory.

    Memory is the largest growth of one process; processes that are started for this delivery do not
    count.

    Raises:
        Unready: the message was refused, or did not arrive.
    """
    hop = contestant.hop
    assert not isinstance(hop, Silence)
    message = memoryview(content(octets - 1024))  # with its header within our default limit
    expected = hop.count() + 1
    client = Client(contestant.port)
    client.greet()
    client.envelope()
    forget_peaks(contestant.pid)
    before = memory(contestant.pid, "VmRSS")
    start = time.monotonic()
    for first in range(0, len(message), _PIECE):
        client.socket.sendall(message[first : first + _PIECE])
    client.expect(b"250")
    accepted = time.monotonic() - start
    eventually(lambda: hop.count() >= expected, "the large message at the next hop", PATIENCE)
    arrived = time.monotonic() - start
    peaks = memory(contestant.pid, "VmHWM")
    growth = max(peak - before.get(pid, peak) for pid, peak in peaks.items())
    client.close()
    return {
        "accepted MiB/s": octets / accepted / (1 << 20),
        "end to end MiB/s": octets / arrived / (1 << 20),
        "growth MiB": growth / (1 << 20),
        "resident MiB": contestant.resident() / (1 << 20),
    }
