"""The checker of our own accounts, for Twisted's cred.

An unknown name and a wrong password take the same work, and get the same answer.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from zope.interface import implementer

from ..interfaces import Executor
from ..smtp.sasl.evidence import ScramSalt
from .account_addresses import AccountAddresses
from .accounts import Accounts, ScramVerifier, verify
from .credentials import IScramProof, IScramSalts, IVerifiedCertificate

_NO_VERIFIER = ScramVerifier(0, b"", b"\0" * 32, b"\0" * 32)  # no password matches it


def credentials_of(accounts: Accounts) -> tuple[Any, ...]:
    """Return the interfaces of the credentials that accounts can be checked with."""
    certificates = (IVerifiedCertificate,) if accounts.any_certificate else ()
    return (IUsernamePassword, IScramProof, *certificates)


@implementer(ICredentialsChecker, IScramSalts)
@frozen
class AccountsChecker:
    """Checks credentials against the accounts of a file.

    Attributes:
        addresses: finds the account of a login.
        executor: where passwords are hashed, few at a time.
    """

    addresses: AccountAddresses
    executor: Executor

    @property
    def credentialInterfaces(self) -> tuple[Any, ...]:
        """The credentials that can be checked; certificates only if an account has one."""
        return credentials_of(self.addresses.accounts)

    def requestAvatarId(self, credentials: Any) -> Any:
        """Return the name of the account, or its Deferred.

        Raises:
            UnauthorizedLogin: the credentials are not those of an account.
        """
        if IScramProof.providedBy(credentials):
            return self._by_proof(credentials)
        if IVerifiedCertificate.providedBy(credentials):
            return self._by_certificate(credentials)
        return self._by_password(credentials)

    def scram_salt(self, username: str, algorithm: str) -> ScramSalt | None:
        """Return the salt of an account (`IScramSalts`)."""
        account = self.addresses.find(username)
        keys = None if account is None else account.scram.get(algorithm)
        return None if keys is None else ScramSalt(keys.salt, keys.iterations)

    def _by_password(self, credentials: Any) -> Deferred[str]:
        account = self.addresses.find(credentials.username.decode())
        argon2 = None if account is None else account.argon2

        def verified(matches: bool) -> str:
            if not matches or account is None:
                raise UnauthorizedLogin
            return account.name

        return self.executor(verify, argon2, credentials.password.decode()).addCallback(verified)

    def _by_proof(self, credentials: Any) -> str:
        account = self.addresses.find(credentials.username)
        keys = _NO_VERIFIER
        if account is not None:
            keys = account.scram.get(credentials.algorithm, _NO_VERIFIER)
        if not credentials.check(keys.stored_key, keys.server_key) or account is None:
            raise UnauthorizedLogin
        return account.name

    def _by_certificate(self, credentials: Any) -> str:
        account = self.addresses.accounts.with_certificate(credentials.fingerprint)
        named = self.addresses.find(credentials.username) if credentials.username else account
        if account is None or named != account:
            raise UnauthorizedLogin
        return account.name
