"""File names from strangers, made safe for any file system."""

from __future__ import annotations

import re
import unicodedata

LONGEST_NAME = 200
"""Octets in UTF-8: file systems take 255, and a number may have to be added."""

_LONGEST_SUFFIX = 20  # octets with the dot; a longer one is no type of files
_LONGEST_READ = 1024  # characters of a name that are looked at, from its end

# NTFS and FAT: characters that no name has, or that lead to another stream or device.
_RESERVED_CHARACTERS = re.compile('[<>:"|?*]')
_RESERVED_NAME = re.compile(
    r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|CLOCK\$|(?:COM|LPT)[0-9¹²³])[ ]*(?:\..*)?",
    re.IGNORECASE | re.DOTALL,
)
# Cc: controls, with NUL and line ends; Cf: invisible marks, of which some turn the order of the
# characters around, so that an .exe looks like a .pdf; Cs: halves of characters, which UTF-8 does
# not have; Zl and Zp: line ends.
_INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")


def safe_name(name: str, default: str) -> str:
    """Return a name under which a file can be created in a directory, on any system.

    It is the last component of ``name``, in Unicode's form NFC, of at most 200 octets in UTF-8. It
    has no separator, control or invisible character, begins with neither dot, space nor dash, ends
    with neither dot nor space, and is no name that Windows reserves for a device. Its suffix is
    kept. A name that is safe is returned as it is.

    Args:
        name: from a stranger; anything.
        default: a safe name, for a name of which nothing is left.
    """
    name = re.split(r"[/\\]", name[-_LONGEST_READ:])[-1]
    name = unicodedata.normalize("NFC", "".join(map(_visible, name)))
    name = _RESERVED_CHARACTERS.sub("_", name).lstrip(". ").rstrip(". ")
    if name.startswith("-"):  # an option of any command that is given the name
        name = "_" + name[1:]
    if _RESERVED_NAME.fullmatch(name):
        name = "_" + name
    return _shortened(name) or default


def numbered(name: str, number: int) -> str:
    """Return a safe name with a number before its suffix, ``report-2.pdf``."""
    stem, suffix = _split(name)
    return f"{stem}-{number}{suffix}"


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category in _INVISIBLE:
        return ""
    return " " if category == "Zs" else character


def _split(name: str) -> tuple[str, str]:
    """Return the stem of a name and its suffix, ``.pdf``; the suffix is empty without one."""
    stem, dot, suffix = name.rpartition(".")
    if not stem or len(suffix.encode("utf-8")) >= _LONGEST_SUFFIX:
        return name, ""
    return stem, dot + suffix


def _shortened(name: str) -> str:
    if len(name.encode("utf-8")) <= LONGEST_NAME:
        return name
    stem, suffix = _split(name)
    room = LONGEST_NAME - len(suffix.encode("utf-8"))
    return stem.encode("utf-8")[:room].decode("utf-8", "ignore").rstrip(". ") + suffix
