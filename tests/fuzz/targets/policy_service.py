"""The policy service target: what a service answers, and the action that comes of it.

Pieces: the chunks of what the service sends.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from twisted_mta.policy.delegation import answer, request
from twisted_mta.policy.delegation.answer import (
    LONGEST,
    AnswerReader,
    ServiceError,
    Verb,
    read_action,
)

from ..case import Case
from . import Target, demand, one_by_one, pieces

_CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_FIELD = re.compile(rb"[\x21-\x39\x3b-\x7e]+:[^\r\n\0]*\r\n")
_WIRE = re.compile(rb"(?:[45][0-9]{2}-[\x20-\x7e]*\r\n)*[45][0-9]{2} [\x20-\x7e]*\r\n")
_REFUSING = (Verb.REFUSE, Verb.DEFER_IF_PERMIT, Verb.DEFER_IF_REJECT)

_VERBS = (
    *(b"DUNNO", b"OK", b"ok", b"PERMIT", b"REJECT", b"DEFER", b"DEFER_IF_PERMIT"),
    *(b"DEFER_IF_REJECT", b"HOLD", b"DISCARD", b"PREPEND", b"WARN", b"INFO", b"REDIRECT", b"BCC"),
    *(b"FILTER", b"450", b"550", b"421", b"250", b"600", b"12345"),
)
_TEXTS = (
    *(b"", b"5.7.1 no", b"4.7.1", b"2.0.0 x", b"5.1000.1", b"X-A: b", b"X A: b", b"X:", b": b"),
    *(b"bob@a.example", b"<bob@a.example>", b"@", b"postmaster", b"text", b"\xc3\xa9", b"x" * 1000),
)
_WORDS = (
    *(b"action=", b"action", b"=", b"\n", b"\n\n", b"\r\n", b" ", b"\t", b"\0", b"\x1b[2J"),
    *(b"\xff", b"4", b"x=y\n", b"action=OK\n\n", b"x" * LONGEST, b"a=b\n" * (LONGEST // 4)),
    *_VERBS,
    *_TEXTS,
)


def _read(cuts: Sequence[bytes]) -> str | None:
    """Return the action; empty: the answer is bad; None: it is not complete."""
    reader, found = AnswerReader(), None
    try:
        for piece in filter(None, cuts):
            found = reader.feed(piece)
    except ServiceError as error:
        demand(str(error).isprintable(), f"an error that is not safe: {error!r}")
        return ""
    return found


def _naive(octets: bytes) -> str | None:
    """Read slowly, line by line."""
    lines = []
    rest = octets
    while True:
        if len(octets) - len(rest) > LONGEST:
            return ""
        line, end, rest = rest.partition(b"\n")
        if not end:
            return "" if len(octets) > LONGEST else None
        if not line:
            break
        lines.append(line)
    if rest or len(octets) > LONGEST:
        return ""
    if any(b"=" not in line or _CONTROL.search(line) for line in lines):
        return ""
    actions = [line[7:] for line in lines if line.startswith(b"action=")]
    return actions[0].decode("utf-8", "replace") if len(actions) == 1 else ""


def probe(case: Case) -> None:
    """Read the answer, and what its action means.

    Raises:
        Broken: a reply accepts, a field is no field, or a text is not safe.
    """
    octets = b"".join(case.pieces)
    text = octets.decode("utf-8", "replace")
    written = request.request([("a", text), ("b", "")])
    demand(written.count(b"\n") == 3, f"a value ends its line: {written!r}")
    for action in filter(None, (_read(case.pieces), text)):
        _understand(action)


def check(case: Case) -> None:
    """Read the answer cut in other ways too."""
    probe(case)
    octets = b"".join(case.pieces)
    whole = _naive(octets)
    for cuts in (case.pieces, [octets], one_by_one(octets), pieces(octets, Random(case.size), 12)):
        found = _read(cuts)
        demand(found == whole, f"found {found!r}, by a naive reading {whole!r}")


def _understand(action: str) -> None:
    try:
        read = read_action(action)
    except ServiceError as error:
        demand(str(error).isprintable(), f"an error that is not safe: {error!r}")
        return
    demand(read.text.isprintable(), f"a text that is not safe: {read.text!r}")
    demand((read.reply is not None) == (read.verb in _REFUSING), "a refusal without a reply")
    if read.reply is not None:
        demand(_WIRE.fullmatch(read.reply.wire), f"no refusal: {read.reply.wire!r}")
    if read.verb is Verb.PREPEND:
        fields = () if read.mark is None else read.mark.fields
        demand(len(fields) == 1 and _FIELD.fullmatch(fields[0]), f"no field: {fields!r}")
    demand((read.mailbox is not None) == (read.verb in (Verb.REDIRECT, Verb.BCC)), "no mailbox")


def new(draw: Random) -> Case:
    """Return what a service may send, cut at random places."""
    if draw.random() < 0.5:
        octets = b"action=%b %b\n\n" % (draw.choice(_VERBS), draw.choice(_TEXTS))
    else:
        octets = b"".join(draw.choice(_WORDS) for _ in range(draw.randrange(8)))
    return Case("policy_service", pieces=tuple(pieces(octets, draw)))


POLICY_SERVICE = Target(
    name="policy_service",
    shows="an answer is that of a naive reading, wherever it is cut, and its action is safe",
    modules=(answer, request),
    new=new,
    words=_WORDS,
    knobs=0,
    probe=probe,
    check=check,
)
