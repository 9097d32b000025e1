"""Python's interpreter: thread switching and garbage collection, tuned for a server."""

from __future__ import annotations

import gc
import linecache
import sys

# Seconds that a thread may hold the interpreter while another waits (Python's default: 0.005). A
# commit releases it at every call of SQLite, and would wait that long each time.
_SWITCH_INTERVAL = 0.0005

# A full collection visits all objects and stops the process: 100 ms with a queue for 20,000
# domains. By default one is considered after 70,000 new objects: eight times during the first
# attempts at those domains.
_GARBAGE_THRESHOLDS = (2000, 10, 25)


def tune() -> None:
    """Tune the interpreter of this process."""
    sys.setswitchinterval(_SWITCH_INTERVAL)
    gc.set_threshold(*_GARBAGE_THRESHOLDS)


def settle() -> None:
    """Keep what the start has made out of the way, once the process is ready."""
    # The text of the methods that attrs has generated: 1.7 MB, for tracebacks through them.
    linecache.clearcache()
    # Garbage collections skip modules and tables, which would take them 50 ms and more.
    gc.freeze()
