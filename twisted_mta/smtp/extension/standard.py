"""The extensions that a listener has unless it is told otherwise."""

from __future__ import annotations

from . import Extension
from .binarymime import BINARYMIME
from .chunking import CHUNKING
from .eightbitmime import EIGHT_BIT_MIME
from .plain import ENHANCED_STATUS_CODES, PIPELINING
from .size import size
from .starttls import STARTTLS


def standard_extensions(max_message_size: int) -> tuple[Extension, ...]:
    """Return them in the order in which EHLO announces them; the size is in octets."""
    return (
        PIPELINING,
        size(max_message_size),
        EIGHT_BIT_MIME,
        ENHANCED_STATUS_CODES,
        CHUNKING,
        BINARYMIME,
        STARTTLS,
    )


def extensions_for_lines(max_message_size: int) -> tuple[Extension, ...]:
    """Return those of them that a delivery can keep which takes content by lines."""
    return tuple(each for each in standard_extensions(max_message_size) if each is not BINARYMIME)
