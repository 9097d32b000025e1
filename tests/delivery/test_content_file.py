"""The content that an application's delivery reads: a file over the pieces of a body."""

from __future__ import annotations

import io
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.delivery.content_file import ContentFile


class Pieces:
    """A body that counts how often it is read, and how much of it."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.size = sum(map(len, pieces))
        self.begun = self.taken = self.ended = 0

    def chunks(self) -> Iterator[bytes]:
        self.begun += 1
        try:
            for piece in self.pieces:
                self.taken += 1
                yield piece
        finally:
            self.ended += 1


class Reading(SynchronousTestCase):
    def file(self, body: Pieces, head: bytes = b"Head: 1\r\n") -> io.BufferedReader:
        return io.BufferedReader(ContentFile(head, body), 4)

    def test_it_is_the_head_and_then_the_body_in_any_portions(self) -> None:
        whole = b"Head: 1\r\nabcdefghij"
        for portion in (1, 2, 3, 5, 100):
            file = self.file(Pieces(b"abc", b"d", b"efghij"))
            read = b"".join(iter(lambda f=file, n=portion: f.read(n), b""))  # type: ignore[misc]
            self.assertEqual(read, whole)
        self.assertEqual(self.file(Pieces(), b"").read(), b"")

    def test_lines_can_be_iterated(self) -> None:
        self.assertEqual(
            list(self.file(Pieces(b"a\r\nb", b"c\r\n"))), [b"Head: 1\r\n", b"a\r\n", b"bc\r\n"]
        )

    def test_no_more_is_read_than_is_asked_for(self) -> None:
        body = Pieces(*[b"x" * 100] * 50)
        file = ContentFile(b"", body)
        file.read(250)
        self.assertLessEqual(body.taken, 3)

    def test_it_can_be_sought_and_its_size_costs_no_reading(self) -> None:
        body = Pieces(b"abc", b"def", b"ghi")
        file = self.file(body, b"")
        self.assertEqual((file.seek(0, io.SEEK_END), body.begun), (9, 0))
        for position, rest in ((4, b"efghi"), (0, b"abcdefghi"), (8, b"i"), (9, b""), (50, b"")):
            file.seek(position)
            self.assertEqual((file.tell(), file.read()), (position, rest))
        file.seek(-2, io.SEEK_END)
        self.assertEqual(file.read(), b"hi")
        with self.assertRaises((ValueError, OSError)):
            file.seek(-1)

    def test_once_closed_it_cannot_be_read_and_the_body_file_is_closed(self) -> None:
        body = Pieces(b"abc", b"def")
        raw = ContentFile(b"", body)
        file = io.BufferedReader(raw, 2)
        file.read(1)
        raw.close()
        raw.close()
        self.assertEqual(body.ended, 1)
        with self.assertRaises(ValueError):
            file.read()

    def test_a_close_during_a_read_of_another_thread_ends_that(self) -> None:
        raw: ContentFile

        class Closing(Pieces):
            def chunks(self) -> Iterator[bytes]:
                raw.close()  # as if the deadline came now
                yield b"abc"

        raw = ContentFile(b"", Closing(b"abc"))
        self.assertEqual(raw.read(3), b"abc")
        with self.assertRaises(ValueError):
            raw.read(1)
