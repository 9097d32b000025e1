"""SPF records (RFC 7208 §4.5, §4.6, §12): which one applies, its mechanisms and modifiers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from socket import AF_INET6, inet_aton, inet_pton
from typing import Literal

from attrs import frozen

from ...mail.printable import printable
from .macros import is_domain_spec, is_macro_string
from .result import Word

Kind = Literal["all", "include", "a", "mx", "ptr", "ip4", "ip6", "exists"]

MOST_TERMS = 1_000
"""The most mechanisms and modifiers of a record.

RFC 7208 §3.4 recommends records that fit into one datagram, which are a tenth of that. To read so
many takes some milliseconds.
"""

# RFC 7208 §12:
#
#   record           = version terms *SP
#   version          = "v=spf1"
#   terms            = *( 1*SP ( directive / modifier ) )
#   directive        = [ qualifier ] mechanism
#   qualifier        = "+" / "-" / "?" / "~"
#   mechanism        = ( all / include / a / mx / ptr / ip4 / ip6 / exists )
#   modifier         = redirect / explanation / unknown-modifier
#   name             = ALPHA *( ALPHA / DIGIT / "-" / "_" / "." )
#
# Strings in quotes are case-insensitive.
_VERSION = re.compile(rb"v=spf1(?![^ ])", re.IGNORECASE)
_TERM = re.compile(r"([-+?~]?)([A-Za-z][A-Za-z0-9._-]*+)(.*)", re.DOTALL)
_RESULTS: dict[str, Word] = {
    "": "pass",
    "+": "pass",
    "-": "fail",
    "~": "softfail",
    "?": "neutral",
}

#   dual-cidr-length = [ ip4-cidr-length ] [ "/" ip6-cidr-length ]
#   ip4-cidr-length  = "/" ("0" / %x31-39 0*1DIGIT) ; value range 0-32
#   ip6-cidr-length  = "/" ("0" / %x31-39 0*2DIGIT) ; value range 0-128
_DUAL_LENGTH = re.compile(r"(?:/(0|[1-9][0-9]?))?(?://(0|[1-9][0-9]{0,2}))?\Z")
_LONGEST_DUAL_LENGTH = len("/32//128")
_LENGTH = re.compile(r"0|[1-9][0-9]{0,2}")

#   ip4-network      = qnum "." qnum "." qnum "." qnum
#   qnum             = DIGIT / %x31-39 DIGIT / "1" 2DIGIT / "2" %x30-34 DIGIT / "25" %x30-35
_QNUM = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_QNUM}(?:\.{_QNUM}){{3}}")

_SHORT = 512  # octets of records of which many are kept as they were read
_LONGEST_SHOWN = 80  # characters of a stranger's text in a message


class Malformed(ValueError):
    """A record breaks the syntax, or there is more than one; the message says how, printable."""


@frozen
class Mechanism:
    """A mechanism with its qualifier.

    Attributes:
        text: as it stands in the record.
        kind: its name.
        result: of the check where it matches.
        target: the ``domain-spec``; empty where there is none.
        network: of ``ip4`` and ``ip6``, as a number.
        ipv4_length: of the prefix that IPv4 addresses have to share.
        ipv6_length: of the prefix that IPv6 addresses have to share.
    """

    text: str
    kind: Kind
    result: Word
    target: str = ""
    network: int = 0
    ipv4_length: int = 32
    ipv6_length: int = 128


@frozen
class Record:
    """A record that has the right syntax.

    Attributes:
        mechanisms: in their order.
        redirect: the ``domain-spec`` of ``redirect=``; empty: there is none.
        explanation: the ``domain-spec`` of ``exp=``; empty: there is none.
        terms: how many mechanisms and modifiers it has.
    """

    mechanisms: tuple[Mechanism, ...] = ()
    redirect: str = ""
    explanation: str = ""
    terms: int = 0


def selected(texts: Sequence[bytes]) -> bytes | None:
    """Return the SPF record among the TXT records of a domain; None: there is none (§4.5).

    Raises:
        Malformed: there are several.
    """
    records = [text for text in texts if _VERSION.match(text)]
    if len(records) > 1:
        raise Malformed(f"found {len(records)} SPF records, expected one")
    return records[0] if records else None


def parse(record: bytes) -> Record:
    """Read a record that `selected` has chosen.

    Raises:
        Malformed: it breaks the syntax anywhere (§4.6), or has more than `MOST_TERMS`.
    """
    # Most mail comes from few domains, and includes the records of fewer. A long record takes some
    # milliseconds, and one answer of the DNS may be what the checks of a hundred sessions wait for.
    read = _short(record) if len(record) <= _SHORT else _long(record)
    if isinstance(read, str):
        raise Malformed(read)
    return read


def _read(record: bytes) -> Record | str:
    """Return a record, or what is wrong with it, which is kept just as well."""
    try:
        return _parse(record)
    except Malformed as malformed:
        return str(malformed)


_short = lru_cache(maxsize=256)(_read)
_long = lru_cache(maxsize=32)(_read)  # each takes up to half a MiB


def _parse(record: bytes) -> Record:
    try:
        text = record.decode("ascii")
    except UnicodeDecodeError as error:
        raise Malformed(f"found the octet {record[error.start]:#x}, expected ASCII") from None
    terms = [term for term in text.split(" ") if term][1:]
    if len(terms) > MOST_TERMS:
        raise Malformed(f"found {len(terms):,} terms, expected at most {MOST_TERMS:,}")
    mechanisms: list[Mechanism] = []
    modifiers: dict[str, str] = {}
    for term in terms:
        match = _TERM.fullmatch(term)
        if not match:
            raise Malformed(f"found {_shown(term)}, expected a mechanism or a modifier")
        qualifier, name, rest = match.groups()
        if not rest.startswith("="):
            mechanisms.append(_mechanism(term, qualifier, name.lower(), rest))
        elif qualifier:
            raise Malformed(f"found {_shown(term)}, expected no qualifier before a modifier")
        else:
            _read_modifier(term, name.lower(), rest[1:], modifiers)
    return Record(
        tuple(mechanisms), modifiers.get("redirect", ""), modifiers.get("exp", ""), len(terms)
    )


def _read_modifier(term: str, name: str, value: str, modifiers: dict[str, str]) -> None:
    #   redirect         = "redirect" "=" domain-spec
    #   explanation      = "exp" "=" domain-spec
    #   unknown-modifier = name "=" macro-string
    if name not in ("redirect", "exp"):
        if not is_macro_string(value):
            raise Malformed(f"found {_shown(term)}, expected a macro string after the =")
        return
    if name in modifiers:
        raise Malformed(f"found {name}= twice, expected it once")  # RFC 7208 §6
    modifiers[name] = _domain_spec(term, value)


def _mechanism(term: str, qualifier: str, name: str, rest: str) -> Mechanism:
    result = _RESULTS[qualifier]
    match name:
        case "ip4":
            #   ip4 = "ip4" ":" ip4-network [ ip4-cidr-length ]
            address, length = _network(term, rest, 32)
            if not _IPV4.fullmatch(address):
                raise Malformed(f"found {_shown(term)}, expected an IPv4 address after the :")
            network = int.from_bytes(inet_aton(address), "big")
            return Mechanism(term, "ip4", result, network=network, ipv4_length=length)
        case "ip6":
            #   ip6 = "ip6" ":" ip6-network [ ip6-cidr-length ]
            address, length = _network(term, rest, 128)
            try:
                network = int.from_bytes(inet_pton(AF_INET6, address), "big")
            except (OSError, ValueError):
                raise Malformed(
                    f"found {_shown(term)}, expected an IPv6 address after the :"
                ) from None
            return Mechanism(term, "ip6", result, network=network, ipv6_length=length)
        case "include" | "exists":
            #   include = "include" ":" domain-spec
            #   exists = "exists" ":" domain-spec
            if not rest.startswith(":"):
                raise Malformed(f"found {_shown(term)}, expected {name}:DOMAIN")
            return Mechanism(term, name, result, _domain_spec(term, rest[1:]))
        case "a" | "mx":
            #   a = "a" [ ":" domain-spec ] [ dual-cidr-length ]
            #   mx = "mx" [ ":" domain-spec ] [ dual-cidr-length ]
            tail = max(0, len(rest) - _LONGEST_DUAL_LENGTH)
            lengths = _DUAL_LENGTH.search(rest, tail)
            assert lengths is not None  # it also matches nothing at all
            ipv4, ipv6 = int(lengths[1] or 32), int(lengths[2] or 128)
            if ipv4 > 32 or ipv6 > 128:
                raise Malformed(f"found {_shown(term)}, expected at most /32 and //128")
            return Mechanism(
                term,
                name,
                result,
                _optional_domain_spec(term, rest[: lengths.start()]),
                ipv4_length=ipv4,
                ipv6_length=ipv6,
            )
        case "ptr":
            #   ptr = "ptr" [ ":" domain-spec ]
            return Mechanism(term, "ptr", result, _optional_domain_spec(term, rest))
        case "all":
            #   all = "all"
            if rest:
                raise Malformed(f"found {_shown(term)}, expected nothing after all")
            return Mechanism(term, "all", result)
    raise Malformed(f"found {_shown(term)}, expected a mechanism or a modifier")


def _network(term: str, rest: str, longest: int) -> tuple[str, int]:
    """Return the address and the prefix length of ``:ADDRESS/LENGTH``."""
    address, slash, length = rest[1:].partition("/")
    if not rest.startswith(":"):
        raise Malformed(f"found {_shown(term)}, expected an IP address after a :")
    if not slash:
        return address, longest
    if not _LENGTH.fullmatch(length) or int(length) > longest:
        raise Malformed(f"found {_shown(term)}, expected a prefix length from 0 to {longest}")
    return address, int(length)


def _optional_domain_spec(term: str, rest: str) -> str:
    if not rest:
        return ""
    if not rest.startswith(":"):
        raise Malformed(f"found {_shown(term)}, expected : before a domain")
    return _domain_spec(term, rest[1:])


def _domain_spec(term: str, text: str) -> str:
    if not is_domain_spec(text):
        raise Malformed(f"found {_shown(term)}, expected a domain in it")
    return text


def _shown(text: str) -> str:
    return printable(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}...")
