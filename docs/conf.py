"""Settings of Sphinx: ``python -m sphinx -W docs docs/_build``. Needs no network."""

import re
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent / "twisted_mta" / "__init__.py"
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
