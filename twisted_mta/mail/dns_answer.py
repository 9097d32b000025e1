"""The records of a name in the DNS, and whether DNSSEC proves them."""

from __future__ import annotations

from typing import Generic, TypeVar

from attrs import frozen

_T_co = TypeVar("_T_co", covariant=True)


@frozen
class Answered(Generic[_T_co]):
    """The answer to one look-up; empty where the name exists without a record of the type.

    Attributes:
        records: in any order.
        secure: whether a resolver that we trust has validated all of it, also the aliases and the
            absence of records (RFC 4035 §4.3 "Secure").
        asked: the name that was looked up; with a search list, the one that was found.
        name: the name that has the records: the end of the aliases (CNAME) of ``asked``.
        asked_secure: whether the records of ``asked`` itself are secure, which may be an alias into
            a zone that is not signed (RFC 7672 §2.2.2).
    """

    records: tuple[_T_co, ...] = ()
    secure: bool = False
    asked: str = ""
    name: str = ""
    asked_secure: bool = False
