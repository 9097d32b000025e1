"""Ports that accept connections only while enough file descriptors are free.

A process has a limited number of descriptors (``RLIMIT_NOFILE``), and incoming connections could
use all of them: then no message could be written to the queue, and none be sent. So ports stop
accepting while only a part is left, which body files, databases and deliveries may use. New
connections wait in the kernel's backlog until descriptors are free. Twisted would accept and close
them.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

KEPT = 1 / 8
"""The part of all descriptors that connections with mail leave free."""

AT_ONCE = 20
"""Connections that are accepted in one turn, at the most."""

_PROBE_INTERVAL = 0.1  # seconds between two looks for free descriptors
_QUIET = 10.0  # seconds without a shortage after which its end is logged
_PLENTY = 65_536  # descriptors; no process of ours needs more
# accept(2): errors of the next connection, not of the port.
_GONE = frozenset({errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.EINTR})


def limit() -> int:
    """Return the number of descriptors that this process may have open."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _PLENTY if soft == resource.RLIM_INFINITY else soft


def for_connections(kept: float = KEPT) -> int:
    """Return the number of descriptors for incoming connections that leave the part ``kept``."""
    descriptors = limit()
    return descriptors - int(descriptors * kept)


def share(most: int) -> int:
    """Return ``most`` connections without mail, or fewer if descriptors are few."""
    return max(1, min(most, limit() // 16))


def raise_limit() -> None:
    """Raise the soft limit of descriptors to the hard limit, up to what a process needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _PLENTY if hard == resource.RLIM_INFINITY else min(hard, _PLENTY)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Accepting:
    """A mix-in for ports of Twisted, named before them: waits while descriptors are scarce.

    Attributes:
        kept: the part of all descriptors that connections to this port leave free.
    """

    kept: float = KEPT
    reactor: Any
    sessionno: int
    _probe: IDelayedCall | None = None
    _short = False
    _short_at = 0.0
    _stopped = False  # since `take_one` began
    _log = Logger()

    def doRead(self) -> None:
        """Accept the connections that wait (called by Twisted)."""
        available = for_connections(self.kept)
        for _ in range(AT_ONCE):
            if not self.take_one(available):
                return

    def stopReading(self) -> None:
        """Accept no connection, neither now nor when descriptors are free."""
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None
        self._stopped = True
        super().stopReading()  # type: ignore[misc]

    @property
    def out_of_descriptors(self) -> bool:
        """Whether connections wait for free descriptors."""
        return self._probe is not None

    def take_one(self, available: int) -> bool:
        """Accept one connection, if one waits; return whether another may follow.

        Like Twisted's own `doRead`, but without its preparations for errors: they take a tenth of a
        millisecond, and often another worker has accepted the connection already. `socket.accept`
        would make enumerations of the family and the type for each connection; the private
        `socket._accept`, on which it is built, does not.

        Args:
            available: how many descriptors connections may use (`for_connections`).
        """
        port: Any = self
        self._stopped = False
        try:
            descriptor, peer = port.socket._accept()
            connection = socket.socket(port.addressFamily, port.socketType, 0, descriptor)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _GONE:
                return True
            if error.errno == errno.EINVAL:  # the parent has closed the port, and will say so
                self.stopReading()
            else:  # EMFILE, ENFILE, ENOBUFS, ENOMEM, or an error of the network
                self._wait(error.strerror or str(error))
            return False
        # The kernel assigns the lowest free number: all below are in use.
        scarce = connection.fileno() >= available
        if self._short and not scarce and self.reactor.seconds() - self._short_at > _QUIET:
            self._short = False
            self._log.info("connections are accepted again")
        transport: Any = None
        try:
            if port.addressFamily == socket.AF_INET6:
                numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
                peer = (socket.getnameinfo(peer, numeric)[0], *peer[1:])  # with its scope
            protocol = port.factory.buildProtocol(port._buildAddr(peer))
            if protocol is None:
                connection.close()
                return not self._stopped
            session, self.sessionno = self.sessionno, self.sessionno + 1
            transport = port.transport(connection, protocol, peer, self, session, self.reactor)
            protocol.makeConnection(transport)
        except BaseException:  # also of a task that was cancelled: it would end the port
            self._log.failure("a connection could not be served")
            if transport is None:
                connection.close()
            else:
                transport.abortConnection()
        if self._stopped:  # by the factory or the protocol: its port is full, or closed
            return False
        if scarce:
            self._wait("the remaining descriptors are kept for mail in progress")
        return not scarce

    def _wait(self, why: str) -> None:
        """Stop accepting until descriptors are free."""
        self._short_at = self.reactor.seconds()
        if not self._short:
            self._short = True
            self._log.warn(
                "connections wait in the backlog: {why}; this process may have {limit} descriptors"
                " (RLIMIT_NOFILE)",
                why=why,
                limit=limit(),
            )
        self.stopReading()
        self._probe = self.reactor.callLater(_PROBE_INTERVAL, self._look_for_descriptors)

    def _look_for_descriptors(self) -> None:
        port: Any = self
        try:
            probe = os.dup(port.fileno())
        except OSError:
            free = False
        else:
            os.close(probe)
            free = probe < for_connections(self.kept)
        if free:
            self._probe = None
            port.startReading()
        else:
            self._short_at = self.reactor.seconds()
            self._probe = self.reactor.callLater(_PROBE_INTERVAL, self._look_for_descriptors)


class AcceptingPort(Accepting, tcp.Port):
    """A TCP port that waits while descriptors are scarce."""


class AcceptingUNIXPort(Accepting, unix.Port):
    """A UNIX socket that waits while descriptors are scarce."""

    factory: Any
    fileno: Any


class AcceptingReactor:
    """A reactor whose ports wait while descriptors are scarce."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(
        self, port: int, factory: Any, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """Listen over TCP (`IReactorTCP`)."""
        accepting: Any = AcceptingPort(port, factory, backlog, interface, self._reactor)
        accepting.startListening()
        listening: IListeningPort = accepting
        return listening

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, *args: Any, **kwargs: Any
    ) -> IListeningPort:
        """Listen for TLS over TCP (`IReactorSSL`)."""
        tls = TLSMemoryBIOFactory(contextFactory, False, factory, self._reactor)
        return self.listenTCP(port, tls, *args, **kwargs)

    def listenUNIX(
        self,
        address: str,
        factory: Any,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> IListeningPort:
        """Listen on a UNIX socket (`IReactorUNIX`)."""
        named: Any = address  # annotated as bytes by Twisted; `serverFromString` gives text
        accepting: Any = AcceptingUNIXPort(named, factory, backlog, mode, self._reactor, wantPID)
        accepting.startListening()
        listening: IListeningPort = accepting
        return listening
