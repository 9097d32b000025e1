"""The options of ``twistd mta``, made from the table of settings."""

from __future__ import annotations

import difflib
import os
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen
from twisted.application.app import ServerOptions
from twisted.python import usage

from .._version import __version__
from ..config import Config, ConfigError, LogSettings, load
from ..config.catalog import BY_OPTION
from ..config.loading import load_leniently
from ..config.setting import Setting
from ..mail.printable import printable
from ..routing.routes import parse_route
from ..telemetry.log import Log

# The order of --help: identity, listeners, local mail, relaying, users.
_ORDER = (
    *("config", "state-dir", "hostname"),
    *("smtp", "submission", "submissions", "lmtp", "local-submission", "web"),
    *("tls-certificate", "tls-key"),
    *("local-domain", "maildir", "recipients", "relay-from", "route"),
    *("users", "auth", "queue", "capture", "workers"),
)
_MARGIN = 6
_ENDPOINTS = (
    "ENDPOINT is a server endpoint string of Twisted, such as tcp:25,"
    " tcp:2525:interface=127.0.0.1 or unix:/run/mta.sock; off is none."
)


@frozen
class Option:
    """One option of the command line.

    Attributes:
        name: without dashes.
        metavar: the placeholder of its value; empty: it takes none.
        doc: the text of ``--help``, without the default.
        default: in words; None: not shown.
        repeatable: whether every use adds a value.
    """

    name: str
    metavar: str
    doc: str
    default: str | None = None
    repeatable: bool = False

    def help(self, width: int) -> str:
        """Return its lines of ``--help``, at most ``width`` columns wide."""
        doc = self.doc + ("; repeatable" if self.repeatable else "")
        if self.default is not None:
            doc += f" [{self.default}]"
        lines = textwrap.wrap(doc, width - _MARGIN, break_on_hyphens=False)
        return "\n".join(
            (f"  --{self.name} {self.metavar}".rstrip(), *(" " * _MARGIN + one for one in lines))
        )


def _of_setting(name: str, setting: Setting) -> Option:
    return Option(name, setting.metavar, setting.doc, setting.default, setting.repeatable)


def _all_options() -> Mapping[str, Option]:
    options = {name: _of_setting(name, entry.setting) for name, entry in BY_OPTION.items()}
    options["config"] = Option(
        "config", "FILE", "TOML file with the same settings and more; an option wins over it"
    )
    return {name: options[name] for name in sorted(options, key=_place)}


def _place(name: str) -> int:
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)


OPTIONS: Mapping[str, Option] = _all_options()
"""Every option by name, in the order of ``--help``."""


class Options(usage.Options):
    """Reads and checks the command line of ``twistd mta``.

    Attributes:
        given: the values as they were typed, by option, in their order.
        config: the settings of the options and the file, after `parseOptions`.
        log: the log that twistd's options name, not opened; None where twistd writes it.
    """

    config: Config
    log: Log | None = None
    _known: tuple[bytes | None, Config] | None = None

    def __init__(self) -> None:
        self.given: dict[str, list[str]] = {}
        super().__init__()  # type: ignore[no-untyped-call]

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Read the command line, then check it together with the file.

        Raises:
            SystemExit: an option or a setting cannot be used, where ``twistd`` reads the command
                line: for a `usage.UsageError` it would print the help, 60 lines, before the error,
                and exit with status 0.
            usage.UsageError: the same, for other callers.
        """
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except usage.UsageError as error:
            name = getattr(error.__context__, "opt", None)  # of getopt's own error
            close = difflib.get_close_matches(name, OPTIONS, 1) if name else []
            if close and name not in OPTIONS:
                error = usage.UsageError(f"{error}; did you mean --{close[0]}?")
            if isinstance(self.parent, ServerOptions):
                lines = (f"twistd mta: {line}" for line in str(error).splitlines())
                raise SystemExit("\n".join(lines)) from None
            raise error from None

    def parseArgs(self, *arguments: str) -> None:
        """Refuse arguments that belong to no option."""
        if arguments:
            raise usage.UsageError(f"{printable(arguments[0])}: belongs to no option")

    def opt_version(self) -> None:
        """Show the version and end."""
        print(f"twisted-mta {__version__}")
        raise SystemExit(0)

    def getUsage(self, width: int | None = None) -> str:
        """Return the text of ``--help``."""
        columns = max(width or int(os.environ.get("COLUMNS", "") or "80"), 40)
        return "\n".join(
            (
                "Options, with their [defaults]; every one may stand in the file instead:",
                *(option.help(columns) for option in OPTIONS.values()),
                "  --version\n      show the version and end",
                "  --help\n      show this and end",
                "",
                *textwrap.wrap(_ENDPOINTS, columns),
                "",
            )
        )

    def postOptions(self) -> None:
        """Check everything before the start.

        Raises:
            usage.UsageError: settings cannot be used: a line for each, with where it stands, what
                was found, and what was expected.
        """
        self._directory = os.getcwd()
        try:
            self.config = self._read()
        except ConfigError as error:
            raise usage.UsageError("\n".join(self._errors() or [str(error)])) from None
        self.log = None if self.parent is None else _log(self.parent, self.config.log)

    def _errors(self) -> list[str]:
        """Return all errors of the options and the file, as ``twisted-mta check`` finds them."""
        options = dict(self.given)
        file = options.pop("config", [None])[-1]
        _, errors = load_leniently(options, file)
        return list(dict.fromkeys(str(each) for each in errors))

    def reread(self) -> Config:
        """Return the settings of the options and of the file as it is now. Blocks.

        Raises:
            ConfigError: a setting cannot be used: where it stands, what was found, what was
                expected.
        """
        # Paths are relative to where twistd was started; it may have changed directory since.
        here = os.getcwd()
        os.chdir(self._directory)
        try:
            return self._read()
        finally:
            os.chdir(here)

    def _read(self) -> Config:
        options = dict(self.given)
        file = options.pop("config", [None])[-1]
        content = _content(file)
        if self._known is not None and content is not None and content == self._known[0]:
            return self._known[1]  # a file of 10,000 routes takes 0.2 s
        config = load(options, file)
        for pattern, url in config.routes:
            try:
                parse_route(pattern, url)
            except ValueError as error:
                # Routes on the command line replace all of the file's.
                typed = "route" in options
                where = "--route" if typed else f"{printable(str(file))}: [mta] routes:"
                raise ConfigError(
                    f"{where} {printable(pattern)}={printable(url)}: {error}"
                ) from None
        self._known = content, config
        return config


def _content(file: str | None) -> bytes | None:
    """Return the octets of a file; None where it cannot be read: `config.load` raises the error."""
    if file is None:
        return b""
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except (OSError, ValueError):
        return None


def _log(twistd: Mapping[str, Any], settings: LogSettings) -> Log | None:
    """Return the log that the options of ``twistd`` name; None where twistd writes it."""
    if twistd.get("logger") or twistd.get("syslog"):
        return None
    file = twistd.get("logfile")
    foreground = twistd.get("nodaemon") or twistd.get("debug")
    if file == "-" and not foreground:
        return None  # twistd refuses this
    if file == "-" or (foreground and not file):
        # Without standard output, its descriptor may be another file's by now.
        path = None if sys.__stdout__ else os.devnull
    else:
        # twistd changes directory before the file is opened for the second time.
        path = os.path.abspath(file or "twistd.log")
    return Log(settings.format, path=path)


def _method(option: Option) -> Callable[..., None]:
    def add(self: Options, value: str) -> None:
        self.given.setdefault(option.name, []).append(value)

    def turn_on(self: Options) -> None:
        self.given[option.name] = ["true"]

    method = add if option.metavar else turn_on
    method.__doc__ = option.doc
    return method


# usage.Options finds options by the names of methods.
for _option in OPTIONS.values():
    setattr(Options, f"opt_{_option.name.replace('-', '_')}", _method(_option))
