"""Keeps a certificate of an authority in force: asks when to renew it, gets it, and installs it.

The certificate of before stays in force until the next one has been checked and written. Times of
day decide, and timers are monotonic: so the clock is looked at every hour, and a change of it is
noticed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum

from attrs import evolve, frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import TimeoutError as PauseTimeoutError
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...config.acme import ACMESettings
from ...interfaces import Clock, Executor, Random, WallTime
from ...mail.printable import printable
from ...system.deadline import sleep
from ..certificate_files import names_of
from ..certificates import CertificateError, CertifiedKey, read_key
from .issuance import Account, Issuance, Issued, Pause, Wanted
from .issued import certificate_id, certificate_request, checked_chain, is_of, key_pem, new_key
from .jws import Binding, from_base64url
from .messages import ACMEError, Answer, Directory, Request
from .schedule import (
    LOOK_AGAIN,
    Window,
    look_again,
    renewal_time,
    retry_delay,
)
from .store import Status, Store, read_binding_key

_TICK = 3600.0  # seconds after which the time of day is looked at again
_SHORTEST = 1.0  # seconds of a timer
_PATIENCE = 3600.0  # seconds for an attempt with all its pauses
_INSTALL_AGAIN = 60.0  # seconds after an installation that has failed
_CLOCKS_DIFFER = 3600.0  # seconds between the authority's clock and ours that are worth a word

_ENDED = CancelledError, PauseTimeoutError

Send = Callable[[Request], "Deferred[Answer]"]
"""Sends a request; fails with `ACMEError`."""


class State(StrEnum):
    """A state of a renewer."""

    NEW = "new"
    WAITING = "waiting"
    READING = "reading"
    LOOKING = "looking"
    ISSUING = "issuing"
    INSTALLING = "installing"
    STOPPED = "stopped"


class Event(StrEnum):
    """An event that changes the state of a renewer."""

    START = "start"
    TIMER = "timer"
    LOOK = "look"
    DUE = "due"
    WRITTEN = "written"
    DONE = "done"
    STOP = "stop"


TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    State.NEW: {Event.START: State.READING, Event.STOP: State.STOPPED},
    # The timer runs; other settings make it run out at once.
    State.WAITING: {Event.TIMER: State.READING, Event.STOP: State.STOPPED},
    # Files are read; then it is decided what is due.
    State.READING: {
        Event.LOOK: State.LOOKING,
        Event.DUE: State.ISSUING,
        Event.WRITTEN: State.INSTALLING,
        Event.DONE: State.WAITING,
        Event.STOP: State.STOPPED,
    },
    # The authority is asked when to renew.
    State.LOOKING: {
        Event.DUE: State.ISSUING,
        Event.DONE: State.WAITING,
        Event.STOP: State.STOPPED,
    },
    State.ISSUING: {
        Event.WRITTEN: State.INSTALLING,
        Event.DONE: State.WAITING,
        Event.STOP: State.STOPPED,
    },
    # The new certificate is put in force for the handshakes that follow.
    State.INSTALLING: {Event.DONE: State.WAITING, Event.STOP: State.STOPPED},
    State.STOPPED: {Event.STOP: State.STOPPED},
}


@frozen
class _Prepared:
    """Everything that an attempt needs from files and keys."""

    wanted: Wanted
    account: Account
    key: PrivateKeyTypes


class Renewer:
    """Keeps one certificate in force.

    Args:
        settings: in force.
        names: of the certificate.
        store: the files.
        send: sends requests.
        install: puts the written certificate in force; fails where that is not possible now.
        clock: times it.
        wall_time: the time of day.
        random: chooses times.
        executor: runs what blocks.
        fallback_key: the path of a file whose key the first certificate takes over; None: it has a
            new one.

    Attributes:
        state: of the renewer.
        status: how renewal stands.
        current: the certificate; None: there is none yet.
    """

    _log = Logger()

    def __init__(
        self,
        settings: ACMESettings,
        names: Sequence[str],
        *,
        store: Store,
        send: Send,
        install: Callable[[], Deferred[None]],
        clock: Clock,
        wall_time: WallTime,
        random: Random,
        executor: Executor,
        fallback_key: str | None = None,
    ) -> None:
        self.state = State.NEW
        self.status = Status()
        self.current: CertifiedKey | None = None
        self._settings = settings
        self._names = tuple(names)
        self._store = store
        self._send = send
        self._install = install
        self._clock = clock
        self._wall_time = wall_time
        self._random = random
        self._executor = executor
        self._fallback_key = fallback_key
        self._timer: IDelayedCall | None = None
        self._working: Deferred[None] | None = None
        self._has_read = False
        self._hurried = False  # other settings have come, which an attempt may go by at once
        self._is_installed = True
        self._not_installed = ""  # why
        self._install_at = 0.0
        self._look_at = 0.0  # wall time
        self._issuance: Issuance | None = None

    # Its life.

    def start(self) -> None:
        """Begin: look at the certificate, and get one where there is none."""
        self._happened(Event.START)
        self._work()

    def stop(self) -> Deferred[None]:
        """End; fires once nothing is under way."""
        self._happened(Event.STOP)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        working = self._working
        if working is None:
            ended: Deferred[None] = Deferred()
            ended.callback(None)
            return ended
        ended = Deferred()
        working.addBoth(lambda _: ended.callback(None))
        working.cancel()
        return ended

    def use(self, settings: ACMESettings, names: Sequence[str]) -> None:
        """Take other settings, or the same again: an order that has failed is tried at once."""
        self._settings = settings
        self._names = tuple(names)
        self._hurried = True
        if self.state is State.WAITING:
            self._wait(0.0)

    def answers(self) -> Mapping[str, str]:
        """Return the answers to the challenges of the authority, by token."""
        return {} if self._issuance is None else self._issuance.answers

    # What is asked about it.

    @property
    def problem(self) -> str:
        """Why there is no new certificate, or why it is not in force; empty: there is none due.

        One line, printable.
        """
        status, names = self.status, names_of(self._names)
        if self._not_installed:
            return f"the new certificate of {names} is not in force: {self._not_installed}"
        if not status.problem:
            return ""
        return describe(status, self.current, names, self._settings.directory)

    def renewal_time(self) -> float | None:
        """Return the wall time at which the certificate is to be renewed; None: there is none."""
        if self.current is None:
            return None
        return renewal_time(self.current.certificate, self.status.window, self.status.issued_at)

    # Its work.

    def _happened(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state][event]

    def _work(self) -> None:
        self._working = working = Deferred.fromCoroutine(self._turn())
        working.addErrback(self._failed).addCallback(self._worked)

    def _failed(self, failure: Failure) -> None:
        if not failure.check(*_ENDED):
            self._log.failure("the renewal of a certificate", failure)

    def _worked(self, _: None) -> None:
        self._working = self._issuance = None
        if self.state is State.STOPPED:
            return
        self._happened(Event.DONE)
        self._wait(self._seconds_left())

    def _wait(self, seconds: float) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._clock.callLater(seconds, self._rung)

    def _rung(self) -> None:
        self._happened(Event.TIMER)
        self._work()

    def _seconds_left(self) -> float:
        """Return the seconds until something is due, as far as it is known."""
        now = self._wall_time()
        if self._hurried:
            return 0.0
        times = [now + _TICK]
        if not self._is_installed:
            times.append(self._install_at)
        if self.status.failures or self._reason() is not None:
            times.append(max(self.status.next_try, now + _SHORTEST))
        renewed_at = self.renewal_time()
        if renewed_at is not None and not self.status.failures:
            times += [renewed_at, self._look_at]
        return max(min(times) - now, _SHORTEST)

    async def _turn(self) -> None:
        if not self._has_read:
            await self._read()
        hurried, self._hurried = self._hurried, False
        now = self._wall_time()
        if hurried and self.status.failures:
            await self._keep(evolve(self.status, failures=0, next_try=0.0))
        if not self._is_installed and (hurried or now >= self._install_at):
            self._happened(Event.WRITTEN)
            await self._put_in_force()
            return
        if self.status.next_try > now + _LONGEST_AHEAD:  # the clock was set back
            await self._keep(evolve(self.status, next_try=now))
        if self._reason() is None and (
            now >= self._look_at or self._look_at > now + _LONGEST_AHEAD
        ):
            self._happened(Event.LOOK)
            await self._look()
        reason = self._reason()
        if reason is None and self.status.failures:  # the settings of before are back
            await self._keep(evolve(self.status, problem="", failures=0, next_try=0.0))
        if reason is None or self._wall_time() < self.status.next_try:
            return
        self._happened(Event.DUE)
        await self._attempt(reason)

    async def _read(self) -> None:
        self.status = await self._executor(self._store.status)
        try:
            self.current = await self._executor(self._store.certificate)
        except CertificateError as error:
            # It is not the one in force: the start has set that aside.
            self._log.error("{text}", text=str(error))
        self._has_read = True

    def _reason(self) -> str | None:
        """Return why a certificate is due now; None: none is."""
        current, renewed_at = self.current, self.renewal_time()
        if current is None or renewed_at is None:
            return "there is none yet"
        if self.status.directory != self._settings.directory:
            return "it is to be of another authority"
        if set(self._names) != set(self.status.names):
            return "it is for other names"
        if not is_of(current.key, self._settings.key_type):
            return "its key is of another kind"
        if self._wall_time() >= renewed_at:
            return "its time has come"
        return None

    async def _look(self) -> None:
        """Ask the authority when it wants the certificate renewed (RFC 9773 §4.2)."""
        self._look_at = self._wall_time() + LOOK_AGAIN
        assert self.current is not None
        identifier = certificate_id(self.current.certificate)
        try:
            answer = await self._send(Request("GET", self._settings.directory))
            if not answer.is_good:
                raise ACMEError(answer.problem.text, answer.retry_after)
            base = Directory.read(answer).renewal_info
            if base is None or identifier is None:
                await self._keep_window(None)
                return
            answer = await self._send(Request("GET", f"{base.rstrip('/')}/{identifier}"))
            self._look_at = self._wall_time() + look_again(answer)
            await self._keep_window(Window.read(answer, self._random, self.status.window))
        except ACMEError as error:
            # What it has said before, or a third of the life, holds on (RFC 9773 §4.3.3).
            self._log.debug("the authority does not say when to renew: {why}", why=error.reason)

    async def _keep_window(self, window: Window | None) -> None:
        if window != self.status.window:
            await self._keep(evolve(self.status, window=window))

    async def _keep(self, status: Status) -> None:
        self.status = status
        try:
            await self._executor(self._store.save_status, status)
        except OSError as error:
            self._log.error(
                "how the renewal of a certificate stands cannot be written: {error}",
                error=printable(str(error)),
            )

    async def _attempt(self, reason: str) -> None:
        names, directory = names_of(self._names), self._settings.directory
        self._log.info(
            "a certificate of {host} is asked for at {directory}: {reason}",
            host=names,
            directory=directory,
            reason=reason,
        )
        try:
            attempt = Deferred.fromCoroutine(self._issue())
            await attempt.addTimeout(_PATIENCE, self._clock, _timed_out)
        except ACMEError as error:
            await self._note(error)
        except (CertificateError, OSError, ValueError) as error:  # of our own files
            await self._note(ACMEError(printable(str(error))))
        except _ENDED:
            raise
        except Exception as error:  # a mistake of ours must not ask the authority again and again
            self._log.failure("an attempt to get a certificate")
            await self._note(ACMEError(f"{type(error).__name__}, which the log describes"))
        else:
            self._happened(Event.WRITTEN)
            self._is_installed = False
            await self._put_in_force()

    async def _note(self, error: ACMEError) -> None:
        """Keep why an attempt has failed, and when the next is made."""
        now, failures = self._wall_time(), self.status.failures + 1
        delay = retry_delay(failures, error, self._random)
        await self._keep(
            evolve(
                self.status,
                problem=error.reason,
                failures=failures,
                failed_at=now,
                next_try=now + delay,
            )
        )
        self._log.error("{text}", text=self.problem)

    async def _issue(self) -> None:
        prepared = await self._executor(
            self._prepare, self._settings, self._names, self.current, self.status
        )
        unsaved: list[Account] = []
        self._issuance = issuance = Issuance(prepared.wanted, prepared.account, save=unsaved.append)
        difference = 0.0
        step = issuance.begin()
        while not isinstance(step, Issued):
            if isinstance(step, Pause):
                await sleep(self._clock, step.seconds)
                step = issuance.waited()
                continue
            answer = await self._send(step)
            difference = answer.clock_difference
            try:
                step = issuance.answered(answer)
            finally:
                while unsaved:
                    await self._executor(
                        self._store.save_account, prepared.wanted.directory, unsaved.pop(0)
                    )
        try:
            chain = await self._executor(
                checked_chain,
                step.chain,
                key=prepared.key,
                names=prepared.wanted.names,
                now=self._wall_time(),
            )
        except ACMEError as error:
            raise _with_clocks(error, difference) from None
        written = key_pem(prepared.key) + b"".join(_pem(each) for each in chain)
        try:
            await self._executor(self._store.save_certificate, written)
        except OSError as error:
            raise ACMEError(
                f"the certificate that was issued cannot be written: {printable(str(error))}",
                spent=True,
            ) from None
        self.current = await self._executor(self._store.certificate)
        self._look_at = self._wall_time() + _SHORTEST
        await self._keep(
            Status(
                directory=prepared.wanted.directory,
                names=prepared.wanted.names,
                issued_at=self._wall_time(),
            )
        )

    def _prepare(
        self,
        settings: ACMESettings,
        names: tuple[str, ...],
        current: CertifiedKey | None,
        status: Status,
    ) -> _Prepared:
        """Read and make what an attempt needs. Blocks.

        Raises:
            CertificateError, OSError, ValueError: a file cannot be used.
        """
        account = self._store.account(settings.directory)
        binding = None
        if settings.eab_key_id is not None and settings.eab_key_file is not None:
            try:
                key = from_base64url(read_binding_key(settings.eab_key_file))
            except ValueError:
                file = printable(settings.eab_key_file)
                raise ValueError(f"{file}: found no base64url, expected the key alone") from None
            binding = Binding(settings.eab_key_id, key)
        replaces = None
        if current is not None and status.directory == settings.directory:
            replaces = certificate_id(current.certificate)
        certificate_key = self._key(settings, current)
        wanted = Wanted(
            directory=settings.directory,
            names=names,
            csr=certificate_request(names, certificate_key),
            contact=settings.contact,
            profile=settings.profile,
            binding=binding,
            replaces=replaces,
        )
        return _Prepared(wanted, account, certificate_key)

    def _key(self, settings: ACMESettings, current: CertifiedKey | None) -> PrivateKeyTypes:
        """Return the key of the next certificate: the same, so that TLSA 3 1 1 goes on to fit."""
        if not settings.new_key:
            if current is not None and is_of(current.key, settings.key_type):
                return current.key
            if current is None and self._fallback_key is not None:
                with suppress(CertificateError):
                    key = read_key(self._fallback_key)
                    if is_of(key, settings.key_type):
                        return key
        return new_key(settings.key_type)

    async def _put_in_force(self) -> None:
        assert self.current is not None
        try:
            await self._install()
        except _ENDED:
            raise
        except Exception as error:
            why = printable(str(error)) or type(error).__name__
            self._not_installed = why
            self._install_at = self._wall_time() + _INSTALL_AGAIN
            self._log.error("{text}", text=self.problem)
            return
        self._is_installed, self._not_installed = True, ""
        renewed_at = self.renewal_time()
        assert renewed_at is not None
        self._log.info(
            "the certificate is in force, until it is renewed on {when}: {certificate}",
            when=f"{datetime.fromtimestamp(renewed_at, UTC):%Y-%m-%d}",
            certificate=self.current.description,
        )


_LONGEST_AHEAD = 1_209_600.0  # seconds: no time that was set here is further ahead


def describe(status: Status, current: CertifiedKey | None, names: str, directory: str) -> str:
    """Return a line about an attempt that has failed, printable.

    Args:
        status: with the problem.
        current: the certificate in force; None: the self-signed one is.
        names: of the certificate.
        directory: of the authority.
    """
    moment = datetime.fromtimestamp(status.next_try, UTC)
    if current is None:
        stays = "until then the self-signed one serves"
    else:
        end = current.certificate.not_valid_after_utc
        stays = f"the one in force is valid until {end:%Y-%m-%d %H:%M} UTC"
    return (
        f"no new certificate of {names} from {printable(directory)}: {status.problem};"
        f" tried again at {moment:%Y-%m-%d %H:%M} UTC; {stays}"
    )


def _with_clocks(error: ACMEError, difference: float) -> ACMEError:
    """Return an error with a word about the clocks, where those differ."""
    if abs(difference) < _CLOCKS_DIFFER:
        return error
    way = "ahead of" if difference > 0 else "behind"
    words = f"; the clock of the authority is {abs(difference) / 3600:.0f} h {way} ours"
    return evolve(error, reason=error.reason + words)


def _timed_out(result: object, timeout: float) -> object:
    if isinstance(result, Failure) and result.check(CancelledError):
        raise ACMEError(f"the authority has not come to an end within {timeout / 60:.0f} min")
    return result


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)
