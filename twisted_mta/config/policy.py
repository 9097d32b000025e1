"""The table ``[policy]``: what is found out about mail from strangers, and what follows from it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Literal

import attrs
from attrs import frozen

from ..mail.address import AddressError, Mailbox
from . import readers as read
from .setting import ConfigError, about, setting, settings, shown

# RFC 8601 §2.2: authserv-id is a "value" of RFC 2045 §5.1; this is its form without quotes.
_TOKEN = re.compile(r"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~]{1,253}")
_NETWORK = re.compile(r"[0-9.]+(/.*)?|[^/]*:.*|.*/.*")


def _authserv_id(value: Any) -> str:
    expected = "a name such as mx.example.net"
    name: str = read.text(expected)(value)
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"spaces or special characters in it; expected {expected}")
    return name


def _mailbox(value: Mailbox | str) -> Mailbox:
    if isinstance(value, Mailbox):
        return value
    expected = "a mailbox such as postmaster@example.net"
    try:
        return Mailbox.parse(read.text(expected)(value))
    except AddressError as error:
        raise ValueError(f"{error}; expected {expected}") from None


def _forwarder(value: Any) -> IPv4Network | IPv6Network | str:
    if not isinstance(value, str) or _NETWORK.fullmatch(value):
        forwarder: IPv4Network | IPv6Network | str = read.network(value)
        return forwarder
    return read.dns_name(value)


def _forwarders(
    value: Iterable[read.Network | str],
) -> tuple[read.Network | str, ...]:
    return read.several(_forwarder, "networks and domains")(value)  # type: ignore[no-any-return]


def _organization(value: Any) -> str:
    expected = "a name such as Example"
    name: str = read.text(expected)(value)
    if not name.isprintable():
        raise ValueError(f"unprintable characters in it; expected {expected}")
    return name


@frozen(kw_only=True, field_transformer=settings)
class PolicySettings:
    """What is found out about mail from strangers, and what follows from it; ``[policy]``.

    Raises:
        ConfigError: a value is refused, or contradicts another.
    """

    spf: Literal["off", "check", "enforce"] = setting(
        read.choice("off", "check", "enforce"),
        "SPF (RFC 7208): off, evaluated, or mail whose result is fail is refused with 550 5.7.23",
        default="check",
    )
    dkim: Literal["off", "check"] = setting(
        read.choice("off", "check"),
        "whether DKIM signatures (RFC 6376) are verified",
        default="check",
    )
    dmarc: Literal["off", "check", "enforce"] = setting(
        read.choice("off", "check", "enforce"),
        "DMARC (RFC 9989), which needs spf and dkim: off, evaluated, or mail that fails is"
        " quarantined as its domain asks, and refused with 550 5.7.26 if it asks for that and"
        " nothing else speaks for the mail",
        default="check",
    )
    arc: Literal["off", "check"] = setting(
        read.choice("off", "check"), "whether ARC chains (RFC 8617) are verified", default="check"
    )
    allow: str | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(read.file),
        metadata=about(
            "file of clients, senders and recipients that deny and [[dnsbl]] do not concern, one a"
            " line; a sender counts with SPF or DKIM"
        ),
    )
    deny: str | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(read.file),
        metadata=about(
            "file of clients, senders and recipients whose mail is refused with 550 5.7.1, one a"
            " line"
        ),
    )
    authserv_id: str | None = setting(
        read.optional(_authserv_id),
        "our name in Authentication-Results (RFC 8601); such fields of that name in mail that"
        " arrives are removed",
        default=None,
        default_text="the hostname",
    )
    trusted_sealers: tuple[str, ...] = attrs.field(
        default=(),
        converter=read.dns_names,
        metadata=about(
            "domains whose ARC chains count: dmarc = enforce refuses no mail with one that passes"
        ),
    )
    trusted_forwarders: tuple[IPv4Network | IPv6Network | str, ...] = attrs.field(
        default=(),
        converter=_forwarders,
        metadata=about("networks, and domains in authenticated mail, that dmarc = enforce exempts"),
    )
    dmarc_reports: bool = setting(
        read.flag,
        "whether domains that ask for it get a daily aggregate report (RFC 9990)",
        default=False,
    )
    report_from: Mailbox | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(_mailbox),
        metadata=about(
            "author of the reports that we send",
            default_text="postmaster of the first local domain with a dot in it",
        ),
    )
    organization: str | None = setting(
        read.optional(_organization),
        "our name in the reports that we send",
        default=None,
        default_text="the domain of report_from",
    )

    @property
    def is_used(self) -> bool:
        """Whether anything is found out about mail from strangers."""
        return any(each != "off" for each in (self.spf, self.dkim, self.dmarc, self.arc))

    def __attrs_post_init__(self) -> None:
        if self.dmarc == "off":
            if self.dmarc_reports:
                raise ConfigError(
                    'dmarc_reports = true: nothing to report with dmarc = "off";'
                    ' expected dmarc = "check"'
                )
            return
        # RFC 9989 §4.3: DMARC evaluates the results of SPF and DKIM.
        for name in ("spf", "dkim"):
            if getattr(self, name) == "off":
                raise ConfigError(
                    f"dmarc = {shown(self.dmarc)}: it needs the results of {name}, which is off;"
                    f' expected {name} = "check", or dmarc = "off"'
                )
