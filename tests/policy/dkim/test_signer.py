"""Which messages are signed on their way out, with which keys, and how often their content is read.

dkimpy judges the signatures.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from attrs import define, evolve
from twisted.internet.defer import Deferred, execute

from tests.policy.dkim.judge import verdicts
from tests.policy.dkim.keys import key, record
from tests.tidy import TidyTestCase
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.assessment import Assessment
from twisted_mta.mail.body import Body, MemoryBody
from twisted_mta.mail.envelope import Envelope, Recipient, RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.message.mime.conversion import converted
from twisted_mta.policy.dkim.signer import Signer
from twisted_mta.policy.dkim.signing_keys import SigningKey, SigningKeys

NOW = 1_764_500_000.5  # dkimpy refuses signatures of the future
TRACE = b"Received: from a\r\n\tby b; now\r\n"
HEADER = b"From: Ann <ann@example.net>\r\nTo: bob@next.example\r\nSubject:  x\r\n"
BODY = b"Hello,  \t you\r\n.dot\r\n\r\n\r\n"
CONTENT = HEADER + b"\r\n" + BODY


@define(eq=False)
class File:
    """A body in a file, as far as the signer can tell.

    Attributes:
        content: of the file.
        reads: how often it was read from its beginning.
        piece: octets of a piece.
    """

    content: bytes
    reads: int = 0
    piece: int = 65_536

    @property
    def size(self) -> int:
        return len(self.content)

    def chunks(self) -> Iterator[bytes]:
        self.reads += 1
        for start in range(0, len(self.content), self.piece):
            yield self.content[start : start + self.piece]


def message(content: bytes | Body = CONTENT, *, trace: bytes = TRACE, id: int = 1) -> Message:
    return Message(
        id=QueueId(id),
        envelope=Envelope(
            Mailbox.parse("ann@example.net"),
            (Recipient(RecipientNumber(0), Mailbox.parse("bob@next.example")),),
        ),
        trace=trace,
        body=MemoryBody(content) if isinstance(content, bytes) else content,
        received_at=NOW,
        expires_at=NOW + 1000,
        assessment=Assessment(signs=True),
    )


class SignerTestCase(TidyTestCase):
    """A signer with the keys of a test."""

    def setUp(self) -> None:
        self.calls = 0
        self.use(key(), key("ed25519", selector="s2"))

    def use(self, *keys: SigningKey) -> None:
        self.keys = keys
        self.signing_keys = SigningKeys(keys)
        self.signer = Signer(
            self.signing_keys,
            wall_time=lambda: NOW,
            executor=self.executor,  # type: ignore[arg-type]
        )

    def executor(self, *call: object) -> object:
        self.calls += 1
        return execute(*call)  # type: ignore[arg-type]

    def sign(self, message: Message) -> Message:
        signed = self.signer.sign(message)
        return self.successResultOf(signed) if isinstance(signed, Deferred) else signed

    def sent(self, message: Message) -> bytes:
        """Return the octets of a message after signing."""
        signed = self.sign(message)
        return signed.trace + b"".join(signed.body.chunks())

    def judged(self, octets: bytes) -> list[bool]:
        return verdicts(octets, {each.record_name: record(each) for each in self.keys})

    def signing_domains(self, content: bytes | Body, **more: bytes) -> Sequence[bytes]:
        header = self.sign(message(content, **more)).trace.replace(b"\r\n ", b" ")
        return [
            line.partition(b" d=")[2].partition(b";")[0]
            for line in header.split(b"\r\n")
            if line.startswith(b"DKIM-Signature:")
        ]


class Signatures(SignerTestCase):
    def test_all_keys_of_a_domain_sign_and_their_signatures_are_valid(self) -> None:
        sent = self.sent(message())
        self.assertEqual(self.judged(sent), [True, True])
        self.assertTrue(sent.startswith(b"DKIM-Signature: v=1; a=rsa-sha256;"))
        self.assertTrue(sent.endswith(TRACE + CONTENT))
        self.assertIn(b"t=1764500000;", sent)

    def test_a_changed_message_is_not_valid(self) -> None:
        sent = self.sent(message())
        for before, after in ((b"Hello", b"Hallo"), (b"Subject:  x", b"Subject: y")):
            self.assertEqual(self.judged(sent.replace(before, after)), [False, False])

    def test_a_field_that_we_added_is_signed(self) -> None:
        sent = self.sent(message(trace=TRACE + b"Date: Mon, 30 Nov 2026 10:00:00 +0000\r\n"))
        self.assertEqual(self.judged(sent), [True, True])
        self.assertEqual(self.judged(sent.replace(b"10:00:00", b"10:00:01")), [False, False])

    def test_authentication_results_stay_on_top(self) -> None:
        results = b"Authentication-Results: mx.example;\r\n\tauth=pass smtp.auth=ann\r\n"
        sent = self.sent(message(trace=results + TRACE))
        self.assertTrue(sent.startswith(results + b"DKIM-Signature:"))
        self.assertEqual(self.judged(sent), [True, True])

    def test_contents_of_all_shapes_are_valid(self) -> None:
        ids = count(1)
        for content in (
            HEADER,  # no empty line, and no body
            HEADER + b"\r\n",
            HEADER + b"\r\n\r\n\r\n",
            HEADER + b"\r\n" + b"no line end",
            HEADER + b"\r\n" + b"\r\n\r\ntext behind empty lines\r\n",
            b"From: ann@example.net\r\n\r\n\xfc\xff\r\n",
            "From: J\u00f6rg <j\u00f6rg@example.net>\r\n\r\n\u20ac\r\n".encode(),
        ):
            for piece in (1, 2, 7, 65_536):
                sent = self.sent(message(File(content, piece=piece), id=next(ids)))
                self.assertEqual(self.judged(sent), [True, True], (content, piece))
            self.assertEqual(self.sent(message(content)), sent)

    def test_a_content_that_is_all_text_is_signed_where_we_gave_it_a_from_field(self) -> None:
        trace = TRACE + b"From: ann@example.net\r\n"
        sent = self.sent(message(b"\r\n From: eve@evil.example\r\n", trace=trace))
        self.assertEqual(self.judged(sent), [True, True])

    def test_converted_content_is_valid(self) -> None:
        mail = message("From: ann@example.net\r\n\r\nJ\u00f6rg\r\n".encode())
        sent = self.sent(converted(mail))
        self.assertTrue(sent.isascii())
        self.assertEqual(self.judged(sent), [True, True])


class Repetition(SignerTestCase):
    """Signatures of a message for its second transaction, a second later."""

    def setUp(self) -> None:
        super().setUp()
        self.times = count(int(NOW))
        self.signer = Signer(
            self.signing_keys,
            wall_time=lambda: next(self.times),
            executor=self.executor,  # type: ignore[arg-type]
        )

    def times_of(self, *messages: Message) -> list[int]:
        """Sign messages, check their signatures, and return the times in them (``t=``)."""
        found = []
        for each in messages:
            sent = self.sent(each)
            self.assertEqual(self.judged(sent), [True, True])
            found.append(int(sent.partition(b"t=")[2].partition(b";")[0]) - int(NOW))
        return found

    def test_a_message_is_signed_once_for_all_its_next_hops(self) -> None:
        for content in (CONTENT, File(CONTENT)):
            first = message(content)
            other = Recipient(RecipientNumber(1), Mailbox.parse("eve@other.example"))
            second = first.for_recipients([other])
            with self.subTest(content=content):
                self.assertEqual(*self.times_of(first, second))

    def test_whatever_differs_in_the_message_is_signed_anew(self) -> None:
        messages = (
            message(),
            message(CONTENT.replace(b"Hello", b"Hallo")),
            message(CONTENT.replace(b"Subject:  x", b"Subject:  y")),
            message(trace=TRACE.replace(b"now", b"later")),
        )
        self.assertEqual(self.times_of(*messages), [0, 1, 2, 3])

    def test_new_keys_sign_anew(self) -> None:
        self.times_of(message())
        self.keys = (key(selector="s3"), key("ed25519", selector="s4"))
        self.signing_keys.use(self.keys)
        self.assertEqual(self.times_of(message()), [1])

    def test_a_message_with_a_very_long_header_is_signed_each_time(self) -> None:
        content = b"X: " + b"x" * 20_000 + b"\r\n" + CONTENT
        self.assertEqual(self.times_of(message(content), message(content)), [0, 1])


class Choosing(SignerTestCase):
    def test_the_closest_domain_signs(self) -> None:
        self.use(
            key(),
            key("ed25519", domain="news.example.net"),
            key("ed25519", domain="example.org"),
        )
        for address, domain in (
            ("ann@example.net", b"example.net"),
            ("ann@EXAMPLE.NET", b"example.net"),
            ("ann@mail.example.net", b"example.net"),
            ("ann@news.example.net", b"news.example.net"),
            ("ann@a.news.example.net", b"news.example.net"),
            ("ann@example.org", b"example.org"),
        ):
            content = f"From: <{address}>\r\n\r\nx\r\n".encode()
            self.assertEqual(self.signing_domains(content), [domain])

    def test_an_internationalized_domain_signs_by_its_a_labels(self) -> None:
        self.use(key("ed25519", domain="xn--bcher-kva.example"))
        for written in ("b\u00fccher.example", "xn--bcher-kva.example"):
            content = f"From: ann@{written}\r\n\r\nx\r\n".encode()
            self.assertEqual(self.signing_domains(content), [b"xn--bcher-kva.example"])

    def test_mail_of_other_domains_is_not_signed(self) -> None:
        for address in ("ann@example.com", "ann@net", "ann@notexample.net", "ann@[192.0.2.1]"):
            self.assertEqual(self.signing_domains(f"From: {address}\r\n\r\n".encode()), [])

    def test_mail_that_may_not_be_signed_is_the_same_object(self) -> None:
        mail = evolve(message(), assessment=Assessment())
        self.assertIs(self.sign(mail), mail)

    def test_without_keys_nothing_is_read(self) -> None:
        self.use()
        body = File(CONTENT)
        mail = message(body)
        self.assertIs(self.sign(mail), mail)
        self.assertEqual((body.reads, self.calls), (0, 0))

    def test_a_message_without_exactly_one_author_domain_is_not_signed(self) -> None:
        for header in (
            b"Subject: x\r\n",
            HEADER + b"From: eve@evil.example\r\n",
            HEADER + b"from : ann@example.net\r\n",
            b"From: ann@example.net, eve@evil.example\r\n",
            b"From: \r\n",
            b"From: ann@example.net (unclosed\r\n",
        ):
            self.assertEqual(self.signing_domains(header + b"\r\nx\r\n"), [], header)
        both = b"From: ann@example.net, bob@example.net\r\n\r\nx\r\n"
        self.assertEqual(self.signing_domains(both), [b"example.net"] * 2)

    def test_a_header_that_readers_divide_differently_is_not_signed(self) -> None:
        for odd in (b"X: a\nFrom: eve@evil.example\r\n", b"X: a\rFrom: eve@evil.example\r\n"):
            self.assertEqual(self.signing_domains(HEADER + odd + b"\r\nx\r\n"), [])

    def test_a_header_without_end_is_not_signed_and_not_kept(self) -> None:
        endless = File(HEADER + b"X: y\r\n" * 400_000)
        self.assertEqual(self.signing_domains(endless), [])

    def test_other_keys_are_used_for_the_next_transaction(self) -> None:
        mail = message()
        self.assertIn(b"s=s1;", self.sign(mail).trace)
        self.signing_keys.use([key("ed25519", selector="s3")])
        trace = self.sign(mail).trace
        self.assertNotIn(b"s=s1;", trace)
        self.assertIn(b"s=s3;", trace)


class Reading(SignerTestCase):
    def test_a_file_is_read_once_for_all_its_transactions(self) -> None:
        body = File(HEADER + b"\r\n" + b"line\r\n" * 100_000)
        first = self.sent(message(body))
        self.assertEqual(body.reads, 2)  # one for the signature, one for sending
        second = self.sign(evolve(message(body), trace=b"X-Spam-Flag: YES\r\n" + TRACE))
        self.assertEqual(body.reads, 2)
        self.assertEqual(self.judged(first), [True, True])
        self.assertEqual(self.judged(second.trace + body.content), [True, True])

    def test_a_file_is_read_once_for_transactions_at_the_same_time(self) -> None:
        calls: list[tuple[Deferred[object], Sequence[Any]]] = []

        def executor(*call: object) -> Deferred[object]:
            calls.append((Deferred(), call))
            return calls[-1][0]

        self.signer = Signer(self.signing_keys, wall_time=lambda: NOW, executor=executor)  # type: ignore[arg-type]
        body = File(CONTENT)
        signing = [self.signer.sign(message(body)) for _ in range(5)]
        while calls:
            done, (function, *arguments) = calls.pop(0)
            done.callback(function(*arguments))
        for each in signing:
            assert isinstance(each, Deferred)
            self.assertIn(b"DKIM-Signature", self.successResultOf(each).trace)
        self.assertEqual(body.reads, 1)

    def test_a_file_that_could_not_be_read_is_tried_by_the_next_transaction(self) -> None:
        failures = [OSError(errno.EIO, "Input/output error")]
        waiting: list[Deferred[object]] = []

        def executor(*call: object) -> Deferred[object]:
            if failures:
                waiting.append(Deferred())
                return waiting[-1]
            return execute(*call)  # type: ignore[arg-type]

        self.signer = Signer(self.signing_keys, wall_time=lambda: NOW, executor=executor)  # type: ignore[arg-type]
        first, second = (self.signer.sign(message(File(CONTENT))) for _ in range(2))
        waiting[0].errback(failures.pop())
        assert isinstance(first, Deferred) and isinstance(second, Deferred)
        self.failureResultOf(first, OSError)
        self.assertIn(b"DKIM-Signature", self.successResultOf(second).trace)

    def test_a_converted_content_has_a_hash_of_its_own(self) -> None:
        file = File("From: ann@example.net\r\n\r\nJ\u00f6rg\r\n".encode())
        for mail in (message(file), converted(message(file)), message(file)):
            self.assertEqual(self.judged(self.sent(mail)), [True, True])

    def test_a_content_in_memory_is_not_kept(self) -> None:
        large = message(HEADER + b"\r\n" + "J\u00f6rg\r\n".encode() * 10_000)
        for mail in (large, converted(large)):
            self.assertEqual(self.judged(self.sent(mail)), [True, True])
        self.assertEqual(self.signer._known, {})

    def test_the_memory_of_contents_is_bounded(self) -> None:
        bodies = [File(CONTENT) for _ in range(300)]
        for number, body in enumerate(bodies):
            self.sign(message(body, id=number))
        self.assertEqual(len(self.signer._known), 256)
        self.sign(message(bodies[299], id=299))
        self.assertEqual(bodies[299].reads, 1)
        self.sign(message(bodies[0], id=0))
        self.assertEqual(bodies[0].reads, 2)

    def test_a_small_content_needs_no_thread(self) -> None:
        self.sign(message())
        self.assertEqual(self.calls, 0)
        self.sign(message(HEADER + b"\r\n" + b"x" * 40_000))
        self.sign(message(File(CONTENT)))
        self.assertEqual(self.calls, 2)

    def test_a_file_that_cannot_be_read_fails(self) -> None:
        class Broken(File):
            def chunks(self) -> Iterator[bytes]:
                yield HEADER
                raise OSError(errno.EIO, "Input/output error")

        signed = self.signer.sign(message(Broken(CONTENT)))
        assert isinstance(signed, Deferred)
        self.failureResultOf(signed, OSError)
