"""The mail of a capture server, read from its Maildirs.

Every method blocks; call them in a thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from heapq import nlargest

from attrs import frozen

from ..inbox_message import InboxMessage, links
from ..interfaces import Files
from ..message.header import field
from ..message.mime.text_parts import TextPart, text_parts

_TIME = re.compile(r"([0-9]{1,12})\.(?:[^.]*?M([0-9]{1,9}))?")  # of a name in a Maildir
_LONGEST_TEXT = 512 * 1024  # encoded octets that are read of a text
_HEADER = 65_536  # octets that are read for a list
MOST_LISTED = 500
"""Messages in a list: the newest."""


@frozen
class CapturedMessage:
    """One copy of a message, for one recipient.

    Attributes:
        id: names it; of hexadecimal digits.
        received_at: seconds since the epoch; 0.0 where the name of its file does not tell.
        size: octets; 0 where only the header was read.
        message: what came. In a list, its header alone.
    """

    id: str
    received_at: float
    size: int
    message: InboxMessage

    @cached_property
    def _texts(self) -> Sequence[TextPart]:
        return tuple(text_parts(self.message.raw, longest=_LONGEST_TEXT))

    @property
    def text(self) -> str:
        """The first plain text, at most some 512 KiB; empty without one.

        More would hold the interpreter, and so the reactor, for too long, though in a thread.
        """
        return self._first("text/plain")

    @property
    def html(self) -> str:
        """The first HTML text, at most some 512 KiB; empty without one."""
        return self._first("text/html")

    @property
    def links(self) -> Sequence[str]:
        """The URLs in these texts (`InboxMessage.links`)."""
        return links(self.html, self.text)

    def _first(self, content_type: str) -> str:
        return next((each.text for each in self._texts if each.content_type == content_type), "")


@frozen
class _Place:
    id: str
    path: str
    order: tuple[int, int]
    name: str


class CapturedMail:
    """The messages in all Maildirs below a directory.

    An id is a digest of the path of a file, and is looked up among the files that are there: a
    client cannot name a path.

    Args:
        maildir: the directory of all Maildirs.
        files: the file system.
    """

    def __init__(self, maildir: str, files: Files) -> None:
        self._maildir = maildir
        self._files = files

    def newest(self, recipient: str = "") -> Sequence[CapturedMessage]:
        """Return the newest messages, at most 500, the newest first, each with its header alone.

        Args:
            recipient: its address, in any case; empty: all.

        Raises:
            OSError: a directory cannot be read.
        """
        wanted = recipient.lower()
        found = nlargest(MOST_LISTED, self._places(), key=lambda each: (each.order, each.name))
        read = (self._read(each, _HEADER) for each in found)
        return [
            each
            for each in read
            if each is not None and (not wanted or wanted in (to.lower() for to in each.message.to))
        ]

    def find(self, id: str) -> CapturedMessage | None:
        """Return a whole message; None: there is none with that id.

        Raises:
            OSError: a directory cannot be read.
        """
        place = next((each for each in self._places() if each.id == id), None)
        return None if place is None else self._read(place, None)

    def clear(self) -> int:
        """Remove all messages; return how many there were.

        Raises:
            OSError: a file cannot be removed.
        """
        count = 0
        for place in list(self._places()):
            self._files.unlink(place.path)
            count += 1
        return count

    def _places(self) -> Iterator[_Place]:
        for domain in self._directories(self._maildir):
            for mailbox in self._directories(domain):
                for folder in (f"{mailbox}/new", f"{mailbox}/cur"):
                    if self._files.is_directory(folder):
                        for name in self._files.names(folder):
                            yield _place(f"{folder}/{name}", name)

    def _directories(self, path: str) -> Iterator[str]:
        if self._files.is_directory(path):
            for name in self._files.names(path):
                if not name.startswith("."):
                    yield f"{path}/{name}"

    def _read(self, place: _Place, most: int | None) -> CapturedMessage | None:
        try:
            with self._files.open(place.path) as opened:
                raw = opened.read() if most is None else opened.read(most)
        except FileNotFoundError:  # removed meanwhile
            return None
        seconds, microseconds = place.order
        return CapturedMessage(
            place.id, seconds + microseconds / 1e6, 0 if most else len(raw), _message(raw)
        )


def _place(path: str, name: str) -> _Place:
    match = _TIME.match(name)
    order = (int(match[1]), int(match[2] or 0)) if match else (0, 0)
    id = sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return _Place(id, path, order, name)


def _message(raw: bytes) -> InboxMessage:
    """Return a message, with the envelope in the fields of its delivery (RFC 5321 §4.4)."""
    top = raw[:_HEADER]
    sender = (field(top, "Return-Path") or "").removeprefix("<").removesuffix(">")
    to = field(top, "Delivered-To")
    return InboxMessage(sender, () if to is None else (to,), raw)
