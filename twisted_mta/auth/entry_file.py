"""A private file with one named entry on a line; empty lines and comments are kept as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Generic, Protocol, TypeVar

from ..config.text_file import without_mark
from ..mail.printable import printable
from .accounts import account_key
from .private_file import locked, read_private, replace


class Entry(Protocol):
    """An entry of such a file."""

    @property
    def name(self) -> str:
        """Its name, which no other entry has (`account_key`)."""
        ...

    def line(self) -> str:
        """Return the line of the file, without its end."""
        ...


_E = TypeVar("_E", bound=Entry)


class EntryFile(Generic[_E]):
    """Files of one kind of entries.

    Args:
        parse: returns the entry that a line has written; raises ``error``.
        error: is raised where a file cannot be used.
        made_by: the command that makes such files, for the text of an error.
    """

    def __init__(self, parse: Callable[[str], _E], error: type[ValueError], made_by: str) -> None:
        self._parse = parse
        self._error = error
        self._made_by = made_by

    def read(self, path: str) -> bytes:
        """Return the content of a file. Blocks.

        Raises:
            ValueError: of the type ``error``: it cannot be read, or others than its owner and group
                can access it.
        """
        return read_private(path, self._error, self._made_by)

    def lines(self, content: bytes, path: str) -> Iterator[tuple[str, _E | None]]:
        """Yield each line, and its entry; None for an empty line or a comment.

        Raises:
            ValueError: of the type ``error``: a line is not valid.
        """
        seen: dict[str, int] = {}
        for number, octets in enumerate(BytesIO(without_mark(content)), 1):
            try:
                line = octets.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                raise self._error(f"{printable(path)}: not UTF-8") from None
            if not line.strip() or line.startswith("#"):
                yield line, None
                continue
            where = f"{printable(path)}: line {number}"
            try:
                entry = self._parse(line)
            except self._error as error:
                raise self._error(f"{where}: {error}") from None
            key = account_key(entry.name)
            if key in seen:
                raise self._error(
                    f"{where}: found {printable(entry.name)} again, which is in line {seen[key]}"
                    " already"
                )
            seen[key] = number
            yield line, entry

    @contextlib.contextmanager
    def changing(self, path: str) -> Iterator[dict[str, _E]]:
        """Change a file: yields its entries by `account_key`, to be changed in place. Blocks.

        Two changes at once wait for each other. A reader sees all or nothing of a change, after a
        crash too.

        Raises:
            ValueError: of the type ``error``: the file cannot be used.
            OSError: the file cannot be written.
        """
        with locked(path, self._error) as (descriptor, status):
            with open(descriptor, "rb", closefd=False) as file:
                lines = list(self.lines(file.read(), path))
            before = {account_key(each.name): each for _, each in lines if each is not None}
            entries = dict(before)
            yield entries
            written: list[str] = []
            for line, entry in lines:
                now = None if entry is None else entries.get(account_key(entry.name))
                if entry == now:  # a comment, or an entry that was not changed
                    written.append(line)
                elif now is not None:
                    written.append(now.line())
            written += [each.line() for key, each in entries.items() if key not in before]
            replace(path, "".join(f"{line}\n" for line in written), status)
