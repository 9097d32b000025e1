"""Members of aliases that receive nothing: no such mailbox, or a route that refuses them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

from ...agent.mailboxes import Mailboxes
from ...auth.account_addresses import AccountAddresses
from ...auth.accounts import Accounts, AccountsError
from ...auth.accounts_file import read_accounts
from ...config import Config
from ...delivery.mailbox_directory import NoMailbox, mailbox_directory
from ...mail.address import Mailbox
from ...mail.counted import counted
from ...mail.printable import printable
from ...routing.aliases import Aliases
from ...system.files import DiskFiles
from ...system.real_world import secret_octets, wall_time
from .finding import Finding

_MOST_NAMED = 20  # members


def missing_members(config: Config, aliases: Aliases) -> Iterator[Finding]:
    """Yield the members of aliases that receive nothing. Blocks."""
    senders = _senders(config)
    if senders is None or not _is_readable(config.maildir):
        return  # reported elsewhere; all members would seem to have no mailbox

    def in_maildir(mailbox: Mailbox) -> bool:
        try:
            return os.path.isdir(os.path.join(config.maildir, *mailbox_directory(mailbox)))
        except NoMailbox:
            return False

    try:
        mailboxes = Mailboxes(
            config,
            in_maildir=in_maildir,
            has_account=senders.is_mailbox,
            files=DiskFiles(),
            secret=secret_octets,
            wall_time=wall_time,
            seconds=wall_time,
        )
    except ValueError:
        return  # an invalid route, reported elsewhere
    missing = mailboxes.missing_members(aliases)
    for alias, member, reply in islice(missing, _MOST_NAMED):
        where = f"{printable(aliases.name)}:{alias.line}"
        shown = f"<{printable(str(member))}>"
        what = f"{printable(alias.key)} leads to {shown}, which receives nothing: {reply}"
        yield Finding("warning", where, what, "make the mailbox, or remove the member")
    more = sum(1 for _ in missing)
    if more:
        yield Finding(
            "warning",
            printable(aliases.name),
            counted(
                more, "more member receives nothing", "more members of aliases receive nothing"
            ),
        )


def _senders(config: Config) -> AccountAddresses | None:
    try:
        accounts = Accounts() if config.users is None else read_accounts(config.users)
    except AccountsError:
        return None
    return AccountAddresses(accounts, config.local_domains)


def _is_readable(directory: str) -> bool:
    return not os.path.lexists(directory) or os.access(directory, os.R_OK | os.X_OK)
