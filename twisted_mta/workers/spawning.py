"""The spawning of a worker's process: its command, descriptors, environment and settings."""

from __future__ import annotations

import os
import pickle
import socket
import sys
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.protocol import ProcessProtocol

from ..config import Config
from ..system.ports import Bound
from .pipe import Pipe, PipeEnd

PIPE = 3
"""The descriptor of a worker's end of the pipe."""

COUNTS = 4
"""The descriptor of `shared_counts.SharedCounts`."""

PORTS = 5
"""The descriptor of a worker's first port; those of the others follow."""

_PARENT_ONLY = (
    *("LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID"),
    *("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"),
)


def spawn(
    protocol: ProcessProtocol,
    pipe: Pipe,
    *,
    reactor: Any,
    number: int,
    log_format: str,
    counts: int,
    ports: Sequence[Bound],
) -> None:
    """Spawn the process of a worker, and connect the pipe to it.

    Args:
        protocol: of the process.
        pipe: the parent's end.
        reactor: IReactorProcess and IReactorSocket.
        number: of the worker.
        log_format: ``text`` or ``json``.
        counts: the descriptor of the shared counts.
        ports: that it inherits.

    Raises:
        OSError: no process, no memory or no descriptor is left.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs, open(os.devnull, "r+b", buffering=0) as null:
        descriptors: dict[int, Any] = {
            0: null.fileno(),
            1: "r",
            2: "r",
            PIPE: theirs.fileno(),
            COUNTS: counts,
        }
        for descriptor, bound in enumerate(ports, PORTS):
            port: Any = bound.port
            descriptors[descriptor] = port.fileno()
        ours.setblocking(False)
        reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, PipeEnd(pipe))
        reactor.spawnProcess(
            protocol,
            sys.executable,
            [
                sys.executable,
                "-P",  # no modules of the working directory
                *("-m", "twisted_mta.workers.main", str(number), log_format),
            ],
            env=_environment(),
            childFDs=descriptors,
        )


def packed(config: Config) -> str:
    """Return settings as text, for the pipe."""
    return b64encode(pickle.dumps(config)).decode("ascii")


def unpacked(settings: str) -> Config:
    """Return the settings that `packed` has written."""
    config: Config = pickle.loads(b64decode(settings))
    return config


def _environment() -> Mapping[str, str]:
    """Return the environment variables of a worker: it finds modules where its parent does.

    Those that systemd sets are for the parent alone.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _PARENT_ONLY}
    path = [os.path.abspath(entry) for entry in sys.path]
    return {**environment, "PYTHONPATH": os.pathsep.join(path)}
