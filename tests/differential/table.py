"""The known differences from Postfix: read from ``differences.toml``, written as a page."""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

HERE = Path(__file__).parent
TABLE = HERE / "differences.toml"
PAGE = HERE.parent.parent / "docs" / "differences.rst"

_INTRODUCTION = """\
.. This page is written by ``python -m tests.differential --write`` from
   ``tests/differential/differences.toml``, and a test compares the two.

Differences from Postfix
========================

See where a client gets another reply here than from Postfix, and why.

The same dialogues are held with ``twistd mta`` and with Debian's Postfix, both on the loopback
interface, both with the same kind of next hop. Postfix has its default settings, except that its
protections against smuggling and unauthorized pipelining are on, as they are by default in later
versions (``smtpd_forbid_bare_newline = normalize``, ``smtpd_forbid_unauth_pipelining = yes``).

The test compares the first digit of every reply, the closing of the connection, and the messages
that reach the next hop: their recipients and their content, octet by octet. Each difference has a
reason below; a difference without a reason fails the test, and so does a reason without a
difference.

The digits are those of the replies to one write of the client, in order; a dot means that the
server closed the connection. Limits on errors and sizes have the same values. The trace fields
that each side prepends are not compared, nor are the Date and Message-ID that we add for clients
that may relay.
"""


@frozen
class Place:
    """A place of a difference: a write in a dialogue, and the replies of each side."""

    dialogue: str
    said: str
    ours: str
    theirs: str

    def __str__(self) -> str:
        return f"{self.dialogue} | {self.said} | {self.ours} | {self.theirs}"

    @classmethod
    def parse(cls, line: str) -> Place:
        """Return the place in a line of the table."""
        return cls(*(part.strip() for part in line.split(" | ")))


@frozen
class Difference:
    """A difference, its reason, and its places."""

    title: str
    reason: str
    seen: tuple[Place, ...]


def load() -> list[Difference]:
    """Return all known differences."""
    table = tomllib.loads(TABLE.read_text("utf-8"))
    return [
        Difference(
            each["title"],
            " ".join(each["reason"].split()),
            tuple(map(Place.parse, filter(None, map(str.strip, each["seen"].splitlines())))),
        )
        for each in table["difference"]
    ]


def by_place(differences: Sequence[Difference]) -> Mapping[tuple[str, str], Place]:
    """Return all places by dialogue and write."""
    return {(each.dialogue, each.said): each for one in differences for each in one.seen}


def page(differences: Sequence[Difference]) -> str:
    """Return the page of the documentation."""
    parts = [_INTRODUCTION]
    for each in differences:
        parts += [f"\n{each.title}\n{'-' * len(each.title)}\n", textwrap.fill(each.reason, 98), ""]
        parts += [
            ".. list-table::",
            "   :header-rows: 1",
            "   :widths: 60 20 20",
            "",
            "   * - The client says",
            "     - We",
            "     - Postfix",
        ]
        for place in each.seen:
            parts += [
                f"   * - {_literal(place.said)}",
                f"     - {_literal(place.ours)}",
                f"     - {_literal(place.theirs)}",
            ]
        parts.append("")
    return "\n".join(parts)


def _literal(text: str) -> str:
    # Between double backquotes a backslash is literal, and a backquote would end the literal.
    return f"``{text.replace('`', chr(39))}``" if text and text != "-" else "nothing"
