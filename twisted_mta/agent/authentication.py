"""AUTH in one process: accounts and checkers as configured, read again at each reload."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from attrs import define, field, frozen
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.portal import Portal

from ..auth.account_addresses import AccountAddresses
from ..auth.accounts import Accounts
from ..auth.accounts_file import parse_in_slices, read_content
from ..auth.authenticator import AccountRealm, Authenticator
from ..auth.checker import AccountsChecker
from ..auth.sliding_window import SlidingWindow
from ..auth.throttle import Throttle, ThrottleSettings
from ..config import Config, Listener
from ..interfaces import Clock, Executor, Files, Limits
from ..mail.address import Mailbox
from ..policy.sending_limits import HourlyLimits, SendingLimits
from ..policy.submission import Submission, SubmissionPolicy
from ..smtp.sasl.exchange import Nonce
from ..smtp.server.settings import AuthSettings
from ..system.file_table import Digests, FileReading, FileTable
from ..system.kept_secret import kept_secret
from ..system.slices import Pace
from ..system.work import Work
from ..telemetry.metrics import Metrics, table
from .file_changes import compared

_HOUR = 3600.0  # seconds
_MOST_SENT = 1_000_000  # recipients of an hour that one process remembers; some 100 octets each


@frozen
class _InForce:
    """The accounts and checkers in force.

    Attributes:
        addresses: of the accounts, and the accounts themselves.
        authenticator: judges AUTH on all listeners; None where there is neither file nor checker.
    """

    addresses: AccountAddresses
    authenticator: Authenticator | None = None


@define(eq=False)
class PreparedAuthentication:
    """The accounts and checkers of another configuration, before they are in force.

    Attributes:
        config: the configuration.
        accounts: the file of accounts, as far as it is read.
        checker: the configured checker of other accounts; None without one.
        key: the secret from which the salts of unknown names are derived.
        in_force: None until `Authentication.complete`.
        changes: lines for the log about changed accounts; empty until then.
    """

    config: Config
    accounts: FileReading[Accounts]
    checker: ICredentialsChecker | None
    key: bytes = field(repr=False)
    in_force: _InForce | None = None
    changes: list[str] = field(factory=list)


class Authentication:
    """Answers all questions about AUTH in one process: offers, verdicts, addresses of accounts.

    Args:
        config: its files are read by `prepare`.
        limits: counts failures and submitted mail over all workers.
        executor: where passwords are hashed.
        files: where the secret of salts is kept.
        secret: returns that many random octets.
        nonce: makes nonces.
        clock: for periods and delays.
        metrics: counts verdicts.
        checkers: of the application; asked in place of those of the settings that take the same
            credentials.

    Attributes:
        submission: decides on the mail of authenticated clients.
        sending_limits: of accounts.
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
        checkers: Sequence[ICredentialsChecker] = (),
    ) -> None:
        self._own_checkers = checkers
        self._executor = executor
        self._files = files
        self._secret = secret
        self._nonce = nonce
        self._key: bytes | None = None
        self._clock = clock
        self._metrics = metrics
        self._accounts = FileTable(Accounts, read_content, _parse)
        self._in_force = _InForce(AccountAddresses(Accounts(), config.local_domains))
        self._began = False
        self._throttle = Throttle(_throttle(config), limits=limits, clock=clock, timed=True)
        self._sent = SlidingWindow(
            limits=limits, clock=clock, period=_HOUR, most=_MOST_SENT, timed=True
        )
        self.submission = Submission(
            may_send_as=lambda name, mailbox: self._in_force.addresses.may_send_as(name, mailbox),
            address_of=lambda name: self._in_force.addresses.address_of(name),
        )
        self.sending_limits = SendingLimits(
            self._sent, clock=clock, count=partial(metrics.count, table.ACCOUNT_LIMITS)
        )

    def table_sizes(self) -> Iterator[tuple[str, int, int]]:
        """Yield the name of each table of bounded size, its entries, and how many it can have."""
        yield "failed logins", *self._throttle.size
        yield "recipients of users in the last hour", *self._sent.size

    async def prepare(self, config: Config, pace: Pace, checked: Digests) -> PreparedAuthentication:
        """Read the files of another configuration, without putting it in force.

        Args:
            config: the configuration.
            pace: reads and parses, at once or in slices.
            checked: the files that another process has read and parsed already (`Table.read`).

        Raises:
            AccountsError: the file of accounts cannot be used.
            ConfigError: the checker cannot be made.
            OSError: the secret of salts can neither be read nor made.
            ValueError: the file of the secret holds none.
        """
        accounts = await self._accounts.read(config.users, None, pace, checked)
        checker = None if config.auth is None else config.auth.make()
        if checker is not None or config.users is not None or self._own_checkers:
            self._key = kept_secret(
                os.path.join(config.state_dir, "auth.key"),
                files=self._files,
                secret=self._secret,
                lost="clients that asked for salts before can tell which names have an account",
                known=self._key,
            )
        return PreparedAuthentication(config, accounts, checker, self._key or b"")

    async def complete(self, prepared: PreparedAuthentication, pace: Pace) -> None:
        """Parse what is not parsed yet, and compare it with the accounts in force."""
        config = prepared.config
        before = self._in_force.addresses
        accounts = await self._accounts.complete(prepared.accounts, pace)
        if accounts is before.accounts and config.local_domains == before.local_domains:
            addresses = before
        else:
            addresses = await pace.work(AccountAddresses.in_slices(accounts, config.local_domains))
        if self._began and config.users is not None and accounts is not before.accounts:
            prepared.changes = await pace.work(
                compared(
                    before.accounts.by_name, accounts.by_name, config.users, ("account", "accounts")
                )
            )
        checkers: list[ICredentialsChecker] = []
        if prepared.checker is not None:
            checkers.append(prepared.checker)
        if config.users is not None:
            checkers.append(AccountsChecker(addresses, self._executor))
        checkers.extend(self._own_checkers)
        prepared.in_force = _InForce(
            addresses, self._authenticator(checkers, prepared.key, addresses) if checkers else None
        )

    def use(self, prepared: PreparedAuthentication) -> list[str]:
        """Put a complete configuration in force; return printable lines about changed accounts.

        It cannot fail.
        """
        assert prepared.in_force is not None
        self._accounts.use(prepared.accounts)
        self._in_force = prepared.in_force
        self._began = True
        self._throttle.update(_throttle(prepared.config))
        self._use_limits(prepared.config)
        return prepared.changes

    def _use_limits(self, config: Config) -> None:
        general = config.account_limits
        self.sending_limits.use(
            HourlyLimits(general.messages_per_hour, general.recipients_per_hour),
            {
                each.account.lower(): HourlyLimits(each.messages_per_hour, each.recipients_per_hour)
                for each in config.limits_of_accounts
            },
        )

    @property
    def authenticator(self) -> Authenticator | None:
        """The authenticator of all listeners; None where there is neither file nor checker."""
        return self._in_force.authenticator

    def settings(self, listener: Listener) -> AuthSettings | None:
        """Return the AUTH settings of a listener; None where it does not offer AUTH."""
        usable = {} if self.authenticator is None else self.authenticator.mechanisms
        chosen = listener.auth_mechanisms or usable
        mechanisms = {name: usable[name] for name in chosen if name in usable}
        # On submission AUTH is required even where no mechanism can be used: no client can send.
        if listener.auth == "off" or not (mechanisms or listener.is_submission):
            return None
        return AuthSettings(
            mechanisms=mechanisms,
            nonce=self._nonce,
            in_clear=listener.auth == "any",
            required=listener.is_submission,
            max_failures=listener.max_auth_failures,
        )

    def is_mailbox(self, mailbox: Mailbox) -> bool:
        """Whether mail for ``mailbox`` is mail for an account."""
        return self._in_force.addresses.is_mailbox(mailbox)

    def close(self) -> None:
        """Stop all timers."""
        self._throttle.close()
        self._sent.close()

    def _authenticator(
        self, checkers: list[ICredentialsChecker], key: bytes, addresses: AccountAddresses
    ) -> Authenticator:
        # Of two checkers of the same credentials cred asks the last: the application's own, then
        # the file's accounts.
        portal = Portal(AccountRealm())
        for checker in checkers:
            portal.registerChecker(checker)
        return Authenticator(
            portal=portal,
            throttle=self._throttle,
            clock=self._clock,
            secret=key,
            account_of=addresses.name_of,
            may_act_as=addresses.may_act_as,
            count=partial(self._metrics.count, table.AUTHENTICATIONS),
        )


def submission_policy(listener: Listener) -> SubmissionPolicy:
    """Return the policy of a listener for authenticated clients."""
    return SubmissionPolicy(
        own_addresses=listener.own_addresses,
        adds_sender=listener.add_sender,
        hides_client=listener.hide_client_address,
        limits=HourlyLimits(listener.messages_per_hour, listener.recipients_per_hour),
    )


def _parse(content: bytes, path: str, settings: None) -> Work[Accounts]:
    return parse_in_slices(content, path)


def _throttle(config: Config) -> ThrottleSettings:
    return ThrottleSettings(
        per_account=config.auth_failures_per_account,
        per_address=config.auth_failures_per_address,
        period=config.auth_failure_period,
        delay=config.auth_failure_delay,
    )
