"""The bound ports of a process: each is bound first, and accepts connections later."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from ipaddress import ip_address
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from ..config.endpoint import Endpoint
from .accepting import Accepting, AcceptingReactor
from .shared_counts import SharedCounts
from .shared_ports import AdoptingReactor, InheritingReactor, SharedPort
from .timers import is_posix

_BACKLOG = 1024  # connections that wait in the kernel, which may have a lower limit
# Of all descriptors; less than connections with mail leave free: the status page can still be asked
# while those wait. It has few connections itself (`accepting.share`).
_KEPT_BY_THE_PAGE = 1 / 16


class CannotListen(Exception):
    """Listening on an endpoint failed; the message names endpoint and reason."""


@frozen
class Bound:
    """A bound port.

    Attributes:
        kind: of the listener: ``smtp``, ``web``, …
        port: Twisted's port.
        implicit_tls: whether TLS begins at the first octet.
        address: of the port when it was bound: the parent may close a worker's port at any moment.
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
    """The bound ports of a process.

    Args:
        reactor: of the ports.
        counts: the connections of all workers that accept from these ports; None: no workers.

    Attributes:
        bound: the ports in the order in which they were bound.
    """

    def __init__(self, reactor: Any, counts: SharedCounts | None = None) -> None:
        self.bound: list[Bound] = []
        self._names: list[str] = []
        self._freed: Deferred[Any] = succeed(None)
        self._reactor = reactor
        self._counts = counts

    def bind(
        self,
        kind: str,
        endpoint: str,
        factory: Any,
        *,
        implicit_tls: bool = False,
        descriptor: int | None = None,
    ) -> None:
        """Bind a port, which accepts no connection yet.

        Args:
            kind: of the listener.
            endpoint: a server endpoint string of Twisted.
            factory: of the protocols.
            implicit_tls: whether TLS begins at the first octet.
            descriptor: a socket that the parent has bound to ``endpoint``; it stays open. None:
                the port is bound here.

        Raises:
            CannotListen: binding failed; the ports bound before are unbound.
        """
        failures: list[Failure] = []
        parsed = Endpoint.parse(endpoint)
        handed_over = parsed.kind in ("systemd", "fd")

        def listen() -> Any:
            if descriptor is not None and handed_over:
                return InheritingReactor(self._reactor, descriptor).adopt(factory)
            if descriptor is not None:
                reactor: Any = InheritingReactor(self._reactor, descriptor)
            elif handed_over:
                reactor = AdoptingReactor(self._reactor)
            else:
                reactor = self._reactor
                if is_posix(reactor):
                    reactor = AcceptingReactor(reactor)
                if parsed.kind == "unix":
                    _remove_stale(parsed.named.get("address") or parsed.arguments[0])
            return serverFromString(reactor, endpoint).listen(factory)

        # Twisted raises some errors of a description, and returns others as failures.
        listening: Deferred[IListeningPort] = maybeDeferred(listen)
        listening.addCallbacks(
            lambda port: self.bound.append(Bound(kind, port, implicit_tls)), failures.append
        )
        if failures:
            self.unbind()
            why = failures[0].getErrorMessage()
            if endpoint.startswith("systemd:"):
                why = f"systemd has passed no such socket ({why})"
                if "LISTEN_FDS" in os.environ and "LISTEN_FDNAMES" not in os.environ:
                    # systemd always gives names (sd_listen_fds_with_names(3)), which Twisted needs.
                    why += "; LISTEN_FDS is set, and LISTEN_FDNAMES with as many names is missing"
            raise CannotListen(f"cannot listen on {endpoint} ({kind}): {why}")
        port: Any = self.bound[-1].port if self.bound else None
        own = descriptor is None and not handed_over
        if own and hasattr(port, "socket") and "backlog" not in parsed.named:
            port.socket.listen(_BACKLOG)  # instead of Twisted's 50
        if hasattr(port, "stopReading"):
            port.stopReading()
        if isinstance(port, SharedPort):
            port.counts = self._counts
        if isinstance(port, Accepting) and kind == "web":
            port.kept = _KEPT_BY_THE_PAGE

    @property
    def names(self) -> list[str]:
        """The names of all ports; after `unbind` those of the ports before."""
        if self.bound:
            self._names = [str(bound) for bound in self.bound]
        return self._names

    def accept_connections(self) -> None:
        """Accept connections."""
        if self._counts is not None:
            self._counts.serve()
        for bound in self.bound:
            if hasattr(bound.port, "startReading"):
                bound.port.startReading()

    def reach(self, address: str, port: int) -> bool:
        """Whether a connection to ``address`` and ``port`` would reach one of these ports."""
        for bound in self.bound:
            host = bound.address
            if getattr(host, "port", None) == port and (
                host.host == address
                or (host.host in ("0.0.0.0", "::") and _is_of_this_machine(address))
            ):
                return True
        return False

    def unbind(self) -> Deferred[Any]:
        """Unbind all ports; fires when they are closed, those of earlier calls included."""
        if self._counts is not None:
            self._counts.retire()
        self._names = self.names
        bound, self.bound = self.bound, []
        freeing = [maybeDeferred(each.port.stopListening) for each in bound]
        self._freed = DeferredList([self._freed, *freeing], consumeErrors=True)
        return self._freed


class Unserved(Factory):
    """The factory of a port that only other processes accept from."""

    noisy = False

    def buildProtocol(self, addr: object) -> None:
        """Return None: no connection is served here."""


def on_loopback(address: Any) -> bool:
    """Whether only this machine can connect to the address of a bound port.

    Args:
        address: `IAddress`; that of a UNIX socket, which has no host, is of this machine.
    """
    host = getattr(address, "host", None)
    return host is None or ip_address(host.partition("%")[0]).is_loopback


def _is_of_this_machine(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))  # sends nothing
        return True
    return False


def _remove_stale(path: str) -> None:
    """Remove a UNIX socket on which no process listens: its MTA was killed.

    Twisted's lock beside the socket names a process. In a container, where process numbers start
    again at each start, another process may have that number.
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
