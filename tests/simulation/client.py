"""An SMTP client of a simulation, which tries again where it has no answer or a temporary one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure

_PATIENCE = 120.0  # seconds without a reply
_PAUSE = 20.0  # seconds between two tries
_TRIES = 8


class Sender:
    """Sends one message until each recipient has a final answer, or it gives up.

    Args:
        network: the reactor.
        address: of the server.
        sender: the reverse-path.
        recipients: mailboxes.
        content: as `plan.content` makes it.
        notify: of each recipient; empty: none.
        acknowledged: called with the recipients of each 250 to the content.
    """

    def __init__(
        self,
        network: Any,
        address: str,
        sender: str,
        recipients: Sequence[str],
        content: bytes,
        notify: str,
        acknowledged: Callable[[Sequence[str]], object],
    ) -> None:
        self.sender = sender
        self.recipients = list(recipients)
        self.content = content
        self.notify = notify
        self.network = network
        self._address = address
        self._acknowledged = acknowledged
        self._tries = 0

    def send(self) -> None:
        """Connect, and send the message to those without an answer."""
        self._tries += 1
        self.network.connectTCP(self._address, 25, _Factory(self), timeout=30)

    def answered(self, recipients: Sequence[str]) -> None:
        """Take final answers, with which the recipients are done."""
        self.recipients = [each for each in self.recipients if each not in recipients]

    def acknowledge(self, recipients: Sequence[str]) -> None:
        """Take the 250 to the content."""
        self._acknowledged(recipients)
        self.answered(recipients)

    def ended(self) -> None:
        """Try again later, if there are recipients left."""
        if self.recipients and self._tries < _TRIES:
            self.network.callLater(_PAUSE, self.send)


class _Factory(ClientFactory):
    noisy = False

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def buildProtocol(self, addr: object) -> Protocol:
        return _Client(self._sender)

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        self._sender.ended()


class _Client(Protocol):
    """Speaks one command after the other."""

    transport: Any

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._buffer = b""
        self._accepted: list[str] = []
        self._waiting = list(sender.recipients)
        self._next: Callable[[int], None] = self._greeted
        self._is_over = False
        self._timer = sender.network.callLater(_PATIENCE, self._time_out)

    def dataReceived(self, data: bytes) -> None:
        """Read replies (called by Twisted)."""
        self._buffer += data
        while b"\r\n" in self._buffer and not self._is_over:
            line, _, self._buffer = self._buffer.partition(b"\r\n")
            if line[3:4] != b"-":
                self._timer.reset(_PATIENCE)
                self._next(int(line[:3]))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Try again later (called by Twisted)."""
        if self._timer.active():
            self._timer.cancel()
        self._is_over = True
        self._sender.ended()

    def _time_out(self) -> None:
        self.transport.abortConnection()

    def _say(self, line: str, then: Callable[[int], None]) -> None:
        self._next = then
        self.transport.write(line.encode() + b"\r\n")

    def _quit(self) -> None:
        self._is_over = True
        self.transport.write(b"QUIT\r\n")
        self.transport.loseConnection()

    def _greeted(self, code: int) -> None:
        if code == 220:
            self._say("EHLO client.example", self._helloed)
        else:
            self._quit()

    def _helloed(self, code: int) -> None:
        if code == 250:
            self._say(f"MAIL FROM:<{self._sender.sender}>", self._mailed)
        else:
            self._quit()

    def _mailed(self, code: int) -> None:
        if code // 100 == 2:
            self._rcpt()
        else:
            if code // 100 == 5:
                self._sender.answered(self._waiting)
            self._quit()

    def _rcpt(self) -> None:
        if self._waiting:
            notify = f" NOTIFY={self._sender.notify}" if self._sender.notify else ""
            self._say(f"RCPT TO:<{self._waiting[0]}>{notify}", self._rcpted)
        elif self._accepted:
            self._say("DATA", self._began)
        else:
            self._quit()

    def _rcpted(self, code: int) -> None:
        recipient = self._waiting.pop(0)
        if code // 100 == 2:
            self._accepted.append(recipient)
        elif code // 100 == 5:
            self._sender.answered([recipient])
        self._rcpt()

    def _began(self, code: int) -> None:
        if code != 354:
            self._quit()
            return
        stuffed = self._sender.content.replace(b"\r\n.", b"\r\n..")
        self._next = self._ended
        self.transport.write(stuffed + b".\r\n")

    def _ended(self, code: int) -> None:
        if code // 100 == 2:
            self._sender.acknowledge(self._accepted)
        elif code // 100 == 5:
            self._sender.answered(self._accepted)
        self._quit()
