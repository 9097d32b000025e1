"""Identifier alignment (RFC 9989 §4.4): authenticated domains against the domain of the author."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from attrs import frozen

from ...interfaces import Resolver
from .discovery import Walk, is_below, walk

Aligned = Literal["strict", "relaxed", "none", "unknown"]
"""How an authenticated domain is aligned; ``unknown``: a query of the DNS failed."""


class Alignment:
    """Compares authenticated domains with one author domain, and remembers its queries.

    Args:
        author: the tree walk from the author domain; it goes on here where that matters.
        resolver: the DNS.
    """

    def __init__(self, author: Walk, resolver: Resolver) -> None:
        self._author = author
        self._resolver = resolver
        self._known: dict[str, Aligned] = {}

    async def of(self, domain: str) -> Aligned:
        """Return how an authenticated domain (in lower-case A-labels) is aligned."""
        if domain not in self._known:
            self._known[domain] = await self._compare(domain)
        return self._known[domain]

    async def _compare(self, domain: str) -> Aligned:
        start = self._author.start
        if domain == start:
            return "strict"
        # Domains that share not even the last label have no organization in common.
        if domain.rpartition(".")[2] != start.rpartition(".")[2]:
            return "none"
        if self._author.is_partial:
            self._author = await walk(start, self._resolver)
        author = self._author
        organization = author.organizational_domain
        if organization is None:
            return "unknown"
        # RFC 9989 §4.10.2: both have the same organizational domain. That of a domain is the domain
        # itself or above it, so a domain elsewhere costs no query.
        if not is_below(domain, organization):
            return "none"
        other = (await walk(domain, self._resolver, known=author)).organizational_domain
        if other is None:
            return "unknown"
        return "relaxed" if other == organization else "none"


@frozen
class MethodAlignment:
    """The alignment of one method, SPF or DKIM.

    Attributes:
        result: ``pass``: one of its domains is aligned as the record asks for; ``unknown``: that
            depends on a query that failed.
        domain: the aligned domain; empty: none.
    """

    result: Literal["pass", "fail", "unknown"]
    domain: str = ""


async def method_alignment(
    domains: Sequence[str], mode: Literal["r", "s"], alignment: Alignment
) -> MethodAlignment:
    """Return the alignment of the domains that one method has authenticated.

    Args:
        domains: in lower-case A-labels.
        mode: ``adkim`` or ``aspf`` of the record.
        alignment: compares them.
    """
    unknown = False
    for domain in domains:
        aligned = await alignment.of(domain)
        if aligned == "strict" or (aligned == "relaxed" and mode == "r"):
            return MethodAlignment("pass", domain)
        unknown = unknown or (aligned == "unknown" and mode == "r")
    return MethodAlignment("unknown" if unknown else "fail")
