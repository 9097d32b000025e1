"""Directories, files, free disk, and as whom they are looked at."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from ...auth.accounts import AccountsError
from ...auth.accounts_file import read_accounts
from ...config import Config, ConfigError
from ...config.amounts import size_text
from ...mail.printable import printable
from ...routing.alias_file import AliasError, read_aliases
from ...system.ownership import mailbox_fault, state_faults
from .finding import Finding
from .machine import Machine
from .members import missing_members
from .processes import Running, running

_WHO = "give it to the user who runs the MTA"


def storage(config: Config, machine: Machine) -> Iterator[Finding]:
    """Yield what is wrong with the places where mail is kept, and with who we are."""
    if machine.user() == 0:
        yield Finding(
            "warning",
            "user",
            "this is run as root, who may do what the MTA may not",
            "run it as the MTA's own user, and have root's privileges shed at the start by"
            " twistd --uid USER --gid GROUP",
        )
    for name, path, private in (
        ("[mta] state_dir", config.state_dir, True),
        ("[mta] maildir", config.maildir, False),
    ):
        good = True
        for finding in _directory(name, path, machine, private=private):
            good = good and finding.severity != "error"
            yield finding
        if good:
            yield from _free(config, name, path, machine)
    yield from _accounts(config)
    if config.aliases is not None:
        ours = (*config.local_domains, *config.virtual_domains)
        try:
            aliases = read_aliases(config.aliases, ours=ours)
        except AliasError as error:
            yield Finding.said("error", str(error))
        else:
            yield from missing_members(config, aliases)


def _accounts(config: Config) -> Iterator[Finding]:
    if config.users is not None:
        yield from readable("[mta] users", config.users, secret=True)
        try:
            accounts = read_accounts(config.users)
        except AccountsError as error:
            yield Finding.said("error", str(error))
        else:
            if not accounts.by_name:
                yield Finding(
                    "warning",
                    "[mta] users",
                    f"{printable(config.users)} has no account, so that nobody can authenticate",
                    "twisted-mta users add NAME",
                )
    if config.auth is not None:
        try:
            config.auth.make()
        except ConfigError as error:
            yield Finding.said("error", str(error))
    for listener in config.listeners:
        if listener.auth != "off" and config.users is None and config.auth is None:
            yield Finding(
                "warning",
                f"listener {printable(listener.endpoint)}",
                "nobody can authenticate here: there are no accounts",
                "--users FILE, or a checker by --auth",
            )


def occupation(config: Config) -> Iterator[Finding | Running]:
    """Yield who has the state directory now, if anybody."""
    try:
        found = running(config.state_dir)
    except OSError as error:
        yield Finding(
            "note",
            "[mta] state_dir",
            f"whether an MTA runs on it cannot be told: {printable(config.state_dir)}/lock:"
            f" {error.strerror}",
        )
        return
    if found is not None:
        yield found
        yield Finding(
            "note",
            "[mta] state_dir",
            f"an MTA runs on {printable(config.state_dir)} ({found}): a second one would be"
            " refused, and the ports that this one has are taken to be free",
        )


def _directory(where: str, path: str, machine: Machine, *, private: bool) -> Iterator[Finding]:
    shown = printable(path)
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        above = existing(path)
        if not os.path.isdir(above):
            yield Finding("error", where, f"{printable(above)} is no directory", "move it away")
        elif not os.access(above, os.W_OK | os.X_OK):
            yield Finding(
                "error",
                where,
                f"{shown} cannot be made, for {printable(above)} cannot be written",
                f"make it, and {_WHO}",
            )
        if private:
            yield from _owners(where, path, machine.user())
        return
    except OSError as error:
        yield Finding("error", where, f"{shown}: {error.strerror}", _WHO)
        return
    if private:
        # Root is asked to look at what is another user's: whose it is has been said.
        yield from _owners(where, path, machine.user() or found.st_uid)
    elif (fault := mailbox_fault(path, path, machine.user() or found.st_uid)) != "":
        yield Finding("error", where, f"{fault}: nothing is delivered there", "chmod o-w")
    if not stat.S_ISDIR(found.st_mode):
        yield Finding("error", where, f"{shown} is no directory", "move it away, or name another")
    elif not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("error", where, f"{shown} cannot be written", _WHO)
    elif private and found.st_mode & 0o077:
        yield Finding(
            "warning",
            where,
            f"others can look into {shown} (mode {found.st_mode & 0o777:04o})",
            "chmod 0700",
        )


def _owners(where: str, path: str, user: int) -> Iterator[Finding]:
    """Yield who else could have a hand in the state directory: a start would be refused."""
    try:
        for fault in state_faults(path, user):
            yield Finding("error", where, fault, f"chown and chmod it, or {_WHO}")
    except OSError as error:
        yield Finding("error", where, f"{printable(path)}: {error.strerror}", _WHO)


def existing(path: str) -> str:
    """Return the nearest thing above ``path``, or itself, that there is."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def _free(config: Config, where: str, path: str, machine: Machine) -> Iterator[Finding]:
    try:
        free = machine.free(existing(path))
    except OSError as error:
        yield Finding("warning", where, f"its free disk cannot be told: {error.strerror}")
        return
    least = config.minimum_free_disk
    if free < least and where == "[mta] state_dir":
        yield Finding(
            "error",
            where,
            f"{_mebibytes(free)} are free for {printable(path)}, and below minimum_free_disk"
            f" ({size_text(least)}) all mail is refused with 452",
            "make room, or lower [mta] minimum_free_disk",
        )
    elif free < least:
        yield Finding(
            "warning",
            where,
            f"{_mebibytes(free)} are free for {printable(path)}: deliveries wait once it is full",
            "make room",
        )


def _mebibytes(octets: int) -> str:
    return f"{octets / (1 << 20):.1f} MiB"


def readable(where: str, file: str, *, secret: bool = False) -> Iterator[Finding]:
    """Yield why a file cannot be read, or who else can read it though it is ``secret``."""
    shown = printable(file)
    try:
        with open(file, "rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            opened.read(1)
    except OSError as error:
        yield Finding(
            "error",
            where,
            f"{shown} cannot be read: {error.strerror}",
            "name a file that the user who runs the MTA can read",
        )
        return
    if secret and mode & 0o007:
        yield Finding(
            "warning",
            where,
            f"everybody can read the secrets in {shown} (mode {mode & 0o777:04o})",
            "chmod 0640, or 0600",
        )
