"""The addresses that exist in the domains that we relay to: a file with one in each line.

::

    # comment
    ann@backup.example
    @other.example        # every address of the domain

An address is found whatever the case of its local part, and without its tag where it has one, since
what a host accepts must not be refused here. The postmaster of each domain exists (RFC 5321
§4.5.1).
"""

from __future__ import annotations

from collections.abc import Sequence

from ..mail.address import AddressError, Mailbox, domain_name, folded, is_postmaster
from ..system.large_table import LargeTable
from ..system.line_file import found, parsing
from ..system.work import Work

_EXPECTED = "name@backup.example, or @backup.example for all of a domain"


class RelayRecipients:
    """The recipients that exist in relay domains.

    Args:
        known: folded local parts with their canonical domains, ``@domain`` for a whole domain;
            None: there is no list, and all exist.
    """

    def __init__(self, known: LargeTable[None] | None = None) -> None:
        self._known = known

    def __len__(self) -> int:
        return len(self._known or ())

    def has_any(self, domain: str) -> bool:
        """Whether an address of a canonical domain is known, besides its postmaster."""
        known = self._known
        return known is None or any(each.endswith(f"@{domain}") for each in known)

    def include(self, mailbox: Mailbox) -> bool:
        """Whether a mailbox of a relay domain exists."""
        if self._known is None or is_postmaster(mailbox):
            return True
        name, domain = folded(mailbox.local_part), f"@{mailbox.domain}"
        if name + domain in self._known or domain in self._known:
            return True
        plain = name.partition("+")[0]
        return bool(plain) and plain + domain in self._known

    def empty(self) -> Work[None]:
        """Free the memory of a list that is no longer used."""
        return (self._known or LargeTable[None]()).emptying()


def parse_in_slices(
    content: bytes, path: str, relay_domains: Sequence[str]
) -> Work[RelayRecipients]:
    """Return the recipients of a file.

    Args:
        content: UTF-8.
        path: of the file, for people.
        relay_domains: canonical.

    Raises:
        LineFileError: a line is wrong.
    """
    domains = dict.fromkeys(relay_domains)
    known: LargeTable[None] = LargeTable()

    def take(entry: str, line: int) -> None:
        try:
            if entry.startswith("@"):
                mailbox = Mailbox("", domain_name(entry[1:]))
            else:
                mailbox = Mailbox.parse(entry)
        except AddressError as error:
            raise ValueError(f"{found(entry)}: {error}; expected {_EXPECTED}") from None
        if mailbox.domain not in domains:
            raise ValueError(
                f"{found(entry)}: {mailbox.domain} is none of relay_domains; expected one of them"
            )
        known[f"{folded(mailbox.local_part)}@{mailbox.domain}"] = None

    yield from parsing(content, name=path, take=take)
    return RelayRecipients(known)
