"""An MTA that runs out of memory and threads for a while, at the campaign's command.

Started in the place of ``twistd``:

    python tests/faults/exhausted.py FILE SEED -n --pidfile= mta …

As long as FILE exists, it names the faults: with ``memory`` allocations fail, here and there
between a message and its outcome; with ``threads`` no thread can be started, and the thread of the
queue is killed now and then.
"""

from __future__ import annotations

import ctypes
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __package__:
    from ..functional.mta import MTA
else:  # as a program of its own
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
    from tests.functional.mta import MTA


KINDS = ("memory", "threads", "memory threads")
"""The contents that FILE may have."""


class ExhaustedMTA(MTA):
    """The MTA, with the faults of this module."""

    @property
    def switch(self) -> Path:
        """Return the file that switches the faults on."""
        return self.home / "exhausted"

    def command(self) -> list[str | Path]:
        """Return the command that starts it."""
        _, *arguments = super().command()
        return [sys.executable, Path(__file__), self.switch, "7", *arguments]


class Faults:
    """The faults while the switch exists.

    Args:
        switch: the file.
        draw: the source of chance.
    """

    def __init__(self, switch: Path, draw: random.Random) -> None:
        self._switch = switch
        self._draw = draw

    def hits(self, kind: str, chance: float = 1.0) -> bool:
        """Whether a fault of a kind strikes now."""
        try:
            wanted = kind in self._switch.read_text("ascii")
        except FileNotFoundError:
            return False
        return wanted and self._draw.random() < chance

    def before(self, owner: Any, name: str, chance: float) -> None:
        """Let a method raise before it has done anything."""
        working: Callable[..., Any] = getattr(owner, name)

        def failing(*args: Any, **kwargs: Any) -> Any:
            if self.hits("memory", chance):
                raise MemoryError(f"{name}, before it")
            return working(*args, **kwargs)

        setattr(owner, name, failing)

    def after(self, owner: Any, name: str, chance: float) -> None:
        """Let a method raise after it has done its work, which its caller does not learn."""
        working: Callable[..., Any] = getattr(owner, name)

        def failing(*args: Any, **kwargs: Any) -> Any:
            result = working(*args, **kwargs)
            if self.hits("memory", chance):
                raise MemoryError(f"{name}, after it")
            return result

        setattr(owner, name, failing)

    def no_threads(self) -> None:
        """Let the start of a thread raise."""
        start = threading.Thread.start

        def failing(thread: threading.Thread) -> None:
            if self.hits("threads"):
                raise RuntimeError("can't start new thread")
            start(thread)

        threading.Thread.start = failing  # type: ignore[method-assign]

    def kill_threads(self, reactor: Any, name: str) -> None:
        """Kill the threads of a name from time to time, wherever they are."""
        for thread in threading.enumerate():
            if name in thread.name and thread.ident is not None and self.hits("threads", 0.2):
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
                )
        reactor.callLater(0.1, self.kill_threads, reactor, name)


def main() -> None:
    """Run ``twistd`` with the faults."""
    from twisted.internet import reactor
    from twisted.scripts import twistd

    from twisted_mta.delivery.maildir import MaildirDelivery
    from twisted_mta.queue.attempts import Attempts
    from twisted_mta.queue.deliveries import Deliveries
    from twisted_mta.queue.settlement import Settlement
    from twisted_mta.queue.store.spool import SpooledWriter
    from twisted_mta.queue.store.sqlite import SQLiteStore

    _, switch, seed, *arguments = sys.argv
    faults = Faults(Path(switch), random.Random(seed))
    faults.before(SQLiteStore, "apply", 0.05)
    faults.after(SQLiteStore, "apply", 0.05)
    faults.before(SQLiteStore, "open", 0.3)
    faults.before(SQLiteStore, "close", 0.1)
    faults.before(SpooledWriter, "_make_durable", 0.2)
    faults.before(MaildirDelivery, "_deliver", 0.1)
    faults.before(Settlement, "settle", 0.1)
    faults.before(Deliveries, "_enqueue", 0.1)
    faults.after(Attempts, "_learn", 0.1)
    faults.no_threads()
    core: Any = reactor
    core.callWhenRunning(faults.kill_threads, core, "queue")
    sys.argv = ["twistd", *arguments]
    twistd.run()


if __name__ == "__main__":
    main()
