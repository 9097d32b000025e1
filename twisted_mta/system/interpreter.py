"""The interpreter of a process of our own: how long threads wait for it, and for its collector."""

from __future__ import annotations

import gc
import sys

# Seconds that a thread may keep the interpreter before another gets it (Python's own: 0.005). A
# commit gives it up at every call of SQLite, and would wait that long for it each time.
_SWITCH_INTERVAL = 0.0005

# A full collection looks at every object there is and stops everything meanwhile: 100 ms where the
# queue goes to 20,000 domains. By default one is considered after 70,000 new objects, which is
# eight times while those domains are tried for the first time.
_GARBAGE_THRESHOLDS = (2000, 10, 25)


def tune() -> None:
    """Set the interpreter up for a process that answers others."""
    sys.setswitchinterval(_SWITCH_INTERVAL)
    gc.set_threshold(*_GARBAGE_THRESHOLDS)
