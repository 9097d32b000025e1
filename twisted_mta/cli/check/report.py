"""The whole check: the settings, then everything that they name."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module

from ...agent.expiry import Expiry, expiries
from ...config import Config
from ...config.loading import load_leniently
from ...config.unreadable import unreadable
from ...mail.printable import printable
from ...routing.routes import Rule
from .certificates import certificates
from .database import database
from .endpoints import endpoints
from .exposure import exposure, rules
from .finding import Finding, Report
from .machine import Machine
from .processes import Processes, Running
from .signing import signing
from .storage import occupation, storage
from .webhooks import webhooks

_SECONDS = 10.0  # for all name lookups together
_RECORD_SECONDS = 30.0  # for all lookups of records of our domains

# What is imported where settings name it.
_LATER = (
    *(".accounts", ".destinations", ".mail_records", ".members", ".names", ".services"),
    *(".tls_records", "...policy.dkim.signing_keys", "...policy.lists.access_list"),
    *("...routing.alias_file", "...routing.relay_recipients", "...tls.acme.jws"),
    *("...tls.acme.renewer", "...tls.acme.store", "...tls.server"),
)


def report(
    options: Mapping[str, Sequence[str] | str],
    file: str | None,
    *,
    ask_dns: bool = True,
    ask_records: bool = False,
    machine: Machine | None = None,
    environment: Mapping[str, str] | None = None,
    machine_name: Callable[[], str] = socket.getfqdn,
    change_user: Callable[[], None] | None = None,
) -> Report:
    """Check whether a start with ``options`` and ``file`` would succeed. Blocks; writes nothing.

    All errors of the file are reported; values with an error are left out of the further checks.

    Args:
        options: as `config.load` takes them.
        file: as `config.load` takes it.
        ask_dns: whether name servers are asked, for at most ten seconds.
        ask_records: whether they are asked for the records of our domains, for thirty more.
        machine: None: the real one.
        environment: as `config.load` takes it.
        machine_name: as `config.load` takes it.
        change_user: called once ports have been bound: makes this process one of the user that runs
            the MTA, for good; None: the user stays.
    """
    of = printable(file) if file else "the defaults"
    config, errors = load_leniently(
        options, file, environment=environment, machine_name=machine_name
    )
    all_findings = [_refusal(str(error), of if file else "") for error in errors]
    if config is not None:
        machine = machine or Machine()
        all_findings.extend(
            findings(
                config,
                machine,
                ask_dns=ask_dns,
                ask_records=ask_records,
                change_user=change_user,
            )
        )
    if file and change_user is not None:
        all_findings.extend(_unreadable_later(file))
    now, expire = 0.0, tuple[Expiry, ...]()
    if config is not None:
        now, expire = (machine or Machine()).wall_time(), tuple(expiries(config))
    return Report(of, tuple(dict.fromkeys(all_findings)), expire, now)


def _unreadable_later(file: str) -> Iterator[Finding]:
    try:
        with open(file, "rb"):
            pass
    except OSError as error:
        yield Finding(
            "warning",
            printable(file),
            unreadable(file, error),
            "give it to that user: a reload reads it again",
        )


def _refusal(text: str, file: str) -> Finding:
    # An error of the file begins with its path, an error of an option with the option.
    return Finding.from_error("error", text, file if text.startswith(f"{file}: ") else "")


def findings(
    config: Config,
    machine: Machine,
    *,
    ask_dns: bool = True,
    ask_records: bool = False,
    change_user: Callable[[], None] | None = None,
) -> Iterator[Finding]:
    """Yield all findings about valid settings. Blocks; writes nothing."""
    running: Running | None = None
    occupied = []
    for finding in occupation(config):
        if isinstance(finding, Running):
            running = finding
        else:
            occupied.append(finding)
    # As at a start: ports first, then the user, then everything else.
    listening = list(endpoints(config, running, Processes(machine.proc)))
    if change_user is not None:
        for module in _LATER:  # that user may not be able to read the modules
            import_module(module, __package__)
        change_user()
    yield from storage(config, machine)
    yield from occupied
    yield from database(config)
    yield from certificates(config, machine)
    # Most of a check are imports: those that few installations need follow their settings.
    authorities = config.delivery.authorities, config.mta_sts.authorities
    if config.destinations or any(authorities):
        from .destinations import destinations

        yield from destinations(config, machine)
    yield from signing(config)
    if config.milters or config.policy_services:
        from .services import services

        yield from services(config, machine)
    yield from webhooks(config)
    yield from listening
    table: list[Rule] = []
    for rule in rules(config):
        if isinstance(rule, Rule):
            table.append(rule)
        else:
            yield rule
    yield from exposure(config, table, machine)
    if ask_dns:
        from .names import names

        yield from names(config, table, machine, ours=not ask_records, seconds=_SECONDS)
    else:
        yield Finding("note", "DNS", "not asked (--no-dns)")
    if ask_records:
        from .mail_records import mail_records
        from .tls_records import tls_records

        yield from mail_records(config, machine, seconds=_RECORD_SECONDS)
        yield from tls_records(config, machine, seconds=_RECORD_SECONDS)
