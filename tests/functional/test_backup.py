"""``twisted-mta backup`` of an MTA at work: a copy that is started has each message that it had."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import smtplib
import stat
import tarfile
import threading
from pathlib import Path

from .hop import Hop
from .machine import LOOPBACK, eventually
from .mail import ProgramTestCase
from .mta import MTA

SETTINGS = """
[queue]
retry_minimum = "1 s"
retry_maximum = "1 s"
[suppression]
[greylist]
delay = "5 min"
"""
LARGE = 100_000  # octets, of which each message has a body file


class Load(threading.Thread):
    """Sends one message after the other, small and large ones, and notes which were taken."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.prefix = name
        self.taken: dict[str, str] = {}
        self.stopping = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.stopping.is_set():
            try:
                with smtplib.SMTP(LOOPBACK, self.port, timeout=30) as client:
                    while not self.stopping.is_set():
                        number += 1
                        self.send(client, f"{self.prefix}{number}", number)
            except (OSError, smtplib.SMTPException):
                return  # the MTA was killed

    def send(self, client: smtplib.SMTP, name: str, number: int) -> None:
        size = LARGE if number % 2 else 500
        body = (hashlib.sha256(name.encode()).hexdigest() + "\r\n") * (size // 66)
        to = f"{name}@{'up' if number % 3 else 'down'}.far.example"
        client.sendmail("ann@local.example", [to], f"Subject: {name}\r\n\r\n{body}")
        self.taken[to] = hashlib.sha256(body.encode()).hexdigest()


def received(*hops: Hop) -> dict[str, str]:
    """Return the digest of each content that next hops have taken, by its recipient."""
    found = {}
    for each in [transaction for hop in hops for transaction in hop.transactions]:
        body = each.content.partition(b"\r\n\r\n")[2]
        for recipient in each.recipients:
            found[recipient] = hashlib.sha256(body).hexdigest()
    return found


class Backup(ProgramTestCase):
    workers = 2

    def setUp(self) -> None:
        super().setUp()
        self.up, self.down = Hop(), Hop()
        self.addCleanup(self.up.stop)
        self.addCleanup(self.down.stop)
        self.up.start()
        self.down.start()
        self.down.stop()

    def mta(self, home: Path) -> MTA:
        home.mkdir(exist_ok=True)
        mta = MTA(
            home,
            *("--workers", str(self.workers)),
            *("--route", f"up.far.example=smtp://{LOOPBACK}:{self.up.port}"),
            *("--route", f"down.far.example=smtp://{LOOPBACK}:{self.down.port}"),
            toml=SETTINGS,
        )
        self.addCleanup(mta.kill)
        return mta

    def test_a_backup_under_load_has_each_message_that_was_taken_before(self) -> None:
        old = self.mta(self.home / "old")
        old.start()
        loads = [Load(old.smtp, name) for name in ("a", "b", "c")]
        for each in loads:
            each.start()
        eventually(lambda: all(len(each.taken) >= 40 for each in loads), "some mail")
        before = {to: digest for each in loads for to, digest in list(each.taken.items())}
        ran = old.tool("backup", str(self.home / "copy"))
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        self.assertTrue(all(each.is_alive() for each in loads), "the load has ended early")
        count = sum(len(each.taken) for each in loads)
        eventually(lambda: sum(len(each.taken) for each in loads) > count, "more mail")
        old.kill()
        for each in loads:
            each.stopping.set()
            each.join(30)
        delivered = received(self.up)
        self.assertNotEqual(delivered, {})

        copy = self.home / "copy"
        self.assertFalse((self.home / "copy.incomplete").exists())
        manifest = json.loads((copy / "backup.json").read_text())
        self.assertGreater(manifest["messages"], 0)
        for path in copy.rglob("*"):
            self.assertEqual(path.stat().st_mode & 0o077, 0, path)
        self.assertIn("suppression", {each.name for each in copy.iterdir()})
        new_home = self.home / "new"
        new_home.mkdir()
        shutil.copytree(copy, new_home / "mta-state")
        new = self.mta(new_home)
        self.down.start()
        new.start()
        missing = {to: each for to, each in before.items() if to not in delivered}
        self.assertNotEqual(missing, {})

        def rest() -> list[str]:
            there = received(self.up, self.down)
            return [to for to in missing if to not in there]

        eventually(lambda: not rest(), "all mail of the copy")
        there = received(self.up, self.down)
        taken = {to: digest for each in loads for to, digest in each.taken.items()}
        corrupt = [to for to, digest in there.items() if taken.get(to, digest) != digest]
        self.assertEqual(corrupt, [])
        self.assertNotIn("has lost its body", new.output())

    def test_a_stopped_mta_is_copied_into_a_tar_file(self) -> None:
        old = self.mta(self.home / "old")
        old.start()
        load = Load(old.smtp, "x")
        load.start()
        eventually(lambda: len(load.taken) >= 12, "some mail")
        load.stopping.set()
        load.join(30)
        old.kill()  # so that commits are left in the log of the database
        (old.state / "link").symlink_to("/etc/hostname")
        path = self.home / "copy.tar"
        ran = old.tool("backup", str(path))
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        self.assertIn("not in the copy: link: a symbolic link", ran.stderr)
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertEqual(old.tool("backup", str(path)).returncode, 1)  # there is one
        home = self.home / "new"
        home.mkdir()
        with tarfile.open(path) as archive:
            self.assertEqual(archive.getnames()[-1], "backup.json")
            archive.extractall(home / "mta-state", filter="data")
        delivered = received(self.up)
        self.down.start()
        new = self.mta(home)
        new.start()
        eventually(
            lambda: {**delivered, **received(self.up, self.down)} == load.taken,
            "all mail of the copy",
        )

    def test_a_backup_that_is_broken_off_is_no_backup(self) -> None:
        old = self.mta(self.home / "old")
        old.start()
        os.mkdir(self.home / "copy.incomplete")
        ran = old.tool("backup", str(self.home / "copy"))
        self.assertEqual(ran.returncode, 1)
        self.assertRegex(ran.stderr, re.escape("copy.incomplete exists: a backup is being made"))
        self.assertFalse((self.home / "copy").exists())
        ran = old.tool("backup", str(old.state / "copy"))
        self.assertIn("is in the state directory; expected another place", ran.stderr)
        ran = old.tool("backup", str(self.home / "nowhere" / "copy"))
        self.assertEqual(ran.returncode, 1)
        self.assertIn("No such file or directory", ran.stderr)
