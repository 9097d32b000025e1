"""Loads a `Config` from options and a TOML file; each error says where its value stands."""

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
from .account_limits import AccountLimit, AccountLimits
from .acme import ACMESettings
from .catalog import BY_OPTION, BY_TABLE, INSTEAD, LISTENER_KINDS, REPEATED, SWITCHES, TABLES
from .config import DEFAULT_SMTP, DEFAULT_WEB, Config
from .destination import Destination
from .dkim import DKIMKey
from .dnsbl import DNSBL
from .feedback import FeedbackSettings
from .listener import Listener
from .milter import MilterSettings
from .mta_sts import MTASTSSettings
from .policy import PolicySettings
from .policy_service import PolicyServiceSettings
from .reply_action import ReplyAction
from .setting import HIDDEN, ConfigError, Read, mistyped, problems_of, shown
from .source_pool import SourcePool
from .suppression import SuppressionSettings
from .tables import (
    DeliverySettings,
    DNSSettings,
    GreylistSettings,
    LogSettings,
    QueueSettings,
    TLSReportSettings,
    WebSettings,
)
from .text_file import without_mark
from .unbuilt import NOT_BUILT, NOT_BUILT_TABLES
from .unreadable import unreadable
from .webhook import WebhookSettings


def load(
    options: Mapping[str, Sequence[str] | str],
    file: str | None,
    *,
    environment: Mapping[str, str] | None = None,
    machine_name: Callable[[], str] = socket.getfqdn,
    default_ports: bool = True,
) -> Config:
    """Return the settings that options and a file give, with the defaults of ``twistd mta``.

    An option wins over the file; ``--smtp`` and ``[[listener]]`` tables add up. Relative paths
    start in the working directory, in the file too. Blocks: it reads the file, and may ask for
    the machine's name.

    Args:
        options: values by the option's name without dashes; a sequence if repeatable.
        file: the path of a TOML file.
        environment: where ``STATE_DIRECTORY`` is looked up; None: the environment of the process.
        machine_name: returns the machine's full name, or its short one if it has no other.
        default_ports: whether settings without a listener, or without a page, have those of
            ``twistd mta``, on port 2525 and 8025 of loopback.

    Raises:
        ConfigError: a value is refused; nothing was started or written.
    """
    config, errors = load_leniently(
        options,
        file,
        environment=environment,
        machine_name=machine_name,
        default_ports=default_ports,
    )
    if config is None or errors:
        raise errors[0]
    return config


def load_leniently(
    options: Mapping[str, Sequence[str] | str],
    file: str | None,
    *,
    environment: Mapping[str, str] | None = None,
    machine_name: Callable[[], str] = socket.getfqdn,
    default_ports: bool = True,
) -> tuple[Config | None, Sequence[ConfigError]]:
    """Return the settings without all values that are refused, and an error for each of these.

    Takes what `load` takes, and returns all errors, of which `load` raises the first.

    Returns:
        The settings, None if the remaining values contradict each other or the file cannot be
        read; the errors.
    """
    loader = _Loader(file or "")
    try:
        if file is not None:
            loader.read_document(_document(file))
    except ConfigError as error:
        return None, [error]
    loader.read_options(options)
    try:
        config = loader.config(
            os.environ if environment is None else environment,
            machine_name,
            default_ports=default_ports,
        )
    except ConfigError as error:
        loader.contradicted(error)
        return None, loader.errors
    return config, loader.errors


def _document(file: str) -> dict[str, Any]:
    try:
        with open(file, "rb") as opened:
            content = opened.read()
        return tomllib.loads(without_mark(content).decode("utf-8"))
    except RecursionError:
        raise ConfigError(
            f"{printable(file)}: not readable TOML: found hundreds of nested brackets;"
            " expected fewer"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{printable(file)}: not TOML: {printable(str(error))}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{printable(file)}: not TOML: octet {error.start + 1} is not UTF-8; expected UTF-8"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--config {printable(file)}: {unreadable(file, error)};"
            " expected the path of a readable TOML file"
        ) from None


@frozen
class _Place:
    """Where a value stands: ``mta.toml: [queue] lifetime = ``, or an option.

    Attributes:
        start: all that precedes the value.
        show: returns a value as it is written there.
    """

    start: str
    show: Callable[[Any], str] = shown

    def error(self, value: object, problem: str) -> ConfigError:
        """Return an error about ``value`` at this place."""
        if value and _is_list_of_tables(value):  # too long to be shown
            return ConfigError(f"{self.start.removesuffix(' = ')}: {problem}")
        return ConfigError(f"{self.start}{self.show(value)}: {problem}")

    def hidden(self) -> _Place:
        """Return the same place, for a value that may contain a secret."""
        return _Place(self.start, lambda value: HIDDEN)

    def read(self, read: Read, value: object) -> Any:
        """Return the converted value.

        Raises:
            ConfigError: ``read`` refuses the value.
        """
        try:
            return read(value)
        except ValueError as error:
            first, *others = (self.error(value, problem) for problem in problems_of(error))
            raise ConfigError(str(first), others) from None


@frozen
class _Repeated:
    """One of the tables ``[[table]]`` of a kind.

    Attributes:
        header: where it stands: ``[[listener]] 2``.
        values: by field.
        whole: whether no key of it was refused.
    """

    header: str
    values: dict[str, Any]
    whole: bool


@define
class _Loader:
    """Collects values from the file and the options, and an error for each that is refused.

    Attributes:
        file: the path of the file, for errors.
        errors: in the order of the file, then of the options.
        values: by class and field.
        repeated: by table, the tables of each kind ``[[table]]``.
        switched_on: the tables of `SWITCHES` that are there.
        incomplete: the classes of tables ``[table]`` that have a refused key.
    """

    file: str
    errors: list[ConfigError] = field(factory=list)
    values: dict[type[AttrsInstance], dict[str, Any]] = field(
        factory=lambda: {cls: {} for cls in TABLES.values()}
    )
    repeated: dict[str, list[_Repeated]] = field(factory=lambda: {table: [] for table in REPEATED})
    switched_on: set[str] = field(factory=set)
    incomplete: set[type[AttrsInstance]] = field(factory=set)

    def read_document(self, document: Mapping[str, Any]) -> None:
        """Read the tables of the file."""
        for table, content in document.items():
            if table in NOT_BUILT_TABLES and not _is_value(content):
                self.errors.append(
                    ConfigError(
                        f"{printable(self.file)}: [{table}] is not built yet; expected no such"
                        " table"
                    )
                )
            elif table not in TABLES:
                self.errors.append(self._unknown_table(table, content))
            elif table in REPEATED:
                self._read_repeated(table, content)
            elif isinstance(content, Mapping):
                if table in SWITCHES:
                    self.switched_on.add(table)
                if not self._read_table(table, f"[{table}]", content, None):
                    self.incomplete.add(TABLES[table])
            else:
                self.errors.append(
                    self._place("", table).error(
                        content, str(mistyped(content, f"a table, below a line [{table}]"))
                    )
                )

    def _read_repeated(self, table: str, content: Any) -> None:
        if not _is_list_of_tables(content):
            self.errors.append(
                self._place("", table).error(
                    content, str(mistyped(content, f"tables, each below a line [[{table}]]"))
                )
            )
            return
        for number, keys in enumerate(content, 1):
            header = f"[[{table}]] {number}"
            values: dict[str, Any] = {}
            whole = self._read_table(table, f"{header},", keys, values)
            self.errors += [
                ConfigError(
                    f"{printable(self.file)}: {header} has no {required}; expected {example}"
                )
                for required, example in REPEATED[table].items()
                if required not in keys and INSTEAD.get(table, {}).get(required) not in keys
            ]
            if all(
                required in values or INSTEAD.get(table, {}).get(required) in values
                for required in REPEATED[table]
            ):
                self.repeated[table].append(_Repeated(header, values, whole))

    def _read_table(
        self, table: str, header: str, content: Mapping[str, Any], into: dict[str, Any] | None
    ) -> bool:
        """Read the keys of a table, into ``into`` or, if that is None, into `values`.

        Returns:
            Whether no key was refused.
        """
        whole = True
        for key, value in content.items():
            try:
                self._read_key(table, self._place(header, key), key, value, into)
            except ConfigError as error:
                self._refuse(error)
                whole = False
        return whole

    def _refuse(self, error: ConfigError) -> None:
        self.errors += [error, *error.others]

    def _read_key(
        self, table: str, place: _Place, key: str, value: Any, into: dict[str, Any] | None
    ) -> None:
        entry = BY_TABLE[table].get(key)
        if entry:
            if entry.setting.secret:
                place = place.hidden()
            target = self.values[entry.cls] if into is None else into
            target[entry.field] = place.read(entry.setting.read, value)
        elif key in NOT_BUILT.get(table, {}):
            already = NOT_BUILT[table][key].already
            if value not in already:
                expected = shown(already[0]) if already else "no value"
                raise place.error(value, f"{key} is not built yet; expected {expected}")
        else:
            raise place.error(value, _unknown_key(table, key))

    def _place(self, header: str, key: str) -> _Place:
        space = " " if header else ""
        return _Place(f"{printable(self.file)}: {header}{space}{printable(key)} = ")

    def _unknown_table(self, table: str, content: Any) -> ConfigError:
        close = difflib.get_close_matches(table, TABLES, 1)
        if _is_value(content):
            headers = _tables_with(table) or "[mta]"
            return self._place("", table).error(
                content, f"outside of all tables; expected below {headers}"
            )
        hint = f"did you mean {close[0]}?" if close else f"expected {', '.join(TABLES)}"
        return ConfigError(f"{printable(self.file)}: [{printable(table)}]: no such table; {hint}")

    def read_options(self, options: Mapping[str, Sequence[str] | str]) -> None:
        """Read the values of the command line."""
        for name, value in options.items():
            try:
                self._read_option(name, value)
            except ConfigError as error:
                self._refuse(error)

    def _read_option(self, name: str, value: Sequence[str] | str) -> None:
        entry = BY_OPTION.get(name)
        if entry is None:
            close = difflib.get_close_matches(name, BY_OPTION, 1)
            hint = f"; did you mean --{close[0]}?" if close else ""
            raise ConfigError(f"--{printable(name)}: no such option{hint}")
        setting = entry.setting
        words = [value] if isinstance(value, str) else list(value)
        place = _Place(f"--{name} ", lambda value: printable(str(value)))
        if setting.repeatable:
            place = _Place(place.start, lambda values: printable(" ".join(values)))
        if setting.secret:
            place = place.hidden()
        given: Any = words if setting.repeatable else words[-1]
        read = place.read(setting.read, True if setting.is_switch else given)
        self.values[entry.cls][entry.field] = read

    def contradicted(self, error: ConfigError) -> None:
        """Add errors about values that are valid one by one and contradict each other."""
        place = f"{printable(self.file)}: " if self.file else ""
        self.errors += [ConfigError(f"{place}{each}") for each in (error, *error.others)]

    def config(
        self,
        environment: Mapping[str, str],
        machine_name: Callable[[], str],
        *,
        default_ports: bool,
    ) -> Config:
        """Return all values as one.

        Raises:
            ConfigError: values contradict each other.
        """
        values = self.values[Config]
        if "hostname" not in values:
            values["hostname"] = _hostname(machine_name())
        if "state_dir" not in values:
            # If a unit has several, systemd separates them by colons.
            values["state_dir"] = environment.get("STATE_DIRECTORY", "").partition(":")[0] or (
                "mta-state"
            )
        if default_ports:
            values.setdefault("web", DEFAULT_WEB)
        values["listeners"] = self._listeners((DEFAULT_SMTP,) if default_ports else ())
        return Config(
            **values,
            queue=self._made(QueueSettings, "[queue] ") or QueueSettings(),
            delivery=self._made(DeliverySettings, "[delivery] ") or DeliverySettings(),
            dns=self._made(DNSSettings, "[dns] ") or DNSSettings(),
            log=self._made(LogSettings, "[log] ") or LogSettings(),
            web_page=self._made(WebSettings, "[web] ") or WebSettings(),
            policy=self._made(PolicySettings, "[policy] ") or PolicySettings(),
            mta_sts=self._made(MTASTSSettings, "[mta_sts] ") or MTASTSSettings(),
            account_limits=self._made(AccountLimits, "[account_limits] ") or AccountLimits(),
            limits_of_accounts=self._several(AccountLimit, self.repeated["account_limit"]),
            destinations=self._several(Destination, self.repeated["destination"]),
            source_pools=self._several(SourcePool, self.repeated["source_pool"]),
            reply_actions=self._several(ReplyAction, self.repeated["reply_action"]),
            tls_report=self._made(TLSReportSettings, "[tls_report] ")
            if "tls_report" in self.switched_on
            else None,
            greylist=self._made(GreylistSettings, "[greylist] ")
            if "greylist" in self.switched_on
            else None,
            suppression=self._made(SuppressionSettings, "[suppression] ")
            if "suppression" in self.switched_on
            else None,
            feedback=self._made(FeedbackSettings, "[feedback] ")
            if "feedback" in self.switched_on
            else None,
            acme=self._made(ACMESettings, "[acme] ") if "acme" in self.switched_on else None,
            dnsbl=self._several(DNSBL, self.repeated["dnsbl"]),
            dkim_keys=self._several(DKIMKey, self.repeated["dkim"]),
            milters=self._several(MilterSettings, self.repeated["milter"]),
            policy_services=self._several(PolicyServiceSettings, self.repeated["policy_service"]),
            webhooks=self._several(WebhookSettings, self.repeated["webhook"]),
        )

    def _several(self, cls: Callable[..., Any], tables: Iterable[_Repeated]) -> Sequence[Any]:
        """Return an instance for each table without contradictions."""
        made = (self._instance(cls, "", each.values, each.whole) for each in tables)
        return tuple(each for each in made if each is not None)

    def _made(self, cls: type[AttrsInstance], place: str) -> Any:
        """Return an instance of the class of a table ``[table]``; None if it has contradictions.

        ``place`` precedes an error.
        """
        return self._instance(cls, place, self.values[cls], cls not in self.incomplete)

    def _instance(
        self, cls: Callable[..., Any], place: str, values: Mapping[str, Any], whole: bool
    ) -> Any:
        try:
            return cls(**values)
        except ConfigError as error:
            # Without its refused keys a table may lack what was given: that is no second error.
            if whole:
                self.contradicted(ConfigError(f"{place}{error}", error.others))
            return None

    def _listeners(self, default: Sequence[str]) -> Sequence[Listener]:
        """Return the listeners of options and ``[mta]``, then those of ``[[listener]]`` tables."""
        values, common = self.values[Config], self.values[Listener]
        others = {kind: values.pop(kind) for kind in LISTENER_KINDS if kind in values}
        has_listeners = self.repeated["listener"] or any(others.values())
        endpoints = {"smtp": values.get("listeners", () if has_listeners else default), **others}
        return (
            *(
                Listener(**{**common, "kind": kind, "endpoint": endpoint})
                for kind, several in endpoints.items()
                for endpoint in several
            ),
            *filter(
                None,
                (
                    self._instance(
                        Listener, f"{each.header}, ", {**common, **each.values}, each.whole
                    )
                    for each in self.repeated["listener"]
                ),
            ),
        )


def _unknown_key(table: str, key: str) -> str:
    headers = _tables_with(key)
    if headers:
        return f"not a setting of this table; expected below {headers}"
    names = [*BY_TABLE[table], *NOT_BUILT.get(table, {})]
    close = difflib.get_close_matches(key, names, 1)
    hint = f"did you mean {close[0]}?" if close else f"expected {', '.join(names) or 'none'}"
    return f"no such setting; {hint}"


def _tables_with(key: str) -> str:
    """Return the headers of all tables that have a key."""
    return " or ".join(
        f"[[{table}]]" if table in REPEATED else f"[{table}]"
        for table in TABLES
        if key in BY_TABLE[table] or key in NOT_BUILT.get(table, {})
    )


def _is_value(content: object) -> bool:
    return not isinstance(content, Mapping) and not _is_list_of_tables(content)


def _is_list_of_tables(content: object) -> bool:
    return isinstance(content, list) and all(isinstance(each, Mapping) for each in content)


def _hostname(name: str) -> str:
    """Return the machine's name if others can resolve it, else localhost."""
    try:
        return name if "." in name and domain_name(name) else "localhost"
    except AddressError:
        return "localhost"
