"""The intake: relaying, local recipients, aliases, capacity, and the stored message."""

import errno
import time
from collections.abc import Sequence
from functools import cached_property
from ipaddress import ip_network
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.server.certificate import server_context
from twisted_mta.interfaces import Refused
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.final_recipient import FinalRecipient
from twisted_mta.mail.message import Message
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.mail.reply import Reply
from twisted_mta.policy.capacity import Capacity
from twisted_mta.server.factory import ESMTPFactory
from twisted_mta.server.intake import Intake
from twisted_mta.server.intake_policy import IntakePolicy
from twisted_mta.smtp.peer import Peer
from twisted_mta.smtp.server.session import Session
from twisted_mta.smtp.server.step import Finish, Mail, Open, Rcpt, Write
from twisted_mta.testing.client import SMTPClientEnd
from twisted_mta.testing.pure import Options

STRANGER, FRIEND, OWN = "198.51.100.9", "192.0.2.7", "203.0.113.1"
NO_SUCH = Reply.of(550, "1.1", "No such mailbox here")
LOCAL = ("mx.example", "xn--bcher-kva.example")


class Queue:
    """Takes messages, and records each body."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.refusal: Exception | None = None
        self.error: Exception | None = None
        self.late = False  # the error comes when the body is sealed
        self.begun = 0
        self.discarded = 0
        self.existing: list[Mailbox] | None = None
        self.aliases: dict[str, Reply | list[FinalRecipient]] = {}
        self.expanded: list[tuple[str, str]] = []
        self.clock = Clock()
        self.free = 5000

    @cached_property
    def capacity(self) -> Capacity:
        """Memory for two messages, and a disk with ``self.free`` free octets."""
        return Capacity(
            memory=250, share=100, minimum_free=1000, free=lambda: self.free, clock=self.clock
        )

    def accept(self, message: Message) -> Deferred[None]:
        if self.refusal is not None:
            return fail(self.refusal)
        self.messages.append(message)
        return succeed(None)

    def new_body(self, id: QueueId) -> Any:
        self.begun += 1
        return Writer(self)

    def exists(self, mailbox: Mailbox) -> bool:
        return self.existing is None or mailbox in self.existing

    def expand(
        self, mailbox: Mailbox, reverse_path: Mailbox | None
    ) -> Reply | Sequence[FinalRecipient]:
        self.expanded.append((str(mailbox), str(reverse_path)))
        return self.aliases.get(str(mailbox), [FinalRecipient(mailbox)])

    def intake_for(self, network: str) -> Intake:
        return self.intake(relay_from=(ip_network(network),))

    def intake(self, **policy: Any) -> Intake:
        ids = iter(range(1, 1000))
        return Intake(
            IntakePolicy(
                hostname="mx.example",
                local_domains=LOCAL,
                **{
                    "relay_from": (ip_network("192.0.2.0/24"), ip_network("::1/128")),
                    **policy,
                },
            ),
            accept=self.accept,
            new_body=self.new_body,
            exists=self.exists,
            expand=self.expand,
            ids=lambda: QueueId(next(ids)),
            wall_time=lambda: 1_790_000_000.0,
            capacity=self.capacity,
        )


class Writer:
    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.pieces: list[bytes] = []
        self.discarded = False

    def write(self, content: bytes) -> None:
        assert not self.discarded
        if self.queue.error is not None and not self.queue.late:
            raise self.queue.error
        self.pieces.append(content)

    def seal(self) -> MemoryBody | Deferred[MemoryBody]:
        assert not self.discarded
        if self.queue.error is not None:
            self.discard()
            return fail(self.queue.error)
        return MemoryBody(b"".join(self.pieces))

    def discard(self) -> None:
        if not self.discarded:
            self.discarded = True
            self.queue.discarded += 1


class IntakeTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.queue = Queue()
        self.intake = self.queue.intake()

    def begin(self, peer: str | None, *, hostname: str = OWN) -> Session:
        session = self.begin_session(peer, hostname=hostname)
        self.send(session, "MAIL FROM:<a@sender.example>")
        session.output()
        return session

    def begin_session(self, peer: str | None, *, hostname: str = OWN) -> Session:
        session = Session(
            Options(max_errors=10_000).settings(), peer=Peer(peer), local_address=hostname
        )
        session.receive(b"EHLO client.example\r\n")
        assert session.step() is None
        session.output()
        return session

    def send(self, session: Session, line: str) -> str:
        session.output()
        session.receive(line.encode() + b"\r\n")
        while (step := session.step()) is not None:
            if isinstance(step, Mail):
                session.answer(self.intake.mail(session, *step))
            elif isinstance(step, Rcpt):
                session.answer(self.intake.rcpt(session, *step))
            else:
                assert isinstance(step, Open)
                opened = self.intake.open(session)
                if isinstance(opened, Reply):
                    session.answer(opened)
                else:
                    self.sink = opened
                    session.answer()
        return session.output().decode("ascii")[:9]

    def content(self, session: Session, *pieces: bytes) -> Reply:
        """Return the decision on a content."""
        self.send(session, "DATA")
        for piece in pieces:
            session.receive(piece)
            while (step := session.step()) is not None:
                assert isinstance(step, Write)
                self.sink.write(step.content)
        session.receive(b"\r\n.\r\n")
        while True:
            step = session.step()
            if isinstance(step, Finish):
                break
            assert isinstance(step, Write)
            self.sink.write(step.content)
        decision = self.sink.finish()
        if isinstance(decision, Deferred):
            decision = self.successResultOf(decision)
        assert decision is not None
        session.answer(decision)
        return decision


class NoRelaying(IntakeTestCase):
    """A stranger can send to local mailboxes alone, however an address is written."""

    def test_no_spelling_of_a_foreign_address_is_accepted(self) -> None:
        session = self.begin(STRANGER)
        for spelling in (
            "<victim@ext.example>",
            "<victim@EXT.example.>",
            '<"victim"@ext.example>',
            "<@mx.example:victim@ext.example>",
            "<@mx.example,@other.example:victim@ext.example>",
            "<@[203.0.113.1]:victim@ext.example>",
            "<victim@[198.51.100.77]>",
            "<victim@[IPv6:2001:db8::1]>",
            "<victim@[IPv6:::1]>",
            "<victim@[127.0.0.1]>",
            "<victim@[IPv6:::ffff:203.0.113.1]>",
            "<victim@203.0.113.1>",
            "<victim@sub.mx.example>",
            "<victim@xmx.example>",
            "<victim@mx.example.ext.example>",
            "<postmaster@ext.example>",
            '<"victim@mx.example"@ext.example>',
            "<victim%mx.example@ext.example>",
            "<mx.example!victim@ext.example>",
            "<victim@localhost>",
        ):
            self.assertEqual(self.send(session, f"RCPT TO:{spelling}"), "550 5.7.1", spelling)
        assert session.transaction is not None
        self.assertEqual(session.transaction.recipients, [])

    def test_malformed_addresses_are_refused(self) -> None:
        session = self.begin(STRANGER)
        for spelling in (
            "<victim@ext.example@mx.example>",
            "<@mx.example:victim@ext.example@mx.example>",
            "<victim@>",
            "<victim>",
            "<@ext.example>",
            "<victim@ext.example,@mx.example>",
            "<victim@mx.example ext.example>",
            "<victim@ext.example\\@mx.example>",
            "<victim@mx.example>@ext.example",
            "<victim@[203.0.113.1].ext.example>",
            "victim@ext.example",
            '"victim"@ext.example',
            "<>",
        ):
            self.assertEqual(self.send(session, f"RCPT TO:{spelling}")[:3], "501", spelling)

    def test_a_local_part_that_looks_like_an_address_is_opaque(self) -> None:
        for existing, expected in ((None, "250 2.1.5"), ([], "550 5.1.1")):
            self.queue.existing = existing
            session = self.begin(STRANGER)
            for spelling, local_part in (
                ('"victim@ext.example"@mx.example', "victim@ext.example"),
                ("victim%ext.example@mx.example", "victim%ext.example"),
                ("ext.example!victim@mx.example", "ext.example!victim"),
                ('"<victim@ext.example>"@mx.example', "<victim@ext.example>"),
                ("@a.example,@b.example:victim%ext.example@mx.example", "victim%ext.example"),
            ):
                self.assertEqual(self.send(session, f"RCPT TO:<{spelling}>"), expected, spelling)
                assert session.transaction is not None
                if existing is None:
                    taken = session.transaction.recipients[-1].mailbox
                    self.assertEqual(taken, Mailbox(local_part, "mx.example"))
                else:
                    self.assertEqual(session.transaction.recipients, [])

    def test_clients_outside_the_relay_networks_may_not_relay(self) -> None:
        for peer in ("192.0.3.7", "::ffff:192.0.3.7", "2001:db8::1", "::2", "fe80::1%eth0"):
            self.assertEqual(
                self.send(self.begin(peer), "RCPT TO:<v@ext.example>"), "550 5.7.1", peer
            )

    def test_clients_in_the_relay_networks_may_relay(self) -> None:
        for peer in (FRIEND, "::ffff:192.0.2.7", "::1", None):
            session = self.begin(peer)
            self.assertEqual(self.send(session, "RCPT TO:<v@ext.example>"), "250 2.1.5", peer)
            self.assertEqual(self.send(session, "RCPT TO:<v@[198.51.100.77]>"), "250 2.1.5", peer)

    def test_a_relaying_client_may_not_send_to_a_missing_local_mailbox(self) -> None:
        self.queue.existing = []
        self.assertEqual(self.send(self.begin(FRIEND), "RCPT TO:<v@mx.example>"), "550 5.1.1")


class LocalRecipients(IntakeTestCase):
    def recipients(
        self, *spellings: str, peer: str = STRANGER, local_address: str = OWN
    ) -> list[str]:
        session = self.begin(peer, hostname=local_address)
        for spelling in spellings:
            self.assertEqual(self.send(session, f"RCPT TO:{spelling}"), "250 2.1.5", spelling)
        self.assertEqual(self.content(session, b"x").code, 250)
        return [str(each.mailbox) for each in self.queue.messages[-1].envelope.recipients]

    def test_every_spelling_of_a_local_address_is_one_mailbox(self) -> None:
        spellings = (
            "<u@mx.example>",
            "<u@MX.EXAMPLE.>",
            '<"u"@mx.example>',
            '<"\\u"@mx.example>',
            "<@anywhere.example:u@mx.example>",
            "<u@[203.0.113.1]>",
        )
        for spelling in spellings:
            self.assertEqual(self.recipients(spelling), ["u@mx.example"], spelling)
        # Named several times, it has one copy.
        self.assertEqual(self.recipients(*spellings, "<U@mx.example>"), ["u@mx.example"])

    def test_a_domain_may_be_written_with_u_labels(self) -> None:
        self.assertEqual(self.recipients("<u@XN--BCHER-KVA.example>"), ["u@xn--bcher-kva.example"])

    def test_our_own_ipv6_literal_is_a_local_domain(self) -> None:
        came = self.recipients("<u@[IPv6:2001:DB8:0::5]>", local_address="2001:db8::5")
        self.assertEqual(came, ["u@mx.example"])

    def test_postmaster_exists_and_without_a_domain_is_that_of_the_first_domain(self) -> None:
        # RFC 5321 §4.1.1.3, §4.5.1
        self.queue.existing = []
        came = self.recipients(
            "<postmaster>",
            "<POSTMASTER>",
            "<Postmaster@xn--bcher-kva.example>",
            "<postmaster@[203.0.113.1]>",
        )
        self.assertEqual(
            came,
            ["postmaster@mx.example", "Postmaster@xn--bcher-kva.example"],
        )


class StoringTestCase(IntakeTestCase):
    def ready(self) -> Session:
        session = self.begin(STRANGER)
        self.send(session, "RCPT TO:<u@mx.example>")
        return session


class StoredMessages(StoringTestCase):
    def test_250_names_the_queue_id_and_the_message_is_complete(self) -> None:
        reply = self.content(self.ready(), b"Subject: x\r\n\r\n..", b"y")
        (message,) = self.queue.messages
        self.assertEqual(reply, Reply.of(250, "0.0", f"Queued as {message.id}"))
        self.assertEqual(b"".join(message.body.chunks()), b"Subject: x\r\n\r\n.y\r\n")
        self.assertEqual(str(message.envelope.reverse_path), "a@sender.example")
        self.assertEqual(message.expires_at - message.received_at, 5 * 24 * 3600)
        self.assertTrue(message.trace.startswith(b"Received: from client.example"))

    def test_parameters_that_concern_the_session_alone_are_not_stored(self) -> None:
        session = self.ready()
        self.send(session, "RSET")
        self.send(session, "MAIL FROM:<a@sender.example> SIZE=5 BODY=8BITMIME")
        self.send(session, "RCPT TO:<u@mx.example>")
        self.content(session, b"caf\xc3\xa9")
        self.assertEqual(self.queue.messages[0].envelope.parameters, {"BODY": "8BITMIME"})

    def test_ascii_content_with_body_8bitmime_is_stored_without_it(self) -> None:
        # RFC 6152 §3
        session = self.ready()
        self.send(session, "RSET")
        self.send(session, "MAIL FROM:<a@sender.example> BODY=8BITMIME")
        self.send(session, "RCPT TO:<u@mx.example>")
        self.content(session, b"Subject: x\r\n\r\ncafe")
        self.assertEqual(self.queue.messages[0].envelope.parameters, {})

    def test_too_many_hops_are_refused_with_554_5_4_6(self) -> None:
        # RFC 5321 §6.3
        self.intake = self.queue.intake(max_hops=3)
        hop = b"Received: from a by b;\r\n\tdate\r\n"
        self.assertEqual(self.content(self.ready(), hop * 3, b"\r\n", hop * 9).code, 250)
        reply = self.content(self.ready(), hop * 2, b"receIVED:x\r\n", hop, b"\r\nbody")
        self.assertEqual((reply.code, reply.enhanced), (554, "5.4.6"))
        self.assertEqual((self.queue.begun, self.queue.discarded), (2, 1))

    def test_a_header_section_over_the_limit_is_refused_with_552_5_3_4(self) -> None:
        self.intake = self.queue.intake(max_header_size=100)
        self.assertEqual(
            self.content(self.ready(), b"A: " + b"x" * 90 + b"\r\n\r\n", b"y" * 999).code, 250
        )
        reply = self.content(self.ready(), b"A: " + b"x" * 110 + b"\r\n\r\n", b"y")
        self.assertEqual((reply.code, reply.enhanced), (552, "5.3.4"))
        self.assertEqual(len(self.queue.messages), 1)

    def test_a_full_disk_is_452_4_3_1_and_another_error_of_storage_451(self) -> None:
        for number, code, status in (
            (errno.ENOSPC, 452, "4.3.1"),
            (errno.EDQUOT, 452, "4.3.1"),
            (errno.EIO, 451, "4.3.0"),
        ):
            self.queue.error = OSError(number, "no")
            reply = self.content(self.ready(), b"x", b"y")
            self.assertEqual((reply.code, reply.enhanced), (code, status))
        self.assertEqual((self.queue.begun, self.queue.discarded, self.queue.messages), (3, 3, []))

    def test_an_error_of_storage_is_a_shortage_of_the_capacity(self) -> None:
        for error in (
            OSError(errno.ENOSPC, "No space left on device"),
            OSError(errno.EIO, "Input/output error"),
            OSError(errno.EFBIG, "File too large"),
            RuntimeError("can't start new thread"),
            MemoryError(),
        ):
            for late in (True,) if isinstance(error, RuntimeError) else (False, True):
                queue = self.queue = Queue()
                self.intake = queue.intake()
                queue.error, queue.late = error, late
                self.assertIsNone(queue.capacity.shortage())
                self.assertIn(self.content(self.ready(), b"x", b"y").code, (451, 452))
                shortage = queue.capacity.shortage()
                assert shortage is not None
                text = getattr(error, "strerror", None) or str(error) or "MemoryError"
                self.assertEqual(shortage.text, f"the queue cannot be written: {text}")
                self.assertEqual((queue.discarded, queue.messages), (1, []))

    def test_the_refusal_of_the_queue_is_the_reply(self) -> None:
        self.queue.refusal = Refused(Reply.of(451, "3.2", "Not now"))
        self.assertEqual(self.content(self.ready(), b"x"), Reply.of(451, "3.2", "Not now"))

    def test_an_aborted_message_leaves_no_body(self) -> None:
        session = self.ready()
        self.send(session, "DATA")
        self.sink.write(b"x")
        self.sink.abort()
        self.assertEqual((self.queue.begun, self.queue.discarded, self.queue.messages), (1, 1, []))


class KnownFailures(IntakeTestCase):
    """Mail that is known to fail is refused at once, since a bounce may go to a forged sender."""

    def test_a_recipient_whose_route_is_an_error_is_refused_with_its_reply(self) -> None:
        gone = Reply.of(550, "1.6", "Moved away")
        self.intake = self.queue.intake()
        self.intake._refusal = lambda mailbox: gone if mailbox.local_part == "old" else None
        session = self.begin(FRIEND)
        self.assertEqual(self.send(session, "RCPT TO:<old@mx.example>"), "550 5.1.6")
        self.assertEqual(self.send(session, "RCPT TO:<old@ext.example>"), "550 5.1.6")
        self.assertEqual(self.send(session, "RCPT TO:<new@mx.example>"), "250 2.1.5")

    def test_a_unix_socket_may_relay_where_loopback_may(self) -> None:
        session = self.begin(None)
        self.assertEqual(self.send(session, "RCPT TO:<x@ext.example>"), "250 2.1.5")
        self.intake = Queue().intake_for("192.0.2.0/24")
        session = self.begin(None)
        self.assertEqual(self.send(session, "RCPT TO:<x@ext.example>"), "550 5.7.1")


class CapacityForMessages(StoringTestCase):
    """452 4.3.1 before memory grows, and before the disk is full."""

    def test_messages_on_their_way_share_the_memory(self) -> None:
        # There is memory for two (see `Queue.capacity`).
        sessions = [self.ready() for _ in range(3)]
        self.assertEqual(self.send(sessions[0], "DATA"), "354 End w")
        first = self.sink
        self.assertEqual(self.send(sessions[1], "DATA"), "354 End w")
        self.assertEqual(self.send(sessions[2], "DATA"), "452 4.3.1")
        another = self.begin_session(STRANGER)
        self.assertEqual(self.send(another, "MAIL FROM:<a@sender.example>"), "452 4.3.1")
        first.abort()
        first.abort()  # its share is released once
        self.assertEqual(self.send(another, "MAIL FROM:<a@sender.example>"), "250 2.1.0")
        self.assertEqual(self.send(sessions[2], "DATA"), "354 End w")

    def test_memory_is_released_however_a_message_ends(self) -> None:
        for error, refusal in (
            (None, None),
            (OSError(errno.EIO, "no"), None),
            (None, Refused(Reply.of(451, "3.0", "Later"))),
        ):
            self.queue.error, self.queue.refusal = error, refusal
            self.content(self.ready(), b"x")
            self.assertEqual(self.queue.capacity.in_use, 0)

    def test_a_nearly_full_disk_refuses_mail_until_there_is_space_again(self) -> None:
        self.queue.free = 999
        session = self.begin_session(FRIEND)
        self.assertEqual(self.send(session, "MAIL FROM:<a@sender.example>"), "452 4.3.1")
        self.queue.free = 1000
        self.queue.clock.advance(1)
        self.assertEqual(self.send(session, "MAIL FROM:<a@sender.example>"), "250 2.1.0")


class Aliases(IntakeTestCase):
    """An alias is expanded at RCPT; the stored recipient keeps the address as written."""

    def alias(self, mailbox: str, *targets: str, reverse_path: Mailbox | None = None) -> None:
        self.queue.aliases[mailbox] = [
            FinalRecipient(Mailbox.parse(each), reverse_path) for each in targets
        ]

    def miss(self, mailbox: str, target: str) -> None:
        found = self.queue.aliases[mailbox]
        assert isinstance(found, list)
        found.append(FinalRecipient(Mailbox.parse(target), refusal=NO_SUCH))

    def stored(self, *forward_paths: str, peer: str = STRANGER) -> Message:
        session = self.begin(peer)
        for each in forward_paths:
            self.assertEqual(self.send(session, f"RCPT TO:{each}"), "250 2.1.5", each)
        self.assertEqual(self.content(session, b"x").code, 250)
        return self.queue.messages[-1]

    def test_the_envelope_has_the_members_and_the_address_as_written(self) -> None:
        self.alias("all@mx.example", "a@mx.example", "b@ext.example")
        envelope = self.stored("<ALL@MX.example>".lower(), "<c@mx.example>").envelope
        found = [(each.number, str(each.mailbox), each.original) for each in envelope.recipients]
        written = Mailbox("all", "mx.example")
        self.assertEqual(
            found,
            [
                (0, "a@mx.example", written),
                (1, "b@ext.example", written),
                (2, "c@mx.example", None),
            ],
        )

    def test_the_original_address_keeps_its_spelling(self) -> None:
        self.alias("u@mx.example", "a@mx.example")
        (found,) = self.stored("<u@[203.0.113.1]>").envelope.recipients
        self.assertEqual(found.original, Mailbox("u", "[203.0.113.1]"))

    def test_a_forwarding_reverse_path_is_the_recipients_and_not_the_envelopes(self) -> None:
        ours = Mailbox("SRS0=x", "mx.example")
        self.alias("u@mx.example", "b@ext.example", reverse_path=ours)
        envelope = self.stored("<u@mx.example>").envelope
        self.assertEqual(envelope.reverse_path, Mailbox("a", "sender.example"))
        self.assertEqual([each.reverse_path for each in envelope.recipients], [ours])
        self.assertEqual(self.queue.expanded, [("u@mx.example", "a@sender.example")])

    def test_a_mailbox_that_is_reached_twice_gets_one_copy(self) -> None:
        self.alias("one@mx.example", "a@mx.example", "b@ext.example")
        self.alias("two@mx.example", "b@ext.example", "A@mx.example", "B@ext.example")
        paths = "<one@mx.example>", "<two@mx.example>", "<a@mx.example>"
        found = [str(each.mailbox) for each in self.stored(*paths).envelope.recipients]
        # Case is ignored in local mailboxes alone.
        self.assertEqual(found, ["a@mx.example", "b@ext.example", "B@ext.example"])

    def test_the_trace_field_names_the_address_as_written_and_no_member(self) -> None:
        # RFC 5321 §7.2
        self.alias("u@mx.example", "secret@ext.example")
        trace = self.stored("<u@mx.example>").trace
        self.assertIn(b"for <u@mx.example>;", trace)
        self.assertNotIn(b"secret", trace)
        self.alias("u@mx.example", "a@mx.example")
        self.assertNotIn(b"for <", self.stored("<u@mx.example>", "<a@mx.example>").trace)

    def test_the_refusal_of_an_expansion_is_the_reply(self) -> None:
        self.queue.aliases["u@mx.example"] = Reply.of(451, "3.5", "Loop")
        self.assertEqual(self.send(self.begin(FRIEND), "RCPT TO:<u@mx.example>"), "451 4.3.5")

    def test_missing_members_do_not_keep_the_mail_from_the_others(self) -> None:
        written = Mailbox("v", "mx.example")
        self.alias("v@mx.example", "a@mx.example", "b@ext.example")
        self.miss("v@mx.example", "gone@mx.example")
        message = self.stored("<v@mx.example>", "<c@mx.example>")
        self.assertEqual(
            [(each.number, str(each.mailbox)) for each in message.envelope.recipients],
            [(0, "a@mx.example"), (1, "b@ext.example"), (2, "c@mx.example")],
        )
        (refused,) = message.refused
        self.assertEqual(str(refused.reply), str(NO_SUCH))
        self.assertEqual((refused.recipient.number, refused.recipient.original), (3, written))
        self.assertEqual(str(refused.recipient.mailbox), "gone@mx.example")

    def test_a_loop_is_detected_however_the_domain_of_the_alias_is_written(self) -> None:
        alias = Mailbox("u", "xn--bcher-kva.example")
        self.queue.aliases[str(alias)] = [
            FinalRecipient(Mailbox("a", "mx.example"), aliases=(alias,))
        ]
        for domain in ("xn--bcher-kva.example", "b\u00fccher.example", "XN--BCHER-KVA.Example."):
            session = self.begin(STRANGER)
            self.send(session, f"RCPT TO:<{alias}>")
            field = f"Delivered-To: <u@{domain}>\r\n\r\nx"
            self.assertEqual(self.content(session, field.encode()).enhanced, "5.4.6", domain)
            self.assertEqual(self.queue.discarded, 1)
            self.queue.discarded = 0

    def test_hostile_delivered_to_fields_cost_little_time(self) -> None:
        self.alias("u@mx.example", "a@mx.example")
        for domain in ("\u00fc" * 30 + "{}." + "\u00f6" * 40 + ".example", "mx.example"):
            fields = "".join(
                f"Delivered-To: {number}@{domain.format(number)}\r\n" for number in range(2000)
            )
            session = self.begin(STRANGER)
            self.send(session, "RCPT TO:<u@mx.example>")
            before = time.process_time()
            self.assertEqual(self.content(session, fields.encode() + b"\r\nx").code, 250)
            self.assertLess(time.process_time() - before, 0.05)

    def test_a_missing_member_of_several_aliases_is_refused_once(self) -> None:
        for name in ("v", "w"):
            self.alias(f"{name}@mx.example", "a@mx.example")
            self.miss(f"{name}@mx.example", "gone@mx.example")
        self.assertEqual(len(self.stored("<v@mx.example>", "<w@mx.example>").refused), 1)

    def test_with_missing_members_refuse_the_whole_list_is_refused(self) -> None:
        self.intake = self.queue.intake(missing_members="refuse")
        self.alias("v@mx.example", "a@mx.example")
        self.miss("v@mx.example", "gone@mx.example")
        self.alias("postmaster@mx.example", "a@mx.example")
        self.miss("postmaster@mx.example", "gone@mx.example")
        session = self.begin(STRANGER)
        self.assertEqual(self.send(session, "RCPT TO:<v@mx.example>"), "550 5.1.1")
        (found,) = self.stored("<postmaster>").envelope.recipients
        self.assertEqual(str(found.mailbox), "postmaster@mx.example")

    def test_postmaster_is_accepted_even_if_its_alias_leads_nowhere(self) -> None:
        # RFC 5321 §4.5.1
        self.queue.existing = []
        self.queue.aliases["postmaster@mx.example"] = NO_SUCH
        self.queue.aliases["postmaster@xn--bcher-kva.example"] = Reply.of(451, "3.5", "Loop")
        for path in ("<postmaster>", "<postmaster@xn--bcher-kva.example>"):
            (found,) = self.stored(path).envelope.recipients
            self.assertEqual(str(found.mailbox), "postmaster@mx.example")

    def test_foreign_addresses_are_not_expanded(self) -> None:
        self.alias("u@ext.example", "a@mx.example")
        (found,) = self.stored("<u@ext.example>", peer=FRIEND).envelope.recipients
        self.assertEqual(str(found.mailbox), "u@ext.example")
        self.assertEqual(self.queue.expanded, [])

    def test_an_alias_does_not_allow_its_senders_to_relay_to_its_members(self) -> None:
        self.alias("u@mx.example", "b@ext.example")
        session = self.begin(STRANGER)
        self.assertEqual(self.send(session, "RCPT TO:<u@mx.example>"), "250 2.1.5")
        self.assertEqual(self.send(session, "RCPT TO:<b@ext.example>"), "550 5.7.1")

    def test_too_many_final_recipients_are_refused_with_452_4_5_3(self) -> None:
        # RFC 5321 §4.5.3.1.10: the client sends to the others again.
        for name in "uvw":
            targets = (f"{name}{number}@ext.example" for number in range(4_000))
            self.alias(f"{name}@mx.example", *targets)
        session = self.begin(STRANGER)
        self.assertEqual(self.send(session, "RCPT TO:<u@mx.example>"), "250 2.1.5")
        self.assertEqual(self.send(session, "RCPT TO:<v@mx.example>"), "250 2.1.5")
        self.assertEqual(self.send(session, "RCPT TO:<v@mx.example>"), "250 2.1.5")
        self.assertEqual(self.send(session, "RCPT TO:<w@mx.example>"), "452 4.5.3")
        self.assertEqual(self.content(session, b"x").code, 250)
        self.assertEqual(len(self.queue.messages[-1].envelope.recipients), 8_000)
        self.send(session, "MAIL FROM:<a@sender.example>")
        self.assertEqual(self.send(session, "RCPT TO:<w@mx.example>"), "250 2.1.5")

    def test_a_changed_alias_does_not_change_an_accepted_recipient(self) -> None:
        self.alias("u@mx.example", "old@mx.example")
        session = self.begin(STRANGER)
        self.send(session, "RCPT TO:<u@mx.example>")
        self.alias("u@mx.example", "new@mx.example")
        self.content(session, b"x")
        (found,) = self.queue.messages[-1].envelope.recipients
        self.assertEqual(str(found.mailbox), "old@mx.example")

    def test_a_changed_alias_holds_for_the_next_transaction(self) -> None:
        session = self.begin_session(STRANGER)
        for name, end in (("old", "RSET"), ("new", "DATA"), ("newest", "DATA")):
            self.alias("u@mx.example", f"{name}@mx.example")
            self.send(session, "MAIL FROM:<a@sender.example>")
            self.send(session, "RCPT TO:<u@mx.example>")
            if end == "RSET":
                self.send(session, end)
                continue
            self.content(session, b"x")
            (found,) = self.queue.messages[-1].envelope.recipients
            self.assertEqual(str(found.mailbox), f"{name}@mx.example")

    def test_expansions_are_kept_until_the_content_begins(self) -> None:
        session = self.begin(STRANGER)
        self.send(session, "RCPT TO:<u@mx.example>")
        transaction = session.transaction
        assert transaction is not None
        self.assertEqual(transaction.expansions.count, 1)
        self.intake.begin(session)
        self.assertEqual(transaction.expansions.count, 0)


class TraceUnderTLS(TestCase):
    """RFC 3848, S14 of RFC 3207: Received shows the state after the handshake alone.

    Over real connections.
    """

    async def trace(self, greeting: bytes, tls: str) -> bytes:
        """Return the trace field of a message; ``tls`` tells how TLS began."""
        from twisted.internet import reactor  # noqa: TID251

        queue = Queue()
        factory = ESMTPFactory(
            queue.intake(), clock=reactor, settings=Options().settings(), tls=server_context()
        )
        served: Any = factory
        if tls == "implicit":
            served = TLSMemoryBIOFactory(server_context(), False, factory, reactor)
        port = reactor.listenTCP(0, served, interface="127.0.0.1")  # type: ignore[attr-defined]
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        client = await connectProtocol(endpoint, SMTPClientEnd())
        lines = [greeting, b"MAIL FROM:<>", b"RCPT TO:<u@mx.example>", b"DATA", b"x\r\n."]
        if tls == "implicit":
            await client.start_tls()
        elif tls == "first":
            lines.insert(0, b"STARTTLS")
        elif tls == "second":
            lines[:0] = [b"EHLO before.example", b"STARTTLS"]
        await client.line()
        for line in lines:
            await client.send(line + b"\r\n")
            while (reply := await client.line() or b"")[3:4] == b"-":
                pass
            self.assertIn(reply[:1], b"23", reply)
            if line == b"STARTTLS":
                await client.start_tls()
        client.abort()
        await factory.drain()
        await port.stopListening()
        (message,) = queue.messages
        return message.trace

    async def test_every_greeting_and_kind_of_tls_has_its_with_clause(self) -> None:
        for greeting, tls, protocol in (
            (b"HELO client.example", "", b"SMTP"),
            (b"HELO client.example", "first", b"SMTP"),
            (b"HELO client.example", "second", b"SMTP"),
            (b"HELO client.example", "implicit", b"SMTP"),
            (b"EHLO client.example", "", b"ESMTP"),
            (b"EHLO client.example", "first", b"ESMTPS"),
            (b"EHLO client.example", "second", b"ESMTPS"),
            (b"EHLO client.example", "implicit", b"ESMTPS"),
        ):
            trace = await self.trace(greeting, tls)
            self.assertIn(b" with " + protocol + b" id ", trace.replace(b"\r\n\t", b" "))
            self.assertEqual(b"TLSv1.3" in trace, bool(tls), trace)
            self.assertTrue(trace.startswith(b"Received: from client.example ([127.0.0.1])"))
            self.assertNotIn(b"before.example", trace)

    async def test_a_hostile_helo_cannot_end_the_field(self) -> None:
        trace = await self.trace("HELO )with(ESMTPSA;\\ü".encode(), "")
        self.assertTrue(trace.isascii())
        self.assertEqual(trace.count(b" with SMTP id "), 1)
        self.assertTrue(all(line[:1] in (b"\t", b"") for line in trace.split(b"\r\n")[1:]))
