"""The filters of an agent (``[[milter]]``), shared by its listeners."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Any

from .._version import __version__
from ..config import Config, MilterSettings
from ..policy.chain import Member
from ..policy.default_action import default_of
from .client_endpoint import client_endpoint

if TYPE_CHECKING:
    from ..policy.milter.connection import Connections

_IN_MEMORY = 256 * 1024  # octets of a new body, beyond which it goes to the disk

# Seconds for all answers of a filter at one stage, however often it says that it is at work. A
# decision on mail has 280 s (`listeners`).
_LONGEST_STAGE = 270.0


class Filters:
    """Makes the policies of filters, with the connections to them.

    Args:
        reactor: for connections and deadlines.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._connections: dict[MilterSettings, Connections] = {}

    def members(self, config: Config) -> Sequence[Member]:
        """Return the filters of a configuration, in their order."""
        return [self._member(each, config) for each in config.milters]

    def _member(self, settings: MilterSettings, config: Config) -> Member:
        from ..policy.milter.connection import Connections
        from ..policy.milter.policy import NAME, MilterPolicy

        connections = self._connections.get(settings)
        if connections is None:
            connections = self._connections[settings] = Connections(
                client_endpoint(self._reactor, settings.endpoint),
                clock=self._reactor,
                timeout=settings.timeout,
            )
        default = default_of(settings.default_action)
        own = frozenset((*config.local_domains, *config.virtual_domains))
        policy = MilterPolicy(
            settings.endpoint,
            connections,
            default=default,
            hostname=config.hostname,
            version=f"twisted-mta {__version__}",
            is_local=own.__contains__,
            new_file=partial(SpooledTemporaryFile, _IN_MEMORY, dir=config.state_dir),
            largest=max((each.max_message_size for each in config.listeners), default=50 << 20),
        )
        return Member(
            name=NAME,
            policy=policy,
            timeout=max(_LONGEST_STAGE, settings.timeout),
            on_failure=default,
            about=settings.endpoint,
        )

    def use(self, config: Config) -> None:
        """Close what is idle to filters that are no longer asked."""
        for settings in [each for each in self._connections if each not in config.milters]:
            self._connections.pop(settings).close()

    def stop(self) -> None:
        """Close what is idle."""
        for each in self._connections.values():
            each.close()
        self._connections.clear()
