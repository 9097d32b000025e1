"""The content of a message: octets that are read in pieces."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import IO, Protocol

from attrs import frozen


class Body(Protocol):
    """The content of a message as received; a large one is never whole in memory.

    Lines end with CR LF, unless the envelope is ``binary``: then any octet may stand anywhere.
    """

    @property
    def size(self) -> int:
        """The number of octets."""
        ...

    def chunks(self) -> Iterator[bytes]:
        """Yield the content from its beginning, in pieces of one octet or more.

        Raises:
            OSError: the body file cannot be read.
        """
        ...


class DotlessFile(ABC):
    """A content in a file of which no line begins with a dot, and whose last line has its CR LF.

    So it goes behind DATA as it is (RFC 5321 §4.5.2), and need not be looked through.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def size(self) -> int:
        """The number of octets."""

    @property
    def is_sent_from_file(self) -> bool:
        """Whether it is better sent from the file by the kernel than read and written."""
        return True

    @abstractmethod
    def chunks(self) -> Iterator[bytes]:
        """Yield the content from its beginning (`Body.chunks`)."""

    @abstractmethod
    def open(self) -> IO[bytes]:
        """Open the file, at the beginning of the content.

        Raises:
            OSError: it cannot be opened.
        """


@frozen
class MemoryBody:
    """A small content, kept in memory and stored inside the database.

    Attributes:
        content: its octets.
    """

    content: bytes

    @property
    def size(self) -> int:
        """The number of octets."""
        return len(self.content)

    def chunks(self) -> Iterator[bytes]:
        """Yield the content in one piece."""
        if self.content:
            yield self.content
