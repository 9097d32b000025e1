"""The header section of a content that comes in pieces, held back until it is complete."""

from __future__ import annotations

from collections.abc import Callable

from ..message.header_scanner import HeaderScanner


class HeldHeader:
    """Holds the header section of one content back.

    Args:
        release: called once, with the complete header section, and with what came behind it so far;
            returns what is to be stored in its place.
        show: called with each later piece.
    """

    def __init__(
        self,
        release: Callable[[bytes, bytes], bytes],
        show: Callable[[bytes], object] | None = None,
    ) -> None:
        self._release = release
        self._show = show
        self._held = bytearray()
        self.is_released = False

    @property
    def held(self) -> int:
        """How many octets are held in memory."""
        return len(self._held)

    def pass_on(self, content: bytes, header: HeaderScanner) -> bytes:
        """Take a piece of the content; return what is to be stored now.

        Args:
            content: the piece.
            header: has been fed with it.
        """
        if self.is_released:
            if self._show is not None:
                self._show(content)
            return content
        if header.ended and not self._held:  # one piece, which may be large, has it all
            return self._let_go(content, header)
        self._held += content
        return self.end(header) if header.ended else b""

    def end(self, header: HeaderScanner) -> bytes:
        """Take the end of the content; return what is still to be stored."""
        if self.is_released:
            return b""
        held = bytes(self._held)
        self._held.clear()
        return self._let_go(held, header)

    def _let_go(self, content: bytes, header: HeaderScanner) -> bytes:
        self.is_released = True
        return self._release(content[: header.size], content[header.size :])
