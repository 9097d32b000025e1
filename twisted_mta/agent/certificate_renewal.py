"""The certificate of ``[acme]``, as the process that has the state directory keeps it in force.

With workers that is the parent: it gets the certificate and writes it, and every worker reads it.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..config import ACMESettings, Config
from ..interfaces import Executor, Files, Random, Resolver, WallTime
from ..tls.acme.messages import LARGEST, ACMEError, Answer, Request
from ..tls.acme.renewer import Renewer
from ..tls.acme.store import Store
from ..tls.acme.transport import Transport
from ..tls.certificates import CertificateError
from ..tls.client import ClientContexts, ClientTLS
from ..tls.https import HTTPSClient
from ..tls.self_signed import SELF_SIGNED


class CertificateRenewal:
    """Keeps the certificate of ``[acme]`` in force.

    Args:
        config: the settings, with ``[acme]``.
        reactor: IReactorTime, IReactorTCP.
        wall_time: the time of day.
        random: chooses times.
        files: the disk.
        executor: runs what blocks.
        resolver: looks hosts of the authority up.
        install: puts the certificate that was written in force, in all processes.
    """

    _log = Logger()

    def __init__(
        self,
        config: Config,
        *,
        reactor: Any,
        wall_time: WallTime,
        random: Random,
        files: Files,
        executor: Executor,
        resolver: Resolver,
        install: Callable[[], Awaitable[Sequence[str]]],
    ) -> None:
        self._settings = _settings(config)
        self._reactor = reactor
        self._wall_time = wall_time
        self._executor = executor
        self._resolver = resolver
        self._install = install
        self._store = Store(config.state_dir, files)
        self._contexts = ClientContexts()
        self._transport = self._make_transport()
        self._renewer = Renewer(
            self._settings,
            config.certificate_names,
            store=self._store,
            send=self._send,
            install=lambda: Deferred.fromCoroutine(self._put_in_force()),
            clock=reactor,
            wall_time=wall_time,
            random=random,
            executor=executor,
            fallback_key=os.path.join(config.state_dir, SELF_SIGNED),
        )

    def check_certificate(self) -> None:
        """Set a certificate aside that cannot be used, so that the self-signed one serves. Blocks.

        Raises:
            OSError: it cannot be renamed.
        """
        try:
            self._store.certificate()
        except CertificateError as error:
            aside = self._store.set_aside()
            self._log.error(
                "{text}; it is set aside as {file}, and another is asked for",
                text=str(error),
                file=aside,
            )

    def start(self) -> None:
        """Begin."""
        self._renewer.start()

    def stop(self) -> Deferred[None]:
        """End; fires once nothing is under way."""
        return self._renewer.stop()

    def use(self, config: Config) -> None:
        """Take other settings, or the same again: an order that has failed is tried at once."""
        self._settings = _settings(config)
        self._contexts = ClientContexts()  # the files of authorities are read again
        self._transport = self._make_transport()
        self._renewer.use(self._settings, config.certificate_names)

    def answers(self) -> Mapping[str, str]:
        """Return the answers to the challenges of the authority, by token."""
        return self._renewer.answers()

    @property
    def problem(self) -> str:
        """Why there is no new certificate, or why it is not in force; empty: none is due.

        One line, printable.
        """
        return self._renewer.problem

    async def _put_in_force(self) -> None:
        await self._install()

    def _make_transport(self) -> Transport:
        client = HTTPSClient(
            reactor=self._reactor,
            resolver=self._resolver,
            contexts=self._contexts,
            tls=self._tls,
            largest=LARGEST,
        )
        return Transport(client, wall_time=self._wall_time)

    def _tls(self) -> ClientTLS:
        return ClientTLS(verify=True, authorities=self._settings.authorities)

    def _send(self, request: Request) -> Deferred[Answer]:
        return Deferred.fromCoroutine(self._send_ready(request))

    async def _send_ready(self, request: Request) -> Answer:
        tls, contexts, transport = self._tls(), self._contexts, self._transport
        if not contexts.has(tls):
            try:
                await self._executor(contexts.make, tls)
            except CertificateError as error:
                raise ACMEError(str(error)) from None
        return await transport.send(request)


def _settings(config: Config) -> ACMESettings:
    assert config.acme is not None
    return config.acme
