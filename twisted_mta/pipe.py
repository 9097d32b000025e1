"""What a parent and its worker say to each other: calls and their answers, as JSON.

Each end may call the other. Whoever is at an end trusts the other: they are of one user and one
program. What is said arrives in its order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure


class PipeClosed(Exception):
    """The process at the other end is gone, or is going."""


class CallFailed(Exception):
    """The other end could not do what it was asked for; its error's text, for people.

    Attributes:
        error: the name of its class.
    """

    def __init__(self, error: str, text: str) -> None:
        super().__init__(text)
        self.error = error


Answers = Mapping[str, Callable[..., Any]]
"""What can be asked for, by name; arguments and what comes, or a Deferred fires with, are JSON."""


class Pipe(Int32StringReceiver):
    """One end.

    Args:
        answers: see there.
        lost: called when the other end is gone.
    """

    MAX_LENGTH = 1 << 26  # octets; the reports of a busy worker are some thousands

    _log = Logger()

    def __init__(self, answers: Answers, lost: Callable[[], None]) -> None:
        self._answers = answers
        self._lost = lost
        self._waiting: dict[int, Deferred[Any]] = {}
        self._last = 0
        self._closed = False

    def call(self, name: str, **arguments: Any) -> Deferred[Any]:
        """Ask for ``name``.

        Fails with `CallFailed` as the other end does, and with `PipeClosed`. A Deferred that is
        cancelled hears nothing of the answer.
        """
        answered: Deferred[Any] = Deferred()
        if self._closed:
            answered.errback(PipeClosed("the process is gone"))
            return answered
        self._last += 1
        self._waiting[self._last] = answered
        self._send({"call": name, "id": self._last, "arguments": arguments})
        return answered

    def tell(self, name: str, **arguments: Any) -> None:
        """Ask for ``name``, and for no answer."""
        if not self._closed:
            self._send({"call": name, "arguments": arguments})

    def stringReceived(self, string: bytes) -> None:
        """A call, or the answer to one (called by Twisted)."""
        said: dict[str, Any] = json.loads(string)
        if "call" in said:
            self._answer(said)
            return
        waiting = self._waiting.pop(said["id"], None)
        if waiting is None or waiting.called:
            return
        if "error" in said:
            waiting.errback(CallFailed(said["error"], said["text"]))
        else:
            waiting.callback(said["result"])

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The process at the other end is gone."""
        self._closed = True
        waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            if not each.called:
                each.errback(PipeClosed("the process is gone"))
        self._lost()

    def _answer(self, said: dict[str, Any]) -> None:
        answered = maybeDeferred(self._answers[said["call"]], **said["arguments"])
        if "id" not in said:
            answered.addErrback(
                lambda failure: self._log.failure("{name} failed", failure, name=said["call"])
            )
            return
        answered.addCallbacks(
            lambda result: self._send({"id": said["id"], "result": result}),
            lambda failure: self._send(
                {
                    "id": said["id"],
                    "error": failure.type.__name__,
                    "text": failure.getErrorMessage(),
                }
            ),
        )

    def _send(self, said: Mapping[str, Any]) -> None:
        if not self._closed:
            octets = json.dumps(said, separators=(",", ":")).encode("ascii")
            self.sendString(octets)  # type: ignore[no-untyped-call]
