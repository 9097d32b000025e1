"""``.. trouble-table::`` makes a table of all kinds of troubles (`twisted_mta.health.trouble`)."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from twisted_mta.health.trouble import KINDS

_CODE = re.compile(
    r"(twisted-mta (?:check|explain|queue [a-z]+|reload|reopen-logs|tls(?: forget)?|trace)"
    r"(?: (?:--[a-z]+|[A-Z]+|1d|quarantined))*|\b[a-z]+(?:_[a-z]+)+\b)"
)


class TroubleTable(SphinxDirective):
    """The table of troubles."""

    def run(self) -> list[nodes.Node]:
        """Return the table, in the order of the program."""
        group = nodes.tgroup(cols=5)
        group += [nodes.colspec(colwidth=width) for width in (12, 10, 34, 12, 32)]
        heads = ("Kind", "Severity", "When", "Mail is refused", "What to do")
        group += nodes.thead("", nodes.row("", *(_entry(nodes.Text(head)) for head in heads)))
        body = nodes.tbody()
        for kind in KINDS.values():
            body += nodes.row(
                "",
                _entry(nodes.literal(text=kind.name)),
                _entry(nodes.Text(", ".join(kind.severities))),
                _entry(*_marked(kind.when)),
                _entry(nodes.Text(kind.refuses)),
                _entry(*_marked(kind.remedy)),
            )
        group += body
        return [nodes.table("", group)]


def _entry(*content: nodes.Node) -> nodes.entry:
    return nodes.entry("", nodes.paragraph("", "", *content))


def _marked(text: str) -> list[nodes.Node]:
    """Return a text with its commands and settings as literals."""
    pieces = _CODE.split(text)
    return [
        nodes.literal(text=piece) if number % 2 else nodes.Text(piece)
        for number, piece in enumerate(pieces)
    ]


def setup(app: Sphinx) -> dict[str, Any]:
    """Make the directive known to Sphinx."""
    app.add_directive("trouble-table", TroubleTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
