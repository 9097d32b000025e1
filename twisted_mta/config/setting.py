"""Settings: attrs fields that know their meaning, default, option and key in the file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date, time
from functools import partial
from typing import Any

import attrs
from attrs import frozen

from ..mail.printable import printable

Read = Callable[[Any], Any]
"""Converts what the file, an option or Python gave; raises `ValueError` if that is not valid.

The message says what is wrong and what was expected; it does not repeat the value.
"""


class Problems(ValueError):
    """Several values of a list that are refused; its text is the first problem.

    Attributes:
        problems: one text for each value, in order; at least one.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(problems[0])
        self.problems = problems


def problems_of(error: ValueError) -> Sequence[str]:
    """Return the problems that a reader's error names."""
    return error.problems if isinstance(error, Problems) else [str(error)]


class ConfigError(ValueError):
    """A value that is refused: one printable line with place, value, fault and expectation.

    Attributes:
        others: further values that are refused, each in its own error.
    """

    def __init__(self, text: str, others: Sequence[ConfigError] = ()) -> None:
        super().__init__(text)
        self.others = others


@frozen
class Setting:
    """What a field of a configuration class says about itself.

    Attributes:
        doc: its meaning, for ``--help`` and the documentation; without a full stop.
        read: converts the value that the file or an option gave.
        default: the default, in words or as the file would have it.
        option: the name of its option, without dashes; None: it has none.
        metavar: stands for the value in the documentation of the option; empty: `is_switch`.
        repeatable: whether the option may be given several times.
        table: its table in the file; None: the table of its class.
        key: its key in the file; None: the name of the field.
        common: whether ``[mta]`` may give it for all listeners.
        secret: whether its value may contain a secret, and is never shown.
    """

    doc: str
    read: Read
    default: str
    option: str | None = None
    metavar: str = ""
    repeatable: bool = False
    table: str | None = None
    key: str | None = None
    common: bool = False
    secret: bool = False

    @property
    def is_switch(self) -> bool:
        """Whether its option takes no value: being there, it stands for true."""
        return not self.metavar


def about(
    doc: str,
    *,
    read: Read | None = None,
    default_text: str | None = None,
    option: str | None = None,
    metavar: str = "",
    repeatable: bool = False,
    table: str | None = None,
    key: str | None = None,
    common: bool = False,
    secret: bool = False,
) -> dict[object, object]:
    """Return the metadata of an attrs field that is a setting (`settings`).

    Python may give the field whatever its converter takes: type checkers know the converters that
    stand in a call of `attrs.field`, and are functions with annotations.

    ``read`` reads values from the file and options; None: the converter does, as for Python.
    ``default_text`` says the default in words; None: as the file would have the value. All others
    are as in `Setting`.
    """
    return {
        Setting: partial(
            _described,
            doc=doc,
            read=read,
            default_text=default_text,
            option=option,
            metavar=metavar,
            repeatable=repeatable,
            table=table,
            key=key,
            common=common,
            secret=secret,
        )
    }


def _described(
    attribute: attrs.Attribute[Any], *, read: Read | None, default_text: str | None, **more: Any
) -> Setting:
    return Setting(
        read=read or attribute.converter,  # type: ignore[arg-type]
        default=shown(attribute.default) if default_text is None else default_text,
        **more,
    )


def setting(read: Read, doc: str, *, default: Any = attrs.NOTHING, **more: Any) -> Any:
    """Return an attrs field that takes from Python no more than the type that it has itself.

    Args:
        read: converts a value.
        doc: see `Setting`.
        default: as `attrs.field` takes it.
        more: see `about`.
    """
    return attrs.field(default=default, converter=read, metadata=about(doc, **more))


def settings(
    cls: type[attrs.AttrsInstance], fields: list[attrs.Attribute[Any]]
) -> list[attrs.Attribute[Any]]:
    """Let errors of settings name their fields; a ``field_transformer`` of attrs."""
    return [_completed(each) if Setting in each.metadata else each for each in fields]


def _completed(attribute: attrs.Attribute[Any]) -> attrs.Attribute[Any]:
    described: Setting = attribute.metadata[Setting](attribute)
    converted = _naming_errors(attribute.converter, described.secret)  # type: ignore[arg-type]
    converted.__annotations__["value"] = _taken(attribute)  # for help()
    return attribute.evolve(
        metadata={Setting: described},
        converter=attrs.Converter(converted, takes_field=True),
    )


def _taken(attribute: attrs.Attribute[Any]) -> object:
    """Return what Python may give a field: what its converter says that it takes."""
    annotations = getattr(attribute.converter, "__annotations__", {})
    taken = next((each for name, each in annotations.items() if name != "return"), "Any")
    return attribute.type if taken in ("Any", Any) else taken


HIDDEN = "..."
"""Shown in place of a value that may contain a secret."""


def _naming_errors(read: Read, secret: bool) -> Callable[[Any, attrs.Attribute[Any]], Any]:
    """Return a converter whose errors name the field and the value."""

    def converted(value: Any, attribute: attrs.Attribute[Any]) -> Any:
        try:
            return read(value)
        except ConfigError:
            raise
        except ValueError as error:
            found = HIDDEN if secret else shown(value)
            raise ConfigError(f"{attribute.name} = {found}: {error}") from None

    return converted


def settings_of(cls: type[attrs.AttrsInstance]) -> dict[str, Setting]:
    """Return the settings among the fields of an attrs class, by field name, in field order."""
    return {
        name: attribute.metadata[Setting]
        for name, attribute in attrs.fields_dict(cls).items()
        if Setting in attribute.metadata
    }


def shown(value: object) -> str:
    """Return a value as the file would write it: one printable line of at most 80 characters."""
    if value is None or value is attrs.NOTHING:
        return "none"
    if isinstance(value, tuple):
        value = list(value)
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:76] + " ..."


def mistyped(value: object, expected: str) -> ValueError:
    """Return an error about a value of the wrong type.

    Args:
        value: the value.
        expected: the type that was expected, and an example.
    """
    return ValueError(f"found {_type_name(value)}, expected {expected}")


_TYPES: Sequence[tuple[type | tuple[type, ...], str]] = (
    ((int, float), "a number"),
    (str, "a string"),
    (Mapping, "a table"),
    ((list, tuple), "a list"),
    ((date, time), "a date or time"),
)


def _type_name(value: object) -> str:
    """Return the type of a value, in the words of TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    return next((name for types, name in _TYPES if isinstance(value, types)), type(value).__name__)


def quoted(text: str) -> str:
    """Return text from outside, printable and in quotes."""
    return f'"{printable(text)}"'
