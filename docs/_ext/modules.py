"""``.. modules::`` lists all files of the package by the first lines of their docstrings."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

PACKAGE = Path(__file__).resolve().parents[2] / "twisted_mta"


class Modules(SphinxDirective):
    """The list of folders and files, nested as they are on disk."""

    def run(self) -> list[nodes.Node]:
        """Return the nested list."""
        return [self._folder(PACKAGE)]

    def _folder(self, folder: Path) -> nodes.bullet_list:
        listed = nodes.bullet_list()
        for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
            if path.is_dir() and (path / "__init__.py").exists():
                listed += self._item(f"{path.name}/", path / "__init__.py", self._folder(path))
            elif path.suffix == ".py" and path.name != "__init__.py":
                listed += self._item(path.stem, path)
        return listed

    def _item(self, name: str, path: Path, *below: nodes.Node) -> nodes.list_item:
        self.env.note_dependency(str(path))
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        first_line = " ".join(docstring.partition("\n\n")[0].split())
        children, _ = self.state.inline_text(f"``{name}``  {first_line}", self.lineno)
        return nodes.list_item("", nodes.paragraph("", "", *children), *below)


def setup(app: Sphinx) -> dict[str, Any]:
    """Make the directive known to Sphinx."""
    app.add_directive("modules", Modules)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
