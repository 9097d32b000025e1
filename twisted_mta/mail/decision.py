"""Decisions on the commands and contents of a session, as replies."""

from __future__ import annotations

from collections.abc import Sequence

from .reply import Reply

Decision = Reply | None
"""A decision on a command: a reply, whose class accepts or refuses; None: the usual acceptance."""

ContentDecision = Decision | Sequence[Decision]
"""A decision on a content: one, or one for each recipient of the transaction in the order of RCPT.

LMTP sends each recipient's reply. SMTP has one reply for all: the first ``4yz``, else the first
``5yz``.
"""
