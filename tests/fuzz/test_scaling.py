"""The time of every reader, shapes that once took long, and the longest call of the reactor."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tests.server.intake import Queue
from twisted_mta.mail.address import Mailbox
from twisted_mta.message.mime import entity
from twisted_mta.message.mime.content_reader import ContentReader
from twisted_mta.policy.submission import Submission, SubmissionPolicy
from twisted_mta.routing.expansion import Expander
from twisted_mta.routing.mailbox_lookup import MailboxLookup
from twisted_mta.smtp.peer import Peer
from twisted_mta.smtp.sasl import saslprep
from twisted_mta.smtp.server.session import Session
from twisted_mta.smtp.server.step import Finish, Mail, Open, Rcpt, Write
from twisted_mta.testing.server_options import ServerOptions

from .readers import READERS
from .scaling import Measured, Reader, Shape, measured
from .search import failure
from .targets.scaling import SCALING, case_of, new

SEED = 1
SHAPES = 60
_READ = 65_536  # octets that Twisted reads at once

SPACES = case_of(
    READERS["entity"], Shape(b"Content-Transfer-Encoding: 8bit", b" x\r\n\r\n", (b"\r\n ",))
)
PARTS = case_of(
    READERS["sections"],
    Shape(
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n",
        b"\r\n\r\n\xe9\r\n--b--\r\n",
        (b"--b\r\nX: y\r\n", b"a:\r\n"),
    ),
)
LEVELS = case_of(
    READERS["sections"],
    Shape(
        b"".join(
            b"Content-Type: multipart/mixed; boundary=%s\r\n\r\n--%s\r\n" % (name, name)
            for name in (b"b", *(b"inner%d" % number for number in range(20)))
        )
        + b"\r\n",
        b"",
        (b"--bx\r\n",),
    ),
)
MARKS = case_of(READERS["saslprep"], Shape(b"", b"", (b"\xcc\x81\xcc\xa3",)))


class Readers(SynchronousTestCase):
    def test_four_times_the_octets_take_four_times_as_long(self) -> None:
        draw = Random(SEED)
        for _ in range(SHAPES):
            case = new(draw)
            self.assertIsNone(failure(SCALING, case), case.text())

    def test_each_reader_reads_each_frame_with_each_word(self) -> None:
        for reader in READERS.values():
            for start, end in reader.frames:
                for word in reader.words:
                    reader.read(Shape(start, end, (word,)).octets(500))


class Measuring(SynchronousTestCase):
    def measured(self, read: Callable[[bytes], object]) -> Measured:
        reader = Reader(name="x", read=read, words=(b"a",), most=1 << 14)
        return measured(reader, Shape(b"", b"", (b"a",)))

    def test_quadratic_work_is_noticed(self) -> None:
        found = self.measured(lambda octets: [octets.count(b"b") for _ in octets])
        self.assertTrue(found.steep, str(found))

    def test_linear_work_is_not_taken_for_quadratic(self) -> None:
        found = self.measured(lambda octets: [octets.count(b"b") for _ in range(2000)])
        self.assertFalse(found.steep, str(found))


class BrokenCode(SynchronousTestCase):
    """Each of these faults was once in the program, and the target finds it."""

    def test_two_adjacent_groups_of_spaces_in_a_pattern_are_noticed(self) -> None:
        self.assertIsNone(failure(SCALING, SPACES))
        space = rb"(?:\s|\([^()]*\))*"
        broken = re.compile(space + rb"([^\s();]+)" + space + rb";?" + space)
        self.patch(entity, "_ENCODING", broken)
        self.patch(entity, "_LONGEST_FIELD", 1 << 20)
        self.assertIn("too fast", str(failure(SCALING, SPACES)))

    def test_a_search_from_each_part_to_the_end_is_noticed(self) -> None:
        self.assertIsNone(failure(SCALING, PARTS))
        header = ContentReader.header

        def broken(reader: ContentReader) -> object:
            for boundary in [b"\r\n--b", b"\r\n\r\n"] * 50:
                reader._buffer.count(boundary)
            return header(reader)

        self.patch(ContentReader, "header", broken)
        self.assertIn("too fast", str(failure(SCALING, PARTS)))

    def test_a_search_for_each_multipart_from_each_line_to_the_end_is_noticed(self) -> None:
        self.assertIsNone(failure(SCALING, LEVELS))

        def broken(reader: ContentReader, start: int) -> int:
            found = [reader._buffer.find(line, start) for line in reader._ahead]
            return min((each for each in found if each >= 0), default=-1)

        self.patch(ContentReader, "_next_candidate", broken)
        self.assertIn("too fast", str(failure(SCALING, LEVELS)))

    def test_normalizing_combining_characters_without_a_limit_is_noticed(self) -> None:
        self.assertIsNone(failure(SCALING, MARKS))
        self.patch(saslprep, "_LONGEST_PREPARED", 1 << 20)
        self.assertIn("too fast", str(failure(SCALING, MARKS)))


def _worst() -> Iterator[tuple[str, bytes]]:
    start = b"From: a@a.example\r\nContent-Type: multipart/mixed; boundary=b\r\n"
    yield "fields", b"a:\r\n" * (1 << 18)
    yield "From fields", b"From: a@a.example\r\n" * 55_000
    yield "addresses", b"From: " + b"a@a.example,\r\n " * 69_000 + b"\r\n"
    yield "comments", b"From: " + b"(" * 900_000 + b"\r\n"
    yield "hops", b"received" * 131_000
    marks = b"Delivered-To: a" + b"\xcc\x81\xcc\xa3" * 240 + b"%d@mx.example\r\n"
    passed = b"".join(marks % number for number in range(500))
    yield "Delivered-To fields", b"From: a@a.example\r\n" + passed + b"\r\n"
    yield "folds", b"From:" + b"\r\n " * 349_000
    yield "parts", start + b"\r\n" + b"--b\r\n\r\n" * 9_000 + b"\xe9\r\n"
    yield "parts of fields", start + b"\r\n" + b"--b\r\nX: \xe9\r\n" * 5_000
    yield "levels", (start + b"\r\n--b\r\n") * 900
    yield "dots", start + b"\r\n" + b".\r\n" * 500_000
    yield "short lines", start + b"\r\n" + b"\r\n" * 700_000 + b"\xe9\r\n"


class TheReactor(SynchronousTestCase):
    """No content of a message keeps the reactor for more than milliseconds."""

    most = 0.1  # seconds: five times the promise, for slow machines

    def longest(self, content: bytes) -> float:
        """Return the seconds of the longest call for one read of a message, or for its end."""
        queue = Queue()
        intake = queue.intake(submission=SubmissionPolicy(own_addresses="header", adds_sender=True))
        expander = Expander(MailboxLookup(local_domains=["mx.example"], wall_time=lambda: 0.0))
        intake._alias_of = expander.alias_of
        intake.submission = Submission(
            may_send_as=lambda account, mailbox: True,
            address_of=lambda account: Mailbox("ann", "a.example"),
        )
        session = Session(ServerOptions(smtputf8=True).settings(), peer=Peer("192.0.2.7"))
        session.identity = "ann"
        sink = None
        longest = 0.0
        stuffed = content.replace(b"\r\n.", b"\r\n..")
        reads = [b"EHLO x\r\n", b"MAIL FROM:<a@a.example> SMTPUTF8 BODY=8BITMIME\r\n"]
        reads += [b"RCPT TO:<b@mx.example>\r\n", b"DATA\r\n"]
        reads += [stuffed[at : at + _READ] for at in range(0, len(stuffed), _READ)]
        for read in (*reads, b"\r\n.\r\n"):
            began = time.thread_time()
            session.receive(read)
            while (step := session.step()) is not None:
                if isinstance(step, Mail | Rcpt):
                    session.answer()
                elif isinstance(step, Open):
                    sink = intake.begin(session)
                    session.answer()
                elif isinstance(step, Write):
                    sink.write(step.content)  # type: ignore[union-attr]
                elif isinstance(step, Finish):
                    sink.finish()  # type: ignore[union-attr]
                    session.answer()
            longest = max(longest, time.thread_time() - began)
        return longest

    def test_the_worst_message_keeps_the_reactor_below_100_ms(self) -> None:
        for name, content in _worst():
            for _ in range(3):
                longest = self.longest(content)
                if longest < self.most:
                    break
            self.assertLess(longest, self.most, name)
