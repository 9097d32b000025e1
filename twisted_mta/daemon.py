"""What belongs to twistd alone: options, signals, and what the operator reads at the start."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReactorCore
from twisted.logger import Logger

from .listeners import CannotListen
from .options import Options
from .queue.store import NewerSchema, StateInUse, StoreError
from .server.certificate import CertificateError
from .service import MailTransferAgent

__all__ = ["Options", "makeService"]

# Seconds that a thread may keep the interpreter before another gets it (Python's own: 0.005). A
# commit gives it up at every call of SQLite, and would wait that long for it each time.
_SWITCH_INTERVAL = 0.0005

_TRY = (
    'try: python3 -c \'import smtplib; s = smtplib.SMTP("{host}", {port}); s.starttls();'
    ' s.sendmail("me@{domain}", ["you@{domain}"], "Subject: Hello\\r\\n\\r\\nIt works.\\r\\n")\''
)


def makeService(options: Options) -> IService:
    """Return the service that twistd runs. Nothing is opened or started here: twistd forks yet."""
    from twisted.internet import reactor  # noqa: TID251 - twistd has chosen it, and runs this one

    twistd = options.parent
    foreground = twistd is None or bool(twistd.get("nodaemon"))
    return _Daemon(MailTransferAgent(options.config, reactor=reactor), reactor, foreground)


_NOTHING_CHANGED = "the certificates have not changed; other settings are read at a start"


class CannotStart(Exception):
    """What keeps the program from starting, for the one who started it."""


class _Daemon(MultiService):
    """A mail transfer agent as a process of its own."""

    _log = Logger()

    def __init__(self, mta: MailTransferAgent, reactor: Any, foreground: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._foreground = foreground
        self._mta = mta
        self._reactor = reactor
        mta.setServiceParent(self)  # type: ignore[no-untyped-call]

    def privilegedStartService(self) -> None:
        """Bind the ports, or end with a word on why not."""
        try:
            super().privilegedStartService()  # type: ignore[no-untyped-call]
        except CannotListen as error:
            raise self._end(error) from None

    def startService(self) -> None:
        """Start, or end with a word on why not."""
        self._reactor.callWhenRunning(_catch_signals, self._reactor, self._reload)
        sys.setswitchinterval(_SWITCH_INTERVAL)
        try:
            super().startService()  # type: ignore[no-untyped-call]
        except (StateInUse, NewerSchema, StoreError, CertificateError, OSError) as error:
            raise self._end(error) from None
        self._say_what_to_try()

    def _end(self, error: Exception) -> BaseException:
        # In the background twistd's first process waits to be told how the start went, and hears
        # of exceptions alone.
        return SystemExit(f"twisted-mta: {error}") if self._foreground else CannotStart(str(error))

    def _reload(self) -> None:
        try:
            changes = self._mta.reload()
        except (CertificateError, OSError) as error:
            self._log.error(
                "nothing was reloaded, what was in force stays: {error}", error=str(error)
            )
            return
        for change in changes or [_NOTHING_CHANGED]:
            self._log.info("reloaded: {change}", change=change)

    def _say_what_to_try(self) -> None:
        mta = self._mta
        tried = False
        for bound in mta.bound:
            address: Any = bound.port.getHost()
            if not hasattr(address, "port"):
                continue  # a UNIX socket
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
            if bound.kind == "web":
                shown = f"[{host}]" if ":" in host else host
                self._log.info("look: http://{host}:{port}/", host=shown, port=address.port)
            elif not tried and not bound.implicit_tls:
                tried = True
                domain = mta.config.local_domains[0]
                self._log.info(_TRY, host=host, port=address.port, domain=domain)
                self._log.info(
                    "then: cat {maildir}/{domain}/you/new/*",
                    maildir=mta.config.maildir,
                    domain=domain,
                )


def _catch_signals(reactor: IReactorCore, reload: Callable[[], None]) -> None:
    # twistd would end with status 143; a drained MTA has done what it was asked to.
    def end() -> None:
        with contextlib.suppress(ReactorNotRunning):  # it drains already
            reactor.stop()

    def stop(number: int, frame: object) -> None:
        reactor.callFromThread(end)  # type: ignore[attr-defined]

    def hang_up(number: int, frame: object) -> None:
        reactor.callFromThread(reload)  # type: ignore[attr-defined]

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, hang_up)
