"""Statements of SQL that pages of the documentation have for operators."""

from __future__ import annotations

from pathlib import Path

_DOCS = Path(__file__).parents[2] / "docs"


def statement(page: str, start: str) -> str:
    """Return the statement of a page that begins so, without its semicolon."""
    text = (_DOCS / f"{page}.rst").read_text(encoding="utf-8")
    begin = text.index(start)
    return text[begin : text.index(";", begin)]
