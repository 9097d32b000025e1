"""A token from the standard output of a command."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from ...mail.printable import printable
from .token import NoToken, Token

_PATIENCE = 30.0  # seconds
_LARGEST = 65_536  # octets of output
_SHOWN = 200  # characters of an error
_RENEW, _WAIT = 240.0, 300.0  # seconds, where the output does not say how long the token is valid
# What may be a token, or a part of one.
_SECRETS = re.compile(r"[A-Za-z0-9._~+/=-]{16,}")


def run(reactor: Any, arguments: tuple[str, ...]) -> Deferred[bytes]:
    """Run a command; fires with its standard output, or fails with `NoToken`.

    To cancel it ends the command.

    Args:
        reactor: IReactorProcess, IReactorTime.
        arguments: the path or name of the program, and its arguments.
    """
    output = _Output(reactor)
    try:
        reactor.spawnProcess(output, arguments[0], arguments, env=os.environ)
    except OSError as error:
        output.failed(f"{printable(arguments[0])} cannot be run: {error.strerror}")
    return output.done


class _Output(ProcessProtocol):
    """The output of the command."""

    transport: Any = None

    def __init__(self, reactor: Any) -> None:
        self._out = bytearray()
        self._errors = bytearray()
        self._problem = ""
        self.done: Deferred[bytes] = Deferred(lambda _: self.end("the command was ended"))
        self._timer: IDelayedCall = reactor.callLater(
            _PATIENCE, self.end, f"the command has not ended within {_PATIENCE:.0f} s"
        )

    def connectionMade(self) -> None:
        """Close its standard input (called by Twisted)."""
        self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        """Keep octets of the standard output (called by Twisted)."""
        self._out += data
        if len(self._out) > _LARGEST:
            self.end(f"the command prints more than {_LARGEST} octets")

    def errReceived(self, data: bytes) -> None:
        """Keep the end of the standard error (called by Twisted)."""
        self._errors += data
        del self._errors[:-_LARGEST]

    def processEnded(self, reason: Failure) -> None:
        """Decide (called by Twisted)."""
        if self._timer.active():
            self._timer.cancel()
        if self.done.called:
            return
        if self._problem or not reason.check(ProcessDone):
            self.failed(self._problem or self._error(reason))
        else:
            self.done.callback(bytes(self._out))

    def end(self, problem: str) -> None:
        """End the command: it takes too long, or writes too much."""
        self._problem = self._problem or problem
        if self.transport is not None and self.transport.pid is not None:
            self.transport.signalProcess("KILL")

    def failed(self, problem: str) -> None:
        """Fail with a reason."""
        if self._timer.active():
            self._timer.cancel()
        self.done.errback(NoToken(problem))

    def _error(self, reason: Failure) -> str:
        code = getattr(reason.value, "exitCode", None)
        text = (
            f"the command ends with status {code}" if code is not None else "the command was killed"
        )
        last = self._errors.decode("utf-8", "replace").rstrip().rpartition("\n")[2]
        said = _SECRETS.sub("…", printable(last))[:_SHOWN]
        return f"{text}: {said}" if said else text


def token_of(output: bytes, now: float) -> Token:
    """Return the token in the output of a command: its first line, or JSON with access_token.

    Args:
        output: what it has printed.
        now: seconds since the epoch.

    Raises:
        NoToken: there is none.
    """
    try:
        text = output.decode("utf-8").strip()
        values: Any = json.loads(text) if text.startswith("{") else None
    except (ValueError, RecursionError):
        raise NoToken("the command prints neither a token nor JSON with access_token") from None
    if not isinstance(values, dict):
        return Token.unlimited(text.partition("\n")[0].strip(), now, renew=_RENEW, wait=_WAIT)
    value, seconds = values.get("access_token"), values.get("expires_in")
    if not isinstance(value, str):
        raise NoToken("the command prints JSON without access_token")
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and seconds > 0:
        return Token.lasting(value, float(min(seconds, 30 * 86_400)), now)
    return Token.unlimited(value, now, renew=_RENEW, wait=_WAIT)
