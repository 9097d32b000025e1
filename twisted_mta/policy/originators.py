"""The originators of a message: the addresses of From and Sender (RFC 5322 §3.6.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from email.utils import getaddresses
from itertools import islice

from attrs import frozen

from ..mail.address import AddressError, Mailbox
from ..message.header import values

# From and Sender are read so far: RFC 5322 §3.6 allows one field each. To parse the characters
# blocks the reactor for 8 ms, and to look up the addresses for some more.
_MOST_FIELDS = 10
_LONGEST_NAMES = 4_096
_MOST_ADDRESSES = 100


@frozen
class Originators:
    """The originators of one message.

    Attributes:
        addresses: of all From and Sender fields, each once; None for any that cannot be read, or
            that another reader could take for other addresses.
        has_from: whether there is a From field.
        has_sender: whether there is a Sender field.
    """

    addresses: Sequence[Mailbox | None]
    has_from: bool
    has_sender: bool

    @classmethod
    def read(cls, header: bytes) -> Originators:
        """Read the originators in a header section."""
        from_, sender = _fields(header, "from"), _fields(header, "sender")
        return cls(_originators(header, from_, sender), bool(from_), bool(sender))


def authors(header: bytes) -> Sequence[Mailbox | None]:
    """Return the addresses of all From fields, as `Originators.addresses` has them."""
    from_ = _fields(header, "from")
    return _originators(header, from_) if from_ else ()


def _fields(header: bytes, name: str) -> Sequence[str]:
    return tuple(islice(values(header, name), _MOST_FIELDS + 1))


def _originators(header: bytes, *fields: Sequence[str]) -> Sequence[Mailbox | None]:
    """Return the addresses of fields, for each name of which there is a list."""
    # Binary content (RFC 3030 §3) may have a bare CR. Some readers take it for the end of a
    # line, and others do not, so the one finds fields that the other has not.
    bare_cr = header.count(b"\r") != header.count(b"\r\n")
    all_fields = [value for each in fields for value in each]
    if (
        bare_cr
        or max(map(len, fields)) > _MOST_FIELDS
        or sum(map(len, all_fields)) > _LONGEST_NAMES
    ):
        return (None,)
    found = dict.fromkeys(address for value in all_fields for address in _addresses(value))
    return tuple(found) if len(found) <= _MOST_ADDRESSES else (None,)


def _addresses(value: str) -> Iterator[Mailbox | None]:
    """Yield the addresses of a field; None for any that cannot be read."""
    bare = skeleton(value)
    try:
        pairs = [] if bare is None else getaddresses([value])
    except RecursionError:  # hundreds of nested comments or groups
        pairs = []
    # Each address has one @ outside of quotes, and angle brackets come in pairs. Where another is
    # left over, a mail client may read an address that was not found here.
    if (
        not pairs
        or bare is None
        or bare.count("@") != len(pairs)
        or bare.count("<") != bare.count(">")
    ):
        yield None
    for _, address in pairs:
        try:
            mailbox = Mailbox.parse(address)
        except AddressError:
            yield None
        else:
            yield mailbox if mailbox.domain else None


def skeleton(value: str) -> str | None:
    """Return a field of addresses without comments and quoted strings.

    None: one of them does not end, or a backslash stands outside of them.
    """
    kept: list[str] = []
    comments = 0  # that are open, one within the other
    quoted = escaped = False
    for character in value:
        if escaped:
            escaped = False
        elif character == "\\":
            if not (quoted or comments):
                return None  # RFC 5322 §3.2.1: only there
            escaped = True
        elif quoted:
            quoted = character != '"'
        elif character == "(":
            comments += 1
        elif character == ")":
            comments -= 1
            if comments < 0:
                return None
        elif not comments:
            quoted = character == '"'
            kept.append(character)
    return None if comments or quoted or escaped else "".join(kept)
