"""What a parent and its worker say to each other: calls and their answers, as JSON.

Each end may call the other. Whoever is at an end trusts the other: they are of one user and one
program. What is said arrives in its order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.protocol import Factory, connectionDone
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

    transport: Any
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
        if self._closed:
            return fail(PipeClosed("the process is gone"))
        self._last = id = self._last + 1
        answered: Deferred[Any] = Deferred(lambda _: self._forget(id))
        self._waiting[id] = answered
        self._send({"call": name, "id": id, "arguments": arguments})
        return answered

    def tell(self, name: str, **arguments: Any) -> None:
        """Ask for ``name``, and for no answer."""
        if not self._closed:
            self._send({"call": name, "arguments": arguments})

    def stringReceived(self, string: bytes) -> None:
        """A call, or the answer to one (called by Twisted)."""
        try:
            said = json.loads(string)
            call = said.get("call")
            id = said["id"] if call is None else said.get("id")
            if call is not None:
                arguments = said["arguments"]
            elif "error" in said:
                answer: Any = Failure(CallFailed(said["error"], said["text"]))
            else:
                answer = said["result"]
        except (ValueError, AttributeError, KeyError):
            # One of the two is not what the other takes it for, and there is no going on.
            self._log.failure("what came through the pipe cannot be read")
            self.transport.abortConnection()
            return
        if call is not None:
            self._answer(call, id, arguments)
        elif id in self._waiting:
            self._waiting.pop(id).callback(answer)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The process at the other end is gone."""
        self._closed = True
        waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            if not each.called:  # what another's answer has cancelled
                each.errback(PipeClosed("the process is gone"))
        self._lost()

    def _answer(self, name: str, id: int | None, arguments: Mapping[str, Any]) -> None:
        answered = maybeDeferred(self._act, name, arguments)
        if id is None:
            answered.addErrback(
                lambda failure: self._log.failure("{name} failed", failure, name=name)
            )
            return

        def failed(failure: Failure) -> None:
            text = failure.getErrorMessage()
            self._send({"id": id, "error": type(failure.value).__name__, "text": text})

        # What cannot be said as JSON is a failure as well: somebody waits.
        answered.addCallback(lambda result: self._send({"id": id, "result": result}))
        answered.addErrback(failed)

    def _act(self, name: str, arguments: Mapping[str, Any]) -> Any:
        if name not in self._answers:
            raise LookupError(f"there is no {name!r} to ask for")
        return self._answers[name](**arguments)

    def _forget(self, id: int) -> None:
        self._waiting.pop(id, None)

    def _send(self, said: Mapping[str, Any]) -> None:
        if not self._closed:
            octets = json.dumps(said, separators=(",", ":")).encode("ascii")
            self.sendString(octets)  # type: ignore[no-untyped-call]


class PipeEnd(Factory):
    """Makes the one protocol of a connection that is there already."""

    noisy = False

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def buildProtocol(self, addr: object) -> Pipe:
        """Return it (called by Twisted)."""
        return self._pipe
