"""The service that twistd runs: signals, privileges, and the first lines of the log."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.selectreactor import SelectReactor
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from ..config import ConfigError
from ..config.change import WARNING
from ..health.trouble import Trouble
from ..mail.printable import printable
from ..queue.store.contract import NewerSchema, StateInUse, StoreError
from ..service import CannotReload, MailTransferAgent
from ..system.accepting import raise_limit
from ..system.events import skip_log_context
from ..system.interpreter import settle, tune
from ..system.ownership import NotOurs
from ..system.ports import Bound, CannotListen
from ..system.real_world import monotonic_microseconds
from ..system.repetition import Repetition
from ..system.timers import use_monotonic_time
from ..telemetry.metrics import table
from ..tls.certificates import CertificateError
from .first_steps import log_first_steps
from .options import Options
from .systemd import ServiceManager

__all__ = ["Options", "makeService"]


# Seconds within which two signals count as one: a signal to a group of processes may come twice.
_ONE_SIGNAL = 0.5

# Seconds between two reports to itself: the log and the service manager learn of a trouble, and a
# monitor that asks once a minute knows whether the state directory is still there.
_REPORTING = 2.0

_PRIVILEGED = 1024  # the first port that needs no privilege

UNCHANGED = "nothing has changed"


class CannotStart(Exception):
    """The program cannot start; the text is for the operator."""


def makeService(options: Options) -> IService:
    """Return the service that twistd runs. It opens and starts nothing yet: twistd forks first."""
    from twisted.internet import reactor  # noqa: TID251 - twistd has chosen it, and runs this one

    use_monotonic_time(reactor)
    skip_log_context(reactor)
    return Daemon(options, reactor)


class Daemon(MultiService):
    """A mail transfer agent as the process of twistd.

    Args:
        options: of the command line, parsed.
        reactor: the one that twistd runs.
    """

    _log = Logger()

    def __init__(self, options: Options, reactor: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        twistd = options.parent
        self._foreground = twistd is None or bool(twistd.get("nodaemon"))
        # twistd --uid 0 asks for root explicitly.
        self._root_wanted = twistd is not None and twistd.get("uid") == 0
        self._options = options
        self._reactor = reactor
        self._stopping = False
        self._catches_signals = False
        self._stopped_at = 0.0  # by the clock
        self._mta = MailTransferAgent(
            options.config,
            reactor=reactor,
            log_lines=options.log.write_lines if options.log is not None else None,
            actions={"reload": self.reload, "reopen-logs": self._reopen_logs},
            control=True,
            troubles=self._troubles,
        )
        if options.log is not None:
            log = options.log
            self._mta.metrics.read(table.LOG_LINES_DROPPED, lambda: log.dropped)
        self._reporting = Repetition(self._mta.status, reactor)
        self._manager = ServiceManager(os.environ, clock=reactor, monotonic=monotonic_microseconds)
        self._mta.watch(lambda status: self._manager.status(status.brief))
        self._mta.setServiceParent(self)

    def _troubles(self) -> Sequence[Trouble]:
        log = self._options.log
        if log is None or not log.trouble:
            return ()
        return (Trouble(kind="log", text=f"the log cannot be written: {log.trouble}"),)

    def setServiceParent(self, parent: Any) -> None:
        """Become part of twistd's application, and hand it the log."""
        log = self._options.log
        # twistd logs to this component instead of making an observer of its own.
        if log is not None and isinstance(parent, Componentized):
            try:
                log.open()
            except OSError as error:
                shown = printable(log.path or "standard output")
                raise SystemExit(f"twisted-mta: log to {shown}: {error.strerror}") from None
            parent.setComponent(ILogObserver, log)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def privilegedStartService(self) -> None:
        """Bind the ports, or end with the reason why not."""
        try:
            super().privilegedStartService()  # type: ignore[no-untyped-call]
        except CannotListen as error:
            raise self._start_error(error) from None

    def startService(self) -> None:
        """Start, or end with the reason why not."""
        # A service manager may end the program as soon as it is ready, before the reactor runs; and
        # the reactor sets handlers of its own when it runs.
        self._catch_signals()
        self._reactor.callWhenRunning(self._catch_signals)
        tune()
        if not isinstance(self._reactor, SelectReactor):  # it is limited to 1,024 descriptors
            raise_limit()
        ready = self._mta.when_ready()
        try:
            self._refuse_root()
            super().startService()  # type: ignore[no-untyped-call]
        except (
            CannotStart,
            NotOurs,
            StateInUse,
            NewerSchema,
            StoreError,
            CertificateError,
            OSError,
            ValueError,
        ) as error:
            ready.addErrback(lambda _: None)
            raise self._start_error(error) from None
        ready.addCallbacks(lambda _: self._started(), self._start_failed)

    def stopService(self) -> Deferred[Any]:
        """Drain."""
        self._stopping = True
        self._reporting.stop()
        self._manager.stopping()
        stopped: Deferred[Any] = super().stopService()  # type: ignore[no-untyped-call]
        return stopped

    def _refuse_root(self) -> None:
        """Refuse to run as root where other machines can connect; twistd has shed its privileges.

        Raises:
            CannotStart: the process is root, and was not asked to be.
        """
        if os.geteuid() != 0 or self._root_wanted:
            return
        exposed = [str(bound) for bound in self._mta.bound if _exposed(bound)]
        if exposed:
            raise CannotStart(
                f"listening on {', '.join(exposed)} as root; twistd --uid USER --gid GROUP binds"
                " the ports and goes on as that user (twistd --uid 0 stays root)"
            )
        self._log.warn(
            "this runs as root, which it does not need to: twistd --uid USER --gid GROUP"
        )

    def _start_error(self, error: Exception) -> BaseException:
        if isinstance(error, OSError) and error.filename is not None:
            # The reason comes first: in the background twistd cuts the text off after 100 octets.
            file = os.fsdecode(error.filename)
            why = f"{error.strerror}: {printable(file)}"
            if f"{file}/".startswith(f"{self._mta.config.state_dir}/"):
                why += f"; --state-dir has to be a directory of user number {os.geteuid()}"
            error = CannotStart(why)
        # In the background twistd's first process waits for the result of the start, and learns of
        # exceptions only.
        return SystemExit(f"twisted-mta: {error}") if self._foreground else CannotStart(str(error))

    def _started(self) -> None:
        settle()
        if self._mta.config.workers == 1:  # a parent asks its workers anyway
            self._reporting.start(_REPORTING)
        self._say_what_to_try()
        self._manager.ready()

    def _start_failed(self, failure: Failure) -> None:
        """End the program: a start has failed after `startService` returned."""
        if self._stopping:
            return
        why = failure.getErrorMessage()
        self._log.critical("cannot start: {why}", why=why)
        if self._foreground:
            sys.stderr.write(f"twisted-mta: {why}\n")
        atexit.register(os._exit, 1)  # twistd has no other way to exit with a status
        self._stop()

    # Signals.

    def _catch_signals(self) -> None:
        # twistd would exit with status 143; a drained MTA exits with 0.
        call: Callable[[Callable[[], object]], None] = self._reactor.callFromThread
        actions = {
            signal.SIGTERM: self._stop_or_hurry,
            signal.SIGINT: self._stop_or_hurry,
            signal.SIGHUP: self._reload,
            signal.SIGUSR1: self._reopen_logs,
        }
        for number in actions:
            signal.signal(number, lambda number, frame: call(actions[signal.Signals(number)]))

        def ignore() -> None:
            # Python restores the handlers at its end: a late signal would end it with status 143.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            # A signal that came while the reactor started, between its handlers and ours, has
            # drained all the same; twistd would repeat it to end with its status.
            self._reactor._exitSignal = None

        if not self._catches_signals:
            self._catches_signals = True
            self._reactor.addSystemEventTrigger("after", "shutdown", ignore)

    def _stop_or_hurry(self) -> None:
        if not self._stopping:
            self._stop()
        elif self._reactor.seconds() - self._stopped_at >= _ONE_SIGNAL:
            self._log.warn("told once more to end: what is under way is cut off")
            self._mta.hurry()

    def _stop(self) -> None:
        self._stopping = True
        self._stopped_at = self._reactor.seconds()

        def stop() -> None:
            with contextlib.suppress(ReactorNotRunning):  # it ends already
                self._reactor.stop()

        # A start may fail before twistd runs the reactor.
        self._reactor.callWhenRunning(stop)

    def _reload(self) -> None:
        self._manager.reloading()
        self.reload().addBoth(lambda _: self._manager.reloaded())

    def reload(self) -> Deferred[list[str]]:
        """Read settings, certificates and all other files again.

        Returns:
            Fires with lines that say what has changed; fails with `CannotReload`. Both are logged.
        """

        def refused(failure: Failure) -> Failure:
            self._log.error(
                "nothing was reloaded, what was in force stays: {error}",
                error=failure.getErrorMessage(),
            )
            return failure

        def reloaded(changes: list[str]) -> list[str]:
            # The parts log their warnings themselves.
            new = [change for change in changes if not change.startswith(WARNING)]
            for change in new or [UNCHANGED]:
                self._log.info("reloaded: {change}", change=change)
            return changes if new else [UNCHANGED, *changes]

        return Deferred.fromCoroutine(self._reloaded()).addCallbacks(reloaded, refused)

    async def _reloaded(self) -> list[str]:
        try:
            config = self._options.reread()
        except ConfigError as error:
            raise CannotReload(str(error)) from None
        return await self._mta.reload(config)

    def _reopen_logs(self) -> list[str]:
        log = self._options.log
        if log is None:
            return ["the log is twistd's own, and stays as it is"]
        if log.reopen():
            return [f"{log.path} was opened anew" if log.path else "standard output stays as it is"]
        return [f"{log.path} cannot be opened; the log goes on in the old file, and says why"]

    def _say_what_to_try(self) -> None:
        mta = self._mta
        mailboxes = mta.agent.mailboxes if mta.config.workers == 1 else None
        log_first_steps(self._log, mta.config, mta.bound, mailboxes)


def _exposed(bound: Bound) -> bool:
    """Whether other machines reach a port, or only root can bind it."""
    address: Any = bound.address
    host = getattr(address, "host", None)
    if host is None:
        return False  # a UNIX socket
    return not ip_address(host).is_loopback or address.port < _PRIVILEGED
