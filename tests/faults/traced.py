"""The MTA under strace(1): its system calls in their order, and its death at one of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..functional.machine import path_of
from ..functional.mta import MTA

DURABLE = ("fsync", "fdatasync", "link", "linkat", "rename", "renameat", "renameat2", "unlink")
"""The calls that change the state on the disk."""

DEADLY = ("fdatasync", "fsync", "linkat", "rename", "sendto", "unlink")
"""The calls at which the MTA is killed: they change the disk, or send to a peer."""

_SPEECH = ("sendto", "sendmsg", "write", "writev")
_CALL = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(?: resumed>|\()(.*)$")
_BEGUN = re.compile(r"^(\d+) +(\w+)\((.*) <unfinished \.\.\.>$")


class TracedMTA(MTA):
    """An MTA whose system calls are written to ``trace`` in its folder.

    Attributes:
        inject: the value of strace's option ``inject``; empty: none.
    """

    inject = ""

    @property
    def trace(self) -> Path:
        """The file that the calls are written to."""
        return self.home / "trace"

    def command(self) -> list[str | Path]:
        """Return what starts it: strace stands aside (``-D``), so signals reach the MTA."""
        return [
            path_of("strace"),
            *("-D", "-f", "-y", "-s", "200", "-o", self.trace),
            *("-e", f"trace={','.join((*DURABLE, *_SPEECH))}"),
            *(("-e", f"inject={self.inject}") if self.inject else ()),
            *super().command(),
        ]

    def calls(self) -> list[str]:
        """Return a line for each call, in the order in which calls returned."""
        return completed(self.trace.read_text("utf-8", "replace").splitlines())


def completed(lines: Sequence[str]) -> list[str]:
    """Return ``name(arguments) = result`` for each call that returned, in that order.

    With several threads strace writes a call in two pieces when others come between.
    """
    begun: dict[str, str] = {}
    calls = []
    for line in lines:
        if unfinished := _BEGUN.match(line):
            begun[unfinished[1]] = unfinished[3]
        elif call := _CALL.match(line):
            start = begun.pop(call[1], "") if " resumed>" in line else ""
            calls.append(f"{call[2]}({start}{call[3]}")
    return calls
