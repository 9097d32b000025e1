"""One table of what expires: certificates by their dates, keys of signatures by their age."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from attrs import asdict, frozen

from ..config import Config
from ..mail.printable import printable
from ..tls.certificate_files import certificate_file, certificate_files, names_of
from ..tls.certificates import CertificateError, CertifiedKey
from ..tls.self_signed import SELF_SIGNED

_KEY_AGE = 365 * 86_400.0
"""Seconds after which a key of signatures is to be replaced: a stolen copy is then of no use."""

_DAY = 86_400.0

Kind = Literal["certificate", "client certificate", "DKIM key"]

KINDS: tuple[Kind, ...] = ("certificate", "client certificate", "DKIM key")


@frozen(kw_only=True)
class Expiry:
    """One thing that expires.

    Attributes:
        kind: what it is.
        of: whose: the host names and the kinds of listeners, a destination, a record; printable.
        file: its path, printable.
        at: wall time at which it expires, or is to be replaced; seconds since the epoch.
        do: what to do about it; printable.
    """

    kind: Kind
    of: str
    file: str
    at: float
    do: str

    @property
    def day(self) -> str:
        """The day, in UTC."""
        return f"{datetime.fromtimestamp(self.at, UTC):%Y-%m-%d}"

    def days_left(self, now: float) -> int:
        """Return the whole days that are left at ``now``; negative: it is over."""
        return int((self.at - now) // _DAY)

    def to_json(self) -> Mapping[str, Any]:
        """Return plain types."""
        return {**asdict(self), "day": self.day}


def expiries(config: Config) -> Sequence[Expiry]:
    """Return certificates and keys that expire, the earliest first. Blocks: it reads the files.

    Files that cannot be read are left out: a start and a reload name them.
    """
    found = [*_of_listeners(config), *_of_destinations(config), *_of_signatures(config)]
    return sorted(found, key=lambda each: (each.at, each.of))


def _of_listeners(config: Config) -> Iterator[Expiry]:
    ours, wanted = certificate_files(config, SELF_SIGNED), config.hostname
    shown: dict[tuple[str, str], tuple[str, list[str]]] = {}
    for listener in config.listeners:
        if listener.tls != "none":
            shown.setdefault(ours, (wanted, []))[1].append(listener.kind)
            for each in listener.sni:
                files = each.certificate, each.key
                shown.setdefault(files, (names_of(each.names), []))[1].append(listener.kind)
    if config.mta_sts.publish is not None:
        shown.setdefault(ours, (wanted, []))[1].append("mta-sts")
    for (file, key), (names, kinds) in shown.items():
        loaded = _read(file, key)
        if loaded is None:
            continue
        if file == certificate_file(config.state_dir):
            names = names_of(config.certificate_names)
            do = _renewal(loaded, config.state_dir)
        elif file == os.path.join(config.state_dir, SELF_SIGNED):
            do = "nothing: it is self-signed, and a start after that day makes another"
        else:
            do = "replace the file before, and run twisted-mta reload"
        kinds_of = ", ".join(dict.fromkeys(kinds))
        yield Expiry(
            kind="certificate",
            of=f"{printable(names)} ({kinds_of})",
            file=printable(file),
            at=_end(loaded),
            do=do,
        )


def _renewal(loaded: CertifiedKey, state_dir: str) -> str:
    from ..tls.acme.schedule import renewal_time
    from ..tls.acme.store import read_status

    status = read_status(state_dir)
    if status.problem:
        return f"renewal fails: {status.problem}; mend that, and run twisted-mta reload"
    at = renewal_time(loaded.certificate, status.window, status.issued_at)
    return f"nothing: it renews itself, about {datetime.fromtimestamp(at, UTC):%Y-%m-%d}"


def _of_destinations(config: Config) -> Iterator[Expiry]:
    by_files: dict[tuple[str, str], list[str]] = {}
    for each in config.destinations:
        if each.client_certificate is not None:
            files = each.client_certificate, each.client_key or each.client_certificate
            by_files.setdefault(files, []).append(each.name)
    for (file, key), names in by_files.items():
        loaded = _read(file, key)
        if loaded is not None:
            yield Expiry(
                kind="client certificate",
                of=f"[[destination]] {names_of(names)}",
                file=printable(file),
                at=_end(loaded),
                do="replace the file before, and run twisted-mta reload",
            )


def _of_signatures(config: Config) -> Iterator[Expiry]:
    for each in config.dkim_keys:
        try:
            made = os.stat(each.key).st_mtime
        except OSError:
            continue
        domain = printable(each.domain)
        yield Expiry(
            kind="DKIM key",
            of=printable(each.record_name),
            file=printable(each.key),
            at=made + _KEY_AGE,
            do=f"make its successor by twisted-mta dkim new --domain {domain}",
        )


def _read(file: str, key: str) -> CertifiedKey | None:
    try:
        return CertifiedKey.read(file, key)
    except CertificateError:
        return None


def _end(loaded: CertifiedKey) -> float:
    """Return when the first certificate of a chain expires: from then on it cannot be verified."""
    return min(each.not_valid_after_utc.timestamp() for each in loaded.chain)
