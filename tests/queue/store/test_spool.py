"""The spool: small bodies in memory, large ones durable before their row."""

import errno

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from tests.tidy import TidyTestCase
from twisted_mta.mail.body import Body, MemoryBody
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.store import spool
from twisted_mta.queue.store.spool import DotlessFileBody, FileBody, Spool, SpooledWriter
from twisted_mta.smtp.client.outgoing import DotStuffer
from twisted_mta.system.executors import inline_executor
from twisted_mta.testing.files import UnsyncedFiles

ID = QueueId(1)
PATH = f"/body/{ID}"


class SpoolTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.files = UnsyncedFiles()
        self.files.make_directories("/body")
        self.spool = Spool("/body", files=self.files, executor=inline_executor, small_body=10)

    def written(self, *pieces: bytes) -> SpooledWriter:
        writer = self.spool.new_body(ID)
        for piece in pieces:
            writer.write(piece)
        return writer

    def sealed(self, *pieces: bytes) -> Body:
        sealed = self.written(*pieces).seal()
        return self.successResultOf(sealed) if isinstance(sealed, Deferred) else sealed


class Writing(SpoolTestCase):
    def test_a_small_body_touches_no_disk(self) -> None:
        self.files.operations.clear()
        self.assertEqual(self.sealed(b"12345", b"67890"), MemoryBody(b"1234567890"))
        self.assertEqual(self.files.operations, [])

    def test_a_body_one_octet_larger_than_small_goes_to_a_file(self) -> None:
        body = self.sealed(b"12345", b"67890", b"1")
        self.assertIsInstance(body, FileBody)
        self.assertEqual(body.size, 11)
        self.assertEqual(b"".join(body.chunks()), b"12345678901")
        self.assertEqual(self.files.content(PATH), b"12345678901")

    def test_a_large_body_is_written_in_pieces_of_64_kib(self) -> None:
        writer = self.written(b"x" * 11)
        self.files.operations.clear()
        for _ in range(200):
            writer.write(b"y" * 1000)
        self.assertEqual([operation for operation, _ in self.files.operations], ["write"] * 3)
        written = len(self.files.content(PATH))
        self.assertGreater(written, 200_011 - 65_536)
        self.assertEqual(written + sum(map(len, writer._held)), 200_011)
        writer.discard()

    def test_an_error_of_the_last_write_fails_the_seal(self) -> None:
        writer = self.written(b"x" * 11, b"y" * 1000)
        self.files.fail_next("write", OSError(errno.ENOSPC, "full"))
        sealed = writer.seal()
        assert isinstance(sealed, Deferred)
        self.assertEqual(self.failureResultOf(sealed, OSError).value.errno, errno.ENOSPC)
        self.assertEqual(self.files.names("/body"), [])

    def test_the_content_then_the_name_are_synced_before_the_seal_succeeds(self) -> None:
        self.sealed(b"x" * 20)
        self.assertEqual(
            [operation for operation, _ in self.files.operations[-4:]],
            ["create", "write", "sync", "sync_directory"],
        )
        self.files.crash()
        self.assertEqual(self.files.content(PATH), b"x" * 20)

    def test_a_discarded_body_leaves_no_file(self) -> None:
        writer = self.written(b"x" * 20)
        writer.discard()
        writer.discard()
        self.assertEqual(self.files.names("/body"), [])
        small = self.written(b"x")
        small.discard()

    def test_a_file_that_cannot_be_made_raises_os_error(self) -> None:
        self.files.fail_next("create", OSError(errno.ENOSPC, "full"))
        writer = self.spool.new_body(ID)
        self.assertRaises(OSError, writer.write, b"x" * 20)
        writer.discard()
        self.assertEqual(self.files.names("/body"), [])

    def test_a_body_that_cannot_be_synced_is_removed_and_fails_the_seal(self) -> None:
        for operation in ("sync", "sync_directory"):
            self.files.fail_next(operation, OSError(errno.EIO, "no"))
            sealed = self.written(b"x" * 20).seal()
            assert isinstance(sealed, Deferred)
            self.assertEqual(self.failureResultOf(sealed, OSError).value.errno, errno.EIO)
            self.assertEqual(self.files.names("/body"), [], operation)

    def test_a_file_that_cannot_be_removed_is_left_to_the_next_start(self) -> None:
        self.files.fail_next("sync", OSError(errno.EIO, "no"))
        self.files.fail_next("unlink", OSError(errno.EIO, "no"))
        sealed = self.written(b"x" * 20).seal()
        assert isinstance(sealed, Deferred)
        self.failureResultOf(sealed, OSError)
        self.assertEqual(self.files.names("/body"), [str(ID)])


class Dots(SpoolTestCase):
    """Only a content that goes behind DATA as it is is called dotless, wherever it is split."""

    @given(
        st.lists(
            st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"\r\n..", b"x", b"x" * 11]),
            max_size=16,
        ),
        st.integers(1, 4),
    )
    @example([b"x" * 11, b"\r", b"\n", b".", b"x\r\n"], 1)
    @example([b".", b"x" * 11, b"\r\n"], 1)
    @example([b"x" * 11, b"\r\n", b"\n.", b"\r\n"], 1)
    def test_a_body_is_dotless_exactly_if_stuffing_adds_the_final_dot_alone(
        self, pieces: list[bytes], chunk: int
    ) -> None:
        content = b"".join(pieces)
        stuffer = DotStuffer()
        unchanged = stuffer.feed(content) + stuffer.end() == content + b".\r\n"
        # Pieces are written to the file as they come, or gathered.
        self.patch(spool, "_CHUNK", chunk)
        writer = self.spool.new_body(QueueId(2))
        for piece in pieces:
            writer.write(piece)
        sealed = writer.seal()
        body = self.successResultOf(sealed) if isinstance(sealed, Deferred) else sealed
        if len(content) > 10:
            self.assertEqual(isinstance(body, DotlessFileBody), unchanged)
            self.assertIsInstance(body, FileBody)
        self.assertEqual(b"".join(body.chunks()), content)
        self.spool.forget(body)

    def test_the_body_of_a_row_is_not_known_to_be_dotless(self) -> None:
        self.assertIsInstance(self.sealed(b"x" * 20, b"\r\n"), DotlessFileBody)
        self.assertNotIsInstance(self.spool.stored(ID, 22), DotlessFileBody)

    def test_a_dotless_body_can_be_opened(self) -> None:
        body = self.sealed(b"x" * 20, b"\r\n")
        assert isinstance(body, DotlessFileBody)
        with body.open() as file:
            self.assertEqual(file.read(), b"x" * 20 + b"\r\n")


class Trying(SpoolTestCase):
    """`Spool.try_to_write`, by which a full disk is noticed."""

    def test_the_smallest_large_body_is_written_synced_and_removed(self) -> None:
        # A file that an earlier trial left, in a crash, does not prevent it.
        self.files.create("/body/attempt").close()
        self.files.operations.clear()
        self.spool.try_to_write()
        names = [operation for operation, _ in self.files.operations]
        self.assertEqual(names, ["unlink", "create", "write", "sync", "unlink"])
        self.assertEqual(self.files.names("/body"), [])

    def test_a_disk_that_refuses_is_reported_and_nothing_is_left(self) -> None:
        for operation in ("write", "sync"):
            self.files.fail_next(operation, OSError(errno.ENOSPC, "full"))
            self.assertRaises(OSError, self.spool.try_to_write)
            self.assertEqual(self.files.names("/body"), [], operation)


class Forgetting(SpoolTestCase):
    def test_the_file_of_a_forgotten_body_is_removed(self) -> None:
        self.sealed(b"x" * 20)
        self.spool.forget(self.spool.stored(ID, 20))
        self.assertEqual(self.files.names("/body"), [])
        self.spool.forget(MemoryBody(b"x"))

    def test_a_file_that_cannot_be_removed_is_no_error(self) -> None:
        self.sealed(b"x" * 20)
        self.files.fail_next("unlink", OSError(errno.EIO, "no"))
        self.spool.forget(self.spool.stored(ID, 20))
        self.assertEqual(self.files.names("/body"), [str(ID)])


class Reading(SpoolTestCase):
    def test_a_stored_body_is_read_in_pieces(self) -> None:
        self.sealed(b"x" * 200_000)
        pieces = list(self.spool.stored(ID, 200_000).chunks())
        self.assertEqual(b"".join(pieces), b"x" * 200_000)
        self.assertLessEqual(max(map(len, pieces)), 65_536)

    def test_a_file_that_became_shorter_raises_os_error(self) -> None:
        self.sealed(b"x" * 20)
        with self.assertRaises(OSError):
            b"".join(self.spool.stored(ID, 21).chunks())

    def test_a_missing_file_raises_os_error(self) -> None:
        with self.assertRaises(OSError):
            b"".join(self.spool.stored(ID, 21).chunks())
