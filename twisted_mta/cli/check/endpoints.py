"""Endpoints of listeners, and source addresses: each is bound for an instant."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from ...config import Config
from ...config.endpoint import Endpoint
from ...mail.printable import printable
from ...tls.certificates import CertificateError, CertifiedKey, read_certificates
from .finding import Finding
from .processes import Processes, Running

_LONGEST_PATH = 107  # octets; sun_path has 108, with the final NUL
_HANDED_OVER = ("systemd", "fd")
_FAMILIES = ("INET", "INET6", "UNIX")


def endpoints(config: Config, running: Running | None, processes: Processes) -> Iterator[Finding]:
    """Yield why listeners cannot listen, and source addresses cannot be used.

    Args:
        config: the settings.
        running: the MTA that may listen already.
        processes: finds other processes that listen.
    """
    places = [(f"listener {each.endpoint}", each.endpoint) for each in config.listeners]
    if config.web is not None:
        places.append(("[mta] web", config.web))
    if config.mta_sts.publish is not None:
        places.append(("[mta_sts] publish", config.mta_sts.publish))
    if config.acme is not None:
        places.append(("[acme] endpoint", config.acme.endpoint))
    with ExitStack() as held:
        binding = _Binding(running, processes, held)
        for where, description in places:
            yield from binding.bind(printable(where), Endpoint.parse(description))
        for where, source in _sources(config):
            yield from binding.source(where, source)


def _sources(config: Config) -> Iterator[tuple[str, str]]:
    """Yield (setting, address) of each source address."""
    for address in config.delivery.source_address or ():
        yield "[delivery] source_address", address
    for pool in config.source_pools:
        for each in pool.address:
            yield f"[[source_pool]] {pool.name}, address", each.address
    for destination in config.destinations:
        for address in destination.source_address or ():
            yield f"[[destination]] {printable(destination.name)}, source_address", address


class _Binding:
    """Binds endpoints, and keeps them bound: so two listeners on one endpoint are found."""

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
            yield Finding("note", where, f"{endpoint.kind}: endpoints are not checked")

    def source(self, where: str, address: str) -> Iterator[Finding]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as bound:
                bound.bind((address, 0))
        except OSError as error:
            yield Finding(
                "error",
                where,
                f"{address} cannot be used: {error.strerror}",
                "expected an address of this machine",
            )

    def _tcp(self, where: str, endpoint: Endpoint) -> Iterator[Finding]:
        port = int(endpoint.port or "0")
        interface = endpoint.named.get("interface", "")
        v6 = endpoint.kind == "tcp6" or ":" in interface
        family = socket.AF_INET6 if v6 else socket.AF_INET
        bound = self._held.enter_context(socket.socket(family, socket.SOCK_STREAM))
        # As Twisted does: lingering connections of an earlier listener do not count.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        address: Any = ("::" if v6 else "0.0.0.0", port)
        try:
            if interface:
                address = socket.getaddrinfo(
                    interface, port, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE
                )[0][4]
            bound.bind(address)
            bound.listen(1)
        except OSError as error:
            owners = self._processes.on_tcp(port, address[0].partition("%")[0])
            yield from self._refused(where, error, interface, port, owners)

    def _refused(
        self, where: str, error: OSError, interface: str, port: int, owners: Sequence[int]
    ) -> Iterator[Finding]:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            yield Finding(
                "error",
                where,
                f"{printable(interface)} is not an address of this machine",
                "name one of its addresses, or leave out interface= for all",
            )
        elif error.errno == errno.EADDRINUSE:
            yield from self._in_use(where, f"port {port}", owners)
        elif error.errno == errno.EACCES and port < 1024:
            yield Finding(
                "error",
                where,
                f"user {os.geteuid()} may not listen on port {port}, which is below 1024",
                "start as root with twistd --uid and --gid, or grant CAP_NET_BIND_SERVICE, or use"
                " socket activation (systemd:)",
            )
        else:
            yield Finding("error", where, f"listening failed: {error.strerror}")

    def _in_use(self, where: str, what: str, owners: Sequence[int]) -> Iterator[Finding]:
        running = self._running
        if os.getpid() in owners:  # bound for an earlier listener
            yield Finding(
                "error",
                where,
                f"{what} belongs to another listener",
                "expected a different one; tcp6: without interface= includes IPv4",
            )
        elif running and not owners:
            yield Finding(
                "note", where, f"{what} is in use, presumably by the running MTA ({running})"
            )
        elif running and any(self._processes.belongs(each, running.process) for each in owners):
            return
        else:
            yield Finding(
                "error",
                where,
                f"{what} is in use by {self._processes.described(owners)}",
                "stop that process, or choose another endpoint",
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
                "error",
                where,
                f"mode={printable(endpoint.named['mode'])} is not a mode",
                "expected one such as 660",
            )
        if len(os.fsencode(path)) > _LONGEST_PATH:
            yield Finding(
                "error",
                where,
                f"the path has {len(os.fsencode(path))} octets",
                f"expected at most {_LONGEST_PATH}, the limit of UNIX sockets",
            )
        elif not os.path.isdir(directory):
            yield Finding("error", where, f"{printable(directory)} is not a directory", "create it")
        elif not os.access(directory, os.W_OK | os.X_OK):
            yield Finding(
                "error",
                where,
                f"{printable(directory)} is not writable",
                "give it to the user that runs the MTA",
            )
        elif os.path.lexists(path) and not _is_socket(path):
            yield Finding("error", where, f"{shown} is not a socket", "move it away")
        elif os.path.lexists(path):
            # A start removes a socket on which no process listens.
            try:
                owners = self._processes.on_unix(path)
            except OSError:
                yield Finding("note", where, f"{shown} exists; the listening process is unknown")
                return
            if owners is not None:
                yield from self._in_use(where, shown, owners)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _certificate(where: str, endpoint: Endpoint) -> Iterator[Finding]:
    """Yield errors of the files of an ``ssl:`` endpoint."""
    key = endpoint.named.get("privateKey", "server.pem")
    try:
        CertifiedKey.read(endpoint.named.get("certKey", key), key)
        if "extraCertChain" in endpoint.named:
            read_certificates(endpoint.named["extraCertChain"])
    except CertificateError as error:
        yield Finding.from_error("error", f"{where}: {error}", where)


def _handed_over(where: str, endpoint: Endpoint) -> Iterator[Finding]:
    if endpoint.kind == "systemd":
        domain = endpoint.named.get("domain", next(iter(endpoint.arguments), ""))
        chosen = ("index" in endpoint.named) + ("name" in endpoint.named)
        if domain not in _FAMILIES or chosen + (len(endpoint.arguments) > 1) != 1:
            yield Finding(
                "error",
                where,
                "it names no socket",
                "expected systemd:domain=INET:name=smtp, with FileDescriptorName=smtp in the unit",
            )
            return
    yield Finding("note", where, "sockets that are passed to the MTA are not checked")
