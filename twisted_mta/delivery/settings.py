"""Settings of the relay for all destinations, and its counts."""

from __future__ import annotations

from collections import Counter

from attrs import define, field, frozen

from ..smtp.client.awaited import Deadlines


@frozen(kw_only=True)
class RelaySettings:
    """Settings of the relay for all destinations.

    Attributes:
        deadlines: the timeouts of connections and commands.
        messages_per_connection: transactions after which a connection is closed, without
            settings by destination.
        idle_connections: that are kept at the most.
        targets: addresses of a next hop that one delivery tries at the most.
        head_start: seconds that connecting to one address of a host has before the next one.
        shun: seconds for which a target that could not be connected to is passed over, where
            there are others.
    """

    deadlines: Deadlines = field(factory=Deadlines)
    messages_per_connection: int = 100
    idle_connections: int = 100
    targets: int = 10  # RFC 5321 §5.1: at least two; some domains have dozens that are down
    head_start: float = 1.0
    shun: float = 5.0


@define
class Traffic:
    """Counts since the start, for metrics.

    Attributes:
        connections: that were opened.
        reused: transactions on an idle connection.
        unconnected: failures to connect.
        handshakes: TLS handshakes that completed.
        handshake_failures: that did not complete, or whose server was not verified.
        resumed: TLS handshakes that resumed a session.
        handshake_retries: connections after a handshake that broke off, with a new session or with
            a small ClientHello.
        clear_retries: connections in clear after STARTTLS had failed.
        credentials_refused: refusals of our account with its password or token.
        reply_actions: outcomes that an action on replies has changed, by the action.
    """

    connections: int = 0
    reused: int = 0
    unconnected: int = 0
    handshakes: int = 0
    handshake_failures: int = 0
    resumed: int = 0
    handshake_retries: int = 0
    clear_retries: int = 0
    credentials_refused: int = 0
    reply_actions: Counter[str] = field(factory=Counter)
