"""The line of a reload about a file that has changed: its changed entries, or their number."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from itertools import chain
from typing import Protocol, TypeVar

from ..mail.counted import counted
from ..mail.printable import printable
from ..system.work import Work

_SHOWN = 10  # names in a line
_PER_SLICE = 128  # entries compared before other work may have its turn


class Entries(Protocol):
    """The entries of a file, by name."""

    def __iter__(self) -> Iterator[str]: ...

    def __len__(self) -> int: ...

    def __contains__(self, name: object) -> bool: ...

    def same(self: _E, other: _E, key: str, /) -> bool:
        """Whether an entry is equal in both, or missing from both."""
        ...


_E = TypeVar("_E", bound=Entries)

Kind = tuple[str, str]
"""What the entries of a file are: the noun for one, and for several."""


def recounted(path: str, kind: Kind, before: int, after: int) -> str:
    """Return one printable line about a file that has changed, by the number of its entries.

    Args:
        path: of the file.
        kind: what the entries are.
        before: how many there were.
        after: how many there are.
    """
    return f"{printable(path)}: {counted(after, *kind)}; before: {before:,}"


def compared(before: _E, after: _E, path: str, kind: Kind) -> Work[list[str]]:
    """Return one printable line about a file that has changed, in slices of work.

    Args:
        before: the entries of before.
        after: the entries now.
        path: of the file.
        kind: what the entries are.
    """
    changed, first = 0, list[str]()  # in alphabetical order
    known = len(before)
    for number, name in enumerate(chain(before, after)):
        if number % _PER_SLICE == 0:
            yield
        seen = number >= known and name in before
        if not seen and not before.same(after, name):
            changed += 1
            insort(first, name)
            del first[_SHOWN:]
    shown = ", ".join(map(printable, first)) or "none"
    more = f" and {changed - _SHOWN:,} more" if changed > _SHOWN else ""
    return [f"{printable(path)}: {counted(len(after), *kind)}, changed: {shown}{more}"]
