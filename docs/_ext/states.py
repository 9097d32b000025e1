"""``.. states:: module.TRANSITIONS`` draws a state machine from its table of transitions.

The table is the one that the program runs on, so that the diagram cannot drift from it
(`state_diagram` has its forms). HTML gets the drawing; all other formats get a table. The content
of the directive, if any, is a caption.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from html import escape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from state_diagram import Row, draw, rows


class states(nodes.General, nodes.Element):
    """Holds the table of transitions; ``svg`` is the drawing, ``alt`` its description."""


class States(SphinxDirective):
    """The state machine of a table of transitions."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the drawing with its caption."""
        path = self.arguments[0]
        module_name, _, name = path.rpartition(".")
        try:
            module = importlib.import_module(module_name)
            table = getattr(module, name)
            transitions = rows(table)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise self.error(f"{path}: {error}") from error
        self.env.note_dependency(inspect.getfile(module))
        node = states(svg=draw(table), alt=f"State diagram of {path}")
        node += _table(transitions)
        caption = "\n".join(self.content)
        if not caption:
            return [node]
        children, _ = self.state.inline_text(caption, self.lineno)
        return [nodes.paragraph("", "", *children), node]


def _table(transitions: Sequence[Row]) -> nodes.table:
    group = nodes.tgroup(cols=3)
    group += [nodes.colspec(colwidth=width) for width in (25, 45, 30)]
    group += nodes.thead("", _row(("State", "Event", "Next state")))
    body = nodes.tbody()
    gathered: dict[tuple[str, str], list[str]] = {}
    for state, event, after in transitions:
        gathered.setdefault((state, after), []).append(event)
    for (state, after), events in gathered.items():
        body += _row((state, ", ".join(events), "(the same)" if state == after else after))
    group += body
    return nodes.table("", group)


def _row(cells: Sequence[str]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph(text=cell)) for cell in cells))


def _visit_html(translator: Any, node: nodes.Element) -> None:
    label = f'<div class="states" aria-label="{escape(node["alt"])}">'
    translator.body.append(f"{label}{node['svg']}</div>\n")
    raise nodes.SkipNode


def _pass(translator: Any, node: nodes.Element) -> None:
    """Let the table inside be written."""


def setup(app: Sphinx) -> dict[str, Any]:
    """Make the directive known to Sphinx."""
    others = dict.fromkeys(("latex", "text", "man", "texinfo"), (_pass, _pass))
    app.add_node(states, html=(_visit_html, None), **others)
    app.add_directive("states", States)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
