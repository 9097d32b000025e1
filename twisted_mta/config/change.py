"""Differences between two configurations: those a reload applies, and those only a start can."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from ..mail.counted import counted
from .account_limits import AccountLimit, AccountLimits
from .acme import ACMESettings
from .catalog import SWITCHES
from .config import Config
from .destination import Destination
from .dkim import DKIMKey
from .dnsbl import DNSBL
from .feedback import FeedbackSettings
from .listener import Listener
from .milter import MilterSettings
from .mta_sts import MTASTSSettings
from .policy import PolicySettings
from .policy_service import PolicyServiceSettings
from .reply_action import ReplyAction
from .setting import HIDDEN, settings_of, shown
from .source_pool import SourcePool
from .suppression import SuppressionSettings
from .tables import (
    DeliverySettings,
    DNSSettings,
    GreylistSettings,
    LogSettings,
    QueueSettings,
    WebSettings,
)
from .webhook import WebhookSettings, webhook_name

_TABLES = (
    AccountLimits
    | ACMESettings
    | QueueSettings
    | DeliverySettings
    | DNSSettings
    | FeedbackSettings
    | GreylistSettings
    | LogSettings
    | MTASTSSettings
    | PolicySettings
    | SuppressionSettings
)

WARNING = "warning: "
"""The beginning of a line about a reload that is a warning, and no change."""

# Settings of ports, processes and open files, by table: applied by a start alone.
_FIXED: Mapping[str, tuple[str, ...]] = {
    "": (
        *("hostname", "state_dir", "web", "capture", "workers", "maildir", "message_memory"),
        "acme",  # whether it is there
        "local_submission_directory",
    ),
    "queue": ("url", "small_body", "commit_messages", "commit_octets"),
    "delivery": ("port",),
    "dns": ("nameservers", "timeout", "trust_ad", "signed_name", "bogus_name"),
    "log": ("format",),
    "web_page": ("hosts", "tls"),
    "mta_sts": ("publish",),
    "acme": ("endpoint",),
    "listeners": (
        *("listeners", "kind", "endpoint", "implicit_tls"),
        *("proxy_protocol_from", "proxy_protocol_timeout"),
    ),
}


def fixed(before: Config, after: Config) -> list[str]:
    """Return one printable line for each difference that only a start can apply."""
    return [line for names, line in _differences(before, after) if _is_fixed(names)]


def changes(before: Config, after: Config) -> list[str]:
    """Return one printable line for each difference that a reload applies."""
    return [line for names, line in _differences(before, after) if not _is_fixed(names)]


def _is_fixed(names: tuple[str, ...]) -> bool:
    *table, name = names
    return name in _FIXED.get("".join(table), ())


def _differences(before: Config, after: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield (path of the setting, line) for each difference."""
    for field in attrs.fields(Config):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if old == new:
            continue
        if field.name == "listeners":
            yield from _of_listeners(old, new)
        elif field.name == "destinations":
            yield from _of_named((field.name,), "destination", old, new, _domain)
        elif field.name == "source_pools":
            yield from _of_named((field.name,), "source pool", old, new, _pool_name)
        elif field.name == "reply_actions":
            yield from _of_named((field.name,), "reply action", old, new, _condition)
        elif field.name == "dkim_keys":
            yield from _of_named((field.name,), "DKIM key", old, new, _record_name)
        elif field.name == "limits_of_accounts":
            yield from _of_named((field.name,), "account limit", old, new, _account)
        elif field.name == "milters":
            yield from _of_named((field.name,), "milter", old, new, _endpoint)
        elif field.name == "policy_services":
            yield from _of_named((field.name,), "policy service", old, new, _service_name)
        elif field.name == "webhooks":
            yield from _of_named((field.name,), "webhook", old, new, _url, webhook_name)
        elif field.name == "dnsbl":
            yield from _of_named((field.name,), "dnsbl", old, new, _list_name)
        elif field.name in SWITCHES and (old is None or new is None):
            words = ["off" if each is None else "on" for each in (new, old)]
            yield (field.name,), f"[{field.name}] {words[0]}; before: {words[1]}"
        elif isinstance(new, _TABLES):
            yield from _of_table((field.name,), f"[{field.name}] ", old, new)
        elif isinstance(new, WebSettings):
            yield from _of_table((field.name,), "[web] ", old, new)
        else:
            yield (field.name,), f"{field.name} = {_shown(new)}; before: {_shown(old)}"


def _of_listeners(
    before: tuple[Listener, ...], after: tuple[Listener, ...]
) -> Iterator[tuple[tuple[str, ...], str]]:
    if len(before) != len(after):
        yield (
            ("listeners", "listeners"),
            f"{counted(len(after), 'listener')}; before: {len(before)}",
        )
        return
    for old, new in zip(before, after, strict=True):
        yield from _of_table(("listeners",), f"listener {shown(old.endpoint)}: ", old, new)


def _of_named(
    path: tuple[str, ...],
    kind: str,
    before: Sequence[Any],
    after: Sequence[Any],
    name: Callable[[Any], str],
    shows: Callable[[str], str] = str,
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the differences of repeated tables, each of which has a name of its own.

    ``shows`` returns what of a name may be shown.
    """
    names = [tuple(map(name, several)) for several in (before, after)]
    if names[0] != names[1]:
        old, new = (_shown(tuple(map(shows, several))) for several in names)
        yield path, f"{path[0]} = {new}; before: {old}"
    by_name = {name(each): each for each in before}
    for each in after:
        if name(each) in by_name:
            where = f"{kind} {shown(shows(name(each)))}: "
            yield from _of_table(path, where, by_name[name(each)], each)


def _domain(destination: Destination) -> str:
    return destination.name


def _pool_name(pool: SourcePool) -> str:
    return pool.name


def _condition(action: ReplyAction) -> str:
    return action.condition


def _list_name(settings: DNSBL) -> str:
    return f"{settings.name} of {settings.of}"


def _endpoint(filter: MilterSettings) -> str:
    return filter.endpoint


def _account(limit: AccountLimit) -> str:
    return limit.account


def _service_name(service: PolicyServiceSettings) -> str:
    context = f" as {service.policy_context}" if service.policy_context else ""
    return f"{service.endpoint} at {service.at}{context}"


def _url(webhook: WebhookSettings) -> str:
    return webhook.url


def _record_name(key: DKIMKey) -> str:
    return key.record_name


def _of_table(
    path: tuple[str, ...], where: str, before: Any, after: Any
) -> Iterator[tuple[tuple[str, ...], str]]:
    for field in attrs.fields(type(after)):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if old != new:
            names = (*path, field.name)
            known = settings_of(type(after)).get(field.name)
            words = [HIDDEN] * 2 if known and known.secret else [_shown(new), _shown(old)]
            yield names, f"{where}{field.name} = {words[0]}; before: {words[1]}"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return shown([_plain(each) for each in value])
    return shown(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
