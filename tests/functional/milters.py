"""Filters of Debian on loopback or UNIX sockets: Rspamd, OpenDMARC, and ClamAV with its milter."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from .machine import LOOPBACK, free_port, has_ipv6, listens, path_of
from .program import Program, Service

GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
"""The line by which filters of spam are tried."""

# The line by which filters of viruses are tried, in two parts: else they would find this file.
EICAR = r"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-" + "ANTIVIRUS-TEST-FILE!$H+H*"


class Rspamd(Program):
    """Rspamd, as a milter that scans by itself: without Redis, and without a name server.

    Mail with ``SPAM`` in its subject has a score of 7, and gets a header field. All mail gets a
    field ``X-Client``, with the address from which it came.

    Args:
        home: folder of its files.
    """

    foreign = True

    def __init__(self, home: Path) -> None:
        super().__init__(home, "rspamd.log")
        self.port = free_port()

    def start(self) -> None:
        """Start it; return when it listens."""
        files = {
            "rspamd.conf": _RSPAMD.format(home=self.home, address=LOOPBACK, port=self.port),
            "rules.lua": _RULES,
            # The whole list of public suffixes takes seconds to compile.
            "suffixes": "example\ncom\n",
        }
        for name, content in files.items():
            (self.home / name).write_text(content, encoding="ascii")
        (self.home / "cache").mkdir(exist_ok=True)
        insecure = ["-i"] if os.geteuid() == 0 else []  # it runs as root
        self.spawn([path_of("rspamd"), "-f", *insecure, "-c", self.home / "rspamd.conf"])
        self.wait_for(lambda: listens(self.port), "Rspamd listens")

    def stop(self) -> None:
        if self.alive():
            self.terminate()  # which ends its child process too

    @property
    def endpoint(self) -> str:
        """Its address, as a client endpoint of Twisted."""
        return f"tcp:{LOOPBACK}:{self.port}"


_RSPAMD = """\
options {{
    pidfile = "{home}/rspamd.pid";
    filters = "";
    tempdir = "{home}";
    hs_cache_dir = "{home}/cache";
    stats_file = "{home}/stats.ucl";
    control_socket = "{home}/control.sock mode=0600";
    url_tld = "{home}/suffixes";
    dns {{ nameserver = ["{address}:9"]; timeout = 0.1s; retransmits = 1; }}
    gtube_patterns = "all";
}}
lang_detection {{ languages_path = "{home}/none"; }}
logging {{ type = "console"; level = "notice"; }}
actions {{ reject = 15; add_header = 6; }}
worker "rspamd_proxy" {{
    bind_socket = "{address}:{port}";
    count = 1;
    milter = yes;
    timeout = 20s;
    upstream "local" {{ default = yes; self_scan = yes; }}
}}
lua = "{home}/rules.lua";
"""

_RULES = """\
rspamd_config:register_symbol({
    name = "SPAM_IN_SUBJECT", score = 7.0, group = "test",
    callback = function(task)
        local subject = task:get_header("Subject") or ""
        return subject:find("SPAM", 1, true) ~= nil
    end,
})
rspamd_config:register_symbol({
    name = "CLIENT", score = 0.0, group = "test", type = "postfilter",
    callback = function(task)
        local address = tostring(task:get_from_ip())
        task:set_milter_reply({ add_headers = { ["X-Client"] = address } })
    end,
})
"""


class OpenDMARC(Program):
    """OpenDMARC on the loopback interface, by IPv6 if there is; it refuses what policies say.

    Args:
        home: folder of its files.
        records: policy records by domain name; there are no others.
        trusted: whose Authentication-Results fields it believes.
    """

    foreign = True

    def __init__(self, home: Path, records: Mapping[str, str], *, trusted: str) -> None:
        super().__init__(home, "opendmarc.log")
        self.port = free_port()
        self._host = "[::1]" if has_ipv6() else LOOPBACK
        self._records = records
        self._trusted = trusted

    def start(self) -> None:
        """Start it; return when it listens."""
        records = self.home / "opendmarc.records"
        records.write_text("".join(f"{name} {self._records[name]}\n" for name in self._records))
        ignored = self.home / "opendmarc.ignored"
        ignored.write_text("192.0.2.1\n")  # by default it ignores loopback
        settings = (
            f"Socket inet6:{self.port}@[::1]"
            if has_ipv6()
            else f"Socket inet:{self.port}@{LOOPBACK}",
            f"PidFile {self.home}/opendmarc.pid",
            f"BaseDirectory {self.home}",
            f"IgnoreHosts {ignored}",
            f"TestDNSData {records}",
            "AuthservID opendmarc.example",
            f"TrustedAuthservIDs {self._trusted}",
            "RejectFailures true",
            "Syslog false",
        )
        configuration = self.home / "opendmarc.conf"
        configuration.write_text("".join(f"{line}\n" for line in settings))
        self.spawn([path_of("opendmarc"), "-f", "-c", configuration])
        self.wait_for(self._listens, "OpenDMARC listens")

    def _listens(self) -> bool:
        if not has_ipv6():
            return listens(self.port)
        with socket.socket(socket.AF_INET6) as client:
            return client.connect_ex(("::1", self.port)) == 0

    @property
    def endpoint(self) -> str:
        """Its address, as a client endpoint of Twisted."""
        return f"tcp:\\:\\:1:{self.port}" if has_ipv6() else f"tcp:{LOOPBACK}:{self.port}"


class _Clamd(Program):
    """ClamAV's scanner, on a UNIX socket, which knows nothing but EICAR."""

    foreign = True

    def __init__(self, home: Path) -> None:
        super().__init__(home, "clamd.log")
        self.socket = home / "clamd.sock"

    def start(self) -> None:
        signatures = self.home / "signatures"
        signatures.mkdir(exist_ok=True)
        (signatures / "test.ndb").write_text(f"Eicar-Test:0:*:{EICAR.encode().hex()}\n")
        settings = [
            f"DatabaseDirectory {signatures}",
            f"LocalSocket {self.socket}",
            f"TemporaryDirectory {self.home}",
            "Foreground yes",
            "MaxThreads 2",
            *_as_root(),
        ]
        configuration = self.home / "clamd.conf"
        configuration.write_text("".join(f"{line}\n" for line in settings))
        self.spawn([path_of("clamd"), "-c", configuration])
        self.wait_for(lambda: _is_open(self.socket), "clamd listens")


class ClamAV(Service):
    """ClamAV's milter on a UNIX socket, with its scanner.

    Args:
        home: folder of their files.
        on_infected: what happens to mail with a virus: ``Reject`` or ``Quarantine``, for example.
    """

    foreign = True

    def __init__(self, home: Path, on_infected: str) -> None:
        self.socket = home / "milter.sock"
        self._scanner = _Clamd(home)
        self._milter = Program(home, "clamav-milter.log")
        self._settings = (
            f"MilterSocket unix:{self.socket}",
            f"ClamdSocket unix:{self._scanner.socket}",
            f"TemporaryDirectory {home}",
            "Foreground yes",
            f"OnInfected {on_infected}",
            *(("RejectMsg Found %v",) if on_infected == "Reject" else ()),
            "OnFail Defer",
            "AddHeader Add",
            *_as_root(),
        )

    def start(self) -> None:
        """Start both; return when they listen."""
        self._scanner.start()
        configuration = self._milter.home / "clamav-milter.conf"
        configuration.write_text("".join(f"{line}\n" for line in self._settings))
        self._milter.spawn([path_of("clamav-milter"), "-c", configuration])
        self._milter.wait_for(lambda: _is_open(self.socket), "clamav-milter listens")

    def stop(self) -> None:
        self._milter.stop()
        self._scanner.stop()

    @property
    def endpoint(self) -> str:
        """Its address, as a client endpoint of Twisted."""
        return f"unix:{self.socket}"


def _as_root() -> list[str]:
    """Return the setting by which a program of ClamAV stays root, where it is."""
    return ["User root"] if os.geteuid() == 0 else []


def _is_open(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0
