"""The configured listeners of one process: their factories, intakes, settings and certificates."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from ..config import Config, Listener
from ..config.change import WARNING
from ..interfaces import Files, Limits, WallTime
from ..policy.networks import Network, Networks
from ..server.factory import ImplicitTLSFactory, ListenerFactory
from ..server.intake import Intake
from ..server.proxy import ProxyFactory
from ..server.timeouts import Timeouts
from ..smtp.extension import Extension
from ..smtp.extension.auth import AUTH
from ..smtp.extension.deliverby import deliver_by
from ..smtp.extension.futurerelease import future_release
from ..smtp.extension.mtpriority import MT_PRIORITY
from ..smtp.extension.standard import standard_extensions
from ..smtp.extension.verify import expn, vrfy
from ..smtp.extension.xclient import xclient
from ..smtp.peer import Peer
from ..smtp.server.dialect import LMTP, SMTP
from ..smtp.server.settings import SessionSettings
from ..system.outbox import Outbox
from ..system.ownership import peer
from ..system.work import Work
from ..telemetry.metrics import Metrics, table
from ..tls.certificate_files import certificate_file, certificate_files
from ..tls.certificates import CertificateFault, CertificateFiles, CertifiedKey
from ..tls.handshake import suffices
from ..tls.self_signed import SELF_SIGNED, self_signed
from ..tls.server import LoadedContexts, ServerContext, TLSSettings
from .authentication import Authentication

# Seconds for a decision. RFC 5321 §4.5.3.2: clients wait for 5 minutes, and longer at the end of
# the content. Policies and checkers of passwords have shorter limits of their own; this one is for
# what has none, such as a database that does not answer.
_DECISION_TIMEOUT = 280.0


class Listeners:
    """The listeners through which mail comes in; their ports are bound elsewhere.

    Args:
        config: the configuration.
        reactor: the clock of connections.
        intake: makes the intake of a listener.
        authentication: answers all questions about AUTH.
        limits: counts connections; None: in this process alone.
        metrics: counts connections, refusals and handshakes; None: nothing is counted.
        wall_time: for the dates of certificates.
        outbox: where replies wait for the end of the reactor's turn.
        extensions: of ESMTP, besides the standard ones.

    Attributes:
        factories: one for each listener, in the order of the configuration.
        intakes: likewise.
    """

    _log = Logger()

    def __init__(
        self,
        config: Config,
        *,
        reactor: Any,
        intake: Callable[[Listener], Intake],
        authentication: Authentication,
        limits: Limits | None = None,
        metrics: Metrics | None = None,
        wall_time: WallTime,
        outbox: Outbox,
        extensions: Sequence[Extension] = (),
    ) -> None:
        self._config = config
        self._extensions = tuple(extensions)
        self._reactor = reactor
        self._wall_time = wall_time
        self._authentication = authentication
        self._contexts = [
            ServerContext(_tls_settings(config, listener)) for listener in config.listeners
        ]
        self.intakes = [intake(listener) for listener in config.listeners]
        self.factories = [
            ListenerFactory(
                intake,
                clock=reactor,
                settings=self._session_settings(config, listener, intake),
                tls=_offered(listener, context),
                timeouts=_timeouts(listener),
                max_connections=listener.max_connections,
                max_connections_per_peer=listener.max_connections_per_peer,
                limits=limits,
                name=str(number),
                kind=listener.kind,
                metrics=metrics,
                authenticator=authentication.authenticator,
                outbox=outbox,
                user_of=_user_of if listener.is_local_submission else _unknown_user,
            )
            for number, (listener, intake, context) in enumerate(
                zip(config.listeners, self.intakes, self._contexts, strict=True)
            )
        ]
        for factory in self.factories:
            factory.fails_on_cue = config.capture
        if metrics is not None:
            for kind in dict.fromkeys(listener.kind for listener in config.listeners):
                metrics.read(table.CERTIFICATE_EXPIRY, partial(self._first_expiry, kind), kind)

    def _first_expiry(self, kind: str) -> float | None:
        """Return the wall time at which the first certificate of a kind of listener expires."""
        pairs = zip(self._config.listeners, self._contexts, strict=True)
        offered = (_offered(each, context) for each, context in pairs if each.kind == kind)
        in_force = (context for context in offered if context is not None and context.ready)
        return min((context.expires_at for context in in_force), default=None)

    def certificate_faults(self) -> list[CertificateFault]:
        """Return each fault in the dates of the certificates in force, once."""
        now = self._wall_time()
        return list(dict.fromkeys(fault for each in self._in_force() for fault in each.faults(now)))

    def _in_force(self) -> list[ServerContext]:
        """Return the contexts of the listeners that offer TLS, once their certificates are read."""
        offered = map(_offered, self._config.listeners, self._contexts)
        return [context for context in offered if context is not None and context.ready]

    def port_factory(self, number: int) -> Any:
        """Return the factory for the port of a listener, with its implicit TLS and proxy header.

        Args:
            number: of the listener, from 0.
        """
        listener, factory = self._config.listeners[number], self.factories[number]
        outermost: Any = ImplicitTLSFactory(factory) if listener.implicit_tls else factory
        if listener.proxy_protocol_from:
            outermost = ProxyFactory(
                outermost,
                listener.proxy_protocol_from,
                clock=self._reactor,
                timeout=listener.proxy_protocol_timeout,
            )
        return outermost

    def _session_settings(
        self, config: Config, listener: Listener, intake: Intake
    ) -> SessionSettings:
        auth = self._authentication.settings(listener)
        extensions = self._all_extensions(listener, intake)
        return SessionSettings(
            hostname=config.hostname,
            dialect=LMTP if listener.kind == "lmtp" else SMTP,
            extensions=extensions if auth is None else (*extensions, AUTH),
            require_tls=listener.require_tls,
            requires_tls_of=_is_in(listener.require_tls_from),
            tls_suffices=suffices(
                listener.minimum_tls,
                cipher_bits=listener.minimum_cipher_bits,
                client_certificate=listener.client_certificates == "require",
            ),
            # On submission no mail is taken before AUTH, and then from these clients alone.
            trusts=(lambda session: True) if listener.is_submission else intake.trusts,
            decides_on_client=intake.decides_on("client"),
            decides_on_helo=intake.decides_on("helo"),
            bare_newlines=listener.bare_newlines,
            long_lines=listener.long_lines,
            max_message_size=listener.max_message_size,
            max_recipients=listener.max_recipients,
            max_errors=listener.max_errors,
            auth=auth,
        )

    def _all_extensions(self, listener: Listener, intake: Intake) -> tuple[Extension, ...]:
        extensions = standard_extensions(listener.max_message_size, listener.max_recipients)
        if listener.kind != "lmtp":
            extensions += (deliver_by(int(listener.minimum_deliver_by)), MT_PRIORITY)
        longest_hold = int(listener.max_future_release)
        if listener.is_submission and longest_hold:
            extensions += (future_release(longest_hold, self._wall_time),)
        if listener.xclient_from:
            authenticator = self._authentication.authenticator
            account_of = str if authenticator is None else authenticator.account_of
            extensions += (xclient(_is_in(listener.xclient_from), account_of),)
        if listener.vrfy_from:
            extensions += (vrfy(_is_in(listener.vrfy_from), intake.lookup),)
        if listener.expn_from:
            extensions += (expn(_is_in(listener.expn_from), intake.lookup),)
        return extensions + self._extensions

    def drain(self) -> Deferred[Any]:
        """End the sessions after their transactions; fires when the last connection is closed."""
        return DeferredList([factory.drain() for factory in self.factories])

    def abandon(self, *, at_once: bool = False) -> None:
        """End all connections, with 421 or (``at_once``) without a reply."""
        for factory in self.factories:
            factory.abandon(at_once=at_once)

    def load_issued(self) -> Work[Callable[[], list[str]]]:
        """Read the certificate that an authority has issued, in slices of work (`load`).

        No other file is read: the operator may be changing one.
        """
        issued = certificate_file(self._config.state_dir)
        known = [
            key
            for context in self._contexts
            for key in context.keys
            if key.certificate_file != issued
        ]
        return self.load(self._config, known)

    def load(
        self, config: Config, known: Sequence[CertifiedKey] = ()
    ) -> Work[Callable[[], list[str]]]:
        """Read the certificates, keys and authorities of another configuration, in slices of work.

        Args:
            config: with the same listeners at the same ports.
            known: certificates that stay as they are, and are not read.

        Returns:
            A function that puts them and the other settings of listeners in force, and returns
            printable lines about changed files, and warnings, which it has logged. It cannot fail.

        Raises:
            CertificateError: a file cannot be used.
        """
        loaded: list[tuple[ServerContext, LoadedContexts]] = []
        files = CertificateFiles(known)
        for listener, context in zip(config.listeners, self._contexts, strict=True):
            if listener.tls == "none":
                continue
            contexts = yield from context.load(_tls_settings(config, listener), files)
            loaded.append((context, contexts))

        def use() -> list[str]:
            self._config = config
            for listener, intake, factory, context in zip(
                config.listeners, self.intakes, self.factories, self._contexts, strict=True
            ):
                factory.tls = _offered(listener, context)
                factory.settings = self._session_settings(config, listener, intake)
                factory.authenticator = self._authentication.authenticator
                factory.timeouts = _timeouts(listener)
                factory.max_connections = listener.max_connections
                factory.max_connections_per_peer = listener.max_connections_per_peer
            # Listeners share files: each line is logged once.
            changes = dict.fromkeys(
                line for context, contexts in loaded for line in context.use(contexts)
            )
            warnings = dict.fromkeys(
                line for context, _ in loaded for line in context.warnings(self._wall_time())
            )
            for warning in warnings:
                self._log.warn("{text}", text=warning)
            return [*changes, *(f"{WARNING}{each}" for each in warnings)]

        return use


def own_certificate(config: Config, *, files: Files, wall_time: WallTime) -> str | None:
    """Make a self-signed certificate, unless there is one or none is needed. Blocks.

    Returns:
        The path of the self-signed certificate; None where another is configured or was issued, or
        nothing has TLS.

    Raises:
        CertificateError: the file exists and cannot be used.
        OSError: the file cannot be made.
    """
    without_tls = config.mta_sts.publish is None and all(
        listener.tls == "none" for listener in config.listeners
    )
    if without_tls or config.tls_certificate is not None:
        return None
    if config.acme is not None and os.path.exists(certificate_file(config.state_dir)):
        return None
    path, _ = self_signed(config.state_dir, config.hostname, files=files, wall_time=wall_time)
    return path


def _is_in(networks: Iterable[Network]) -> Callable[[Peer], bool]:
    """Return a function that says whether a peer is in one of ``networks``."""
    covered = Networks(networks)
    return lambda peer: covered.cover(peer.address)


def _user_of(transport: Any) -> int:
    """Return the user id at the other end of a UNIX socket.

    Raises:
        OSError: the system does not tell.
    """
    found = peer(transport.socket)
    if found is None:
        raise OSError("local submission: this system does not tell the user of a UNIX socket")
    return found.user


def _unknown_user(transport: Any) -> None:
    """Return None: only local submission goes by users of this machine."""


def _timeouts(listener: Listener) -> Timeouts:
    return Timeouts(
        command=listener.command_timeout,
        data=listener.data_timeout,
        handshake=listener.tls_handshake_timeout,
        rate_grace=listener.rate_grace,
        minimum_rate=listener.minimum_rate,
        errors_unslowed=listener.slow_after_errors,
        error_delay=listener.error_delay,
        decision=_DECISION_TIMEOUT,
    )


def _offered(listener: Listener, context: ServerContext) -> ServerContext | None:
    """Return the TLS that a listener offers; None without."""
    return None if listener.tls == "none" else context


def _tls_settings(config: Config, listener: Listener) -> TLSSettings:
    certificate, key = certificate_files(config, SELF_SIGNED)
    return TLSSettings(
        certificate_file=certificate,
        key_file=key,
        ciphers=listener.ciphers,
        tickets=listener.tls_tickets,
        client_certificates=listener.client_certificates,
        authorities_file=listener.client_certificate_authorities,
        sni=listener.sni,
    )
