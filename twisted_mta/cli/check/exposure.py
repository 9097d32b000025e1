"""Unintended effects of settings together: open relays, unlimited mailboxes, unused routes."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ...config import Config
from ...config.endpoint import Endpoint
from ...mail.address import Mailbox, literal_address
from ...mail.next_hop import NextHop
from ...mail.printable import printable
from ...routing.routes import Routes, Rule, parse_route
from .finding import Finding
from .machine import Machine

# Beside connections: the queue, logs, the lock, the status page, the control socket, lookups.
_OTHER_DESCRIPTORS = 64


def rules(config: Config) -> Iterator[Rule | Finding]:
    """Yield each route, or an error if it is not valid."""
    for pattern, url in config.routes:
        try:
            yield parse_route(pattern, url, default_port=config.delivery.port)
        except ValueError as error:
            yield Finding.from_error(
                "error", str(error), f"route {printable(pattern)}={printable(url)}"
            )


def exposure(config: Config, table: list[Rule], machine: Machine) -> Iterator[Finding]:
    """Yield effects that an operator may not have intended."""
    yield from _relaying(config)
    yield from _recipients(config)
    yield from _relay_domains(config)
    yield from _clear_page(config)
    yield from _useless(config, table)
    yield from _descriptors(config, machine)
    yield from _own_form(config)


def _reachable(config: Config) -> list[str]:
    """Return the endpoints of listeners that other machines can reach."""
    return [
        printable(each.endpoint)
        for each in config.listeners
        if not Endpoint.parse(each.endpoint).on_loopback
    ]


def _relaying(config: Config) -> Iterator[Finding]:
    reachable = _reachable(config)
    for network in config.relay_from:
        if network.prefixlen == 0:
            yield Finding(
                "warning",
                "[mta] relay_from",
                f"{network} is all hosts: any client may relay through this machine, which will be"
                " found, used for spam, and listed as an open relay",
                "name your own networks",
            )
        elif reachable and network.is_global and network.prefixlen < (8, 20)[network.version == 6]:
            yield Finding(
                "warning",
                "[mta] relay_from",
                f"{network} is larger than one operator's network: all its hosts may relay through"
                " this machine",
                "name your own networks",
            )
    for forwarder in config.policy.trusted_forwarders:
        if not isinstance(forwarder, str) and forwarder.prefixlen == 0:
            yield Finding(
                "warning",
                "[policy] trusted_forwarders",
                f"{forwarder} is all hosts: dmarc = enforce refuses and quarantines no mail",
                "name the networks of your forwarders",
            )
    for listener in config.listeners:
        for name in ("xclient_from", "proxy_protocol_from"):
            for network in getattr(listener, name):
                if network.prefixlen == 0:
                    yield Finding(
                        "warning",
                        f"listener {printable(listener.endpoint)}, {name}",
                        f"{network} is all hosts: any client may claim another address, even one"
                        " that may relay",
                        "name your proxies",
                    )


def _recipients(config: Config) -> Iterator[Finding]:
    reachable = _reachable(config)
    if config.capture and reachable:
        yield Finding(
            "warning",
            "[mta] capture",
            f"true: {reachable[0]} accepts mail of any host for any address, and keeps it",
            "expected listeners on loopback, or in a network of tests",
        )
    elif config.recipients == "any" and reachable:
        yield Finding(
            "warning",
            "[mta] recipients",
            f'"any": {reachable[0]} accepts mail for any invented name, and makes a Maildir for'
            " each",
            'expected recipients = "existing"',
        )
    elif (
        config.recipients == "existing"
        and config.listeners
        and not getattr(config, "users", None)
        and not config.aliases
        and not _any_mailbox(config)
    ):
        yield Finding(
            "warning",
            "[mta] recipients",
            f'"existing": {printable(config.maildir)} has no Maildir yet: all local recipients'
            " are refused (550)",
            f"create {printable(os.path.join(config.maildir, config.local_domains[0], 'NAME'))}"
            " for each"
            if config.local_domains
            else "",
        )


def _relay_domains(config: Config) -> Iterator[Finding]:
    if config.relay_domains and config.relay_recipients is None:
        yield Finding(
            "warning",
            "[mta] relay_domains",
            f"any invented address in {config.relay_domains[0]} is accepted; the next hop refuses"
            " it later, and a notice goes to the sender, which is often forged (backscatter)",
            "name the addresses that exist in a file, by relay_recipients",
        )


def _clear_page(config: Config) -> Iterator[Finding]:
    page = config.web_page
    if (
        config.web is not None
        and (page.users is not None or page.tokens is not None)
        and not page.tls
        and Endpoint.parse(config.web).kind != "ssl"
        and not Endpoint.parse(config.web).on_loopback
    ):
        yield Finding(
            "warning",
            "[mta] web",
            f"{printable(config.web)} has no TLS: passwords and tokens of the page can be read on"
            " their way",
            "set tls = true in [web], or listen on loopback behind a proxy with TLS",
        )


def _any_mailbox(config: Config) -> bool:
    for domain in config.local_domains:
        try:
            with os.scandir(os.path.join(config.maildir, domain)) as entries:
                if any(entry.is_dir() for entry in entries):
                    return True
        except OSError:
            continue
    return False


def _useless(config: Config, table: list[Rule]) -> Iterator[Finding]:
    """Yield routes that change nothing."""
    wide = [rule for rule in table if rule.pattern == "*" or rule.pattern.startswith(".")]
    relaying_is_possible = (
        config.relay_from
        or any(listener.relay_certificates for listener in config.listeners)
        or getattr(config, "users", None)
        or getattr(config, "auth", None)
        or config.aliases
    )
    for rule in wide:
        if not relaying_is_possible:
            yield Finding(
                "warning",
                _route(rule),
                "no client may relay to other domains, and it never applies to local domains: only"
                " notices take this route",
                "allow clients by relay_from",
            )
    for rule in table:
        others = Routes((each for each in table if each is not rule), config.local_domains)
        for other in _same_next_hop(rule, others):
            yield Finding(
                "warning",
                _route(rule),
                f"it changes nothing: {other.rule or 'another route'} has the same next hop",
                "remove it",
            )
        if rule.pattern.startswith(".") and rule.pattern[1:] in config.local_domains:
            yield Finding(
                "note",
                _route(rule),
                f"it applies to domains below {rule.pattern[1:]}, which is local itself",
            )


def _same_next_hop(rule: Rule, others: Routes) -> Iterator[NextHop]:
    if rule.pattern == "*":
        return
    domain = rule.pattern if not rule.pattern.startswith(".") else f"any{rule.pattern}"
    next_hop = others.route(Mailbox("any", domain))
    if next_hop == rule.next_hop:
        yield next_hop


def _route(rule: Rule) -> str:
    return rule.next_hop.rule or f"route {rule.pattern}"


def _descriptors(config: Config, machine: Machine) -> Iterator[Finding]:
    limit = machine.descriptors()
    incoming = sum(listener.max_connections for listener in config.listeners)
    needed = incoming + config.queue.concurrency + _OTHER_DESCRIPTORS
    if config.listeners and 0 <= limit < needed:
        yield Finding(
            "warning",
            "open files",
            f"a process may open {limit} files here; {incoming} incoming connections and"
            f" {config.queue.concurrency} deliveries need {needed}",
            f"LimitNOFILE={_rounded(needed)} in the systemd unit, or ulimit -n {_rounded(needed)}",
        )


def _rounded(needed: int) -> int:
    return 1 << max(needed - 1, 1).bit_length()


def _own_form(config: Config) -> Iterator[Finding]:
    name = config.hostname
    if literal_address(name) is None and "." not in name:
        yield Finding(
            "warning",
            "[mta] hostname",
            f"{printable(name)} is not a full name: other hosts cannot look it up, and many refuse"
            " mail with such a name in EHLO",
            "expected one such as mail.example.net",
        )
