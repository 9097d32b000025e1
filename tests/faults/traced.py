"""The MTA under strace(1): its system calls in their order, and its death at one of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..functional.machine import path_of
from ..functional.mta import MTA

DURABLE = ("fsync", "fdatasync", "link", "linkat", "rename", "renameat", "renameat2", "unlink")
"""The calls between which a crash leaves something else on the disk."""

DEADLY = ("fdatasync", "fsync", "linkat", "rename", "sendto", "unlink")
"""The calls in whose place death comes: one of `DURABLE`, or one that says something to a peer."""

_SPEECH = ("sendto", "sendmsg", "write", "writev")
_CALL = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(?: resumed>|\()(.*)$")
_BEGUN = re.compile(r"^(\d+) +(\w+)\((.*) <unfinished \.\.\.>$")


class TracedMTA(MTA):
    """An MTA whose system calls are written to ``trace`` in its folder.

    Attributes:
        inject: what strace is to do at which call, as its option ``inject`` has it; empty for
            nothing.
    """

    inject = ""

    @property
    def trace(self) -> Path:
        """Where the calls are written."""
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
        """Return what it did, a line for each call, in the order in which calls came back."""
        return completed(self.trace.read_text("utf-8", "replace").splitlines())


def completed(lines: Sequence[str]) -> list[str]:
    """Return ``name(arguments) = result`` for each call that came back, in that order.

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
