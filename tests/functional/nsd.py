"""NSD, an authoritative name server, on a free loopback port."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .machine import LOOPBACK, Unready, free_port, path_of, run
from .program import Program

_CONFIGURATION = """\
server:
    ip-address: {address}@{port}
    do-ip6: no
    server-count: 1
    username: ""
    zonesdir: "{home}"
    pidfile: "{home}/nsd.pid"
    xfrdfile: "{home}/xfrd.state"
    xfrdir: "{home}"
    zonelistfile: "{home}/zone.list"
    cookie-secret-file: "{home}/cookies"
remote-control:
    control-enable: no
"""


def beginning(zone: str) -> str:
    """Return the first lines of a zone file: SOA and NS."""
    return (
        f"$ORIGIN {zone}.\n$TTL 300\n@ SOA ns hostmaster 1 3600 600 86400 300\n"
        f"@ NS ns\nns A {LOOPBACK}\n"
    )


class NSD(Program):
    """A name server with authority for some zones; it refuses questions for others.

    Args:
        home: folder of its files.
        zones: by name, the records after SOA and NS, read at the start; None: a zone whose file is
            missing.
        whole: by name, zones with all their records, such as those that are signed.
    """

    foreign = True

    def __init__(
        self,
        home: Path,
        zones: Mapping[str, str | None],
        whole: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(home, "nsd.log")
        self.zones = zones
        self.whole = whole or {}
        self.address = LOOPBACK
        self.port = free_port()

    def start(self) -> None:
        """Start it; return when it answers."""
        lines = [_CONFIGURATION.format(address=self.address, port=self.port, home=self.home)]
        zones = {
            name: None if records is None else beginning(name) + records
            for name, records in self.zones.items()
        }
        for name, records in {**zones, **self.whole}.items():
            lines.append(f'zone:\n    name: "{name}"\n    zonefile: "{name}.zone"\n')
            if records is not None:
                (self.home / f"{name}.zone").write_text(records, encoding="ascii")
        configuration = self.home / "nsd.conf"
        configuration.write_text("".join(lines), encoding="ascii")
        checked = run("nsd-checkconf", configuration)
        if checked.returncode:
            raise RuntimeError(checked.stdout)
        for attempt in range(8):
            self.spawn([path_of("nsd"), "-d", "-c", configuration])
            try:
                self.wait_for(lambda: "nsd started" in self.output(), "NSD answers")
            except Unready:
                # On a busy machine a start fails now and then: "did not get start signal from
                # main".
                if attempt == 7 or self.alive():
                    raise
            else:
                return

    def stop(self) -> None:
        if self.alive():
            self.terminate()  # which ends its child processes too
