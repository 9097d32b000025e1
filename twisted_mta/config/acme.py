"""The table ``[acme]``: certificates from an authority, renewed without the operator (RFC 8555)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal
from urllib.parse import urlsplit

import attrs
from attrs import frozen

from . import readers as read
from .endpoint import endpoint
from .setting import ConfigError, about, setting, settings, shown

_DIRECTORY = "one such as https://acme-v02.api.letsencrypt.org/directory"
_CONTACT = "one such as mailto:postmaster@example.net"
_MOST_NAMES = 100  # in a certificate; the limit of large authorities


def _directory(value: Any) -> str:
    if value == "":
        return ""  # refused as missing
    url: str = read.text(_DIRECTORY)(value)
    try:
        parts = urlsplit(url)
        sound = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"found no URL of HTTPS, expected {_DIRECTORY}")
    if parts.username is not None or parts.fragment:
        raise ValueError(f"found a user or a fragment in it, expected {_DIRECTORY}")
    return url


def _contact(value: Any) -> str:
    contact: str = read.text(_CONTACT)(value)
    # RFC 8555 §7.3: a mailto URL has no header fields, and one address.
    if not re.fullmatch(r"mailto:[^@\s,?]+@[^@\s,?]+", contact) or not contact.isascii():
        raise ValueError(f"found no such contact, expected {_CONTACT}")
    return contact


def _contacts(value: str | Iterable[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        return (_contact(value),)
    return read.several(_contact, "contacts")(value)  # type: ignore[no-any-return]


def _name(value: Any) -> str:
    if isinstance(value, str) and value.startswith("*"):
        raise ValueError(
            "found a wildcard, expected the name of a host: its certificate would need a challenge"
            " in the DNS"
        )
    name: str = read.dns_name(value)
    return name


def _names(value: Iterable[str]) -> tuple[str, ...]:
    names: tuple[str, ...] = read.several(_name, "host names")(value)
    if len(names) > _MOST_NAMES:
        raise ValueError(f"found {len(names)} names, expected {_MOST_NAMES} at most")
    return names


@frozen(kw_only=True, field_transformer=settings)
class ACMESettings:
    """Turns on a certificate from an authority, which renews itself (RFC 8555); ``[acme]``.

    Raises:
        ConfigError: a value is refused, or contradicts another.
    """

    directory: str = setting(
        _directory,
        "URL of the authority's directory; to name it agrees to the terms of service of the"
        " authority",
        default="",
        default_text="required",
    )
    contact: tuple[str, ...] = attrs.field(
        default=(),
        converter=_contacts,
        metadata=about(
            "where the authority writes to: mailto:postmaster@example.net, or a list of such"
        ),
    )
    endpoint: str = setting(
        endpoint,
        "where the authority fetches the answers to its challenges, by HTTP at port 80 of each"
        " name: a Twisted server endpoint string",
        default="tcp:80",
    )
    names: tuple[str, ...] = attrs.field(
        default=(),
        converter=_names,
        metadata=about("host names that the certificate is for", default_text="the hostname"),
    )
    new_key: bool = setting(
        read.flag,
        "whether each certificate has a new key; a TLSA record 3 1 1 of the old one then fits no"
        " longer",
        default=False,
    )
    key_type: Literal["ecdsa", "rsa"] = setting(
        read.choice("ecdsa", "rsa"),
        "kind of the certificate's key: ECDSA P-256, or RSA of 2,048 bits",
        default="ecdsa",
    )
    profile: str | None = setting(
        read.optional(read.text("the name of a profile, such as shortlived")),
        "kind of certificate, where the authority offers several",
        default=None,
        default_text="that of the authority",
    )
    eab_key_id: str | None = setting(
        read.optional(read.text("the identifier that the authority has given")),
        "identifier of the key that binds our account to one at the authority (external account"
        " binding)",
        default=None,
    )
    eab_key_file: str | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(read.file),
        metadata=about("file with that key, in base64url as the authority gives it"),
    )
    authorities: str | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(read.file),
        metadata=about(
            "PEM file with the authorities that the certificate of the directory's host verifies"
            " against",
            default_text="those that the system trusts",
        ),
    )

    def __attrs_post_init__(self) -> None:
        if not self.directory:
            raise ConfigError(f"directory is missing; expected {_DIRECTORY}")
        if (self.eab_key_id is None) != (self.eab_key_file is None):
            there = "eab_key_file" if self.eab_key_id is None else "eab_key_id"
            raise ConfigError(
                f"{there} = {shown(getattr(self, there))}: found one of eab_key_id and"
                " eab_key_file, expected both or neither"
            )
