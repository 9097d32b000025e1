"""The policy services of an agent (``[[policy_service]]``), shared by its listeners."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..config import Config, Listener, PolicyServiceSettings
from ..interfaces import Ids
from ..policy.chain import Member
from ..policy.default_action import default_of
from .client_endpoint import client_endpoint

if TYPE_CHECKING:
    from ..policy.delegation.connection import Connections

# Seconds beyond the timeout of a service, which its connections keep: for the reverse name of a
# client.
_FOR_THE_NAME = 15.0


class PolicyServices:
    """Makes the policies of services, with the connections to them.

    Args:
        reactor: for connections and deadlines.
        ids: name messages for the services (``instance``).
    """

    def __init__(self, reactor: Any, ids: Ids) -> None:
        self._reactor = reactor
        self._ids = ids
        self._connections: dict[tuple[str, float], Connections] = {}

    def groups(self, config: Config, listener: Listener) -> Sequence[Sequence[Member]]:
        """Return the services of a listener, in their order, with the policies around them."""
        services = [
            each
            for each in config.policy_services
            if each.clients == "all" or listener.kind == "smtp"
        ]
        if not services:
            return ()
        from ..policy.delegation.policy import NAME, Deferrals, Turns

        around = partial(
            Member,
            name=NAME,
            timeout=_FOR_THE_NAME,
            strangers_only=all(each.clients == "strangers" for each in services),
            reads_content=False,
        )
        return (
            [around(policy=Turns())],
            *([self._member(each)] for each in services),
            [around(policy=Deferrals())],
        )

    def _member(self, settings: PolicyServiceSettings) -> Member:
        from ..policy.delegation.connection import Connections
        from ..policy.delegation.policy import NAME, STAGES

        key = (settings.endpoint, settings.timeout)
        connections = self._connections.get(key)
        if connections is None:
            connections = self._connections[key] = Connections(
                client_endpoint(self._reactor, settings.endpoint),
                clock=self._reactor,
                timeout=settings.timeout,
            )
        default = default_of(settings.default_action)
        policy = STAGES[settings.at](
            settings.endpoint,
            connections,
            default=default,
            context=settings.policy_context,
            new_instance=lambda: str(self._ids()),
            clock=self._reactor,
        )
        return Member(
            name=NAME,
            policy=policy,
            timeout=settings.timeout + _FOR_THE_NAME,
            on_failure=default,
            strangers_only=settings.clients == "strangers",
            reads_content=settings.at == "end",
            about=settings.endpoint,
        )

    def use(self, config: Config) -> None:
        """Close what is idle to services that are no longer asked."""
        asked = {(each.endpoint, each.timeout) for each in config.policy_services}
        for key in [each for each in self._connections if each not in asked]:
            self._connections.pop(key).close()

    def stop(self) -> None:
        """Close what is idle."""
        for each in self._connections.values():
            each.close()
        self._connections.clear()
