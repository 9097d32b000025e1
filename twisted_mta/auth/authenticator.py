"""The authenticator: it has the checkers of a cred portal judge the evidence of AUTH.

The credentials that the portal's checkers take decide which mechanisms a session offers
(`auth.credentials`). An error on the way to a verdict is answered with 454, since the evidence may
be good. Secrets are never logged.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Literal

from attrs import field, frozen
from twisted.cred.credentials import (
    ICredentials,
    IUsernameHashedPassword,
    IUsernamePassword,
    UsernamePassword,
)
from twisted.cred.error import LoginFailed, UnauthorizedLogin, UnhandledCredentials
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, maybeDeferred
from twisted.logger import Logger
from zope.interface import Interface, implementer

from ..interfaces import Clock
from ..mail.printable import printable
from ..smtp.sasl.evidence import (
    Certificate,
    CramProof,
    Evidence,
    Foreign,
    Password,
    ScramLookup,
    ScramProof,
    ScramSalt,
    Token,
)
from ..smtp.sasl.exchange import Nonce
from ..smtp.sasl.server import MECHANISMS, NewMechanism
from ..smtp.server.auth import Verdict
from ..smtp.server.replies import AUTH_UNAVAILABLE, NOT_AUTHENTICATED
from ..smtp.server.session import Session
from ..smtp.server.settings import AuthSettings
from ..system.deadline import sleep
from .accounts import SCRAM_ITERATIONS
from .credentials import (
    CertificateCredentials,
    CramCredentials,
    IBearerToken,
    IScramProof,
    IScramSalts,
    IVerifiedCertificate,
    ScramCredentials,
    ScramPassword,
    TokenCredentials,
)
from .guarded_challenger import GuardedChallenger
from .throttle import Throttle
from .withheld import withheld

CHECK_TIMEOUT = 30.0  # seconds for a checker, before the reply is 454

_MECHANISMS_OF: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (IScramProof, ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1")),
    (
        IUsernameHashedPassword,
        ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5"),
    ),
    (IBearerToken, ("OAUTHBEARER", "XOAUTH2")),
    (IUsernamePassword, ("PLAIN", "LOGIN")),
    (IVerifiedCertificate, ("EXTERNAL",)),
)


def judged_mechanisms(interfaces: Collection[Any]) -> tuple[str, ...]:
    """Return the mechanisms that checkers of some credentials can judge, in the order of EHLO.

    Args:
        interfaces: of the credentials that the checkers take.
    """
    judged = {
        name for interface, names in _MECHANISMS_OF if interface in interfaces for name in names
    }
    return tuple(name for name in MECHANISMS if name in judged)


class IAccount(Interface):
    """The avatar of a user who may send mail through us: text, the name of the account."""


@implementer(IRealm)
class AccountRealm:
    """The realm of an MTA: each avatar id of a checker is the name of an account."""

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        """Return the name of the account."""
        if IAccount not in interfaces or not avatarId:
            raise NotImplementedError
        name = avatarId.decode("utf-8") if isinstance(avatarId, bytes) else str(avatarId)
        return IAccount, name, lambda: None


@frozen
class Login:
    """A login to a portal.

    Attributes:
        identity: the name of the user.
        avatar: as the realm returned it.
        logout: to be called when the session is over.
    """

    identity: str
    avatar: Any
    logout: Callable[[], object]


@frozen(kw_only=True)
class Authenticator:
    """Judges the evidence of all sessions of a listener.

    Attributes:
        portal: its checkers judge.
        interfaces: of avatars.
        throttle: counts failures; None: they are not limited.
        clock: for delays, and the timeout of a checker.
        secret: the source of salts for names without an account; the same in all processes, and
            after a restart.
        iterations: of SCRAM, for names without an account.
        account_of: returns the name of the account that a login means, existing or not
            (`AccountAddresses.name_of`): all its logins share one count of failures.
        may_act_as: returns whether an account may have an authorization identity besides its name
            and its login.
        challengers: by name, an application's own mechanisms that replace ours: callables that
            return a challenger of ``twisted.mail``.
        count: called with the mechanism and the result of each verdict.
        timeout: seconds for a checker.
    """

    portal: Portal
    interfaces: tuple[Any, ...] = (IAccount,)
    throttle: Throttle | None = None
    clock: Clock
    secret: bytes = field(repr=False)
    iterations: int = SCRAM_ITERATIONS
    account_of: Callable[[str], str] = str
    may_act_as: Callable[[str, str], bool] = field(default=lambda name, authzid: False)
    challengers: Mapping[str, Callable[[], Any]] = field(factory=dict)
    count: Callable[[str, str], object] = field(default=lambda mechanism, result: None)
    timeout: float = CHECK_TIMEOUT

    _log = Logger()

    def settings(self, *, in_clear: bool, nonce: Nonce, **more: Any) -> AuthSettings | None:
        """Return the settings of sessions; None where no checker takes any credentials.

        Args:
            in_clear: whether AUTH is offered without TLS too.
            nonce: makes nonces.
            more: further attributes of `AuthSettings`.
        """
        mechanisms = self.mechanisms
        if not mechanisms:
            return None
        return AuthSettings(mechanisms=mechanisms, in_clear=in_clear, nonce=nonce, **more)

    @property
    def mechanisms(self) -> Mapping[str, NewMechanism]:
        """The mechanisms that the portal's checkers can judge, in the order of EHLO."""
        if self.challengers:
            return {
                name: partial(GuardedChallenger, make) for name, make in self.challengers.items()
            }
        return {name: MECHANISMS[name] for name in judged_mechanisms(self.portal.checkers)}

    def judge(self, session: Session, evidence: Evidence) -> Deferred[Verdict | Login]:
        """Judge evidence: a `Login` grants it, a reply refuses it. Never fails."""
        return Deferred.fromCoroutine(self._judge(session, evidence))

    async def _judge(self, session: Session, evidence: Evidence) -> Verdict | Login:
        try:
            if isinstance(evidence, ScramLookup):
                return await self._salt(evidence)
            return await self._verdict(session, evidence)
        except CancelledError:  # the client is gone, or waited too long
            self.count(session.auth.mechanism, "error")
            return AUTH_UNAVAILABLE
        except TimeoutError:
            self._log.warn("no verdict of a checker within {timeout:g} s", timeout=self.timeout)
            self.count(session.auth.mechanism, "error")
            return AUTH_UNAVAILABLE
        except Exception as error:
            self._log.failure("a checker of credentials failed", withheld(error))
            self.count(session.auth.mechanism, "error")
            return AUTH_UNAVAILABLE

    async def _salt(self, lookup: ScramLookup) -> ScramSalt:
        checker = self.portal.checkers.get(IScramProof)
        known = None
        if checker is not None and IScramSalts.providedBy(checker):
            known = await maybeDeferred(checker.scram_salt, lookup.username, lookup.algorithm)
        return known or self._made_salt(lookup)

    def _made_salt(self, lookup: ScramLookup) -> ScramSalt:
        """Return the salt of a name without an account: the same each time, in any case.

        Of two logins that could mean one account, some names have one salt and others two, as if
        there were accounts of the one kind and of the other.
        """
        login, name = lookup.username.lower(), self.account_of(lookup.username).lower()
        made = self._digest(lookup.algorithm, name)
        if login != name and made[-1] % 2:
            made = self._digest(lookup.algorithm, login)
        return ScramSalt(made[:16], self.iterations)

    def _digest(self, algorithm: str, name: str) -> bytes:
        return hmac.digest(self.secret, f"{algorithm} {name}".encode(), "sha256")

    async def _verdict(self, session: Session, evidence: Evidence) -> Verdict | Login:
        account, address = self.account_of(evidence.username), session.peer.address
        throttle = self.throttle
        if throttle is None:
            return await self._login(session, evidence)
        end = await throttle.turn(account) if account else None
        try:
            if not await throttle.allows(account, address):
                self._record(session, evidence.username, "throttled")
                return AUTH_UNAVAILABLE
            try:
                verdict = await self._login(session, evidence)
            except CancelledError:
                # Or a client that never waits for the verdict could have any number of passwords
                # hashed at a time.
                await throttle.failed(account, address)
                raise
            if verdict == NOT_AUTHENTICATED:
                await throttle.failed(account, address)
        finally:
            if end is not None:
                end()
        if verdict == NOT_AUTHENTICATED:
            delay = throttle.settings.delay_after(session.auth.failures + 1)
            if delay:
                await sleep(self.clock, delay)
        return verdict

    async def _login(self, session: Session, evidence: Evidence) -> Verdict | Login:
        try:
            credentials = self._credentials(evidence)
            login = self.portal.login(credentials, None, *self.interfaces)
            _, avatar, logout = await login.addTimeout(self.timeout, self.clock)
        except UnhandledCredentials:  # a kind of LoginFailed
            self._record(session, evidence.username, "error")
            return AUTH_UNAVAILABLE
        except (LoginFailed, UnauthorizedLogin):
            self._record(session, evidence.username, "failed")
            return NOT_AUTHENTICATED
        identity = avatar if isinstance(avatar, str) else evidence.username
        if not self._may_act_as(identity, evidence):
            logout()
            self._record(session, evidence.username, "failed")
            return NOT_AUTHENTICATED
        self._record(session, identity, "ok")
        return Login(identity, avatar, logout)

    def _may_act_as(self, identity: str, evidence: Evidence) -> bool:
        """Whether the authorization identity is the user's own (RFC 4616 §2, RFC 5802 §5.1)."""
        authzid = evidence.authzid if isinstance(evidence, Password | ScramProof) else ""
        return authzid in ("", identity) or self.may_act_as(identity, authzid)

    def _credentials(self, evidence: Evidence) -> Any:
        checkers = self.portal.checkers
        match evidence:
            case Password(username, password):
                return UsernamePassword(username.encode(), password.encode())
            case CramProof():
                return CramCredentials(evidence)
            case ScramProof():
                return (ScramCredentials if IScramProof in checkers else ScramPassword)(evidence)
            case Certificate(username, facts):
                return CertificateCredentials(
                    username,
                    facts.peer_fingerprint or "",
                    facts.peer_subject or "",
                    facts.peer_issuer or "",
                )
            case Token(username, token):
                return TokenCredentials(username, token)
            case Foreign(_, credentials) if ICredentials.providedBy(credentials):
                return credentials
        raise UnhandledCredentials

    def _record(
        self, session: Session, user: str, result: Literal["ok", "failed", "throttled", "error"]
    ) -> None:
        mechanism = session.auth.mechanism
        self.count(mechanism, result)
        log = self._log.info if result == "ok" else self._log.warn
        log(
            "{peer} {said} as user={user} by {mechanism}",
            peer=session.peer.address,
            said=_RESULTS[result],
            user=printable(user),
            mechanism=printable(mechanism),
        )


_RESULTS = {
    "ok": "authenticated",
    "failed": "failed to authenticate",
    "throttled": "was not judged, after too many failures of this account or address,",
    "error": "could not be judged, since no checker takes such credentials,",
}
