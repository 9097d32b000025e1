"""The error of a SASL exchange, and its nonces: common to clients and servers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Nonce: TypeAlias = Callable[[], str]
"""Returns a new nonce of at least 128 random bits: printable ASCII without commas."""


class SASLError(Exception):
    """The failure of an exchange; the text says why, and holds no secret."""


class SASLUnavailable(SASLError):
    """The server has failed, and the same exchange may succeed later."""
