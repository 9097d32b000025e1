"""The table of aliases: names that lead to other mailboxes, looked up by mailbox or domain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import Factory, frozen

from ..mail.address import Mailbox, folded
from ..system.large_table import LargeTable
from ..system.work import Work


@frozen
class AliasTarget:
    """A name, a mailbox or a domain that an alias leads to.

    Attributes:
        local_part: None for that of the mailbox that was looked up.
        domain: canonical, or `routes.DISCARD`; None for that of the mailbox that was looked up.
    """

    local_part: str | None
    domain: str | None


@frozen
class Alias:
    """An entry of the table.

    Attributes:
        key: the key of the lookup: `folded`, with or without ``@`` and a domain.
        targets: at least one.
        line: of the file, from 1.
    """

    key: str
    targets: tuple[AliasTarget, ...]
    line: int


class AliasEntries(Mapping[str, Alias]):
    """Entries by key, in no order, as tuples of strings: garbage collections do not visit those.

    200,000 entries as objects keep every full collection busy for a tenth of a second.
    """

    def __init__(self) -> None:
        # The line, then local part and domain of each target.
        self._packed: LargeTable[tuple[Any, ...]] = LargeTable()

    def __getitem__(self, key: str) -> Alias:
        line, *flat = self._packed[key]
        targets = map(AliasTarget, flat[::2], flat[1::2])
        return Alias(key, tuple(targets), line)

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def __contains__(self, key: object) -> bool:
        return key in self._packed

    def line(self, key: str) -> int:
        """Return the line of an entry in the file, 0 where there is no such entry."""
        entry = self._packed.find(key)
        return 0 if entry is None else int(entry[0])

    def put(self, key: str, line: int, flat: Sequence[str | None]) -> None:
        """Add an entry.

        Args:
            key: of the lookup.
            line: of the file.
            flat: local part and domain of each target in turn.
        """
        self._packed[key] = (line, *flat)

    def same(self, other: AliasEntries, key: str) -> bool:
        """Whether an entry leads to the same in both tables, or is missing from both."""
        mine, its = self._packed.find(key), other._packed.find(key)
        return mine[1:] == its[1:] if mine and its else mine is its

    def empty(self) -> Work[None]:
        """Free the memory of all entries, in slices."""
        return self._packed.emptying()


@frozen
class Aliases:
    """All aliases of a file.

    Attributes:
        name: the file, for people.
        entries: by key.
    """

    name: str = ""
    entries: AliasEntries = Factory(AliasEntries)

    def find(self, mailbox: Mailbox, *, bare: bool) -> Alias | None:
        """Return the alias of a mailbox: with its tag first, then without; never the catch-all.

        Args:
            mailbox: in one of our domains.
            bare: whether keys without a domain apply to its domain.
        """
        entries = self.entries
        local_part = folded(mailbox.local_part)
        user = local_part.partition("+")[0]
        for name in dict.fromkeys((local_part, user)):
            if not name:  # '""@us.example', or only a tag: that is not the key of the catch-all
                continue
            alias = entries.get(f"{name}@{mailbox.domain}")
            if alias is None and bare:
                alias = entries.get(name)
            if alias is not None:
                return alias
        return None

    def catch_all(self, domain: str) -> Alias | None:
        """Return the alias for mailboxes of a domain that have no alias and do not exist."""
        return self.entries.get(f"@{domain}")

    def empty(self) -> Work[None]:
        """Free the memory of all entries, in slices, once nothing looks them up any more."""
        yield from self.entries.empty()
