"""From options and a TOML file to one `Config`, with errors that say where they are."""

from __future__ import annotations

import difflib
import os
import socket
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import AttrsInstance, define, field, frozen

from ..mail.address import AddressError, domain_name
from ..mail.printable import printable
from .destination import Destination
from .listener import Listener
from .setting import HIDDEN, ConfigError, Read, Setting, settings_of, shown
from .unbuilt import NOT_BUILT, NOT_BUILT_TABLES
from .values import (
    DEFAULT_SMTP,
    DEFAULT_WEB,
    LISTENING,
    Config,
    DeliverySettings,
    DNSSettings,
    LogSettings,
    QueueSettings,
)

_TABLES: Mapping[str, type[AttrsInstance]] = {
    "mta": Config,
    "listener": Listener,
    "queue": QueueSettings,
    "delivery": DeliverySettings,
    "destination": Destination,
    "dns": DNSSettings,
    "log": LogSettings,
}

# Tables that there may be several of: the key that each must have, and a value for it.
_SEVERAL: Mapping[str, tuple[str, str]] = {
    "listener": ("endpoint", DEFAULT_SMTP),
    "destination": ("domain", "example.net"),
}


@frozen
class Known:
    """A setting and the field that holds it."""

    cls: type[AttrsInstance]
    name: str
    setting: Setting


def _known() -> dict[str, dict[str, Known]]:
    """Return what is built: by table of the file, then by key."""
    tables: dict[str, dict[str, Known]] = {table: {} for table in _TABLES}
    for table, cls in _TABLES.items():
        for name, setting in settings_of(cls).items():
            known = Known(cls, name, setting)
            tables[setting.table or table][setting.key or name] = known
            if setting.common:
                tables["mta"][name] = known
    for kind, setting in LISTENING.items():
        tables["mta"][kind] = Known(Config, kind, setting)
    return tables


def option_settings() -> dict[str, Setting]:
    """Return every setting that has an option, by the option's name."""
    return {
        known.setting.option: known.setting
        for keys in _known().values()
        for known in keys.values()
        if known.setting.option
    }


@frozen
class Place:
    """Where a value was given: ``mta.toml: [queue] lifetime`` with its equals sign, or an option.

    Attributes:
        start: all that stands before the value.
        show: writes a value as it is written there.
    """

    start: str
    show: Callable[[Any], str] = shown

    def error(self, value: object, problem: str) -> ConfigError:
        """Return an error about ``value`` at this place."""
        return ConfigError(f"{self.start}{self.show(value)}: {problem}")

    def hidden(self) -> Place:
        """Return the same place, for a value that may hold a secret."""
        return Place(self.start, lambda value: HIDDEN)

    def read(self, read: Read, value: object) -> Any:
        """Return what ``read`` makes of the value.

        Raises:
            ConfigError: it can make nothing of it.
        """
        try:
            return read(value)
        except ValueError as error:
            raise self.error(value, str(error)) from None


def _key(file: str, table: str, key: str) -> Place:
    return Place(f"{printable(file)}: {table} {printable(key)} = ")


def _option(name: str) -> Place:
    return Place(f"--{name} ", lambda value: printable(str(value)))


@define
class _Reading:
    """What was read so far.

    Attributes:
        file: the path of the file, for errors.
        values: by class and name of the field.
        several: by table, of each ``[[table]]`` the values by name of the field.
    """

    file: str
    known: dict[str, dict[str, Known]] = field(factory=_known)
    values: dict[type[AttrsInstance], dict[str, Any]] = field(
        factory=lambda: {cls: {} for cls in _TABLES.values()}
    )
    several: dict[str, list[dict[str, Any]]] = field(
        factory=lambda: {table: [] for table in _SEVERAL}
    )

    def read_file(self, document: Mapping[str, Any]) -> None:
        tables = (*_TABLES, *NOT_BUILT, *NOT_BUILT_TABLES)
        for table, content in document.items():
            if table in NOT_BUILT_TABLES:
                raise ConfigError(f"{printable(self.file)}: [[{table}]] is not built yet")
            if table not in tables:
                raise self._unknown_table(table, content, tables)
            if table in _SEVERAL:
                self._read_several(table, content)
            elif not isinstance(content, Mapping):
                raise ConfigError(
                    f"{printable(self.file)}: {table} = {shown(content)}:"
                    f" a table, under a line [{table}], would do"
                )
            else:
                self._read_table(table, f"[{table}]", content, None)

    def _read_several(self, table: str, content: Any) -> None:
        if not _is_list_of_tables(content):
            raise ConfigError(
                f"{printable(self.file)}: {table} = {shown(content)}:"
                f" tables, each under a line [[{table}]], would do"
            )
        needed, example = _SEVERAL[table]
        for number, one in enumerate(content, 1):
            values: dict[str, Any] = {}
            self._read_table(table, f"[[{table}]] {number},", one, values)
            if needed not in values:
                raise ConfigError(
                    f"{printable(self.file)}: [[{table}]] {number} has no {needed};"
                    f' {needed} = "{example}" would do'
                )
            self.several[table].append(values)

    def _read_table(
        self, table: str, shown_as: str, content: Mapping[str, Any], into: dict[str, Any] | None
    ) -> None:
        for key, value in content.items():
            place = _key(self.file, shown_as, key)
            known = self.known.get(table, {}).get(key)
            if known:
                if known.setting.secret:
                    place = place.hidden()
                target = self.values[known.cls] if into is None else into
                target[known.name] = place.read(known.setting.read, value)
            elif key in NOT_BUILT.get(table, {}):
                already = NOT_BUILT[table][key].already
                if value not in already:
                    instead = f"{shown(already[0])} would do" if already else "leave it out"
                    raise place.error(value, f"{key} is not built yet; {instead}")
            else:
                raise place.error(value, self._unknown_key(table, key))

    def _unknown_table(self, table: str, content: Any, tables: Iterable[str]) -> ConfigError:
        names = list(dict.fromkeys(tables))
        close = difflib.get_close_matches(table, names, 1)
        if not isinstance(content, Mapping) and not _is_list_of_tables(content):
            elsewhere = self._tables_with(table) or "[mta]"
            place = Place(f"{printable(self.file)}: {printable(table)} = ")
            return place.error(content, f"it stands in no table; below {elsewhere} it would do")
        problem = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"
        return ConfigError(f"{printable(self.file)}: [{printable(table)}] is no table; {problem}")

    def _tables_with(self, key: str) -> str:
        return " or ".join(
            f"[[{table}]]" if table in _SEVERAL else f"[{table}]"
            for table in dict.fromkeys((*self.known, *NOT_BUILT))
            if key in self.known.get(table, {}) or key in NOT_BUILT.get(table, {})
        )

    def _unknown_key(self, table: str, key: str) -> str:
        elsewhere = self._tables_with(key)
        if elsewhere:
            return f"it belongs in {elsewhere}"
        names = [*self.known.get(table, {}), *NOT_BUILT.get(table, {})]
        close = difflib.get_close_matches(key, names, 1)
        if close:
            return f"no such setting; did you mean {close[0]}?"
        return f"no such setting; there are {', '.join(names)}" if names else "no such setting"

    def read_options(self, options: Mapping[str, Sequence[str] | str]) -> None:
        known = {
            one.setting.option: one
            for keys in self.known.values()
            for one in keys.values()
            if one.setting.option
        }
        later = {one.option: one for one in NOT_BUILT.get("mta", {}).values() if one.option}
        for name, value in options.items():
            place = _option(name)
            given = [value] if isinstance(value, str) else list(value)
            if name in known:
                setting = known[name].setting
                if setting.secret:
                    place = place.hidden()
                if setting.repeatable:
                    place = Place(place.start, lambda values: printable(" ".join(values)))
                read = place.read(setting.read, given if setting.repeatable else given[-1])
                self.values[known[name].cls][known[name].name] = read
            elif name in later:
                if any(one not in later[name].already for one in given):
                    raise place.error(" ".join(given), f"--{name} is not built yet; leave it out")
            else:
                close = difflib.get_close_matches(name, [*known, *later], 1)
                hint = f"; did you mean --{close[0]}?" if close else ""
                raise ConfigError(f"--{printable(name)}: no such option{hint}")

    def config(self, environment: Mapping[str, str], machine_name: Callable[[], str]) -> Config:
        values = self.values[Config]
        if "hostname" not in values:
            values["hostname"] = _hostname(machine_name())
        if "state_dir" not in values:
            # systemd gives several, separated by colons, where a unit names several.
            values["state_dir"] = environment.get("STATE_DIRECTORY", "").partition(":")[0] or (
                "mta-state"
            )
        values.setdefault("web", DEFAULT_WEB)
        others = {kind: values.pop(kind) for kind in LISTENING if kind in values}
        given = self.several["listener"] or any(others.values())
        endpoints = {"smtp": values.get("listeners", () if given else (DEFAULT_SMTP,)), **others}
        common = self.values[Listener]
        values["listeners"] = (
            *(
                Listener(**{**common, "kind": kind, "endpoint": endpoint})
                for kind, several in endpoints.items()
                for endpoint in several
            ),
            *(Listener(**{**common, **listener}) for listener in self.several["listener"]),
        )
        return Config(
            **values,
            queue=QueueSettings(**self.values[QueueSettings]),
            delivery=DeliverySettings(**self.values[DeliverySettings]),
            dns=DNSSettings(**self.values[DNSSettings]),
            log=LogSettings(**self.values[LogSettings]),
            destinations=tuple(Destination(**each) for each in self.several["destination"]),
        )


def _is_list_of_tables(content: object) -> bool:
    return isinstance(content, list) and all(isinstance(one, Mapping) for one in content)


def _hostname(name: str) -> str:
    """Return the machine's name if it is one that means something elsewhere, else localhost."""
    try:
        return name if "." in name and domain_name(name) else "localhost"
    except AddressError:
        return "localhost"


def _document(file: str) -> dict[str, Any]:
    try:
        with open(file, "rb") as opened:
            return tomllib.load(opened)
    except RecursionError:
        raise ConfigError(
            f"{printable(file)}: not TOML that can be read: brackets within one another, hundreds"
            " of them; fewer would do"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{printable(file)}: not TOML: {printable(str(error))}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{printable(file)}: not TOML: octet {error.start + 1} is no UTF-8; UTF-8 would do"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"--config {printable(file)}: {reason}; the path of a readable TOML file would do"
        ) from None


def load(
    options: Mapping[str, Sequence[str] | str],
    file: str | None,
    *,
    environment: Mapping[str, str] = os.environ,
    machine_name: Callable[[], str] = socket.getfqdn,
) -> Config:
    """Return the settings that options and a file give, with the defaults of ``twistd mta``.

    An option wins over the file; ``--smtp`` and ``[[listener]]`` tables add up. Relative paths
    start in the working directory, in the file too. Blocks: it reads the file, and may ask for
    the machine's name.

    Args:
        options: values by the option's name without dashes; a sequence where repeatable.
        file: the path of a TOML file.
        environment: where ``STATE_DIRECTORY`` is looked up.
        machine_name: returns the machine's full name, or its short one where it has no other.

    Raises:
        ConfigError: a value is refused; nothing was started or written.
    """
    reading = _Reading(file or "")
    if file is not None:
        reading.read_file(_document(file))
    reading.read_options(options)
    try:
        return reading.config(environment, machine_name)
    except ConfigError as error:
        # Settings that are right one by one and not together.
        raise ConfigError(f"{printable(file)}: {error}" if file else str(error)) from None


def load_leniently(
    options: Mapping[str, Sequence[str] | str],
    file: str | None,
    *,
    environment: Mapping[str, str],
    machine_name: Callable[[], str],
) -> tuple[Config | None, Sequence[ConfigError]]:
    """Return what `load` would without all that it would refuse, and every reason to refuse.

    Returns:
        The settings, None where what is left cannot be either; the errors, none where `load` would
        have raised none.
    """
    errors: list[ConfigError] = []
    reading = _Reading(file or "")

    def attempt(read: Callable[..., None], *arguments: Any) -> None:
        try:
            read(*arguments)
        except ConfigError as error:
            errors.append(error)

    document: dict[str, Any] = {}
    if file is not None:
        try:
            document = _document(file)
        except ConfigError as error:
            return None, [error]
    for table, content in document.items():
        if table in _SEVERAL and _is_list_of_tables(content):
            needed, _ = _SEVERAL[table]
            for number, one in enumerate(content, 1):
                values: dict[str, Any] = {}
                for key, value in one.items():
                    shown_as = f"[[{table}]] {number},"
                    attempt(reading._read_table, table, shown_as, {key: value}, values)
                if needed in values:
                    reading.several[table].append(values)
                elif needed not in one:
                    stand_ins = [dict([_SEVERAL[table]])] * (number - 1)
                    attempt(_Reading(reading.file).read_file, {table: [*stand_ins, {}]})
        elif isinstance(content, Mapping):
            for key, value in content.items():
                attempt(reading.read_file, {table: {key: value}})
        else:
            attempt(reading.read_file, {table: content})
    for name, value in options.items():
        attempt(reading.read_options, {name: value})
    try:
        return reading.config(environment, machine_name), errors
    except ConfigError as error:
        # Settings that are right one by one and not together.
        text = f"{printable(file)}: {error}" if file else str(error)
        return None, [*errors, ConfigError(text)]
