"""A queue moves to PostgreSQL and back: broken off at each step, nothing is lost or sent twice."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from attrs import evolve

from tests.docs.statements import statement
from tests.tidy import TidyTestCase
from twisted_mta.mail.body import Body, MemoryBody
from twisted_mta.mail.message import Message
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.moving import database as database_module
from twisted_mta.queue.moving import file as file_module
from twisted_mta.queue.moving.database import SharedDatabase
from twisted_mta.queue.moving.file import QueueFile
from twisted_mta.queue.moving.move import Move, Moved
from twisted_mta.queue.moving.parcel import MoveRefused
from twisted_mta.queue.operator.operations import Intervene
from twisted_mta.queue.operator.selection import Selection
from twisted_mta.queue.store.contract import Accept, Lease, Store, Survey, Want
from twisted_mta.queue.store.postgresql.store import LEASE, PostgreSQLStore
from twisted_mta.queue.store.spool import Spool
from twisted_mta.queue.store.sqlite import SQLiteStore
from twisted_mta.system.executors import inline_executor
from twisted_mta.system.files import DiskFiles

from ..mail import NOW, deferred, message, numbers, settled
from ..store.test_postgresql import empty_queue, server, sql

LARGE = bytes(range(256)) * 2048  # 512 KiB: in a file, and in three pieces
SIZES = (0, 300_000, 20)


class Broken(Exception):
    """The process ends here."""


class Breaking:
    """A side of a move that ends the process before one of the calls.

    Args:
        side: the side.
        calls: counts the calls of both sides.
        at: the call.
    """

    def __init__(self, side: Any, calls: Iterator[int], at: int) -> None:
        self._side = side
        self._calls = calls
        self._at = at

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._side, name)
        if not callable(value):
            return value

        def call(*arguments: Any) -> Any:
            if next(self._calls) == self._at:
                raise Broken(name)
            return value(*arguments)

        return call


class MoveTestCase(TidyTestCase):
    kept_open = ("/data", "postgresql.log")

    def setUp(self) -> None:
        empty_queue()
        self.addCleanup(empty_queue)
        self.home = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.home)
        self.files = DiskFiles()
        self.spool = Spool(
            str(self.home / "body"), files=self.files, executor=inline_executor, reuse=True
        )
        self.copies = Spool(str(self.home / "copies"), files=self.files, executor=inline_executor)
        self.path = self.home / "queue.sqlite"
        self.tokens = count()
        for module in (database_module, file_module):
            self.patch(module, "MESSAGES", 2)  # in one batch

    # The stores, as an MTA has them.

    @contextmanager
    def stopped(self) -> Iterator[Store]:
        store = SQLiteStore(str(self.path), spool=self.spool, files=self.files)
        store.open()
        try:
            yield store
        finally:
            store.close()

    @contextmanager
    def machine(self, name: str = "a") -> Iterator[Store]:
        store = PostgreSQLStore(
            server().url,
            machine=lambda: name,
            slot=0,
            spool=self.copies,
            files=self.files,
            seconds=lambda: 0.0,
        )
        store.open()
        try:
            yield store
        finally:
            store.close()

    def accepted(self, message: Message) -> Accept:
        """Return the acceptance of a message, whose large body is in its file."""
        writer = self.spool.new_body(message.id)
        for chunk in message.body.chunks():
            writer.write(chunk)
        sealed: Any = writer.seal()
        bodies: list[Body] = []
        if hasattr(sealed, "addCallback"):
            sealed.addCallback(bodies.append)
        return Accept(evolve(message, body=bodies[0]) if bodies else message, lease=False)

    def fill(self) -> dict[int, bytes]:
        """Put messages into the file; return their bodies."""
        bodies = {id: (LARGE * 2)[id : id + size] for id, size in enumerate(SIZES, start=1)}
        with self.stopped() as store:
            # Its file is used again by the first large one.
            other = evolve(message(99, "w@z.example"), body=MemoryBody(LARGE[:300_000]))
            store.apply([self.accepted(other)])
            store.apply([settled(other)])
            for id, body in bodies.items():
                new = evolve(message(id, "u@x.example", "v@y.example"), body=MemoryBody(body))
                store.apply([self.accepted(new)])
        return bodies

    def delivered(self, store: Store, limit: int = 100) -> list[tuple[int, int, bytes]]:
        """Deliver due mail; return id, recipient and content of each delivery."""
        (surveyed,) = store.apply([Survey(NOW + 1, NOW + 1e9)])
        wants = tuple(Want(domain, limit) for domain in sorted(surveyed.rest))  # type: ignore[union-attr]
        (leased,) = store.apply([Lease(NOW + 1, wants)])
        done = []
        for each in leased.messages:  # type: ignore[union-attr]
            content = b"".join(each.body.chunks())
            done += [(int(each.id), number, content) for number in numbers(each)]
            store.apply([settled(each)])
        return done

    # The move.

    @contextmanager
    def sides(self, url: str = "") -> Iterator[tuple[QueueFile, SharedDatabase]]:
        file = QueueFile(
            str(self.path), locks=[str(self.home / "lock")], spool=self.spool, files=self.files
        )
        database = SharedDatabase(url or server().url, seconds=lambda: 0.0, spool=self.spool)
        file.open()
        try:
            database.open()
            try:
                yield file, database
            finally:
                database.close()
        finally:
            file.close()

    def move(
        self, way: str, wrap: Callable[[Any], Any] = lambda side: side, url: str = ""
    ) -> Moved:
        with self.sides(url) as (file, database):
            move = Move(wrap(file), wrap(database), token=lambda: f"{way}{next(self.tokens)}")
            move.resume()
            move.out() if way == "out" else move.back()
            return move.moved

    def rows(self) -> dict[str, list[Any]]:
        """Return all that the file knows; transcripts in place of their keys."""
        with closing(sqlite3.connect(self.path)) as database:
            return {
                name: database.execute(statement).fetchall()
                for name, statement in {
                    "message": "SELECT * FROM message",
                    "recipient": "SELECT * FROM recipient",
                    "attempt": "SELECT message, number, attempt, ended_at, next_hop, code, status,"
                    " text, remote, tls, uncertain, unreachable, (SELECT transcript FROM"
                    " conversation WHERE id = conversation) FROM attempt",
                    "transcript": "SELECT message, transcript FROM conversation ORDER BY 1, 2",
                    "failure": "SELECT * FROM failure",
                    "imported": "SELECT * FROM imported",
                    "census": "SELECT * FROM census",
                    "event": "SELECT * FROM webhook_event",
                    "move": "SELECT * FROM move",
                    "moved": "SELECT * FROM moved",
                }.items()
            }


class Moving(MoveTestCase):
    def test_all_of_it_arrives_and_comes_back(self) -> None:
        self.fill()
        with self.stopped() as store:
            (leased,) = store.apply([Lease(NOW + 1, (Want("x.example", 2),))])
            for each in leased.messages:  # type: ignore[union-attr]
                store.apply([deferred(each, NOW + 600, *numbers(each))])
            store.apply([Intervene("hold", Selection(to="v@*"), NOW + 5)])
        with closing(sqlite3.connect(self.path)) as database:
            database.execute(
                "UPDATE attempt SET text = ?, tls = '{}', conversation = 7 WHERE message = 1",
                ("never\x00mind",),
            )
            database.execute("INSERT INTO conversation VALUES (7, 1, ?)", ("S: 451 no\x00w",))
            database.execute("UPDATE recipient SET last_text = ?, warned = 1", ("nul \x00 é",))
            database.execute('UPDATE message SET assessment = \'{"quarantine": "junk"}\'')
            database.execute("INSERT INTO failure VALUES (99, 0, 'r@x', '', 5.5, '550 no', 'mx')")
            database.execute("INSERT INTO imported VALUES (1, 0, 6.5)")
            database.execute(
                "INSERT INTO webhook_event VALUES (1, 'hook', 'name', x'00ff', 7.5, 2, 8.5)"
            )
            database.execute("UPDATE census SET failures = 1")
            database.commit()
        before = self.rows()
        self.assertEqual(self.move("out"), Moved(3, 6))
        after = self.rows()
        self.assertEqual({name for name, rows in after.items() if rows}, {"census"})
        self.assertEqual(after["census"], [(0, 0, 0, 0, 0, 0)])
        self.assertEqual(sorted(path.name for path in (self.home / "body").iterdir()), [])
        self.assertEqual(
            sql("SELECT sum(messages), sum(recipients), sum(held), sum(failures) FROM worker"),
            [(3, 6, 3, 1)],
        )
        self.assertEqual(self.move("back"), Moved(3, 6))
        # A body comes back into a file with the name of its own message.
        before["message"] = [(*row[:-1], None) for row in before["message"]]
        self.assertEqual(self.rows(), before)
        for table in ("message", "piece", "recipient", "attempt", "conversation", "failure"):
            self.assertEqual(sql(f"TABLE {table}"), [], table)
        self.assertEqual(
            sql("SELECT sum(messages), sum(recipients), sum(held), sum(failures) FROM worker"),
            [(0, 0, 0, 0)],
        )

    def test_a_machine_delivers_what_has_come_over(self) -> None:
        bodies = self.fill()
        with self.machine() as store:
            self.move("out")
            done = self.delivered(store)
        self.assertEqual(
            sorted(done), [(id, number, bodies[id]) for id in bodies for number in (0, 1)]
        )

    def test_a_message_whose_id_is_taken_stays(self) -> None:
        self.fill()
        with self.machine() as store:
            store.apply([Accept(message(3, "other@z.example"), lease=False)])
            moved = self.move("out")
            self.assertEqual((moved.messages, list(moved.left)), (2, [3]))
            self.assertEqual(len(self.rows()["recipient"]), 2)
            self.delivered(store)
            self.assertEqual(self.move("out").messages, 1)

    def test_a_message_whose_id_names_the_body_file_of_another_stays(self) -> None:
        with self.stopped() as store:
            first = evolve(message(99, "w@z.example"), body=MemoryBody(LARGE))
            store.apply([self.accepted(first)])
        self.move("out")
        bodies = self.fill()
        moved = self.move("back")
        self.assertEqual(list(moved.left), [99])
        self.assertIn("body file", moved.left[99])
        with self.stopped() as store:
            found = {id: content for id, _, content in self.delivered(store)}
        self.assertEqual(found, bodies)
        self.assertEqual(self.move("back"), Moved(1, 1))

    def test_a_message_without_its_body_is_told_and_stays(self) -> None:
        self.fill()
        with self.sides() as (file, database):
            (self.home / "body" / str(QueueId(99))).write_bytes(b"short")
            move = Move(file, database, token=lambda: "t")
            move.out()
        self.assertIn("another size", move.moved.left[2])
        self.assertEqual(move.moved.messages, 2)

    def test_a_move_to_another_database_has_to_be_finished_first(self) -> None:
        self.fill()
        calls = count()
        with self.assertRaises(Broken):
            self.move("out", lambda side: Breaking(side, calls, 6))
        other = server().url.replace("/postgres", "/template1")
        with self.assertRaisesRegex(MoveRefused, "--to postgresql://.*/postgres was interrupted"):
            self.move("out", url=other)
        self.move("out")

    def test_what_an_interrupted_move_has_reserved_is_released_by_hand(self) -> None:
        bodies = self.fill()
        with self.assertRaises(Broken):  # as soon as the database has some
            self.move("out", lambda side: Breaking(side, count(), 6))
        interrupted = statement("postgresql", "SELECT machine, count")
        self.assertEqual(sql(interrupted), [("move out0", 1)])
        with self.machine() as store:
            self.assertEqual({id for id, *_ in self.delivered(store)}, {1, 2})
        end = statement("postgresql", "UPDATE twisted_mta.worker")
        sql(end.replace("move 5d2c\u2026", "move out0"))
        with self.machine() as store:
            store._seconds = lambda: LEASE  # type: ignore[attr-defined]  # it looks at the others
            store.apply([Survey(NOW, NOW)])
            done = self.delivered(store)
        self.assertEqual({id: content for id, _, content in done}, {3: bodies[3]})
        self.assertEqual(
            sql("SELECT sum(messages)::int, sum(recipients)::int FROM worker"), [(0, 0)]
        )
        self.assertEqual(sql(interrupted), [])


class BrokenOff(MoveTestCase):
    """The move ends before each of its steps, MTAs deliver on both sides, and it is resumed."""

    def check(self, way: str) -> None:
        at = next(at for at in count() if not self.check_at(way, at))
        self.assertGreater(at, 10)

    def check_at(self, way: str, at: int) -> bool:
        """End the move before a step; return whether there is such a step."""
        empty_queue()
        for path in (*self.home.glob("queue.sqlite*"), *self.home.glob("body/*")):
            path.unlink()
        bodies = self.fill()
        if way == "back":
            self.move("out")
        calls = count()
        ended = False
        try:
            self.move(way, lambda side: Breaking(side, calls, at))
        except Broken:
            ended = True
        with self.stopped() as store:
            done = self.delivered(store, 1)  # one message of each domain
        with self.machine() as store:
            done += self.delivered(store, 1)
        with self.sides() as (_, database):
            database.end_users("a")
        self.move(way)
        with self.stopped() as store:
            here = self.delivered(store)
        with self.machine() as store:
            there = self.delivered(store)
        self.assertEqual(here if way == "out" else there, [], f"step {at}")
        self.assertEqual(
            sorted([*done, *here, *there]),
            [(id, number, bodies[id]) for id in bodies for number in (0, 1)],
            f"step {at}",
        )
        counts = sql("SELECT sum(messages), sum(recipients) FROM worker")
        self.assertEqual(counts, [(0, 0)], f"step {at}")
        return ended

    def test_to_the_database(self) -> None:
        self.check("out")

    def test_from_the_database(self) -> None:
        self.check("back")
