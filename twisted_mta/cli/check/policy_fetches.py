"""Fetches the MTA-STS policies of our domains, as other hosts do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from ...config import Config
from ...interfaces import Resolver
from ...tls.certificates import CertificateError
from ...tls.client import ClientContexts, ClientTLS
from ...tls.https import PORT, HTTPSClient
from ...tls.mta_sts.fetcher import Fetcher, FetchError
from ...tls.mta_sts.policy import LARGEST, Policy


def fetched_policies(
    config: Config,
    domains: Iterable[str],
    resolver: Resolver,
    *,
    port: int = PORT,
    reactor: Any = None,
) -> Mapping[str, Policy | str]:
    """Return the policy of each domain, or why there is none, for people. Blocks for a minute.

    Args:
        config: has the authorities.
        domains: in A-labels.
        resolver: looks policy hosts up.
        port: of policy hosts.
        reactor: runs once; None: a new one, whose descriptors are those of the tool.
    """
    if reactor is None:
        from twisted.internet.selectreactor import SelectReactor

        reactor = SelectReactor()  # it ends with the last fetch: the tool has none
    contexts = ClientContexts()
    tls = ClientTLS(verify=True, authorities=config.mta_sts.authorities)
    try:
        contexts.make(tls)
    except CertificateError as error:
        return dict.fromkeys(domains, str(error))
    client = HTTPSClient(
        reactor=reactor, resolver=resolver, contexts=contexts, tls=lambda: tls, largest=LARGEST
    )
    fetcher = Fetcher(client, port=port)
    found: dict[str, Policy | str] = {}

    async def fetch(domain: str) -> None:
        try:
            found[domain] = await fetcher.fetch(domain)
        except FetchError as error:
            found[domain] = error.reason

    def end(_: object) -> None:
        reactor.callLater(0, reactor.stop)  # after the last connection is closed

    def begin() -> None:
        fetching = [Deferred.fromCoroutine(fetch(domain)) for domain in domains]
        DeferredList(fetching, consumeErrors=True).addBoth(end)

    reactor.callWhenRunning(begin)
    reactor.run(installSignalHandlers=False)
    return found
