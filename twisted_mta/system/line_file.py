"""Files of the operator with one entry in a line: read, and parsed in slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

from ..config.text_file import without_mark
from ..config.unreadable import unreadable
from ..mail.printable import printable
from .work import Work

_LARGEST = 32 << 20  # octets: about a million entries
_LINES = 32  # parsed between two yields
_LONGEST_SHOWN = 80  # characters
_FREED = 1_000  # entries between two yields


class LineFileError(ValueError):
    """A file that cannot be used; the text has file, line, mistake and expectation."""


def read_content(path: str) -> bytes:
    """Return the content of a file. Blocks.

    Raises:
        LineFileError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise LineFileError(f"{printable(path)}: {unreadable(path, error)}") from None
    if len(content) > _LARGEST:
        raise LineFileError(
            f"{printable(path)}: found more than {_LARGEST >> 20} MiB; expected no more"
        )
    return content


def parsing(content: bytes, *, name: str, take: Callable[[str, int], object]) -> Work[None]:
    """Hand each entry of a file to ``take``, with the number of its line; yields every 32 lines.

    An entry stands alone in its line. A comment begins with ``#``, in a line of its own or behind
    white space.

    Args:
        content: UTF-8.
        name: of the file, for people.
        take: raises `ValueError` where an entry is wrong: what was found, and what was expected.

    Raises:
        LineFileError: a line is wrong.
    """
    for number, octets in enumerate(BytesIO(content), 1):
        if number % _LINES == 0:
            yield
        try:
            entry = _entry(without_mark(octets) if number == 1 else octets)
            if entry:
                take(entry, number)
        except UnicodeDecodeError:
            raise LineFileError(
                f"{printable(name)}:{number}: not UTF-8; expected names in UTF-8"
            ) from None
        except ValueError as error:
            raise LineFileError(f"{printable(name)}:{number}: {error}") from None


def _entry(octets: bytes) -> str:
    """Return the entry of a line without its comment; empty: it has none."""
    text = octets.decode("utf-8").strip()
    at = text.find("#")
    while at > 0 and not text[at - 1].isspace():
        at = text.find("#", at + 1)  # within a local part
    return text if at < 0 else text[:at].rstrip()


def found(text: str) -> str:
    """Return text of a line for an error: printable, bounded, and in quotes."""
    text = printable(text)
    return f'"{text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 4] + " ..."}"'


def emptying(*containers: dict[Any, Any] | set[Any]) -> Work[None]:
    """Remove all entries of containers that are no longer used, so that none are freed at once."""
    for container in containers:
        take: Callable[[], object] = (
            container.popitem if isinstance(container, dict) else container.pop
        )
        yield from _repeating(take, len(container))


def _repeating(take: Callable[[], object], times: int) -> Iterator[None]:
    for number in range(times):
        take()
        if number % _FREED == 0:
            yield
