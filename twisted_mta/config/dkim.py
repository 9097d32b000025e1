"""A key that mail is signed with; ``[[dkim]]``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import attrs
from attrs import frozen

from . import readers as read
from .setting import ConfigError, about, setting, settings, shown

# RFC 6376 §3.1: selector = sub-domain *( "." sub-domain ); a sub-domain is a label of letters,
# digits and inner hyphens (RFC 5321 §4.1.2), of at most 63 octets (RFC 1035 §2.3.4).
_LABEL = re.compile(r"[0-9A-Za-z](?:[-0-9A-Za-z]{0,61}[0-9A-Za-z])?")
_EXPECTED = "letters, digits and hyphens, such as s2026"


def selector(value: Any) -> str:
    """Read the selector of a key; return it in lower case."""
    name: str = read.text(_EXPECTED)(value)
    if not all(map(_LABEL.fullmatch, name.split("."))):
        raise ValueError(f"not a selector; expected {_EXPECTED}")
    return name.lower()


@frozen(kw_only=True, field_transformer=settings)
class DKIMKey:
    """A key that mail of a domain is signed with; a ``[[dkim]]`` of the file.

    Raises:
        ConfigError: a value is refused.
    """

    domain: str = setting(
        read.dns_name,
        "domain that signs: the From domain of mail, or a parent of it; of several the longest"
        " signs, with all of its keys",
        default_text="required",
    )
    selector: str = setting(
        selector,
        "name of the key: its public half is the TXT record SELECTOR._domainkey.DOMAIN",
        default_text="required",
    )
    key: str = attrs.field(
        converter=read.file,
        metadata=about("PEM file with the private key, RSA or Ed25519", default_text="required"),
    )

    def __attrs_post_init__(self) -> None:
        if len(self.record_name) > 253:  # RFC 1035 §2.3.4
            raise ConfigError(
                f"[[dkim]] domain = {shown(self.domain)}: {self.record_name} has"
                f" {len(self.record_name)} octets; expected at most 253"
            )

    @property
    def record_name(self) -> str:
        """Where DNS has the public half (RFC 6376 §3.6.2.1)."""
        return f"{self.selector}._domainkey.{self.domain}"


def dkim_keys(value: Iterable[DKIMKey]) -> tuple[DKIMKey, ...]:
    """Return keys, of which no two have the same domain and selector.

    Raises:
        ConfigError: two have, or one is no `DKIMKey`.
    """
    keys = tuple(value)
    names = set()
    for key in keys:
        if not isinstance(key, DKIMKey):
            raise ConfigError(f"dkim_keys = {shown(value)}: expected a list of DKIMKey")
        if key.record_name in names:
            raise ConfigError(
                f"[[dkim]] domain = {shown(key.domain)}, selector = {shown(key.selector)}:"
                " found two; expected one key for each selector of a domain"
            )
        names.add(key.record_name)
    return keys
