"""The header target: the scanner and the fields of a header section.

Pieces: the chunks of the content.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from twisted_mta.message import header
from twisted_mta.message.header import field, fields
from twisted_mta.message.header_scanner import HeaderScanner

from ..case import Case
from . import Target, demand, one_by_one, pieces

_WORDS = (
    *(b"Received: from a by b", b"received:", b"RECEIVED \t:", b"Received", b"Receivedx:", b": "),
    *(b"Subject: hello", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\r\n ", b"\r\n\t", b" ", b"\n\n"),
    *(b"From: a@b", b"X-Long: " + b"x" * 990, b"\xff\xfe", b"\0", b"caf\xc3\xa9: x", b"a:b:c"),
    *(b"Receive", b"d:", b"x" * 1000, b"\r\nReceived: x", b" " * 200, b"\r\n.\r\n", b"\xc2\x85"),
)
_NAME = re.compile(rb"received[ \t]*:", re.IGNORECASE)
_LONG_NAME = re.compile(rb"received[ \t]{900,}", re.IGNORECASE)
_KEPT = 1002  # octets that the scanner may keep of an unfinished field name


def probe(case: Case) -> None:
    """Scan the pieces, and read the fields of the whole.

    Raises:
        Broken: a number or a field differs from a naive reading.
    """
    _scan(case.pieces)
    _take_apart(b"".join(case.pieces))


def check(case: Case) -> None:
    """Scan the content cut in other ways too."""
    probe(case)
    octets = b"".join(case.pieces)
    draw = Random(case.size)
    for cuts in ([octets], one_by_one(octets), pieces(octets, draw, 12)):
        _scan(cuts)


def _scan(cuts: Sequence[bytes]) -> None:
    scanner = HeaderScanner()
    for piece in cuts:
        scanner.feed(piece)
        demand(len(scanner._carry) <= max(_KEPT, len(piece) + 4), "a line is kept")
    content = b"".join(cuts)
    section, received, ended = 0, 0, False
    lines = content.split(b"\r\n")
    for line in lines[:-1]:
        if not line:
            ended = True
            break
        section += len(line) + 2
        received += _NAME.match(line) is not None
    if not ended:
        section += len(lines[-1])
        received += _NAME.match(lines[-1]) is not None
    demand(scanner.ended == ended, "the header section ends elsewhere")
    demand(scanner.size == section, f"the size is {section} and not {scanner.size}")
    if not _LONG_NAME.search(content):  # no field name is that long; counted or not, no harm
        demand(scanner.hops == received, f"{received} hops and not {scanner.hops}")


def _take_apart(content: bytes) -> None:
    found = list(fields(content))
    for name, value in found:
        demand(re.fullmatch(r"[\x21-\x39\x3b-\x7e]+", name), f"not a field name: {name!r}")
        demand(value == value.strip(), f"not stripped: {value!r}")
        demand("\n" not in value, f"a value of several lines: {value!r}")
    for name in list(dict.fromkeys(name.lower() for name, _ in found))[:8]:
        first = next(each for other, each in found if other.lower() == name)
        demand(field(content, name.upper()) == first, f"not the first {name}")
    unfolded = re.sub(rb"\r?\n(?=[ \t])", b"", content)
    naive = []
    for line in re.split(rb"\r?\n", unfolded):
        if not line:
            break
        name_octets, colon, _ = line.partition(b":")
        name_octets = name_octets.rstrip(b" \t")
        if colon and name_octets and all(0x20 < octet < 0x7F for octet in name_octets):
            naive.append(name_octets.decode())
    demand([name for name, _ in found] == naive, f"fields {found} and not {naive}")


def new(draw: Random) -> Case:
    """Return a new header section, cut at random places."""
    octets = b""
    for _ in range(draw.randrange(12)):
        octets += draw.choice(_WORDS) + draw.choice((b"\r\n", b"\r\n", b"\r\n", b"", b"\n"))
    return Case("header", pieces=tuple(pieces(octets, draw)))


HEADER = Target(
    name="header",
    shows="hops, size and fields agree with a naive reading, for every cut of the content",
    modules=(header,),
    new=new,
    words=_WORDS,
    knobs=0,
    probe=probe,
    check=check,
)
