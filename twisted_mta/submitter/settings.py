"""The settings of the program: where the MTA takes mail; lines ``name = value``."""

from __future__ import annotations

import os
import socket

FILE = "/etc/mta/sendmail.conf"
"""The file of settings; ``$TWISTED_MTA_SENDMAIL`` or ``-C`` names another one."""

_KEYS = ("socket", "directory", "state_dir", "domain", "max_message_size", "minimum_free_disk")


class SettingsError(Exception):
    """The file of settings cannot be used; the text says why."""


class Settings:
    """The settings, each of which may be missing.

    Attributes:
        socket: the UNIX socket for local submission.
        state_dir: of the MTA; its owner and root may use it.
        directory: where messages wait while the MTA does not answer.
        domain: of addresses without one.
        max_message_size: octets of a message.
        minimum_free_disk: octets that stay free where messages wait; 0: no limit.
    """

    def __init__(self, path: str = "") -> None:
        """Read the file, which may be missing where it is the usual one.

        Raises:
            SettingsError: it cannot be used.
        """
        named = path or os.environ.get("TWISTED_MTA_SENDMAIL", "")
        values = _read(named or FILE, needed=bool(named))
        self.socket = values.get("socket") or "/run/mta/submission.sock"
        state_dir = os.environ.get("STATE_DIRECTORY", "") or "/var/lib/mta"
        self.state_dir = values.get("state_dir") or state_dir
        self.directory = values.get("directory") or os.path.join(self.state_dir, "maildrop")
        self.domain = values.get("domain") or _mail_name()
        self.max_message_size = _number(values, "max_message_size", 50 << 20, least=1)
        self.minimum_free_disk = _number(values, "minimum_free_disk", 3 * self.max_message_size)


def _read(path: str, *, needed: bool) -> dict[str, str]:
    try:
        with open(path, "rb") as file:
            content = file.read(1 << 16)
    except OSError as error:
        if not needed and isinstance(error, FileNotFoundError | NotADirectoryError):
            return {}
        raise SettingsError(f"{path}: {error.strerror}") from None
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: found another encoding, expected UTF-8") from None
    values: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        name, equals, value = (each.strip() for each in line.partition("="))
        if not name or name.startswith("#"):
            continue
        if not equals or name not in _KEYS:
            raise SettingsError(
                f"{path}, line {number}: found {name!r}, expected NAME = VALUE with one of the"
                f" names {', '.join(_KEYS)}"
            )
        values[name] = value.strip('"')
    return values


def _number(values: dict[str, str], name: str, default: int, *, least: int = 0) -> int:
    text = values.get(name, str(default))
    if not (text.isascii() and text.isdecimal()) or not least <= int(text) < 1 << 42:
        raise SettingsError(f"{name}: found {text!r}, expected a number of octets")
    return int(text)


def _mail_name() -> str:
    """Return the domain of this machine's users: Debian's /etc/mailname, or the host name."""
    try:
        with open("/etc/mailname", encoding="ascii") as file:
            name = file.readline(256).strip()
    except (OSError, ValueError):
        name = socket.gethostname()
    return name if "." in name else "localhost"
