"""Give an embedded agent other settings while the application runs.

    python restart.py [PORT]

Most settings are put in force by `reload`, without a pause. Listeners, and others that only a start
can apply, take a new agent: the old one ends its sessions and deliveries, and the new one goes on
with the same queue. A line from standard input is the new hostname.
"""

from __future__ import annotations

import sys
from typing import Any

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.stdio import StandardIO
from twisted.logger import Logger, globalLogBeginner, textFileLogObserver
from twisted.protocols.basic import LineReceiver

from twisted_mta import Config, Listener, MailTransferAgent
from twisted_mta.service import CannotReload

log = Logger()


class Mail:
    """Holds the agent of an application.

    Attributes:
        agent: the one that runs; ask for it anew each time.
    """

    def __init__(self, reactor: Any, config: Config) -> None:
        self._reactor = reactor
        self._changing = DeferredLock()
        self.agent = self._new(config)

    def _new(self, config: Config) -> MailTransferAgent:
        return MailTransferAgent(config, reactor=self._reactor)

    def change(self, config: Config) -> Deferred[None]:
        """Put other settings in force, one change after the other.

        Fails with the error of the start, after a start with the settings of before.
        """
        changed: Deferred[None] = self._changing.run(
            lambda: Deferred.fromCoroutine(self._change(config))
        )
        return changed

    async def _change(self, config: Config) -> None:
        try:
            await self.agent.reload(config)
        except CannotReload as reason:
            log.info("a new agent starts, since {reason}", reason=str(reason))
            await self._restart(config)

    async def _restart(self, config: Config) -> None:
        before = self.agent.config
        agent = self._new(config)  # errors of settings come before anything has stopped
        await self.agent.stopService()
        try:
            await self._start(agent)
        except Exception:
            await agent.stopService()
            await self._start(self._new(before))
            raise

    async def _start(self, agent: MailTransferAgent) -> None:
        self.agent = agent
        agent.startService()
        await agent.when_ready()


class Lines(LineReceiver):
    """Takes new hostnames from standard input."""

    delimiter = b"\n"

    def __init__(self, mail: Mail) -> None:
        self.mail = mail

    def lineReceived(self, line: bytes) -> None:
        """Change the hostname."""
        try:
            config = evolve(self.mail.agent.config, hostname=line.decode())
        except ValueError as error:
            log.error("{error}", error=error)
            return
        self.mail.change(config).addErrback(lambda failure: log.failure("not changed", failure))


def main(port: str = "2525") -> None:
    """Serve until a signal ends it."""
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    config = Config(
        state_dir="mail-state", listeners=[Listener(endpoint=f"tcp:{port}:interface=127.0.0.1")]
    )
    mail = Mail(reactor, config)
    mail.agent.startService()
    reactor.addSystemEventTrigger("before", "shutdown", lambda: mail.agent.stopService())
    StandardIO(Lines(mail))
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
