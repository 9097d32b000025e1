"""The milter target: what a filter sends, from its packets to the header section that comes of it.

Pieces: the chunks of what the filter sends.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import BytesIO
from random import Random
from struct import pack

from twisted_mta.mail.address import Mailbox
from twisted_mta.policy.milter import changes, packets
from twisted_mta.policy.milter.changes import Changes, Fields, NewBody
from twisted_mta.policy.milter.negotiation import read_terms
from twisted_mta.policy.milter.packets import (
    LONGEST,
    MilterError,
    PacketReader,
    Refusal,
    Verdict,
    answer,
)

from ..case import Case
from . import Target, demand, one_by_one, pieces

_SECTION = b"Subject: a\r\nX: 1\r\nno field\r\nX: 2\r\n  folded\r\n"
_ABOVE = b"Authentication-Results: mx.example; none\r\n"
_LARGEST = 100_000  # octets of a new body
_HEADER = re.compile(rb"(?:no field\r\n|[\x21-\x39\x3b-\x7e]+:[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)*")


def _packet(body: bytes) -> bytes:
    return pack(">I", len(body)) + body


_WORDS = (
    *map(_packet, (b"c", b"a", b"r", b"t", b"d", b"s", b"p", b"4", b"f", b"Z", b"")),
    *map(_packet, (b"hX\0001\0", b"hX: \0001\0", b"hX\0001\n2\0", b"hX\0001\r\n\t2\0", b"hX\0")),
    *map(
        _packet, (b"i\0\0\0\1Top\0t\0", b"i\xff\xff\xff\xffEnd\0e\0", b"i\0\0", b"m\0\0\0\1x\0\0")
    ),
    *map(_packet, (b"m\0\0\0\2X\0new\0", b"m\0\0\0\7None\0n\0", b"e<a@b.example>\0", b"e<>\0")),
    *map(_packet, (b"e<a@b.example>\0RET=HDRS\0", b"+<a@b.example>\0", b"-a@b.example\0", b"+\0")),
    *map(_packet, (b"2a@b.example\0NOTIFY=NEVER\0", b"2a@b.example\0NOTIFY=\0", b"qodd\0")),
    *map(_packet, (b"bline\r", b"b\nmore\n", b"b", b"b" + b"\r" * 500, b"y550 5.7.1 no\0")),
    *map(_packet, (b"y550-5.7.1 a\r\n550 5.7.1 b\0", b"y250 fine\0", b"y550-a\r\n451 b\0", b"y\0")),
    _packet(b"O" + pack(">III", 6, 0x1FF, 0)),
    *(b"\0\0\0\0", pack(">I", LONGEST + 1), pack(">I", LONGEST), b"\xff\xff\xff\xff", b"\0"),
)


def _read(cuts: Sequence[bytes]) -> tuple[list[tuple[int, bytes]], str]:
    reader, found = PacketReader(), []
    try:
        for piece in cuts:
            for packet in reader.feed(piece):
                found.append(packet)
    except MilterError as error:
        return found, str(error)
    return found, ""


def probe(case: Case) -> None:
    """Read the packets, and carry out what they say.

    Raises:
        Broken: a header section has something else than fields, or a body another line end.
    """
    _carry_out(_read(case.pieces)[0])


def check(case: Case) -> None:
    """Read the packets cut in other ways too."""
    probe(case)
    octets = b"".join(case.pieces)
    whole = _read([octets])
    for cuts in (case.pieces, one_by_one(octets), pieces(octets, Random(case.size), 12)):
        demand(_read(cuts) == whole, "other packets, where they are cut in another way")


def _carry_out(found: Sequence[tuple[int, bytes]]) -> None:
    file = BytesIO()
    changes = Changes(
        Fields(_ABOVE, _SECTION, keeps_space=False),
        {Mailbox.parse("bob@b.example"): None},
        lambda: NewBody(file, _LARGEST),
    )
    while changes.fields.read():
        pass
    for code, data in found:
        try:
            if code == ord("O"):
                read_terms(data)
                continue
            read = answer(code, data)
            if not isinstance(read, Verdict | Refusal):
                changes.apply(read)
            elif isinstance(read, Refusal):
                demand(read.reply.code >= 400, f"a refusal that accepts: {read.reply}")
        except MilterError as error:
            demand(str(error).isprintable(), f"an error that is not safe: {error!r}")
    for section in (changes.fields.above, b"".join(changes.fields.section())):
        demand(_HEADER.fullmatch(section), f"not a header section: {section!r}")
    demand(changes.fields.above.startswith(_ABOVE[:4]) or changes.fields.changed, "it lost a field")
    demand(changes.hold.isprintable(), "a reason that is not safe")
    if changes.body is not None:
        body = changes.body.end().getvalue()  # type: ignore[attr-defined]
        demand(b"\n" not in body.replace(b"\r\n", b""), "a bare LF")
        demand(b"\r" not in body.replace(b"\r\n", b""), "a bare CR")
        demand(not body or body.endswith(b"\r\n"), "a line without an end")
        demand(len(body) <= _LARGEST + 2, "a body above its limit")


def new(draw: Random) -> Case:
    """Return what a filter may send, cut at random places."""
    octets = b"".join(draw.choice(_WORDS) for _ in range(draw.randrange(12)))
    return Case("milter", pieces=tuple(pieces(octets, draw)))


MILTER = Target(
    name="milter",
    shows="packets do not depend on cuts; what a filter changes is a header section and lines",
    modules=(packets, changes),
    new=new,
    words=_WORDS,
    knobs=0,
    probe=probe,
    check=check,
)
