"""Folders in the directory of Maildirs that no mail ever finds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice

from ...config import Config
from ...delivery.mailbox_directory import NoMailbox, mailbox_directory
from ...mail.address import AddressError, Mailbox, domain_name
from ...mail.counted import counted
from ...mail.printable import printable
from .finding import Finding

_MOST_NAMED = 20  # folders
_MOST_READ = 10_000  # entries of one directory
_MAILDIR = ("cur", "new", "tmp")


def unused_folders(config: Config) -> Iterator[Finding]:
    """Yield the folders that are named otherwise than any mailbox. Blocks."""
    findings = _unused(config)
    yield from islice(findings, _MOST_NAMED)
    more = sum(1 for _ in findings)
    if more:
        yield Finding(
            "warning",
            printable(config.maildir),
            f"{counted(more, 'more folder is', 'more folders are')} never found by mail",
        )


def _unused(config: Config) -> Iterator[Finding]:
    names = _folders(config.maildir)
    if set(_MAILDIR).issubset(names):
        yield _never_found(
            config.maildir,
            "a Maildir, and expected to contain one for each mailbox",
            f"move its content to {os.path.join(config.maildir, config.local_domains[0], 'NAME')}",
        )
        return
    for name in names:
        domain = _domain(name)
        path = os.path.join(config.maildir, name)
        if name in config.local_domains:
            yield from _unused_in(path, name)
        elif domain in config.local_domains:
            do = f"rename it to {os.path.join(config.maildir, domain)}"
            yield _never_found(path, f"the domain is spelled {domain}", do)
        elif _is_mailbox(path):
            yield from _misplaced(config, path, name)


def _misplaced(config: Config, path: str, name: str) -> Iterator[Finding]:
    """Yield a Maildir beside the folders of domains, where one of a mailbox was meant."""
    local_part, _, domain = name.rpartition("@")
    domain = _domain(domain) if local_part else config.local_domains[0]
    meant = os.path.join(config.maildir, domain, local_part.lower() or name.lower())
    yield _never_found(path, "a mailbox is in the folder of its domain", f"move it to {meant}")


def _unused_in(path: str, domain: str) -> Iterator[Finding]:
    """Yield the folders of one domain that no local part leads to."""
    for name in _folders(path):
        place = os.path.join(path, name)
        address, _, of_domain = name.rpartition("@")
        local_part = address if address and _domain(of_domain) == domain else name
        try:
            expected = mailbox_directory(Mailbox(local_part, domain))[1]
        except NoMailbox:
            if _is_mailbox(place):
                yield _never_found(place, "no address has a mailbox of that name", "rename it")
            continue
        if expected != name:
            what = (
                f"mail for {name} goes to {os.path.join(path, expected)}"
                if local_part == name
                else "a folder has the name of a local part, without the domain"
            )
            yield _never_found(place, what, f"rename it to {os.path.join(path, expected)}")


def _domain(name: str) -> str:
    """Return the canonical form of a domain; the name itself if it is none."""
    try:
        return domain_name(name)
    except AddressError:
        return name


def _is_mailbox(path: str) -> bool:
    return any(os.path.isdir(os.path.join(path, name)) for name in _MAILDIR)


def _folders(path: str) -> Sequence[str]:
    """Return the names of folders, sorted; of many, the first that the system names."""
    try:
        with os.scandir(path) as entries:
            some = islice(entries, _MOST_READ)
            return sorted(entry.name for entry in some if entry.is_dir())
    except OSError:
        return ()  # reported elsewhere


def _never_found(path: str, why: str, do: str) -> Finding:
    what = f"mail never finds this folder: {printable(why)}"
    return Finding("warning", printable(path), what, printable(do))
