"""The ports that are bound, and how a worker comes to read one that its parent has bound."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import Any

from attrs import field, frozen
from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from ..config.endpoint import Endpoint
from .accepting import Accepting, AcceptingPort, AcceptingUNIXPort
from .shared_counts import SharedCounts
from .timers import is_posix

_BACKLOG = 1024  # connections that the kernel holds for us; it may have a limit of its own
# Of all descriptors, less than connections with mail leave: where those wait, the page says so, and
# that this process lives. It can have few of them (`accepting.share`).
_KEPT_BY_THE_PAGE = 1 / 16
_LOOK_AGAIN = 0.001  # seconds
_LEFT_TO_OTHERS = 0.02
_LEFT_TO_NOBODY = 0.1  # seconds after that was in vain


class CannotListen(Exception):
    """An endpoint cannot be listened on; the message says which and why."""


@frozen
class Bound:
    """A port that is bound.

    Attributes:
        kind: what is spoken there.
        port: itself.
        implicit_tls: whether it is spoken under TLS from the first octet.
        address: of the port, as it was when that was bound: a worker may find it closed by its
            parent at any moment.
    """

    kind: str
    port: IListeningPort
    implicit_tls: bool = False
    address: Any = field(init=False)

    @address.default
    def _address_of_port(self) -> Any:
        return self.port.getHost()

    def __str__(self) -> str:
        address = self.address
        host = getattr(address, "host", None)
        kind = "smtps" if self.implicit_tls and self.kind == "smtp" else self.kind
        if host is None:
            name = getattr(address, "name", b"") or b""
            return f"{kind} unix {os.fsdecode(name)}"
        host = f"[{host}]" if ":" in host else host
        return f"{kind} tcp {host}:{address.port}"


class Ports:
    """Ports; each is bound first, and read from later.

    Args:
        reactor: where they are.
        loads: of all workers that read from them; None where nobody else does.

    Attributes:
        bound: in the order in which they were bound.
    """

    def __init__(self, reactor: Any, loads: SharedCounts | None = None) -> None:
        self.bound: list[Bound] = []
        self._names: list[str] = []
        self._freed: Deferred[Any] = succeed(None)
        self._reactor = reactor
        self._loads = loads

    def bind(
        self,
        kind: str,
        endpoint: str,
        factory: Any,
        *,
        implicit_tls: bool = False,
        descriptor: int | None = None,
    ) -> None:
        """Bind a port; no connection is taken yet.

        Args:
            kind: what is spoken there.
            endpoint: a server endpoint string of Twisted.
            factory: of its protocols.
            implicit_tls: whether they speak TLS from the first octet.
            descriptor: a socket that was bound to ``endpoint`` already, elsewhere; it stays open.

        Raises:
            CannotListen: it cannot be bound; the others are free again.
        """
        failures: list[Failure] = []
        parsed = Endpoint.parse(endpoint)
        handed_over = parsed.kind in ("systemd", "fd")

        def listen() -> Any:
            if descriptor is not None and handed_over:
                return _Inherited(self._reactor, descriptor).adopt(factory)
            if descriptor is not None:
                reactor: Any = _Inherited(self._reactor, descriptor)
            elif handed_over:
                reactor = _HandedOver(self._reactor)
            else:
                reactor = self._reactor
                if is_posix(reactor):
                    reactor = _Own(reactor)
                if parsed.kind == "unix":
                    _remove_stale(parsed.named.get("address") or parsed.arguments[0])
            return serverFromString(reactor, endpoint).listen(factory)

        # What Twisted cannot make of a description it raises, one way or another.
        listening: Deferred[IListeningPort] = maybeDeferred(listen)
        listening.addCallbacks(
            lambda port: self.bound.append(Bound(kind, port, implicit_tls)), failures.append
        )
        if failures:
            self.unbind()
            why = failures[0].getErrorMessage()
            if endpoint.startswith("systemd:"):
                why = f"systemd has handed over no such socket ({why})"
                if "LISTEN_FDS" in os.environ and "LISTEN_FDNAMES" not in os.environ:
                    # systemd always gives names (sd_listen_fds_with_names(3)); Twisted takes
                    # nothing without.
                    why += "; LISTEN_FDS is set, and LISTEN_FDNAMES with as many names has to be"
            raise CannotListen(f"cannot listen on {endpoint} ({kind}): {why}")
        port: Any = self.bound[-1].port if self.bound else None
        own = descriptor is None and not handed_over
        if own and hasattr(port, "socket") and "backlog" not in parsed.named:
            port.socket.listen(_BACKLOG)  # Twisted has asked for 50
        if hasattr(port, "stopReading"):
            port.stopReading()
        if isinstance(port, _OneByOne):
            port.loads = self._loads
        if isinstance(port, Accepting) and kind == "web":
            port.kept = _KEPT_BY_THE_PAGE

    @property
    def names(self) -> list[str]:
        """What all ports are called, those of before too once they are free."""
        if self.bound:
            self._names = [str(bound) for bound in self.bound]
        return self._names

    def accept_connections(self) -> None:
        """Take connections from now on."""
        if self._loads is not None:
            self._loads.serve()
        for bound in self.bound:
            if hasattr(bound.port, "startReading"):
                bound.port.startReading()

    def reach(self, address: str, port: int) -> bool:
        """Whether a connection to an address and a port would come to one of these."""
        for bound in self.bound:
            host = bound.address
            if getattr(host, "port", None) == port and (
                host.host == address
                or (host.host in ("0.0.0.0", "::") and _is_of_this_machine(address))
            ):
                return True
        return False

    def unbind(self) -> Deferred[Any]:
        """Free the ports; fires when they are free, those of an earlier call among them."""
        if self._loads is not None:
            self._loads.retire()
        self._names = self.names
        bound, self.bound = self.bound, []
        freeing = [maybeDeferred(each.port.stopListening) for each in bound]
        self._freed = DeferredList([self._freed, *freeing], consumeErrors=True)
        return self._freed


class Unserved(Factory):
    """Stands at a port that other processes read from."""

    noisy = False

    def buildProtocol(self, addr: object) -> None:
        """Take no connection."""


class _Counted:
    """A connection that is counted while it is there, whoever took it."""

    server: Any

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._there = self.server.loads is not None
        if self._there:
            self.server.loads.enter()

    def connectionLost(self, reason: Failure) -> None:
        there, self._there = self._there, False
        try:
            if there:
                self.server.loads.leave()
        finally:
            super().connectionLost(reason)  # type: ignore[misc]


class _CountedServer(_Counted, tcp.Server):
    """Over TCP."""


class _CountedUNIXServer(_Counted, unix.Server):
    """On a UNIX socket."""


class _OneByOne(Accepting):
    """Takes one connection at a time from a port that other processes take them from as well.

    A loop that takes all there are would leave the others with nothing. Who has more than another
    leaves the next one to that other; if it is there still after a while, it is taken all the same.
    """

    loads: SharedCounts | None = None
    _later: IDelayedCall | None = None
    _heedless_until = 0.0  # by the clock: nothing is left to others before

    def doRead(self) -> None:
        if (
            self.loads is not None
            and self.loads.ahead
            and self.reactor.seconds() >= self._heedless_until
        ):
            self.stopReading()
            self._look_again(self.reactor.seconds() + _LEFT_TO_OTHERS)
        else:
            self.take_one()

    def stopReading(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        super().stopReading()

    def _look_again(self, deadline: float) -> None:
        self._later = self.reactor.callLater(_LOOK_AGAIN, self._look, deadline)

    def _look(self, deadline: float) -> None:
        self._later = None
        assert self.loads is not None
        now = self.reactor.seconds()
        if self.loads.ahead:
            if now < deadline:
                self._look_again(deadline)
                return
            if self.take_one():  # the other one hangs
                self._heedless_until = now + _LEFT_TO_NOBODY
        if not self.out_of_descriptors:
            self.startReading()  # type: ignore[attr-defined]


class _InheritedPort(_OneByOne, tcp.Port):
    """A TCP port that is not ours alone: Twisted does not shut down what it has adopted."""

    transport: Any = _CountedServer


class _InheritedUNIXPort(_OneByOne, unix.Port):
    """A UNIX socket that is not ours: its mode and its name are left alone."""

    transport: Any = _CountedUNIXServer
    _shouldShutdown = False  # the socket is the others' too
    _preexistingSocket: socket.socket
    factory: Any
    fileno: Any

    def startListening(self) -> None:
        """Read from what listens already, without the ``chmod`` that `unix.Port` would do."""
        self.factory.doStart()
        self.socket = self._preexistingSocket
        self.fileno = self.socket.fileno
        self.connected = True
        self.startReading()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure) -> None:
        """Stop reading, without the unlinking that `unix.Port` would do."""
        tcp.Port.connectionLost(self, reason)


class _Own:
    """A reactor whose ports wait while there are too few descriptors."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(
        self, port: int, factory: Any, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        made: Any = AcceptingPort(port, factory, backlog, interface, self._reactor)
        made.startListening()
        listening: IListeningPort = made
        return listening

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, *args: Any, **kwargs: Any
    ) -> IListeningPort:
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
        named: Any = address  # bytes, says Twisted, and takes what `serverFromString` gives it
        made: Any = AcceptingUNIXPort(named, factory, backlog, mode, self._reactor, wantPID)
        made.startListening()
        listening: IListeningPort = made
        return listening


class _Inherited:
    """A reactor that listens on one descriptor, whatever it is told to listen on.

    So every kind of endpoint wraps its protocols as it would have done where the port was bound.
    """

    def __init__(self, reactor: Any, descriptor: int) -> None:
        self._reactor = reactor
        self._descriptor = descriptor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def adopt(self, factory: Any) -> IListeningPort:
        return _adopt(self._reactor, self._descriptor, factory)

    def listenTCP(self, port: int, factory: Any, *args: Any, **kwargs: Any) -> IListeningPort:
        return self.adopt(factory)

    def listenUNIX(self, address: str, factory: Any, *args: Any, **kwargs: Any) -> IListeningPort:
        return self.adopt(factory)

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, *args: Any, **kwargs: Any
    ) -> IListeningPort:
        return self.adopt(TLSMemoryBIOFactory(contextFactory, False, factory, self._reactor))


class _HandedOver:
    """A reactor that leaves alone what somebody else has bound: systemd unlinks its own sockets."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def adoptStreamPort(self, descriptor: int, family: int, factory: Any) -> IListeningPort:
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


def _is_of_this_machine(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))  # no datagram is sent
        return True
    return False


def _remove_stale(path: str) -> None:
    """Remove a UNIX socket that nobody listens on: its MTA was killed.

    Twisted's own lock beside the socket names a process; where process numbers begin anew with
    every start, as in a container, that process seems to be alive for ever.
    """
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1.0)
                try:
                    probe.connect(path)
                except ConnectionRefusedError:
                    os.unlink(path)
    if not os.path.lexists(path):
        with contextlib.suppress(OSError):
            os.unlink(f"{path}.lock")
