"""Text files of the operator: UTF-8, as editors of any system write it."""

from codecs import BOM_UTF8


def without_mark(content: bytes) -> bytes:
    """Return what a file holds without the byte order mark that some editors put before it.

    Args:
        content: of the file, from its beginning.
    """
    return content.removeprefix(BOM_UTF8)
