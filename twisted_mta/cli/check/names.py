"""Names in the DNS: name servers, our own name, hosts of routes, exchangers of our domains."""

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
from ..questions import NoAnswer, Questions, TooLate
from . import validation
from .finding import Finding
from .lists import lists
from .machine import Machine

_SLOW = 1.0  # seconds; a first answer that takes longer is reported
_MOST_DOMAINS = 20  # local domains whose mail exchangers are asked for
_MOST_EXCHANGERS = 16  # of one domain that are looked up


def names(
    config: Config,
    table: Sequence[Rule],
    machine: Machine,
    *,
    ours: bool = True,
    seconds: float,
) -> Iterator[Finding]:
    """Yield findings about names.

    Args:
        config: the settings.
        table: the routes.
        machine: gives the system's name servers and hosts.
        ours: whether to ask for our own name and domains; `mail_records` does that thoroughly.
        seconds: for all questions together.
    """
    questions = Questions([], machine.wall_time() + seconds, machine.wall_time)
    try:
        system = machine.resolution()
        nameservers = config.dns.nameservers or system.nameservers
        yield from _servers(config, system, nameservers, questions)
        if not questions.nameservers:
            yield Finding(
                "warning",
                "[dns] nameservers",
                "none answers: names cannot be looked up, and mail for other hosts is deferred",
                "name one that answers, or check from a network that reaches it",
            )
            return
        hosts = machine.hosts()
        yield from _routes(config, table, questions, hosts, system)
        if ours:
            yield from _own_addresses(config, questions, hosts)
            yield from _exchangers(config, questions)
        yield from lists(config, questions)
    except TooLate:
        yield Finding(
            "warning",
            "[dns] nameservers",
            f"not all questions were answered within {seconds:.0f} s, and the others were left out",
            "check again, or name faster servers",
        )


# Name servers.


def _servers(
    config: Config, system: ResolvConf, nameservers: Iterable[Host], questions: Questions
) -> Iterator[Finding]:
    proofs = []
    for nameserver in nameservers:
        where = f"[dns] nameservers, {nameserver}"
        try:
            root = questions.ask(nameserver, ".", "SOA")
        except NoAnswer as error:
            yield Finding("warning", where, f"no answer: {error}", "repair or remove it")
            continue
        questions.nameservers.append(nameserver)
        if root.seconds > _SLOW:
            yield Finding(
                "warning",
                where,
                f"the answer took {root.seconds:.1f} s",
                "use a caching resolver on this machine",
            )
        if not root.edns:
            yield Finding(
                "note",
                where,
                "no EDNS (RFC 6891): it is asked without, and long answers come over TCP",
            )
        found = validation.proof(config, nameserver, questions)
        proofs.append((nameserver, found))
        trusted = validation.believed(config, system, nameserver)
        yield validation.finding(config, nameserver, found, seconds=root.seconds, trusted=trusted)
    together = validation.mixed(proofs)
    if together is not None:
        yield together


# Our own name.


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
            f"{name} has no address in the DNS: many hosts refuse mail with such a name in EHLO",
            "add an A or AAAA record, or name a host with an address",
        )
    for address in addresses:
        try:
            answer = questions.lookup(dns.reversename.from_address(address).to_text(), "PTR")
        except NoAnswer as error:
            yield _unknown(where, f"the PTR record of {address}", error)
            continue
        back = [_shown(record.target) for record in answer.records]
        if name not in back:
            target = f"is {', '.join(back)}" if back else "is missing"
            yield Finding(
                "warning",
                where,
                f"the PTR record of {address}, the address of {name}, {target}: many hosts refuse"
                " mail from such an address",
                f"have the provider of the address set the record to {name}",
            )


def _unknown(where: str, what: str, error: NoAnswer) -> Finding:
    return Finding(
        "warning", where, f"{what} cannot be looked up now: {error}", "check again later"
    )


def _domain(name: str) -> str | None:
    """Return the canonical domain; None for an address literal or an invalid name."""
    try:
        canonical = domain_name(name)
    except AddressError:
        return None
    return None if canonical.startswith("[") else canonical


def _shown(name: dns.name.Name) -> str:
    return printable(name.to_text().lower().removesuffix("."))


# Routes, and exchangers of our domains.


def _routes(
    config: Config,
    table: Iterable[Rule],
    questions: Questions,
    hosts: Mapping[str, Sequence[str]],
    system: ResolvConf,
) -> Iterator[Finding]:
    listeners = _listener_places(config)
    for rule in table:
        where = rule.next_hop.rule or f"route {rule.pattern}"
        for host in rule.next_hop.hosts:
            if host.name.startswith("/"):
                yield from _socket(where, host.name)
                continue
            try:
                addresses = _addresses(host.name, questions, hosts, system)
            except NoAnswer as error:
                yield _unknown(where, printable(host.name), error)
                continue
            if not addresses:
                yield Finding(
                    "warning",
                    where,
                    f"{printable(host.name)} has no address: mail on this route is deferred until"
                    " it expires",
                    "name a host with an address",
                )
            elif any(
                place in listeners
                for address in addresses
                for place in ((host.port, ""), (host.port, address))
                if is_here(address)
            ):
                yield Finding(
                    "warning",
                    where,
                    f"{printable(str(host))} is our own listener: mail on this route loops until it"
                    " has too many Received fields",
                    "name the next hop of that mail",
                )


def _socket(where: str, path: str) -> Iterator[Finding]:
    try:
        exists = stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        exists = False
    if not exists:
        yield Finding(
            "warning",
            where,
            f"the socket {printable(path)} does not exist now: mail on this route is deferred",
            "start the server, or name its socket",
        )


def _addresses(
    name: str, questions: Questions, hosts: Mapping[str, Sequence[str]], system: ResolvConf
) -> Sequence[str]:
    with suppress(ValueError):
        return [str(ip_address(literal_address(name) or name))]
    if name == "localhost" or name.endswith(".localhost"):
        return ["127.0.0.1", "::1"]  # RFC 6761 §6.3
    if name in hosts:
        return hosts[name]
    return next(filter(None, map(questions.addresses, system.candidates(name))), ())


def _listener_places(config: Config) -> frozenset[tuple[int, str]]:
    """Return (port, address) of each listener; the address is empty for all interfaces."""
    places = [Endpoint.parse(each.endpoint) for each in config.listeners]
    return frozenset(
        (int(place.port or 0), "" if interface in ("0.0.0.0", "::") else interface)
        for place in places
        if place.kind in ("tcp", "tcp6", "ssl")
        for interface in (place.named.get("interface", ""),)
    )


def is_here(address: str) -> bool:
    """Whether an address belongs to this machine: it can be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as bound:
            bound.bind((address, 0))
    except OSError:
        return False
    return True


def _exchangers(config: Config, questions: Questions) -> Iterator[Finding]:
    """Yield our domains whose mail goes to other hosts, according to the DNS."""
    ours = _domain(config.hostname)
    domains = (*config.local_domains, *config.virtual_domains, config.srs_domain or "")
    public = (each for each in dict.fromkeys(domains) if "." in each and each[0] != "[")
    for domain in islice(public, _MOST_DOMAINS):
        if domain == ours:
            continue
        try:
            answer = questions.lookup(domain, "MX")
            exchangers = [_shown(record.exchange) for record in answer.records]
            # RFC 5321 §5.1: a domain without MX records is its own exchanger.
            addresses = [
                address
                for name in islice(exchangers or [domain], _MOST_EXCHANGERS)
                if name
                for address in questions.addresses(name)
            ]
            if ours in exchangers or any(map(is_here, addresses)):
                continue
        except NoAnswer:
            continue
        if exchangers or not (answer.exists or addresses):
            places = ", ".join(filter(None, exchangers[:_MOST_EXCHANGERS]))
            target = f"goes to {places}" if places else "has no exchanger"
            yield Finding(
                "warning",
                "[mta] local_domains",
                f"mail from other hosts for {printable(domain)} {target}, and not to this machine,"
                " according to the DNS",
                f"add an MX record for {printable(config.hostname)}, unless another host relays the"
                " mail to this one",
            )
