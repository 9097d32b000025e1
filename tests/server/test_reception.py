"""The reception: the stored message, refusals of its header and of storage, and its memory."""

from __future__ import annotations

import errno

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from twisted_mta.interfaces import Refused
from twisted_mta.mail.reply import Reply
from twisted_mta.system.lasting import Lasting

from .intake import FRIEND, STRANGER, Queue, StoringTestCase, Writer


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

    def test_a_commit_under_way_is_not_interrupted(self) -> None:
        committing: Deferred[None] = Deferred(lambda _: self.fail("interrupted"))
        self.patch(self.queue, "accept", lambda message: committing)
        self.intake = self.queue.intake()
        self.send(self.ready(), "DATA")
        self.sink.write(b"x")
        finishing = self.sink.finish()
        assert isinstance(finishing, Deferred)
        finishing.cancel()  # the client is gone
        self.failureResultOf(finishing, CancelledError)
        self.assertEqual((self.queue.discarded, self.queue.capacity.in_use), (0, 100))
        committing.callback(None)
        self.assertEqual((self.queue.discarded, self.queue.capacity.in_use), (0, 0))

    def test_a_lasting_commit_is_waited_for_itself_and_gives_the_memory_back(self) -> None:
        later = Refused(Reply.of(451, "3.0", "Later"))
        for result, code in ((None, 250), (Failure(later), 451)):
            committing: Lasting[None] = Lasting()
            self.patch(self.queue, "accept", lambda message, waits=committing: waits)
            self.intake = self.queue.intake()
            self.send(self.ready(), "DATA")
            self.sink.write(b"x")
            finishing = self.sink.finish()
            self.assertIs(finishing, committing)
            finishing.cancel()  # the client is gone
            self.assertNoResult(finishing)
            self.assertEqual(self.queue.capacity.in_use, 100)
            committing.callback(result)
            self.assertEqual(self.successResultOf(finishing).code, code)
            self.assertEqual(self.queue.capacity.in_use, 0)

    def test_an_error_instead_of_a_commit_gives_the_memory_back(self) -> None:
        def accept(message: object) -> None:
            raise RuntimeError("a mistake")

        self.patch(self.queue, "accept", accept)
        self.intake = self.queue.intake()
        self.send(self.ready(), "DATA")
        self.sink.write(b"x")
        self.assertRaises(RuntimeError, self.sink.finish)
        self.assertEqual(self.queue.capacity.in_use, 0)

    def test_an_error_while_the_body_is_sealed_leaves_no_body(self) -> None:
        def seal(writer: object) -> None:
            raise RuntimeError("a mistake")

        self.patch(Writer, "seal", seal)
        with self.assertRaises(RuntimeError):
            self.content(self.ready(), b"x")
        self.assertEqual((self.queue.begun, self.queue.discarded, self.queue.messages), (1, 1, []))
        self.assertEqual(self.queue.capacity.in_use, 0)

    def test_an_aborted_message_leaves_no_body(self) -> None:
        session = self.ready()
        self.send(session, "DATA")
        self.sink.write(b"x")
        self.sink.abort()
        self.assertEqual((self.queue.begun, self.queue.discarded, self.queue.messages), (1, 1, []))


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
