"""A process that has imported the program, and forks for each start of it.

Imports are nine tenths of the CPU time of a start, and tests start the program hundreds of times.
A fork runs the same script as a start of its own would, with the arguments, folder, environment and
standard streams of a request. Modules are imported already, and ``/proc/PID/cmdline`` is that of
this process; the rest is as usual.

    python tests/functional/forkserver.py DESCRIPTOR

The descriptor is a socket (``SOCK_SEQPACKET``). A request is one message: JSON with ``arguments``,
whose first is the script, ``folder`` and ``environment``, and beside it four descriptors: the
standard streams, and a pipe for the exit status. The answer is the process id. The exit status is
in decimal digits, that of a signal is negative. The process ends when the socket is closed.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

_LONGEST = 128 * 1024
_STREAMS = 3


def serve(requests: socket.socket) -> dict[str, Any] | None:
    """Fork for each request, until there are no more.

    Returns:
        In a fork, its request; in the server, at the end, None.
    """
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    pipes: dict[int, int] = {}  # for the exit status, by process
    while True:
        readable, _, _ = select.select([requests.fileno(), woken], [], [])
        if woken in readable:
            os.read(woken, 512)
            _report(pipes)
        if requests.fileno() in readable:
            octets, descriptors, _, _ = socket.recv_fds(requests, _LONGEST, _STREAMS + 1)
            if not octets:
                return None
            *streams, pipe = descriptors
            child = os.fork()
            if not child:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for number, descriptor in enumerate(streams):
                    os.dup2(descriptor, number)
                os.closerange(_STREAMS, max(map(int, os.listdir("/proc/self/fd"))) + 1)
                request: dict[str, Any] = json.loads(octets)
                return request
            pipes[child] = pipe
            for descriptor in streams:
                os.close(descriptor)
            requests.send(str(child).encode("ascii"))


def _report(pipes: dict[int, int]) -> None:
    for child in list(pipes):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            pipe = pipes.pop(child)
            with suppress(BrokenPipeError):  # the test does not ask for it
                os.write(pipe, str(os.waitstatus_to_exitcode(status)).encode("ascii"))
            os.close(pipe)


def main() -> None:
    """Import the program and serve; in a fork, run the script of its request."""
    import twisted.scripts.twistd  # noqa: F401

    import twisted_mta.cli.command
    import twisted_mta.daemon  # noqa: F401

    assert "twisted.internet.reactor" not in sys.modules, "forks would share one reactor"
    gc.collect()
    gc.freeze()  # a collection in a fork would copy the memory that forks share
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    if request is None:
        return
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[:] = request["arguments"]
    sys.path[0] = os.path.dirname(sys.argv[0])
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
