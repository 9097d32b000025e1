"""Requests: events are posted to the URLs of webhooks.

A connection serves several of them: a TLS handshake costs more than all else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen

from .._version import __version__
from ..config import WebhookSettings
from ..interfaces import Executor, Resolver, WallTime
from ..tls.certificates import CertificateError
from ..tls.client import ClientContexts, ClientTLS
from ..tls.https import PORT, Head, HTTPSClient, HTTPSError, NotAccepted, Request
from .signature import signature

# Octets of an answer, of which only the head counts: more than come at once, so that it is read.
_LARGEST = 65_536
_LONGEST_WAIT = 86_400.0  # seconds of Retry-After


@frozen
class NotTaken(NotAccepted):
    """The receiver has answered, and has not taken the event.

    Attributes:
        code: the status code.
        retry_after: seconds for which it wants no other request; 0: it does not say.
    """

    code: int = 0
    retry_after: float = 0.0

    __str__ = HTTPSError.__str__


def client_tls(settings: WebhookSettings) -> ClientTLS:
    """Return the settings of TLS to a receiver."""
    return ClientTLS(verify=True, authorities=settings.authorities)


class Sender:
    """Posts events, one request each.

    Args:
        reactor: IReactorTCP, IReactorTime.
        resolver: looks receivers up.
        contexts: makes TLS connections to them.
        executor: where the authorities of the system are read.
        wall_time: of requests.
    """

    def __init__(
        self,
        *,
        reactor: Any,
        resolver: Resolver,
        contexts: ClientContexts,
        executor: Executor,
        wall_time: WallTime,
    ) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._contexts = contexts
        self._executor = executor
        self._wall_time = wall_time
        self._clients: dict[ClientTLS, HTTPSClient] = {}

    async def post(
        self, settings: WebhookSettings, secrets: Sequence[bytes], name: str, body: bytes
    ) -> None:
        """Post an event; return once the receiver has taken it.

        Args:
            settings: of the webhook.
            secrets: that sign the request.
            name: of the event.
            body: a JSON object.

        Raises:
            NotTaken: the receiver has answered by another status than 2xx.
            HTTPSError: it gave no answer.
        """
        url = urlsplit(settings.url)
        with_tls = url.scheme == "https"
        tls = client_tls(settings)
        if with_tls and not self._contexts.has(tls):
            try:
                await self._executor(self._contexts.make, tls)
            except CertificateError as error:
                raise HTTPSError(str(error)) from None
        timestamp = int(self._wall_time())
        request = Request(
            method="POST",
            host=url.hostname or "",
            port=url.port or (PORT if with_tls else 80),
            path=(url.path or "/") + (f"?{url.query}" if url.query else ""),
            content=body,
            content_type="application/json",
            headers=(
                ("User-Agent", f"twisted-mta/{__version__}"),
                ("webhook-id", name),
                ("webhook-timestamp", str(timestamp)),
                ("webhook-signature", signature(secrets, name, timestamp, body)),
            ),
            tls=with_tls,
            reads_answer=False,
        )
        await self._client(tls).send(request, accept=_accept, patience=settings.timeout)

    def close(self) -> None:
        """Close the connections that are kept for further requests."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def _client(self, tls: ClientTLS) -> HTTPSClient:
        if tls not in self._clients:
            self._clients[tls] = HTTPSClient(
                reactor=self._reactor,
                resolver=self._resolver,
                contexts=self._contexts,
                tls=lambda: tls,
                largest=_LARGEST,
                keeps=True,
            )
        return self._clients[tls]


def _accept(head: Head) -> None:
    if head.code // 100 != 2:  # RFC 9110 §15.3; a redirect is not followed
        written = head.headers.get("retry-after", "")
        # RFC 9110 §10.2.3: seconds; or a date, which says less than the usual back-off
        wait = float(written) if re.fullmatch("[0-9]{1,9}", written, re.ASCII) else 0.0
        raise NotTaken(f"it answers {head.code}, expected 2xx", head.code, min(wait, _LONGEST_WAIT))
