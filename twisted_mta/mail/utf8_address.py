r"""The address type ``utf-8`` of ORCPT and notices: international addresses (RFC 6533 §3).

utf-8-addr-xtext    = 1*(QCHAR / EmbeddedUnicodeChar)
utf-8-addr-unitext  = 1*(QUCHAR / EmbeddedUnicodeChar)
QCHAR               = %x21-2A / %x2C-3C / %x3E-5B / %x5D-7E
QUCHAR              = QCHAR / UTF8-2 / UTF8-3 / UTF8-4
EmbeddedUnicodeChar = "\x{" HEXPOINT "}"
"""

from __future__ import annotations

import re

_QCHAR = r"!-*,-<>-\[\]-~"
# A class of what is not allowed: `re` takes milliseconds to prepare one with ranges up to U+10FFFF.
_UNITEXT = re.compile(r"(?:[^\x00-\x20+=\\\x7f]|\\x\{[0-9A-F]{2,6}\})++")
_EMBEDDED = re.compile(r"\\x\{([0-9A-F]{2,6})\}")
_NO_QCHAR = re.compile(rf"[^{_QCHAR}]")


def decode_utf8_address(text: str) -> str:
    """Return the address that ``text``, in either form, encodes.

    Raises:
        ValueError: ``text`` has neither form, or the address has characters that no address may
            have: controls, line separators, surrogates.
    """
    if not _UNITEXT.fullmatch(text):
        raise ValueError("neither utf-8-addr-xtext nor utf-8-addr-unitext")
    address = _EMBEDDED.sub(lambda match: chr(int(match[1], 16)), text)
    if not address.isprintable():
        raise ValueError("an address has no control characters, separators or surrogates")
    return address


def encode_utf8_address(address: str) -> str:
    """Return ``address`` as utf-8-addr-xtext, in ASCII."""
    return _NO_QCHAR.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", address)
