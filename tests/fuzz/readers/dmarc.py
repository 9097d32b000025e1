"""The readers of DMARC: policy records, and From fields."""

from __future__ import annotations

from twisted_mta.policy.dmarc.author import author
from twisted_mta.policy.dmarc.record import Record

from ..scaling import Reader

READERS = (
    Reader(
        name="dmarc record",
        read=Record.parse,
        words=(
            *(b";", b"; ", b"=", b" ", b"\t", b"a", b"a=b;", b"p=none;", b"sp=x;", b"rua=", b"fo="),
            *(
                b"mailto:",
                b"mailto:a@b,",
                b",",
                b"!",
                b"!1m",
                b"%41",
                b"%",
                b"0:",
                b"\xff",
                b"\r\n",
            ),
        ),
        frames=(
            (b"v=DMARC1;", b""),
            (b"v", b"=DMARC1"),
            (b"v=DMARC1; p=none; rua=mailto:a@b", b""),
            (b"v=DMARC1; ruf=a:b; fo=", b""),
        ),
    ),
    Reader(
        name="author domain",
        read=author,
        words=(
            *(
                b"@",
                b"@a",
                b"@a.",
                b".",
                b" .",
                b"a",
                b",",
                b"<",
                b">",
                b":",
                b";",
                b"(",
                b")",
                b'"',
            ),
            *(b"\\", b"[", b"]", b" ", b"\r\n ", b"\r", b"\r\nFrom: a@b", b"\xc3\xa9", b"xn--a."),
        ),
        frames=(
            (b"From: ", b"\r\n"),
            (b"From: a@", b".example\r\n"),
            (b'From: "', b'" <a@b>\r\n'),
            (b"From: a@b\r\nX: ", b"\r\n"),
        ),
    ),
)
