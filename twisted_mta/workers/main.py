"""The process of a worker, from its first moment to its last.

    python -m twisted_mta.workers.main NUMBER text|json

It is started by `workers.workers.Workers` alone, and ends with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

_PR_SET_PDEATHSIG = 1  # prctl(2)


def main() -> None:
    """Run a worker until its parent lets it end."""
    # Loading takes a second on a slow machine: who is orphaned meanwhile has nothing to end yet.
    _when_the_parent_dies(signal.SIGKILL)
    # What a terminal or an operator says to all processes of a group is for the parent to hear.
    for unheard in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(unheard, signal.SIG_IGN)
    from twisted.internet import reactor  # noqa: TID251 - this process is ours
    from twisted.logger import globalLogBeginner

    from ..system.interpreter import tune
    from ..system.shared_counts import SharedCounts
    from ..system.timers import use_monotonic_time
    from ..telemetry.log import Log
    from .pipe import PipeEnd
    from .process import COUNTS, PIPE
    from .worker import Worker

    number, log_format = int(sys.argv[1]), sys.argv[2]
    core: Any = reactor
    use_monotonic_time(core)

    def later(call: Callable[[], None]) -> None:
        core.callFromThread(core.callLater, 0.05, call)

    log = Log("json" if log_format == "json" else "text", worker=number, later=later)
    log.open()
    globalLogBeginner.beginLoggingTo([log], redirectStandardIO=False)
    tune()
    # No garbage collection is to walk through modules and tables: it takes 50 ms and more.
    worker = Worker(number, core, log, SharedCounts(COUNTS, number), settled=gc.freeze)
    with socket.socket(fileno=PIPE) as inherited:
        inherited.setblocking(False)
        core.adoptStreamConnection(PIPE, socket.AF_UNIX, PipeEnd(worker.pipe))
    # systemd tells every process of a service to end.
    signal.signal(signal.SIGTERM, lambda *_: core.callFromThread(worker.drain))
    # From here on the pipe tells it. Who was stopped (SIGSTOP) has to go on to notice: it would
    # keep its shard, and those who come after could not have it.
    _when_the_parent_dies(signal.SIGCONT)
    core.run(installSignalHandlers=False)
    log.close()


def _when_the_parent_dies(number: signal.Signals) -> None:
    """Have a signal sent to this process then. Linux alone can do that."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):  # a C library without it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


if __name__ == "__main__":
    main()
