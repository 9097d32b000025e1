"""One check of everything, from the options and the file on."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence

from ...config import Config
from ...config.loading import load_leniently
from ...mail.printable import printable
from ...routing.routes import Rule
from .certificates import certificates
from .destinations import destinations
from .endpoints import endpoints
from .exposure import exposure, rules
from .finding import Finding, Report
from .machine import Machine
from .names import names
from .processes import Processes, Running
from .storage import occupation, storage

_SECONDS = 10.0  # for all name lookups together


def report(
    options: Mapping[str, Sequence[str] | str],
    file: str | None,
    *,
    ask_dns: bool = True,
    machine: Machine | None = None,
    environment: Mapping[str, str] = os.environ,
    machine_name: Callable[[], str] = socket.getfqdn,
) -> Report:
    """Check what a start with ``options`` and ``file`` would come to. Blocks; writes nothing.

    Where the file has errors, all of them are found, and the rest of it is checked without what
    they are in.

    Args:
        options: as `config.load` takes them.
        file: likewise.
        ask_dns: whether name servers are asked, for ten seconds at most.
        machine: what the settings are held against.
        environment: as `config.load` takes it.
        machine_name: likewise.
    """
    of = printable(file) if file else "the defaults"
    config, errors = load_leniently(
        options, file, environment=environment, machine_name=machine_name
    )
    found = [_said(str(error), of if file else "") for error in errors]
    if config is not None:
        found.extend(findings(config, machine or Machine(), ask_dns=ask_dns))
    return Report(of, tuple(dict.fromkeys(found)))


def _said(text: str, file: str) -> Finding:
    # What is wrong in the file names it; what is wrong with an option names that.
    return Finding.said("error", text, file if text.startswith(f"{file}: ") else "")


def findings(config: Config, machine: Machine, *, ask_dns: bool = True) -> Iterator[Finding]:
    """Yield what stands against a start with ``config``. Blocks; writes nothing."""
    yield from storage(config, machine)
    running: Running | None = None
    for finding in occupation(config):
        if isinstance(finding, Running):
            running = finding
        else:
            yield finding
    yield from certificates(config, machine)
    yield from destinations(config, machine)
    yield from endpoints(config, running, Processes(machine.proc))
    table: list[Rule] = []
    for rule in rules(config):
        if isinstance(rule, Rule):
            table.append(rule)
        else:
            yield rule
    yield from exposure(config, table, machine)
    yield from names(config, table, machine, ask=ask_dns, seconds=_SECONDS)
