"""The states of a worker's process, as its parent sees them."""

from __future__ import annotations

import enum
from collections.abc import Mapping


class ProcessState(enum.Enum):
    """The state of a worker's process."""

    ABSENT = "there is no process"
    STARTING = "it opens its queue"
    READY = "its queue is open"
    ENDING = "it was killed, or has closed its pipe"


class ProcessEvent(enum.Enum):
    """An event in the life of a worker's process."""

    SPAWNED = "spawned"
    OPENED = "its queue was opened"
    KILLED = "killed"
    PIPE_CLOSED = "its pipe was closed"
    EXITED = "exited"


_ENDS: Mapping[ProcessEvent, ProcessState] = {
    ProcessEvent.KILLED: ProcessState.ENDING,
    ProcessEvent.PIPE_CLOSED: ProcessState.ENDING,
    ProcessEvent.EXITED: ProcessState.ABSENT,
}


TRANSITIONS: Mapping[ProcessState, Mapping[ProcessEvent, ProcessState]] = {
    ProcessState.ABSENT: {
        ProcessEvent.SPAWNED: ProcessState.STARTING,
        ProcessEvent.PIPE_CLOSED: ProcessState.ABSENT,
    },
    ProcessState.STARTING: {ProcessEvent.OPENED: ProcessState.READY, **_ENDS},
    ProcessState.READY: _ENDS,
    ProcessState.ENDING: {ProcessEvent.OPENED: ProcessState.ENDING, **_ENDS},
}
