"""Why mail was not taken, in one word, by the words of the reply and its enhanced status code.

Replies of receivers use the same codes for different things: ``550 5.7.1`` may be about spam, a
list, or SPF. The words tell (`classification_table`). Where none of them is known, the enhanced
status code counts, then the reply code.
"""

from __future__ import annotations

import re
from functools import lru_cache

from .classification_table import BY_DETAIL, BY_DETAIL_DEFERRED, ROWS, Classification
from .reply import Reply

HARD: tuple[Classification, ...] = ("unknown-user", "inactive", "unknown-domain")
"""Classifications by which the address itself is at fault, for every sender."""

_LONGEST = 2_000  # characters of a reply that are looked at
_QUOTED = re.compile(r"(?<![\d.])([45])\.(\d{1,3}\.\d{1,3})(?![\d.])")
_EXPIRED = "4.7"  # RFC 3463: delivery time expired; the text quotes the last reply


def classify(reply: Reply) -> Classification | None:
    """Return why mail was not taken; None for a reply that takes it."""
    if reply.code < 400:
        return None
    return _classified(reply.code, reply.detail, reply.text[:_LONGEST])


@lru_cache(maxsize=1_000)
def _classified(code: int, detail: str | None, text: str) -> Classification:
    words = " ".join(text.lower().split())
    digit = str(code)[0]
    if detail == _EXPIRED and (quoted := _QUOTED.findall(text)):
        digit, detail = quoted[-1]
    for row in ROWS:
        if row.codes and digit not in row.codes:
            continue
        if row.details and detail not in row.details:
            continue
        if all(word in words for word in row.words):
            return row.classification
    if detail is not None:
        if digit == "4" and detail in BY_DETAIL_DEFERRED:
            return BY_DETAIL_DEFERRED[detail]
        if detail in BY_DETAIL:
            return BY_DETAIL[detail]
        if detail.startswith("7.") and digit == "5":
            return "policy"
    # RFC 5321 §4.2.3, RFC 7505 §4.1
    if code == 552:
        return "mailbox-full"
    if code == 556:
        return "unknown-domain"
    return "temporary" if digit == "4" else "other"
