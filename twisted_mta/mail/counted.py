"""Numbers of things, in words."""

from __future__ import annotations


def counted(number: int, one: str, several: str = "") -> str:
    """Return a number of things: ``1 message``, ``2,000 messages``.

    Args:
        number: how many there are.
        one: the noun for one, maybe with its verb: ``recipient waits``.
        several: the same for any other number; empty: the noun with an s.
    """
    return f"1 {one}" if number == 1 else f"{number:,} {several or f'{one}s'}"
