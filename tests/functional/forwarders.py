"""A resolver and a forwarder in front of a name server: Unbound and dnsmasq, on loopback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .machine import LOOPBACK, free_port, path_of
from .program import Program

_UNBOUND = """\
server:
    interface: {address}@{port}
    do-ip6: no
    username: ""
    chroot: ""
    directory: "{home}"
    pidfile: ""
    use-syslog: no
    do-daemonize: no
    num-threads: 1
    module-config: "iterator"
    do-not-query-localhost: no
    qname-minimisation: no
    access-control: 127.0.0.0/8 allow
{server}
remote-control:
    control-enable: no
"""


class Forwarder(Program):
    """A resolver or forwarder on its own port."""

    foreign = True

    def __init__(self, home: Path, log: str, address: str = LOOPBACK, port: int = 0) -> None:
        super().__init__(home, log)
        self.address = address
        self.port = port or free_port()


class Unbound(Forwarder):
    """A resolver that asks given name servers for some zones.

    Args:
        home: folder of its files.
        zones: the port of the name server, by zone.
        server: further lines of its section ``server``.
        anchors: the DS records of signed zones: with them it validates.
        address: to listen on.
        port: to listen on; 0: a free one.
    """

    def __init__(
        self,
        home: Path,
        zones: Mapping[str, int],
        *,
        server: str = "",
        anchors: Sequence[str] = (),
        address: str = LOOPBACK,
        port: int = 0,
    ) -> None:
        super().__init__(home, "unbound.log", address, port)
        self.anchors = anchors
        self.zones = zones
        self.server = server

    def start(self) -> None:
        server = self.server
        if self.anchors:
            server += '\n    module-config: "validator iterator"\n'
            server += "".join(f'    trust-anchor: "{each}"\n' for each in self.anchors)
        text = _UNBOUND.format(address=self.address, port=self.port, home=self.home, server=server)
        for name, port in self.zones.items():
            text += f'stub-zone:\n    name: "{name}"\n    stub-addr: {LOOPBACK}@{port}\n'
        configuration = self.home / "unbound.conf"
        configuration.write_text(text, encoding="ascii")
        self.spawn([path_of("unbound"), "-d", "-p", "-c", configuration])
        self.wait_for(lambda: "start of service" in self.output(), "Unbound answers")


class Dnsmasq(Forwarder):
    """A forwarder that also knows some hosts itself, as in home routers and libvirt.

    Args:
        home: folder of its files.
        upstream: port of the name server for all other names.
        options: further options.
    """

    def __init__(self, home: Path, upstream: int, *options: str) -> None:
        super().__init__(home, "dnsmasq.log")
        self.upstream = upstream
        self.options = options

    def start(self) -> None:
        self.spawn(
            [
                *(path_of("dnsmasq"), "--keep-in-foreground", "--log-facility=-", "--conf-file"),
                *("--no-resolv", "--no-hosts", "--user=", "--group=", "--pid-file"),
                *(f"--port={self.port}", f"--listen-address={LOOPBACK}", "--bind-interfaces"),
                f"--server={LOOPBACK}#{self.upstream}",
                *self.options,
            ]
        )
        self.wait_for(lambda: "started" in self.output(), "dnsmasq answers")
