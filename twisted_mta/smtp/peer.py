"""A peer of an SMTP session: its address, its port, and its name in the DNS."""

from __future__ import annotations

from attrs import frozen


@frozen
class Peer:
    """A peer of a session.

    Attributes:
        address: IPv4 or IPv6, as text; None on a UNIX socket, or where a proxy does not know it.
        port: 0 where it is not known.
        name: in the DNS; None where it is not known.
        user: the user id of the program at the other end of a UNIX socket for local submission;
            None elsewhere.
    """

    address: str | None = None
    port: int = 0
    name: str | None = None
    user: int | None = None
