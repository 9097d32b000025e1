"""The addresses of accounts: those that each may send as, and the mailboxes that exist for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen

from ..mail.address import AddressError, Mailbox, domain_name, folded
from ..system.work import Work, finished
from .accounts import Account, Accounts, AccountsError, account_key, sender_address

_PER_SLICE = 8  # accounts read before other work may have its turn


@frozen
class AccountAddresses:
    """The addresses of each account: those of its name, and those that it was given.

    A name without a domain stands for that mailbox in every local domain. A sub-address
    (``ann+news``) belongs to its mailbox. Local parts are compared as `folded`.

    Attributes:
        accounts: a name that is not among them, but of a checker, has the addresses of its name.
        local_domains: canonical.
    """

    accounts: Accounts
    local_domains: tuple[str, ...]
    _mailboxes: Mapping[str, None] = field(alias="mailboxes")

    @_mailboxes.default
    def _default_mailboxes(self) -> Mapping[str, None]:
        return finished(self._find_mailboxes())

    @classmethod
    def in_slices(
        cls, accounts: Accounts, local_domains: tuple[str, ...]
    ) -> Work[AccountAddresses]:
        """Return the same as the constructor, in slices of work."""
        # `_find_mailboxes` reads no mailboxes, so an object without any can make them.
        mailboxes = yield from cls(accounts, local_domains, {})._find_mailboxes()
        return cls(accounts, local_domains, mailboxes)

    def _find_mailboxes(self) -> Work[dict[str, None]]:
        mailboxes: dict[str, None] = {}
        for number, account in enumerate(self.accounts.by_name.values()):
            if number % _PER_SLICE == 0:
                yield
            mailboxes.update(dict.fromkeys(self._addresses(account.name)))
        return mailboxes

    def find(self, login: str) -> Account | None:
        """Return the account that a login names; None if there is none."""
        return self.accounts.get(self.name_of(login))

    def name_of(self, login: str) -> str:
        """Return the name of the account that a login means, in any case, existing or not.

        Mail clients log in with a mail address: with a local domain, it means the account of its
        local part, unless there is an account of the whole name.
        """
        if account_key(login) in self.accounts.by_name:
            return login
        local_part, _, domain = login.rpartition("@")
        try:
            is_local = bool(local_part) and domain_name(domain) in self.local_domains
        except AddressError:
            is_local = False
        return local_part if is_local else login

    def may_act_as(self, name: str, authzid: str) -> bool:
        """Whether an authorization identity is the account of that name, or an address of it."""
        if account_key(self.name_of(authzid)) == account_key(name):
            return True
        try:
            address = sender_address(authzid)
        except AccountsError:
            return False
        return address[0] not in "*@" and address in self._addresses(name)

    def may_send_as(self, name: str, mailbox: Mailbox) -> bool:
        """Whether the account of that name may send as ``mailbox``."""
        local_part, domain = folded(mailbox.local_part), mailbox.domain
        # With its sub-address, too: an account may have that one alone of a mailbox.
        matches = ("*", f"@{domain}", f"{_plain(local_part)}@{domain}", f"{local_part}@{domain}")
        return any(each in matches for each in self._addresses(name))

    def address_of(self, name: str) -> Mailbox | None:
        """Return the first address of an account, for a Sender field; None if it has none."""
        for each in self._addresses(name):
            if each != "*" and each[0] != "@":
                return Mailbox.parse(each)
        return None

    def is_mailbox(self, mailbox: Mailbox) -> bool:
        """Whether mail for ``mailbox`` is mail for an account."""
        return f"{_plain(mailbox.local_part)}@{mailbox.domain}" in self._mailboxes

    def _addresses(self, name: str) -> Sequence[str]:
        account = self.find(name)
        if account is not None:
            name = account.name
        own: list[str] = []
        try:
            if "@" in name:
                own.append(sender_address(name))
            else:
                own += [sender_address(f"{name}@{domain}") for domain in self.local_domains]
        except AccountsError:
            pass  # a name that is no local part stands for no mailbox
        return own if account is None else (*own, *account.addresses)


def _plain(local_part: str) -> str:
    """Return a local part without its sub-address."""
    return folded(local_part).partition("+")[0]
