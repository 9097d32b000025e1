"""Read Google-style docstrings, and check that the API reference is whole.

``public_modules`` of ``conf.py`` names the modules. Each name in ``__all__`` of such a module, or
else each class and function that it defines, has to be on a page; and each public method, property
and attribute of a class on a page needs a description. A missing one is a warning, which ends a
build with ``-W``.

The fields of a class of settings take their description from the setting.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

import attrs
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.util import logging
from zope.interface import implementedBy

from twisted_mta.config.setting import Setting

_GOOGLE = Config(napoleon_use_ivar=True, napoleon_use_rtype=False)

logger = logging.getLogger(__name__)


def public_names(module: ModuleType) -> list[str]:
    """Return the public names of a module: ``__all__``, or the classes and functions it defines."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return [name for name in listed if not name.startswith("__")]
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and isinstance(value, type | FunctionType)
        and value.__module__ == module.__name__
    ]


def undescribed(cls: type) -> Iterator[str]:
    """Yield the public methods, properties and attributes of a class that have no description."""
    sources = [(base, base.__dict__.get("__init__")) for base in cls.__mro__]
    text = "\n".join(inspect.getdoc(each) or "" for pair in sources for each in pair)
    for name, value in vars(cls).items():
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if name.startswith("_") or not isinstance(function, FunctionType | property):
            continue
        if not inspect.getdoc(getattr(cls, name)):
            yield name
    fields = attrs.fields_dict(cls) if attrs.has(cls) else {}
    inherited = {name for base in cls.__mro__[1:] for name in vars(base)}
    inherited.update(name for interface in implementedBy(cls) for name in interface)
    for name in inspect.get_annotations(cls):
        if name.startswith("_") or (name in fields and Setting in fields[name].metadata):
            continue
        if name in inherited or (fields and name not in fields):
            continue
        if not re.search(rf"^\s*(\w+, )*{name}(, \w+)*:", text, re.MULTILINE):
            yield name


def _format(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    if what in ("attribute", "data", "property"):
        return  # napoleon would take what is before a colon in the first line for a type
    lines[:] = GoogleDocstring(lines, _GOOGLE, app, what, name, value, options).lines()
    if what == "class" and isinstance(value, type) and attrs.has(value):
        lines.append("")
        for field, each in attrs.fields_dict(value).items():
            if Setting in each.metadata:
                text = each.metadata[Setting].doc.replace("\\", "\\\\").replace("*", "\\*")
                lines.append(f":ivar {field}: {text}")
        lines.append("")


def _resolve(path: str) -> object:
    """Return the object of a dotted path."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise LookupError(path)


def _check(app: Sphinx, env: BuildEnvironment) -> None:
    objects = env.domains["py"].objects  # type: ignore[attr-defined]
    on_pages = set()
    for path, entry in objects.items():
        if entry.objtype in ("class", "exception", "function"):
            value = _resolve(path)
            on_pages.add(value)
            if not inspect.getdoc(value):
                logger.warning("%s is public and has no docstring", path)
            for name in undescribed(value) if isinstance(value, type) else ():
                logger.warning("%s.%s is public and has no description", path, name)
    for path in app.config.public_modules:
        module = importlib.import_module(path)
        for name in public_names(module):
            if getattr(module, name) not in on_pages and f"{path}.{name}" not in objects:
                logger.warning("%s.%s is public and not in the API reference", path, name)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the reading and the check."""
    app.add_config_value("public_modules", [], "env")
    app.connect("autodoc-process-docstring", _format)
    app.connect("env-check-consistency", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
