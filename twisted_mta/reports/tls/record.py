"""The record by which a domain asks for reports on TLS (RFC 8460 §3).

A record is a text that its domain wrote, and may be hostile. It is read in linear time up to
`LONGEST`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from attrs import field, frozen

from ...mail.address import AddressError, Mailbox, domain_name
from ...mail.mailto import mailto
from ...mail.printable import printable

LONGEST = 4_096
"""Octets of the longest record that is read."""

MOST_DESTINATIONS = 10
"""Destinations of one record that get reports; further ones are ignored."""

# RFC 8460 §3:
#
#   tlsrpt-record    = tlsrpt-version 1*(field-delim tlsrpt-field) [field-delim]
#   field-delim      = *WSP ";" *WSP
#   tlsrpt-version   = %s"v=TLSRPTv1"
#   tlsrpt-rua       = %s"rua=" tlsrpt-uri *(*WSP "," *WSP tlsrpt-uri)
#   tlsrpt-extension = ext-name "=" ext-value
_VERSION = re.compile(rb"v=TLSRPTv1[ \t]*+(?:;|\Z)")
_FIELD = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})=([\x20-\x3a\x3c-\x7e\t]++)")
# RFC 3986 §3; a comma, semicolon or exclamation mark has to be percent-encoded.
_URI = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*+:(?:[A-Za-z0-9._~:/?#\[\]@$&'()*+=-]|%[0-9A-Fa-f]{2})++"
)


@frozen
class Collector:
    """An ``https`` destination.

    Attributes:
        host: its name, in A-labels, or its IPv4 address.
        port: its TCP port.
        path: with the query; begins with a slash.
    """

    host: str
    port: int
    path: str

    def __str__(self) -> str:
        port = "" if self.port == 443 else f":{self.port}"
        return f"https://{self.host}{port}{self.path}"


@frozen
class ReportRecord:
    """What a domain asks for.

    Attributes:
        mailboxes: that get reports by mail.
        collectors: that get them by HTTPS.
        faults: what is wrong with the record, for people; printable.
    """

    mailboxes: tuple[Mailbox, ...] = ()
    collectors: tuple[Collector, ...] = ()
    faults: tuple[str, ...] = field(default=())


def name_of(domain: str) -> str:
    """Return the name of a domain's record."""
    return f"_smtp._tls.{domain}"


def report_record(texts: Sequence[bytes]) -> ReportRecord | None:
    """Return the record among the TXT records of `name_of`; None: there is not exactly one.

    RFC 8460 §3: other records are discarded, and where not exactly one is left, the domain gets no
    reports.
    """
    versioned = [text for text in texts if _VERSION.match(text)]
    return _read(versioned[0]) if len(versioned) == 1 else None


def _read(octets: bytes) -> ReportRecord:
    if len(octets) > LONGEST:
        return ReportRecord(
            faults=(f"found {len(octets)} octets, expected at most {LONGEST}",),
        )
    faults: list[str] = []
    destinations: dict[Mailbox | Collector, None] = {}
    found = False
    for part in octets.decode("ascii", "replace").split(";")[1:]:
        text = part.strip(" \t")
        if not text:
            continue
        read = _FIELD.fullmatch(text)
        if read is None:
            faults.append(f"found {_shown(text)}, expected name=value")
        elif read[1] == "rua" and not found:
            found = True
            _read_destinations(read[2], destinations, faults)
        elif read[1] == "rua":
            faults.append("found a second rua, which is ignored; expected one with commas")
    if not found:
        faults.append("found no rua, expected rua=mailto: or rua=https:")
    return ReportRecord(
        tuple(each for each in destinations if isinstance(each, Mailbox)),
        tuple(each for each in destinations if isinstance(each, Collector)),
        tuple(faults),
    )


def _read_destinations(
    value: str, destinations: dict[Mailbox | Collector, None], faults: list[str]
) -> None:
    parts = value.split(",")
    if len(parts) > MOST_DESTINATIONS:
        faults.append(f"rua: found {len(parts)} URIs, of which {MOST_DESTINATIONS} are used")
    for part in parts[:MOST_DESTINATIONS]:
        uri = part.strip(" \t")
        destination = _destination(uri) if _URI.fullmatch(uri) else None
        if destination is None:
            faults.append(f"rua: found {_shown(uri)}, expected a mailto: or https: URI")
        else:
            destinations[destination] = None


def _destination(uri: str) -> Mailbox | Collector | None:
    return mailto(uri) or _collector(uri)


def _collector(uri: str) -> Collector | None:
    try:
        parts = urlsplit(uri)
        port = parts.port
        host = domain_name(parts.hostname or "")
    except (ValueError, AddressError):
        return None
    if parts.scheme != "https" or parts.username is not None or port == 0:
        return None
    if host.startswith("["):
        return None
    query = f"?{parts.query}" if parts.query else ""
    return Collector(host, port or 443, f"{parts.path or '/'}{query}")


def _shown(text: str) -> str:
    return printable(text[:40])
