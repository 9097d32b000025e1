"""Tag lists: the syntax of signatures and key records (RFC 6376 §3.2)."""

from __future__ import annotations

import re
from collections.abc import Mapping

# RFC 6376 §3.2:
#   tag-spec  = [FWS] tag-name [FWS] "=" [FWS] tag-value [FWS]
#   tag-name  = ALPHA *ALNUMPUNC
#   tag-value = [ tval *( 1*(WSP / FWS) tval ) ]
#   tval      = 1*VALCHAR            ; %x21-3A / %x3C-7E
# RFC 8616 §5 adds characters beyond ASCII. White space is taken wherever it is.
_TAG_PATTERN = r"[ \t\r\n]*+[A-Za-z][A-Za-z0-9_]*+[ \t\r\n]*+=[^\x00-\x08\x0b\x0c\x0e-\x1f;\x7f]*+"
_TAG = re.compile(_TAG_PATTERN)
_TAG_LIST = re.compile(rf"{_TAG_PATTERN}(?:;{_TAG_PATTERN})*+;?[ \t\r\n]*+")
_WHITE_SPACE = " \t\r\n"
_LONGEST = 16_384  # octets; fields that copy a header (z=) have a few thousand
_MOST = 100


class TagError(ValueError):
    """A tag list that cannot be read, or a tag with a wrong value."""


def parse_tags(text: bytes) -> Mapping[str, str]:
    """Return the tags in ``text`` by name, in order; unknown ones too.

    Names are case-sensitive. Values have no white space around them.

    Raises:
        TagError: a part is no tag, or has no UTF-8; a tag occurs twice; there are more than 100
            tags or 16 KiB.
    """
    if len(text) > _LONGEST:
        raise TagError(f"found {len(text)} octets, expected {_LONGEST} at most")
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError:
        raise TagError("found octets that are not UTF-8, expected a tag list") from None
    parts = decoded.split(";")
    if not parts[-1].strip(_WHITE_SPACE):
        parts.pop()  # the optional semicolon behind the last tag
    if len(parts) > _MOST:
        raise TagError(f"found {len(parts)} tags, expected {_MOST} at most")
    if not _TAG_LIST.fullmatch(decoded):
        for part in parts:
            if not _TAG.fullmatch(part):
                raise TagError(f"found {part.strip(_WHITE_SPACE)[:40]!a}, expected tag=value")
    tags: dict[str, str] = {}
    for part in parts:
        name, _, value = part.partition("=")
        name = name.strip(_WHITE_SPACE)
        if name in tags:
            # "Tags with duplicate names MUST NOT occur within a single tag-list."
            raise TagError(f"found {name}= twice, expected it once")
        tags[name] = value.strip(_WHITE_SPACE)
    return tags


def without_white_space(value: str) -> str:
    """Return a value without the folding white space (FWS) that its syntax allows inside."""
    return "".join(value.split())


def names(value: str) -> tuple[str, ...]:
    """Return the parts of a list that is separated by colons, without white space around them."""
    return tuple(part.strip(_WHITE_SPACE) for part in value.split(":"))
