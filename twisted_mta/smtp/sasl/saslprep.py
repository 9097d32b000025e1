"""SASLprep (RFC 4013): one spelling for all spellings of a user name or password."""

from __future__ import annotations

import stringprep
import unicodedata

from .exchange import SASLError

# Characters, where one of them is outside ASCII. Each is looked up in nine tables, and combining
# characters are put in order, which is quadratic in their number. RFC 4616 §2 asks servers to take
# 255 octets at least.
_LONGEST_PREPARED = 1_024

# RFC 4013 §2.3
_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def prepared(text: str) -> str:
    """Return a user name or password as RFC 4013 prepares it for comparison.

    Raises:
        SASLError: the text has a prohibited character, or mixes directions of writing, or is empty
            afterwards, or has more than 1,024 characters and one of them is outside ASCII.
    """
    if text.isascii() and text.isprintable():
        return text
    if len(text) > _LONGEST_PREPARED:
        raise SASLError("the user name or the password is too long")
    mapped = "".join(
        " " if stringprep.in_table_c12(each) else each
        for each in text
        if not stringprep.in_table_b1(each)
    )
    normal = unicodedata.normalize("NFKC", mapped)
    if len(normal) > _LONGEST_PREPARED:
        raise SASLError("the user name or the password is too long")
    if not normal:
        raise SASLError("the user name or the password is empty")
    if any(prohibits(each) for each in normal for prohibits in _PROHIBITED):
        raise SASLError("the user name or the password has a character that is prohibited")
    right_to_left = [stringprep.in_table_d1(each) for each in normal]  # RFC 4013 §2.4
    if any(right_to_left) and (
        not (right_to_left[0] and right_to_left[-1]) or any(map(stringprep.in_table_d2, normal))
    ):
        raise SASLError("the user name or the password mixes directions of writing")
    return normal
