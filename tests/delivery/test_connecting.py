"""Connecting with Twisted's own reactor: it ends, whatever happens."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
import struct
import tempfile
import warnings
from typing import Any
from unittest.mock import Mock

from twisted.internet.error import (
    ConnectBindError,
    ConnectError,
    ConnectingCancelledError,
    ConnectionDone,
    ConnectionRefusedError,
    TimeoutError,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.waiting import until
from twisted_mta.delivery.connecting import connect
from twisted_mta.mail.next_hop import Target


class Client(Protocol):
    """Does what a connection to a next hop does when it is made.

    Args:
        error: raised instead.
    """

    transport: Any

    def __init__(self, error: Exception | None = None) -> None:
        self.made: Any = None
        self.error = error
        self.lost: list[Failure] = []

    def connectionMade(self) -> None:
        if self.error is not None:
            raise self.error
        made, self.made = self.made, None
        made()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.append(reason)


class Connecting(TestCase):
    def setUp(self) -> None:
        from twisted.internet import reactor  # noqa: TID251 - real sockets

        self.reactor: Any = reactor
        self.client = Client()
        self.addCleanup(self.close)  # trial looks for sockets that are left

    async def close(self) -> None:
        if self.client.transport is not None:
            self.client.transport.abortConnection()
            await until(lambda: self.client.lost)

    def connect(
        self, address: str = "127.0.0.1", port: int = 0, timeout: float = 30, source: Any = None
    ) -> Any:
        target = Target("mx.example", address, port)
        client: Any = self.client
        return connect(self.reactor, client, target, timeout=timeout, source=source)

    def listen(self, family: int = socket.AF_INET, backlog: int = 5) -> socket.socket:
        server = socket.socket(family)
        server.settimeout(5)
        self.addCleanup(server.close)
        server.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        server.listen(backlog)
        return server

    async def test_it_connects_from_the_source_address(self) -> None:
        server = self.listen()
        connection = await self.connect(port=server.getsockname()[1], source="127.0.0.2")
        self.assertIs(connection, self.client)
        self.assertIsNone(self.client.made)
        accepted, peer = server.accept()
        accepted.close()
        self.assertEqual(peer[0], "127.0.0.2")

    async def test_an_ipv6_address_may_have_a_scope(self) -> None:
        server = self.listen(socket.AF_INET6)
        await self.connect(address="::1%1", port=server.getsockname()[1])
        self.assertEqual(self.client.transport.getPeer().port, server.getsockname()[1])

    async def test_a_refusal_fails(self) -> None:
        server = self.listen()
        port = server.getsockname()[1]
        server.close()
        error = await self.assertFailure(self.connect(port=port), ConnectionRefusedError)
        self.assertEqual(error.osError, errno.ECONNREFUSED)

    async def test_a_peer_without_an_answer_fails_after_the_timeout(self) -> None:
        await self.assertFailure(self.connect(port=self.silent(), timeout=0.05), TimeoutError)

    async def test_it_may_be_canceled(self) -> None:
        connecting = self.connect(port=self.silent())
        connecting.cancel()
        await self.assertFailure(connecting, ConnectingCancelledError)

    async def test_a_foreign_source_address_is_an_error_of_binding(self) -> None:
        with warnings.catch_warnings():
            # Twisted leaves the socket that it could not bind to the destructor.
            warnings.simplefilter("ignore", ResourceWarning)
            connecting = self.connect(port=25, source="192.0.2.1")
        error = await self.assertFailure(connecting, ConnectBindError)
        self.assertEqual(error.osError, errno.EADDRNOTAVAIL)

    async def test_no_descriptor_left_is_an_error_of_binding(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            connecting = self.connect(port=25)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        error = await self.assertFailure(connecting, ConnectBindError)
        self.assertEqual(error.osError, errno.EMFILE)

    async def test_a_peer_that_resets_at_once_was_connected(self) -> None:
        server = self.listen()
        await self.connect(port=server.getsockname()[1])
        accepted, _ = server.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        accepted.close()
        await until(lambda: self.client.lost)

    async def test_an_error_in_connection_made_fails(self) -> None:
        server = self.listen()
        self.client = Client(ValueError("no"))
        connecting = self.connect(port=server.getsockname()[1])
        await self.assertFailure(connecting, ValueError, ConnectionDone)
        self.flushLoggedErrors(ValueError)
        self.assertEqual(len(self.client.lost), 1)

    async def test_an_error_in_connection_made_may_leave_the_connection_open(self) -> None:
        """Twisted logs it and goes on, where a UNIX socket is connected at once."""
        path = self.listen_at_path()
        self.client = Client(ValueError("no"))
        connecting = self.connect(address=path)
        await until(lambda: self.client.transport is not None)
        self.assertFalse(connecting.called)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.client.transport.loseConnection()  # as after the timeout of the greeting
        await self.assertFailure(connecting, ConnectionDone)

    async def test_a_connection_that_was_never_made_may_be_canceled(self) -> None:
        self.client = Client(ValueError("no"))
        path = self.listen_at_path()
        connecting = self.connect(address=path)
        await until(lambda: self.client.transport is not None)
        connecting.cancel()
        await self.assertFailure(connecting, ConnectingCancelledError)
        await until(lambda: self.client.lost)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    async def test_a_unix_socket_that_is_not_there_fails(self) -> None:
        await self.assertFailure(self.connect(address="/nonexistent/socket"), ConnectError)

    async def test_a_reactor_that_cannot_connect_fails(self) -> None:
        self.reactor = Mock(spec=["callLater"])
        await self.assertFailure(self.connect(), AttributeError)

    def listen_at_path(self) -> str:
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        path = os.path.join(folder, "socket")
        server = socket.socket(socket.AF_UNIX)
        self.addCleanup(server.close)
        server.bind(path)
        server.listen()
        return path

    def silent(self) -> int:
        """Return a port whose backlog is full."""
        server = self.listen(backlog=0)
        port: int = server.getsockname()[1]
        for _ in range(2):
            full = socket.socket()
            full.setblocking(False)
            full.connect_ex(("127.0.0.1", port))
            self.addCleanup(full.close)
        return port
