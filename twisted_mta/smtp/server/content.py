"""The content of one message as it comes in: what of it is passed on, and what it will get."""

from __future__ import annotations

from ...mail.reply import Reply
from ..data import ChunkReader, DataReader, NewlineNormalizer
from ..extension.size import TOO_LARGE
from . import replies
from .settings import SessionSettings


class Content:
    """Reads the content of a message and judges it by what its listener demands.

    What is refused is read on to its true end, and none of it is passed on any more.

    Args:
        settings: what its listener demands.
        chunked: it comes by BDAT.
        binary: it is octets and not lines (RFC 3030 §3): nothing but its size is judged, and every
            octet is passed on as it came.

    Attributes:
        octets: how much has come.
        refusal: what it will get at its end; None as long as nothing is wrong with it.
        chunks: its reader, where it comes by BDAT; None where it comes by DATA.
    """

    def __init__(
        self, settings: SessionSettings, *, chunked: bool = False, binary: bool = False
    ) -> None:
        look_for_long_lines = settings.long_lines == "reject" and not binary
        normalize = settings.bare_newlines == "normalize" and not binary
        self.octets = 0
        self.refusal: Reply | None = None
        self.chunks = ChunkReader(look_for_long_lines=look_for_long_lines) if chunked else None
        self._reader = self.chunks or DataReader(look_for_long_lines=look_for_long_lines)
        self._normalizer = NewlineNormalizer() if normalize else None
        self._lines = not binary
        self._most = settings.max_message_size

    @property
    def finished(self) -> bool:
        """Whether the final dot has been seen; chunks say themselves which is the last."""
        return isinstance(self._reader, DataReader) and self._reader.finished

    def read(self, octets: bytes) -> tuple[bytes, bytes]:
        """Take what arrived; return what is to be passed on, and what is behind the content."""
        content, rest = self._reader.read(octets)
        return self._judge(content), rest

    def end(self) -> bytes:
        """Return what is still to be passed on when the last chunk has been read."""
        return b"" if self.chunks is None else self._judge(self.chunks.end())

    def _judge(self, content: bytes) -> bytes:
        self.octets += len(content)
        if self.refusal is None:
            self.refusal = self._fault()
        if self.refusal is not None:
            return b""
        return content if self._normalizer is None else self._normalizer.feed(content)

    def _fault(self) -> Reply | None:
        if self.octets > self._most:  # RFC 1870 §6.3
            return TOO_LARGE
        if self._lines and self._reader.bare and self._normalizer is None:
            return replies.BARE_NEWLINE
        if self._reader.long:
            return replies.LONG_LINE
        return None
