"""A kept secret: one key for all processes, made once, readable by its owner alone, durable."""

import os
from contextlib import closing

from tests.tidy import TidyTestCase
from twisted_mta.system.files import DiskFiles
from twisted_mta.system.kept_secret import kept_secret
from twisted_mta.testing.files import UnsyncedFiles

PATH = "/state/srs.key"
LOST = "notices do not come back"


class Key(TidyTestCase):
    def setUp(self) -> None:
        self.files = UnsyncedFiles()
        self.files.make_directories("/state")
        self.drawn = 0

    def secret(self, count: int) -> bytes:
        self.drawn += 1
        return bytes([self.drawn]) * count

    def key(self, known: bytes | None = None) -> bytes:
        return kept_secret(PATH, files=self.files, lost=LOST, secret=self.secret, known=known)

    def test_the_key_is_made_once(self) -> None:
        first = self.key()
        self.assertEqual(len(first), 32)
        self.assertEqual(self.key(), first)
        self.assertEqual(self.files.tree("/state"), [PATH])

    def test_a_known_key_stays_if_the_file_disappears_and_a_new_file_is_read(
        self,
    ) -> None:
        known = self.key()
        self.files.unlink(PATH)
        self.assertEqual(self.key(known), known)
        self.assertEqual(self.files.tree("/state"), [])
        other = self.key()
        self.assertNotEqual(other, known)
        self.assertEqual(self.key(known), other)

    def test_a_used_key_survives_a_crash_at_any_moment(self) -> None:
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

    def test_the_first_of_several_processes_makes_the_key(self) -> None:
        other = kept_secret(PATH, files=self.files, lost=LOST, secret=lambda count: b"\xff" * count)
        # The file was not there at the first look.
        self.files.fail_next("open", FileNotFoundError())
        self.assertEqual(self.key(), other)
        self.assertEqual(self.files.tree("/state"), [PATH])

    def test_a_file_without_a_key_is_not_replaced(self) -> None:
        for content in (b"", b"ab\n", b"not a key\n"):
            self.setUp()
            with closing(self.files.create(PATH)) as file:
                file.write(content)
            error = self.assertRaises(ValueError, self.key)
            self.assertIn(f"{PATH}: not a key", str(error))
            self.assertEqual(self.files.content(PATH), content)

    def test_only_the_owner_may_read_the_file(self) -> None:
        path = self.mktemp()
        found = kept_secret(path, files=DiskFiles(), lost=LOST, secret=self.secret)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        self.assertEqual(kept_secret(path, files=DiskFiles(), lost=LOST, secret=self.secret), found)
