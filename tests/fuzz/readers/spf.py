"""Readers of SPF: a record, checked with all that it leads to, and the macros in it."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from twisted_mta.policy.spf.evaluation import Checker, Claim
from twisted_mta.testing.resolver import FakeResolver

from ..scaling import Reader


def _check(record: bytes, local_part: str = "ann") -> None:
    resolver = FakeResolver({}, {"b.example": ["192.0.2.1"]}, {"a.example": [record]})
    clock = Clock()
    checker = Checker(resolver=resolver, clock=clock, wall_time=lambda: 0.0, hostname="")
    claim = Claim(address="192.0.2.9", domain="a.example", local_part=local_part)
    checking = Deferred.fromCoroutine(checker.check(claim))
    clock.advance(0)
    assert checking.called


def _macros(octets: bytes) -> None:
    _check(b"v=spf1 exists:" + octets + b".example -all", ".-" * 500)


READERS = (
    Reader(
        name="SPF record",
        read=_check,
        words=(
            *(
                b"a ",
                b"ip4:1.2.3.4 ",
                b"ip6::: ",
                b"x= ",
                b" ",
                b"a",
                b"/",
                b"a:%{l} ",
                b"mx:b.example ",
            ),
            *(
                b"a.",
                b".",
                b"a-",
                b"1",
                b"/1",
                b"//1",
                b"%{l1r-}",
                b"%%",
                b"%",
                b"-",
                b"%{d}.",
                b"=",
                b"\xff",
            ),
        ),
        frames=(
            (b"v=spf1 ", b""),
            (b"v=spf1 a:", b".b"),
            (b"v=spf1 redirect=b.", b"-"),
            (b"v=spf1 x=", b""),
        ),
    ),
    Reader(
        name="SPF macros",
        read=_macros,
        words=(
            b"%{s}",
            b"%{l}",
            b"%{l1r.-}",
            b"%{S127r+-./}",
            b"%{l1-}",
            b"%{d",
            b"0",
            b"1",
            b"r",
            b"-",
            b".",
        ),
        frames=((b"", b""), (b"%{d", b"}"), (b"%{l1", b"}")),
    ),
)
