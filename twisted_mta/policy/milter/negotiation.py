"""The negotiation at the start of a connection: what a filter will see, answer and change."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntFlag
from struct import Struct

from attrs import field, frozen

from .packets import (
    AddField,
    AddRecipient,
    Change,
    ChangeField,
    ChangeSender,
    Command,
    DeleteRecipient,
    InsertField,
    MilterError,
    Quarantine,
    ReplaceBody,
    packet,
)

VERSION = 6
_OLDEST = 2
_NUMBERS = Struct(">III")
_STAGE = Struct(">I")
_MOST_MACROS = 256  # names that a filter may ask for at one stage


class Action(IntFlag):
    """What a filter may change (SMFIF_*)."""

    ADD_FIELDS = 0x1
    CHANGE_BODY = 0x2
    ADD_RECIPIENTS = 0x4
    DELETE_RECIPIENTS = 0x8
    CHANGE_FIELDS = 0x10
    QUARANTINE = 0x20
    CHANGE_SENDER = 0x40
    ADD_RECIPIENTS_WITH_ARGUMENTS = 0x80
    CHOOSE_MACROS = 0x100


class Step(IntFlag):
    """What a filter does not see or does not answer, and how it sees fields (SMFIP_*)."""

    NO_CONNECT = 0x1
    NO_HELO = 0x2
    NO_MAIL = 0x4
    NO_RCPT = 0x8
    NO_BODY = 0x10
    NO_HEADER = 0x20
    NO_END_OF_HEADER = 0x40
    UNANSWERED_HEADER = 0x80
    NO_UNKNOWN = 0x100
    NO_DATA = 0x200
    SKIP = 0x400
    UNANSWERED_CONNECT = 0x1000
    UNANSWERED_HELO = 0x2000
    UNANSWERED_MAIL = 0x4000
    UNANSWERED_RCPT = 0x8000
    UNANSWERED_DATA = 0x10000
    UNANSWERED_UNKNOWN = 0x20000
    UNANSWERED_END_OF_HEADER = 0x40000
    UNANSWERED_BODY = 0x80000
    LEADING_SPACE = 0x100000


ACTIONS = Action(0x1FF)
"""All that a filter may change."""

STEPS = Step(0x1FF7FF)
"""All that a filter may leave out or ask for, but to be told of recipients that are refused."""

_NEEDED: Mapping[type[Change], Action] = {
    AddField: Action.ADD_FIELDS,
    InsertField: Action.ADD_FIELDS,
    ChangeField: Action.CHANGE_FIELDS,
    ChangeSender: Action.CHANGE_SENDER,
    AddRecipient: Action.ADD_RECIPIENTS | Action.ADD_RECIPIENTS_WITH_ARGUMENTS,
    DeleteRecipient: Action.DELETE_RECIPIENTS,
    ReplaceBody: Action.CHANGE_BODY,
    Quarantine: Action.QUARANTINE,
}

_UNSEEN: Mapping[Command, Step] = {
    Command.CONNECT: Step.NO_CONNECT,
    Command.HELO: Step.NO_HELO,
    Command.MAIL: Step.NO_MAIL,
    Command.RCPT: Step.NO_RCPT,
    Command.DATA: Step.NO_DATA,
    Command.HEADER: Step.NO_HEADER,
    Command.END_OF_HEADER: Step.NO_END_OF_HEADER,
    Command.BODY: Step.NO_BODY,
}

_UNANSWERED: Mapping[Command, Step] = {
    Command.CONNECT: Step.UNANSWERED_CONNECT,
    Command.HELO: Step.UNANSWERED_HELO,
    Command.MAIL: Step.UNANSWERED_MAIL,
    Command.RCPT: Step.UNANSWERED_RCPT,
    Command.DATA: Step.UNANSWERED_DATA,
    Command.HEADER: Step.UNANSWERED_HEADER,
    Command.END_OF_HEADER: Step.UNANSWERED_END_OF_HEADER,
    Command.BODY: Step.UNANSWERED_BODY,
}

_STAGES = (
    Command.CONNECT,
    Command.HELO,
    Command.MAIL,
    Command.RCPT,
    Command.DATA,
    Command.END_OF_BODY,
    Command.END_OF_HEADER,
)
"""The stages by the numbers with which a filter asks for macros (SMFIM_*)."""

OFFER = packet(Command.NEGOTIATE, _NUMBERS.pack(VERSION, ACTIONS, STEPS))
"""The packet that begins a connection."""


NONE = Step(0)
"""Nothing that a filter leaves out."""


@frozen
class Terms:
    """What a filter has agreed to.

    Attributes:
        version: of the protocol.
        actions: what it may change.
        steps: what it does not see or answer.
        macros: the names that it has asked for, by stage; of other stages it gets the usual ones.
    """

    version: int = VERSION
    actions: Action = ACTIONS
    steps: Step = NONE
    macros: Mapping[Command, tuple[str, ...]] = field(factory=dict)
    _unseen: frozenset[Command] = field(init=False, repr=False, eq=False)
    _unanswered: frozenset[Command] = field(init=False, repr=False, eq=False)

    @_unseen.default
    def _find_unseen(self) -> frozenset[Command]:
        declined = {command for command, step in _UNSEEN.items() if self.steps & step}
        return frozenset(declined | ({Command.DATA} if self.version < 4 else set()))

    @_unanswered.default
    def _find_unanswered(self) -> frozenset[Command]:
        return frozenset(command for command, step in _UNANSWERED.items() if self.steps & step)

    def sees(self, command: Command) -> bool:
        """Whether the filter is to be sent a command."""
        return command not in self._unseen

    def answers(self, command: Command) -> bool:
        """Whether the filter answers a command."""
        return command not in self._unanswered

    @property
    def may_skip(self) -> bool:
        """Whether the filter may decline the rest of a body."""
        return bool(self.steps & Step.SKIP)

    @property
    def keeps_space(self) -> bool:
        """Whether values of fields begin right behind the colon."""
        return bool(self.steps & Step.LEADING_SPACE)

    def check(self, change: Change) -> None:
        """Refuse a modification that the filter did not announce.

        Raises:
            MilterError: it did not.
        """
        if not self.actions & _NEEDED[type(change)]:
            raise MilterError(
                f"found {type(change).__name__}, expected only modifications that were negotiated"
            )


def read_terms(data: bytes) -> Terms:
    """Read the filter's part of the negotiation.

    Raises:
        MilterError: it is none, or asks for what was not offered.
    """
    if len(data) < _NUMBERS.size:
        raise MilterError(f"negotiation: found {len(data)} octets, expected 12 or more")
    version, actions, steps = _NUMBERS.unpack_from(data)
    if not _OLDEST <= version <= VERSION:
        raise MilterError(f"negotiation: found version {version}, expected {_OLDEST} to {VERSION}")
    if actions & ~int(ACTIONS):
        raise MilterError(f"negotiation: found the actions {actions:#x}, expected some of 0x1ff")
    # The upper bits tell the length of packets of libmilter, which all are within our bound.
    known = Step(steps & int(STEPS))
    return Terms(version, Action(actions), known, _read_macros(data[_NUMBERS.size :]))


def _read_macros(data: bytes) -> Mapping[Command, tuple[str, ...]]:
    chosen: dict[Command, tuple[str, ...]] = {}
    at = 0
    while at < len(data):
        if len(data) - at < _STAGE.size:
            raise MilterError("negotiation: found half a list of macros")
        (stage,) = _STAGE.unpack_from(data, at)
        at += _STAGE.size
        end = data.find(b"\0", at)
        if end < 0 or stage >= len(_STAGES):
            raise MilterError(f"negotiation: found no list of macros for stage {stage}")
        names = data[at:end].replace(b",", b" ").split()
        if len(names) > _MOST_MACROS:
            raise MilterError(
                f"negotiation: found {len(names)} macros, expected at most {_MOST_MACROS}"
            )
        chosen[_STAGES[stage]] = tuple(each.decode("ascii", "replace") for each in names)
        at = end + 1
    return chosen
