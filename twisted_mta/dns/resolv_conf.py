"""``/etc/resolv.conf``: name servers, search list and options, with the limits of the C library."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress

import dns.inet
from attrs import frozen

from ..mail.next_hop import Host

PATH = "/etc/resolv.conf"

_PORT = 53
_LARGEST = 64 << 10  # octets; the rest is not read

# resolv.conf(5), and the limits of the C library.
_MOST_NAMESERVERS = 8
_MOST_SEARCHED = 16
_MOST_DOTS = 15
_LONGEST_TIMEOUT = 30
_MOST_ATTEMPTS = 5


@frozen
class ResolvConf:
    """The content of a ``resolv.conf``, see resolv.conf(5).

    Attributes:
        nameservers: to query, in this order.
        search: the domains of the search list.
        ndots: the number of dots from which a name is looked up as it stands first.
        timeout: seconds until the next name server is queried; None: not given.
        attempts: how often each name server is queried; None: not given.
        rotate: whether the first name server changes with each query.
        no_aaaa: whether AAAA records are not looked up.
        trust_ad: whether the AD bit of the name servers is to be believed.
    """

    nameservers: tuple[Host, ...] = (Host("127.0.0.1", 53),)
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout: float | None = None
    attempts: int | None = None
    rotate: bool = False
    no_aaaa: bool = False
    trust_ad: bool = False

    def __str__(self) -> str:
        """The name servers and the search list."""
        nameservers = f"name servers {', '.join(map(str, self.nameservers))}"
        return f"{nameservers}, search {' '.join(self.search)}" if self.search else nameservers

    def candidates(self, name: str) -> list[str]:
        """Return the domains that ``name`` may stand for, in the order to look them up."""
        if name.endswith("."):
            return [name.removesuffix(".")]
        searched = [f"{name}.{domain}" for domain in self.search]
        return [name, *searched] if name.count(".") >= self.ndots else [*searched, name]


def parse_resolv_conf(text: str, *, hostname: str = "") -> ResolvConf:
    """Parse a ``resolv.conf``; malformed lines are skipped.

    Args:
        text: its content.
        hostname: of this machine; its domain is the search list where the file has none.
    """
    nameservers: list[Host] = []
    domain = hostname.partition(".")[2]
    search = [domain] if domain else []
    options: list[str] = []
    for line in text.splitlines():
        keyword, *words = line.split() or [""]
        if not words:
            continue
        if keyword == "nameserver" and dns.inet.is_address(words[0]):
            nameservers.append(Host(words[0], _PORT))
        elif keyword == "search":
            search = words
        elif keyword == "domain":
            search = words[:1]
        elif keyword == "options":
            options += words
    timeout, attempts = _number(options, "timeout"), _number(options, "attempts")
    ndots = _number(options, "ndots")
    return ResolvConf(
        tuple(dict.fromkeys(nameservers[:_MOST_NAMESERVERS])) or ResolvConf().nameservers,
        tuple(filter(None, (each.lower().strip(".") for each in search[:_MOST_SEARCHED]))),
        1 if ndots is None else min(ndots, _MOST_DOTS),
        None if timeout is None else float(min(max(timeout, 1), _LONGEST_TIMEOUT)),
        None if attempts is None else min(max(attempts, 1), _MOST_ATTEMPTS),
        "rotate" in options,
        "no-aaaa" in options,
        "trust-ad" in options,
    )


def _number(options: Sequence[str], name: str) -> int | None:
    """Return the number of an option such as ``ndots:5``; the last one counts."""
    for option in reversed(options):
        key, colon, value = option.partition(":")
        if key == name and colon and value.isascii() and value.isdecimal():
            return int(value[:6])
    return None


def read_resolv_conf(path: str = PATH) -> ResolvConf:
    """Read a ``resolv.conf``; an unreadable one counts as empty. Blocks."""
    text = ""
    with suppress(OSError), open(path, encoding="utf-8-sig", errors="replace") as file:
        text = file.read(_LARGEST)
    return parse_resolv_conf(text, hostname=socket.gethostname())
