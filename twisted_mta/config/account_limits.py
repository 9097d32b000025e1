"""How much each account may send; ``[account_limits]`` and ``[[account_limit]]``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
from attrs import frozen

from . import readers as read
from .setting import ConfigError, about, setting, settings, shown

_LONGEST = 320  # characters
_EXPECTED = "an account such as newsletter, uid:33 or certificate:FINGERPRINT"
_MOST = read.number(0, 10**6)


def _account(value: Any) -> str:
    name: str = read.text(_EXPECTED)(value)
    if not name or len(name) > _LONGEST or not name.isprintable():
        raise ValueError(f"not an account; expected {_EXPECTED}")
    return name


@frozen(kw_only=True, field_transformer=settings)
class AccountLimits:
    """How much each account may send, without a table of its own; ``[account_limits]``."""

    messages_per_hour: int = setting(
        _MOST,
        "most messages in an hour of each account, user of this machine, client certificate that"
        " may relay, and account that an application names; 0: no limit",
        default=0,
    )
    recipients_per_hour: int = setting(
        _MOST, "most recipients in an hour, likewise; 0: no limit", default=0
    )


@frozen(kw_only=True, field_transformer=settings)
class AccountLimit:
    """How much one account may send, in place of the general limits; an ``[[account_limit]]``.

    Raises:
        ConfigError: a value is refused.
    """

    account: str = attrs.field(
        converter=_account,
        metadata=about(
            "the account: a name of AUTH, or that an application gives; uid:33 for a user of this"
            " machine; certificate:FINGERPRINT (SHA-256) for a client certificate that may relay",
            default_text="required",
        ),
    )
    messages_per_hour: int = setting(_MOST, "most messages in an hour; 0: no limit", default=0)
    recipients_per_hour: int = setting(_MOST, "most recipients in an hour; 0: no limit", default=0)


def limits_of_accounts(value: Iterable[AccountLimit]) -> tuple[AccountLimit, ...]:
    """Return limits, of which no two are of the same account.

    Raises:
        ConfigError: two are, or one is no `AccountLimit`.
    """
    limits = tuple(value)
    names: set[str] = set()
    for each in limits:
        if not isinstance(each, AccountLimit):
            raise ConfigError(
                f"limits_of_accounts = {shown(value)}: expected a list of AccountLimit"
            )
        if each.account.lower() in names:
            raise ConfigError(
                f"[[account_limit]] account = {shown(each.account)}: found two; expected one"
            )
        names.add(each.account.lower())
    return limits
