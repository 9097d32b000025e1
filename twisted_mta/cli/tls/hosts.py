"""``twisted-mta tls [DOMAIN]``: hosts with TLS, the TLS that mail for a domain has, and probes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

import click

from ...admin.status import moment
from ...mail.address import AddressError, domain_name
from ...mail.printable import printable
from ..client import (
    REFUSED,
    answer_or_exit,
    client,
    json_option,
    require_version,
    state_dir_option,
)
from ..terminal import show

_COLUMNS = ("Host", "Port", "First TLS", "Last TLS", "Missing since", "Last handshake")
_PROBE_TIMEOUT = 120.0  # seconds: five hosts may be silent

Facts = Mapping[str, Any]


@click.command("show")
@click.argument("domain", required=False)
@state_dir_option
@json_option
@click.option("--probe", is_flag=True, help="connect to the hosts now, and show the conversations")
def show_hosts(domain: str | None, state_dir: str | None, as_json: bool, probe: bool) -> None:
    """Show the TLS of next hops: what it must be, and what it was.

    Without DOMAIN: the hosts that had TLS, where it is missing, and the last handshake with each.
    With DOMAIN, of a recipient or a host: where mail for it goes, the TLS that each host must have
    and why, and the last handshake. Other hosts with TLS follow whose names are DOMAIN or below it.

    --probe also connects to each of these hosts, does the handshake, and prints the conversation.
    No mail is sent, and no account is used.

    Exit status: 0 done, 1 refused, or mail would not go to a host that was probed, 3 no MTA is
    running.
    """
    if probe and domain is None:
        raise click.UsageError("--probe needs DOMAIN, of a recipient or a host")
    path = "/v1/tls" if domain is None else f"/v1/tls/{host_name(domain)}"
    asked = client(state_dir, timeout=_PROBE_TIMEOUT)
    answer = answer_or_exit(lambda: asked.post(f"{path}/probe") if probe else asked.get(path))
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        require_version(answer)
        _write(answer)
    if probe and not all(each["probe"]["usable"] for each in _probed(answer)):
        sys.exit(REFUSED)


@click.command("forget")
@click.argument("host")
@state_dir_option
@json_option
def forget(host: str, state_dir: str | None, as_json: bool) -> None:
    """Forget that HOST had TLS, after its operator has turned TLS off.

    HOST is the name of a mail exchanger, as `twisted-mta tls` shows it. Its next connection without
    TLS raises no alarm, and with tls_memory = "require" its mail goes out.

    Exit status: 0 done, 1 the host is not known, 3 no MTA is running.
    """
    path = f"/v1/tls/{host_name(host)}/forget"
    answer = answer_or_exit(lambda: client(state_dir).post(path))
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    require_version(answer)
    for port in answer["ports"]:
        click.echo(f"Forgotten: {printable(answer['host'])}, port {port}.")


def host_name(text: str) -> str:
    """Return the canonical form of a domain, with A-labels, or of an address."""
    with suppress(ValueError):
        return str(ip_address(text))
    try:
        return domain_name(text.removeprefix("."))
    except AddressError as error:
        raise click.BadParameter(printable(f"{text}: {error}")) from None


def _write(answer: Facts) -> None:
    domain = answer.get("domain")
    shown = set()
    if domain is not None:
        for line in _domain(domain):
            click.echo(printable(line))
        shown = {(target["host"], target["port"]) for target in domain["targets"]}
    rows = [_row(each) for each in answer["hosts"] if (each["host"], each["port"]) not in shown]
    if not sys.stdout.isatty() and domain is None:
        for row in (_COLUMNS, *rows):
            click.echo("\t".join(row))
    elif rows:
        if domain is not None:
            click.echo()
        show([], [("", _COLUMNS, rows)])
    elif domain is None:
        click.echo("No host has had TLS.")


def _domain(domain: Facts) -> Iterator[str]:
    rule = f" ({domain['rule']})" if domain["rule"] else ""
    yield f"{domain['domain']}: next hop {domain['next_hop']}{rule}"
    if domain["failure"] is not None:
        yield f"No target: {domain['failure']}"
    for target in domain["targets"]:
        yield ""
        yield f"{target['host']}[{target['address']}]:{target['port']}"
        tls = target["tls"]
        since = "" if tls["since"] is None else f", since {moment(tls['since'])}"
        yield f"  Level:     {tls['level']}, by {tls['from']}{since}"
        if tls["problem"] is not None:
            yield f"  Not now:   {tls['problem']}"
        if target["passed_over"]:
            yield f"  Not now:   {target['passed_over']}"
        memory = tls["memory"]
        if memory is not None:
            missing = memory["missing"]
            gone = "" if missing is None else f", MISSING since {moment(missing)}"
            yield f"  Had TLS:   since {moment(memory['first'])}{gone}"
        last = target["handshake"]
        yield f"  Last:      {'nothing since the start' if last is None else _handshake(last)}"
        if "probe" in target:
            yield from _probe(target["probe"])


def _probe(probe: Facts) -> Iterator[str]:
    yield f"  Probe:     {probe['verdict']}"
    for line in probe["conversation"]:
        yield f"    {line}"


def _probed(answer: Facts) -> Sequence[Facts]:
    return [each for each in answer["domain"]["targets"] if "probe" in each]


def _handshake(last: Facts) -> str:
    at, tls, problem = moment(last["at"]), last["tls"], last["problem"]
    if tls is None:
        return f"{at}, {'in clear' if problem is None else f'failed: {problem}'}"
    exchange = f" {tls['key_exchange']}" if tls["key_exchange"] else ""
    resumed = ", resumed" if tls["resumed"] else ""
    words = f"{at}, {tls['version']} {tls['cipher']}{exchange}{resumed}"
    if tls["peer_verified"]:
        words += f", verified{' by ' + tls['verified_by'] if tls['verified_by'] else ''}"
    else:
        why = problem or tls["peer_problem"] or f"level {last['level']} does not demand it"
        words += f", not verified: {why}"
    return words


def _row(host: Facts) -> Sequence[str]:
    times = (host["first"], host["last"], host["missing"])
    texts = ("" if time is None else moment(time) for time in times)
    last = host["handshake"]
    handshake = "" if last is None else printable(_handshake(last))
    return printable(str(host["host"])), str(host["port"]), *texts, handshake
