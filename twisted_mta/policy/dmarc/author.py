"""The author domain of a message: the one domain in its From field (RFC 9989 §5.3.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from typing import Literal

from attrs import frozen

from ...mail.address import AddressError, domain_name
from ...message.header import values
from ..originators import skeleton

_LONGEST = 8_192  # characters of a field that is read

# The domain of each addr-spec (RFC 5322 §3.4.1), white space around its dots included (§4.4).
_ATOM = r"[^\s@<>,:;\"()\[\]\\.]++"
# Dots that are left over behind it make it unreadable, except for one at the end of a domain.
_DOMAIN = re.compile(rf"@\s*+(\[[^\]]*+\]|{_ATOM}(?:\s*+\.\s*+{_ATOM})*+)?+((?:\s*+\.)*+)")
_SPACE = re.compile(r"\s++")


@frozen
class Author:
    """The author of a message, as far as DMARC looks at it.

    Attributes:
        domain: the author domain in lower-case A-labels; empty: there is not exactly one.
        fault: why there is none, for people; empty: there is one, or the field names no domain.
    """

    domain: str = ""
    fault: str = ""


def author(section: bytes) -> Author:
    """Return the author of a message from its header section.

    Several addresses in one domain have that author domain. Mail programs differ in what they show
    of a malformed field, so every domain that one of them may take for the author's counts, also
    one in a display name without quotes: ``sales@example.net <info@example.com>`` has two.

    There is no author domain, and no fault, without a From field, in an empty group (RFC 6854), and
    with an address literal.
    """
    # Some readers take a bare CR for the end of a line, and find other fields.
    if section.count(b"\r") != section.count(b"\r\n"):
        return Author(fault="a bare CR in the header section")
    fields = list(islice(values(section, "from"), 2))
    if len(fields) > 1:
        return Author(fault="several From fields")
    if not fields:
        return Author()
    found = _domains(fields[0])
    if isinstance(found, str):
        return Author(fault=found)
    if len(found) > 1:
        return Author(fault="several author domains")
    return Author(found[0]) if found and not found[0].startswith("[") else Author()


@lru_cache(maxsize=256)
def _domains(value: str) -> Sequence[str] | Literal["an unreadable From field"]:
    """Return the domains of all addresses in a field, each once."""
    bare = skeleton(value) if len(value) <= _LONGEST else None
    if bare is None:
        return "an unreadable From field"
    domains: dict[str, None] = {}
    for match in _DOMAIN.finditer(bare):
        try:
            domains[domain_name(_SPACE.sub("", (match[1] or "") + match[2]))] = None
        except AddressError:
            return "an unreadable From field"
    return tuple(domains)
