"""The directory of a mailbox: its domain and local part as names of files, if they are safe."""

from __future__ import annotations

import re
import unicodedata

from ..mail.address import Mailbox, folded
from ..mail.reply import Reply

_LONGEST_NAME = 255  # octets of a file name on every file system in use


_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


# Unicode categories of invisible characters, and of those that disguise others: controls of
# direction, separators of lines, private and unassigned characters.
_UNSEEN = ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")


_JOINERS = "\u200c\u200d"  # of category Cf; Persian and Indian languages need them


class NoMailbox(Exception):
    """A Maildir that cannot exist (``5yz``), or is gone for now (``4yz``).

    Attributes:
        reply: for the recipient.
    """

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


def mailbox_directory(mailbox: Mailbox) -> tuple[str, str]:
    """Return the names of the two directories of a mailbox, domain and local part.

    These are the only file names made from octets of a peer. Local parts fold to lower case, and
    ``user+tag`` is ``user``.

    Raises:
        NoMailbox: a name has a meaning for the file system, or is deceptive.
    """
    local_part = folded(mailbox.local_part).partition("+")[0]
    for name in (mailbox.domain, local_part):
        try:
            length = len(name.encode())
        except UnicodeEncodeError:  # a lone surrogate stands for an octet that is not UTF-8
            length = 0
        if not 0 < length <= _LONGEST_NAME or name[0] == "." or "/" in name or _is_deceptive(name):
            raise NoMailbox(Reply.of(550, "1.3", "That can be no mailbox here"))
    return mailbox.domain, local_part


def _is_deceptive(name: str) -> bool:
    """Whether a name has control characters or invisible ones."""
    if name.isascii():
        return _CONTROLS.search(name) is not None
    return any(
        unicodedata.category(character) in _UNSEEN and character not in _JOINERS
        for character in name
    )
