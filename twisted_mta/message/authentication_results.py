"""The Authentication-Results field (RFC 8601)."""

from __future__ import annotations

from attrs import frozen


@frozen
class MethodResult:
    """The result of one authentication method (RFC 8601 §2.2, ``resinfo``).

    Text may have been written by a stranger: the writer of the field quotes or encodes it.

    Attributes:
        method: its name in the registry: ``spf``, ``dkim``, ``dmarc``, ….
        result: its word in the registry: ``pass``, ``fail``, ``temperror``, ….
        reason: text of the ``reason`` property; empty: none.
        properties: (``ptype.property``, value), such as ``("smtp.mailfrom", "ann@example.net")``.
        comment: text behind the result, in parentheses; empty: none.
    """

    method: str
    result: str
    reason: str = ""
    properties: tuple[tuple[str, str], ...] = ()
    comment: str = ""
