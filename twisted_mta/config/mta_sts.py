"""The table ``[mta_sts]``: the policies of others, our own, and where that is served."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import attrs
from attrs import frozen

from . import readers as read
from .amounts import duration_text, period
from .endpoint import endpoint_or_off
from .setting import ConfigError, about, setting, settings, shown

_LONGEST_AGE = 31_557_600.0  # RFC 8461 §3.2


def _pattern(value: Any) -> str:
    expected = "a host name such as mx.example.net, or *.example.net for all below"
    name: str = read.text(expected)(value)
    rest = name.removeprefix("*.")
    try:
        return name.removesuffix(rest) + read.dns_name(rest)
    except ValueError:
        raise ValueError(f"found no such name, expected {expected}") from None


def _patterns(value: Iterable[str]) -> tuple[str, ...]:
    return read.several(_pattern, "host names")(value)  # type: ignore[no-any-return]


@frozen(kw_only=True, field_transformer=settings)
class MTASTSSettings:
    """MTA-STS (RFC 8461): the policies of others, our own, and where it is served; ``[mta_sts]``.

    Raises:
        ConfigError: a value is refused, or contradicts another.
    """

    authorities: str | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(read.file),
        metadata=about(
            "PEM file with the authorities that certificates verify against: of hosts that policies"
            " are fetched from, of mail exchangers under a policy, and of hosts that get reports on"
            " TLS",
            default_text="those that the system trusts",
        ),
    )
    publish: str | None = setting(
        endpoint_or_off,
        "where to serve the policy of our domains, by HTTPS and behind a proxy by HTTP: a Twisted"
        " server endpoint string such as tcp:443, or off",
        default=None,
        default_text="off",
    )
    mode: Literal["enforce", "testing", "none"] = setting(
        read.choice("enforce", "testing", "none"),
        "what our policy asks of other hosts if TLS to us cannot be verified: keep the mail, report"
        " it alone, or nothing",
        default="testing",
    )
    max_age: float = attrs.field(
        default=604_800.0,
        converter=period,
        metadata=about("how long other hosts keep our policy", default_text="7 days"),
    )
    mx: tuple[str, ...] = attrs.field(
        default=(),
        converter=_patterns,
        metadata=about(
            "the mail exchangers in our policy: host names, or *.example.net for all that have one"
            " label more",
            default_text="the hostname",
        ),
    )

    def __attrs_post_init__(self) -> None:
        if self.max_age > _LONGEST_AGE:
            raise ConfigError(
                f"max_age = {shown(duration_text(self.max_age))}: expected"
                f" {_LONGEST_AGE:.0f} s, a year, at most"
            )
