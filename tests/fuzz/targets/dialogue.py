"""The grammar of random dialogues: mostly sensible, with faults of every kind."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from . import pieces
from .mailbox import path

WORDS = (
    *(b"EHLO c.example", b"HELO c", b"MAIL FROM:<a@b.example>", b"RCPT TO:<c@d.example>", b"DATA"),
    *(b"RSET", b"NOOP", b"QUIT", b"VRFY x", b"HELP", b"STARTTLS", b"AUTH PLAIN", b"BDAT 5"),
    *(b"BDAT 0 LAST", b"BDAT x", b"LHLO x", b"EXPN y", b" SIZE=1000", b" BODY=8BITMIME"),
    *(b" BODY=BINARYMIME", b" SMTPUTF8", b" SIZE=99999999999", b" X=Y", b" SIZE", b"\r\n"),
    *(b"\r\n.\r\n", b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\n.\r", b"\r.\r\n", b"\r.\r", b"\r\n.\r"),
    *(b"\r\n.\r\r\n", b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r", b"\n", b"\0", b".", b"..", b"\r\n.."),
    *(b"\xff", b"\xc3\xa9", b"\xc2\x85", b"\xe2\x80\xa8", b" ", b"\t", b"<", b">", b"@", b'"'),
    *(b"\\", b":", b"=", b"x" * 100, b"x" * 500, b"x" * 998, b"x" * 1001, b"\x1b[2J", b"\x7f"),
)

_LINE_ENDS = (b"\r\n",) * 12 + (b"\n", b"\r", b"\r\r\n", b"\0\r\n", b"")
_NAMES = (b"client.example", b"[192.0.2.1]", b"[IPv6:2001:db8::1]", b"c\xc3\xa9.example", b"x y")
_MAIL = (
    *(b" SIZE=10", b" SIZE=2000", b" BODY=7BIT", b" BODY=8BITMIME", b" BODY", b" SIZE=x", b" X"),
    *(b" BODY=BINARYMIME", b" body=binarymime  SIZE=9", b" BODY=BINARYMIME BODY=BINARYMIME"),
    *(b" SMTPUTF8", b" SIZE=1 SIZE=1", b" RET=HDRS", b"  ", b" AUTH=<>", b" " + b"k" * 480),
)
_CONTENTS = (
    *(b"", b"Subject: x\r\n\r\nhello\r\n", b".\r\n..\r\n", b".leading\r\n", b"no line end"),
    *(b"a\nb\r\n", b"a\rb\r\n", b"a\0b\r\n", b"x" * 999 + b"\r\n", b"x" * 998 + b"\r\n"),
    *(b"caf\xc3\xa9\r\n", b"\r\n\r\n\r\n", b"a\r\n.\nb\r\n", b"a\n.\r\nMAIL FROM:<x@y>\r\n"),
    *(b"a\r\0\nb\r\n", b"\r", b"\r\r\n", b"long\r\n" * 300),
)


def dialogue(draw: Random) -> Iterator[bytes]:
    """Yield the writes of a client."""
    if draw.random() < 0.9:
        yield _line(draw, draw.choice((b"EHLO ", b"EHLO ", b"HELO ")) + _name(draw))
    for _ in range(draw.randrange(1, 5)):
        kind = draw.random()
        if kind < 0.5:
            yield from _transaction(draw)
        elif kind < 0.6:
            yield from _in_chunks(draw)
        elif kind < 0.7:
            yield _line(draw, b"STARTTLS" + draw.choice((b"", b"", b"", b" now")))
            if draw.random() < 0.8:
                yield _line(draw, b"EHLO " + _name(draw))
        elif kind < 0.85:
            yield b"".join(_small(draw) for _ in range(draw.randrange(1, 5)))
        else:
            yield _chunk(draw)
    if draw.random() < 0.4:
        yield _line(draw, b"QUIT")


def _transaction(draw: Random) -> Iterator[bytes]:
    group = _line(draw, b"MAIL FROM:" + path(draw) + _some(draw, _MAIL, 0.3))
    for _ in range(draw.choice((0, 1, 1, 1, 2, 3))):
        group += _line(draw, b"RCPT TO:" + path(draw) + _some(draw, _MAIL, 0.1))
        if draw.random() < 0.1:
            group += _small(draw)
    yield from _grouped(draw, group + _line(draw, b"DATA" + _some(draw, (b" ", b" x"), 0.05)))
    if draw.random() < 0.9:
        content = draw.choice(_CONTENTS) + draw.choice((b"", draw.choice(WORDS)))
        stuffed = b"\r\n".join(
            b"." + line if line.startswith(b".") and draw.random() < 0.9 else line
            for line in content.split(b"\r\n")
        )
        end = draw.choice((b".\r\n", b"\r\n.\r\n", b"\n.\n.\r\n", b""))
        yield stuffed + end + draw.choice((b"", b"", _small(draw)))


def _in_chunks(draw: Random) -> Iterator[bytes]:
    binary = draw.choice((b"", b"", b" BODY=BINARYMIME"))
    group = _line(draw, b"MAIL FROM:" + path(draw) + binary)
    group += _line(draw, b"RCPT TO:<b@mx.example>")
    for _ in range(draw.randrange(1, 5)):
        group += _chunk(draw)
        if draw.random() < 0.15:
            group += draw.choice((_small(draw), b"DATA\r\n", b"RCPT TO:<c@d.example>\r\n"))
    yield from pieces(group, draw, 3)


def _grouped(draw: Random, group: bytes) -> Iterator[bytes]:
    if draw.random() < 0.5:
        yield group
    else:
        yield from filter(None, (line + b"\r\n" for line in group.split(b"\r\n")[:-1]))


def _small(draw: Random) -> bytes:
    verb = draw.choice((b"NOOP", b"RSET", b"VRFY u", b"HELP", b"EXPN l", b"AUTH", b"XYZZY", b""))
    return _line(draw, verb + _some(draw, WORDS, 0.2))


def _chunk(draw: Random) -> bytes:
    chunk = draw.choice(_CONTENTS)[:600]
    count = str(max(0, len(chunk) + draw.choice((0, 0, 0, 1, -1)))).encode()
    last = draw.choice((b"", b"", b" LAST", b" LAST", b" last", b" FIRST"))
    if draw.random() < 0.1:
        count = draw.choice((b"-1", b"1e3", b"0", b"999999999999999999"))
    return _line(draw, b"BDAT " + count + last) + chunk


def _name(draw: Random) -> bytes:
    return draw.choice(_NAMES) if draw.random() < 0.9 else draw.choice(WORDS)


def _some(draw: Random, words: tuple[bytes, ...], chance: float) -> bytes:
    return draw.choice(words) if draw.random() < chance else b""


def _line(draw: Random, line: bytes) -> bytes:
    if draw.random() < 0.03:
        line = draw.choice(
            (line.lower(), line + b" " * 600, line.replace(b" ", b"\t"), b" " + line)
        )
    return line + (draw.choice(_LINE_ENDS) if draw.random() < 0.1 else b"\r\n")
