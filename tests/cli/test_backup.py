"""``twisted-mta backup`` of an MTA that is stopped: what it copies of body files."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from attrs import evolve
from click.testing import CliRunner

from tests.queue.mail import message, settled
from tests.tidy import TidyTestCase
from twisted_mta.cli.command import main
from twisted_mta.mail.body import Body
from twisted_mta.mail.message import Message
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.store.contract import Accept
from twisted_mta.queue.store.spool import Spool
from twisted_mta.queue.store.sqlite import SQLiteStore
from twisted_mta.system.executors import inline_executor
from twisted_mta.system.files import DiskFiles


class BodiesOfABackup(TidyTestCase):
    def setUp(self) -> None:
        self.home = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.home)
        self.state, self.copy = self.home / "state", self.home / "copy"
        self.state.mkdir(mode=0o700)

    def store(self, *, reuse: bool) -> SQLiteStore:
        """Open the queue, as a process of the MTA does."""
        files = DiskFiles()
        self.spool = Spool(
            str(self.state / "body"),
            files=files,
            executor=inline_executor,
            small_body=100,
            reuse=reuse,
        )
        store = SQLiteStore(str(self.state / "queue.sqlite"), spool=self.spool, files=files)
        store.open()
        self.addCleanup(store.close)
        return store

    def accepted(self, store: SQLiteStore, id: int, content: bytes) -> Message:
        writer = self.spool.new_body(QueueId(id))
        writer.write(content)
        bodies: list[Body] = []
        sealed = writer.seal()
        assert hasattr(sealed, "addCallback")
        sealed.addCallback(bodies.append)
        new = evolve(message(id), body=bodies[0])
        store.apply([Accept(new, lease=True)])
        return new

    def back_up(self) -> dict[str, bytes]:
        """Make a backup; return its body files by name."""
        ran = CliRunner().invoke(main, ["backup", str(self.copy), "--state-dir", str(self.state)])
        self.assertEqual(ran.exit_code, 0, ran.output)
        return {each.name: each.read_bytes() for each in (self.copy / "body").iterdir()}

    def test_the_end_of_an_earlier_content_is_not_copied(self) -> None:
        store = self.store(reuse=True)
        store.apply([settled(self.accepted(store, 1, b"of one\r\n" * 50))])
        self.accepted(store, 2, b"of two\r\n" * 40)
        store.close()
        (there,) = (self.state / "body").iterdir()
        self.assertIn(b"of one", there.read_bytes())
        content = b"%s\r\n" % str(QueueId(2)).encode() + b"of two\r\n" * 40
        self.assertEqual(self.back_up(), {str(QueueId(1)): content})

    def test_a_queue_of_the_version_before_is_copied(self) -> None:
        store = self.store(reuse=False)
        self.accepted(store, 1, b"of one\r\n" * 50)
        store.close()
        with closing(sqlite3.connect(self.state / "queue.sqlite")) as database:
            database.execute("DROP INDEX message_by_file")
            database.execute("ALTER TABLE message DROP COLUMN file")
            database.execute("PRAGMA user_version = 12")
        self.assertEqual(self.back_up(), {str(QueueId(1)): b"of one\r\n" * 50})
