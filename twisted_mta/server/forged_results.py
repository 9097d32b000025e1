"""Fields in mail of accounts that pretend to be results of ours are removed (RFC 8601 §5)."""

from __future__ import annotations

from ..message.authentication_results import without_own
from ..message.header_scanner import HeaderScanner


class ForgedResults:
    """Holds the header section of one content back until it is complete, then removes the fields.

    Args:
        authserv_id: the name in our Authentication-Results fields.
    """

    def __init__(self, authserv_id: str) -> None:
        self._authserv_id = authserv_id
        self._held = bytearray()
        self._is_past = False  # behind the header section

    @property
    def held(self) -> int:
        """How many octets of an incomplete header section are held in memory."""
        return len(self._held)

    def pass_on(self, content: bytes, header: HeaderScanner) -> bytes:
        """Take a piece of the content; return what is to be stored now.

        Args:
            content: the piece.
            header: has been fed with it.
        """
        if self._is_past:
            return content
        self._held += content
        return self.end(header) if header.ended else b""

    def end(self, header: HeaderScanner) -> bytes:
        """Take the end of the content; return what is still to be stored."""
        self._is_past = True
        section, rest = bytes(self._held[: header.size]), bytes(self._held[header.size :])
        self._held.clear()
        return without_own(section, self._authserv_id) + rest
