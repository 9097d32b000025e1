"""What the DNS says: of us, of the hosts that routes lead to, and of those who answer for it.

Only the configured name servers are asked, one question after the other, and never for longer than
a check may take in all.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from itertools import islice

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.reversename

from ...config import Config
from ...config.endpoint import Endpoint
from ...dns import ResolvConf
from ...mail.address import AddressError, domain_name, literal_address
from ...mail.next_hop import Host
from ...mail.printable import printable
from ...routing.routes import Rule
from .finding import Finding
from .machine import Machine
from .questions import Answer, NoAnswer, Questions, TooLate

_SLOW = 1.0  # seconds after which an answer to the first question is a slow one
_MOST_DOMAINS = 20  # local domains whose mail exchangers are asked for
_MOST_EXCHANGERS = 16  # of one domain that are looked at
# RFC 6303 §4.1: private address space, in a zone that nobody can have signed.
_UNSIGNED = "10.in-addr.arpa"


def names(
    config: Config, table: Sequence[Rule], machine: Machine, *, ask: bool = True, seconds: float
) -> Iterator[Finding]:
    """Yield what is wrong with names.

    Args:
        config: gives our own name and domains, and who is to be asked.
        table: the routes.
        machine: where this is.
        ask: whether to ask the DNS at all.
        seconds: how long that may take in all.
    """
    yield from _own_form(config)
    if not ask:
        yield Finding("note", "DNS", "it was not asked (--no-dns)")
        return
    questions = Questions([], machine.wall_time() + seconds, machine.wall_time)
    try:
        system = machine.resolution()
        yield from _servers(config, config.dns.nameservers or system.nameservers, questions)
        if not questions.nameservers:
            yield Finding(
                "warning",
                "[dns] nameservers",
                "none answers: no name could be looked up here, and mail to other hosts waits",
                "name one that does, or try again from where it can be reached",
            )
            return
        hosts = machine.hosts()
        yield from _routes(config, table, questions, hosts, system)
        yield from _own_addresses(config, questions, hosts)
        yield from _exchangers(config, questions)
    except TooLate:
        yield Finding(
            "warning",
            "[dns] nameservers",
            f"after {seconds:.0f} s not everything was answered; the rest was left out",
            "try again, or name faster ones",
        )


# Those who answer.


def _servers(
    config: Config, nameservers: Iterable[Host], questions: Questions
) -> Iterator[Finding]:
    trusted = bool(getattr(config.dns, "trust_ad", False))
    for nameserver in nameservers:
        where = f"[dns] nameservers, {nameserver}"
        try:
            root = questions.ask(nameserver, ".", "SOA")
        except NoAnswer as error:
            yield Finding(
                "warning", where, f"it does not answer: {error}", "leave it out, or see what it has"
            )
            continue
        questions.nameservers.append(nameserver)
        if root.seconds > _SLOW:
            yield Finding(
                "warning",
                where,
                f"it took {root.seconds:.1f} s to answer",
                "a caching resolver on this machine would do",
            )
        if not root.edns:
            yield Finding(
                "note",
                where,
                "it does not know EDNS (RFC 6891): it is asked without; long answers come by TCP",
            )
        blindly = False
        if root.authenticated:
            with suppress(NoAnswer):
                blindly = questions.ask(nameserver, _UNSIGNED, "SOA").authenticated
        yield trust(where, nameserver, root, blindly=blindly, trusted=trusted)


def trust(where: str, nameserver: Host, root: Answer, *, blindly: bool, trusted: bool) -> Finding:
    """Return what is to be thought of a name server's AD bit.

    Args:
        where: for the finding.
        nameserver: where it is.
        root: its answer about the root, which is signed.
        blindly: whether it set AD for what nobody has signed as well.
        trusted: whether ``trust_ad`` is on.
    """
    took = f"it answers within {root.seconds * 1000:.0f} ms"
    if blindly:
        problem = f"{took}, and sets AD for what nobody has signed, where it means nothing"
    elif not root.authenticated:
        problem = f"{took}, and AD is not set, for it does not validate"
    elif not ip_address(nameserver.name).is_loopback:
        # RFC 4035 §4.9.3: only over a channel that is secure.
        problem = f"{took}, and AD is set, but whoever is on the way to it could have set it"
    else:
        return Finding(
            "note",
            where,
            f"{took}, AD is set, and it is on this machine: trust_ad may be turned on",
        )
    if trusted:
        return Finding(
            "warning",
            where,
            f"{problem}; yet trust_ad is on",
            "turn it off, or ask a validating resolver on this machine",
        )
    return Finding("note", where, f"{problem}: trust_ad may not be turned on")


# Our own name.


def _own_form(config: Config) -> Iterator[Finding]:
    name = config.hostname
    if literal_address(name) is None and "." not in name:
        yield Finding(
            "warning",
            "[mta] hostname",
            f"{printable(name)} is no full name: other hosts cannot look it up, and many refuse"
            " mail from who greets them with it",
            "one such as mail.example.net would do",
        )


def _own_addresses(
    config: Config, questions: Questions, hosts: Mapping[str, Sequence[str]]
) -> Iterator[Finding]:
    name = _domain(config.helo)
    if name is None or "." not in name:
        return
    where = "[delivery] helo" if config.delivery.helo else "[mta] hostname"
    try:
        addresses = questions.addresses(name)
    except NoAnswer as error:
        yield _unknown(where, name, error)
        return
    if not addresses:
        yield Finding(
            "warning",
            where,
            f"{name} has no address in the DNS, and many refuse mail from who greets them with it",
            "give it one (A, AAAA), or name a host that has one",
        )
    for address in addresses:
        try:
            answer = questions.lookup(dns.reversename.from_address(address).to_text(), "PTR")
        except NoAnswer as error:
            yield _unknown(where, f"the PTR record of {address}", error)
            continue
        back = [_shown(record.target) for record in answer.records]
        if name not in back:
            named = f"leads to {', '.join(back)}" if back else "is missing"
            yield Finding(
                "warning",
                where,
                f"the PTR record of {address}, the address of {name}, {named}: many refuse mail"
                " from there, if it is what mail comes from",
                f"have whoever gave the address point it to {name}",
            )


def _unknown(where: str, what: str, error: NoAnswer) -> Finding:
    return Finding("warning", where, f"{what} cannot be looked up now: {error}", "try again later")


def _domain(name: str) -> str | None:
    """Return a name as the DNS has it; None where it is an address, or no name."""
    try:
        canonical = domain_name(name)
    except AddressError:
        return None
    return None if canonical.startswith("[") else canonical


def _shown(name: dns.name.Name) -> str:
    return printable(name.to_text().lower().removesuffix("."))


# Where mail goes, and where it comes in.


def _routes(
    config: Config,
    table: Iterable[Rule],
    questions: Questions,
    hosts: Mapping[str, Sequence[str]],
    system: ResolvConf,
) -> Iterator[Finding]:
    ours = _listened(config)
    for rule in table:
        where = rule.next_hop.rule or f"route {rule.pattern}"
        for host in rule.next_hop.hosts:
            if host.name.startswith("/"):
                yield from _socket(where, host.name)
                continue
            try:
                addresses = _of_host(host.name, questions, hosts, system)
            except NoAnswer as error:
                yield _unknown(where, printable(host.name), error)
                continue
            if not addresses:
                yield Finding(
                    "warning",
                    where,
                    f"{printable(host.name)} has no address: mail that goes this way waits, and is"
                    " returned in the end",
                    "name a host that has one",
                )
            elif any(
                place in ours
                for address in addresses
                for place in ((host.port, ""), (host.port, address))
                if _is_here(address)
            ):
                yield Finding(
                    "warning",
                    where,
                    f"{printable(str(host))} is a listener of our own: mail that goes this way"
                    " comes back until it has too many Received fields",
                    "name the host that mail is to go to",
                )


def _socket(where: str, path: str) -> Iterator[Finding]:
    try:
        there = stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        there = False
    if not there:
        yield Finding(
            "warning",
            where,
            f"there is no socket {printable(path)} now: mail that goes this way waits for one",
            "start who listens there, or name its socket",
        )


def _of_host(
    name: str, questions: Questions, hosts: Mapping[str, Sequence[str]], system: ResolvConf
) -> Sequence[str]:
    with suppress(ValueError):
        return [str(ip_address(literal_address(name) or name))]
    if name == "localhost" or name.endswith(".localhost"):
        return ["127.0.0.1", "::1"]  # RFC 6761 §6.3
    if name in hosts:
        return hosts[name]
    return next(filter(None, map(questions.addresses, system.candidates(name))), ())


def _listened(config: Config) -> frozenset[tuple[int, str]]:
    """Return port and address of each listener; the address is empty where it is any."""
    places = [Endpoint.parse(each.endpoint) for each in config.listeners]
    return frozenset(
        (int(place.port or 0), "" if interface in ("0.0.0.0", "::") else interface)
        for place in places
        if place.kind in ("tcp", "tcp6", "ssl")
        for interface in (place.named.get("interface", ""),)
    )


def _is_here(address: str) -> bool:
    """Whether an address is this machine's: whether one can listen there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as bound:
            bound.bind((address, 0))
    except OSError:
        return False
    return True


def _exchangers(config: Config, questions: Questions) -> Iterator[Finding]:
    """Yield the local domains whose mail goes elsewhere, where that is known."""
    ours = _domain(config.hostname)
    domains = (*config.local_domains, *config.virtual_domains, config.srs_domain or "")
    public = (each for each in dict.fromkeys(domains) if "." in each and each[0] != "[")
    for domain in islice(public, _MOST_DOMAINS):
        if domain == ours:
            continue
        try:
            answer = questions.lookup(domain, "MX")
            exchangers = [_shown(record.exchange) for record in answer.records]
            # RFC 5321 §5.1: without any, the domain is its own.
            addresses = [
                address
                for name in islice(exchangers or [domain], _MOST_EXCHANGERS)
                if name
                for address in questions.addresses(name)
            ]
            if ours in exchangers or any(map(_is_here, addresses)):
                continue
        except NoAnswer:
            continue
        if exchangers or not (answer.exists or addresses):
            places = ", ".join(filter(None, exchangers[:_MOST_EXCHANGERS]))
            named = f"goes to {places}" if places else "has no place to go to"
            yield Finding(
                "warning",
                "[mta] local_domains",
                f"mail from elsewhere for {printable(domain)} {named}, and not to this machine as"
                " far as the DNS tells",
                f"give it an MX record that names {printable(config.hostname)}, unless another"
                " host passes it on to here",
            )
