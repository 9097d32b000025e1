"""How a relay delivers, whatever the destination, and what came of that in numbers."""

from __future__ import annotations

from attrs import define, field, frozen

from ..smtp.client.awaited import Deadlines


@frozen(kw_only=True)
class RelaySettings:
    """How a relay delivers.

    Attributes:
        deadlines: how long it waits for what.
        messages_per_connection: transactions after which a connection is closed, where no
            destination says it.
        idle_connections: how many may be kept for later.
        targets: how many addresses of a next hop are tried in one delivery.
        head_start: seconds that connecting to one address of a host goes on alone.
        shun: seconds for which a target that could not be connected to is passed over, where
            there are others.
    """

    deadlines: Deadlines = field(factory=Deadlines)
    messages_per_connection: int = 100
    idle_connections: int = 100
    targets: int = 10  # RFC 5321 §5.1: at least two; some domains have dozens, all of them down
    head_start: float = 1.0
    shun: float = 5.0


@define
class Traffic:
    """What has happened since the relay was made, for metrics.

    Attributes:
        connections: that came to be.
        reused: transactions on a connection that was there.
        unconnected: attempts to connect that failed.
        handshakes: of TLS, that completed.
        handshake_failures: that did not, or did not show what was asked for.
        clear_retries: connections in clear after a handshake had failed.
        credentials_refused: times that a next hop did not take our account and password.
    """

    connections: int = 0
    reused: int = 0
    unconnected: int = 0
    handshakes: int = 0
    handshake_failures: int = 0
    clear_retries: int = 0
    credentials_refused: int = 0
