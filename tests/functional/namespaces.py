"""Machines of a test as network namespaces: one network for mail, and one to the database."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence

from .machine import Unready, run
from .program import Service


def _ip(*words: str) -> None:
    done = run("ip", *words)
    if done.returncode:
        raise Unready(f"ip {' '.join(words)}: {done.stdout}")


class Networks(Service):
    """Two bridges of this machine, to each of which all namespaces are linked. Root makes them.

    Args:
        names: of the namespaces.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._id = f"{os.getpid() % 0xFFFF:04x}"
        taken = run("ip", "-4", "addr").stdout
        self._net = random.choice([net for net in range(64, 250) if f" 10.{net}." not in taken])
        self._made: list[tuple[str, ...]] = []

    def start(self) -> None:
        """Make them; root is host 1 of both networks."""
        for network in ("m", "d"):
            self._make("link", "add", self._bridge(network), "type", "bridge")
            _ip("addr", "add", f"{self._address(network, 1)}/24", "dev", self._bridge(network))
            _ip("link", "set", self._bridge(network), "up")
        for number, name in enumerate(self._names, start=2):
            space = self._space(name)
            self._make("netns", "add", space)
            _ip("-n", space, "link", "set", "lo", "up")
            for network in ("m", "d"):
                outside = self._link(network, name)
                self._make(
                    *("link", "add", outside, "type", "veth"),
                    *("peer", "name", f"eth{network}", "netns", space),
                )
                _ip("link", "set", outside, "master", self._bridge(network), "up")
                address = f"{self._address(network, number)}/24"
                _ip("-n", space, "addr", "add", address, "dev", f"eth{network}")
                _ip("-n", space, "link", "set", f"eth{network}", "up")

    def stop(self) -> None:
        """Remove them."""
        for kind, name in reversed(self._made):
            run("ip", kind, "delete", name)
        self._made.clear()

    def inside(self, name: str) -> Sequence[str]:
        """Return the command that runs another one in a namespace."""
        return ("ip", "netns", "exec", self._space(name))

    def mail(self, name: str = "") -> str:
        """Return the address in the network for mail; without a name, root's."""
        return self._address("m", self._number(name))

    def data(self, name: str = "") -> str:
        """Return the address in the network to the database."""
        return self._address("d", self._number(name))

    def cut(self, name: str) -> None:
        """Drop all packets between a namespace and the database, in silence."""
        _ip("link", "set", self._link("d", name), "down")

    def heal(self, name: str) -> None:
        """Let them pass again."""
        _ip("link", "set", self._link("d", name), "up")

    def _make(self, kind: str, verb: str, name: str, *rest: str) -> None:
        _ip(kind, verb, name, *rest)
        self._made.append((kind, name))

    def _number(self, name: str) -> int:
        return self._names.index(name) + 2 if name else 1

    def _address(self, network: str, number: int) -> str:
        return f"10.{self._net}.{'md'.index(network)}.{number}"

    def _bridge(self, network: str) -> str:
        return f"mta{self._id}{network}"

    def _space(self, name: str) -> str:
        return f"mta{self._id}-{name}"

    def _link(self, network: str, name: str) -> str:
        return f"mta{self._id}{network}-{name}"
