"""The macro language of SPF (RFC 7208 §7): its syntax, and the expansion to names and texts.

Both take time that is linear in the length of the text. What grows beyond a domain name, or beyond
one line of a reply, is not built.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote

# RFC 7208 §7.1:
#
#   domain-spec      = macro-string domain-end
#   domain-end       = ( "." toplabel [ "." ] ) / macro-expand
#   toplabel         = ( *alphanum ALPHA *alphanum ) /
#                      ( 1*alphanum "-" *( alphanum / "-" ) alphanum )
#   explain-string   = *( macro-string / SP )
#   macro-string     = *( macro-expand / macro-literal )
#   macro-expand     = ( "%{" macro-letter transformers *delimiter "}" ) / "%%" / "%_" / "%-"
#   macro-literal    = %x21-24 / %x26-7E
#   macro-letter     = "s" / "l" / "o" / "d" / "i" / "p" / "h" / "c" / "r" / "t" / "v"
#   transformers     = *DIGIT [ "r" ]
#   delimiter        = "." / "-" / "+" / "," / "/" / "_" / "="
#
# §7.2: c, r and t are for explanations alone. §7.3: a number of labels is not zero.
_REST = r"(?:0*+[1-9][0-9]*+)?[rR]?[-.+,/_=]*+\}"
_IN_NAMES = rf"%(?:\{{[slodiphvSLODIPHV]{_REST}|[%_-])"
_IN_TEXTS = rf"%(?:\{{[slodiphcrtvSLODIPHCRTV]{_REST}|[%_-])"
_LITERAL = r"[!-$&-~]++"

_NAME = re.compile(rf"(?:{_LITERAL}|(?P<macro>{_IN_NAMES}))*+")
_MACRO_STRING = re.compile(rf"(?:{_LITERAL}|{_IN_TEXTS})*+")
_EXPLANATION = re.compile(rf"(?:[ -$&-~]++|{_IN_TEXTS})*+")

_TOKEN = re.compile(r"([^%]+)|%(?:\{([A-Za-z])([0-9]*)([rR]?)([^}]*)\}|([%_-]))")
_Token = tuple[str, str, str, str, str, str]
_ESCAPES = {"%": "%", "_": " ", "-": "%20"}

_LETTER = re.compile(r"%(?:\{([A-Za-z])|[%_-])")

_LONGEST_NAME = 253  # octets as text, RFC 7208 §7.3
_MOST_MACROS = 1_000  # of one name, to which each adds a character at least

LETTERS = "slodiphcrtv"
"""All macro letters, in lower case."""

Values = Mapping[str, str]
"""The value of each macro letter, in lower case."""


def is_domain_spec(text: str) -> bool:
    """Whether a text is a ``domain-spec``."""
    match = _NAME.fullmatch(text)
    if not match or not text:
        return False
    end = match.end("macro")
    if end == len(text):
        return True
    _, dot, label = text[max(0, end) :].removesuffix(".").rpartition(".")
    return (
        dot == "."
        and label.replace("-", "").isalnum()
        and not label.isdigit()
        and label[0] != "-"
        and label[-1] != "-"
    )


def is_macro_string(text: str) -> bool:
    """Whether a text is a ``macro-string``, with the macros of explanations."""
    return _MACRO_STRING.fullmatch(text) is not None


def is_explanation(text: str) -> bool:
    """Whether a text is an ``explain-string``."""
    return _EXPLANATION.fullmatch(text) is not None


def letters(text: str) -> frozenset[str]:
    """Return the macro letters in a text, in lower case."""
    return frozenset(map(str.lower, _LETTER.findall(text))) - {""}


def expanded_name(text: str, values: Values) -> str | None:
    """Return the domain name that a ``domain-spec`` stands for; None: it is no domain name.

    A name that is too long loses labels on the left (RFC 7208 §7.3). A label may have any printable
    character. Values need not be domain names. What has thousands of macros is no name.
    """
    macros = text.count("%")
    if not macros:
        return domain(text)
    if macros > _MOST_MACROS:
        return None
    known: dict[_Token, str] = {}
    pieces: list[str] = []
    length = 0
    # From the right, as only so much of the end counts.
    for number, token in enumerate(reversed(_TOKEN.findall(text))):
        piece = known.get(token)
        if piece is None:
            piece = known[token] = _expanded(token, values)
        pieces.append(piece)
        length += len(piece)
        if length > _LONGEST_NAME + 1:
            break
        if number > _LONGEST_NAME:
            return None  # more parts than characters: macros that expand to nothing
    return domain("".join(reversed(pieces)))


def domain(name: str) -> str | None:
    """Return a name as one that can be looked up; None: it is no domain name (RFC 7208 §4.8).

    The final dot is removed, and labels on the left of a name that is too long.
    """
    return _canonical(name[-_LONGEST_NAME - 2 :])


@lru_cache(maxsize=1024)  # most mail comes from few domains
def _canonical(name: str) -> str | None:
    name = name.removesuffix(".").lower()
    if len(name) > _LONGEST_NAME:
        _, dot, name = name[-_LONGEST_NAME - 1 :].partition(".")
        if not dot:
            return None
    # A backslash begins an escape in other writings of a name, and is in no honest one.
    if not name.isascii() or not name.isprintable() or "\\" in name:
        return None
    return name if all(0 < len(label) < 64 for label in name.split(".")) else None


def expanded_text(text: str, values: Values, longest: int) -> str | None:
    """Return the text that an ``explain-string`` stands for, cut to ``longest`` characters.

    None: it has too many macros that expand to nothing.
    """
    known: dict[_Token, str] = {}
    pieces: list[str] = []
    length = 0
    for number, token in enumerate(_TOKEN.findall(text)):
        piece = known.get(token)
        if piece is None:
            piece = known[token] = _expanded(token, values)
        pieces.append(piece)
        length += len(piece)
        if length > longest:
            break
        if number > longest:
            return None
    return "".join(pieces)[:longest]


def _expanded(token: _Token, values: Values) -> str:
    literal, letter, digits, reverse, delimiters, escape = token
    if literal:
        return literal
    if escape:
        return _ESCAPES[escape]
    value = values[letter.lower()]
    if digits or reverse or delimiters:
        value = _transformed(value, digits, bool(reverse), delimiters)
    # RFC 7208 §7.3: all characters but those that a URI calls unreserved.
    return quote(value, safe="-._~") if letter.isupper() else value


def _transformed(value: str, digits: str, reverse: bool, delimiters: str) -> str:
    """Return the parts of a value that are chosen, in order or reversed, joined by dots."""
    delimiter = delimiters[:1] or "."
    if len(delimiters) > 1:
        value = value.translate(dict.fromkeys(map(ord, delimiters), delimiter))
    parts = value.split(delimiter)
    if reverse:
        parts.reverse()
    digits = digits.lstrip("0")
    if digits and len(digits) < 4:
        parts = parts[-int(digits) :]
    return ".".join(parts)
