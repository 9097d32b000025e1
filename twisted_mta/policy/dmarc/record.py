"""DMARC policy records (RFC 9989 §4.7): the preferences that a domain publishes.

A record is a text that its domain wrote, and may be hostile. It is read in linear time up to
`LONGEST`; what cannot be read counts as absent (§4.8).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Literal, TypeGuard

from attrs import frozen

from ...mail.address import Mailbox
from ...mail.mailto import mailto
from ...mail.printable import printable

Request = Literal["none", "quarantine", "reject"]
"""The handling of failing mail that a domain asks for, from the weakest to the strongest."""

LONGEST = 4_096
"""Octets of the longest record that is read; a longer one is no record."""

MOST_DESTINATIONS = 10
"""Destinations of reports that are read; further ones are ignored."""

# RFC 9989 §4.8, whose literal strings are in any case, except for DMARC1:
#
#   dmarc-record  = dmarc-version *(dmarc-sep dmarc-tag) [dmarc-sep]
#   dmarc-version = "v" equals %s"DMARC1"
#   dmarc-sep     = *WSP ";" *WSP
#   dmarc-tag     = 1*ALPHA equals 1*dmarc-value
_VERSION = re.compile(r"[ \t]*+[vV][ \t]*+=[ \t]*+DMARC1[ \t]*+(?:;|\Z)")
_TAG = re.compile(r"([A-Za-z]++)[ \t]*+=[ \t]*+([\x20-\x3a\x3c-\x7e]++)")

# RFC 3986 §3: URI = scheme ":" hier-part ...; §2: the characters of all its parts.
_URI = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*+:(?:[A-Za-z0-9._~:/?#\[\]@$&'()*+;=-]|%[0-9A-Fa-f]{2})++"
)
# RFC 9989 §4.8: obs-dmarc-report-size = "!" 1*DIGIT [ "k" / "m" / "g" / "t" ]
_SIZE = re.compile(r"![0-9]++[kmgtKMGT]?\Z")
# RFC 9989 §4.8: dmarc-fo, its values in any order
_FAILURE_OPTIONS = re.compile(r"[01ds](?::[01ds]){0,3}")


@frozen
class Record:
    """A policy record.

    Attributes:
        p: the request for the domain itself, and for its subdomains without a request of their own.
        sp: the request for existing subdomains; None: `p`.
        np: the request for subdomains that do not exist; None: that for existing ones.
        psd: ``y``: a public suffix domain; ``n``: an organizational domain; ``u``: the tree walk
            has to find out.
        testing: whether requests are lowered by one level.
        adkim: the alignment of DKIM, ``r`` (relaxed) or ``s`` (strict).
        aspf: the alignment of SPF.
        fo: the options of failure reports, which are never sent (``ruf`` is not read further).
        rua: the mailboxes that ask for aggregate reports.
        applies: whether the record is applied to mail (§4.10.1); otherwise it only tells where
            organizations end.
        faults: what is wrong with it, for the domain owner; printable.
    """

    p: Request = "none"
    sp: Request | None = None
    np: Request | None = None
    psd: Literal["y", "n", "u"] = "u"
    testing: bool = False
    adkim: Literal["r", "s"] = "r"
    aspf: Literal["r", "s"] = "r"
    fo: str = "0"
    rua: tuple[Mailbox, ...] = ()
    applies: bool = True
    faults: tuple[str, ...] = ()

    @classmethod
    def parse(cls, octets: bytes) -> Record | None:
        """Read a TXT record; None: it is no policy record."""
        return _parsed(octets) if len(octets) <= LONGEST else None

    @classmethod
    def _read(cls, octets: bytes) -> Record | None:
        tags = read_tags(octets)
        if tags is None:
            return None
        reader = _Reader(tags)
        p, sp, np = (reader.request(name) for name in ("p", "sp", "np"))
        uris = reader.uris("rua")
        applies = True
        # RFC 9989 §4.10.1: without a valid "p", or with an "sp" or "np" that is not valid, the
        # record is taken as "p=none" if it asks for reports, and is not applied otherwise.
        if p is None or any(reader.is_wrong(name) for name in ("sp", "np")):
            p, sp, np, applies = "none", None, None, bool(uris)
        # RFC 9989 §4.7: URIs of other schemes are ignored.
        mailboxes = dict.fromkeys(mailbox for uri in uris if (mailbox := mailto(uri)))
        return cls(
            p=p,
            sp=sp,
            np=np,
            psd=reader.psd(),
            testing=reader.choice("t", "yn") == "y",
            adkim="s" if reader.choice("adkim", "rs") == "s" else "r",
            aspf="s" if reader.choice("aspf", "rs") == "s" else "r",
            fo=reader.failure_options(),
            rua=tuple(mailboxes),
            applies=applies,
            faults=tuple(reader.faults),
        )


@lru_cache(maxsize=512)
def _parsed(octets: bytes) -> Record | None:
    return Record._read(octets)


def lowered(request: Request) -> Request:
    """Return a request one level lower (RFC 9989 §4.7, "t")."""
    return "quarantine" if request == "reject" else "none"


def read_tags(octets: bytes) -> Mapping[str, str] | None:
    """Return the tags of a record of DMARC by their names in lower case, without ``v``.

    Where a name occurs twice, the first one counts. Values have no white space around them.

    Returns:
        None where the record does not begin with ``v=DMARC1`` (RFC 9989 §4.7), or is too long.
    """
    if len(octets) > LONGEST:
        return None
    text = octets.decode("ascii", "replace").replace("\r", " ").replace("\n", " ")
    version = _VERSION.match(text)
    if not version:
        return None
    tags: dict[str, str] = {}
    for part in text[version.end() :].split(";"):
        tag = _TAG.fullmatch(part.strip(" \t"))
        if tag:
            # RFC 9989 §4.8: a syntax error is discarded; a second tag of one name is one.
            tags.setdefault(tag[1].lower(), tag[2].strip(" \t"))
    return tags


def uri_list(value: str) -> Iterator[str]:
    """Yield the URIs of a ``dmarc-urilist`` that are valid, without the obsolete size limit.

    RFC 9989 §4.8: reporters ignore that limit.
    """
    for part in value.split(",")[:MOST_DESTINATIONS]:
        uri = _SIZE.sub("", part.strip(" \t"))
        if _URI.fullmatch(uri):
            yield uri


class _Reader:
    """Reads tags, and notes those that are wrong."""

    def __init__(self, tags: Mapping[str, str]) -> None:
        self._tags = tags
        self._wrong: set[str] = set()
        self.faults: list[str] = []

    def is_wrong(self, name: str) -> bool:
        return name in self._wrong

    def _fault(self, name: str, expected: str) -> None:
        self._wrong.add(name)
        found = printable(self._tags[name][:40])
        self.faults.append(f"{name}: found {found}, expected {expected}")

    def choice(self, name: str, letters: str) -> str | None:
        """Return a letter in lower case; None: the tag is missing, or wrong."""
        value = self._tags.get(name, "").lower()
        if value in tuple(letters):
            return value
        if name in self._tags:
            self._fault(name, " or ".join(letters))
        return None

    def psd(self) -> Literal["y", "n", "u"]:
        value = self.choice("psd", "ynu")
        return "y" if value == "y" else "n" if value == "n" else "u"

    def request(self, name: str) -> Request | None:
        value = self._tags.get(name, "").lower()
        if _is_request(value):
            return value
        if name in self._tags:
            self._fault(name, "none, quarantine or reject")
        return None

    def uris(self, name: str) -> list[str]:
        value = self._tags.get(name)
        if value is None:
            return []
        uris = list(uri_list(value))
        if not uris:
            self._fault(name, "a list of URIs")
        return uris

    def failure_options(self) -> str:
        if "fo" not in self._tags or "ruf" not in self._tags:
            return "0"  # RFC 9989 §4.7: "fo" is ignored without "ruf"
        value = self._tags["fo"].lower()
        letters = value.split(":")
        distinct = len(set(letters)) == len(letters) and not {"0", "1"} <= set(letters)
        if distinct and _FAILURE_OPTIONS.fullmatch(value):
            return value
        self._fault("fo", "0, 1, d and s, with colons between them")
        return "0"


def _is_request(value: str) -> TypeGuard[Request]:
    return value in ("none", "quarantine", "reject")
