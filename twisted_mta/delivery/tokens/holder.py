"""The token of one account: kept while it serves, replaced ahead of its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...config.token_account import TokenAccount
from ...interfaces import Clock, Random, WallTime
from ...mail.printable import printable
from ...smtp.sasl.client import TokenCredentials
from .token import NoToken, Token

Ask = Callable[[str], "Deferred[Token]"]
"""Ask the source for a token other than the given one; fails with `NoToken`."""

_FIRST_WAIT, _LONGEST_WAIT = 5.0, 900.0  # seconds between two attempts
_LASTING_WAIT = 60.0  # seconds before the second attempt, where the operator has to do something
_REFUSED_WAIT = 60.0  # seconds between tokens that the next hop refuses


class State(StrEnum):
    """A state of an account's token."""

    NONE = "none"
    ASKING = "asked for"
    VALID = "valid"
    RENEWING = "being renewed"
    FAILED = "not to be had"


class Event(StrEnum):
    """An event that changes the state."""

    ASK = "ask the source"
    GET = "the source gives one"
    FAIL = "the source gives none"
    EXPIRE = "it has expired, or the next hop refuses it"


TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    State.NONE: {Event.ASK: State.ASKING},
    State.ASKING: {Event.GET: State.VALID, Event.FAIL: State.FAILED},
    State.VALID: {Event.ASK: State.RENEWING, Event.EXPIRE: State.NONE},
    # Until it expires it serves, whatever the source says.
    State.RENEWING: {
        Event.GET: State.VALID,
        Event.FAIL: State.VALID,
        Event.EXPIRE: State.ASKING,
    },
    State.FAILED: {Event.ASK: State.ASKING},
}


@frozen(kw_only=True)
class TokenStatus:
    """The state of an account's token, for people.

    Attributes:
        username: the account.
        source: where its tokens come from, printable.
        state: of the token.
        expires_at: when the token expires, seconds since the epoch; None: unknown, or there is
            none.
        problem: why the last attempt to get one failed, printable; empty: it did not.
        since: when that was first so, seconds since the epoch; None: it did not fail.
    """

    username: str
    source: str
    state: State
    expires_at: float | None = None
    problem: str = ""
    since: float | None = None


class TokenHolder:
    """Keeps the token of an account.

    Args:
        account: the account.
        ask: asks its source.
        clock: for waits between attempts.
        wall_time: tells when a token expires.
        random: spreads attempts.
    """

    _log = Logger()

    def __init__(
        self,
        account: TokenAccount,
        ask: Ask,
        *,
        clock: Clock,
        wall_time: WallTime,
        random: Random,
    ) -> None:
        self._account = account
        self._ask = ask
        self._clock = clock
        self._wall_time = wall_time
        self._random = random
        self._state = State.NONE
        self._token: Token | None = None
        self._asking: Deferred[Token] | None = None
        self._waiting: list[Deferred[None]] = []
        self._refused = ""  # the last token that the next hop refused
        self._failures = 0
        self._not_before = clock.seconds()
        self._problem = ""
        self._since: float | None = None

    @property
    def status(self) -> TokenStatus:
        """The state for people."""
        self._drop_expired()
        token = self._token
        ends = token is not None and token.expires_at != float("inf")
        return TokenStatus(
            username=printable(self._account.username),
            source=str(self._account.source),
            state=self._state,
            expires_at=token.expires_at if token is not None and ends else None,
            problem=self._problem,
            since=self._since,
        )

    def current(self) -> TokenCredentials:
        """Return the credentials that `ready` has made ready.

        Raises:
            NoToken: they have expired since.
        """
        if self._token is None:
            raise NoToken(self._problem or "the token has just expired")
        return TokenCredentials(self._account.username, self._token.value)

    def ready(self) -> Deferred[None]:
        """Get a token, if there is none that serves; fails with `NoToken`."""
        self._drop_expired()
        token, now = self._token, self._wall_time()
        may_ask = self._asking is None and self._clock.seconds() >= self._not_before
        if token is not None and now < token.wait_at:
            if now >= token.renew_at and may_ask:
                self._begin()
            return succeed(None)
        if may_ask:
            self._begin()
        if self._asking is not None:
            waiting: Deferred[None] = Deferred(self._waiting_canceled)
            self._waiting.append(waiting)
            return waiting
        result: Deferred[None] = Deferred()
        self._answer(result)
        return result

    def refused(self, value: str) -> None:
        """Use a token no more: the next hop has refused it."""
        if self._token is None or self._token.value != value:
            return
        if self._refused:  # the one before it too
            self._not_before = max(self._not_before, self._clock.seconds() + _REFUSED_WAIT)
        self._refused = value
        self._note("the next hop has refused the token")
        self._expire()

    def accepted(self, value: str) -> None:
        """Note that a next hop has taken a token."""
        self._refused = ""

    def stop(self) -> None:
        """Ask no more; requests that wait for a token fail."""
        asking = self._asking
        if asking is not None:
            asking.cancel()

    def _enter(self, event: Event) -> None:
        self._state = TRANSITIONS[self._state][event]

    def _drop_expired(self) -> None:
        if self._token is not None and self._wall_time() >= self._token.expires_at:
            self._expire()

    def _expire(self) -> None:
        self._token = None
        self._enter(Event.EXPIRE)

    def _begin(self) -> None:
        self._enter(Event.ASK)
        asking = self._ask(self._refused)
        self._asking = asking
        asking.addCallbacks(self._got, self._failed).addBoth(lambda _: self._ended())

    def _got(self, token: Token) -> None:
        self._enter(Event.GET)
        before, self._token = self._token, token
        self._failures = 0
        self._not_before = self._clock.seconds()
        if self._problem or before is None:
            self._log.info(
                "a token for the account {account} from {source}",
                account=printable(self._account.username),
                source=str(self._account.source),
            )
        self._problem, self._since = "", None

    def _failed(self, failure: Failure) -> None:
        self._enter(Event.FAIL)
        error = failure.value
        if isinstance(error, NoToken):
            reason, lasting, asked = error.reason, error.lasting, error.retry_after
        elif isinstance(error, CancelledError):
            reason, lasting, asked = "the question was cancelled", False, 0.0
        else:
            # Its text might have a secret in it.
            reason, lasting, asked = f"internal error: {type(error).__name__}", False, 0.0
        first = _LASTING_WAIT if lasting else _FIRST_WAIT
        wait = min(_LONGEST_WAIT, first * 2.0 ** min(self._failures, 10))
        wait = max(wait * (0.5 + self._random.random() / 2), asked)
        self._failures += 1
        self._not_before = self._clock.seconds() + wait
        self._note(reason)
        self._log.warn(
            "no token for the account {account} from {source}: {reason}; the next attempt is in"
            " {seconds:.0f} s",
            account=printable(self._account.username),
            source=str(self._account.source),
            reason=reason,
            seconds=wait,
        )

    def _note(self, problem: str) -> None:
        if not self._problem:
            self._since = self._wall_time()
        self._problem = problem

    def _ended(self) -> None:
        self._asking = None
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            self._answer(each)

    def _answer(self, waiting: Deferred[None]) -> None:
        self._drop_expired()
        if self._token is not None:  # the old one, where the source has failed
            waiting.callback(None)
        else:
            waiting.errback(NoToken(self._problem or "there is none yet"))

    def _waiting_canceled(self, waiting: Deferred[None]) -> None:
        self._waiting.remove(waiting)
