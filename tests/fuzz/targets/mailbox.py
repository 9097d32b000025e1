"""Random addresses, and texts that look like addresses."""

from __future__ import annotations

from random import Random

_LOCAL = (
    *(b"user", b"a.b", b"User+tag", b"o'brien", b'"quoted"', b'"a@b"', b'"a\\"b"', b'"sp ace"'),
    *(b'""', b"a..b", b".a", b"a.", b"user%ext", b"h!u", b"caf\xc3\xa9", b'"\\\\"', b"x" * 64),
    *(b"x" * 300, b"\xc2\x85", b'"\t"', b'"\\\r"', b"postmaster", b"\xe2\x80\xae", b"\xcc\x81a"),
    *(b'"..\\/"', b"!#$%&'*+/=?^_`{|}~-", b'"a\x7fb"', b"\xf0\x9f\x93\xac", b'"\\a"', b"-"),
)
_DOMAINS = (
    *(b"example.net", b"EXAMPLE.Net.", b"b\xc3\xbccher.example", b"xn--bcher-kva.example", b"a"),
    *(b"[192.0.2.1]", b"[IPv6:2001:DB8:0::1]", b"[IPv6:fe80::1%eth0]", b"[ipv6:::ffff:192.0.2.1]"),
    *(b"[300.1.1.1]", b"[tag:x]", b"[]", b"-a.example", b"a-.example", b"a..b", b"_dmarc.example"),
    *(b"a_b.example", b"x" * 63 + b".example", b"x" * 64 + b".example", b"a." * 130 + b"a"),
    *(b"\xef\xbd\x85xample.net", b"ex\xe3\x80\x82net", b"xn--", b"xn--a\xc3\xa9", b"\xc3\x9f.de"),
    *(b"192.0.2.1", b"0x7f.1", b"\xd9\xa1.example", b"a\xe2\x80\x8db.example", b"A.B.C", b""),
    *(b"[192.0.2.01]", b"[IPv6:1:2:3:4:5:6:7:8]", b"[IPv6:1::2::3]", b".", b"\xe2\x92\x88com"),
)
_ROUTES = (b"", b"", b"", b"@hop.example:", b"@a,@b.example:", b"@[192.0.2.1]:", b"@:", b"@a,b:")


def mailbox(draw: Random) -> bytes:
    """Return a random text, mostly a mailbox."""
    at = b"@" if draw.random() < 0.95 else draw.choice((b"", b"@@", b" @ ", b"%"))
    if draw.random() < 0.5:
        return b"user" + at + draw.choice((b"example.net", b"mx.example"))
    return draw.choice(_LOCAL) + at + draw.choice(_DOMAINS)


def path(draw: Random) -> bytes:
    """Return a random text, mostly a path."""
    kind = draw.random()
    if kind < 0.08:
        return b"<>"
    if kind < 0.12:
        return draw.choice((b"<postmaster>", b"<POSTmaster>", b"<user>", b"", b"<<a@b>>", b"a@b"))
    opening = b" <" if draw.random() < 0.05 else b"<"
    return opening + draw.choice(_ROUTES) + mailbox(draw) + draw.choice((b">",) * 9 + (b"",))


WORDS = (*_LOCAL, *_DOMAINS, *_ROUTES, b"<", b">", b"@", b'"', b"\\", b".", b"[", b"]", b":", b" ")
