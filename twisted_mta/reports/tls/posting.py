"""Posts reports on TLS to collectors (RFC 8460 §5.4)."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

from twisted.internet.defer import Deferred

from ...tls.https import Head, HTTPSClient, HTTPSError, Request
from .record import Collector

LARGEST_ANSWER = 16_384
"""Octets that a collector may answer; only the head of the answer counts."""


class Poster:
    """Posts reports.

    The domain owner chooses the URL, so that it may lead into a network that only we can reach. A
    host has to prove its name, which none does that is reached by a false name; and where
    authorities are those of the system, it has to be a public one.

    Args:
        client: takes answers of `LARGEST_ANSWER` octets.
        private: whether hosts with private addresses may get reports.
    """

    def __init__(self, client: HTTPSClient, *, private: Callable[[], bool]) -> None:
        self._client = client
        self._private = private

    def post(self, collector: Collector, content: bytes, media_type: str) -> Deferred[None]:
        """Post octets; fails with `HTTPSError`, within a minute."""
        request = Request(
            method="POST",
            host=collector.host,
            port=collector.port,
            path=collector.path,
            content=content,
            content_type=media_type,
            reads_answer=False,
        )
        posted = self._client.send(request, accept=_accept, may_connect=self._may_connect)
        return posted.addCallback(lambda answer: None)

    def _may_connect(self, address: str) -> bool:
        return self._private() or ip_address(address.partition("%")[0]).is_global


def _accept(head: Head) -> None:
    if head.code // 100 != 2:  # RFC 9110 §15.3
        raise HTTPSError(f"{head.target} answers {head.code}, expected 201")
