"""The order of commands to a filter, and the answers that each may have."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from .negotiation import Terms
from .packets import Answer, Command, MilterError, Refusal, Verdict, answer


class State(Enum):
    """Where the dialogue with a filter stands."""

    NEW = "connected"
    NEGOTIATED = "negotiated"
    CLIENT = "told of the client"
    GREETED = "told of the greeting"
    MAIL = "in a transaction"
    RCPT = "told of a recipient"
    DATA = "told of DATA"
    HEADER = "in the header section"
    BODY = "in the body"
    CLOSED = "closed"

    __hash__ = object.__hash__


_LEAVING = {Command.QUIT: State.CLOSED, Command.QUIT_KEEP: State.NEGOTIATED}
_ABORTING = {Command.ABORT: State.GREETED}

TRANSITIONS: Mapping[State, Mapping[Command, State]] = {
    State.NEW: {Command.NEGOTIATE: State.NEGOTIATED},
    State.NEGOTIATED: {Command.CONNECT: State.CLIENT, **_LEAVING},
    State.CLIENT: {Command.HELO: State.GREETED, **_LEAVING},
    State.GREETED: {
        Command.HELO: State.GREETED,
        Command.MAIL: State.MAIL,
        **_ABORTING,
        **_LEAVING,
    },
    State.MAIL: {Command.RCPT: State.RCPT, Command.DATA: State.DATA, **_ABORTING},
    State.RCPT: {Command.RCPT: State.RCPT, Command.DATA: State.DATA, **_ABORTING},
    State.DATA: {
        Command.HEADER: State.HEADER,
        Command.END_OF_HEADER: State.BODY,
        **_ABORTING,
    },
    State.HEADER: {
        Command.HEADER: State.HEADER,
        Command.END_OF_HEADER: State.BODY,
        **_ABORTING,
    },
    State.BODY: {
        Command.BODY: State.BODY,
        Command.END_OF_BODY: State.GREETED,
        **_ABORTING,
    },
    State.CLOSED: {},
}
"""All transitions, by the command, whether or not the filter wants to see it."""

IN_TRANSACTION = (State.MAIL, State.RCPT, State.DATA, State.HEADER, State.BODY)

_ALWAYS = (
    Verdict.CONTINUE,
    Verdict.ACCEPT,
    Verdict.REJECT,
    Verdict.DEFER,
    Verdict.PROGRESS,
    Verdict.SHUTDOWN,
    Verdict.NO_CONNECTION,
)
_OF_CLIENT = (Command.CONNECT, Command.HELO)


class Dialogue:
    """One connection to a filter, as a state.

    Attributes:
        state: where it stands.
        terms: what was negotiated.
    """

    def __init__(self) -> None:
        self.state = State.NEW
        self.terms = Terms()

    @property
    def in_transaction(self) -> bool:
        """Whether the filter knows of a transaction that has not ended."""
        return self.state in IN_TRANSACTION

    def step(self, command: Command) -> None:
        """Take the transition of a command.

        Raises:
            MilterError: it has no place here.
        """
        following = TRANSITIONS[self.state].get(command)
        if following is None:
            raise MilterError(f"{command.name} has no place where the filter is {self.state.value}")
        self.state = following

    def read(self, command: Command, code: int, data: bytes) -> Answer:
        """Read an answer to a command.

        Raises:
            MilterError: it is none that the command may have.
        """
        read = answer(code, data)
        if isinstance(read, Refusal) or read in _ALWAYS:
            return read
        if isinstance(read, Verdict):
            if read is Verdict.DISCARD and command not in _OF_CLIENT:
                return read
            if read is Verdict.SKIP and command is Command.BODY and self.terms.may_skip:
                return read
            raise MilterError(f"found the answer {read.name} to {command.name}")
        if command is not Command.END_OF_BODY:
            raise MilterError(f"found {type(read).__name__} in answer to {command.name}")
        self.terms.check(read)
        return read
