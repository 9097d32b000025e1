"""The key of SRS: one for all processes, made once, secret, and durable."""

import os

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.system.files import DiskFiles
from twisted_mta.system.kept_secret import srs_key
from twisted_mta.testing.files import UnsyncedFiles

PATH = "/state/srs.key"


class Key(SynchronousTestCase):
    def setUp(self) -> None:
        self.files = UnsyncedFiles()
        self.files.make_directories("/state")
        self.drawn = 0

    def secret(self, count: int) -> bytes:
        self.drawn += 1
        return bytes([self.drawn]) * count

    def key(self, known: bytes | None = None) -> bytes:
        return srs_key(PATH, files=self.files, secret=self.secret, known=known)

    def test_it_is_made_once(self) -> None:
        first = self.key()
        self.assertEqual(len(first), 32)
        self.assertEqual(self.key(), first)
        self.assertEqual(self.files.tree("/state"), [PATH])

    def test_one_that_is_put_in_its_place_is_read_and_none_is_made_for_one_that_went_away(
        self,
    ) -> None:
        known = self.key()
        self.files.unlink(PATH)
        self.assertEqual(self.key(known), known)
        self.assertEqual(self.files.tree("/state"), [])
        other = self.key()
        self.assertNotEqual(other, known)
        self.assertEqual(self.key(known), other)

    def test_it_survives_a_crash_at_any_moment(self) -> None:
        for steps in range(12):
            self.setUp()
            self.files.cut_power_in(steps)
            try:
                used = self.key()
            except OSError:
                used = b""
            self.files.crash()
            self.assertIn(used, (b"", self.key()))
            self.assertIn(PATH, self.files.tree("/state"))

    def test_the_first_of_several_processes_makes_it(self) -> None:
        other = srs_key(PATH, files=self.files, secret=lambda count: b"\xff" * count)
        # We looked before it was there.
        self.files.fail_next("open", FileNotFoundError())
        self.assertEqual(self.key(), other)
        self.assertEqual(self.files.tree("/state"), [PATH])

    def test_a_file_that_holds_none_is_not_replaced(self) -> None:
        for content in (b"", b"ab\n", b"not a key\n"):
            self.setUp()
            self.files.create(PATH).write(content)
            error = self.assertRaises(ValueError, self.key)
            self.assertIn(f"{PATH}: no key", str(error))
            self.assertEqual(self.files.content(PATH), content)

    def test_nobody_else_may_read_it(self) -> None:
        path = self.mktemp()
        found = srs_key(path, files=DiskFiles(), secret=self.secret)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        self.assertEqual(srs_key(path, files=DiskFiles(), secret=self.secret), found)
