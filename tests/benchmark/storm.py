"""``python -m tests.benchmark.storm``: the cost of failing attempts for many domains.

An MTA is started with a queue of ``--domains`` messages, each for another domain, all due, and
accepts mail at a given rate meanwhile; a name server on loopback answers for the domains. Attempts
fail because the next hop refuses connections (*refused*: MX, AAAA and A are asked), by SERVFAIL, or
because the name server is silent. The CPU time of the same rate without a queue is subtracted.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from twisted_mta.agent.shard import shard_directory
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.envelope import Envelope, Recipient, RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.ids import first_id
from twisted_mta.queue.store.contract import Accept
from twisted_mta.system.real_world import wall_time
from twisted_mta.telemetry.metrics.table import OUTCOMES

from ..functional.machine import LOOPBACK, folder, free_port
from ..functional.mta import MTA
from ..functional.program import Module
from .contestant import metrics, total
from .load import generated
from .processes import cpu_seconds
from .queued import opened

KINDS = ("refused", "servfail", "silent")

_BATCH = 1000
_MX, _A = 15, 1
_POINTER = b"\xc0\x0c"  # to the name in the question


def answer(query: bytes, kind: str) -> bytes:
    """Return the answer of the name server, with little work, since it shares the machine."""
    end = query.index(b"\0", 12) + 5
    type = int.from_bytes(query[end - 4 : end - 2], "big")
    rdata = b""
    if kind == "refused" and type == _MX:
        rdata = b"\0\x0a\x02mx" + _POINTER
    elif kind == "refused" and type == _A:
        rdata = socket.inet_aton(LOOPBACK)
    flags = b"\x81\x82" if kind == "servfail" else b"\x81\x80"
    head = query[:2] + flags + b"\0\1" + (b"\0\1" if rdata else b"\0\0") + b"\0\0\0\1"
    record = b""
    if rdata:
        record = _POINTER + query[end - 4 : end] + b"\0\0\1\x2c"
        record += len(rdata).to_bytes(2, "big") + rdata
    return head + query[12:end] + record + b"\0\0\x29\x04\xd0\0\0\0\0\0\0"


def serve(port: int, kind: str) -> None:
    """Answer until the process ends."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        server.bind((LOOPBACK, port))
        while True:
            query, peer = server.recvfrom(4096)
            if kind != "silent":
                server.sendto(answer(query, kind), peer)


def fill(state: Path, domains: int) -> None:
    """Write a queue of due mail from the null reverse-path, which causes no notices."""
    home = Path(shard_directory(str(state), 0))
    home.mkdir(parents=True, exist_ok=True)
    state.chmod(0o700)
    store = opened(home)
    now = wall_time()
    for start in range(0, domains, _BATCH):
        store.apply(
            [
                Accept(
                    Message(
                        QueueId(first_id(now - 600) + number),
                        Envelope(
                            None,
                            (Recipient(RecipientNumber(0), Mailbox("bob", f"d{number}.example")),),
                        ),
                        b"Received: by mta.example\r\n",
                        MemoryBody(b"x" * 300),
                        now - 600,
                        now + 432000,
                    ),
                    lease=False,
                )
                for number in range(start, min(start + _BATCH, domains))
            ]
        )
    store.close()


def measure(
    home: Path, kind: str, domains: int, rate: float, seconds: float, workers: int
) -> dict[str, float]:
    """Return the latency of acceptance during a storm, and the cost of the storm."""
    fill(home / "mta-state", domains)
    port, dead = free_port(), free_port()
    toml = f'[delivery]\nport = {dead}\n[dns]\nnameservers = ["{LOOPBACK}:{port}"]\n'
    route = ("--route", "elsewhere.example=discard:", "--workers", str(workers))
    serving = (f"{__package__}.storm", "--kinds", kind, "--serve", str(port))
    with Module(home, "nameserver.log", *serving), MTA(home, *route, toml=toml) as mta:
        cpu, attempts = cpu_seconds(mta.pid), total(metrics(mta), OUTCOMES)
        figures = generated(
            "latency", mta.smtp, "--rate", rate, "--seconds", seconds, "--octets", 4096
        )
        figures["CPU s"] = cpu_seconds(mta.pid) - cpu
        accepted = rate * seconds
        figures["failed"] = max(0.0, total(metrics(mta), OUTCOMES) - attempts - accepted)
        mta.terminate()
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.storm", description=__doc__)
    parser.add_argument("--domains", type=int, default=20_000)
    parser.add_argument(
        "--rate", type=float, default=100.0, help="messages accepted per second (100)"
    )
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--serve", type=int, help="run as the name server, on this port")
    options = parser.parse_args(arguments)
    if options.serve:
        serve(options.serve, options.kinds[0])
    print("the next hops".ljust(14), "  p50 ms   p99 ms  failed/s  CPU ms each  CPU s", flush=True)
    calm = 0.0
    for kind in ("none", *options.kinds):
        with folder("storm") as home:
            figures = measure(
                Path(os.fspath(home)),
                kind,
                0 if kind == "none" else options.domains,
                options.rate,
                options.seconds,
                options.workers,
            )
        calm = calm or figures["CPU s"]
        failed = figures["failed"]
        each = (figures["CPU s"] - calm) * 1000 / failed if failed > options.seconds else 0.0
        print(
            kind.ljust(14),
            f"{figures['p50 ms']:8.1f} {figures['p99 ms']:8.1f} {failed / options.seconds:9.0f}"
            f" {each:12.2f} {figures['CPU s']:6.1f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
