"""File operations, on the real disk and on one in memory that forgets what was not synced."""

import errno
import os
import stat
from typing import Any
from unittest import mock

from tests.tidy import TidyTestCase
from twisted_mta.interfaces import Files
from twisted_mta.system.files import DiskFile, DiskFiles
from twisted_mta.testing.files import PowerCut, UnsyncedFiles


class Contract:
    """The behavior of every `interfaces.Files`; a subclass gives `files` and `root`."""

    files: Files
    root: str

    def write(self, path: str, content: bytes) -> None:
        file = self.files.create(path)
        file.write(content)
        file.sync()
        file.close()

    def read(self, path: str) -> bytes:
        with self.files.open(path) as file:
            return file.read()

    def test_written_content_can_be_read(self) -> None:
        self.write(f"{self.root}/a", b"one")
        self.assertEqual(self.read(f"{self.root}/a"), b"one")

    def test_creating_an_existing_file_fails(self) -> None:
        self.write(f"{self.root}/a", b"one")
        self.assertRaises(FileExistsError, self.files.create, f"{self.root}/a")
        self.assertEqual(self.read(f"{self.root}/a"), b"one")

    def test_a_moved_file_has_only_its_new_name(self) -> None:
        self.files.make_directories(f"{self.root}/new")
        self.write(f"{self.root}/a", b"one")
        self.files.rename(f"{self.root}/a", f"{self.root}/new/b")
        self.assertEqual(self.files.names(self.root), ["new"])
        self.assertEqual(self.read(f"{self.root}/new/b"), b"one")

    def test_moving_onto_an_existing_file_fails(self) -> None:
        self.write(f"{self.root}/a", b"one")
        self.write(f"{self.root}/b", b"two")
        with self.assertRaises(FileExistsError):
            self.files.rename(f"{self.root}/a", f"{self.root}/b")
        self.assertEqual(self.read(f"{self.root}/a"), b"one")
        self.assertEqual(self.read(f"{self.root}/b"), b"two")

    def test_removing_a_missing_file_is_no_error(self) -> None:
        self.write(f"{self.root}/a", b"one")
        self.files.unlink(f"{self.root}/a")
        self.files.unlink(f"{self.root}/a")
        self.assertEqual(self.files.names(self.root), [])

    def test_missing_directories_are_made_and_existing_ones_accepted(self) -> None:
        path = f"{self.root}/x/y/z"
        self.assertFalse(self.files.is_directory(path))
        self.files.make_directories(path)
        self.files.make_directories(path)
        self.assertTrue(self.files.is_directory(path))

    def test_a_file_in_the_place_of_a_directory_is_an_error(self) -> None:
        self.write(f"{self.root}/x", b"")
        self.assertFalse(self.files.is_directory(f"{self.root}/x"))
        self.assertRaises(OSError, self.files.make_directories, f"{self.root}/x/y")
        self.assertRaises(OSError, self.files.make_directories, f"{self.root}/x")

    def test_a_missing_file_or_directory_is_an_error(self) -> None:
        self.assertRaises(FileNotFoundError, self.files.open, f"{self.root}/a")
        self.assertRaises(FileNotFoundError, self.files.create, f"{self.root}/x/a")
        self.assertRaises(FileNotFoundError, self.files.sync_directory, f"{self.root}/x")
        with self.assertRaises(FileNotFoundError):
            self.files.rename(f"{self.root}/a", f"{self.root}/b")

    def test_free_space_is_positive(self) -> None:
        self.assertGreater(self.files.free(self.root), 0)


class OnDisk(Contract, TidyTestCase):
    def setUp(self) -> None:
        self.root = self.mktemp()
        os.makedirs(self.root)
        self.files = DiskFiles()

    def test_new_files_and_directories_are_private(self) -> None:
        old = os.umask(0)
        self.addCleanup(os.umask, old)
        self.files.make_directories(f"{self.root}/x/y")
        self.write(f"{self.root}/a", b"one")
        for path, mode in ((f"{self.root}/a", 0o600), (f"{self.root}/x", 0o700)):
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), mode)

    def test_a_partial_write_is_continued(self) -> None:
        real = os.write
        with mock.patch.object(os, "write", lambda fd, content: real(fd, content[:3])):
            self.write(f"{self.root}/a", b"0123456789")
        self.assertEqual(self.read(f"{self.root}/a"), b"0123456789")

    def without_links(self) -> None:
        def refuse(*arguments: object, **keywords: object) -> None:
            raise OSError(errno.EPERM, "no links here")

        self.patch(os, "link", refuse)

    def test_without_hard_links_a_file_is_renamed(self) -> None:
        self.without_links()
        self.test_a_moved_file_has_only_its_new_name()

    def test_without_hard_links_moving_onto_an_existing_file_fails(self) -> None:
        self.without_links()
        self.test_moving_onto_an_existing_file_fails()

    def test_a_linked_file_is_moved_even_if_its_old_name_stays(self) -> None:
        def broken(*arguments: object) -> None:
            raise OSError(errno.EIO, "broken")

        self.write(f"{self.root}/a", b"one")
        with mock.patch.object(os, "unlink", broken):
            why = self.files.rename(f"{self.root}/a", f"{self.root}/b")
        self.assertEqual(why and why.errno, errno.EIO)
        self.assertEqual(self.read(f"{self.root}/b"), b"one")

    def test_a_link_that_the_server_made_despite_an_error_counts(self) -> None:
        real = os.link

        def link(*arguments: Any, **keywords: Any) -> None:
            real(*arguments, **keywords)
            raise FileExistsError(errno.EEXIST, "the answer to the first request was lost")

        self.patch(os, "link", link)
        self.test_a_moved_file_has_only_its_new_name()

    def test_a_failure_to_close_a_synced_directory_is_ignored(self) -> None:
        real = os.close

        def close(descriptor: int) -> None:
            real(descriptor)
            raise OSError(errno.EIO, "broken")

        with mock.patch.object(os, "close", close):
            self.files.sync_directory(self.root)

    def test_every_new_directory_is_synced_in_its_parent(self) -> None:
        synced: list[str] = []
        self.patch(self.files, "sync_directory", synced.append)
        self.files.make_directories(f"{self.root}/x/y")
        root = os.path.abspath(self.root)
        self.assertEqual(synced, [root, f"{root}/x"])

    def test_a_sync_reaches_the_disk(self) -> None:
        synced: list[str] = []
        for name in ("fsync", "fdatasync"):
            self.patch(os, name, lambda fd, name=name: synced.append(name))
        self.write(f"{self.root}/a", b"one")
        self.files.sync_directory(self.root)
        self.assertEqual(synced, ["fdatasync", "fsync"])

    test_a_sync_reaches_the_disk.skip = (  # type: ignore[attr-defined]
        None if hasattr(os, "fdatasync") else "this system syncs by fcntl"
    )

    def test_closing_twice_does_not_close_another_file(self) -> None:
        first = self.files.create(f"{self.root}/a")
        first.close()
        second = self.files.create(f"{self.root}/b")
        first.close()
        second.write(b"two")
        second.close()
        self.assertIsInstance(first, DiskFile)
        self.assertEqual(self.read(f"{self.root}/b"), b"two")


class InMemory(Contract, TidyTestCase):
    def setUp(self) -> None:
        self.root = "/disk"
        self.files: UnsyncedFiles = UnsyncedFiles()
        self.files.make_directories(self.root)

    def test_a_crash_keeps_what_was_synced_with_its_name(self) -> None:
        self.write("/disk/a", b"one")
        self.files.sync_directory("/disk")
        self.files.crash()
        self.assertEqual(self.read("/disk/a"), b"one")

    def test_a_crash_loses_a_name_that_was_not_synced(self) -> None:
        self.write("/disk/a", b"one")
        self.files.crash()
        self.assertEqual(self.files.names("/disk"), [])

    def test_a_crash_loses_content_that_was_not_synced(self) -> None:
        file = self.files.create("/disk/a")
        file.write(b"one")
        file.sync()
        file.write(b"two")
        self.files.sync_directory("/disk")
        self.files.crash()
        self.assertEqual(self.read("/disk/a"), b"one")
        self.assertRaises(OSError, file.write, b"three")

    def test_a_crash_brings_back_a_name_whose_removal_was_not_synced(self) -> None:
        self.files.make_directories("/disk/new")
        self.write("/disk/a", b"one")
        self.files.sync_directory("/disk")
        self.files.rename("/disk/a", "/disk/new/a")
        self.files.sync_directory("/disk/new")
        self.files.crash()
        self.assertEqual(self.files.tree(), ["/disk/a", "/disk/new/a"])

    def test_without_sync_a_crash_loses_all(self) -> None:
        # The negative control: on this disk, tests of durability must see a loss.
        self.files = UnsyncedFiles(syncs=False)
        self.files.make_directories("/disk")
        self.write("/disk/a", b"one")
        self.files.sync_directory("/disk")
        self.files.crash()
        self.assertEqual(self.files.tree(), [])
        self.assertFalse(self.files.is_directory("/disk"))

    def test_an_operation_fails_on_cue_once(self) -> None:
        file = self.files.create("/disk/a")
        self.files.fail_next("sync", OSError(errno.EIO, "broken"), after=1)
        file.sync()
        self.assertEqual(self.assertRaises(OSError, file.sync).errno, errno.EIO)
        file.sync()
        file.close()

    def test_a_full_disk_stores_the_part_that_fits(self) -> None:
        self.files.capacity = 4
        self.write("/disk/a", b"one")
        self.assertEqual(self.files.free("/disk"), 1)
        file = self.files.create("/disk/b")
        self.assertEqual(self.assertRaises(OSError, file.write, b"two").errno, errno.ENOSPC)
        self.assertEqual(self.files.content("/disk/b"), b"t")
        self.files.unlink("/disk/a")
        file.write(b"wo")
        file.close()

    def test_without_power_nothing_works_until_the_crash_is_over(self) -> None:
        self.files.cut_power_in(2)
        file = self.files.create("/disk/a")
        file.write(b"one")
        self.assertRaises(PowerCut, file.sync)
        self.assertRaises(PowerCut, self.files.unlink, "/disk/a")
        self.files.crash()
        self.write("/disk/a", b"two")
