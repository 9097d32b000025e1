"""The listeners: their factories, their certificates, and the ports that they are bound to."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from .config import Config, Listener
from .interfaces import Files, WallTime
from .server.certificate import SELF_SIGNED, self_signed
from .server.factory import ESMTPFactory, ImplicitTLSFactory, Timeouts
from .server.intake import Intake
from .server.networks import Networks
from .server.proxy import ProxyFactory
from .server.tls import Prepared, ServerContext, TLSSettings, suffices
from .smtp.extension.standard import standard_extensions
from .smtp.extension.xclient import xclient
from .smtp.settings import SessionSettings


class CannotListen(Exception):
    """An endpoint cannot be listened on; the message says which and why."""


@frozen
class Bound:
    """A port that is bound, what is spoken there, and whether under TLS from the first octet."""

    kind: str
    port: IListeningPort
    implicit_tls: bool = False

    def __str__(self) -> str:
        address: Any = self.port.getHost()
        host = getattr(address, "host", None)
        kind = "smtps" if self.implicit_tls and self.kind == "smtp" else self.kind
        if host is None:
            name = getattr(address, "name", b"") or b""
            return f"{kind} unix {os.fsdecode(name)}"
        host = f"[{host}]" if ":" in host else host
        return f"{kind} tcp {host}:{address.port}"


class Listeners:
    """All places where mail comes in, and what else listens beside them.

    Args:
        config: what was configured.
        reactor: for ports and time.
        intake: makes the delivery of a listener.
        files: where our own certificate is kept.
        wall_time: for the dates of certificates.

    Attributes:
        bound: the ports, in the order in which they were bound.
        factories: one for each configured listener.
    """

    log = Logger()

    def __init__(
        self,
        config: Config,
        *,
        reactor: Any,
        intake: Callable[[Listener], Intake],
        files: Files,
        wall_time: WallTime,
    ) -> None:
        self.bound: list[Bound] = []
        self._config = config
        self._reactor = reactor
        self._intake = intake
        self._files = files
        self._wall_time = wall_time
        self._accepting = False
        self._contexts = [
            ServerContext(_tls_settings(config, listener)) for listener in config.listeners
        ]
        self.factories = [
            self._factory(listener, context)
            for listener, context in zip(config.listeners, self._contexts, strict=True)
        ]

    def bind(self) -> None:
        """Bind the ports of all listeners; no connection is taken yet.

        Raises:
            CannotListen: one of them cannot be bound; the others are free again.
        """
        for listener, factory in zip(self._config.listeners, self.factories, strict=True):
            served: Any = ImplicitTLSFactory(factory) if listener.implicit_tls else factory
            if listener.proxy_protocol_from:
                served = ProxyFactory(
                    served,
                    listener.proxy_protocol_from,
                    clock=self._reactor,
                    timeout=listener.proxy_protocol_timeout,
                )
            self.listen(
                listener.kind, listener.endpoint, served, implicit_tls=listener.implicit_tls
            )

    def listen(self, kind: str, endpoint: str, factory: Any, *, implicit_tls: bool = False) -> None:
        """Bind a port; no connection is taken yet.

        Raises:
            CannotListen: it cannot be bound; the others are free again.
        """
        failures: list[Failure] = []
        listening: Deferred[IListeningPort] = maybeDeferred(
            # What Twisted cannot make of a description it raises, one way or another.
            lambda: serverFromString(self._reactor, endpoint).listen(factory)
        )
        listening.addCallbacks(
            lambda port: self.bound.append(Bound(kind, port, implicit_tls)), failures.append
        )
        if failures:
            self.unbind()
            why = failures[0].getErrorMessage()
            if endpoint.startswith("systemd:"):
                why = f"systemd has handed over no such socket ({why})"
            raise CannotListen(f"cannot listen on {endpoint} ({kind}): {why}")
        if self.bound and hasattr(self.bound[-1].port, "stopReading"):
            self.bound[-1].port.stopReading()

    def accept_connections(self) -> None:
        """Take connections from now on."""
        self._accepting = True
        for bound in self.bound:
            if hasattr(bound.port, "startReading"):
                bound.port.startReading()

    def unbind(self) -> Deferred[Any]:
        """Free the ports; fires when they are free."""
        bound, self.bound = self.bound, []
        return DeferredList([maybeDeferred(each.port.stopListening) for each in bound])

    def drain(self) -> Deferred[Any]:
        """Let the sessions end after their transactions; fires when the last is gone."""
        return DeferredList([factory.drain() for factory in self.factories])

    def abandon(self) -> None:
        """End all sessions at once."""
        for factory in self.factories:
            factory.abandon()

    def load_certificates(self) -> list[str]:
        """Read all certificates, keys and authorities, for the handshakes that follow. Blocks.

        All or nothing: if one file cannot be used, all that was in force stays.

        Returns:
            Lines that say what changed, printable.

        Raises:
            CertificateError: a file cannot be used; which, and why.
            OSError: the certificate of our own cannot be made.
        """
        config = self._config
        if not self._contexts:
            return []
        if config.tls_certificate is None:
            certificate, _ = self_signed(
                config.state_dir, config.hostname, files=self._files, wall_time=self._wall_time
            )
            if not self._accepting:
                self.log.info(
                    "the certificate for STARTTLS is our own and proves nothing: {file};"
                    " --tls-certificate takes a real one",
                    file=certificate,
                )
        prepared: list[tuple[ServerContext, Prepared]] = [
            (context, context.prepare()) for context in self._contexts
        ]
        # Listeners share files: what is said of one is said once.
        changes = dict.fromkeys(line for context, each in prepared for line in context.use(each))
        warnings = dict.fromkeys(
            line for context in self._contexts for line in context.warnings(self._wall_time())
        )
        for warning in warnings:
            self.log.warn("{warning}", warning=warning)
        return list(changes)

    def _factory(self, listener: Listener, context: ServerContext) -> ESMTPFactory:
        known_to_speak_tls = Networks(listener.require_tls_from)
        proxies = Networks(listener.xclient_from)
        extensions = standard_extensions(listener.max_message_size)
        if listener.xclient_from:
            extensions += (xclient(lambda peer: proxies.cover(peer.address)),)
        return ESMTPFactory(
            self._intake(listener),
            clock=self._reactor,
            settings=SessionSettings(
                hostname=self._config.hostname,
                extensions=extensions,
                require_tls=listener.require_tls,
                requires_tls_of=lambda peer: known_to_speak_tls.cover(peer.address),
                tls_suffices=suffices(
                    listener.minimum_tls,
                    cipher_bits=listener.minimum_cipher_bits,
                    client_certificate=listener.client_certificates == "require",
                ),
                bare_newlines=listener.bare_newlines,
                long_lines=listener.long_lines,
                max_message_size=listener.max_message_size,
                max_recipients=listener.max_recipients,
                max_errors=listener.max_errors,
            ),
            tls=context,
            timeouts=Timeouts(
                command=listener.command_timeout,
                data=listener.data_timeout,
                handshake=listener.tls_handshake_timeout,
                rate_grace=listener.rate_grace,
                minimum_rate=listener.minimum_rate,
                errors_unslowed=listener.slow_after_errors,
                error_delay=listener.error_delay,
            ),
            max_connections=listener.max_connections,
            max_connections_per_peer=listener.max_connections_per_peer,
        )


def _tls_settings(config: Config, listener: Listener) -> TLSSettings:
    certificate = config.tls_certificate or os.path.join(config.state_dir, SELF_SIGNED)
    return TLSSettings(
        certificate_file=certificate,
        key_file=config.tls_key or certificate,
        ciphers=listener.ciphers,
        client_certificates=listener.client_certificates,
        authorities_file=listener.client_certificate_authorities,
        sni=listener.sni,
    )
