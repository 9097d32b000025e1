"""The MIME fields of a header section: content type, encoding and boundary (RFC 2045, RFC 2046)."""

from __future__ import annotations

import re
from typing import Literal

from attrs import evolve, frozen

LONGEST_BOUNDARY = 70
"""Characters of a boundary (RFC 2046 §5.1.1)."""

# Octets of a Content-Type or Content-Transfer-Encoding with its folds; a longer one counts as
# unreadable. One call matches the whole field, and the reactor waits for it.
_LONGEST_FIELD = 16_384

# Quantifiers are possessive (`*+`): two neighbors that match the same octets would otherwise try
# every division between them, and a match that fails would cost the square of the length.
#
# RFC 5322 §2.2: field-name = 1*ftext, with the white space of §4.5 before the colon; and its lines.
_FIELD = re.compile(
    rb"([\x21-\x39\x3b-\x7e]++)[ \t]*+:([^\r\n\x00]*+\r\n(?:[ \t][^\r\n\x00]*+\r\n)*+)"
)
# RFC 2045 §5.1, §6.1; comments where white space may stand, but no nested ones.
_TOKEN = rb"([!#$%&'*+\-.0-9A-Z^_`a-z{|}~]++)"
_SPACE = rb"(?:\s++|\([^()]*+\))*+"
_TYPE = re.compile(_SPACE + _TOKEN + rb"/" + _TOKEN + _SPACE)
_PARAMETER = re.compile(
    rb";" + _SPACE + rb"(?:" + _TOKEN + rb"\s*+=\s*+(\"(?:[^\"\\]|\\.)*+\"|[^\s;\"]++))?+" + _SPACE,
    re.DOTALL,
)
_ENCODING = re.compile(_SPACE + _TOKEN + _SPACE + rb";?+" + _SPACE)
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")  # RFC 2231 §4
_PRINTABLE = re.compile(rb"[\t -~]+")
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)

IDENTITY = ("7bit", "8bit", "binary")
"""The encodings that leave the octets as they are (RFC 2045 §6.2)."""

Kind = Literal["leaf", "multipart", "message", "opaque"]
"""The structure of a body: octets of one content type, parts, a whole message, or unknown.

An opaque body must not, or cannot, be parsed or changed.
"""


@frozen
class Entity:
    """The properties of a body, as its header section declares them.

    Attributes:
        kind: its structure.
        top_level: Whether it belongs to a message, not to a body part.
        type: the content type in lower case, ``text/plain``.
        encoding: the Content-Transfer-Encoding in lower case; ``7bit`` without that field.
        boundary: the boundary of a multipart; empty without a usable one.
        typed: Whether there is a Content-Type field.
        reason: why it is opaque, as a clause about the message; empty for any other kind.
    """

    kind: Kind
    top_level: bool
    type: str
    encoding: str
    boundary: bytes = b""
    typed: bool = False
    reason: str = ""

    def made_opaque(self, reason: str) -> Entity:
        """Return the same entity as an opaque one."""
        return evolve(self, kind="opaque", reason=reason)


def raw_fields(header: bytes) -> list[tuple[bytes, bytes]] | None:
    """Return (name, octets of the whole field) of each field of a header section, in order.

    Names are in lower case. None: some line is not part of a field.
    """
    end = len(header) - (2 if header.endswith(b"\r\n\r\n") or header == b"\r\n" else 0)
    fields: list[tuple[bytes, bytes]] = []
    position = 0
    while position < end:
        field = _FIELD.match(header, position, end)
        if not field:
            return None
        fields.append((field[1].lower(), field[0]))
        position = field.end()
    return fields


def read_entity(header: bytes, *, default: str = "text/plain", top_level: bool = True) -> Entity:
    """Return the entity that a header section declares.

    Args:
        header: the octets of the header section.
        default: the content type without a Content-Type field.
        top_level: Whether it is the header section of a message, not of a body part.
    """
    entity = Entity("leaf", top_level, default, "7bit")
    fields = raw_fields(header)
    if fields is None:
        return entity.made_opaque("it has a header that cannot be read")
    types = [octets for name, octets in fields if name == b"content-type"]
    encodings = [octets for name, octets in fields if name == b"content-transfer-encoding"]
    if len(types) > 1 or len(encodings) > 1:
        return entity.made_opaque("a part declares its content type or encoding twice")
    if encodings:
        encoding = _ENCODING.fullmatch(_value(encodings[0]))
        if not encoding:
            return entity.made_opaque("it has a Content-Transfer-Encoding that cannot be read")
        entity = evolve(entity, encoding=encoding[1].decode("ascii").lower())
    if types:
        content_type = _content_type(_value(types[0]))
        if content_type is None:
            return entity.made_opaque("it has a Content-Type that cannot be read")
        type, boundary = content_type
        entity = evolve(entity, typed=True, type=type, boundary=boundary)
    return _with_kind(entity)


def _value(field: bytes) -> bytes:
    """Return the value of a field, unfolded (RFC 5322 §2.2.3); empty for a field too long."""
    if len(field) > _LONGEST_FIELD:
        return b""
    return field.partition(b":")[2].replace(b"\r\n", b"")


def _with_kind(entity: Entity) -> Entity:
    main, _, sub = entity.type.partition("/")
    if main == "multipart":
        if sub in ("signed", "encrypted"):
            # RFC 1847 §2.1: no octet of a signed part may change.
            return entity.made_opaque(f"multipart/{sub} must not be changed")
        if not entity.boundary:
            return entity.made_opaque("it has a multipart without a usable boundary")
        kind: Kind = "multipart"
    elif entity.type == "message/rfc822":
        kind = "message"
    elif main == "message" and not sub.startswith("global"):
        # RFC 2046 §5.2.2, §5.2.3: always 7bit. The types of RFC 6532 §3.7 and RFC 6533 take any
        # encoding.
        return entity.made_opaque(f"{entity.type} has 7 bits and no encoding")
    else:
        return entity
    if entity.encoding not in IDENTITY:
        # RFC 2045 §6.4
        return entity.made_opaque(f"{entity.type} is encoded, which it must not be")
    return evolve(entity, kind=kind)


def _content_type(value: bytes) -> tuple[str, bytes] | None:
    """Return type and boundary (empty without one) of a Content-Type; None: it cannot be read."""
    start = _TYPE.match(value)
    if not start:
        return None
    type = f"{start[1].decode('ascii')}/{start[2].decode('ascii')}".lower()
    boundaries: dict[bytes, bytes] = {}
    position = start.end()
    while position < len(value):
        parameter = _PARAMETER.match(value, position)
        if not parameter:
            return None
        name = (parameter[1] or b"").lower()
        if name.partition(b"*")[0] == b"boundary":
            if name in boundaries:
                return None
            boundaries[name] = _unquoted(parameter[2])
        position = parameter.end()
    boundary = _boundary(boundaries)
    return None if boundary is None else (type, boundary)


def _unquoted(value: bytes) -> bytes:
    return _QUOTED_PAIR.sub(rb"\1", value[1:-1]) if value.startswith(b'"') else value


def _boundary(parameters: dict[bytes, bytes]) -> bytes | None:
    """Return the boundary that the ``boundary`` parameters make; empty: none; None: ambiguous.

    It may be cut into sections and percent-encoded (RFC 2231 §3, §4).
    """
    plain = parameters.pop(b"boundary", None)
    if plain is not None:
        return None if parameters else _usable(plain)
    extended = parameters.pop(b"boundary*", None)
    if extended is not None:
        return None if parameters else _usable(_percent_decoded(extended, first=True))
    boundary = b""
    for number in range(len(parameters)):
        name = b"boundary*%d" % number
        section = parameters.get(name)
        if section is None:
            encoded = parameters.get(name + b"*")
            if encoded is None:
                return None
            section = _percent_decoded(encoded, first=not number)
        boundary += section
        if len(boundary) > LONGEST_BOUNDARY:
            return b""
    return _usable(boundary)


def _percent_decoded(value: bytes, *, first: bool) -> bytes:
    if first:
        value = value.split(b"'", 2)[-1]  # behind charset and language
    return _PERCENT.sub(lambda match: bytes([int(match[1], 16)]), value)


def _usable(boundary: bytes) -> bytes:
    # RFC 2046 §5.1.1 allows fewer characters; these, at least, can stand in a line.
    boundary = boundary.rstrip(b" \t")
    usable = len(boundary) <= LONGEST_BOUNDARY and _PRINTABLE.fullmatch(boundary)
    return boundary if usable else b""
