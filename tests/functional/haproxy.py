"""Debian's HAProxy as a load balancer in front of the MTA, with its own configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .machine import LOOPBACK, free_port, listens, path_of
from .program import Program

_CONFIGURATION = """\
global
    log stdout format raw local0
defaults
    mode tcp
    log global
    timeout connect 10s
    timeout client 60s
    timeout server 60s
"""

_LISTEN = """\
listen {name}
    bind {loopback}:{port}
    server mta {loopback}:{mta} source {balancer} {options}
"""


class HAProxy(Program):
    """A HAProxy that listens on its own loopback ports.

    Args:
        home: folder of its configuration and log.
        address: its source address for connections to the MTA.
        servers: by name, the port of the MTA and the options of ``server``, such as
            ``send-proxy``; further lines may follow.
    """

    foreign = True

    def __init__(self, home: Path, address: str, servers: Mapping[str, tuple[int, str]]) -> None:
        super().__init__(home, "haproxy.log")
        self.ports = {name: free_port() for name in servers}
        self._configuration = home / "haproxy.cfg"
        self._configuration.write_text(
            _CONFIGURATION
            + "".join(
                _LISTEN.format(
                    name=name,
                    loopback=LOOPBACK,
                    port=self.ports[name],
                    mta=mta,
                    balancer=address,
                    options=options,
                )
                for name, (mta, options) in servers.items()
            ),
            encoding="ascii",
        )

    def start(self) -> None:
        # In the foreground, without a master: one process, whose id is known.
        self.spawn((path_of("haproxy"), "-db", "-f", self._configuration))
        for port in self.ports.values():
            self.wait_for(lambda port=port: listens(port), "HAProxy listens")  # type: ignore[misc]
