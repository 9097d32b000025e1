"""The machine of one agent on a network in memory, which can crash."""

from __future__ import annotations

from typing import Any

from twisted.internet.base import DelayedCall

from .reactor import MemoryPort, MemoryReactor

_MANY_CALLS = 256


class Machine:
    """The reactor of one agent: its timers, ports and connections on a shared network.

    Everything else is passed to the network.

    Args:
        network: the network, with the clock of all machines.
        address: from which its connections come; empty: from loopback.

    Attributes:
        is_up: whether it has not crashed.
    """

    def __init__(self, network: MemoryReactor, address: str = "") -> None:
        self._network = network
        self._address = address
        self._calls: list[Any] = []
        self._most_calls = _MANY_CALLS  # from which on those that were made are forgotten
        self._ports: list[MemoryPort] = []
        self.is_up = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def callLater(self, delay: float, callable: Any, *args: Any, **kw: Any) -> Any:
        """Call a function later; never, once the machine has crashed (`IReactorTime`)."""
        if not self.is_up:
            return DelayedCall(
                self._network.seconds() + delay,
                callable,
                args,
                kw,
                lambda call: None,
                lambda call: None,
                self._network.seconds,
            )
        if len(self._calls) > self._most_calls:
            self._calls = self.getDelayedCalls()
            self._most_calls = max(_MANY_CALLS, 2 * len(self._calls))
        call = self._network.callLater(delay, callable, *args, **kw)
        self._calls.append(call)
        return call

    def getDelayedCalls(self) -> list[Any]:
        """Return the timers of this machine (`IReactorTime`)."""
        return [call for call in self._calls if call.active()]

    def listenTCP(
        self, port: int, factory: Any, backlog: int = 50, interface: str = ""
    ) -> MemoryPort:
        """Listen (`IReactorTCP`)."""
        bound = self._network.listenTCP(port, factory, backlog, interface, clock=self)
        self._ports.append(bound)
        return bound

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30,
        bindAddress: tuple[str, int] | None = None,
    ) -> Any:
        """Connect, from the address of the machine unless another is given (`IReactorTCP`)."""
        if bindAddress is None and self._address:
            bindAddress = (self._address, 0)
        return self._network.connectTCP(host, port, factory, timeout, bindAddress, clock=self)

    def connectUNIX(
        self, address: str, factory: Any, timeout: float = 30, checkPID: bool = False
    ) -> Any:
        """Connect to a UNIX socket (`IReactorUNIX`)."""
        return self._network.connectTCP(address, 0, factory, timeout, clock=self)

    def crash(self) -> None:
        """Stop at once: no timer fires any more, and all connections are lost.

        Nothing on this machine is told. Its ports are free, and the other end of a connection loses
        it, whatever was on its way.
        """
        self.is_up = False
        for call in self._calls:
            if call.active():
                call.cancel()
        for bound in self._ports:
            if self._network.ports.get((bound.host, bound.port)) is bound:
                del self._network.ports[bound.host, bound.port]
        for ends in self._network.connections:
            for end in ends:
                if end.is_of(self):
                    end.vanish()
