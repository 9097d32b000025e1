"""The readers of MTA-STS: records and policies."""

from __future__ import annotations

from contextlib import suppress

from twisted_mta.tls.mta_sts.policy import LARGEST, Policy, PolicyError, record_id

from ..scaling import Reader


def _record(octets: bytes) -> None:
    with suppress(PolicyError):
        record_id([octets])


def _policy(octets: bytes) -> None:
    with suppress(PolicyError):
        Policy.parse(octets)


READERS = (
    Reader(
        name="mta-sts record",
        read=_record,
        words=(
            b";",
            b"; ",
            b"=",
            b" ",
            b"\t",
            b"a",
            b"a=b;",
            b"id=1;",
            b"id=",
            b".",
            b"\0",
            b"\xff",
        ),
        frames=(
            (b"v=STSv1;", b""),
            (b"v=STSv1; id=1; ", b";"),
            (b"v=STSv1", b"; id=1"),
        ),
    ),
    Reader(
        name="mta-sts policy",
        read=_policy,
        words=(
            *(b"\n", b"\r\n", b"\r", b":", b": ", b" ", b"\t", b"a:b\n", b"mx:a\n", b"mx: *.a\r\n"),
            *(
                b"mode: none\n",
                b"max_age: 1\n",
                b".",
                b"*.",
                b"a.",
                b"9",
                b"\0",
                b"\xc3\xa9",
                b"\xff",
            ),
        ),
        frames=(
            (b"", b""),
            (b"version: STSv1\nmode: enforce\nmax_age: 1\nmx: ", b"\n"),
            (b"version: STSv1\nmode: enforce\nmax_age: ", b"\nmx: a\n"),
            (b"x: ", b"\n"),
        ),
        most=LARGEST,
    ),
)
