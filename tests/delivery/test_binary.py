"""BINARYMIME and BDAT (RFC 3030): binary content from our client to our server, in memory."""

import email
import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from attrs import define, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from tests.server.certificate import server_context
from tests.tidy import TidyTestCase
from twisted_mta.delivery.relay import Relay
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.body import Body, MemoryBody
from twisted_mta.mail.envelope import Envelope, Recipient, RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.mail.next_hop import Host, NextHop, Target
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.mail.reply import Reply
from twisted_mta.mail.tls_policy import TLSLevel
from twisted_mta.server.factory import ListenerFactory
from twisted_mta.server.timeouts import Timeouts
from twisted_mta.testing.delivery import RecordingDelivery
from twisted_mta.testing.network import MemoryNetwork, address
from twisted_mta.testing.server_options import ServerOptions
from twisted_mta.tls.client import ClientContexts

HOP = NextHop("smtp", hosts=(Host("mx.example"),))
TARGET = Target("mx.example", "192.0.2.1", 25)
TRACE = b"Received: from a\r\n\tby b; now\r\n"
CONTENTS = (
    b"Subject: x\r\n\r\n" + bytes(range(256)),
    b"",
    b"\0",
    b"\r",
    b"\n",
    b".",
    b".\r\n",
    b"\r\n.\r\n",
    b"..\r\n.\n.\r.\r\n\r\n.\r\nQUIT\r\n",
    b"no line end",
    b"Received: like a field\n\n\nBDAT 0 LAST\r\n",
    b"x" * 5000 + b"\n" + b"y" * 5000,
)


def message(*recipients: str, body: Body, parameters: str = "BINARYMIME") -> Message:
    return Message(
        id=QueueId(1),
        envelope=Envelope(
            Mailbox("a", "client.example"),
            tuple(
                Recipient(RecipientNumber(number), Mailbox(name, "mx.example"))
                for number, name in enumerate(recipients or ("b",))
            ),
            {"BODY": parameters},
        ),
        trace=TRACE,
        body=body,
        received_at=0.0,
        expires_at=1.0,
    )


@define
class LargeBody:
    """A content with every octet value, generated as it is read; counts the octets read."""

    size: int
    read: int = 0
    torn_at: int = -1

    def chunks(self) -> Iterator[bytes]:
        block = bytes(range(256)) * 250 + b"\r\n.\r\n\r"
        while self.read < self.size:
            if 0 <= self.torn_at <= self.read:
                raise OSError("Input/output error")
            chunk = block[: self.size - self.read]
            self.read += len(chunk)
            yield chunk

    def digest(self) -> str:
        digest = hashlib.sha256(TRACE)
        for chunk in LargeBody(self.size).chunks():
            digest.update(chunk)
        return digest.hexdigest()


class EndToEndTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.delivery = RecordingDelivery()
        self.factory = self.serve(ServerOptions(binarymime=True))
        self.relay = self.make_relay("none")

    def make_relay(self, level: TLSLevel) -> Relay:
        return Relay(
            reactor=self.network,  # type: ignore[arg-type]
            locate=lambda hop: succeed([TARGET]),
            helo="client.example",
            contexts=ClientContexts(),
            tls_level=level,
        )

    def serve(self, options: ServerOptions) -> ListenerFactory:
        self.factory = ListenerFactory(
            self.delivery,
            clock=self.network,
            settings=options.settings(),
            tls=server_context(),
            timeouts=Timeouts(decision=10_000),
        )
        return self.factory

    def send(self, mail: Message) -> "Deferred[Sequence[Outcome]]":
        server = self.factory.buildProtocol(address("192.0.2.9", 5000))
        self.network.listen(TARGET.address, TARGET.port, server)
        return self.relay.deliver(HOP, mail)

    def deliver(self, mail: Message) -> Sequence[Outcome]:
        delivering = self.send(mail)
        self.network.settle()
        return self.successResultOf(delivering)

    def replies(self, mail: Message) -> list[str | None]:
        return [outcome.reply.enhanced for outcome in self.deliver(mail)]

    def contents(self) -> list[bytes]:
        return [each.content for each in self.delivery.messages]


class BinaryContent(EndToEndTestCase):
    def test_every_octet_value_arrives(self) -> None:
        """Several messages on one connection: none has octets of another."""
        for content in CONTENTS:
            self.assertEqual(self.replies(message(body=MemoryBody(content))), ["2.0.0"])
        self.assertEqual(self.contents(), [TRACE + content for content in CONTENTS])
        self.assertEqual(
            [each.parameters["BODY"] for each in self.delivery.messages],
            ["BINARYMIME"] * len(CONTENTS),
        )
        self.assertEqual(len(self.network.connections), 1)

    def test_every_octet_arrives_whatever_the_listener_does_with_bare_newlines(self) -> None:
        self.serve(ServerOptions(binarymime=True, bare_newlines="normalize", long_lines="reject"))
        for content in CONTENTS:
            self.assertEqual(self.replies(message(body=MemoryBody(content))), ["2.0.0"])
        self.assertEqual(self.contents(), [TRACE + content for content in CONTENTS])

    def test_binary_content_arrives_under_tls(self) -> None:
        self.relay = self.make_relay("encrypt")
        for content in (*CONTENTS, CONTENTS[0] * 1000):
            [outcome] = self.deliver(message(body=MemoryBody(content)))
            self.assertTrue(outcome.delivered)
            self.assertIsNotNone(outcome.tls)
        self.assertEqual(self.contents()[-1], TRACE + CONTENTS[0] * 1000)

    def test_text_and_binary_content_share_a_connection(self) -> None:
        self.replies(message(body=MemoryBody(b"\n\0")))
        self.replies(message(body=MemoryBody(b".x"), parameters="8BITMIME"))
        self.replies(message(body=MemoryBody(b".\n")))
        self.assertEqual(self.contents(), [TRACE + b"\n\0", TRACE + b".x\r\n", TRACE + b".\n"])
        self.assertEqual(len(self.network.connections), 1)

    def test_20_mebibytes_are_sent_with_bounded_memory(self) -> None:
        body = LargeBody(20 * 1024 * 1024)
        delivering = self.send(message(body=body))
        while not self.network.connections:
            self.assertTrue(self.network.step())
        [(client, _)] = self.network.connections
        self.network.settle()
        self.assertTrue(self.successResultOf(delivering)[0].delivered)
        self.assertLess(client.peak, 256 * 1024)
        [content] = self.contents()
        self.assertEqual(hashlib.sha256(content).hexdigest(), body.digest())

    def test_some_recipients_are_accepted_and_others_refused(self) -> None:
        """Each refused recipient has its own reply, and the next message arrives."""
        self.delivery = RecordingDelivery(
            refusals={
                "c@mx.example": Reply.of(550, "1.1", "Nobody"),
                "d@mx.example": Reply.of(450, "2.1", "Later"),
            }
        )
        self.serve(ServerOptions(binarymime=True))
        body = MemoryBody(CONTENTS[0])
        self.assertEqual(self.replies(message("c", "d", body=body)), ["5.1.1", "4.2.1"])
        self.assertEqual(self.contents(), [])
        self.assertEqual(
            self.replies(message("b", "c", "d", "e", body=body)),
            ["2.0.0", "5.1.1", "4.2.1", "2.0.0"],
        )
        self.assertEqual(self.contents(), [TRACE + CONTENTS[0]])
        self.assertEqual(
            [mailbox.local_part for mailbox in self.delivery.messages[0].recipients], ["b", "e"]
        )
        self.assertEqual(len(self.network.connections), 1)

    def test_a_server_without_binarymime_gets_no_binary_content(self) -> None:
        """All recipients fail with 5.6.3 without MAIL, and other messages are delivered."""
        for options in (ServerOptions(), ServerOptions(chunking=True)):
            self.relay = self.make_relay("none")
            self.serve(options)
            body = MemoryBody(b"plain text\r\n")
            self.assertEqual(self.replies(message("b", "c", body=body)), ["5.6.3", "5.6.3"])
            self.assertEqual(self.delivery.calls, [])
            self.assertEqual(self.replies(message(body=body, parameters="8BITMIME")), ["2.0.0"])
            self.delivery.calls.clear()

    def test_a_content_refused_at_its_end_fails(self) -> None:
        self.delivery = RecordingDelivery(refusals={".": Reply.of(452, "3.1", "No room")})
        self.serve(ServerOptions(binarymime=True))
        for content in CONTENTS:
            self.assertEqual(self.replies(message(body=MemoryBody(content))), ["4.3.1"])
        self.assertEqual(len(self.network.connections), 1)

    def test_a_content_refused_at_its_beginning_is_sent_no_further(self) -> None:
        """A reply before the chunk is sent counts, and the connection is closed."""
        self.delivery = RecordingDelivery(refusals={"": Reply.of(452, "3.1", "No room")})
        self.serve(ServerOptions(binarymime=True))
        body = LargeBody(5_000_000)
        [outcome] = self.deliver(message(body=body))
        self.assertEqual(str(outcome.reply), "452 4.3.1 No room")
        self.assertFalse(outcome.uncertain)
        self.assertLess(body.read, 1_000_000)
        self.assertEqual(self.replies(message(body=MemoryBody(b"\0"))), ["4.3.1"])
        self.assertEqual(len(self.network.connections), 2)

    def test_a_content_that_cannot_be_read_to_its_end_is_deferred(self) -> None:
        """The connection is dropped within the chunk: the server stores nothing."""
        body = LargeBody(1_000_000, torn_at=500_000)
        [outcome] = self.deliver(message(body=body))
        self.assertEqual(outcome.reply.enhanced, "4.3.0")
        self.assertFalse(outcome.uncertain)
        self.assertEqual(self.contents(), [])
        self.assertEqual(self.delivery.open_sinks, 0)

    def test_a_server_that_does_not_reply_to_the_last_chunk_times_out(self) -> None:
        """The timeout is 10 minutes, as after a final dot; the outcome is uncertain."""
        self.delivery.when = lambda: Deferred() if "open" in self.delivery.calls else succeed(None)
        delivering = self.send(message(body=MemoryBody(b"\0")))
        self.network.settle()
        self.network.advance(599)
        self.assertNoResult(delivering)
        self.network.advance(1)
        [outcome] = self.successResultOf(delivering)
        self.assertTrue(outcome.uncertain)
        self.assertEqual(outcome.reply.enhanced, "4.4.2")


class Conversion(EndToEndTestCase):
    """Conversion for a next hop that does not take 8 bits runs on the executor."""

    def setUp(self) -> None:
        super().setUp()
        self.calls: deque[tuple[Callable[[], Any], Deferred[Any]]] = deque()
        self.serve(ServerOptions())

    def make_relay(self, level: TLSLevel) -> Relay:
        def executor(function: Any, /, *arguments: Any, **named: Any) -> Deferred[Any]:
            waiting: Deferred[Any] = Deferred()
            self.calls.append((partial(function, *arguments, **named), waiting))
            return waiting

        return Relay(
            reactor=self.network,  # type: ignore[arg-type]
            locate=lambda hop: succeed([TARGET]),
            helo="client.example",
            contexts=ClientContexts(),
            tls_level=level,
            executor=executor,
        )

    def work(self) -> None:
        """Run one call of the executor."""
        function, waiting = self.calls.popleft()
        try:
            result = function()
        except Exception:
            waiting.errback(Failure())
        else:
            waiting.callback(result)
        self.network.settle()

    def begin(self, size: int, torn_at: int = -1) -> "Deferred[Sequence[Outcome]]":
        self.read = LargeBody(size, torn_at=torn_at)
        header = b"Content-Type: application/x\r\n\r\n"
        delivering = self.send(message(body=Headed(header, self.read)))
        self.network.settle()
        return delivering

    def test_contents_are_converted_in_pieces_one_at_a_time(self) -> None:
        for size in (1000, 500_000):
            delivering = self.begin(size)
            pieces = 0
            while self.calls:
                self.assertEqual(len(self.calls), 1)
                self.assertNoResult(delivering)
                before = self.read.read
                self.network.advance(1)
                self.assertEqual(self.read.read, before)
                self.work()
                pieces += 1
            [outcome] = self.successResultOf(delivering)
            self.assertTrue(outcome.delivered, outcome)
            self.assertGreater(pieces, size // 64_000)
            content = email.message_from_bytes(self.delivery.messages[-1].content)
            expected = b"".join(LargeBody(size).chunks())
            self.assertEqual(content.get_payload(decode=True), expected)

    def test_a_content_or_a_connection_that_breaks_off_defers(self) -> None:
        for lost in (False, True):
            delivering = self.begin(500_000)
            for _ in range(4):
                self.work()
            self.assertGreater(len(self.calls), 0)
            if lost:
                self.network.connections[-1][1].abortConnection()
                self.network.settle()
            else:
                self.read.torn_at = 0
            while self.calls:
                self.work()
            [outcome] = self.successResultOf(delivering)
            self.assertEqual(outcome.reply.code // 100, 4)
            self.assertEqual(self.delivery.messages, [])


@frozen
class Headed:
    """A header section and a body, readable several times."""

    header: bytes
    below: LargeBody

    @property
    def size(self) -> int:
        return len(self.header) + self.below.size

    def chunks(self) -> Iterator[bytes]:
        self.below.read = 0
        yield self.header
        yield from self.below.chunks()
