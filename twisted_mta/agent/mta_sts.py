"""MTA-STS in an agent: the policies of other domains, and what connections under them need."""

from __future__ import annotations

import os

from twisted.internet.defer import Deferred

from ..config import Config
from ..tls.client import ClientContexts, ClientTLS, under_mta_sts
from ..tls.https import HTTPSClient
from ..tls.mta_sts.cache import PolicyCache
from ..tls.mta_sts.fetcher import Fetcher
from ..tls.mta_sts.found import Found
from ..tls.mta_sts.policy import LARGEST, Policy
from ..tls.mta_sts.store import PolicyFile
from .resources import Resources

FILE = os.path.join("mta-sts", "policies.sqlite")
"""The policies of all processes, in the state directory."""


class MTASTS:
    """Finds the MTA-STS policies of domains; `find` is a `tls.mta_sts.found.Find`.

    Args:
        config: the settings.
        resources: clock, threads, DNS.
        contexts: those of connections to next hops.
    """

    def __init__(self, config: Config, *, resources: Resources, contexts: ClientContexts) -> None:
        self._config = config
        self._contexts = contexts
        self._executor = resources.file_executor
        client = HTTPSClient(
            reactor=resources.reactor,
            resolver=resources.resolver,
            contexts=contexts,
            tls=self.tls,
            largest=LARGEST,
        )
        self._fetcher = Fetcher(client)
        self._cache = PolicyCache(
            PolicyFile(os.path.join(config.state_dir, FILE)),
            fetch=self._fetch,
            resolver=resources.resolver,
            executor=resources.file_executor,
            clock=resources.reactor,
            wall_time=resources.wall_time,
            random=resources.random,
        )

    def start(self) -> None:
        """Fetch policies again before they expire, from now on."""
        self._cache.start()

    def stop(self) -> None:
        """Fetch nothing more."""
        self._cache.stop()

    def use(self, config: Config) -> None:
        """Obey other settings from now on."""
        self._config = config

    def authorities(self) -> str | None:
        """Return the path of the PEM file with the trusted authorities; None: the system's."""
        return self._config.mta_sts.authorities

    def find(self, domain: str) -> Deferred[Found]:
        """Find the policy that holds for mail to a domain now, and get ready to obey it."""
        return Deferred.fromCoroutine(self._find(domain))

    async def _find(self, domain: str) -> Found:
        found = await self._cache.find(domain)
        if found.is_enforced or found.is_tested:
            await self.ready(self.tls(testing=found.is_tested))
        return found

    def _fetch(self, domain: str) -> Deferred[Policy]:
        return Deferred.fromCoroutine(self._fetch_ready(domain))

    async def _fetch_ready(self, domain: str) -> Policy:
        await self.ready(self.tls())
        return await self._fetcher.fetch(domain)

    def tls(self, *, testing: bool = False) -> ClientTLS:
        """Return the settings of connections to hosts that have to prove their names."""
        return under_mta_sts(ClientTLS(), self.authorities(), testing=testing)

    async def ready(self, tls: ClientTLS) -> None:
        """Make the context for connections, unless it is there: not in the reactor's thread."""
        if not self._contexts.has(tls):
            await self._executor(self._contexts.make, tls)
