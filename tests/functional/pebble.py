"""Pebble, the authority for tests of ACME clients, with a name server of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tests.server.authority import Authority

from .machine import LOOPBACK, free_port, listens, path_of
from .program import Program


class Names(Program):
    """A name server by which every name is at loopback."""

    foreign = True

    def __init__(self, home: Path) -> None:
        super().__init__(home, "challtestsrv.log")
        self.port = free_port()

    def start(self) -> None:
        address = f"{LOOPBACK}:{self.port}"
        nothing = [f"-{each}=" for each in ("http01", "https01", "tlsalpn01", "defaultIPv6")]
        management = f"-management={LOOPBACK}:{free_port()}"
        program = path_of("pebble-challtestsrv")
        self.spawn([program, f"-dns01={address}", management, *nothing])


class Pebble(Program):
    """An authority that refuses some good nonces, and keeps to the RFC otherwise.

    Args:
        home: folder of its files.
        life: seconds for which its certificates are valid.
        keys: of external account binding, by identifier; none: it is not needed.

    Attributes:
        directory: the URL of its directory.
        challenges: the port at which it fetches answers to challenges.
        authorities: the path of the PEM file with what its own certificate verifies against.
    """

    foreign = True

    def __init__(self, home: Path, *, life: int, keys: Mapping[str, str] | None = None) -> None:
        super().__init__(home, "pebble.log")
        self.challenges = free_port()
        self._life = life
        self._keys = keys or {}
        self._port = free_port()
        self._names = Names(home)
        self.directory = f"https://localhost:{self._port}/dir"
        authority = Authority()
        self.authorities = authority.issued.save(str(home), "authorities.pem")
        issued = authority.issue("localhost", names=["localhost"], for_clients=False)
        self._certificate = issued.save(str(home), "pebble.pem")

    def start(self) -> None:
        self._names.start()
        settings = {
            "listenAddress": f"{LOOPBACK}:{self._port}",
            "certificate": self._certificate,
            "privateKey": self._certificate,
            "httpPort": self.challenges,
            "tlsPort": self.challenges,
            "externalAccountBindingRequired": bool(self._keys),
            "externalAccountMACKeys": self._keys,
            "certificateValidityPeriod": self._life,
        }
        file = self.home / "pebble.json"
        file.write_text(json.dumps({"pebble": settings}), encoding="utf-8")
        self.environment = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "20"}
        names = f"-dnsserver={LOOPBACK}:{self._names.port}"
        self.spawn([path_of("pebble"), "-config", file, "-strict", names])
        self.wait_for(lambda: listens(self._port), "Pebble listens")

    def stop(self) -> None:
        super().stop()
        self._names.stop()
