"""Directories and files: owners, modes, free disk space, aliases and lists."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from ...agent.maildrop_counts import NAME as MAILDROP
from ...agent.maildrop_counts import count_files
from ...config import Config
from ...config.amounts import size_text
from ...mail.counted import counted
from ...mail.printable import printable
from ...system.ownership import mailbox_fault, state_faults
from .finding import Finding
from .folders import unused_folders
from .machine import Machine
from .processes import Running, running

_FULL = {
    "[mta] maildir": "deliveries wait",
    "[mta] local_submission_directory": "programs of this machine cannot leave mail",
}
_GIVE = "give it to the user that runs the MTA"


def storage(config: Config, machine: Machine) -> Iterator[Finding]:
    """Yield findings about directories, accounts and aliases, and about running as root."""
    if machine.user() == 0:
        yield Finding(
            "warning",
            "user",
            "this runs as root, which may do more than the MTA's user",
            "check with --uid USER, and start with twistd --uid USER --gid GROUP",
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
    yield from unused_folders(config)
    yield from _local_submission(config, machine)
    page = config.web_page
    named = any((config.users, config.auth, page.users, page.tokens))
    if named or any(each.auth != "off" for each in config.listeners):
        from .accounts import accounts

        yield from accounts(config)
    if config.aliases is not None:
        from ...routing.alias_file import AliasError, read_aliases
        from .members import missing_members

        ours = (*config.local_domains, *config.virtual_domains)
        try:
            aliases = read_aliases(config.aliases, ours=ours)
        except AliasError as error:
            yield Finding.from_error("error", str(error))
        else:
            yield from missing_members(config, aliases)
    yield from _relay_recipients(config)
    yield from _access_lists(config)


def _local_submission(config: Config, machine: Machine) -> Iterator[Finding]:
    """Yield findings about mail that waits, as ``twisted-mta-sendmail`` has left it."""
    path = config.local_submission_directory
    where = "[mta] local_submission_directory"
    if path is None:
        path, where = os.path.join(config.state_dir, MAILDROP), "[mta] state_dir"
    try:
        counts = count_files(path)
    except (FileNotFoundError, NotADirectoryError):
        return  # the MTA makes it; what stands in the place of the state directory is told above
    except OSError as error:
        yield Finding("error", where, f"{printable(path)}: {error.strerror}", _GIVE)
        return
    if counts.waiting:
        yield Finding(
            "note",
            where,
            counted(
                counts.waiting,
                f"message of twisted-mta-sendmail waits in {printable(path)}",
                f"messages of twisted-mta-sendmail wait in {printable(path)}",
            )
            + ": the MTA takes mail in while it runs",
        )
    if counts.set_aside:
        yield Finding(
            "warning",
            where,
            counted(
                counts.set_aside,
                f"file in {printable(path)} was no message, and is set aside",
                f"files in {printable(path)} were no messages, and are set aside",
            )
            + " as refused-… for a week",
            "the log says why, and ls -l whose they are",
        )
    if config.local_submission_directory is not None:
        yield from _free(config, where, path, machine)


def _relay_recipients(config: Config) -> Iterator[Finding]:
    if config.relay_recipients is None:
        return
    from ...routing.relay_recipients import parse_in_slices
    from ...system.line_file import LineFileError, read_content
    from ...system.work import finished

    path = config.relay_recipients
    try:
        known = finished(parse_in_slices(read_content(path), path, config.relay_domains))
    except LineFileError as error:
        yield Finding.from_error("error", str(error))
        return
    for domain in config.relay_domains:
        if not known.has_any(domain):
            yield Finding(
                "warning",
                "[mta] relay_recipients",
                f"{printable(path)} has no address of {domain}: all mail for it but that of"
                " postmaster is refused (550)",
                f"add its addresses, or @{domain} for all",
            )


def _access_lists(config: Config) -> Iterator[Finding]:
    settings = config.policy
    paths = [path for path in (settings.allow, settings.deny) if path is not None]
    if not paths:
        return
    from ...policy.lists import access_list
    from ...system.line_file import LineFileError, read_content
    from ...system.work import finished

    for path in paths:
        try:
            entries = finished(access_list.parse_in_slices(read_content(path), path))
        except LineFileError as error:
            yield Finding.from_error("error", str(error))
            continue
        unproven = settings.spf == settings.dkim == "off"
        if path == settings.allow and unproven and entries.has("sender"):
            yield Finding(
                "warning",
                "[policy] allow",
                f"{printable(path)} has senders, which count only with SPF or DKIM: both are off",
                'expected spf = "check" or dkim = "check"',
            )


def occupation(config: Config) -> Iterator[Finding | Running]:
    """Yield the MTA that runs on the state directory, and a note about it."""
    try:
        mta = running(config.state_dir)
    except OSError as error:
        yield Finding(
            "note",
            "[mta] state_dir",
            f"whether an MTA runs on it is unknown: {printable(config.state_dir)}/lock:"
            f" {error.strerror}",
        )
        return
    if mta is not None:
        yield mta
        yield Finding(
            "note",
            "[mta] state_dir",
            f"an MTA runs on {printable(config.state_dir)} ({mta}): a second one would be refused;"
            " its ports count as free",
        )


def _directory(where: str, path: str, machine: Machine, *, private: bool) -> Iterator[Finding]:
    shown = printable(path)
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        above = existing(path)
        if not os.path.isdir(above):
            yield Finding("error", where, f"{printable(above)} is not a directory", "move it away")
        elif not os.access(above, os.W_OK | os.X_OK):
            yield Finding(
                "error",
                where,
                f"{shown} cannot be created: {printable(above)} is not writable",
                f"create it, and {_GIVE}",
            )
        if private:
            yield from _owners(where, path, machine.user())
        return
    except OSError as error:
        yield Finding("error", where, f"{shown}: {error.strerror}", _GIVE)
        return
    if private:
        # As root, check for the owner of the directory: a warning says that this is root.
        yield from _owners(where, path, machine.user() or status.st_uid)
    elif (fault := mailbox_fault(path, path, machine.user() or status.st_uid)) != "":
        yield Finding("error", where, f"{fault}: nothing is delivered there", "chmod o-w")
    if not stat.S_ISDIR(status.st_mode):
        yield Finding(
            "error", where, f"{shown} is not a directory", "move it away, or name another"
        )
    elif not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("error", where, f"{shown} is not writable", _GIVE)
    elif private and status.st_mode & 0o077:
        yield Finding(
            "warning",
            where,
            f"other users can read {shown} (mode {status.st_mode & 0o777:04o})",
            "chmod 0700",
        )


def _owners(where: str, path: str, user: int) -> Iterator[Finding]:
    """Yield owners and modes of the state directory that a start refuses."""
    try:
        for fault in state_faults(path, user):
            yield Finding("error", where, fault, f"chown and chmod it, or {_GIVE}")
    except OSError as error:
        yield Finding("error", where, f"{printable(path)}: {error.strerror}", _GIVE)


def existing(path: str) -> str:
    """Return ``path``, or the nearest path above it that exists."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def _free(config: Config, where: str, path: str, machine: Machine) -> Iterator[Finding]:
    try:
        free = machine.free(existing(path))
    except OSError as error:
        yield Finding("warning", where, f"the free disk space is unknown: {error.strerror}")
        return
    least = config.minimum_free_disk
    if free < least and where == "[mta] state_dir":
        yield Finding(
            "error",
            where,
            f"{_mebibytes(free)} are free for {printable(path)}; below minimum_free_disk"
            f" ({size_text(least)}) all mail is deferred (452)",
            "free disk space, or lower [mta] minimum_free_disk",
        )
    elif free < least:
        yield Finding(
            "warning",
            where,
            f"{_mebibytes(free)} are free for {printable(path)}: {_FULL[where]} when it is full",
            "free disk space",
        )


def _mebibytes(octets: int) -> str:
    return f"{octets / (1 << 20):.1f} MiB"
