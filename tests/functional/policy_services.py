"""Debian's policy services: postgrey, and policyd-spf behind a socket."""

from __future__ import annotations

import grp
import os
import pwd
import random
import socket
import socketserver
import threading
from pathlib import Path

from .machine import LOOPBACK, path_of
from .program import Program, Service


class Postgrey(Program):
    """The greylisting service, at a UNIX socket.

    Args:
        home: folder of its files.
        delay: whole seconds.
    """

    foreign = True

    def __init__(self, home: Path, *, delay: int) -> None:
        super().__init__(home, "postgrey.log")
        self.socket = home / "postgrey.sock"
        self._delay = delay

    @property
    def endpoint(self) -> str:
        """Its address, as a client endpoint of Twisted."""
        return f"unix:{self.socket}"

    def start(self) -> None:
        """Start it; return when it listens."""
        database = self.home / "postgrey.db"
        database.mkdir(exist_ok=True)
        self.spawn(
            [
                path_of("postgrey"),
                f"--unix={self.socket}",
                f"--dbdir={database}",
                f"--delay={self._delay}",
                f"--user={pwd.getpwuid(os.getuid()).pw_name}",
                f"--group={grp.getgrgid(os.getgid()).gr_name}",
                "--hostname=grey.example",
            ]
        )
        self.wait_for(lambda: connects(self.socket), "postgrey listens")


class PolicydSPF(Program):
    """The SPF service: a process for each connection, as systemd starts it.

    It asks the name servers of ``/etc/resolv.conf``: it gets a file of its own there.

    Args:
        home: folder of its files.
        nameserver: address of the name server, which is asked at port 53.
    """

    foreign = True

    def __init__(self, home: Path, nameserver: str) -> None:
        super().__init__(home, "policyd-spf.log")
        self.socket = home / "policyd-spf.sock"
        self._nameserver = nameserver

    @property
    def endpoint(self) -> str:
        """Its address, as a client endpoint of Twisted."""
        return f"unix:{self.socket}"

    def start(self) -> None:
        """Start it; return when it listens."""
        resolv = self.home / "resolv.conf"
        resolv.write_text(f"nameserver {self._nameserver}\noptions timeout:2\n", encoding="ascii")
        settings = self.home / "policyd-spf.conf"
        settings.write_text(
            "debugLevel = 1\nTestOnly = 1\nHELO_reject = Fail\nMail_From_reject = Fail\n"
            "PermError_reject = False\nTempError_Defer = False\nskip_addresses = 127.0.0.0/8\n",
            encoding="ascii",
        )
        program = path_of("policyd-spf")
        # A file system of its own, so that nothing else on this machine sees that file.
        self.spawn(
            [
                *(path_of("unshare"), "--mount", "--propagation", "private", "sh", "-c"),
                'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"',
                *("sh", resolv, path_of("systemd-socket-activate"), "--accept", "--inetd"),
                *(f"--listen={self.socket}", program, settings),
            ]
        )
        self.wait_for(self.socket.exists, "policyd-spf listens")


class ScriptedServices(Service):
    """Services on ports of loopback, in threads of the test: they keep what they are asked.

    Args:
        number: how many.

    Attributes:
        ports: where they listen.
        actions: what each answers.
        asked: the attributes of all requests to each, in their order.
    """

    def __init__(self, number: int) -> None:
        self.actions = ["DUNNO"] * number
        self.asked: list[list[dict[str, str]]] = [[] for _ in range(number)]
        self._servers = [self._server(each) for each in range(number)]
        self.ports: list[int] = [each.server_address[1] for each in self._servers]
        self._threads = [threading.Thread(target=each.serve_forever) for each in self._servers]

    def _server(self, number: int) -> socketserver.ThreadingTCPServer:
        actions, asked = self.actions, self.asked[number]

        class Requests(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                lines: list[str] = []
                for line in self.rfile:
                    if line != b"\n":
                        lines.append(line.decode().removesuffix("\n"))
                        continue
                    asked.append(dict(each.split("=", 1) for each in lines))
                    lines.clear()
                    self.wfile.write(f"action={actions[number]}\n\n".encode())

        server = socketserver.ThreadingTCPServer((LOOPBACK, 0), Requests)
        server.daemon_threads = True  # a client may keep its connection
        return server

    def start(self) -> None:
        """Begin to serve."""
        for each in self._threads:
            each.start()

    def stop(self) -> None:
        """End."""
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


def connects(path: Path) -> bool:
    """Whether a server takes connections at a UNIX socket."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def address_with_free_port_53() -> str:
    """Return an address of loopback where this user may serve the DNS.

    Raises:
        OSError: there is none.
    """
    address = f"127.53.{random.randrange(256)}.{random.randrange(1, 255)}"
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            probe.bind((address, 53))
    return address
