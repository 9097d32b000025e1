"""AUTH judged: evidence goes to the checkers of a cred portal, and comes back as a verdict.

What a session offers follows from what the portal's checkers take (`auth.credentials`). Whatever
goes wrong on the way to a verdict is 454: the client may be who it says. No word of what is secret
is logged.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from traceback import extract_tb
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
from twisted.internet.defer import Deferred, maybeDeferred
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
from ..smtp.sasl.server import MECHANISMS, Challenger, NewMechanism
from ..smtp.server.auth import Verdict
from ..smtp.server.replies import AUTH_UNAVAILABLE, NOT_AUTHENTICATED
from ..smtp.server.session import Session
from ..smtp.server.settings import AuthSettings
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
from .throttle import Throttle

ITERATIONS = 10_000
"""Those of SCRAM, where the account does not say (RFC 7677 §4 asks for 4,096 at least)."""

_PATIENCE = 30.0  # seconds that a checker may take, before the client is told to come again

_BROUGHT: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (IScramProof, ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1")),
    (
        IUsernameHashedPassword,
        ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5"),
    ),
    (IBearerToken, ("OAUTHBEARER", "XOAUTH2")),
    (IUsernamePassword, ("PLAIN", "LOGIN")),
    (IVerifiedCertificate, ("EXTERNAL",)),
)


class IAccount(Interface):
    """The avatar of somebody who may send mail through us: text, the name of the account."""


@implementer(IRealm)
class AccountRealm:
    """The realm of a mail transfer agent: whoever the checker names is an account."""

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        """Return the name of the account."""
        if IAccount not in interfaces or not avatarId:
            raise NotImplementedError
        name = avatarId.decode("utf-8") if isinstance(avatarId, bytes) else str(avatarId)
        return IAccount, name, lambda: None


@frozen
class Login:
    """What a portal gave.

    Attributes:
        identity: who it is.
        avatar: what the realm returned.
        logout: to be called when the session is over.
    """

    identity: str
    avatar: Any
    logout: Callable[[], object]


@frozen(kw_only=True)
class Authenticator:
    """Judges the evidence of all sessions of a listener.

    Attributes:
        portal: its checkers decide.
        interfaces: those that an avatar may have.
        throttle: counts failures; None: they are not counted.
        clock: for delays.
        secret: what the salts of names come from that have no account; the same in all processes,
            and after a restart.
        iterations: of SCRAM, where no account says.
        challengers: mechanisms of an application's, by name, instead of ours: callables that return
            what ``twisted.mail`` calls a challenger.
        count: told of each verdict: the mechanism, and what came of it.
    """

    portal: Portal
    interfaces: tuple[Any, ...] = (IAccount,)
    throttle: Throttle | None = None
    clock: Clock
    secret: bytes = field(repr=False)
    iterations: int = ITERATIONS
    challengers: Mapping[str, Callable[[], Any]] = field(factory=dict)
    count: Callable[[str, str], object] = field(default=lambda mechanism, result: None)

    _log = Logger()

    def settings(self, *, in_clear: bool, nonce: Nonce, **more: Any) -> AuthSettings | None:
        """Return what a session is told of it; None where nothing can be judged.

        Args:
            in_clear: whether AUTH is offered in clear too.
            nonce: makes what is used once.
            more: see `AuthSettings`.
        """
        mechanisms = self.mechanisms
        if not mechanisms:
            return None
        return AuthSettings(mechanisms=mechanisms, in_clear=in_clear, nonce=nonce, **more)

    @property
    def mechanisms(self) -> Mapping[str, NewMechanism]:
        """Those that the portal's checkers can judge, in the order in which they are announced."""
        if self.challengers:
            return {name: _challenger(make) for name, make in self.challengers.items()}
        brought = [
            name
            for interface, names in _BROUGHT
            if interface in self.portal.checkers
            for name in names
        ]
        return {name: make for name, make in MECHANISMS.items() if name in brought}

    def judge(self, session: Session, evidence: Evidence) -> Deferred[Verdict | Login]:
        """Return what evidence comes to; never fails. A `Login` means that it is granted."""
        return Deferred.fromCoroutine(self._judge(session, evidence))

    async def _judge(self, session: Session, evidence: Evidence) -> Verdict | Login:
        try:
            if isinstance(evidence, ScramLookup):
                return await self._salt(evidence)
            return await self._verdict(session, evidence)
        except Exception as error:
            # Its words may hold what was given, so they are not logged: only what and where.
            where = extract_tb(error.__traceback__)[-1]
            self._log.error(
                "a checker could not judge who a client is: {error} at {file}:{line}",
                error=type(error).__name__,
                file=where.filename,
                line=where.lineno,
            )
            self.count(session.auth.mechanism, "error")
            return AUTH_UNAVAILABLE

    async def _salt(self, lookup: ScramLookup) -> ScramSalt:
        checker = self.portal.checkers.get(IScramProof)
        known = None
        if checker is not None and IScramSalts.providedBy(checker):
            known = await maybeDeferred(checker.scram_salt, lookup.username, lookup.algorithm)
        # The same name has the same salt every time, in any case of letters, as it would if it had
        # an account.
        made = f"{lookup.algorithm} {lookup.username.lower()}".encode()
        return known or ScramSalt(hmac.digest(self.secret, made, "sha256")[:16], self.iterations)

    async def _verdict(self, session: Session, evidence: Evidence) -> Verdict | Login:
        account, address, throttle = evidence.username, session.peer.address, self.throttle
        if throttle is None:
            return await self._login(session, evidence)
        end = await throttle.turn(account) if account else None
        try:
            if not await throttle.allows(account, address):
                self._note(session, account, "throttled")
                return AUTH_UNAVAILABLE
            verdict = await self._login(session, evidence)
            if verdict == NOT_AUTHENTICATED:
                await throttle.failed(account, address)
        finally:
            if end is not None:
                end()
        if verdict == NOT_AUTHENTICATED:
            await _pause(self.clock, throttle.settings.delay_after(session.auth.failures + 1))
        return verdict

    async def _login(self, session: Session, evidence: Evidence) -> Verdict | Login:
        try:
            credentials = self._credentials(evidence)
            login = self.portal.login(credentials, None, *self.interfaces)
            _, avatar, logout = await login.addTimeout(_PATIENCE, self.clock)
        except (LoginFailed, UnauthorizedLogin):
            self._note(session, evidence.username, "failed")
            return NOT_AUTHENTICATED
        except UnhandledCredentials:
            self._note(session, evidence.username, "error")
            return AUTH_UNAVAILABLE
        identity = avatar if isinstance(avatar, str) else evidence.username
        self._note(session, identity, "ok")
        return Login(identity, avatar, logout)

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

    def _note(
        self, session: Session, user: str, result: Literal["ok", "failed", "throttled", "error"]
    ) -> None:
        mechanism = session.auth.mechanism
        self.count(mechanism, result)
        say = self._log.info if result == "ok" else self._log.warn
        say(
            "{peer} {said} as user={user} by {mechanism}",
            peer=session.peer.address,
            said=_SAID[result],
            user=printable(user),
            mechanism=printable(mechanism),
        )


_SAID = {
    "ok": "authenticated",
    "failed": "failed to authenticate",
    "throttled": "failed too often before, or others did, and was not heard",
    "error": "could not be authenticated: no checker takes that,",
}


def _challenger(make: Callable[[], Any]) -> NewMechanism:
    return lambda circumstances: Challenger(circumstances, make())


def _pause(clock: Clock, seconds: float) -> Deferred[None]:
    paused: Deferred[None] = Deferred()
    if seconds:
        clock.callLater(seconds, paused.callback, None)
    else:
        paused.callback(None)
    return paused
