"""The program of a worker's process, from its start to its end.

    python -m twisted_mta.workers.main NUMBER text|json

Only `workers.process.WorkerProcess` starts it; it ends with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

_PR_SET_PDEATHSIG = 1  # prctl(2)


def main() -> None:
    """Run a worker until its parent ends it."""
    # Imports take a second on a slow machine: a process that is orphaned meanwhile may just die.
    _when_the_parent_dies(signal.SIGKILL)
    # Signals that a terminal or an operator sends to the process group are for the parent.
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(ignored, signal.SIG_IGN)
    from twisted.internet import reactor  # noqa: TID251 - the process is ours
    from twisted.logger import globalLogBeginner

    from ..system.events import skip_log_context
    from ..system.interpreter import settle, tune
    from ..system.shared_counts import SharedCounts
    from ..system.timers import use_monotonic_time
    from ..telemetry.log import Log
    from .pipe import PipeEnd
    from .spawning import COUNTS, PIPE
    from .worker import Worker

    number, log_format = int(sys.argv[1]), sys.argv[2]
    core: Any = reactor
    use_monotonic_time(core)
    skip_log_context(core)

    def later(call: Callable[[], None]) -> None:
        core.callFromThread(core.callLater, 0.05, call)

    log = Log("json" if log_format == "json" else "text", worker=number, later=later)
    log.open()
    globalLogBeginner.beginLoggingTo([log], redirectStandardIO=False)
    tune()
    worker = Worker(number, core, log, SharedCounts(COUNTS, number), settled=settle)
    with socket.socket(fileno=PIPE) as inherited:
        inherited.setblocking(False)
        core.adoptStreamConnection(PIPE, socket.AF_UNIX, PipeEnd(worker.pipe))
    # systemd sends SIGTERM to every process of a service.
    signal.signal(signal.SIGTERM, lambda *_: core.callFromThread(worker.drain))
    # From here on the pipe shows that the parent has died. A process that was stopped (SIGSTOP) has
    # to continue to notice: it would keep its shard, and no successor could have it.
    _when_the_parent_dies(signal.SIGCONT)
    core.run(installSignalHandlers=False)
    log.close()


def _when_the_parent_dies(number: signal.Signals) -> None:
    """Have the kernel send a signal to this process when its parent dies (on Linux)."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):  # a C library without it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


if __name__ == "__main__":
    main()
