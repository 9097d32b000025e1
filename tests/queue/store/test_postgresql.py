"""The store in PostgreSQL: the contract, and several workers on one queue, with a real server."""

from __future__ import annotations

import atexit
import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random  # noqa: TID251 - from a seed

import psycopg
from twisted.trial.unittest import SynchronousTestCase

from tests.functional.machine import LOOPBACK, folder, free_port
from tests.functional.postgresql import PostgreSQL
from tests.tidy import TidyTestCase
from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.envelope import RecipientNumber
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.operator.operations import (
    FIRST,
    Action,
    Browse,
    Inspect,
    Inspected,
    Intervene,
    Page,
    ReadRetried,
    Retried,
)
from twisted_mta.queue.operator.selection import Selection
from twisted_mta.queue.store.contract import (
    Accept,
    Forget,
    NewerSchema,
    Operation,
    Settle,
    Store,
    StoreBusy,
    StoreError,
    StoreUnavailable,
)
from twisted_mta.queue.store.postgresql import due, transaction
from twisted_mta.queue.store.postgresql.schema import scripts
from twisted_mta.queue.store.postgresql.store import LEASE, PostgreSQLStore
from twisted_mta.queue.store.spool import Spool
from twisted_mta.queue.store.webhook_events import (
    CountEvents,
    DropEvents,
    EventCount,
    EventCounts,
    NewEvent,
    RecordEvents,
    TakeEvents,
    TakenEvents,
)
from twisted_mta.system.executors import inline_executor
from twisted_mta.testing.files import UnsyncedFiles

from ..mail import FAILED, NOW, deferred, message, settled
from .conformance import StoreConformance
from .harness import StoreHarness

# Much quicker than TRUNCATE, where there are few rows.
_EMPTY = """
    DELETE FROM message;
    DELETE FROM piece;
    DELETE FROM incoming;
    DELETE FROM recipient;
    DELETE FROM failure;
    DELETE FROM imported;
    DELETE FROM suspended;
    DELETE FROM retried;
    DELETE FROM attempt;
    DELETE FROM conversation;
    DELETE FROM webhook_event;
    DELETE FROM worker WHERE id <> 0;
    UPDATE worker SET messages = 0, recipients = 0, deferred = 0, quarantined = 0, failures = 0,
        held = 0;
"""


@cache
def server() -> PostgreSQL:
    """Return the server that all tests of this process share."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(PostgreSQL(stack.enter_context(folder("postgresql"))))


def sql(statement: str, *values: object, url: str = "") -> list[tuple[object, ...]]:
    """Run a statement beside the store; return its rows."""
    with psycopg.connect(
        url or server().url, autocommit=True, options="-c search_path=twisted_mta"
    ) as database:
        done = database.execute(statement.encode(), values or None)
        return done.fetchall() if done.description else []


def empty_queue() -> None:
    """Remove all that tests before this one have left."""
    if sql("SELECT to_regclass('twisted_mta.version')") != [(None,)]:
        sql(_EMPTY)


class PostgreSQLHarness(StoreHarness):
    kept_open = ("/data", "postgresql.log")

    def setUp(self) -> None:
        self.now = 0.0
        self.ticks = False
        empty_queue()
        self.begin()
        self.addCleanup(lambda: self.store.close())

    def new_store(self) -> Store:
        return self.worker("a", self.spool, self.files)

    def worker(
        self, machine: str, spool: Spool, files: UnsyncedFiles, url: str = ""
    ) -> PostgreSQLStore:
        return PostgreSQLStore(
            url or server().url,
            machine=lambda: machine,
            slot=0,
            spool=spool,
            files=files,
            seconds=self.seconds,
        )

    def seconds(self) -> float:
        self.now += self.ticks  # a second for each look at the clock
        return self.now

    def stored_bodies(self) -> list[str]:
        rows = sql("SELECT DISTINCT message FROM piece ORDER BY message")
        return [str(QueueId(int(str(id)))) for (id,) in rows]


class PostgreSQLConformance(PostgreSQLHarness, StoreConformance, TidyTestCase):
    pass


class Machine(StoreHarness, SynchronousTestCase):
    """A machine with a disk of its own; no test case by itself."""

    def runTest(self) -> None: ...


class SeveralWorkers(PostgreSQLHarness, TidyTestCase):
    def setUp(self) -> None:
        super().setUp()
        assert isinstance(self.store, PostgreSQLStore)
        self.a, self.b = self.store, self.open_worker("b")
        self.addCleanup(self.a.close)

    def open_worker(self, machine: str, url: str = "") -> PostgreSQLStore:
        files = UnsyncedFiles()
        files.make_directories("/state/body")
        spool = Spool("/state/body", files=files, executor=inline_executor, small_body=100)
        store = self.worker(machine, spool, files, url)
        store.open()
        self.addCleanup(store.close)
        return store

    def due_at(self, store: PostgreSQLStore, now: float = NOW) -> Sequence[tuple[int, list[int]]]:
        self.store, before = store, self.store
        try:
            return self.due(now)
        finally:
            self.store = before

    def lease_of(self, store: PostgreSQLStore) -> object:
        """Return what the recipients of a worker are leased to."""
        [(id,)] = sql("SELECT id FROM worker WHERE number = %s", store.number)
        return id

    def vanish(self, store: PostgreSQLStore) -> None:
        """Let so much time pass for one worker that its leases may be taken."""
        sql(
            "UPDATE worker SET seen = seen - make_interval(secs => %s) WHERE number = %s",
            LEASE + 1,
            store.number,
        )
        self.now += LEASE

    def test_each_machine_has_events_for_webhooks_of_its_own(self) -> None:
        for store, name in ((self.a, "of a"), (self.b, "of b")):
            store.apply([RecordEvents((NewEvent("w", name, b"{}", NOW),))])
        for store, name in ((self.a, "of a"), (self.b, "of b")):
            [taken] = store.apply([TakeEvents("w", NOW, 10)])
            assert isinstance(taken, TakenEvents)
            self.assertEqual([each.name for each in taken.events], [name])
        self.assertEqual(self.a.apply([DropEvents("w", 10)]), [EventCount(1, 2)])
        counted = [EventCounts({"w": EventCount(1, 2)})]
        self.assertEqual(self.b.apply([CountEvents()]), counted)
        # Those of a process that is no more are posted by another one of its machine.
        sql("UPDATE webhook_event SET slot = 1")
        self.assertEqual(self.b.apply([CountEvents()]), [EventCounts({})])
        self.a = self.open_worker("a")
        self.assertEqual(self.a.apply([CountEvents()]), [EventCounts({})])
        self.b = self.open_worker("b")
        self.assertEqual(self.b.apply([CountEvents()]), counted)
        # Those of a machine that does not come back are removed by others, much later.
        self.a.apply([DropEvents("w", 10, before=NOW + 86_400)])
        self.assertEqual(self.b.apply([CountEvents()]), counted)
        self.a.apply([DropEvents("w", 10, before=NOW + 31 * 86_400)])
        self.assertEqual(self.b.apply([CountEvents()]), [EventCounts({})])

    def test_mail_of_another_machine_is_shown_as_such(self) -> None:
        self.a.apply([Accept(message(1)), Accept(message(2))])
        self.a.apply([deferred(message(2), NOW + 60)])
        for store, elsewhere in ((self.a, False), (self.b, True)):
            page, inspected = store.apply([Browse(Selection()), Inspect(QueueId(1))])
            assert isinstance(page, Page) and isinstance(inspected, Inspected)
            entries = [*page.messages[0].recipients, *inspected.recipients]
            for each in entries:
                self.assertEqual((each.leased, each.elsewhere), (True, elsewhere))
            (other,) = page.messages[1].recipients
            self.assertEqual((other.leased, other.elsewhere), (False, False))

    def test_actions_say_what_another_machine_has_leased(self) -> None:
        self.a.apply([Accept(message(id)) for id in range(1, 31)])
        for selection in (Selection(ids=(QueueId(1),)), Selection()):  # one, and many at once
            for store, elsewhere in ((self.a, False), (self.b, True)):
                for action in ("hold", "release"):
                    (page,) = store.apply([Intervene(action, selection, NOW)])
                    assert isinstance(page, Page)
                    self.assertTrue(page.messages)
                    for each in page.messages:
                        for entry in each.recipients:
                            self.assertEqual((entry.leased, entry.elsewhere), (True, elsewhere))

    def test_an_old_retry_that_another_worker_removes_is_not_waited_for(self) -> None:
        self.a.apply([Intervene("retry", Selection(), NOW)])
        sql("UPDATE retried SET at = at - interval '61 s'")
        with psycopg.connect(server().url, options="-c search_path=twisted_mta") as other:
            other.execute("DELETE FROM retried")
            self.b.apply([Intervene("retry", Selection(), NOW)])
            other.rollback()
        self.assertEqual(sql("SELECT count(*) FROM retried"), [(2,)])

    def known_again(self, store: PostgreSQLStore) -> list[tuple[bool, tuple[str, ...]]]:
        """Read retries, and the same again when they are known; return the latter."""
        [read] = store.apply([ReadRetried()])
        assert isinstance(read, Retried)
        [again] = store.apply([ReadRetried(frozenset(each.id for each in read.retries))])
        assert isinstance(again, Retried)
        self.assertEqual([each.id for each in again.retries], [each.id for each in read.retries])
        return [(each.begins, each.domains) for each in again.retries]

    def test_retries_of_one_worker_are_seen_by_the_others_for_a_minute(self) -> None:
        def seen(store: PostgreSQLStore) -> list[tuple[bool, tuple[str, ...]]]:
            [retried] = store.apply([ReadRetried()])
            assert isinstance(retried, Retried)
            return [(each.begins, each.domains) for each in retried.retries]

        mail = [message(id, f"bob@{id}.example") for id in (1, 2)]
        self.a.apply([Accept(each) for each in mail])
        self.a.apply([deferred(each, NOW + 60) for each in mail])
        actions: tuple[Action, ...] = ("hold", "release", "retry")
        for action in actions:
            self.a.apply([Intervene(action, Selection(), NOW, limit=1)])
        self.a.apply([Intervene("retry", Selection(), NOW, mail[0].id)])
        self.a.apply([Intervene("retry", Selection(), NOW, dry_run=True)])
        self.a.apply([Intervene("retry", Selection(), NOW, mail[1].id)])  # the end
        expected = [
            (True, ("1.example",)),
            (True, ("1.example",)),
            (False, ("2.example",)),
        ]
        self.assertEqual(seen(self.b), expected)
        self.assertEqual(seen(self.a), [])
        self.assertEqual(self.known_again(self.b), [(each[0], ()) for each in expected])
        sql("UPDATE retried SET at = at - interval '61 s'")
        self.assertEqual(seen(self.b), [])
        self.b.apply([Intervene("retry", Selection(), NOW)])
        self.assertEqual(sql("SELECT count(*) FROM retried"), [(1,)])
        self.assertEqual(seen(self.a), [(True, ("1.example", "2.example"))])

    def test_mail_of_one_machine_is_leased_by_another_and_by_one_alone(self) -> None:
        self.a.apply([Accept(message(1), lease=False), Accept(message(2), lease=True)])
        self.assertEqual(self.due_at(self.b), [(1, [0])])
        self.assertEqual(self.due_at(self.a), [])
        self.b.apply([settled(message(1))])
        self.a.apply([settled(message(2))])
        self.assertEqual(self.due_at(self.a), [])
        self.assertEqual(sql("SELECT count(*) FROM message"), [(0,)])

    def test_a_large_body_goes_to_the_machine_that_delivers_it(self) -> None:
        content = Random(1).randbytes(1_000_003)
        self.a.apply([Accept(message(1, body=self.large_body(1, content)), lease=False)])
        self.assertEqual(self.files.names("/state/body"), [], "the copy is of no more use")
        self.store = self.b
        (leased,) = self.lease().messages
        self.assertEqual(b"".join(leased.body.chunks()), content)
        self.do(settled(leased))
        self.assertEqual(self.stored_bodies(), [])

    def test_a_large_body_comes_before_its_message(self) -> None:
        content = Random(1).randbytes(1_000_003)
        large = message(1, body=self.large_body(1, content))
        self.a.brings_bodies = self.b.brings_bodies = True
        self.addCleanup(self.a.end_transfers)
        self.addCleanup(self.b.end_transfers)
        self.a.bring(large)
        self.assertEqual(sql("SELECT message FROM incoming"), [(1,)])
        self.assertEqual(self.due_at(self.b), [], "it is not accepted yet")
        self.a.apply([Accept(large, lease=False)])
        self.assertEqual(sql("SELECT count(*) FROM incoming"), [(0,)])
        self.assertEqual(sql("SELECT count(*) FROM piece"), [(4,)])
        self.store = self.b
        (leased,) = self.lease().messages
        with self.assertRaises(OSError):
            b"".join(leased.body.chunks())
        self.b.fetch(leased)
        self.assertEqual(b"".join(leased.body.chunks()), content)
        self.do(settled(leased))
        self.assertEqual(self.stored_bodies(), [])

    def test_a_large_body_without_a_message_is_removed(self) -> None:
        large = [message(id, body=self.large_body(id, bytes(1000))) for id in (1, 2, 3)]
        self.addCleanup(self.a.end_transfers)
        for each in large:
            self.a.bring(each)
        self.b.apply([Forget((QueueId(1),))])
        self.assertEqual(self.stored_bodies(), [str(QueueId(id)) for id in (1, 2, 3)])
        self.a.apply([Forget((QueueId(1),))])
        self.assertEqual(self.stored_bodies(), [str(QueueId(id)) for id in (2, 3)])
        self.vanish(self.a)
        self.b.apply([])
        self.assertEqual(self.stored_bodies(), [])
        self.assertEqual(sql("SELECT count(*) FROM incoming"), [(0,)])

    def test_a_body_that_was_taken_away_is_not_accepted(self) -> None:
        large = message(1, body=self.large_body(1, bytes(1000)))
        self.addCleanup(self.a.end_transfers)
        self.a.bring(large)
        self.vanish(self.a)
        self.b.apply([])
        for _ in range(2):
            with self.assertRaisesRegex(StoreError, "taken over"):
                self.a.apply([Accept(large)])
            self.a.open()
        self.a.apply([Forget((QueueId(1),)), Accept(message(2))])
        self.assertEqual(sql("SELECT id FROM message"), [(2,)])

    def test_a_copy_that_is_no_longer_read_is_removed(self) -> None:
        large = message(1, body=self.large_body(1, bytes(1000)))
        self.a.apply([Accept(large)])
        self.a.apply([deferred(large, NOW + 60)])
        self.assertEqual(self.files.names("/state/body"), [str(QueueId(1))])
        self.now += 100
        self.a.apply([])
        self.assertEqual(self.files.names("/state/body"), [])
        self.store = self.a
        (leased,) = self.lease(NOW + 60).messages
        self.assertEqual(b"".join(leased.body.chunks()), bytes(1000))

    def test_only_mail_that_is_leased_for_certain_may_be_sent(self) -> None:
        self.a.apply([Accept(message(1))])
        self.assertTrue(self.a.is_leased(message(1)))
        self.assertFalse(self.b.is_leased(message(1)))
        self.now += LEASE - 4
        self.assertFalse(self.a.is_leased(message(1)), "another worker may have it soon")
        self.a.apply([])
        self.assertTrue(self.a.is_leased(message(1)))
        self.vanish(self.a)
        self.b.apply([])
        with self.assertRaises(StoreError):
            self.a.apply([])
        self.a.open()
        self.assertFalse(self.a.is_leased(message(1)), "the new worker did not lease it")

    def test_the_mail_of_a_worker_that_is_gone_is_taken_over(self) -> None:
        self.a.apply([Accept(message(1)), Accept(message(2, "a@x.example", "b@y.example"))])
        self.a.apply([settled(message(2, "a@x.example", "b@y.example"), 0)])
        self.a.close()
        self.b.apply([])
        self.assertEqual(self.due_at(self.b), [])
        self.vanish(self.a)
        self.assertEqual(self.due_at(self.b), [(1, [0]), (2, [1])])
        census = self.b.census()
        self.assertEqual((census.messages, census.recipients, census.leased), (2, 2, 2))

    def test_a_worker_that_renews_its_leases_keeps_them(self) -> None:
        self.a.apply([Accept(message(1))])
        for _ in range(3):
            sql("UPDATE worker SET seen = seen - make_interval(secs => %s)", LEASE - 5)
            self.now += LEASE
            self.a.apply([])
            self.b.apply([])
        self.assertEqual(self.due_at(self.b), [])
        self.assertGreater(self.a.leases_until, self.now)

    def test_a_worker_that_lost_its_leases_writes_nothing_until_it_is_opened_again(self) -> None:
        self.a.apply([Accept(message(1))])
        self.vanish(self.a)
        self.assertEqual(self.due_at(self.b), [(1, [0])])
        for operation in (settled(message(1)), Accept(message(2))):
            with self.assertRaisesRegex(StoreError, "taken over"):
                self.a.apply([operation])
        before = self.a.leases_until
        self.now += 1
        self.a.open()
        self.assertGreater(self.a.leases_until, before)
        self.a.apply([settled(message(1), notices=[message(9, sender=None)])])
        self.assertEqual(sql("SELECT id FROM message"), [(1,)], "the other worker's outcome counts")
        self.b.apply([settled(message(1))])
        self.assertEqual(sql("SELECT id FROM message"), [])

    def test_an_outcome_counts_where_no_other_worker_has_the_lease(self) -> None:
        self.a.apply([Accept(message(1)), Accept(message(2))])
        self.vanish(self.a)
        self.b.apply([])
        with self.assertRaises(StoreError):
            self.a.apply([settled(message(1))])
        self.a.open()
        self.a.apply([settled(message(1)), deferred(message(2), NOW + 60)])
        self.assertEqual(self.due_at(self.b), [])
        self.assertEqual(self.due_at(self.b, NOW + 60), [(2, [0])])

    def test_a_machine_that_starts_again_has_its_own_mail_at_once(self) -> None:
        self.a.apply([Accept(message(1))])
        self.a.close()
        again = self.worker("a", self.spool, self.files)
        self.addCleanup(again.close)
        again.open()
        self.assertEqual(self.due_at(again), [(1, [0])])
        self.assertEqual(again.census().messages, 1)

    def test_no_machine_forgets_the_mail_of_another(self) -> None:
        self.a.apply([Accept(message(1))])
        self.b.apply([Forget((QueueId(1),))])
        self.assertEqual(self.a.census().messages, 1)
        self.a.apply([Forget((QueueId(1),))])
        self.assertEqual(self.a.census().messages, 0)

    def test_an_id_that_is_taken_is_no_second_message(self) -> None:
        self.a.apply([Accept(message(1))])
        with self.assertRaises(ValueError):
            self.b.apply([Accept(message(1, body=MemoryBody(b"other")))])
        self.assertEqual(sql("SELECT message, lease FROM recipient"), [(1, self.lease_of(self.a))])
        self.b.apply([Accept(message(2))])

    def test_many_messages_take_few_round_trips(self) -> None:
        mail = [message(id) for id in range(1, 21)]
        trips = self.round_trips(*(Accept(each) for each in mail))
        self.assertEqual(trips, ["Sync"], "an insert, and its COMMIT along with it")
        again = [deferred(each, NOW + 60) for each in mail[:10]]
        trips = self.round_trips(*(settled(each) for each in mail[10:]), *again)
        self.assertEqual(trips, ["Flush", "Sync"], "the counts follow from the result")
        self.assertEqual(sql("SELECT count(*) FROM attempt"), [(10,)])
        self.assertEqual(len(self.due_at(self.a, NOW + 60)), 10)

    def round_trips(self, *operations: Operation) -> Sequence[str]:
        """Apply a batch; return the messages to the server by which its results were asked for."""
        assert self.a._database is not None
        trace = Path(self.mktemp())
        connection = self.a._database.pgconn
        with trace.open("w") as file:
            connection.trace(file.fileno())
            self.a.apply(operations)
            connection.untrace()
        # Beside the time each line has the direction, a length, and the name of the message.
        lines = [line.split("\t")[1:4] for line in trace.read_text().splitlines()]
        sent = [line[2].split()[0] for line in lines if line[0] == "F"]
        # psycopg sends a Flush along with the last Sync.
        return [
            each
            for before, each in pairwise(["", *sent])
            if each in ("Sync", "Query") or (each == "Flush" and before != "Sync")
        ]

    def test_no_statement_for_each_message_is_planned_to_read_all_of_a_table(self) -> None:
        # An empty table would be read as a whole, and the plan is kept when it grows.
        database = self.a._database
        assert database is not None
        database.execute("ANALYZE message, recipient")
        for statement, values in (
            (transaction._REMOVE_EMPTY, ([1],)),
            (transaction._LOCK_CONTESTED.format(worker=1), ([1],)),
            (due._FIRST, (["x.example"], [1], [1])),
            (due._TAKE, ([1], [0], 1)),
            (due._SURVEY, None),
        ):
            plan = database.execute(f"EXPLAIN {statement}".encode(), values).fetchall()
            self.assertNotIn("Seq Scan", str(plan), statement)

    def test_the_database_passes_over_addresses_that_are_not_selected(self) -> None:
        self.a.apply([Accept(message(id, "bob@y.example"), lease=False) for id in range(1, 200)])
        self.a.apply([Accept(message(200, "Ann.B@x.example", sender="c@z.example"), lease=False)])
        for filters in ({"to": "ann.b@x.example"}, {"to": "a*"}, {"from": "*@z.example"}):
            selection = Selection.parse(filters, now=NOW)
            (page,) = self.a.apply([Browse(selection, FIRST, limit=10)])
            assert isinstance(page, Page)
            self.assertEqual([int(each.id) for each in page.messages], [200], filters)

    def test_locks_of_others_are_no_failure_of_the_store(self) -> None:
        self.a.apply([Accept(message(1))])
        for locked in ("SELECT 1 FROM recipient FOR UPDATE", "LOCK TABLE recipient"):
            with psycopg.connect(server().url, options="-c search_path=twisted_mta") as other:
                other.execute(locked.encode())
                with self.assertRaisesRegex(StoreBusy, "lock timeout"):
                    self.a.apply([settled(message(1))])
        self.a.apply([settled(message(1))])
        self.assertEqual(sql("SELECT count(*) FROM message"), [(0,)])

    def test_a_database_that_is_away_may_come_and_one_that_refuses_will_not(self) -> None:
        there = server().url
        for url, kind in (
            (f"postgresql://mta@{LOOPBACK}:{free_port()}/postgres", StoreUnavailable),
            (there.replace("mta@", "unknown@"), StoreError),
            (there.replace("/postgres", "/unknown"), StoreError),
            (f"{there}?target_session_attrs=standby", StoreError),
        ):
            store = self.worker("c", self.spool, self.files, url)
            with self.assertRaises(StoreError) as raised:
                store.open()
            self.assertIs(type(raised.exception), kind, url)

    def test_workers_have_different_numbers(self) -> None:
        numbers = [self.a.number, self.b.number, self.open_worker("c").number]
        self.assertEqual(sorted(dict.fromkeys(numbers)), [0, 1, 2])

    def test_a_message_leaves_when_two_workers_settle_its_last_recipients_at_once(self) -> None:
        both = ("a@x.example", "b@y.example")
        ids = range(1, 61)
        self.a.apply([Accept(message(id, *both), lease=False) for id in ids])
        at_once(
            lambda: [self.a.apply([settled(message(id, *both), 0)]) for id in ids],
            lambda: [self.b.apply([settled(message(id, *both), 1)]) for id in ids],
        )
        self.assertEqual(sql("SELECT count(*) FROM recipient"), [(0,)])
        self.assertEqual(sql("SELECT count(*) FROM message"), [(0,)])
        self.assertEqual(
            sql("SELECT sum(messages)::int, sum(recipients)::int FROM worker"), [(0, 0)]
        )

    def test_workers_that_lease_at_once_lease_different_mail(self) -> None:
        self.a.apply([Accept(message(id), lease=False) for id in range(1, 201)])
        found: list[int] = []

        def lease(store: PostgreSQLStore) -> None:
            harness = Machine()
            harness.store = store
            while mail := harness.lease(limit=7).messages:
                found.extend(int(each.id) for each in mail)

        at_once(lambda: lease(self.a), lambda: lease(self.b))
        # What both saw locked at the end is still due.
        found += [id for id, _ in self.due_at(self.a)]
        self.assertEqual(sorted(found), list(range(1, 201)))

    def test_two_that_start_at_once_make_the_tables_once(self) -> None:
        self.a.close()
        self.b.close()
        for _ in range(3):
            sql("DROP SCHEMA twisted_mta CASCADE")
            at_once(self.a.open, self.b.open)
            self.assertEqual(sql("SELECT number FROM version"), [(len(scripts()),)])
            self.assertEqual(len({self.a.number, self.b.number}), 2)

    def test_the_tables_of_a_newer_program_are_left_alone(self) -> None:
        self.a.close()
        sql("UPDATE version SET number = 99")
        self.addCleanup(sql, "UPDATE version SET number = %s", len(scripts()))
        with self.assertRaisesRegex(NewerSchema, "version 99"):
            self.a.open()

    def test_a_settle_that_was_written_before_sends_no_second_notice(self) -> None:
        lost = message(1)
        settle = Settle(
            lost,
            done=(RecipientNumber(0),),
            notices=(message(9, sender=None),),
            unreported=(Outcome(RecipientNumber(0), FAILED),),
            at=NOW,
        )
        self.a.apply([Accept(lost)])
        self.a.apply([settle])
        self.a.apply([settled(message(9))])
        self.a.apply([settle])
        census = self.a.census()
        self.assertEqual((census.messages, census.failures), (0, 1))


class Cut(PostgreSQLHarness, TidyTestCase):
    """Connections that end at the worst time, through a relay between store and server."""

    def setUp(self) -> None:
        super().setUp()
        self.store.close()
        self.wire = Wire(server().port)
        self.addCleanup(self.wire.close)
        url = server().url.replace(f":{server().port}/", f":{self.wire.port}/")
        self.store = self.worker("a", self.spool, self.files, url)
        self.store.open()

    def test_a_commit_whose_answer_is_lost_is_looked_up(self) -> None:
        self.wire.cut_answer_to = b"COMMIT"
        self.assertEqual(self.do(Accept(message(1))), [None])
        self.assertEqual(self.wire.cuts, 1)
        self.do(settled(message(1)))
        self.assertEqual(self.store.census().messages, 0)

    def test_a_commit_that_did_not_arrive_is_no_commit(self) -> None:
        self.wire.cut_before = b"COMMIT"
        with self.assertRaises(StoreError):
            self.do(Accept(message(1)))
        self.store.open()
        self.assertEqual(self.store.census().messages, 0)
        self.accept(message(1))
        self.assertEqual(self.due(), [(1, [0])])

    def test_mail_of_a_lease_whose_answer_was_lost_is_due_again(self) -> None:
        self.accept(message(1))
        self.wire.cut_answer_to = b"COMMIT"
        self.wire.refuses = True
        with self.assertRaises(StoreError):
            self.lease()
        self.wire.refuses = False
        self.store.open()
        self.assertEqual(self.due(), [(1, [0])])

    def test_a_server_that_does_not_answer_is_given_up(self) -> None:
        self.ticks = True
        self.wire.flows.clear()
        with self.assertRaisesRegex(StoreError, "timeout|does not answer"):
            self.do(Accept(message(1)))
        with self.assertRaises(StoreError):
            self.do(Accept(message(2)))  # at once
        self.ticks = False
        self.wire.flows.set()
        self.store.open()
        self.do(Forget((QueueId(1),)))
        self.accept(message(3))
        self.assertEqual(self.due(), [(3, [0])])

    def test_a_message_whose_sender_was_told_to_try_again_is_not_delivered(self) -> None:
        self.wire.cut_answer_to = b"COMMIT"
        self.wire.refuses = True
        with self.assertRaises(StoreError):
            self.do(Accept(message(1), lease=False), Accept(message(2)))
        self.wire.refuses = False
        self.store.open()
        self.do(Forget((QueueId(1), QueueId(2))))
        self.assertEqual(self.due(), [])
        self.assertEqual(self.store.census().messages, 0)


class Wire:
    """Relays connections to a server, in threads, and cuts them where it is told to.

    Attributes:
        port: of the loopback interface.
        cut_before: octets that the client sends; they are not handed on, once.
        cut_answer_to: octets that the client sends; the answer to them is not handed on, once.
        refuses: whether new connections are closed.
        flows: not set: octets of the server wait.
        cuts: connections that were cut.
    """

    def __init__(self, port: int) -> None:
        self._server = port
        self._listening = socket.create_server((LOOPBACK, 0))
        self.port = self._listening.getsockname()[1]
        self.cut_before = self.cut_answer_to = b""
        self.refuses = False
        self.flows = threading.Event()
        self.flows.set()
        self.cuts = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self._sockets: list[socket.socket] = []

    def close(self) -> None:
        self.flows.set()
        for each in (self._listening, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            if self.refuses:
                client.close()
                continue
            server = socket.create_connection((LOOPBACK, self._server))
            self._sockets += [client, server]
            for target in (self._from_client, self._from_server):
                thread = threading.Thread(target=target, args=(client, server))
                self._threads.append(thread)
                thread.start()

    def _from_client(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while octets := client.recv(65536):
                if self.cut_before and self.cut_before in octets:
                    self.cut_before = b""
                    self.cuts += 1
                    break
                if self.cut_answer_to and self.cut_answer_to in octets:
                    self.cut_answer_to = b"now"
                server.sendall(octets)
        self._cut(client, server)

    def _from_server(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while octets := server.recv(65536):
                if self.cut_answer_to == b"now":
                    self.cut_answer_to = b""
                    self.cuts += 1
                    break
                self.flows.wait()
                client.sendall(octets)
        self._cut(client, server)

    def _cut(self, client: socket.socket, server: socket.socket) -> None:
        for each in (client, server):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class Crash(PostgreSQLHarness, TidyTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(self.start_again)

    def start_again(self) -> None:
        """Let the other tests have a server, whatever has failed here."""
        process = server().process
        if process is None or process.poll() is not None:
            server().start()

    def test_what_was_written_survives_the_death_of_the_server(self) -> None:
        large = self.large_body(1, Random(1).randbytes(600_000))
        content = b"".join(large.chunks())
        self.do(Accept(message(1, body=large)), *(Accept(message(id)) for id in range(2, 50)))
        self.do(*(settled(message(id)) for id in range(2, 20)))
        server().kill()
        with self.assertRaises(StoreError):
            self.do(Accept(message(99)))
        with self.assertRaises(StoreError):
            self.store.open()
        server().start()
        self.store.open()
        self.assertEqual(self.store.census().messages, 31)
        self.do(settled(message(20)))
        self.restart()
        first, *rest = self.lease().messages
        self.assertEqual(b"".join(first.body.chunks()), content)
        self.assertEqual([int(each.id) for each in rest], list(range(21, 50)))


def at_once(*calls: Callable[[], object]) -> None:
    """Run calls in threads of their own, and raise what they raised."""
    errors: list[BaseException] = []

    def run(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


del StoreConformance
