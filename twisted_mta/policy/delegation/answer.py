"""The answers of policy services, and the actions that they ask for.

An answer is lines ``name=value``, of which one has the name ``action``, and an empty line at the
end (Postfix, SMTPD_POLICY_README). An action is what stands at the right side of an access table
of Postfix, access(5).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum

from attrs import frozen

from ...mail.address import AddressError, Mailbox
from ...mail.printable import printable
from ...mail.reply import Reply
from ..answers import Mark

LONGEST = 16 * 1024
"""Octets of an answer."""

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NUMBER = re.compile("[0-9]+")
_REFUSAL = re.compile("[45][0-9]{2}")
_STATUS = re.compile(r"[245]\.([0-9]{1,3}\.[0-9]{1,3})(?: +|$)")
_SHOWN = 100  # characters of what is not understood

_REJECT, _DEFER = 554, 450
_DENIED = "Access denied"
_HELD = "held by a policy service"


class ServiceError(Exception):
    """A service is gone, broke the protocol, or asks for an action that is not possible.

    The text says how.
    """


class AnswerReader:
    """Reads one answer."""

    def __init__(self) -> None:
        self._read = bytearray()
        self._ended = False

    @property
    def begun(self) -> bool:
        """Whether there is any octet of the answer."""
        return bool(self._read)

    def feed(self, data: bytes) -> str | None:
        """Take octets; return the action once the answer is complete, else None.

        Raises:
            ServiceError: it is no answer, or there is something behind it.
        """
        if self._ended:
            raise ServiceError("found octets behind its answer")
        # The end may begin in what came before.
        searched = max(0, len(self._read) - 1)
        self._read += data
        end = 1 if self._read[:1] == b"\n" else self._read.find(b"\n\n", searched) + 2
        if end < 2 and self._read[:1] != b"\n":
            if len(self._read) > LONGEST:
                raise ServiceError(f"found no end of its answer within {LONGEST} octets")
            return None
        if end > LONGEST:
            raise ServiceError(f"found an answer of more than {LONGEST} octets")
        if len(self._read) > end:
            raise ServiceError("found octets behind its answer")
        self._ended = True
        return _action(bytes(self._read))


def _action(answer: bytes) -> str:
    found = None
    for line in answer.split(b"\n"):
        if not line:
            continue
        name, equals, value = line.partition(b"=")
        if not equals or _CONTROL.search(line):
            raise ServiceError(f"found {_shown(line)}, expected name=value")
        if name == b"action":
            if found is not None:
                raise ServiceError("found two actions in one answer")
            found = value
    if found is None:
        raise ServiceError("found an answer without an action")
    return found.decode("utf-8", "replace")


def _shown(octets: bytes) -> str:
    return printable(octets.decode("utf-8", "replace"))[:_SHOWN]


class Verb(Enum):
    """What is to be done."""

    DUNNO = "the next service is asked"
    OK = "the services behind it are not asked"
    REFUSE = "the client gets the reply"
    DEFER_IF_PERMIT = "the client gets the reply, unless another service refuses"
    DEFER_IF_REJECT = "the client gets the reply in place of a refusal by a service behind it"
    HOLD = "the message is held in the queue"
    DISCARD = "the message is accepted, and goes nowhere"
    PREPEND = "a header field is added"
    REDIRECT = "the message goes to another recipient instead of its own"
    BCC = "the message goes to one more recipient"
    WARN = "a line is logged, as a warning"
    INFO = "a line is logged"

    __hash__ = object.__hash__


@frozen
class Action:
    """What a service asks for.

    Attributes:
        verb: what is to be done.
        text: for the log or the operator; printable.
        reply: of those that refuse.
        mark: of PREPEND.
        mailbox: of REDIRECT and BCC.
    """

    verb: Verb
    text: str = ""
    reply: Reply | None = None
    mark: Mark | None = None
    mailbox: Mailbox | None = None


def read_action(action: str) -> Action:
    """Return what an action means.

    Raises:
        ServiceError: it is none, or one that cannot be carried out.
    """
    word, _, text = action.strip().partition(" ")
    text = text.strip()
    if _REFUSAL.fullmatch(word):
        return Action(Verb.REFUSE, reply=_reply(int(word), text))
    if _NUMBER.fullmatch(word) and not text:
        return Action(Verb.OK)  # access(5): a number alone accepts
    read = _READERS.get(word.upper())
    if read is not None:
        return read(text)
    if word.upper() in _IMPOSSIBLE:
        raise ServiceError(f"found the action {word.upper()}: {_IMPOSSIBLE[word.upper()]}")
    raise ServiceError(f"found the action {_shown(word.encode())!r}, expected one of access(5)")


def _reply(code: int, text: str) -> Reply:
    """Return a reply; an enhanced status code in its text takes the class of the reply code."""
    status = _STATUS.match(text)
    rest = text[status.end() :] if status else text
    return Reply.of(code, status[1] if status else "7.1", rest or _DENIED)


def _refusing(verb: Verb, code: int) -> Callable[[str], Action]:
    return lambda text: Action(verb, reply=_reply(code, text))


def _noting(verb: Verb, default: str = "") -> Callable[[str], Action]:
    return lambda text: Action(verb, printable(text) or default)


def _prepend(text: str) -> Action:
    try:
        return Action(Verb.PREPEND, mark=Mark((text,)))
    except ValueError as error:
        raise ServiceError(f"PREPEND: {error}") from None


def _leading(verb: Verb) -> Callable[[str], Action]:
    def read(text: str) -> Action:
        try:
            mailbox = Mailbox.parse(text)
        except AddressError as error:
            raise ServiceError(f"{verb.name} {_shown(text.encode())}: {error}") from None
        return Action(verb, mailbox=mailbox)

    return read


_READERS: Mapping[str, Callable[[str], Action]] = {
    "DUNNO": _noting(Verb.DUNNO),
    "OK": _noting(Verb.OK),
    "PERMIT": _noting(Verb.OK),
    "REJECT": _refusing(Verb.REFUSE, _REJECT),
    "DEFER": _refusing(Verb.REFUSE, _DEFER),
    "DEFER_IF_PERMIT": _refusing(Verb.DEFER_IF_PERMIT, _DEFER),
    "DEFER_IF_REJECT": _refusing(Verb.DEFER_IF_REJECT, _DEFER),
    "HOLD": _noting(Verb.HOLD, _HELD),
    "DISCARD": _noting(Verb.DISCARD),
    "PREPEND": _prepend,
    "REDIRECT": _leading(Verb.REDIRECT),
    "BCC": _leading(Verb.BCC),
    "WARN": _noting(Verb.WARN),
    "INFO": _noting(Verb.INFO),
}

_IMPOSSIBLE = {"FILTER": "routes depend on the recipient alone"}
