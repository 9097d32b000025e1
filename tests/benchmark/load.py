"""The load: the same messages for every contestant, counted when they have arrived."""

from __future__ import annotations

import json
import sys
import time

from attrs import evolve, frozen

from ..functional.machine import LOOPBACK, ROOT, Unready, eventually, run
from .contestant import Contestant, Silence
from .results import CPU

PATIENCE = 600.0


@frozen
class Work:
    """The messages for a contestant.

    Attributes:
        messages: their number.
        octets: the size of each, without header.
        sessions: parallel connections of the generator.
        kept: whether a connection carries many messages, or one.
        tls: whether each connection begins with STARTTLS.
        hops: recipients of each message, each at a next hop of its own (`contestant.domain`).
    """

    messages: int = 200
    octets: int = 4096
    sessions: int = 20
    kept: bool = True
    tls: bool = False
    hops: int = 1


@frozen
class Sent:
    """The result of the generator.

    Attributes:
        seconds: until its last ``250``.
        cpu: CPU time of the generator, in seconds; 0: not known.
    """

    seconds: float
    cpu: float = 0.0


def send(port: int, work: Work) -> Sent:
    """Run the generator to its end.

    Raises:
        Unready: a message was refused.
    """
    if work.tls:
        return Sent(**generated("tls_load", port, "--messages", work.messages, *_common(work)))
    if work.hops > 1:
        spread = ("--messages", work.messages, "--hops", work.hops)
        return Sent(**generated("fan_load", port, *spread, *_common(work)))
    start = time.monotonic()
    done = run(
        "smtp-source",
        *(("-d",) if work.kept else ()),
        *("-s", str(work.sessions), "-l", str(work.octets), "-m", str(work.messages)),
        *("-f", "ann@sender.example", "-t", "bob@elsewhere.example"),
        f"{LOOPBACK}:{port}",
        timeout=PATIENCE,
    )
    if done.returncode:
        raise Unready(f"smtp-source: {done.stdout}")
    return Sent(time.monotonic() - start)


def _common(work: Work) -> tuple[object, ...]:
    return ("--sessions", work.sessions, "--octets", work.octets)


def generated(module: str, *arguments: object) -> dict[str, float]:
    """Run a generator of this package as a process; return what it measured.

    Raises:
        Unready: it failed.
    """
    name = f"{__package__}.{module}"
    done = run(
        "env",
        f"PYTHONPATH={ROOT}",
        sys.executable,
        "-m",
        name,
        *map(str, arguments),
        timeout=PATIENCE,
    )
    if done.returncode:
        raise Unready(f"{module}: {done.stdout[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


def rates(contestant: Contestant, work: Work) -> dict[str, float]:
    """Send a contestant its messages, wait until all have arrived, and return rates and costs.

    With a silent next hop no message arrives, and only acceptance is measured.

    Raises:
        Unready: a message was refused, or did not arrive.
    """
    hop = contestant.hop
    expected = 0 if isinstance(hop, Silence) else hop.count() + work.messages * work.hops
    cpu = contestant.cpu()
    commits = contestant.commits()
    start = time.monotonic()
    sent = send(contestant.port, work)
    figures = {"accepted/s": work.messages / sent.seconds}
    if not isinstance(hop, Silence):
        taken = hop.count
        eventually(
            lambda: taken() >= expected,
            f"{contestant.name} to deliver {work.messages} messages",
            PATIENCE,
        )
        figures["end to end/s"] = work.messages / (time.monotonic() - start)
        eventually(lambda: contestant.queued() == 0, f"{contestant.name} to empty its queue", 60.0)
    time.sleep(0.2)  # work after the last message costs CPU time too
    if contestant.counts_cpu:
        figures[CPU] = (contestant.cpu() - cpu) * 1e6 / work.messages
    if sent.cpu:
        figures["CPU µs/message of the generator"] = sent.cpu * 1e6 / work.messages
    batches, operations = (
        now - before for now, before in zip(contestant.commits(), commits, strict=True)
    )
    if batches:
        figures["operations/commit"] = operations / batches
    figures["resident MiB"] = contestant.resident() / (1 << 20)
    return figures


def sized(contestant: Contestant, work: Work, seconds: float) -> Work:
    """Return the amount of ``work`` that keeps a contestant busy for about ``seconds``.

    This also warms up the contestant.
    """
    small = evolve(work, messages=max(work.sessions, work.messages // (1 + work.octets // 65536)))
    rates(contestant, small)
    found = rates(contestant, small)
    rate = found.get("end to end/s", found["accepted/s"])
    return evolve(work, messages=min(20_000, max(2 * work.sessions, int(rate * seconds))))
