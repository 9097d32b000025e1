"""Settings of Sphinx: ``python -m sphinx -W docs docs/_build``. Needs no network."""

import re
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_PACKAGE = _HERE.parent / "twisted_mta" / "_version.py"
_VERSION = re.search(r'^__version__ = "(.+)"$', _PACKAGE.read_text(encoding="utf-8"), re.MULTILINE)
assert _VERSION is not None
sys.path[:0] = [str(_HERE / "_ext"), str(_HERE.parent)]

project = "twisted-mta"
author = "the twisted-mta developers"
release = version = _VERSION[1]

extensions = ["sphinx.ext.autodoc", "public", "modules", "states", "log_table", "trouble_table"]
exclude_patterns = ["_build", "_ext"]
language = "en"
default_role = "py:obj"

autodoc_default_options = {"members": True, "no-value": True}
autoclass_content = "both"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True

# What the API reference (api.rst) has to hold whole.
public_modules = [
    "twisted_mta",
    "twisted_mta.auth.credentials",
    "twisted_mta.cli",
    "twisted_mta.config",
    "twisted_mta.daemon",
    "twisted_mta.interfaces",
    "twisted_mta.mail.address",
    "twisted_mta.mail.envelope",
    "twisted_mta.mail.message",
    "twisted_mta.mail.next_hop",
    "twisted_mta.mail.outcome",
    "twisted_mta.mail.reply",
    "twisted_mta.service",
    "twisted_mta.smtp.extension.views",
    "twisted_mta.testing.client",
    "twisted_mta.testing.delivery",
    "twisted_mta.testing.files",
    "twisted_mta.testing.memory_mta",
    "twisted_mta.testing.network",
    "twisted_mta.testing.peer",
    "twisted_mta.testing.reactor",
    "twisted_mta.testing.resolver",
    "twisted_mta.testing.store",
    "twisted_mta.testing.tls",
    "twisted_mta.testing.transcript",
]

nitpicky = True
nitpick_ignore_regex = [
    # Single backquotes in a docstring make a link where there is a target. They also stand around
    # parameters, private names, and names of rooms that the reference does not list.
    ("py:obj", ".*"),
    # Names of other projects and of the standard library, whose inventories would need the network.
    (
        "py:.*",
        r"(OpenSSL|attrs?|collections|cryptography|datetime|email|ipaddress|os|pathlib|re|t|twisted"
        r"|typing|zope)\..*",
    ),
    ("py:.*", r".*<InterfaceClass .*"),
    ("py:exc", "CannotListenError"),
    # Types that a program is handed or hands on, and has no reason to import.
    (
        "py:class",
        r"twisted_mta\.(admin|agent|auth|health|policy\.dkim|queue|routing|server|smtp|system"
        r"|telemetry|tls)\..*",
    ),
    ("py:class", r"twisted_mta\..*\._\w+"),
    # Aliases of types, and types that a module imports for the type checker alone.
    ("py:class", r"[A-Z]\w+"),
    ("py:class", r"twisted_mta\..*\.T_co"),
]

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
