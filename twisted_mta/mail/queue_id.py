"""The queue id: 63 bits, written as 13 characters of Crockford's base 32."""

from __future__ import annotations

# Crockford's base 32: no I, L, O, U, so an id can be read out over the telephone.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_DIGITS = {character: value for value, character in enumerate(_ALPHABET)}
_QUEUE_ID_LENGTH = 13  # 13 x 5 bits hold the 63 bits of a non-negative SQLite integer


class QueueId(int):
    """The id of a queued message: a number from 0 to 2**63 - 1, ordered by time of arrival.

    As text (in logs, answers and file names) it is 13 characters of Crockford's base 32, which sort
    like the numbers.
    """

    _text = ""  # once it was written

    def __str__(self) -> str:
        # Kept, and made ten bits at a time: every message has its id written several times.
        if not self._text:
            value = int(self)
            self._text = (
                f"{_ALPHABET[value >> 60]}{_PAIRS[value >> 50 & 1023]}{_PAIRS[value >> 40 & 1023]}"
                f"{_PAIRS[value >> 30 & 1023]}{_PAIRS[value >> 20 & 1023]}"
                f"{_PAIRS[value >> 10 & 1023]}{_PAIRS[value & 1023]}"
            )
        return self._text

    __repr__ = __str__

    @classmethod
    def parse(cls, text: str) -> QueueId:
        """Return the id that ``text`` spells, in upper or lower case.

        Raises:
            ValueError: ``text`` is not 13 digits of Crockford's base 32 below 2**63.
        """
        value = 0
        if len(text) != _QUEUE_ID_LENGTH:
            raise ValueError(f"a queue id has {_QUEUE_ID_LENGTH} characters, not {text!r}")
        for character in text.upper():
            if character not in _DIGITS:
                raise ValueError(f"not a queue id: {text!r}")
            value = value << 5 | _DIGITS[character]
        if value >> 63:
            raise ValueError(f"not a queue id: {text!r}")
        return cls(value)
