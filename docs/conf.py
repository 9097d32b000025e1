"""Settings of Sphinx: ``python -m sphinx -W docs docs/_build``. Needs no network."""

import ast
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

_PACKAGE = Path(__file__).resolve().parent.parent / "twisted_mta" / "_version.py"
_VERSION = re.search(r'^__version__ = "(.+)"$', _PACKAGE.read_text(encoding="utf-8"), re.MULTILINE)
assert _VERSION is not None

project = "twisted-mta"
author = "the twisted-mta developers"
release = version = _VERSION[1]

extensions: list[str] = []
exclude_patterns = ["_build"]
nitpicky = True
language = "en"

html_theme = "alabaster"
html_theme_options = {
    "description": "A complete mail transfer agent on Twisted",
    "fixed_sidebar": True,
    "page_width": "1080px",
}
html_show_copyright = False

# python -m sphinx -b man docs docs/_build/man
man_pages = [
    ("twisted-mta", "twisted-mta", "look after a mail transfer agent", "", 1),
]


class Modules(SphinxDirective):
    """``.. modules::`` lists all rooms and files, with the first lines of their docstrings."""

    def run(self) -> list[nodes.Node]:
        """Return a list of lists."""
        return [self._folder(_PACKAGE.parent)]

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
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        line = " ".join(text.partition("\n\n")[0].split())
        children, _ = self.state.inline_text(f"``{name}``  {line}", self.lineno)
        return nodes.list_item("", nodes.paragraph("", "", *children), *below)


def setup(app: Any) -> None:
    """Make the directive known to Sphinx."""
    app.add_directive("modules", Modules)
