"""The accounts at next hops that log in with tokens: asks the source of each for its token."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from sqlite3 import Error as SQLiteError
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ...config.token_account import TokenAccount, TokenCommand, TokenFile, TokenGrant
from ...health.trouble import Trouble
from ...interfaces import Executor, Random, Resolver, WallTime
from ...mail.printable import printable
from ...smtp.sasl.client import TokenCredentials
from ...system.deadline import sleep
from ...tls.certificates import CertificateError
from ...tls.client import ClientContexts, ClientTLS
from ...tls.https import PORT, Head, HTTPSClient, HTTPSError, Request
from . import grant as grants
from .command import run, token_of
from .grant import ClientRefused, Granted, Secrets, authorization, content, granted
from .holder import State, TokenHolder, TokenStatus
from .store import TokenStore
from .token import NoToken, Token

FILE = os.path.join("tokens", "tokens.sqlite")
"""The tokens of all processes, in the state directory."""

ReadSecret = Callable[[str], str]
"""Returns the secret in a file; raises `NoToken`. Blocks."""

_RENEW = 10.0  # seconds after which a file is read again
_CLAIMED = 1.0  # seconds between two looks whether another process has a token
_MOST_LOOKS = 90


class TokenAccounts:
    """Has the tokens of all accounts.

    Args:
        reactor: IReactorTCP, IReactorTime, IReactorProcess.
        executor: where files are read.
        read_secret: reads one.
        state_dir: where tokens are kept that servers have granted.
        resolver: looks token servers up.
        contexts: makes TLS connections to them.
        wall_time: tells when tokens expire.
        random: spreads attempts.

    Attributes:
        failures: attempts to get a token that have failed.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        executor: Executor,
        read_secret: ReadSecret,
        state_dir: str,
        resolver: Resolver,
        contexts: ClientContexts,
        wall_time: WallTime,
        random: Random,
    ) -> None:
        self._reactor = reactor
        self._executor = executor
        self._read_secret = read_secret
        self._store = TokenStore(os.path.join(state_dir, FILE))
        self._resolver = resolver
        self._contexts = contexts
        self._wall_time = wall_time
        self._random = random
        self._holders: dict[TokenAccount, TokenHolder] = {}
        self.failures = 0
        self._secret_in_body: set[str] = set()  # URLs of servers that want it there

    def use(self, accounts: Sequence[TokenAccount]) -> None:
        """Keep the tokens of these accounts alone."""
        for gone in [each for each in self._holders if each not in accounts]:
            self._holders.pop(gone).stop()

    def statuses(self) -> Sequence[TokenStatus]:
        """Return the state of each account that mail has needed."""
        return [each.status for each in self._holders.values()]

    def troubles(self) -> Iterator[Trouble]:
        """Yield a trouble for each account whose source has failed."""
        for each in self.statuses():
            if each.problem:
                is_left = each.state in (State.VALID, State.RENEWING)
                yield Trouble(
                    kind="tokens",
                    subject=f"{each.username} {each.source}",
                    text=f"no new token for the account {each.username} from {each.source}:"
                    f" {each.problem}",
                    severity="warning" if is_left else "critical",
                )

    def status(self, account: TokenAccount) -> TokenStatus:
        """Return the state of an account, also before mail has needed it."""
        holder = self._holders.get(account)
        if holder is None:
            return TokenStatus(
                username=printable(account.username),
                source=str(account.source),
                state=State.NONE,
            )
        return holder.status

    def ready(self, account: TokenAccount) -> Deferred[None]:
        """Get a token for an account, if there is none that serves; fails with `NoToken`."""
        holder = self._holders.get(account)
        if holder is None:
            holder = self._holders[account] = TokenHolder(
                account,
                lambda refused: Deferred.fromCoroutine(self._counted(account, refused)),
                clock=self._reactor,
                wall_time=self._wall_time,
                random=self._random,
            )
        return holder.ready()

    def credentials(self, account: TokenAccount) -> TokenCredentials:
        """Return the credentials of an account that is `ready`.

        Raises:
            NoToken: its token has expired since.
        """
        holder = self._holders.get(account)
        if holder is None:
            raise NoToken("the account is not in use any more")
        return holder.current()

    def judged(self, account: TokenAccount, token: str, *, accepted: bool) -> None:
        """Note what a next hop has said of a token."""
        holder = self._holders.get(account)
        if holder is not None and accepted:
            holder.accepted(token)
        elif holder is not None:
            holder.refused(token)

    def stop(self) -> None:
        """Ask no more."""
        for holder in self._holders.values():
            holder.stop()

    async def _counted(self, account: TokenAccount, refused: str) -> Token:
        try:
            return await self._ask(account, refused)
        except NoToken:
            self.failures += 1
            raise

    async def _ask(self, account: TokenAccount, refused: str) -> Token:
        source = account.source
        if isinstance(source, TokenFile):
            value = await self._executor(self._read_secret, source.path)
            return Token.unlimited(value, self._wall_time(), renew=_RENEW, wait=_RENEW)
        if isinstance(source, TokenCommand):
            return token_of(await run(self._reactor, source.arguments), self._wall_time())
        return await self._granted(account, source, refused)

    async def _granted(self, account: TokenAccount, source: TokenGrant, refused: str) -> Token:
        secrets = await self._executor(self._secrets, source)
        ours = secrets.refresh_token
        try:
            claim = await self._claim(account, refused, ours)
        except (OSError, SQLiteError) as error:
            # A full disk does not keep the mail: the processes ask each for itself.
            self._log.warn("tokens cannot be kept: {error}", error=str(error))
            return (await self._request(source, secrets)).token
        if isinstance(claim, Token):
            return claim
        try:
            result = await self._request(source, Secrets(secrets.client_secret, claim or ours))
        except BaseException:
            await self._written(self._store.release, account)
            raise
        await self._written(
            self._store.save, account, result, self._wall_time(), refresh_token=ours
        )
        return result.token

    async def _claim(self, account: TokenAccount, refused: str, ours: str) -> Token | str:
        """Return a token that another process got; or the refresh token that replaces ours."""
        for _ in range(_MOST_LOOKS):
            claim = await self._executor(
                self._store.claim, account, self._wall_time(), refused=refused, refresh_token=ours
            )
            if isinstance(claim, Token):
                return claim
            if claim is not None:
                return claim.refresh_token
            await sleep(self._reactor, _CLAIMED)
        raise NoToken("another process asks for it, and has no answer")

    async def _written(self, write: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        try:
            await self._executor(write, *args, **kwargs)
        except (OSError, SQLiteError) as error:
            self._log.warn("tokens cannot be kept: {error}", error=str(error))

    def _secrets(self, source: TokenGrant) -> Secrets:
        client, refresh = source.client_secret_file, source.refresh_token_file
        return Secrets(
            "" if client is None else self._read_secret(client),
            "" if refresh is None else self._read_secret(refresh),
        )

    async def _request(self, source: TokenGrant, secrets: Secrets) -> Granted:
        in_body = source.url in self._secret_in_body
        try:
            return await self._send(source, secrets, in_body=in_body)
        except ClientRefused:
            if in_body or not secrets.client_secret:
                raise
            # RFC 6749 §2.3.1 has servers take it in a field, and not all of them do.
            result = await self._send(source, secrets, in_body=True)
            self._secret_in_body.add(source.url)
            return result

    async def _send(self, source: TokenGrant, secrets: Secrets, *, in_body: bool) -> Granted:
        url = urlsplit(source.url)
        with_tls = url.scheme == "https"
        tls = ClientTLS(verify=True, authorities=source.authorities)
        if with_tls and not self._contexts.has(tls):
            try:
                await self._executor(self._contexts.make, tls)
            except CertificateError as error:
                raise NoToken(str(error)) from None
        client = HTTPSClient(
            reactor=self._reactor,
            resolver=self._resolver,
            contexts=self._contexts,
            tls=lambda: tls,
            largest=grants.LARGEST,
        )
        field = "" if in_body else authorization(source, secrets)
        heads: list[Head] = []
        request = Request(
            method="POST",
            host=url.hostname or "",
            port=url.port or (PORT if with_tls else 80),
            path=(url.path or "/") + (f"?{url.query}" if url.query else ""),
            content=content(source, secrets, in_body=in_body),
            content_type=grants.FORM,
            headers=(
                ("Accept", "application/json"),
                *((("Authorization", field),) if field else ()),
            ),
            tls=with_tls,
        )
        try:
            answer = await client.send(request, accept=heads.append)
        except HTTPSError as error:
            raise NoToken(error.reason) from None
        (head,) = heads
        retry_after = head.headers.get("retry-after", "")
        return granted(head.code, answer, retry_after, secrets, self._wall_time())
