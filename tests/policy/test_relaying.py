"""Clients that may relay: by login, network, and the address of loopback for UNIX sockets."""

from __future__ import annotations

from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.policy.relaying import Relaying


class RelayingTests(SynchronousTestCase):
    def allows(
        self,
        address: str | None,
        *networks: str,
        identity: str | None = None,
        proxy: object = None,
        **settings: Any,
    ) -> bool:
        session: Any = SimpleNamespace(
            identity=identity, peer=SimpleNamespace(address=address), tls=None, proxy=proxy
        )
        return Relaying(map(ip_network, networks), **settings).allows(session)

    def test_a_client_of_a_network_may_relay(self) -> None:
        self.assertTrue(self.allows("192.0.2.1", "192.0.2.0/24"))
        self.assertTrue(self.allows("::ffff:192.0.2.1", "192.0.2.0/24"))
        self.assertFalse(self.allows("192.0.3.1", "192.0.2.0/24"))
        self.assertFalse(self.allows("192.0.2.1"))

    def test_an_authenticated_client_may_relay(self) -> None:
        self.assertTrue(self.allows("192.0.3.1", identity="ann"))

    def test_a_client_of_a_unix_socket_may_relay_where_loopback_may(self) -> None:
        for network in ("127.0.0.0/8", "::1/128"):
            self.assertTrue(self.allows(None, network))
        self.assertFalse(self.allows(None, "192.0.2.0/24"))

    def test_a_client_that_a_proxy_does_not_know_may_not_relay(self) -> None:
        self.assertFalse(self.allows(None, "127.0.0.0/8", proxy=object()))
        self.assertTrue(self.allows("127.0.0.1", "127.0.0.0/8", proxy=object()))

    def test_no_client_may_relay_to_other_machines_where_all_mail_is_local(self) -> None:
        for identity in ("ann", None):
            allowed = self.allows("127.0.0.1", "127.0.0.0/8", identity=identity, local_only=True)
            self.assertFalse(allowed)
