"""The content of one message as it arrives: the octets to pass on, and its refusal, if any."""

from __future__ import annotations

from collections.abc import Callable

from ...mail.reply import Reply
from ..data import ChunkReader, DataReader, NewlineNormalizer
from . import replies
from .settings import SessionSettings


class Content:
    """The content of a message, read and judged by the settings of the session.

    Content that is refused is read on to its end, and none of it is passed on any more.

    Args:
        settings: of the session.
        normalizes: returns whether content with bare CR, bare LF or NUL is normalized, and not
            refused; called once, where such an octet is found.
        chunked: whether it arrives by BDAT, and not by DATA.
        binary: whether it is octets and not lines (RFC 3030 §3): only its size is judged, and every
            octet is passed on as it came.

    Attributes:
        octets: how many have arrived, dots unstuffed.
        refusal: the reply at its end; None as long as nothing is wrong with it.
        chunks: the reader of chunks where it arrives by BDAT; None where it arrives by DATA.
    """

    def __init__(
        self,
        settings: SessionSettings,
        *,
        normalizes: Callable[[], bool],
        chunked: bool = False,
        binary: bool = False,
    ) -> None:
        look_for_long_lines = settings.long_lines == "reject" and not binary
        self.octets = 0
        self.refusal: Reply | None = None
        self.chunks = ChunkReader(look_for_long_lines=look_for_long_lines) if chunked else None
        self._reader = self.chunks or DataReader(look_for_long_lines=look_for_long_lines)
        self._normalizes = normalizes
        self._normalizer: NewlineNormalizer | None = None  # from the first octet that needs it
        self._has_lines = not binary
        self._max_octets = settings.max_message_size

    @property
    def finished(self) -> bool:
        """Whether the final dot has been read; False for chunks, of which BDAT marks the last."""
        return isinstance(self._reader, DataReader) and self._reader.finished

    @property
    def looks_ended(self) -> bool:
        """Whether the client may take for the end what is none: LF ``.`` LF, for instance."""
        return isinstance(self._reader, DataReader) and self._reader.looks_ended

    def read(self, octets: bytes) -> tuple[bytes, bytes]:
        """Take octets that arrived; return what to pass on, and what follows the content."""
        content, rest = self._reader.read(octets)
        return self._judge(content), rest

    def end(self) -> bytes:
        """Return what is still to be passed on when the last chunk has been read."""
        content = b"" if self.chunks is None else self._judge(self.chunks.end())
        if self._normalizer is None or self.refusal is not None:
            return content
        return content + self._normalizer.end()

    def _judge(self, content: bytes) -> bytes:
        self.octets += len(content)
        if self.refusal is None:
            self.refusal = self._fault()
        if self.refusal is not None:
            return b""
        return content if self._normalizer is None else self._normalizer.feed(content)

    def _fault(self) -> Reply | None:
        if self.octets > self._max_octets:  # RFC 1870 §6.3
            return replies.TOO_LARGE
        # RFC 5321 §2.3.8, §4.1.1.4: what other programs may take for the end of a message.
        if self._has_lines and self._reader.bare and self._normalizer is None:
            if not self._normalizes():
                return replies.BARE_NEWLINE
            self._normalizer = NewlineNormalizer()
        if self._reader.long:
            return replies.LONG_LINE
        return None
