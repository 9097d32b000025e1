"""The pipe between a parent and a worker: calls and their answers, as JSON.

Each end may call the other, and trusts it: both processes are of one user and one program. Messages
arrive in order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure


class PipeClosed(Exception):
    """The process at the other end has ended, or is ending."""


class CallFailed(Exception):
    """A call has failed at the other end; the text is that of the error there.

    Attributes:
        error: the name of the error's class; of all that are a `ValueError`, that name.
    """

    def __init__(self, error: str, text: str) -> None:
        super().__init__(text)
        self.error = error


Calls = Mapping[str, Callable[..., Any]]
"""The functions that can be called, by name; arguments, and results or those of Deferreds, are
JSON."""


class Pipe(Int32StringReceiver):
    """One end.

    Args:
        calls: those that the other end can make.
        lost: called when the other end has closed the pipe.
    """

    MAX_LENGTH = 1 << 26  # octets; the reports of a busy worker are some thousands

    transport: Any
    _log = Logger()

    def __init__(self, calls: Calls, lost: Callable[[], None]) -> None:
        self._calls = calls
        self._lost = lost
        self._waiting: dict[int, Deferred[Any]] = {}
        self._last = 0
        self._closed = False
        self._received = 0  # octets

    def call(self, name: str, **arguments: Any) -> Deferred[Any]:
        """Call ``name`` at the other end.

        Returns:
            Fires with the result; fails with `CallFailed` and with `PipeClosed`. After a
            cancellation the answer is dropped.
        """
        if self._closed:
            return fail(PipeClosed("the process is gone"))
        self._last = id = self._last + 1
        answered: Deferred[Any] = Deferred(lambda _: self._forget(id))
        self._waiting[id] = answered
        self._send({"call": name, "id": id, "arguments": arguments})
        return answered

    def send(self, name: str, **arguments: Any) -> None:
        """Call ``name`` at the other end, without an answer."""
        if not self._closed:
            self._send({"call": name, "arguments": arguments})

    def send_now(self, name: str, **arguments: Any) -> None:
        """Do the same as `send`, and hand it to the kernel, as far as that takes it.

        The other end can read it then even if this process ends in the next moment.
        """
        self.send(name, **arguments)
        if not self._closed and IWriteDescriptor.providedBy(self.transport):
            self.transport.doWrite()  # of an error the reactor learns at its next try

    def read_rest(self) -> None:
        """Take all messages that the process at the other end, which is dead, has sent."""
        if not IReadDescriptor.providedBy(self.transport):
            return
        before = -1
        while before != self._received and not self._closed:
            before = self._received
            self.transport.doRead()

    def dataReceived(self, data: bytes) -> None:
        """Count octets, and take the messages in them (called by Twisted)."""
        self._received += len(data)
        super().dataReceived(data)  # type: ignore[no-untyped-call]

    def stringReceived(self, string: bytes) -> None:
        """Take a call, or the answer to one (called by Twisted)."""
        try:
            message = json.loads(string)
            call = message.get("call")
            id = message["id"] if call is None else message.get("id")
            if call is not None:
                arguments = message["arguments"]
            elif "error" in message:
                answer: Any = Failure(CallFailed(message["error"], message["text"]))
            else:
                answer = message["result"]
        except (ValueError, AttributeError, KeyError):
            # The other end is not the same program: nothing after this can be trusted.
            self._log.failure("what came through the pipe cannot be read")
            self.transport.abortConnection()
            return
        if call is not None:
            self._answer(call, id, arguments)
        elif id in self._waiting:
            self._waiting.pop(id).callback(answer)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail all calls under way (called by Twisted)."""
        self._closed = True
        waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            if not each.called:  # another call's failure may have cancelled it
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
            # It tells a caller that the arguments are wrong, whatever the kind.
            kind = ValueError if failure.check(ValueError) else type(failure.value)
            text = failure.getErrorMessage()
            self._send({"id": id, "error": kind.__name__, "text": text})

        # A result that is no JSON is a failure as well: the caller waits for an answer.
        answered.addCallback(lambda result: self._send({"id": id, "result": result}))
        answered.addErrback(failed)

    def _act(self, name: str, arguments: Mapping[str, Any]) -> Any:
        if name not in self._calls:
            raise LookupError(f"no call {name!r}")
        return self._calls[name](**arguments)

    def _forget(self, id: int) -> None:
        self._waiting.pop(id, None)

    def _send(self, message: Mapping[str, Any]) -> None:
        if not self._closed:
            octets = json.dumps(message, separators=(",", ":")).encode("ascii")
            self.sendString(octets)  # type: ignore[no-untyped-call]


class PipeEnd(Factory):
    """The factory of the one protocol of a connection that exists already."""

    noisy = False

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def buildProtocol(self, addr: object) -> Pipe:
        """Return the pipe (called by Twisted)."""
        return self._pipe
