"""Taking connections for as long as there are descriptors, and leaving some for all the rest.

A process has so many descriptors (``RLIMIT_NOFILE``), and connections that come in could have them
all: no message could be written to the queue then, and none be sent. So ports stop taking
connections when only a part is left, which bodies, databases and deliveries may use. What comes
waits in the kernel's backlog, and is taken as soon as descriptors are free again. Twisted would
accept and close it.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

KEPT = 1 / 8
"""The part of all descriptors that connections which bring mail leave free."""

_AT_ONCE = 20  # connections that are taken in one turn
_LOOK_AGAIN = 0.1  # seconds until it is looked whether descriptors are free
_QUIET = 10.0  # seconds without a shortage after which it is over
_PLENTY = 65_536  # descriptors; no process of ours has a use for more
# accept(2): of the connection that would have been next, and not of the port.
_GONE = frozenset({errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.EINTR})


def limit() -> int:
    """Return how many descriptors this process may have open."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _PLENTY if soft == resource.RLIM_INFINITY else soft


def for_connections(kept: float = KEPT) -> int:
    """Return how many descriptors connections that come in may have, if they leave a part."""
    all = limit()
    return all - int(all * kept)


def share(most: int) -> int:
    """Return how many connections those may have that bring no mail: ``most`` where that is few."""
    return max(1, min(most, limit() // 16))


def raise_limit() -> None:
    """Use the descriptors that the system lets this process have if it asks for them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _PLENTY if hard == resource.RLIM_INFINITY else min(hard, _PLENTY)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Accepting:
    """A port that waits while there are too few descriptors; to be mixed in before Twisted's.

    Attributes:
        kept: the part of all descriptors that connections to this port leave free.
    """

    kept: float = KEPT
    reactor: Any
    sessionno: int
    _retry: IDelayedCall | None = None
    _short = False
    _short_at = 0.0
    _log = Logger()

    def doRead(self) -> None:
        """Take the connections that are there (called by Twisted)."""
        for _ in range(_AT_ONCE):
            if not self.take_one():
                return

    def stopReading(self) -> None:
        """Take no connection, neither now nor when descriptors are free."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        super().stopReading()  # type: ignore[misc]

    @property
    def out_of_descriptors(self) -> bool:
        """Whether connections wait for descriptors to be free."""
        return self._retry is not None

    def take_one(self) -> bool:
        """Take a connection, or find out why that cannot be; return whether another may follow.

        It does what Twisted's own `doRead` does, but for its preparations for what can go wrong:
        those take a tenth of a millisecond, and often another worker was faster.
        """
        port: Any = self
        try:
            connection, peer = port.socket.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _GONE:
                return True
            if error.errno == errno.EINVAL:  # the parent has closed it, as we shall hear soon
                self.stopReading()
            else:  # EMFILE, ENFILE, ENOBUFS, ENOMEM, or what the network has
                self._wait(error.strerror or str(error))
            return False
        # The kernel gives the lowest number that is free: all below are in use.
        scarce = connection.fileno() >= for_connections(self.kept)
        if self._short and not scarce and self.reactor.seconds() - self._short_at > _QUIET:
            self._short = False
            self._log.info("connections are taken again")
        transport: Any = None
        try:
            if connection.family == socket.AF_INET6:
                numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
                peer = (socket.getnameinfo(peer, numeric)[0], *peer[1:])  # with its scope
            protocol = port.factory.buildProtocol(port._buildAddr(peer))
            if protocol is None:
                connection.close()
                return True
            session, self.sessionno = self.sessionno, self.sessionno + 1
            transport = port.transport(connection, protocol, peer, self, session, self.reactor)
            protocol.makeConnection(transport)
        except Exception:
            self._log.failure("a connection could not be served")
            if transport is None:
                connection.close()
            else:
                transport.abortConnection()
        if scarce:
            self._wait("only those descriptors are left that mail on its way needs")
        return not scarce

    def _wait(self, why: str) -> None:
        """Leave connections where they are until there are descriptors."""
        self._short_at = self.reactor.seconds()
        if not self._short:
            self._short = True
            self._log.warn(
                "connections wait, and are taken later: {why}; this process may have {limit}"
                " descriptors (RLIMIT_NOFILE)",
                why=why,
                limit=limit(),
            )
        self.stopReading()
        self._retry = self.reactor.callLater(_LOOK_AGAIN, self._look_for_room)

    def _look_for_room(self) -> None:
        port: Any = self
        try:
            probe = os.dup(port.fileno())
        except OSError:
            free = False
        else:
            os.close(probe)
            free = probe < for_connections(self.kept)
        if free:
            self._retry = None
            port.startReading()
        else:
            self._short_at = self.reactor.seconds()
            self._retry = self.reactor.callLater(_LOOK_AGAIN, self._look_for_room)


class AcceptingPort(Accepting, tcp.Port):
    """Over TCP."""


class AcceptingUNIXPort(Accepting, unix.Port):
    """On a UNIX socket."""

    factory: Any
    fileno: Any
