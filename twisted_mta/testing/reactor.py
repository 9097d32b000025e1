"""A reactor in memory: a network with ports to listen on."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IListeningPort,
    IResolutionReceiver,
)
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from . import inventory
from .network import MemoryNetwork, address


class MemoryReactor(MemoryNetwork):
    """A network in memory with ports to listen on.

    A connection to a bound port that does not read is refused.

    Attributes:
        ports: the bound ports, by host and port number.
        names: the addresses of hosts that ``nameResolver`` knows.
        machines: how many machines there have been on this network.
    """

    def __init__(self) -> None:
        super().__init__()
        self.machines = 0
        self.ports: dict[tuple[str, int], MemoryPort] = {}
        self.names: Mapping[str, Sequence[str]] = {}
        inventory.add(self)

    def left_open(self) -> list[str]:
        """Return what is open in the network, and the bound ports (`inventory.Double`)."""
        return [*super().left_open(), *(f"port {host}:{port}" for host, port in self.ports)]

    def listenTCP(
        self,
        port: int,
        factory: Factory,
        backlog: int = 50,
        interface: str = "",
        *,
        clock: Any = None,
    ) -> MemoryPort:
        """Listen as a reactor does (`twisted.internet.interfaces.IReactorTCP`).

        Besides, ``clock`` is the machine of the servers (`machine.Machine`).
        """
        host = interface or "0.0.0.0"
        port = port or 40_000 + len(self.ports)
        if (host, port) in self.ports:
            taken = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            raise CannotListenError(interface, port, taken)
        bound = self.ports[host, port] = MemoryPort(self, factory, host, port, clock=clock or self)
        factory.doStart()
        return bound

    def _servers(self, host: str, port: int, source: str) -> list[tuple[Protocol, Any]] | None:
        """Return the servers that wait for a client, or a new one of a bound port that reads."""
        bound = self.ports.get((host, port)) or self.ports.get(("0.0.0.0", port))
        if bound is not None and bound.reading:
            server = bound.factory.buildProtocol(self.client_address(host, source))
            assert isinstance(server, Protocol)
            self.listen(host, port, server, clock=bound.clock)
        return super()._servers(host, port, source)

    @property
    def nameResolver(self) -> MemoryNames:
        """The resolver of `names` (`IReactorPluggableNameResolver`)."""
        return MemoryNames(self.names)

    def callWhenRunning(self, function: Any, *args: Any, **kwargs: Any) -> None:
        """Call ``function`` at once: this reactor always runs."""
        function(*args, **kwargs)


@implementer(IHostnameResolver, IHostResolution)
class MemoryNames:
    """A resolver that answers at once.

    Args:
        addresses: by host name.
    """

    def __init__(self, addresses: Mapping[str, Sequence[str]]) -> None:
        self._addresses = addresses
        self.name = ""

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> MemoryNames:
        """Report the addresses of a host (called by Twisted)."""
        self.name = hostName
        resolutionReceiver.resolutionBegan(self)
        for each in self._addresses.get(hostName, ()):
            resolutionReceiver.addressResolved(address(each, portNumber))
        resolutionReceiver.resolutionComplete()
        return self

    def cancel(self) -> None:
        """Do nothing: it has ended."""


@implementer(IListeningPort)
@define(eq=False)
class MemoryPort:
    """A port of a `MemoryReactor`.

    Attributes:
        reactor: its reactor.
        factory: the factory of its protocols.
        host: the address that it is bound to.
        port: the port number.
        reading: Whether it accepts connections.
        clock: the machine of the servers.
    """

    reactor: MemoryReactor
    factory: Factory
    host: str
    port: int
    reading: bool = True
    clock: Any = None

    def startListening(self) -> None:
        """Do nothing: the port listens since it exists."""

    def stopListening(self) -> Deferred[None]:
        """Free the port."""
        if self.reactor.ports.pop((self.host, self.port), None) is not None:
            self.factory.doStop()
        return succeed(None)

    def startReading(self) -> None:
        """Accept connections."""
        self.reading = True

    def stopReading(self) -> None:
        """Accept no connections for now."""
        self.reading = False

    def getHost(self) -> IPv4Address | IPv6Address:
        """Return the address that it is bound to."""
        return address(self.host, self.port)
