"""Ports that several processes accept from: those of a parent, shared by its workers, or systemd's.

A worker accepts several connections at a time as long as no other has fewer, otherwise one, and
leaves the next to another worker that has far fewer.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from .accepting import AT_ONCE, Accepting, for_connections
from .shared_counts import SharedCounts

_LOOK_INTERVAL = 0.001  # seconds
_DEFERENCE = 0.02  # seconds for which a connection is left to a worker with fewer
_NO_DEFERENCE = 0.1  # seconds after no worker has accepted it


class _Counted:
    """A mix-in for connections: each counts from its start to its end."""

    server: Any

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._counted = self.server.counts is not None
        if self._counted:
            self.server.counts.enter()

    def connectionLost(self, reason: Failure) -> None:
        counted, self._counted = self._counted, False
        try:
            if counted:
                self.server.counts.leave()
        finally:
            super().connectionLost(reason)  # type: ignore[misc]


class _CountedServer(_Counted, tcp.Server):
    """A counted connection over TCP."""


class _CountedUNIXServer(_Counted, unix.Server):
    """A counted connection on a UNIX socket."""


class SharedPort(Accepting):
    """A mix-in for ports that other processes accept from too: leaves connections to them.

    A loop over all waiting connections would leave none to the others, and a turn of the reactor
    for each has its cost: so several are accepted at once as long as no other worker has fewer. A
    worker with more connections than another leaves the next one to it for a moment, and then
    accepts it itself.
    """

    counts: SharedCounts | None = None
    _later: IDelayedCall | None = None
    _no_deference_until = 0.0  # seconds of the reactor: until then no connection is left to others

    def doRead(self) -> None:
        """Accept connections, or leave them to another worker (called by Twisted)."""
        if (
            self.counts is not None
            and self.counts.ahead
            and self.reactor.seconds() >= self._no_deference_until
        ):
            self.stopReading()
            self._look_again(self.reactor.seconds() + _DEFERENCE)
            return
        available = for_connections(self.kept)
        for _ in range(AT_ONCE):
            if not self.take_one(available) or self.counts is None or not self.counts.behind:
                return

    def stopReading(self) -> None:
        """Accept no connection."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        super().stopReading()

    def _look_again(self, deadline: float) -> None:
        self._later = self.reactor.callLater(_LOOK_INTERVAL, self._look, deadline)

    def _look(self, deadline: float) -> None:
        self._later = None
        assert self.counts is not None
        now = self.reactor.seconds()
        if self.counts.ahead:
            if now < deadline:
                self._look_again(deadline)
                return
            if self.take_one(for_connections(self.kept)):  # the worker with fewer hangs
                self._no_deference_until = now + _NO_DEFERENCE
            if self._stopped:
                return
        self.startReading()  # type: ignore[attr-defined]


class _InheritedPort(SharedPort, tcp.Port):
    """A TCP port of the parent; Twisted does not shut down an adopted port."""

    transport: Any = _CountedServer


class _InheritedUNIXPort(SharedPort, unix.Port):
    """A UNIX socket of the parent; its mode and its name stay."""

    transport: Any = _CountedUNIXServer
    _shouldShutdown = False  # other processes use the socket
    _preexistingSocket: socket.socket
    factory: Any
    fileno: Any

    def startListening(self) -> None:
        """Accept from a socket that listens already, without the ``chmod`` of `unix.Port`."""
        self.factory.doStart()
        self.socket = self._preexistingSocket
        self.fileno = self.socket.fileno
        self.connected = True
        self.startReading()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure) -> None:
        """Stop accepting, without the unlinking of `unix.Port`."""
        tcp.Port.connectionLost(self, reason)


class InheritingReactor:
    """A reactor that accepts from an inherited descriptor, whatever it is told to listen on.

    So each kind of endpoint wraps its protocols as if it had bound the port itself.
    """

    def __init__(self, reactor: Any, descriptor: int) -> None:
        self._reactor = reactor
        self._descriptor = descriptor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def adopt(self, factory: Any) -> IListeningPort:
        """Return a port that accepts from the descriptor."""
        return _adopt(self._reactor, self._descriptor, factory)

    def listenTCP(self, port: int, factory: Any, *args: Any, **kwargs: Any) -> IListeningPort:
        """Accept from the descriptor (`IReactorTCP`)."""
        return self.adopt(factory)

    def listenUNIX(self, address: str, factory: Any, *args: Any, **kwargs: Any) -> IListeningPort:
        """Accept from the descriptor (`IReactorUNIX`)."""
        return self.adopt(factory)

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, *args: Any, **kwargs: Any
    ) -> IListeningPort:
        """Accept TLS connections from the descriptor (`IReactorSSL`)."""
        return self.adopt(TLSMemoryBIOFactory(contextFactory, False, factory, self._reactor))


class AdoptingReactor:
    """A reactor that adopts ports without taking them over: systemd unlinks its own sockets."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def adoptStreamPort(self, descriptor: int, family: int, factory: Any) -> IListeningPort:
        """Accept from a descriptor (`IReactorSocket`)."""
        return _adopt(self._reactor, descriptor, factory)


def _adopt(reactor: Any, descriptor: int, factory: Any) -> IListeningPort:
    with socket.socket(fileno=os.dup(descriptor)) as bound:
        bound.setblocking(False)
        port: Any
        if bound.family == socket.AF_UNIX:
            port = _InheritedUNIXPort._fromListeningDescriptor(  # type: ignore[no-untyped-call]
                reactor, bound.fileno(), factory
            )
        else:
            port = _InheritedPort._fromListeningDescriptor(  # type: ignore[no-untyped-call]
                reactor, bound.fileno(), bound.family, factory
            )
    port.startListening()
    adopted: IListeningPort = port
    return adopted
