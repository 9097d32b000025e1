"""A message that was received, as a test reads it: texts, links, attachments, envelope."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from html import unescape

from attrs import field, frozen

from .attachment import Attachment, attachments
from .message.header import value_octets
from .message.mime.encoded_words import decode_words
from .message.mime.text_parts import TextPart, text_parts

_HREF = re.compile(
    r"""\bhref\s*+=\s*+(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<bare>[^\s"'>]+))""",
    re.IGNORECASE,
)
_URL = re.compile(r"https?://[^\s<>\"'`{}|\\^]+", re.IGNORECASE)
_ABSOLUTE = re.compile(r"[a-z][a-z0-9+.-]*+:", re.IGNORECASE)
_LONGEST_HEADER = 1 << 20  # octets
_BEHIND = ".,;:!?)]"  # punctuation of the sentence around a URL


@frozen
class InboxMessage:
    """A message in an inbox.

    Reading it is lenient, as mail clients read, and takes time proportional to its size. Texts and
    attachments of a message with more than 5,000 body parts raise `attachment.TooManyParts`.

    Attributes:
        sender: the reverse-path of its envelope; empty: the null one.
        to: the recipients of its envelope, in order. A message for three recipients in one
            transaction has three.
        raw: the message as it was received. Lines end in CR LF, or in LF from a Maildir.
        user: the account that sent it; None: the client had not logged in.
    """

    sender: str
    to: tuple[str, ...]
    raw: bytes = field(repr=False)
    user: str | None = None

    def header(self, name: str) -> str | None:
        """Return the first field of that name, in any case, decoded (RFC 2047); None without."""
        found = next(value_octets(self._header, name), None)
        return None if found is None else decode_words(found).strip()

    @property
    def _header(self) -> bytes:
        ends = (self.raw.find(line_ends, 0, _LONGEST_HEADER) for line_ends in (b"\n\r\n", b"\n\n"))
        end = min((each for each in ends if each >= 0), default=_LONGEST_HEADER)
        return b"" if self.raw.startswith((b"\r\n", b"\n")) else self.raw[: end + 1]

    @property
    def subject(self) -> str:
        """The Subject, decoded; empty without one."""
        return self.header("Subject") or ""

    @cached_property
    def _texts(self) -> Sequence[TextPart]:
        return tuple(text_parts(self.raw))

    @property
    def text(self) -> str:
        """The first plain text; empty without one. Lines end in LF."""
        return self._first("text/plain")

    @property
    def html(self) -> str:
        """The first HTML text; empty without one. Lines end in LF."""
        return self._first("text/html")

    def _first(self, content_type: str) -> str:
        return next((each.text for each in self._texts if each.content_type == content_type), "")

    @property
    def links(self) -> tuple[str, ...]:
        """The URLs in the message, each once: those of the HTML text, then those of the plain one.

        Of the HTML they are what ``href`` leads to, with a scheme of any kind; of the plain text,
        ``http`` and ``https`` URLs without the punctuation behind them.
        """
        return links(self.html, self.text)

    @property
    def attachments(self) -> Sequence[Attachment]:
        """The attachments, in order (`twisted_mta.attachments`)."""
        return attachments(self.raw)


def links(html: str, text: str) -> tuple[str, ...]:
    """Return the URLs in the HTML text and the plain text of a message, as `InboxMessage.links`."""
    return tuple(dict.fromkeys((*_in_html(html), *_in_text(text))))


def _in_html(html: str) -> Iterator[str]:
    for match in _HREF.finditer(html):
        url = unescape(match["double"] or match["single"] or match["bare"] or "").strip()
        if _ABSOLUTE.match(url):
            yield url


def _in_text(text: str) -> Iterator[str]:
    for match in _URL.finditer(text):
        url = match[0]
        end = len(url)
        while url[end - 1] in _BEHIND and not (url[end - 1] == ")" and "(" in url):
            end -= 1
        yield url[:end]
