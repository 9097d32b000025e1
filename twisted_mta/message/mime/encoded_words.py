"""Encoded words (RFC 2047) and octets of a named charset, decoded leniently and in linear time."""

from __future__ import annotations

import re
from binascii import a2b_qp
from encodings import normalize_encoding
from encodings.aliases import aliases

from .decoding import decoded_chunks

# RFC 2047 §2: =?charset?encoding?encoded-text?=, with the language of RFC 2231 §5. Spaces in the
# encoded text are wrong, but are written.
_WORD = re.compile(
    rb"=\?([!#$%&'+\-.0-9A-Z^_`a-z{}~]++)(?:\*[-0-9A-Za-z]*+)?\?([BbQq])\?([^?\r\n]*+)\?="
)

# Codecs that are no charsets of text, or take more than linear time.
_NO_CHARSETS = (
    "base64_codec",
    "bz2_codec",
    "hex_codec",
    "idna",
    "mbcs",
    "punycode",
    "quopri_codec",
    "raw_unicode_escape",
    "rot_13",
    "undefined",
    "unicode_escape",
    "uu_codec",
    "zlib_codec",
)
# Python keeps each unknown name that was ever looked up, so only these are looked up.
_CHARSETS = (frozenset(aliases) | frozenset(aliases.values()) | {"utf_8_sig", "cp65001"}) - {
    *_NO_CHARSETS,
    *(alias for alias, codec in aliases.items() if codec in _NO_CHARSETS),
}


def decoded(octets: bytes, charset: str) -> str:
    """Return the text of octets in a charset.

    Of an unknown charset, or none, they are UTF-8 if they can be, else Latin-1. What cannot be
    decoded is U+FFFD.
    """
    name = normalize_encoding(charset).lower()
    if name in _CHARSETS:
        try:
            return octets.decode(name, "replace")
        except (LookupError, ValueError):
            pass
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return octets.decode("latin-1")


def decode_words(octets: bytes) -> str:
    """Return a text with its encoded words decoded; the rest is UTF-8, or else Latin-1.

    White space between two encoded words is dropped (RFC 2047 §6.2). Neighbors in one charset are
    decoded together, since some clients cut characters in two.
    """
    texts: list[str] = []
    charset, word = "", b""  # of neighbors that are not yet decoded
    position = 0
    for match in _WORD.finditer(octets):
        between = octets[position : match.start()]
        position = match.end()
        name = match[1].decode("ascii").lower()
        if word and (between.strip() or name != charset):
            texts.append(decoded(word, charset))
            word = b""
        if between.strip() or (not texts and not word):
            texts.append(decoded(between, ""))
        charset = name
        word += _decoded_word(match[2], match[3])
    if word:
        texts.append(decoded(word, charset))
    texts.append(decoded(octets[position:], ""))
    return "".join(texts)


def _decoded_word(encoding: bytes, text: bytes) -> bytes:
    if encoding in b"Qq":
        return a2b_qp(text, header=True)  # RFC 2047 §4.2
    return b"".join(decoded_chunks("base64", [text]))
