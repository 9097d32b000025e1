"""Whether everything that is to be listened on can be: each is bound for an instant."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from ...config import Config
from ...config.endpoint import Endpoint
from ...mail.printable import printable
from ...tls.certificates import CertificateError, CertifiedKey, read_certificates
from .finding import Finding
from .processes import Processes, Running

_LONGEST_PATH = 107  # octets; sun_path has 108, of which one is its end
_HANDED_OVER = ("systemd", "fd")
_FAMILIES = ("INET", "INET6", "UNIX")


def endpoints(config: Config, running: Running | None, processes: Processes) -> Iterator[Finding]:
    """Yield why listeners cannot listen, and why deliveries cannot go out.

    Args:
        config: names them.
        running: the MTA that has them already.
        processes: who has them instead.
    """
    places = [(f"listener {each.endpoint}", each.endpoint) for each in config.listeners]
    if config.web is not None:
        places.append(("[mta] web", config.web))
    with ExitStack() as held:
        binding = _Binding(running, processes, held)
        for where, description in places:
            yield from binding.bind(printable(where), Endpoint.parse(description))
        for where, source in _sources(config):
            yield from binding.source(where, source)


def _sources(config: Config) -> Iterator[tuple[str, str]]:
    """Yield the addresses that connections to other hosts come from."""
    for address in config.delivery.source_address or ():
        yield "[delivery] source_address", address
    for destination in config.destinations:
        for address in destination.source_address or ():
            yield f"[[destination]] {printable(destination.domain)}, source_address", address


class _Binding:
    """Binds one after the other, and holds what it has bound: two cannot have the same."""

    def __init__(self, running: Running | None, processes: Processes, held: ExitStack) -> None:
        self._running = running
        self._processes = processes
        self._held = held

    def bind(self, where: str, endpoint: Endpoint) -> Iterator[Finding]:
        if endpoint.kind in ("tcp", "tcp6", "ssl"):
            if endpoint.kind == "ssl":
                yield from _certificate(where, endpoint)
            yield from self._tcp(where, endpoint)
        elif endpoint.kind == "unix":
            yield from self._unix(where, endpoint)
        elif endpoint.kind in _HANDED_OVER:
            yield from _handed_over(where, endpoint)
        else:
            yield Finding(
                "note", where, f"only a start can tell whether {endpoint.kind}: can be listened on"
            )

    def source(self, where: str, address: str) -> Iterator[Finding]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as bound:
                bound.bind((address, 0))
        except OSError as error:
            yield Finding(
                "error",
                where,
                f"no connection can come from {address}: {error.strerror}",
                "an address of this machine would do",
            )

    def _tcp(self, where: str, endpoint: Endpoint) -> Iterator[Finding]:
        port = int(endpoint.port or "0")
        interface = endpoint.named.get("interface", "")
        v6 = endpoint.kind == "tcp6" or ":" in interface
        family = socket.AF_INET6 if v6 else socket.AF_INET
        bound = self._held.enter_context(socket.socket(family, socket.SOCK_STREAM))
        # As Twisted does: connections of a former listener that linger do not count.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            address = (interface or ("::" if v6 else ""), port)
            bound.bind(
                socket.getaddrinfo(*address, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
                    0
                ][4]
                if interface
                else address
            )
            bound.listen(1)
        except OSError as error:
            yield from self._refused(where, error, interface, port)

    def _refused(self, where: str, error: OSError, interface: str, port: int) -> Iterator[Finding]:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            yield Finding(
                "error",
                where,
                f"no network interface of this machine has the address {printable(interface)}",
                "name one that it has, or leave interface= out for all",
            )
        elif error.errno == errno.EADDRINUSE:
            yield from self._in_use(where, f"port {port}", self._processes.on_tcp(port))
        elif error.errno == errno.EACCES and port < 1024:
            yield Finding(
                "error",
                where,
                f"user {os.geteuid()} may not listen on port {port}, which is below 1024",
                "start as root with twistd --uid and --gid, or give CAP_NET_BIND_SERVICE, or have"
                " systemd listen (systemd:)",
            )
        else:
            yield Finding("error", where, f"cannot be listened on: {error.strerror}")

    def _in_use(self, where: str, what: str, owners: Sequence[int]) -> Iterator[Finding]:
        running = self._running
        if os.getpid() in owners:  # what was bound for an earlier listener
            yield Finding(
                "error",
                where,
                f"{what} is another listener's",
                "each needs one of its own; tcp6: without interface= takes IPv4 as well",
            )
        elif running and not owners:
            yield Finding(
                "note", where, f"{what} is in use, by the MTA that runs ({running}) presumably"
            )
        elif running and any(self._processes.belongs(one, running.process) for one in owners):
            return
        else:
            yield Finding(
                "error",
                where,
                f"{what} is in use by {self._processes.described(owners)}",
                "stop that, or listen elsewhere",
            )

    def _unix(self, where: str, endpoint: Endpoint) -> Iterator[Finding]:
        path = endpoint.named.get("address") or endpoint.arguments[0]
        shown, directory = printable(path), os.path.dirname(os.path.abspath(path))
        try:
            mode = int(endpoint.named.get("mode", "666"), 8)
        except ValueError:
            mode = -1
        if not 0 <= mode <= 0o777:
            yield Finding(
                "error", where, f"mode={printable(endpoint.named['mode'])} is no mode", "mode=660"
            )
        if len(os.fsencode(path)) > _LONGEST_PATH:
            yield Finding(
                "error",
                where,
                f"the path is longer than {_LONGEST_PATH} octets",
                "a UNIX socket needs a shorter one",
            )
        elif not os.path.isdir(directory):
            yield Finding("error", where, f"{printable(directory)} is no directory", "make it")
        elif not os.access(directory, os.W_OK | os.X_OK):
            yield Finding(
                "error",
                where,
                f"{printable(directory)} cannot be written",
                "give it to the user who runs the MTA",
            )
        elif os.path.lexists(path) and not _is_socket(path):
            yield Finding("error", where, f"{shown} is no socket", "move it away")
        elif os.path.lexists(path):
            # What nobody listens on is removed by a start.
            try:
                owners = self._processes.on_unix(path)
            except OSError:
                yield Finding("note", where, f"{shown} exists; who listens there cannot be told")
                return
            if owners is not None:
                yield from self._in_use(where, shown, owners)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _certificate(where: str, endpoint: Endpoint) -> Iterator[Finding]:
    """Yield why the files of an ``ssl:`` endpoint cannot be used."""
    key = endpoint.named.get("privateKey", "server.pem")
    try:
        CertifiedKey.read(endpoint.named.get("certKey", key), key)
        if "extraCertChain" in endpoint.named:
            read_certificates(endpoint.named["extraCertChain"])
    except CertificateError as error:
        yield Finding.said("error", f"{where}: {error}", where)


def _handed_over(where: str, endpoint: Endpoint) -> Iterator[Finding]:
    if endpoint.kind == "systemd":
        domain = endpoint.named.get("domain", next(iter(endpoint.arguments), ""))
        chosen = ("index" in endpoint.named) + ("name" in endpoint.named)
        if domain not in _FAMILIES or chosen + (len(endpoint.arguments) > 1) != 1:
            yield Finding(
                "error",
                where,
                "no socket is named by it",
                "systemd:domain=INET:name=smtp would do, with FileDescriptorName=smtp",
            )
            return
    yield Finding(
        "note", where, "only who hands that socket over can tell whether it can be listened on"
    )
