"""Addresses in header fields (RFC 5322 §3.4) and in arguments, each character read once."""

from __future__ import annotations

from collections.abc import Iterator

_OUTSIDE = '<>,;:"('


class AddressError(ValueError):
    """A text is no list of addresses; the message says what was found."""


def addresses(text: str) -> list[str]:
    """Return the addresses in a field or an argument, without names, comments and groups.

    Args:
        text: such as ``Ann <ann@example.net>, friends: bob, "e v e"@example.org;``; unfolded.

    Raises:
        AddressError: a quoted string, a comment or a bracket does not end, or stands alone.
    """
    found: list[str] = []
    word: list[str] = []  # the address so far, or the name before an angle bracket
    angle: str | None = None  # the address in angle brackets
    for token in _tokens(text):
        if token in (",", ";"):
            found += _address(word, angle)
            word, angle = [], None
        elif token == ":":
            word = []  # the name of a group
        elif token[0] == "<":
            if angle is not None:
                raise AddressError(
                    "found two addresses in angle brackets, expected a comma between"
                )
            angle = token[1:-1]
        else:
            word.append(token)
    found += _address(word, angle)
    return found


def _address(word: list[str], angle: str | None) -> list[str]:
    if angle is not None:
        if angle.startswith("@"):  # RFC 5321 §4.1.2: a source route, which is dropped
            angle = angle.partition(":")[2]
        return [angle.strip()] if angle.strip() else []
    text = "".join(word)
    address = "".join(_parts(text.strip()))
    return [address] if address else []


def _parts(text: str) -> Iterator[str]:
    """Yield an address without the spaces around dots and ``@`` (RFC 5322 §4.4)."""
    if '"' in text or not any(character.isspace() for character in text):
        yield text
        return
    words = text.split()
    for number, each in enumerate(words):
        joined = number == 0 or each[0] in ".@" or words[number - 1][-1] in ".@"
        if not joined:
            raise AddressError(f"found {text[:80]!r}, expected a comma between addresses")
        yield each


def _tokens(text: str) -> Iterator[str]:
    """Yield quoted strings, addresses in brackets with them, specials, and what is between."""
    at, start, size = 0, 0, len(text)
    while at < size:
        character = text[at]
        if character not in _OUTSIDE and character != "[":
            at += 1
            continue
        if start < at:
            yield text[start:at]
        if character == '"':
            end = _end_of_quoted(text, at)
            yield text[at:end]
        elif character == "(":
            end = _end_of_comment(text, at)
            yield " "
        elif character == "<":
            end = _end_of_angle(text, at)
            yield text[at:end]
        elif character == "[":  # a domain literal may have colons
            end = text.find("]", at) + 1
            if not end:
                raise AddressError("found [ without ], expected both")
            yield text[at:end]
        elif character == ">":
            raise AddressError("found > without <, expected both")
        else:
            end = at + 1
            yield character
        at = start = end
    if start < size:
        yield text[start:]


def _end_of_quoted(text: str, at: int) -> int:
    at += 1
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == '"':
            return at + 1
        at += 1
    raise AddressError("found a quoted string without an end, expected two quotes")


def _end_of_comment(text: str, at: int) -> int:
    depth = 0
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == "(":
            depth += 1
        elif text[at] == ")":
            depth -= 1
            if not depth:
                return at + 1
        at += 1
    raise AddressError("found a comment without an end, expected a closing parenthesis")


def _end_of_angle(text: str, at: int) -> int:
    at += 1
    while at < len(text):
        if text[at] == '"':
            at = _end_of_quoted(text, at)
            continue
        if text[at] == ">":
            return at + 1
        at += 1
    raise AddressError("found < without >, expected both")


def qualified(address: str, domain: str) -> str:
    """Return an address with a domain: a bare local-part, such as a login, gets ``domain``."""
    in_quotes = address.startswith('"') and address.endswith('"')
    return address if "@" in address and not in_quotes else f"{address}@{domain}"


def checked(address: str) -> str:
    """Return an address that can stand in a command.

    Raises:
        AddressError: it has control characters, spaces outside of quotes, or angle brackets.
    """
    bare = address if not address.startswith('"') else address[address.rfind('"') :]
    if (
        not address
        or any(ord(each) < 32 or ord(each) == 127 for each in address)
        or any(each in " <>" for each in bare)
    ):
        raise AddressError(f"found {address[:80]!r}, expected a mailbox")
    return address
