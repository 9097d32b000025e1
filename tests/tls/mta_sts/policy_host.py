"""A policy host in memory, with real TLS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.protocol import Factory, Protocol

from tests.server.authority import Issued
from twisted_mta.testing.tls import PeerTLS

POLICY = b"version: STSv1\r\nmode: enforce\r\nmx: *.example\r\nmax_age: 86400\r\n"

Step = bytes | float | str
"""Octets to send; seconds to wait; ``"close"`` or ``"abort"`` the connection."""


def response(
    body: bytes = POLICY,
    *,
    status: str = "200 OK",
    kind: str | None = "text/plain",
    more: str = "",
) -> bytes:
    """Return an HTTP response with a length."""
    fields = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}"
    if kind is not None:
        fields += f"Content-Type: {kind}\r\n"
    return fields.encode() + b"\r\n" + body


class PolicyHost(Protocol):
    """One connection to a policy host: after the request it takes its steps.

    Attributes:
        request: the octets that came.
        server_names: the SNI.
        over: whether the connection has ended.
    """

    transport: Any

    def __init__(self, clock: Any, issued: Issued, *steps: Step, maximum: int = 0) -> None:
        self.request = b""
        self.over = False
        self._clock = clock
        self._timer: Any = None
        self._tls = PeerTLS(shown=(issued.certificate, issued.key), maximum=maximum)
        self._steps = list(steps)

    @property
    def server_names(self) -> Sequence[str | None]:
        return self._tls.server_names

    def connectionMade(self) -> None:
        self.transport.startTLS(self._tls)

    def dataReceived(self, data: bytes) -> None:
        waiting = not self.request.endswith(b"\r\n\r\n")
        self.request += data
        if waiting and self.request.endswith(b"\r\n\r\n"):
            self._go_on()

    def connectionLost(self, reason: object = None) -> None:
        self.over = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _go_on(self) -> None:
        while self._steps and not self.over:
            step = self._steps.pop(0)
            if isinstance(step, bytes):
                self.transport.write(step)
            elif step == "close":
                self.transport.loseConnection()
            elif step == "abort":
                self.transport.abortConnection()
            else:
                self._timer = self._clock.callLater(step, self._go_on)
                return


class PolicyHosts(Factory):
    """Policy hosts that all take the same steps, on a bound port.

    Attributes:
        hosts: the connections.
        issued: what the next shows.
        steps: what the next does.
    """

    def __init__(self, clock: Any, issued: Issued, *steps: Step) -> None:
        self.hosts: list[PolicyHost] = []
        self.issued = issued
        self.steps: Sequence[Step] = steps
        self._clock = clock

    def buildProtocol(self, addr: object) -> PolicyHost:
        host = PolicyHost(self._clock, self.issued, *self.steps)
        self.hosts.append(host)
        return host
