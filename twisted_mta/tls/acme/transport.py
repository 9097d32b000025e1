"""Sends the requests of ACME by HTTPS, to hosts that have proved their names."""

from __future__ import annotations

from urllib.parse import urlsplit

from twisted.internet.defer import Deferred

from ..._version import __version__
from ...interfaces import WallTime
from .. import https
from .jws import CONTENT_TYPE
from .messages import ACMEError, Answer, Request

# RFC 8555 §6.1: a client names itself, and should name a language.
_HEADERS = (
    ("User-Agent", f"twisted-mta/{__version__}"),
    ("Accept-Language", "en"),
)


class Transport:
    """Sends requests.

    Args:
        client: takes answers of `messages.LARGEST` octets.
        wall_time: for dates in answers.
    """

    def __init__(self, client: https.HTTPSClient, *, wall_time: WallTime) -> None:
        self._client = client
        self._wall_time = wall_time

    def send(self, request: Request) -> Deferred[Answer]:
        """Send a request, within a minute; fails with `ACMEError`; may be canceled."""
        return Deferred.fromCoroutine(self._send(request))

    async def _send(self, request: Request) -> Answer:
        parts = urlsplit(request.url)
        host, port = parts.hostname or "", parts.port or https.PORT
        query = f"?{parts.query}" if parts.query else ""
        heads: list[https.Head] = []
        sent = https.Request(
            method=request.method,
            host=host,
            port=port,
            path=f"{parts.path or '/'}{query}",
            content=request.content,
            content_type=CONTENT_TYPE,
            headers=_HEADERS,
            reads_answer=request.method != "HEAD",
        )
        try:
            content = await self._client.send(sent, accept=heads.append)
        except https.HTTPSError as error:
            raise ACMEError(error.reason) from None
        [head] = heads
        return Answer(head.code, head.headers, content, self._wall_time())
