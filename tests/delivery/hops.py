"""A test case with a relay for configured destinations, and scripted servers in memory."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred

from tests.delivery.test_relay import FIRST, HOP, RelayTestCase, message
from tests.logs import logged_lines
from twisted_mta.config import Config, DeliverySettings, Destination
from twisted_mta.delivery.relay import Relay, RelaySettings
from twisted_mta.interfaces import Executor
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.envelope import Recipient, RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.mail.next_hop import NextHop, Target
from twisted_mta.mail.outcome import Outcome
from twisted_mta.smtp.sasl.exchange import Nonce
from twisted_mta.system.work import finished
from twisted_mta.testing.peer import ScriptedPeer, ScriptStep
from twisted_mta.testing.tls import PeerTLS
from twisted_mta.tls.memory import TLSMemory


def to(*mailboxes: str) -> Message:
    """Return a message to some recipients."""
    mail = message()
    recipients = tuple(
        Recipient(RecipientNumber(number), Mailbox.parse(mailbox))
        for number, mailbox in enumerate(mailboxes)
    )
    return mail.for_recipients(recipients)


class HopTestCase(RelayTestCase):
    """Deliveries to ``mx1.example``, with the destinations of a test."""

    def setUp(self) -> None:
        super().setUp()
        self.now = 1_000_000_000.0
        self.memory = TLSMemory(wall_time=lambda: self.now)
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        self.log = logged_lines(self)

    def alarms(self) -> list[str]:
        """Return the alarms in the log so far."""
        return [line for line in self.log if line.startswith("ALARM")]

    def file(self, name: str, content: bytes) -> str:
        """Write a file; return its path."""
        path = os.path.abspath(os.path.join(self.directory, name))
        with open(path, "wb") as written:
            written.write(content)
        os.chmod(path, 0o600)
        return path

    def use(
        self,
        *destinations: Destination,
        settings: RelaySettings | None = None,
        nonce: Nonce | None = None,
        executor: Executor | None = None,
        **delivery: Any,
    ) -> Relay:
        """Replace the relay by one with these settings and the same TLS memory."""
        config = Config(destinations=destinations, delivery=DeliverySettings(**delivery))
        self.relay = Relay(
            reactor=self.network,
            locate=self.locate,
            helo="client.example",
            destination_for=config.destination_for,
            settings=settings,
            memory=self.memory,
            nonce=nonce,
            executor=executor,
        )
        self.relays.append(self.relay)
        self.reconfigure(*destinations, **delivery)
        return self.relay

    def reconfigure(self, *destinations: Destination, **delivery: Any) -> list[str]:
        """Change the settings of the relay, as a reload does."""
        config = Config(destinations=destinations, delivery=DeliverySettings(**delivery))
        loaded = finished(self.relay.load_terms(config.all_destinations))
        return self.relay.update(loaded, destination_for=config.destination_for)

    def server_with(
        self, tls: PeerTLS, *script: ScriptStep, target: Target = FIRST
    ) -> ScriptedPeer:
        peer = ScriptedPeer(list(script), tls=tls)
        self.network.listen(target.address, target.port, peer)
        return peer

    def send(self, mail: Message | None = None, hop: NextHop = HOP) -> list[Outcome]:
        """Deliver a message, and return its outcomes."""
        delivering: Deferred[Any] = self.relay.deliver(hop, mail or message())
        self.network.settle()
        return list(self.successResultOf(delivering))

    def send_one(self, hop: NextHop = HOP) -> Outcome:
        """Deliver a message to one recipient."""
        [outcome] = self.send(hop=hop)
        return outcome
