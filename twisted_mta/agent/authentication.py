"""Who may authenticate, where, and as whom they may send: accounts and checkers, joined."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any

from attrs import define, field, frozen
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.portal import Portal

from ..auth.accounts import Accounts, Senders, parsing_accounts, read_content
from ..auth.authenticator import AccountRealm, Authenticator
from ..auth.checker import UsersChecker
from ..auth.sliding_window import Recent
from ..auth.throttle import Throttle, ThrottleSettings
from ..config import Config, Listener
from ..interfaces import Clock, Executor, Files, Limits
from ..mail.address import Mailbox
from ..mail.printable import printable
from ..policy.submission import Submission, SubmissionPolicy
from ..smtp.sasl.exchange import Nonce
from ..smtp.server.settings import AuthSettings
from ..system.kept_secret import srs_key
from ..system.slices import Digests, Pace, Reading, Table, Work
from ..telemetry.metrics import Metrics, table

_FEW = 10  # names of accounts in a line about a change
_MANY = 128  # accounts that are compared between two chances for others to have their turn
_HOUR = 3600.0  # seconds
_MOST_SENT = 1_000_000  # recipients of an hour that one process remembers, some 100 octets each


@frozen
class _InForce:
    """What was read of the settings.

    Attributes:
        senders: who may send as whom.
        authenticator: judges AUTH, on all listeners that have it; None where none has.
    """

    senders: Senders
    authenticator: Authenticator | None = None


@define(eq=False)
class PreparedAuthentication:
    """What the files of other settings held.

    Attributes:
        config: the settings.
        accounts: what was read of them.
        checker: of those that are not in our file.
        key: the secret of salts.
        in_force: what comes of it, once it is complete.
        changes: lines that say what has changed, likewise.
    """

    config: Config
    accounts: Reading[Accounts]
    checker: ICredentialsChecker | None
    key: bytes = field(repr=False)
    in_force: _InForce | None = None
    changes: list[str] = field(factory=list)


class Authentication:
    """What AUTH comes to in one process.

    Args:
        config: files are read by `prepare` alone.
        limits: counts failures and what was sent.
        executor: where passwords are hashed.
        files: where the secret of salts is.
        secret: makes so many octets that nobody can guess.
        nonce: makes what is used once.
        clock: for periods and delays.
        metrics: counts verdicts.

    Attributes:
        submission: decides on the mail of those who have authenticated.
    """

    def __init__(
        self,
        config: Config,
        *,
        limits: Limits,
        executor: Executor,
        files: Files,
        secret: Callable[[int], bytes],
        nonce: Nonce,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._executor = executor
        self._files = files
        self._secret = secret
        self._nonce = nonce
        self._key: bytes | None = None
        self._clock = clock
        self._metrics = metrics
        self._accounts = Table(Accounts, read_content, _parsing)
        self._in_force = _InForce(Senders(Accounts(), config.local_domains))
        self._began = False
        self._throttle = Throttle(_throttle(config), limits=limits, clock=clock, timed=True)
        self._sent = Recent(limits=limits, clock=clock, period=_HOUR, most=_MOST_SENT, timed=True)
        self.submission = Submission(
            may_send_as=lambda name, mailbox: self._in_force.senders.may_send_as(name, mailbox),
            address_of=lambda name: self._in_force.senders.address_of(name),
            sent=self._sent,
        )

    async def prepare(self, config: Config, pace: Pace, checked: Digests) -> PreparedAuthentication:
        """Read the files that other settings name, without any effect yet.

        Args:
            config: the settings.
            pace: how.
            checked: see `Table.read`.

        Raises:
            AccountsError: the file of accounts cannot be used.
            ConfigError: the checker cannot be made.
            OSError: the secret of salts can be neither read nor made.
            ValueError: there is something else in its place.
        """
        accounts = await self._accounts.read(config.users, None, pace, checked)
        checker = None if config.auth is None else config.auth.make()
        if checker is not None or config.users is not None:
            self._key = srs_key(
                os.path.join(config.state_dir, "auth.key"),
                files=self._files,
                secret=self._secret,
                lost="whoever has asked for salts before can tell who has an account",
                known=self._key,
            )
        return PreparedAuthentication(config, accounts, checker, self._key or b"")

    async def complete(self, prepared: PreparedAuthentication, pace: Pace) -> None:
        """Parse what was not yet, and find out what has changed."""
        config = prepared.config
        before = self._in_force.senders
        accounts = await self._accounts.complete(prepared.accounts, pace)
        if accounts is before.accounts and config.local_domains == before.local_domains:
            senders = before
        else:
            senders = await pace.work(Senders.making(accounts, config.local_domains))
        if self._began and config.users is not None:
            prepared.changes = await pace.work(_comparing(before.accounts, accounts, config.users))
        checkers: list[ICredentialsChecker] = []
        if prepared.checker is not None:
            checkers.append(prepared.checker)
        if config.users is not None:
            checkers.append(UsersChecker(accounts, self._executor))
        prepared.in_force = _InForce(
            senders, self._authenticator(checkers, prepared.key) if checkers else None
        )

    def use(self, prepared: PreparedAuthentication) -> list[str]:
        """Put in force what is complete; return lines that say what has changed, printable.

        It cannot fail.
        """
        assert prepared.in_force is not None
        self._accounts.use(prepared.accounts)
        self._in_force = prepared.in_force
        self._began = True
        self._throttle.update(_throttle(prepared.config))
        return prepared.changes

    @property
    def authenticator(self) -> Authenticator | None:
        """Who judges AUTH; None where there is nothing to judge by."""
        return self._in_force.authenticator

    def settings(self, listener: Listener) -> AuthSettings | None:
        """Return what a listener offers; None where it offers nothing."""
        if listener.auth == "off":
            return None
        more: dict[str, Any] = {
            "in_clear": listener.auth == "any",
            "nonce": self._nonce,
            "required": listener.is_submission,
            "max_failures": listener.max_auth_failures,
        }
        found = None if self.authenticator is None else self.authenticator.settings(**more)
        if found is None and listener.is_submission:
            # Nobody has an account, or no way to prove it: AUTH is asked for all the same, and
            # nobody comes in.
            return AuthSettings(mechanisms={}, **more)
        return found

    def is_mailbox(self, mailbox: Mailbox) -> bool:
        """Whether an address is that of an account."""
        return self._in_force.senders.is_mailbox(mailbox)

    def close(self) -> None:
        """Stop: no timer is left."""
        self._throttle.close()
        self._sent.close()

    def _authenticator(self, checkers: list[ICredentialsChecker], key: bytes) -> Authenticator:
        # What several can check, the last one does: the accounts of the file.
        portal = Portal(AccountRealm())
        for checker in checkers:
            portal.registerChecker(checker)
        return Authenticator(
            portal=portal,
            throttle=self._throttle,
            clock=self._clock,
            secret=key,
            count=partial(self._metrics.count, table.AUTHENTICATIONS),
        )


def submission_policy(listener: Listener) -> SubmissionPolicy:
    """Return what a listener asks of those who have authenticated."""
    return SubmissionPolicy(
        own_addresses=listener.own_addresses,
        completes=listener.is_submission,
        adds_sender=listener.add_sender,
        recipients_per_hour=listener.recipients_per_hour,
        messages_per_hour=listener.messages_per_hour,
    )


def _parsing(content: bytes, path: str, settings: None) -> Work[Accounts]:
    return parsing_accounts(content, path)


def _comparing(before: Accounts, after: Accounts, path: str) -> Work[list[str]]:
    """Return lines that say which accounts have changed."""
    if before is after:
        return []
    changed = []
    for number, name in enumerate(chain(before.by_name, after.by_name)):
        if number % _MANY == 0:
            yield
        again = number >= len(before.by_name) and name in before.by_name
        if not again and not before.by_name.same(after.by_name, name):
            changed.append(name)
    if not changed:
        return []
    shown = ", ".join(map(printable, changed[:_FEW]))
    more = f" and {len(changed) - _FEW} more" if len(changed) > _FEW else ""
    return [f"{printable(path)}: {len(after.by_name)} accounts, changed: {shown}{more}"]


def _throttle(config: Config) -> ThrottleSettings:
    return ThrottleSettings(
        per_account=config.auth_failures_per_account,
        per_address=config.auth_failures_per_address,
        period=config.auth_failure_period,
        delay=config.auth_failure_delay,
    )
