"""The data target: DATA, counted chunks, normalized newlines, and dot-stuffing.

Knobs: whether long lines are looked for. Pieces: octets behind DATA as TCP cut them. The same
octets are also taken as a content to send, and as counted chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from twisted_mta.smtp import data
from twisted_mta.smtp.client.outgoing import DotStuffer
from twisted_mta.smtp.data import ChunkReader, DataReader, NewlineNormalizer

from ..case import Case
from ..reference import has_long_line, is_broken, normalized, without_dots
from . import Target, demand, one_by_one, pieces

_WORDS = (
    *(b"\r\n.\r\n", b"\r\n", b"\r", b"\n", b".", b"\0", b"\r\n.", b"\r\n..", b"\r\n.\r", b"\n.\n"),
    *(b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\r\n", b"\r\n\r\n", b"text", b"x" * 997, b"x" * 998),
    *(b"x" * 999, b"\r\0\n", b"\r\n\0.\r\n", b"QUIT\r\n", b"\xff", b"..", b"x" * 70_000),
)


def probe(case: Case) -> None:
    """Read the pieces with their cuts.

    Raises:
        Broken: what comes out is not what went in.
    """
    _read(case.pieces, bool(case.knob(0, 2)))
    _chunks(case.pieces)
    _normalize(case.pieces)
    _stuff(case.pieces)


def check(case: Case) -> None:
    """Read the pieces cut in other ways too."""
    probe(case)
    octets = b"".join(case.pieces)
    draw = Random(case.size)
    for cuts in ([octets], one_by_one(octets), pieces(octets, draw, 12)):
        probe(Case("data", case.knobs, (), tuple(cuts)))


def _read(cuts: Sequence[bytes], long_lines: bool) -> None:
    reader = DataReader(look_for_long_lines=long_lines)
    content, rest, fed = b"", b"", 0
    for place, piece in enumerate(cuts):
        fed += len(piece)
        part, rest = reader.read(piece)
        content += part
        demand(len(reader._held) <= 4, "more is held back than may be the end")
        if reader.finished:
            rest += b"".join(cuts[place + 1 :])
            break
        demand(not rest, "something stands behind an end that was not seen")
    octets = b"\r\n" + b"".join(cuts)
    end = octets.find(b"\r\n.\r\n")
    demand(reader.finished == (end >= 0), "the end is elsewhere")
    if end >= 0:
        expected = without_dots(octets[: end + 2])[2:]
        demand(content == expected, "the content differs")
        demand(rest == octets[end + 5 :], "what stands behind the end is another")
        demand(reader.bare == is_broken(expected), "bare octets were overlooked, or invented")
        demand(
            reader.long == (long_lines and has_long_line(expected)), "a line was measured wrongly"
        )
    else:
        expected = without_dots(octets)[2:]
        demand(expected.startswith(content), "the content differs")
        demand(len(expected) - len(content) <= 4, "content is held back")


def _chunks(cuts: Sequence[bytes]) -> None:
    reader = ChunkReader()
    content = b""
    for piece in cuts:
        reader.left = len(piece)
        part, rest = reader.read(piece + b"RSET\r\n")
        content += part
        demand(rest == b"RSET\r\n" and not reader.left, "a chunk does not end where it ends")
    content += reader.end()
    demand(content == b"".join(cuts), "chunks were changed")
    demand(reader.bare == is_broken(content), "bare octets were overlooked, or invented")


def _normalize(cuts: Sequence[bytes]) -> None:
    normalizer = NewlineNormalizer()
    joined = b"".join(map(normalizer.feed, cuts)) + normalizer.end()
    at_once = NewlineNormalizer()
    whole = at_once.feed(b"".join(cuts)) + at_once.end()
    demand(joined == whole, "normalization depends on the cut")
    demand(not is_broken(whole), "normalized content is still broken")
    demand(
        whole == normalized(b"".join(cuts)), "normalized content differs from a naive normalization"
    )


def _stuff(cuts: Sequence[bytes]) -> None:
    stuffer = DotStuffer()
    sent = b"".join(map(stuffer.feed, cuts)) + stuffer.end()
    content = b"".join(cuts)
    demand(sent.endswith(b"\r\n.\r\n") or sent == b".\r\n", "no final dot")
    reader = DataReader()
    received, rest = reader.read(sent)
    demand(reader.finished and not rest, "the content ends before its end")
    line_end = b"" if content.endswith(b"\r\n") or not content else b"\r\n"
    demand(received == content + line_end, "the received content is not the sent one")


def new(draw: Random) -> Case:
    """Return a new content, cut at random places."""
    octets = b"".join(draw.choice(_WORDS[:-1]) for _ in range(draw.randrange(20)))
    if draw.random() < 0.02:
        octets += _WORDS[-1] + octets
    return Case("data", (draw.randrange(2),), (), tuple(pieces(octets, draw)))


DATA = Target(
    name="data",
    shows="DATA, BDAT, normalized newlines and dot-stuffing agree with a naive reading",
    modules=(data,),
    new=new,
    words=_WORDS[:-1],
    knobs=1,
    probe=probe,
    check=check,
)
