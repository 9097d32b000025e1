"""The options of ``twistd mta``, made from the settings: one list, one wording, one check."""

from __future__ import annotations

import difflib
import os
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen
from twisted.python import usage

from .._version import __version__
from ..config import Config, ConfigError, LogSettings, load
from ..config.catalog import BY_OPTION
from ..config.setting import Setting
from ..mail.printable import printable
from ..routing.routes import parse_route
from ..telemetry.log import Log

# The order in which people think of them: who we are, where we listen, whose mail, where to.
_ORDER = (
    *("config", "state-dir", "hostname"),
    *("smtp", "submission", "submissions", "lmtp", "web"),
    *("tls-certificate", "tls-key"),
    *("local-domain", "maildir", "recipients", "relay-from", "route"),
    *("users", "auth", "queue", "workers"),
)
_MARGIN = 6
_ENDPOINTS = (
    "ENDPOINT is a server endpoint string of Twisted, such as tcp:25,"
    " tcp:2525:interface=127.0.0.1 or unix:/run/mta.sock; off is none."
)


@frozen
class Option:
    """One option as people see it.

    Attributes:
        name: without dashes.
        metavar: what stands for its value.
        doc: one or more sentences' worth of text, without the default.
        default: in words, None where there is none to speak of.
        repeatable: whether every use adds to the ones before.
    """

    name: str
    metavar: str
    doc: str
    default: str | None = None
    repeatable: bool = False

    def help(self, width: int) -> str:
        """Return the lines of ``--help`` for it, at most ``width`` columns."""
        doc = self.doc + ("; repeatable" if self.repeatable else "")
        if self.default is not None:
            doc += f" [{self.default}]"
        lines = textwrap.wrap(doc, width - _MARGIN, break_on_hyphens=False)
        return "\n".join(
            (f"  --{self.name} {self.metavar}", *(" " * _MARGIN + one for one in lines))
        )


def _of_setting(name: str, setting: Setting) -> Option:
    return Option(name, setting.metavar, setting.doc, setting.default, setting.repeatable)


def _all_options() -> Mapping[str, Option]:
    found = {name: _of_setting(name, entry.setting) for name, entry in BY_OPTION.items()}
    found["config"] = Option(
        "config", "FILE", "TOML file with the same settings and more; an option wins over it"
    )
    return {name: found[name] for name in sorted(found, key=_place)}


def _place(name: str) -> int:
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)


OPTIONS: Mapping[str, Option] = _all_options()
"""Every option by name, in the order of ``--help``."""


class Options(usage.Options):
    """Reads and checks the command line of ``twistd mta``.

    Attributes:
        given: the values as they were typed, by option, in their order.
        config: the settings that they and the file give, after `parseOptions`.
        log: where twistd's options say that the log goes, not opened; None where it is not ours to
            write.
    """

    config: Config
    log: Log | None = None
    _known: tuple[bytes | None, Config] | None = None

    def __init__(self) -> None:
        self.given: dict[str, list[str]] = {}
        super().__init__()  # type: ignore[no-untyped-call]

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Read the words of the command line, then check what they and the file say together.

        Raises:
            usage.UsageError: they cannot be understood, or not be followed.
        """
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except usage.UsageError as error:
            name = getattr(error.__context__, "opt", None)  # of getopt's own error
            close = difflib.get_close_matches(name, OPTIONS, 1) if name else []
            if not close or name in OPTIONS:
                raise
            raise usage.UsageError(f"{error}; did you mean --{close[0]}?") from None

    def parseArgs(self, *arguments: str) -> None:
        """Refuse words that belong to no option."""
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
        """Check everything, before anything starts.

        Raises:
            usage.UsageError: something cannot be; it says where, what, and what would do.
        """
        self._directory = os.getcwd()
        try:
            self.config = self._read()
        except ConfigError as error:
            raise usage.UsageError(str(error)) from None
        self.log = None if self.parent is None else _log(self.parent, self.config.log)

    def reread(self) -> Config:
        """Return what the options, as they were given, and the file say now together. Blocks.

        Raises:
            ConfigError: something cannot be; it says where, what, and what would do.
        """
        # Paths are meant from where twistd was started, and it may have gone elsewhere since.
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
                # Routes that are typed stand for all of the file's.
                typed = "route" in options
                where = "--route" if typed else f"{printable(str(file))}: [mta] routes:"
                raise ConfigError(
                    f"{where} {printable(pattern)}={printable(url)}: {error}"
                ) from None
        self._known = content, config
        return config


def _content(file: str | None) -> bytes | None:
    """Return what a file holds; None where it cannot be read, which `config.load` will say."""
    if file is None:
        return b""
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except (OSError, ValueError):
        return None


def _log(twistd: Mapping[str, Any], settings: LogSettings) -> Log | None:
    """Return the log that ``twistd`` would write to, with its options as they were typed."""
    if twistd.get("logger") or twistd.get("syslog"):
        return None
    file = twistd.get("logfile")
    foreground = twistd.get("nodaemon") or twistd.get("debug")
    if file == "-" and not foreground:
        return None  # twistd says that this cannot be
    if file == "-" or (foreground and not file):
        # Without standard output, its number is some other file's by now.
        path = None if sys.__stdout__ else os.devnull
    else:
        # twistd goes to another directory before the file is opened for the second time.
        path = os.path.abspath(file or "twistd.log")
    return Log(settings.format, path=path)


def _method(option: Option) -> Callable[[Options, str], None]:
    def add(self: Options, value: str) -> None:
        self.given.setdefault(option.name, []).append(value)

    add.__doc__ = option.doc
    return add


# usage.Options finds options by the names of methods.
for _option in OPTIONS.values():
    setattr(Options, f"opt_{_option.name.replace('-', '_')}", _method(_option))
