"""The life of a runner: its states, which its parts read and it alone changes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class State(Enum):
    """The states of a runner."""

    NEW = "new"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Event(Enum):
    """The events that change the state."""

    START = "start"
    STOP = "stop"
    NOTHING_UNDER_WAY = "nothing under way"


TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    State.NEW: {Event.START: State.RUNNING, Event.STOP: State.STOPPING},
    State.RUNNING: {Event.STOP: State.STOPPING},
    State.STOPPING: {Event.STOP: State.STOPPING, Event.NOTHING_UNDER_WAY: State.STOPPED},
    State.STOPPED: {Event.START: State.RUNNING, Event.STOP: State.STOPPING},
}
"""All transitions. No delivery begins but in RUNNING; in STOPPING those under way are finished."""


class Lifecycle:
    """The state of a runner.

    Attributes:
        state: the state.
        is_running: whether it is RUNNING.
        is_stopping: whether it is STOPPING. Attributes, since they are read for each message.
    """

    def __init__(self) -> None:
        self.state = State.NEW
        self.is_running = False
        self.is_stopping = False

    def enter(self, event: Event) -> None:
        """Change the state."""
        self.state = TRANSITIONS[self.state][event]
        self.is_running = self.state is State.RUNNING
        self.is_stopping = self.state is State.STOPPING
