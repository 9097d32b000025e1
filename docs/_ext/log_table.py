"""``.. log-lines::`` makes a table of the lines that the program can log (`log_lines`)."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from log_lines import lines
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class LogLines(SphinxDirective):
    """The table of lines."""

    def run(self) -> list[nodes.Node]:
        """Return the table, in the order of the texts."""
        group = nodes.tgroup(cols=3)
        group += [nodes.colspec(colwidth=width) for width in (56, 10, 34)]
        group += nodes.thead("", _row("Text", "Level", "Fields"))
        body = nodes.tbody()
        for line in sorted(set(lines()), key=lambda line: (line.text.lower(), line)):
            body += _row(line.text, line.level or "info, warn", ", ".join(line.fields))
        group += body
        return [nodes.table("", group)]


def _row(*cells: str) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph(text=cell)) for cell in cells))


def setup(app: Sphinx) -> dict[str, Any]:
    """Make the directive known to Sphinx."""
    app.add_directive("log-lines", LogLines)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
