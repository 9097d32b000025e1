"""Delivery over a network: targets in order, reuse, deadlines, back-pressure."""

import errno
import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred, fail, inlineCallbacks, succeed
from twisted.internet.error import ConnectBindError, ConnectError
from twisted.internet.task import deferLater  # noqa: TID251
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.logs import logged_lines
from twisted_mta.delivery.relay import Relay, RelaySettings
from twisted_mta.interfaces import NoTarget
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.body import Body, MemoryBody
from twisted_mta.mail.envelope import Envelope, Recipient, RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.mail.next_hop import Host, NextHop, Target
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.mail.reply import Reply
from twisted_mta.smtp.client.step import TLSLevel
from twisted_mta.testing.network import MemoryNetwork
from twisted_mta.testing.peer import ScriptedPeer, ScriptStep
from twisted_mta.tls.client import ClientContexts

HOP = NextHop("smtp", hosts=(Host("mx.example"),))
FIRST = Target("mx1.example", "192.0.2.1", 25)
SECOND = Target("mx2.example", "2001:db8::2", 25)


def message(body: Body | None = None, number: int = 1) -> Message:
    return Message(
        id=QueueId(number),
        envelope=Envelope(
            Mailbox("a", "client.example"),
            (Recipient(RecipientNumber(0), Mailbox("b", "example.net")),),
        ),
        trace=b"Received: x\r\n",
        body=body or MemoryBody(b"Subject: x\r\n\r\nHello\r\n"),
        received_at=0.0,
        expires_at=1.0,
    )


OPENING: list[ScriptStep] = [
    ("send", b"220 mx.example\r\n"),
    ("expect", b"EHLO client.example\r\n"),
    ("send", b"250-mx.example\r\n250 PIPELINING\r\n"),
]
GROUP: list[ScriptStep] = [
    ("expect", b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"),
]
TAKEN: list[ScriptStep] = [
    *GROUP,
    ("send", b"250 Ok\r\n250 Ok\r\n354 Go on\r\n"),
    ("content",),
    ("send", b"250 2.0.0 Queued\r\n"),
]
PARTING: list[ScriptStep] = [
    ("expect", b"QUIT\r\n"),
    ("send", b"221 Bye\r\n"),
    ("close",),
]


class RelayTestCase(SynchronousTestCase):
    """A relay on a network in memory."""

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.targets: Sequence[Target] = [FIRST]
        self.located = 0
        self.relay = self.make_relay()

    def make_relay(
        self,
        tls_level: TLSLevel = "may",
        source_address: str | None = None,
        settings: RelaySettings | None = None,
    ) -> Relay:
        return Relay(
            reactor=self.network,
            locate=self.locate,
            helo="client.example",
            contexts=ClientContexts(),
            tls_level=tls_level,
            source_address=source_address,
            settings=settings,
        )

    def locate(self, next_hop: NextHop) -> "Deferred[Sequence[Target]]":
        self.located += 1
        return succeed(self.targets)

    def server(self, *script: ScriptStep, target: Target = FIRST) -> ScriptedPeer:
        peer = ScriptedPeer(list(script))
        self.network.listen(target.address, target.port, peer)
        return peer

    def deliver(self, mail: Message | None = None) -> "Deferred[Sequence[Outcome]]":
        delivering = self.relay.deliver(HOP, mail or message())
        self.network.settle()
        return delivering

    def outcome(self, delivering: "Deferred[Sequence[Outcome]]") -> Outcome:
        [outcome] = self.successResultOf(delivering)
        return outcome


class TargetTests(RelayTestCase):
    def test_delivered(self) -> None:
        peer = self.server(*OPENING, *TAKEN, *PARTING)
        outcome = self.outcome(self.deliver())
        self.assertEqual(str(outcome.reply), "250 2.0.0 Queued")
        self.assertEqual(outcome.remote, "mx1.example[192.0.2.1]:25")
        self.assertIsNone(outcome.tls)
        self.assertEqual(peer.contents, [b"Received: x\r\nSubject: x\r\n\r\nHello\r\n.\r\n"])
        self.network.advance(5)
        self.assertTrue(peer.finished, peer.problems)
        self.assertTrue(peer.lost)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_next_target_where_one_says_nothing_of_the_message(self) -> None:
        """RFC 5321 §5.1: refused, turned away, or gone before the first reply."""
        self.targets = [FIRST, SECOND]
        scripts: list[list[ScriptStep]] = [
            [("close",)],
            [("send", b"421 4.3.2 Busy\r\n"), ("close",)],
            [("send", b"450 4.3.2 Busy\r\n"), *PARTING],
            [("send", b"554 No\r\n"), *PARTING],
            [*OPENING, ("abort",)],
            [*OPENING, *GROUP, ("send", b"421 4.3.2 Busy\r\n"), ("close",)],
        ]
        for script in scripts:
            first = self.server(*script)
            self.server(*OPENING, *TAKEN, *PARTING, target=SECOND)
            outcome = self.outcome(self.deliver())
            self.assertEqual(outcome.remote, "mx2.example[2001:db8::2]:25")
            self.assertTrue(outcome.delivered)
            self.assertEqual(first.problems, [])
            self.network.advance(5)

    def test_a_reply_to_the_message_ends_it(self) -> None:
        self.targets = [FIRST, SECOND]
        for reply in (b"450 4.7.1 Greylisted\r\n", b"550 5.7.1 No\r\n"):
            self.server(*OPENING, *GROUP, ("send", reply * 3))
            self.assertEqual(str(self.outcome(self.deliver()).reply).encode(), reply.rstrip())
            self.relay.abort()
            self.network.settle()

    def test_all_unreachable(self) -> None:
        """4.4.1, naming what each host did last."""
        self.targets = [FIRST, SECOND]
        self.server(("send", b"450 4.3.2 Busy\r\n"), *PARTING)
        outcome = self.outcome(self.deliver())
        self.assertEqual(outcome.reply.enhanced, "4.4.1")
        first, second = outcome.reply.lines
        self.assertEqual(first, "mx1.example[192.0.2.1]:25: 450 4.3.2 Busy")
        self.assertIn("mx2.example[2001:db8::2]:25: Connection was refused", second)

    def test_what_this_system_lacks_says_nothing_of_the_host(self) -> None:
        self.network.refusal = ConnectBindError(errno.EMFILE, "Too many open files")
        outcome = self.outcome(self.deliver())
        self.assertEqual((outcome.reply.code, outcome.reply.enhanced), (451, "4.3.0"))
        self.assertFalse(outcome.unreachable)
        self.server(*OPENING, *TAKEN, *PARTING)
        self.assertTrue(self.outcome(self.deliver()).delivered)

    def test_an_address_that_none_of_ours_leads_to_is_none_to_connect_to(self) -> None:
        self.network.refusal = ConnectError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        for source, unreachable in (("192.0.2.99", False), (None, True)):
            self.relay.connections.source_of = lambda address, source=source: source
            outcome = self.outcome(self.deliver())
            self.assertEqual(outcome.unreachable, unreachable)

    def test_one_that_is_there_and_not_safe_enough_is_what_counts(self) -> None:
        self.targets = [FIRST, SECOND]
        self.relay = self.make_relay(tls_level="encrypt")
        self.server(*OPENING, *PARTING)
        outcome = self.outcome(self.deliver())
        self.assertEqual(outcome.reply.enhanced, "4.7.4")
        self.assertIn("STARTTLS is not offered", outcome.reply.lines[0])
        self.assertIn("Connection was refused", outcome.reply.lines[1])

    def test_the_only_target_speaks_for_itself(self) -> None:
        self.server(("send", b"521 5.3.2 No mail here\r\n"), *PARTING)
        outcome = self.outcome(self.deliver())
        self.assertEqual(str(outcome.reply), "521 5.3.2 No mail here")
        self.assertEqual(outcome.remote, "mx1.example[192.0.2.1]:25")

    def test_no_target(self) -> None:
        reply = Reply.of(556, "1.10", "null MX")
        self.relay.locate = lambda next_hop: fail(NoTarget(reply))
        self.assertEqual(self.outcome(self.deliver()).reply, reply)
        self.relay.locate = lambda next_hop: succeed([])
        self.assertEqual(self.outcome(self.deliver()).reply.enhanced, "4.4.4")

    def test_a_bug_in_locating_loses_nothing(self) -> None:
        self.relay.locate = lambda next_hop: fail(ZeroDivisionError())
        self.assertEqual(self.outcome(self.deliver()).reply.enhanced, "4.3.0")
        self.relay.locate = lambda next_hop: 1 / 0  # type: ignore[assignment, return-value]
        self.assertEqual(self.outcome(self.deliver()).reply.enhanced, "4.3.0")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_connects_from_the_source_address_of_the_same_family(self) -> None:
        self.relay = self.make_relay(source_address="192.0.2.99")
        self.targets = [FIRST, SECOND]
        self.outcome(self.deliver())
        self.assertEqual(self.network.sources, [("192.0.2.99", 0), None])

    def test_only_so_many_targets(self) -> None:
        self.targets = [Target("mx", f"192.0.2.{number}", 25) for number in range(1, 30)]
        self.outcome(self.deliver())
        self.assertEqual(len(self.network.sources), 10)


class DeadlineTests(RelayTestCase):
    """RFC 5321 §4.5.3.2, on a clock."""

    def test_connecting(self) -> None:
        self.network.swallow(FIRST.address, FIRST.port)
        delivering = self.deliver()
        self.network.advance(29.9)
        self.assertNoResult(delivering)
        self.network.advance(0.1)
        self.assertEqual(self.outcome(delivering).reply.enhanced, "4.4.1")

    def test_a_greeting_that_never_comes(self) -> None:
        """5 minutes in all, however slowly octets trickle in; then the next target."""
        self.targets = [FIRST, SECOND]
        first = self.server()
        self.server(*OPENING, *TAKEN, target=SECOND)
        delivering = self.deliver()
        for octet in b"220-more\r\n220-and more\r\n220 and":
            first.transport.write(bytes([octet]))
            self.network.advance(9)
        self.network.advance(20)
        self.assertNoResult(delivering)
        self.network.advance(1)
        self.assertTrue(self.outcome(delivering).delivered)
        self.assertTrue(first.lost)

    def test_no_answer_to_the_final_dot(self) -> None:
        """10 minutes; it may have been delivered, and one line of the log says so."""
        self.server(*OPENING, *TAKEN[:-1])
        lines = logged_lines(self)
        delivering = self.deliver()
        self.network.advance(599)
        self.assertNoResult(delivering)
        self.network.advance(1)
        outcome = self.outcome(delivering)
        self.assertTrue(outcome.uncertain)
        self.assertEqual(outcome.reply.enhanced, "4.4.2")
        self.assertEqual(len([line for line in lines if "duplicate" in line]), 1)

    def test_a_peer_that_stops_reading(self) -> None:
        """3 minutes for each block of the content; the final dot was not sent."""
        peer = self.server(*OPENING, *TAKEN)
        body = PatternBody(size=1_000_000)
        delivering = self.relay.deliver(HOP, message(body))
        while b"DATA" not in peer.received:
            self.assertTrue(self.network.step())
        peer.transport.pauseProducing()
        self.network.settle()
        self.network.advance(179)
        self.assertNoResult(delivering)
        self.network.advance(1)
        outcome = self.outcome(delivering)
        self.assertFalse(outcome.uncertain)
        self.assertIn("while sending", outcome.reply.text)
        self.assertTrue(peer.lost)


class ReuseTests(RelayTestCase):
    def test_one_connection_for_message_after_message(self) -> None:
        """Neither located nor connected again."""
        peer = self.server(*OPENING, *TAKEN, *TAKEN, *TAKEN, *PARTING)
        for number in range(3):
            self.assertTrue(self.outcome(self.deliver(message(number=number))).delivered)
        self.assertEqual(self.located, 1)
        self.assertEqual(len(peer.contents), 3)
        self.network.advance(4.9)
        self.assertFalse(peer.finished)
        self.network.advance(0.1)
        self.assertTrue(peer.finished, peer.problems)

    def test_another_next_hop_at_the_same_target(self) -> None:
        peer = self.server(*OPENING, *TAKEN, *TAKEN)
        self.deliver()
        other = self.relay.deliver(NextHop("smtp", domain="example.org"), message())
        self.network.settle()
        self.assertTrue(self.outcome(other).delivered)
        self.assertTrue(peer.finished)

    def test_a_connection_serves_one_message_at_a_time(self) -> None:
        peers = [self.server(*OPENING, *TAKEN), self.server(*OPENING, *TAKEN)]
        deliveries = [self.relay.deliver(HOP, message()) for _ in peers]
        self.network.settle()
        for delivering, peer in zip(deliveries, peers, strict=True):
            self.assertTrue(self.outcome(delivering).delivered)
            self.assertTrue(peer.finished)

    def test_idle_connection_turns_out_dead(self) -> None:
        """Its end says nothing of the message: at once again, on a new connection."""
        ends: list[list[ScriptStep]] = [
            [("close",)],
            [("abort",)],
            [("send", b"421 4.4.2 Idle\r\n"), ("close",)],
        ]
        for end in ends:
            for at_once in (True, False):
                waiting = [] if at_once else GROUP
                self.server(*OPENING, *TAKEN, *waiting, *end)
                second = self.server(*OPENING, *TAKEN, *PARTING)
                self.outcome(self.deliver())
                outcome = self.outcome(self.deliver())
                self.assertTrue(outcome.delivered)
                self.network.advance(5)
                self.assertTrue(second.finished, second.problems)

    def test_idle_connection_dead_and_the_host_too(self) -> None:
        """The next hop is located again, and its other targets tried."""
        self.server(*OPENING, *TAKEN, *GROUP, ("abort",))
        self.outcome(self.deliver())
        self.targets = [FIRST, SECOND]
        self.server(*OPENING, *TAKEN, target=SECOND)
        self.assertTrue(self.outcome(self.deliver()).delivered)
        self.assertEqual(self.located, 2)
        self.assertEqual(len(self.network.sources), 3)

    def test_only_so_many_messages(self) -> None:
        self.relay = self.make_relay(settings=RelaySettings(messages_per_connection=2))
        peer = self.server(*OPENING, *TAKEN, *TAKEN, *PARTING)
        other = self.server(*OPENING, *TAKEN)
        for _ in range(3):
            self.assertTrue(self.outcome(self.deliver()).delivered)
        self.assertTrue(peer.finished)
        self.assertTrue(other.finished)

    def test_only_so_many_idle_connections(self) -> None:
        """The one that was idle longest goes."""
        self.relay = self.make_relay(settings=RelaySettings(idle_connections=1))
        peer = self.server(*OPENING, *TAKEN, *PARTING)
        self.server(*OPENING, *TAKEN, target=SECOND)
        self.outcome(self.deliver())
        self.targets = [SECOND]
        other = self.relay.deliver(NextHop("smtp", domain="example.org"), message())
        self.network.settle()
        self.assertTrue(self.outcome(other).delivered)
        self.assertTrue(peer.finished)

    def test_close(self) -> None:
        """QUIT on what is idle; a transaction under way is finished first."""
        idle = self.server(*OPENING, *TAKEN, *PARTING)
        self.outcome(self.deliver())
        self.targets = [SECOND]
        busy = self.server(*OPENING, *TAKEN[:-1], target=SECOND)
        delivering = self.relay.deliver(NextHop("smtp", domain="example.org"), message())
        self.network.settle()
        closing = self.relay.close()
        self.network.settle()
        self.assertTrue(idle.finished)
        self.assertNoResult(closing)
        busy.script = list(PARTING)
        busy.transport.write(b"250 Queued\r\n")
        self.network.settle()
        self.assertTrue(self.outcome(delivering).delivered)
        self.assertTrue(busy.finished)
        self.successResultOf(closing)
        self.successResultOf(self.relay.close())
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_abort(self) -> None:
        """Everything under way is deferred, connecting included."""
        self.server(*OPENING)
        first = self.deliver()
        self.network.swallow(SECOND.address, SECOND.port)
        self.targets = [SECOND]
        second = self.relay.deliver(NextHop("smtp", domain="example.org"), message())
        self.relay.abort()
        self.network.settle()
        for delivering in (first, second):
            self.assertEqual(self.outcome(delivering).reply.code // 100, 4)
        self.successResultOf(self.relay.close())
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_we_close_when_quit_is_answered(self) -> None:
        peer = self.server(*OPENING, *TAKEN, *PARTING[:2])
        self.outcome(self.deliver())
        closing = self.relay.close()
        self.network.settle()
        self.successResultOf(closing)
        self.assertTrue(peer.lost)

    def test_a_server_that_does_not_answer_quit(self) -> None:
        """It is left behind after 5 seconds."""
        peer = self.server(*OPENING, *TAKEN, ("expect", b"QUIT\r\n"))
        self.outcome(self.deliver())
        closing = self.relay.close()
        self.network.advance(4.9)
        self.assertNoResult(closing)
        self.network.advance(0.1)
        self.successResultOf(closing)
        self.assertTrue(peer.finished)
        self.assertTrue(peer.lost)


@define
class PatternBody:
    """A content made as it is read; notes how far that went."""

    size: int
    torn_at: int = -1
    read: int = 0

    def chunks(self) -> Iterator[bytes]:
        line = b".leading dot and some text, 40 octets.\r\n"
        block = line * 1600
        while self.read < self.size:
            if 0 <= self.torn_at <= self.read:
                raise OSError("Input/output error")
            chunk = block[: self.size - self.read]
            self.read += len(chunk)
            yield chunk

    def digest(self) -> str:
        digest = hashlib.sha256(b"Received: x\r\n")
        for chunk in PatternBody(self.size).chunks():
            digest.update(chunk)
        return digest.hexdigest()


class BodyTests(RelayTestCase):
    def test_20_mebibytes_with_bounded_memory(self) -> None:
        """A content is read no faster than the server takes it, and arrives as it was."""
        peer = self.server(*OPENING, *TAKEN)
        body = PatternBody(size=20 * 1024 * 1024 // 40 * 40)
        delivering = self.relay.deliver(HOP, message(body))
        while not self.network.connections:
            self.assertTrue(self.network.step())
        [(client, _)] = self.network.connections
        most_ahead = 0
        while self.network.step():
            most_ahead = max(most_ahead, body.read - len(peer.received))
        self.assertTrue(self.outcome(delivering).delivered)
        self.assertLess(client.peak, 256 * 1024)
        self.assertLess(most_ahead, 256 * 1024)
        [content] = peer.contents
        plain = content.removesuffix(b".\r\n").replace(b"\r\n.", b"\r\n")
        self.assertEqual(hashlib.sha256(plain).hexdigest(), body.digest())

    def test_content_that_cannot_be_read_to_its_end(self) -> None:
        """The connection is broken off, the final dot never sent; small ones and large."""
        for size in (10_000, 1_000_000):
            peer = self.server(*OPENING, *TAKEN)
            body = PatternBody(size=size, torn_at=0 if size < 65_536 else 500_000)
            outcome = self.outcome(self.deliver(message(body)))
            self.assertEqual(outcome.reply.enhanced, "4.3.0")
            self.assertFalse(outcome.uncertain)
            self.assertTrue(peer.lost)
            self.assertEqual(peer.contents, [])

    def test_refused_while_it_is_sent(self) -> None:
        """Nothing more is read, and the connection is broken off."""
        peer = self.server(*OPENING, *TAKEN)
        body = PatternBody(size=5_000_000)
        delivering = self.relay.deliver(HOP, message(body))
        while len(peer.received) < 100_000:
            self.assertTrue(self.network.step())
        peer.transport.write(b"552 5.3.4 Too large\r\n")
        self.network.settle()
        self.assertEqual(str(self.outcome(delivering).reply), "552 5.3.4 Too large")
        self.assertLess(body.read, 1_000_000)
        self.assertTrue(peer.lost)


SMTP_SINK = shutil.which("smtp-sink", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")


class SMTPSinkTests(TestCase):
    """Postfix's sink as the next hop, over TCP."""

    if SMTP_SINK is None:
        skip = "smtp-sink, a part of Postfix, is not installed"

    def setUp(self) -> None:
        from twisted.internet import reactor  # noqa: TID251

        self.reactor: Any = reactor
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        os.chmod(self.folder, 0o777)
        user = ["-u", "nobody"] if os.getuid() == 0 else []
        sink = subprocess.Popen(
            [str(SMTP_SINK), *user, "-R", self.folder, "-d", "m.", f"127.0.0.1:{port}", "10"],
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(sink.wait)
        self.addCleanup(sink.terminate)
        target = Target("localhost", "127.0.0.1", port)
        self.relay = Relay(
            reactor=self.reactor,
            locate=lambda next_hop: succeed([target]),
            helo="client.example",
            contexts=ClientContexts(),
        )
        self.addCleanup(self.relay.close)

    @inlineCallbacks
    def test_delivered_as_it_was(self) -> Generator["Deferred[Any]", Any, None]:
        """Small and large, on one connection."""
        for _ in range(200):  # until it listens
            [outcome] = yield self.relay.deliver(HOP, message())
            if outcome.delivered:
                break
            yield deferLater(self.reactor, 0.05)
        body = PatternBody(size=5_000_000)
        [outcome] = yield self.relay.deliver(HOP, message(body))
        self.assertTrue(outcome.delivered, outcome)
        contents = []
        for name in os.listdir(self.folder):
            with open(os.path.join(self.folder, name), "rb") as file:
                contents.append(file.read())
        large = max(contents, key=len)
        expected = b"".join(PatternBody(size=5_000_000).chunks()).replace(b"\r\n", b"\n")
        self.assertTrue(large.rstrip(b"\n").endswith(expected.rstrip(b"\n")))
