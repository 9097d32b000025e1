"""A MIME field with parameters (RFC 2045 §5.1, RFC 2183 §2), read leniently, as mail clients do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from attrs import frozen

from .encoded_words import decode_words, decoded

# What stands between two semicolons; none inside of quotes counts. A quoted string that is not
# closed goes on to the end.
_SEGMENT = re.compile(rb'(?:[^;"]++|"(?:[^"\\]++|\\.)*+\\?+(?:"|\Z))*+', re.DOTALL)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")
# RFC 2231 §7: attribute, section, and the asterisk of an extended value.
_NAME = re.compile(rb"([^*]+)(?:\*(0|[1-9][0-9]{0,3}))?(\*)?")


@frozen
class ParametersField:
    """The value of a field such as Content-Type or Content-Disposition.

    Attributes:
        value: what stands before the parameters, in lower case, without white space around it.
        parameters: from each name in lower case to its text. Sections and percent-encoding
            (RFC 2231 §3, §4) are undone, and so are encoded words, which RFC 2047 §5 forbids here,
            though many clients write them. If a name is there in several forms, the extended one
            (``name*``) counts, then the one in sections, then the first plain one.
    """

    value: str
    parameters: Mapping[str, str]


def read_parameters(octets: bytes) -> ParametersField:
    """Return the value and the parameters of a field, given unfolded; nothing is an error."""
    segments = _segments(octets)
    value = next(segments, b"").decode("ascii", "replace").strip().lower()
    plain: dict[bytes, bytes] = {}
    extended: dict[bytes, bytes] = {}
    sections: dict[bytes, dict[int, tuple[bytes, bool]]] = {}
    for segment in segments:
        attribute, equals, text = segment.partition(b"=")
        name = _NAME.fullmatch(attribute.strip().lower())
        if not (equals and name):
            continue
        text = _unquoted(text.strip())
        if name[2] is not None:
            numbered = sections.setdefault(name[1], {})
            numbered.setdefault(int(name[2]), (text, bool(name[3])))
        elif name[3]:
            extended.setdefault(name[1], text)
        else:
            plain.setdefault(name[1], text)
    texts = {name: decode_words(text) for name, text in plain.items()}
    joined = {name: _joined(numbered) for name, numbered in sections.items()}
    texts |= {name: text for name, text in joined.items() if text is not None}
    texts |= {name: _extended([(text, True)]) for name, text in extended.items()}
    return ParametersField(
        value, {name.decode("ascii", "replace"): text for name, text in texts.items()}
    )


def _segments(octets: bytes) -> Iterator[bytes]:
    position = 0
    while position <= len(octets):
        match = _SEGMENT.match(octets, position)
        assert match  # it may be empty
        yield match[0]
        position = match.end() + 1


def _unquoted(value: bytes) -> bytes:
    if not value.startswith(b'"'):
        return value
    closed = len(value) > 1 and value.endswith(b'"')
    value = value[1:-1] if closed else value[1:]
    # Microsoft's clients write paths with single backslashes. They are no escapes there, but the
    # last component alone is kept of a file name, so that nothing depends on them.
    return _QUOTED_PAIR.sub(rb"\1", value)


def _joined(numbered: Mapping[int, tuple[bytes, bool]]) -> str | None:
    """Return the text of the sections from 0 without a gap; None: there is no section 0."""
    pieces: list[tuple[bytes, bool]] = []
    while len(pieces) in numbered:
        pieces.append(numbered[len(pieces)])
    if not pieces:
        return None
    if any(is_extended for _, is_extended in pieces):
        return _extended(pieces)
    return decode_words(b"".join(text for text, _ in pieces))


def _extended(pieces: list[tuple[bytes, bool]]) -> str:
    """Return the text of an extended value: charset, language and percent-encoded octets."""
    charset = ""
    octets = []
    for number, (text, is_extended) in enumerate(pieces):
        if is_extended and number == 0 and text.count(b"'") >= 2:
            name, _, text = text.split(b"'", 2)
            charset = name.decode("ascii", "replace")
        if is_extended:
            text = _PERCENT.sub(lambda match: bytes([int(match[1], 16)]), text)
        octets.append(text)
    return decoded(b"".join(octets), charset)
