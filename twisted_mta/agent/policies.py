"""The policies of an agent: which are asked on which listener, in which order, how long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..config import Config, Listener
from ..interfaces import Clock
from ..policy.chain import Member, PolicyChain
from ..server.policy_stages import PolicyStages
from ..telemetry.metrics import Metrics, table

APPLICATION = "application"
"""The name of an application's own policy, in the log and the counters."""


class Policies:
    """Makes the chains of policies of listeners.

    Args:
        application: an application's own policy (`policy.protocol.Policy`), asked on each listener
            about all clients; None: there is none.
        timeout: seconds for each of its answers.
        clock: for deadlines.
        metrics: where verdicts are counted.
    """

    def __init__(
        self, application: object | None, timeout: float, *, clock: Clock, metrics: Metrics
    ) -> None:
        self._application = application
        self._timeout = timeout
        self._clock = clock
        self._metrics = metrics

    def stages(self, config: Config, listener: Listener) -> PolicyStages | None:
        """Return the policies of a listener; None where it has none.

        Args:
            config: the configuration.
            listener: one of its listeners.
        """
        groups = [group for group in self._groups(config, listener) if group]
        if not groups:
            return None
        return PolicyStages(PolicyChain(groups, clock=self._clock, count=self._count))

    def _groups(self, config: Config, listener: Listener) -> Iterator[Sequence[Member]]:
        if listener.kind == "smtp":
            yield self._standards(config)
        if self._application is not None:
            # It sees what the others have found.
            yield [Member(name=APPLICATION, policy=self._application, timeout=self._timeout)]

    def _standards(self, config: Config) -> list[Member]:
        """Return the standards of authentication, which are asked about strangers alone."""
        return []

    def _count(self, policy: str, result: str) -> None:
        self._metrics.count(table.POLICY_VERDICTS, policy, result)
