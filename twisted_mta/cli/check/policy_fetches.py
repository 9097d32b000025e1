"""Fetches the MTA-STS policies of our domains, as other hosts do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from twisted.internet.defer import Deferred, DeferredList

from ...config import Config
from ...interfaces import Resolver
from ...tls.certificates import CertificateError
from ...tls.client import ClientContexts, ClientTLS
from ...tls.https import PORT, HTTPSClient
from ...tls.mta_sts.fetcher import Fetcher, FetchError
from ...tls.mta_sts.policy import LARGEST, Policy


def fetched_policies(
    config: Config, domains: Iterable[str], resolver: Resolver, *, port: int = PORT
) -> Mapping[str, Policy | str]:
    """Return the policy of each domain, or why there is none, for people. Blocks for a minute.

    Args:
        config: has the authorities.
        domains: in A-labels.
        resolver: looks policy hosts up.
        port: of policy hosts.
    """
    # A reactor of its own, which ends with the last fetch: the tool has none.
    from twisted.internet.selectreactor import SelectReactor

    reactor = SelectReactor()
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

    def begin() -> None:
        fetching = [Deferred.fromCoroutine(fetch(domain)) for domain in domains]
        DeferredList(fetching, consumeErrors=True).addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run(installSignalHandlers=False)
    return found
