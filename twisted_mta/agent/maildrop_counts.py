"""How many messages of ``twisted-mta-sendmail`` wait for the MTA, and how many are set aside."""

from __future__ import annotations

import os

from attrs import frozen

from ..message.maildrop import READY

NAME = "maildrop"
"""The directory in the state directory, where no other one is set: for its owner and root."""

SET_ASIDE = "refused-"
"""How the name of a file begins that was no message."""


@frozen
class Counts:
    """How many files there are in a directory of waiting messages, as of the last look.

    Attributes:
        waiting: messages that are complete.
        set_aside: what was no message (``refused-…``).
    """

    waiting: int = 0
    set_aside: int = 0


def count_files(directory: str) -> Counts:
    """Return the counts of a directory of waiting messages.

    Raises:
        OSError: it cannot be read.
    """
    names = os.listdir(directory)
    return Counts(
        sum(name.startswith(READY) for name in names),
        sum(name.startswith(SET_ASIDE) for name in names),
    )
