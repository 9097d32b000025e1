"""Owners and modes: files that another user owns or may write are refused, with the reason."""

import grp
import os
import pwd
import stat
from typing import Any

from tests.tidy import TidyTestCase
from twisted_mta.system import ownership
from twisted_mta.system.ownership import (
    NotOurs,
    mailbox_fault,
    open_log,
    require_ours,
    state_faults,
)

US, EVE = 4321, 6666


class OwnershipTestCase(TidyTestCase):
    """Files of ours, or of an owner that the test assigns, below directories of root."""

    def setUp(self) -> None:
        self.owners: dict[str, int] = {}
        self.base = os.path.abspath(self.mktemp())
        self.state = self.directory("state")
        real_lstat, real_stat = os.lstat, os.stat

        def owned(path: Any, found: os.stat_result) -> os.stat_result:
            ours = f"{path}/".startswith(f"{self.base}/")
            values = list(found)
            values[stat.ST_UID] = self.owners.get(str(path), US if ours else 0)
            values[stat.ST_GID] = 100 if ours else 0
            if not ours:
                values[stat.ST_MODE] &= ~0o022
            return os.stat_result(values)

        eve = pwd.struct_passwd(("eve", "x", EVE, 100, "", "/", "/bin/sh"))
        self.users = [eve]
        self.patch(pwd, "getpwall", lambda: self.users)
        self.patch(os, "lstat", lambda path: owned(path, real_lstat(path)))
        self.patch(
            os, "stat", lambda path, **rest: owned(os.path.realpath(path), real_stat(path, **rest))
        )

    def directory(self, name: str, mode: int = 0o700) -> str:
        path = os.path.join(self.base, name)
        os.makedirs(path)
        os.chmod(path, mode)
        return path

    def file(self, name: str, mode: int = 0o600) -> str:
        path = os.path.join(self.state, name)
        with open(path, "w"):
            pass
        os.chmod(path, mode)
        return path

    def faults(self, path: str | None = None) -> str:
        return "\n".join(state_faults(path or self.state, US))


class StateDirectories(OwnershipTestCase):
    def test_a_directory_of_ours_is_accepted(self) -> None:
        for name in ("lock", "queue.sqlite", "queue.sqlite-wal", "self-signed.pem"):
            self.file(name)
        for name in ("body", "tls", "shard-1", "maildir"):
            self.directory(f"state/{name}")
        self.assertEqual(self.faults(), "")
        require_ours(self.state, US)

    def test_a_missing_directory_is_accepted_unless_another_user_could_create_it(self) -> None:
        self.assertEqual(self.faults(f"{self.base}/new/below"), "")
        self.directory("open", 0o777)
        self.assertIn("other users could replace", self.faults(f"{self.base}/open/new"))
        self.directory("sticky", 0o1777)
        self.assertEqual(self.faults(f"{self.base}/sticky/new"), "")

    def test_a_directory_of_another_user_is_refused(self) -> None:
        self.owners[self.state] = EVE
        with self.assertRaises(NotOurs) as caught:
            require_ours(self.state, US)
        self.assertEqual(
            str(caught.exception),
            f"{self.state} (user number 6666, mode 0700) is not ours; expected it to be of user"
            " number 4321",
        )

    def test_a_directory_that_others_may_write_is_refused(self) -> None:
        for mode in (0o777, 0o1777, 0o770, 0o702):
            os.chmod(self.state, mode)
            self.assertIn(f"mode {mode:04o}) is writable by other users", self.faults())
        os.chmod(self.state, 0o755)
        self.assertEqual(self.faults(), "")

    def test_a_group_of_ours_without_a_name_may_write(self) -> None:
        """Like the group of a volume in Kubernetes; a group with a name may have other members."""
        names = {200: "staff"}

        def entry(group: int) -> Any:
            return grp.struct_group((names[group], "x", group, []))

        def nobody(user: int) -> Any:
            raise KeyError(user)

        self.patch(grp, "getgrgid", entry)
        self.patch(pwd, "getpwuid", nobody)
        self.patch(os, "geteuid", lambda: US)
        self.patch(os, "getegid", lambda: 300)
        self.patch(os, "getgroups", lambda: [100, 200])
        os.chmod(self.state, 0o770)
        self.assertEqual(list(state_faults(self.state, US)), [])
        self.owners[self.state] = 0
        self.assertEqual(list(state_faults(self.state, US)), [])
        names[100] = "users"
        self.assertNotEqual(list(state_faults(self.state, US)), [])
        self.users.clear()
        self.assertEqual(
            list(state_faults(self.state, US)), []
        )  # like Debian's staff: without members
        del names[100]
        self.patch(os, "getgroups", lambda: [200])
        self.assertNotEqual(list(state_faults(self.state, US)), [])

    def test_our_own_group_may_write(self) -> None:
        os.chmod(self.state, 0o770)
        self.patch(ownership, "_group_is_own", lambda group, user: group in (0, 100))
        self.assertEqual(self.faults(), "")
        self.owners[self.state] = 0  # like volumes of containers
        self.assertEqual(self.faults(), "")

    def test_directories_above_are_checked(self) -> None:
        os.chmod(self.base, 0o775)
        self.assertIn(f"{self.base} (user number 4321, mode 0775) is above", self.faults())
        os.chmod(self.base, 0o1777)
        self.assertEqual(self.faults(), "")
        self.owners[self.base] = EVE
        self.assertIn("which its owner could replace", self.faults())

    def test_a_link_is_followed_if_it_is_ours(self) -> None:
        for target in (self.state, "state", "../" + os.path.basename(self.base) + "/./state"):
            link = os.path.join(self.base, "link")
            os.symlink(target, link)
            self.owners.clear()
            self.assertEqual(self.faults(link), "")
            self.owners[link] = 0
            self.assertEqual(self.faults(link), "")
            self.owners[link] = EVE
            self.assertIn("is a symbolic link; expected", self.faults(link))
            self.owners = {self.state: EVE}
            self.assertIn("is not ours", self.faults(link))
            os.unlink(link)
        os.symlink("loop", os.path.join(self.base, "loop"))
        with self.assertRaises(OSError):
            self.faults(os.path.join(self.base, "loop"))

    def test_a_file_of_another_user_in_it_is_refused(self) -> None:
        for name in ("lock", "queue.sqlite-wal", "control.sock", "self-signed.pem", "srs.key"):
            path = self.file(name)
            self.owners[path] = EVE
            self.assertIn(f"{path} (user number 6666, mode 0600) is not ours", self.faults())
            del self.owners[path]
            os.chmod(path, 0o666)
            self.assertIn("is writable by other users; expected mode 0600", self.faults())
            os.unlink(path)
            os.symlink("/dev/null", path)
            self.assertIn("is a symbolic link; expected a file", self.faults())
            os.unlink(path)
        self.owners[self.file("notes.txt")] = EVE  # not a file of this program
        self.assertEqual(self.faults(), "")

    def test_a_file_of_another_user_in_a_shard_is_refused(self) -> None:
        shard = self.directory("state/shard-2")
        os.symlink("/etc/passwd", f"{shard}/queue.lock")
        self.assertIn("shard-2/queue.lock", self.faults())

    def test_a_lock_with_two_names_is_refused(self) -> None:
        os.link(self.file("lock"), f"{self.state}/other")
        self.assertIn("has 2 names; expected one", self.faults())


class Maildirs(OwnershipTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = self.directory("mail/example.net/bob/new")
        self.root = os.path.join(self.base, "mail")

    def fault(self, user: int = US) -> str:
        return mailbox_fault(self.root, self.path, user)

    def test_maildirs_of_ours_are_accepted(self) -> None:
        self.assertEqual(self.fault(), "")

    def test_a_link_of_another_user_is_a_fault(self) -> None:
        os.rmdir(self.path)
        os.symlink(self.state, self.path)
        self.assertEqual(self.fault(), "")
        self.owners[self.path] = EVE
        self.assertIn("is a symbolic link; expected", self.fault())

    def test_only_root_needs_its_own_directories(self) -> None:
        bob = os.path.dirname(self.path)
        self.owners[bob] = EVE
        self.assertEqual(self.fault(), "")
        self.owners = dict.fromkeys((self.root, f"{self.root}/example.net", self.path), 0)
        self.owners[bob] = EVE
        self.assertIn("root delivers only into its own directories", self.fault(user=0))

    def test_a_maildir_that_all_users_may_write_is_a_fault(self) -> None:
        os.chmod(self.root, 0o777)
        self.assertIn("is writable by all users", self.fault())


class Logs(TidyTestCase):
    def setUp(self) -> None:
        self.base = os.path.abspath(self.mktemp())
        os.mkdir(self.base, 0o700)
        self.path = os.path.join(self.base, "log")
        self.target = os.path.join(self.base, "target")

    def open(self) -> None:
        os.close(open_log(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640))

    def test_a_missing_file_is_created(self) -> None:
        self.open()
        self.assertTrue(os.path.isfile(self.path))

    def test_a_link_of_ours_is_followed(self) -> None:
        os.symlink(self.target, self.path)
        self.open()
        self.assertTrue(os.path.isfile(self.target))

    def test_a_link_that_another_user_could_have_made_is_refused(self) -> None:
        os.symlink(self.target, self.path)
        os.chmod(self.base, 0o777)
        with self.assertRaises(OSError) as caught:
            self.open()
        self.assertIn("another user could have made", str(caught.exception))
        self.assertFalse(os.path.exists(self.target))
