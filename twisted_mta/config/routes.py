"""The setting ``routes``: patterns for domains, each with the URL of a next hop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..mail.address import AddressError, domain_name
from .readers import text
from .setting import Problems, mistyped, quoted, shown

_SCHEMES = ("smtp", "smtps", "lmtp", "lmtp+unix", "maildir", "discard", "deliver", "error")
_EXAMPLE = 'expected one such as "*=smtp://relay.example.net:25"'


def routes(value: Mapping[str, str] | Iterable[str | Sequence[str]]) -> tuple[tuple[str, str], ...]:
    """Read routes from a table, or from a list of ``PATTERN=URL``; return (pattern, URL) of each.

    Patterns are returned in canonical form. Of a URL only the scheme is checked here;
    `twisted_mta.routing` checks the rest.
    """
    if isinstance(value, Mapping):
        value = list(value.items())
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise mistyped(value, 'a table such as {"*" = "smtp://relay.example.net"}')
    urls: dict[str, str] = {}
    problems = []
    for route in value:
        try:
            pattern, url = _route(route)
            if pattern in urls:
                raise ValueError(
                    f"{quoted(pattern)} has two routes; expected one, which may name several hosts"
                )
            urls[pattern] = url
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise Problems(problems)
    return tuple(urls.items())


def _route(route: Any) -> tuple[str, str]:
    if isinstance(route, str):
        pattern, equals, url = route.partition("=")
        if not equals:
            raise ValueError(f"{shown(route)}: PATTERN=URL without an equals sign; {_EXAMPLE}")
    elif isinstance(route, Sequence) and len(route) == 2:
        pattern, url = route
    else:
        raise ValueError(f"{shown(route)}: not a pattern with a URL; {_EXAMPLE}")
    return _pattern(pattern), _url(url)


def _pattern(value: Any) -> str:
    pattern: str = text("a domain, .domain or *")(value).strip()
    if pattern == "*":
        return pattern
    dot, name = (".", pattern[1:]) if pattern.startswith(".") else ("", pattern)
    try:
        return dot + domain_name(name)
    except AddressError as error:
        raise ValueError(
            f"{quoted(pattern)}: {error}; expected example.net, .example.net or *"
        ) from None


def _url(value: Any) -> str:
    url: str = text("a URL such as smtp://relay.example.net")(value).strip()
    scheme, colon, _ = url.partition(":")
    if not colon or scheme.lower() not in _SCHEMES:
        *others, last = (f"{scheme}:" for scheme in _SCHEMES)
        raise ValueError(
            f"{quoted(url)} is not a route; expected a URL of {', '.join(others)} or {last}"
        )
    return url
