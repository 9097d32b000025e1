"""The lines that the program can log, read from the calls of loggers in its source.

`log_table` lists them on the page of the log, and a test compares their fields with those that the
page describes.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parent.parent.parent / "twisted_mta"

_LEVELS = {"debug", "info", "warn", "error", "critical", "failure"}
_LOGGERS = {"log", "_log"}


class Line(NamedTuple):
    """A kind of line in the log: its format, level, and fields, those that begin with _ left out.

    ``level`` is empty where the program decides on it.
    """

    text: str
    level: str
    fields: tuple[str, ...]


def lines(package: Path = PACKAGE) -> Iterator[Line]:
    """Yield every line that the modules of a package can log, by module."""
    for path in sorted(package.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = {
            target.id: statement.value
            for statement in tree.body
            if isinstance(statement, ast.Assign)
            for target in statement.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args:
                level = _level(node.func)
                if level is not None:
                    names = (word.arg or "" for word in node.keywords)
                    fields = tuple(name for name in names if not name.startswith("_"))
                    yield Line(_text(node.args[0], texts), level, fields)


def _text(node: ast.expr, texts: Mapping[str, ast.expr]) -> str:
    """Return the format of a line; a part that depends on something stands in brackets."""
    match node:
        case ast.Constant(str(value)):
            return value
        case ast.Name(name) if name in texts:
            return _text(texts[name], texts)
        case ast.BinOp(left, ast.Add(), right):
            return _text(left, texts) + _text(right, texts)
        case ast.IfExp(_, body, otherwise):
            return f"[{_text(body, texts) or _text(otherwise, texts)}]"
    return "…"


def _level(function: ast.expr) -> str | None:
    """Return the level of a call of a logger; None if it is none."""
    if isinstance(function, ast.Name):
        return "" if function.id in _LOGGERS else None
    if not isinstance(function, ast.Attribute) or function.attr not in _LEVELS:
        return None
    owner = function.value
    if isinstance(owner, ast.Call):
        name = owner.func.id if isinstance(owner.func, ast.Name) else ""
        return function.attr if name == "Logger" else None
    name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
    if name not in _LOGGERS and name != "_own":
        return None
    return "critical" if function.attr == "failure" else function.attr
