"""The extensions that listeners and client sessions have by default."""

from __future__ import annotations

from . import Extension
from .binarymime import BINARYMIME, BINARYMIME_OUT
from .chunking import CHUNKING
from .deliverby import DELIVERBY_OUT
from .dsn import DSN, DSN_OUT
from .eightbitmime import EIGHT_BIT_MIME, EIGHT_BIT_MIME_OUT
from .limits import limits
from .mtpriority import MT_PRIORITY_OUT
from .outgoing import OutgoingExtension
from .plain import ENHANCED_STATUS_CODES, PIPELINING
from .requiretls import REQUIRETLS, REQUIRETLS_OUT
from .size import SIZE_OUT, size
from .smtputf8 import SMTPUTF8, SMTPUTF8_OUT
from .starttls import STARTTLS

OUTGOING: tuple[OutgoingExtension, ...] = (
    SMTPUTF8_OUT,
    SIZE_OUT,
    EIGHT_BIT_MIME_OUT,
    BINARYMIME_OUT,
    DSN_OUT,
    DELIVERBY_OUT,
    MT_PRIORITY_OUT,
    REQUIRETLS_OUT,
)
"""The client side of our extensions, in the order of their parameters and refusals."""


def standard_extensions(max_message_size: int, max_recipients: int) -> tuple[Extension, ...]:
    """Return the extensions of a listener, in the order in which EHLO announces them.

    Args:
        max_message_size: octets of content.
        max_recipients: of one transaction.
    """
    return (
        PIPELINING,
        size(max_message_size),
        EIGHT_BIT_MIME,
        ENHANCED_STATUS_CODES,
        CHUNKING,
        BINARYMIME,
        SMTPUTF8,
        DSN,
        STARTTLS,
        REQUIRETLS,
        limits(max_recipients),
    )


# A delivery written for ``twisted.mail`` cannot keep these: it takes content by lines, and no
# parameters.
_NOT_FOR_LINES = (BINARYMIME, SMTPUTF8, DSN, REQUIRETLS)


def extensions_for_lines(max_message_size: int, max_recipients: int) -> tuple[Extension, ...]:
    """Return the extensions that a delivery written for ``twisted.mail`` can keep."""
    extensions = standard_extensions(max_message_size, max_recipients)
    return tuple(each for each in extensions if each not in _NOT_FOR_LINES)
