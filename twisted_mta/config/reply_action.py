"""Actions by the replies of next hops; ``[[reply_action]]``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

import attrs
from attrs import frozen

from ..mail.linear_pattern import LinearPattern
from . import readers as read
from .amounts import duration_text, period
from .destination import dotted_name
from .setting import ConfigError, about, setting, settings, shown

_CODE = re.compile(r"[45]([0-9][0-9]?)?")
_MOST = 100

REPLY_ACTIONS = ("defer", "suspend", "other_source", "fail")
"""The actions."""


def _pattern(value: Any) -> str:
    pattern: str = read.text("a regular expression")(value)
    LinearPattern(pattern)
    return pattern


def _code(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    code: str = read.text('a reply code such as "421", or its first digits')(value)
    if _CODE.fullmatch(code) is None:
        raise ValueError('expected a reply code from 400 to 599 such as "421", or its first digits')
    return code


@frozen(kw_only=True, field_transformer=settings)
class ReplyAction:
    """What follows from certain replies that refuse mail; a ``[[reply_action]]``.

    Raises:
        ConfigError: a value is refused, or contradicts another.
    """

    action: Literal["defer", "suspend", "other_source", "fail"] = setting(
        read.choice(*REPLY_ACTIONS),
        "what follows: the recipient is deferred, also by a 5yz (defer); nothing is tried at the"
        " next hop for the duration either (suspend); it is tried from another address of the"
        " source pool (other_source); or it fails, also by a 4yz (fail)",
        default_text="required",
    )
    pattern: str | None = setting(
        read.optional(_pattern),
        "regular expression that the reply has a match of, code included; case does not matter",
        default=None,
    )
    code: str | None = setting(
        read.optional(_code), 'code of the reply, or its first digits, such as "4"', default=None
    )
    domain: str | None = setting(
        read.optional(dotted_name),
        "domain of the recipient (example.net), or all below it (.example.net)",
        default=None,
    )
    exchanger: str | None = setting(
        read.optional(dotted_name),
        "host that replies (mx.example.net), or all below a name (.example.net)",
        default=None,
    )
    duration: float | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(period),
        metadata=about(
            "time until the next attempt; of suspend, and of other_source for the address that was"
            " refused there, too",
            default_text="by the retry times; required by suspend",
        ),
    )

    def __attrs_post_init__(self) -> None:
        if self.pattern is None and self.code is None:
            raise self._error("found neither pattern nor code; expected one of them")
        if self.action == "suspend" and self.duration is None:
            raise self._error('duration is missing; expected one such as duration = "30 min"')
        if self.action == "fail":
            if self.duration is not None:
                raise self._error("duration says nothing here; expected none")
            if self.code is not None and self.code.startswith("5"):
                raise self._error('a 5yz fails in any case; expected a code such as "4"')

    def _error(self, problem: str) -> ConfigError:
        return ConfigError(f"[[reply_action]] {self}: {problem}")

    @property
    def condition(self) -> str:
        """When it applies, as the file would have it."""
        names = ("code", "pattern", "domain", "exchanger")
        given = ((name, getattr(self, name)) for name in names)
        return ", ".join(f"{name} = {shown(value)}" for name, value in given if value is not None)

    def __str__(self) -> str:
        action = f"action = {shown(self.action)}"
        if self.duration is not None:
            action += f", duration = {shown(duration_text(self.duration))}"
        return ", ".join(filter(None, (self.condition, action)))


def reply_actions(value: Iterable[ReplyAction]) -> tuple[ReplyAction, ...]:
    """Return actions, of which no two have the same condition.

    Raises:
        ConfigError: two have, one is no `ReplyAction`, or there are too many.
    """
    actions = tuple(value)
    if len(actions) > _MOST:
        raise ConfigError(f"[[reply_action]]: found {len(actions)}; expected at most {_MOST}")
    seen = set()
    for each in actions:
        if not isinstance(each, ReplyAction):
            raise ConfigError(f"reply_actions = {shown(value)}: expected a list of ReplyAction")
        if each.condition in seen:
            raise ConfigError(
                f"[[reply_action]] {each.condition}: found two; expected one, since the first"
                " applies"
            )
        seen.add(each.condition)
    return actions
