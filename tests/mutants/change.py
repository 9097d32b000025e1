"""Small changes of Python source, each of which a good test notices."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import accumulate

from attrs import frozen

_OPPOSITE = {
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "==": "!=",
    "!=": "==",
    "is": "is not",
    "is not": "is",
    "in": "not in",
    "not in": "in",
}
_OPERATOR = re.compile(r"(?<![<>=!])(<=|>=|==|!=|<|>|\bis\s+not\b|\bnot\s+in\b|\bis\b|\bin\b)")

_UNSEEN = re.compile(r"(self\.|cls\.)?_?log\.\w+\(|warnings\.warn\(")
"""Calls that write to the log; tests are not asked to notice their loss."""


@frozen
class Change:
    """One change of a source text.

    Attributes:
        line: the line it stands on, from 1.
        kind: ``comparison``, ``condition``, ``boolean``, ``number``, ``constant``, ``call`` (a
            statement that calls and drops the result is gone) or ``guard`` (an early exit is gone).
        start: of the replaced text, in octets of UTF-8.
        end: of the replaced text, in octets of UTF-8.
        before: the text replaced.
        after: the text that stands there instead.
    """

    line: int
    kind: str
    start: int
    end: int
    before: str
    after: str

    def of(self, source: str) -> str:
        """Return ``source`` with the change made."""
        octets = source.encode()
        return (octets[: self.start] + self.after.encode() + octets[self.end :]).decode()


class _Positions:
    """Turns lines and columns of syntax trees into offsets."""

    def __init__(self, source: str) -> None:
        self.octets = source.encode()
        self._lines = [0, *accumulate(len(line) for line in self.octets.splitlines(keepends=True))]

    def start(self, node: ast.expr | ast.stmt) -> int:
        return self._lines[node.lineno - 1] + node.col_offset

    def end(self, node: ast.expr | ast.stmt) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._lines[node.end_lineno - 1] + node.end_col_offset

    def text(self, start: int, end: int) -> str:
        return self.octets[start:end].decode()

    def change(self, kind: str, line: int, start: int, end: int, after: str) -> Change:
        return Change(line, kind, start, end, self.text(start, end), after)

    def of(self, kind: str, node: ast.expr | ast.stmt, after: str) -> Change:
        return self.change(kind, node.lineno, self.start(node), self.end(node), after)


def changes(source: str) -> list[Change]:
    """Return every change that can be made of a module, in the order of its text."""
    positions = _Positions(source)
    return sorted(
        (change for node in _code(ast.parse(source)) for change in _of(node, positions)),
        key=lambda change: (change.start, change.kind),
    )


def _code(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run: no annotations, and nothing under TYPE_CHECKING."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list", "type_comment"):
            continue
        for node in value if isinstance(value, list) else [value]:
            if not isinstance(node, ast.AST):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                continue
            yield node
            yield from _code(node)


def _of(node: ast.AST, positions: _Positions) -> Iterator[Change]:
    match node:
        case ast.Compare(left=left, comparators=[right]):
            start, end = positions.end(left), positions.start(right)
            between = positions.text(start, end)
            if found := _OPERATOR.search(between):
                other = _OPPOSITE[" ".join(found[1].split())]
                after = between[: found.start(1)] + other + between[found.end(1) :]
                yield positions.change("comparison", node.lineno, start, end, after)
        case ast.BoolOp(op=op, values=[first, second, *_]):
            start, end = positions.end(first), positions.start(second)
            word, other = ("and", "or") if isinstance(op, ast.And) else ("or", "and")
            after = re.sub(rf"\b{word}\b", other, positions.text(start, end), count=1)
            yield positions.change("boolean", node.lineno, start, end, after)
        case ast.Constant(value=True):
            yield positions.of("constant", node, "False")
        case ast.Constant(value=False):
            yield positions.of("constant", node, "True")
        case ast.Constant(value=int() as number):
            yield positions.of("number", node, str(number + 1))
        case ast.Expr(value=ast.Call() | ast.Await(value=ast.Call())):
            if not _UNSEEN.match(positions.text(positions.start(node), positions.end(node))):
                yield positions.of("call", node, "pass")
        case ast.If(test=test, body=[ast.Return() | ast.Raise() | ast.Continue()], orelse=[]):
            yield _not(test, "condition", positions)
            text = positions.text(positions.start(test), positions.end(test))
            yield positions.of("guard", test, f"(False and ({text}))")
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            if not isinstance(test, ast.Constant):
                yield _not(test, "condition", positions)


def _not(test: ast.expr, kind: str, positions: _Positions) -> Change:
    text = positions.text(positions.start(test), positions.end(test))
    return positions.of(kind, test, f"(not ({text}))")
