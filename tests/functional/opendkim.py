"""OpenDKIM: as a milter on loopback, and as a judge of messages in files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from .machine import LOOPBACK, free_port, listens, path_of, run
from .program import Program


class OpenDKIM(Program):
    """A milter that verifies all mail, or signs all mail.

    Args:
        home: folder of its files.
        keys: texts of key records by domain name, which it takes instead of the DNS.
        signs: domain, selector and key file; None: it verifies.
    """

    foreign = True

    def __init__(
        self,
        home: Path,
        keys: Mapping[str, bytes] | None = None,
        signs: tuple[str, str, Path] | None = None,
    ) -> None:
        super().__init__(home, "opendkim.log")
        self.port = free_port()
        settings = [
            f"Socket inet:{self.port}@{LOOPBACK}",
            f"PidFile {home}/opendkim.pid",
            "AuthservID opendkim.example",
        ]
        if signs is None:
            # Mail of other hosts than these is verified.
            settings += ["Mode v", "InternalHosts 192.0.2.1", "AlwaysAddARHeader yes"]
        else:
            settings += [*_signing(signs), "Canonicalization relaxed/simple"]
        self._configuration = _configuration(home, keys or {}, settings)

    def start(self) -> None:
        """Start it; return when it listens."""
        self.spawn([path_of("opendkim"), "-f", "-x", self._configuration])
        self.wait_for(lambda: listens(self.port), "OpenDKIM listens")

    @property
    def endpoint(self) -> str:
        """Its address, as a client endpoint of Twisted."""
        return f"tcp:{LOOPBACK}:{self.port}"

    @property
    def milter(self) -> str:
        """Its address, as settings of Postfix have it."""
        return f"inet:{LOOPBACK}:{self.port}"


def verdicts(home: Path, messages: Sequence[bytes], keys: Mapping[str, bytes]) -> Sequence[bool]:
    """Return for each message whether OpenDKIM takes its first signature for valid.

    Args:
        home: a folder for files.
        messages: header and body.
        keys: texts of key records by domain name.
    """
    done = _test(home, messages, _configuration(home, keys, ["Mode v"]))
    found = dict(re.findall(r"(\d+)\.eml: verification \(.*\) (succeeded|failed)", done))
    if len(found) != len(messages):
        raise AssertionError(done)
    return [found[str(number)] == "succeeded" for number in range(len(messages))]


def signatures(
    home: Path, messages: Sequence[bytes], signs: tuple[str, str, Path], canonicalization: str
) -> Sequence[bytes]:
    """Return the DKIM-Signature field that OpenDKIM makes for each message.

    Args:
        home: a folder for files.
        messages: header and body.
        signs: domain, selector and key file.
        canonicalization: of header and body: ``relaxed/simple``.
    """
    settings = [*_signing(signs), f"Canonicalization {canonicalization}"]
    done = _test(home, messages, _configuration(home, {}, settings))
    fields = re.findall(r"(?m)^DKIM-Signature: .*(?:\n\t.*)*\n", done)
    if len(fields) != len(messages):
        raise AssertionError(done)
    return [field.replace("\n", "\r\n").encode("ascii") for field in fields]


def _test(home: Path, messages: Sequence[bytes], configuration: Path) -> str:
    """Run OpenDKIM on messages in files; return its output."""
    paths = [home / f"{number}.eml" for number in range(len(messages))]
    for path, message in zip(paths, messages, strict=True):
        path.write_bytes(message)
    return run("opendkim", "-x", configuration, "-t", ",".join(map(str, paths))).stdout


def _signing(signs: tuple[str, str, Path]) -> list[str]:
    domain, selector, file = signs
    return [
        "Mode s",
        f"Domain {domain}",
        f"Selector {selector}",
        f"KeyFile {file}",
        "RequireSafeKeys no",
        "SignatureAlgorithm rsa-sha256",
    ]


def _configuration(home: Path, keys: Mapping[str, bytes], settings: Sequence[str]) -> Path:
    records = home / "opendkim.keys"
    records.write_bytes(b"".join(b"%b %b\n" % (name.encode(), keys[name]) for name in keys))
    path = home / "opendkim.conf"
    lines = ["Syslog no", f"TestPublicKeys {records}", *settings]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
