"""A URL that is told of events; ``[[webhook]]``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
from attrs import frozen

from ..mail.events import TYPES
from . import readers as read
from .amounts import duration_text, period
from .setting import ConfigError, about, setting, settings, shown

_LONGEST_TIMEOUT = 60.0  # seconds


def _url(value: Any) -> str:
    # "" is refused below: the table names what is missing.
    return "" if value == "" else str(read.https_url(value))


def _events(value: Any) -> tuple[str, ...]:
    events: tuple[str, ...] = read.several(read.choice(*TYPES), "events")(value)
    if not events:
        raise ValueError(f"found none; expected some of {', '.join(TYPES)}")
    return events


def _file(value: Any) -> str:
    return "" if value == "" else str(read.file(value))


def webhook_name(url: str) -> str:
    """Return what of the URL of a webhook is shown: its query may have a secret."""
    return url.partition("?")[0]


@frozen(kw_only=True, field_transformer=settings)
class WebhookSettings:
    """A URL that events are posted to; a ``[[webhook]]``.

    Raises:
        ConfigError: a value is refused, or missing.
    """

    url: str = setting(
        _url,
        "where events are posted to: https://host/path, or http:// on this machine (localhost,"
        " 127.0.0.1, [::1])",
        default="",
        default_text="required",
    )
    secret_file: str = setting(
        _file,
        "file, mode 0600, with the secret that signs, made by twisted-mta webhooks secret; of"
        " several lines each signs, while one replaces the other",
        default="",
        default_text="required",
    )
    events: tuple[str, ...] = setting(
        _events,
        f"which events are posted: a list of some of {', '.join(TYPES)}",
        default=TYPES,
        default_text="all",
    )
    timeout: float = attrs.field(
        default=15.0,
        converter=period,
        metadata=about("longest wait for an answer, up to 1 min", default_text="15 s"),
    )
    lifetime: float = attrs.field(
        default=259200.0,
        converter=period,
        metadata=about(
            "age at which an event that the URL has not taken is dropped", default_text="3 days"
        ),
    )
    authorities: str | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(read.file),
        metadata=about(
            "PEM file with the authorities that the certificate of the URL verifies against",
            default_text="those that the system trusts",
        ),
    )

    @property
    def _shown(self) -> str:
        return shown(webhook_name(self.url))

    def __attrs_post_init__(self) -> None:
        if not self.url:
            raise ConfigError(
                'has no url; expected one such as url = "https://app.example.net/mail-events"'
            )
        if not self.secret_file:
            raise ConfigError(
                f"url = {self._shown}: secret_file is missing; expected a file made by"
                " twisted-mta webhooks secret"
            )
        if self.timeout > _LONGEST_TIMEOUT:
            raise ConfigError(
                f"url = {self._shown}: timeout = {shown(duration_text(self.timeout))}: longer"
                " than 1 min; expected at most that"
            )
        if self.authorities is not None and self.url.startswith("http:"):
            raise ConfigError(
                f"url = {self._shown}: found authorities, and no TLS; expected https:// or no"
                " authorities"
            )


def webhooks(value: Iterable[WebhookSettings]) -> tuple[WebhookSettings, ...]:
    """Return webhooks, of which no two have the same URL.

    Raises:
        ConfigError: two have, there are too many, or one is no `WebhookSettings`.
    """
    hooks = tuple(value)
    seen = set()
    for each in hooks:
        if not isinstance(each, WebhookSettings):
            raise ConfigError(f"webhooks = {shown(value)}: expected a list of WebhookSettings")
        if each.url in seen:
            raise ConfigError(
                f"[[webhook]] url = {each._shown}: found two; expected one table for each URL"
            )
        seen.add(each.url)
    if len(hooks) > MOST:
        raise ConfigError(f"[[webhook]]: found {len(hooks)} tables; expected {MOST} at most")
    return hooks


MOST = 16
"""Webhooks of an MTA."""
