"""Routes: the next hop of a mailbox, decided by its domain alone, without DNS.

In this order: the route for exactly that domain; local and virtual domains; routes for the domains
above it, the longest first; the route for all; the exchangers of the domain. Routes for domains
above and the route for all never apply to local domains. A route never permits relaying: that is
decided by policy.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Literal

from attrs import evolve, frozen

from ..mail.address import AddressError, Mailbox, domain_name
from ..mail.next_hop import Host, NextHop
from ..mail.printable import printable
from ..mail.reply import Reply

_URLS = (
    "smtp://HOST[:PORT], smtps://HOST[:PORT], lmtp://HOST:PORT, lmtp+unix:/PATH, maildir:,"
    " discard:, deliver:NAME and error:5.1.1 TEXT"
)
_SMTPS_PORT = 465  # RFC 8314 §7.3: submissions, the only port with implicit TLS
_LMTP_PORT = 24  # as in Dovecot's documentation; RFC 2033 §5 only excludes 25
_STATUS = re.compile(r"([45])\.(\d{1,3}\.\d{1,3})(?:\s+(.*))?", re.DOTALL)  # RFC 3463 §2
_HOST = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<name>[^:\[\]]*))(?::(?P<port>[0-9]{1,5}))?")
_REMEMBERED = 4096  # domains and their next hops; some 500 octets each
# Octets of sun_path in the address of a UNIX socket on Linux, without the NUL; 103 elsewhere.
_LONGEST_SOCKET = 107

DISCARD = "/dev/null"
"""The domain of mailboxes whose mail is discarded: an alias leads to it, and no address has it."""

NO_SUCH_MAILBOX = Reply.of(550, "1.1", "No such mailbox here")


@frozen
class Rule:
    """One route.

    Attributes:
        pattern: a domain; ``.`` and a domain for all domains below it; or ``*`` for all.
        next_hop: of its mailboxes.
    """

    pattern: str
    next_hop: NextHop


class Routes:
    """The routing table (`interfaces.Route`).

    Args:
        rules: in any order.
        local_domains: delivered here, canonical (`domain_name`); ``<postmaster>`` without a domain
            is a mailbox of the first.
        virtual_domains: canonical; ours too, with aliases only: after expansion, a mailbox there
            does not exist.

    Raises:
        ValueError: two rules have one pattern.
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        local_domains: Sequence[str],
        virtual_domains: Sequence[str] = (),
    ) -> None:
        self._rules: dict[str, NextHop] = {}
        for rule in rules:
            if rule.pattern in self._rules:
                raise ValueError(f"there are two routes for {rule.pattern}: leave one out")
            self._rules[rule.pattern] = rule.next_hop
        self.local_domains = tuple(local_domains)
        self._virtual = dict.fromkeys(virtual_domains)
        self._local = {**dict.fromkeys(self.local_domains), **self._virtual}
        self._by_domain = lru_cache(maxsize=_REMEMBERED)(self._decide)

    def is_local(self, of: Mailbox | str) -> bool:
        """Whether a mailbox, or a domain in canonical form, is one of ours.

        The ``<postmaster>`` without a domain is (RFC 5321 §4.5.1).
        """
        domain = of if isinstance(of, str) else of.domain
        return domain in self._local or not domain

    def with_domain(self, mailbox: Mailbox) -> Mailbox:
        """Return the mailbox with its domain: for ``<postmaster>``, the first local one."""
        if mailbox.domain or not self.local_domains:
            return mailbox
        return Mailbox(mailbox.local_part, self.local_domains[0])

    def route(self, mailbox: Mailbox) -> NextHop:
        """Return the next hop of a mailbox."""
        return self._by_domain(self.with_domain(mailbox).domain)

    def _decide(self, domain: str) -> NextHop:
        next_hop = self._rules.get(domain)
        if next_hop is not None:
            return next_hop
        if domain in self._virtual:
            return NextHop("error", reply=NO_SUCH_MAILBOX, rule=f"virtual domain {domain}")
        if self.is_local(domain):
            return NextHop("maildir", rule=f"local domain {domain}")
        if domain == DISCARD:
            return NextHop("discard", rule=f"alias to {DISCARD}")
        for pattern in _patterns(domain):
            next_hop = self._rules.get(pattern)
            if next_hop is not None:
                return next_hop
        return NextHop("smtp", domain=domain, rule=f"mail exchangers of {domain}")


def _patterns(domain: str) -> Iterator[str]:
    """Yield the patterns that match ``domain`` besides itself, the most specific first."""
    if not domain.startswith("["):  # an address literal has no domains above it
        at = domain.find(".")
        while at >= 0:
            yield domain[at:]
            at = domain.find(".", at + 1)
    yield "*"


def parse_route(
    pattern: str, url: str, *, default_port: int = 25, deliveries: Collection[str] = ()
) -> Rule:
    """Parse one route.

    Args:
        pattern: a domain in any form, ``.domain``, or ``*``.
        url: ``smtp://host[:port]`` or ``smtps://host[:port]``; ``lmtp://host:port``;
            ``lmtp+unix:/path``; for these, several by commas, IPv6 in brackets; ``maildir:``;
            ``discard:``; ``deliver:name``; ``error:5.1.1 text``.
        default_port: of ``smtp:`` hosts; that of ``smtps:`` is 465, that of ``lmtp:`` 24.
        deliveries: the names of the application's own deliveries.

    Raises:
        ValueError: the text says what was found and what was expected.
    """
    canonical = _pattern(pattern.strip())
    url = url.strip()
    scheme, colon, rest = url.partition(":")
    scheme = scheme.lower() + colon
    rule = f"route {canonical}={printable(url)}"
    next_hop: NextHop | None = None
    if scheme == "smtp:" and rest.startswith("//"):
        next_hop = NextHop("smtp", hosts=tuple(_hosts(scheme, rest, default_port)))
    elif scheme == "smtps:" and rest.startswith("//"):
        hosts = tuple(_hosts(scheme, rest, _SMTPS_PORT))
        next_hop = NextHop("smtp", hosts=hosts, implicit_tls=True)
    elif scheme == "lmtp:" and rest.startswith("//"):
        next_hop = NextHop("lmtp", hosts=tuple(_hosts(scheme, rest, _LMTP_PORT)))
    elif scheme == "lmtp+unix:":
        next_hop = NextHop("lmtp", hosts=tuple(_sockets(scheme, rest)))
    elif scheme == "deliver:":
        next_hop = NextHop("deliver", delivery=_delivery(rest, deliveries))
    elif scheme == "error:":
        next_hop = NextHop("error", reply=_error(rest))
    elif scheme in ("maildir:", "discard:"):
        if rest:
            raise ValueError(f"found {rest!a} after {scheme} in a route; expected nothing")
        transport: Literal["maildir", "discard"] = "maildir" if scheme == "maildir:" else "discard"
        next_hop = NextHop(transport)
    if next_hop is None:
        raise ValueError(f"not the URL of a next hop: {url!a}; expected {_URLS}")
    return Rule(canonical, evolve(next_hop, rule=rule))


def _pattern(pattern: str) -> str:
    if pattern == "*":
        return pattern
    dot = "." if pattern.startswith(".") else ""
    try:
        name = domain_name(pattern.removeprefix("."))
        if not (dot and name.startswith("[")):
            return dot + name
    except AddressError:
        pass
    raise ValueError(
        f"not a pattern for domains: {pattern!a}; expected example.net for that domain, "
        ".example.net for all below it, * for all"
    )


def _items(scheme: str, rest: str) -> Iterator[str]:
    # "smtp://a,b" and "smtp://a,smtp://b" are the same.
    for item in rest.split(","):
        text = item.strip()
        yield text[len(scheme) :] if text.lower().startswith(scheme) else text


def _hosts(scheme: str, rest: str, default_port: int) -> Iterator[Host]:
    for item in _items(scheme, rest):
        text = item.removeprefix("//").removesuffix("/")
        match = _HOST.fullmatch(text)
        try:
            if not match:
                raise ValueError
            if match["v6"] is not None:
                name = domain_name(f"[IPv6:{match['v6']}]")[6:-1]
            else:
                name = domain_name(match["name"])
            port = default_port if match["port"] is None else int(match["port"])
            if not 0 < port < 65536:
                raise ValueError
        except ValueError:  # AddressError is one
            raise ValueError(
                f"not a host and port: {text!a}; expected mx.example.net, "
                "mx.example.net:2525, 192.0.2.1, [2001:db8::1]:25"
            ) from None
        yield Host(name, port)


def _sockets(scheme: str, rest: str) -> Iterator[Host]:
    for path in _items(scheme, rest):
        if (
            not path.startswith("/")
            or path.startswith("//")
            or not (path.isascii() and path.isprintable())
        ):
            raise ValueError(
                f"not the path of a socket: {path!a}; expected lmtp+unix:/run/dovecot/lmtp"
            )
        if len(path.encode()) > _LONGEST_SOCKET:
            raise ValueError(
                f"the path of a socket has {_LONGEST_SOCKET} octets at most, not"
                f" {len(path.encode())}: {path!a}"
            )
        yield Host(path, 0)


def _delivery(name: str, deliveries: Collection[str]) -> str:
    if name in deliveries:
        return name
    if not deliveries:
        raise ValueError(
            f"found deliver:{printable(name)}, expected a URL of another kind: only a program that"
            " holds the agent has deliveries, by MailTransferAgent(deliveries={...})"
        )
    expected = " or ".join(f"deliver:{each}" for each in deliveries)
    raise ValueError(f"found deliver:{printable(name)}, expected {expected}")


def _error(rest: str) -> Reply:
    match = _STATUS.fullmatch(rest.strip())
    if not match:
        raise ValueError(
            f"not an enhanced status code and text: {rest!a}; expected error:5.1.1 No such "
            "user, or error:4.3.2 Try again later"
        )
    text = printable(match[3] or "Not accepted here")
    return Reply.of(550 if match[1] == "5" else 450, match[2], text)
