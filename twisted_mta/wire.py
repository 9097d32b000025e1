"""Writing to a connection at once, where that can be done."""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import Connection


def write_now(transport: Any, octets: bytes) -> None:
    """Write ``octets``, by one system call if nothing else waits to be written.

    `transport.write` leaves them to the reactor's next turn, which costs two calls to epoll and one
    turn for each reply: a sixth of the time of the reactor's thread, measured with one message
    after the other on 20 connections. Where the octets do not fit, or anything is unusual, that is
    what happens here too.
    """
    if (
        isinstance(transport, Connection)
        and not transport.TLS
        and transport.connected
        and not transport.disconnecting
        and not transport.dataBuffer
        and not transport._tempDataBuffer
    ):
        sent: Any = transport.writeSomeData(octets)
        if sent == len(octets):
            return
        if isinstance(sent, int) and sent > 0:
            octets = octets[sent:]
    transport.write(octets)
