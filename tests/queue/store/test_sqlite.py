"""The embedded store beyond the contract, which `conformance` tests."""

import errno
import os
import sqlite3
import stat

from attrs import evolve
from twisted.internet.defer import Deferred

from tests.tidy import TidyTestCase
from twisted_mta.mail.body import Body, MemoryBody
from twisted_mta.mail.envelope import RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.operator.operations import (
    Browse,
    CountWaiting,
    Inspect,
    Intervene,
    Page,
    Tally,
)
from twisted_mta.queue.operator.selection import Selection
from twisted_mta.queue.store.contract import (
    MOST_FAILURES,
    Accept,
    Census,
    Forget,
    Lease,
    NewerSchema,
    Operation,
    Settle,
    StoreError,
    StoreFull,
    Survey,
    Want,
)
from twisted_mta.queue.store.schema import scripts, upgrade
from twisted_mta.queue.store.spool import Spool
from twisted_mta.queue.store.sqlite import SQLiteStore
from twisted_mta.system.executors import inline_executor
from twisted_mta.system.files import DiskFiles
from twisted_mta.testing.files import UnsyncedFiles

from ..mail import BODY, FAILED, LIFETIME, NOW, deferred, message, settled
from .harness import complete_old_queue
from .priority_conformance import special


class StoreTestCase(TidyTestCase):
    """A store in a directory of its own, with bodies on a disk in memory."""

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.makedirs(self.directory)
        self.path = os.path.join(self.directory, "queue.sqlite")
        self.new_disk(UnsyncedFiles())
        self.store = self.new_store()
        self.addCleanup(lambda: self.store.close())

    def new_disk(self, files: UnsyncedFiles) -> None:
        self.files = files
        files.make_directories(self.directory)
        self.spool = Spool(
            os.path.join(self.directory, "body"),
            files=files,
            executor=inline_executor,
            small_body=100,
            reuse=True,
        )

    def new_store(self) -> SQLiteStore:
        return SQLiteStore(self.path, spool=self.spool, files=self.files)

    def restart(self) -> None:
        self.store.close()
        self.store = self.new_store()

    def large(self, id: int) -> Message:
        writer = self.spool.new_body(QueueId(id))
        writer.write(b"large " * 100)
        sealed = writer.seal()
        body: Body = self.successResultOf(sealed) if isinstance(sealed, Deferred) else sealed
        return message(id, body=body)

    def leased(self, now: float = NOW) -> list[int]:
        (leased,) = self.store.apply([Lease(now, (Want("next.example", 100),))])
        assert leased is not None
        return [int(each.id) for each in leased.messages]

    def query(self, statement: str) -> list[tuple[object, ...]]:
        """Query the database while no store has it open."""
        database = sqlite3.connect(self.path, isolation_level=None)
        try:
            return database.execute(statement).fetchall()
        finally:
            database.close()

    def pragma(self, name: str) -> object:
        """Read or set a pragma by the store's own connection: no other can be opened."""
        assert self.store._database is not None
        (value,) = self.store._database.execute(f"PRAGMA {name}").fetchone() or (None,)
        return value


class Settings(StoreTestCase):
    def test_the_database_is_in_wal_mode_with_full_sync_and_an_exclusive_lock(self) -> None:
        self.store.open()
        self.assertEqual(self.pragma("journal_mode"), "wal")
        self.assertEqual(self.pragma("synchronous"), 2)  # FULL
        self.assertEqual(self.pragma("locking_mode"), "exclusive")
        self.assertEqual(self.pragma("fullfsync"), 1)
        self.assertEqual(self.pragma("checkpoint_fullfsync"), 1)

    def test_the_settings_are_in_force_after_the_store_was_opened_again(self) -> None:
        self.store.open()
        self.store.close()
        self.store.open()
        self.assertEqual(self.pragma("journal_mode"), "wal")
        self.assertEqual(self.pragma("synchronous"), 2)

    def test_pages_of_mail_that_left_are_not_written_once_more(self) -> None:
        self.store.open()
        self.assertEqual(self.pragma("secure_delete"), 0)

    def test_no_other_connection_can_read_the_database(self) -> None:
        self.store.open()
        self.store.apply([Accept(message(1))])
        other = sqlite3.connect(self.path, timeout=0)
        self.addCleanup(other.close)
        self.assertRaises(sqlite3.OperationalError, other.execute, "SELECT * FROM message")

    def test_the_database_files_are_for_their_owner_alone(self) -> None:
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.store.open()
        self.store.apply([Accept(message(1))])
        names = sorted(os.listdir(self.directory))
        self.assertEqual(names, ["queue.sqlite", "queue.sqlite-wal"])
        for name in names:
            mode = os.stat(os.path.join(self.directory, name)).st_mode
            self.assertEqual(stat.S_IMODE(mode), 0o600, name)

    def test_the_name_of_the_database_is_synced_before_mail_is_accepted(self) -> None:
        self.store.open()
        self.assertIn(("sync_directory", self.directory), self.files.operations)

    def test_a_store_on_a_real_disk_makes_its_directory_for_the_owner_alone(self) -> None:
        files = DiskFiles()
        spool = Spool(os.path.join(self.directory, "body"), files=files, executor=inline_executor)
        store = SQLiteStore(self.path, spool=spool, files=files)
        self.addCleanup(store.close)
        self.assertEqual(store.open().swept, ())
        mode = os.stat(os.path.join(self.directory, "body")).st_mode
        self.assertEqual(stat.S_IMODE(mode), 0o700)


class Schema(StoreTestCase):
    def test_a_new_database_has_the_version_of_this_program(self) -> None:
        self.store.open()
        self.assertEqual(self.pragma("user_version"), len(scripts()))

    def test_a_newer_database_is_refused_and_not_changed(self) -> None:
        self.store.open()
        self.store.close()
        self.query("PRAGMA user_version = 99")
        refusal = self.assertRaises(NewerSchema, self.store.open)
        self.assertIn("99", str(refusal))
        self.assertEqual(self.query("PRAGMA user_version"), [(99,)])
        with self.assertRaises(StoreError):
            self.store.apply([])

    def test_an_older_database_is_upgraded_and_keeps_its_rows(self) -> None:
        database = sqlite3.connect(":memory:", isolation_level=None)
        self.addCleanup(database.close)
        first = "CREATE TABLE a (b);\n-- a word\nCREATE TABLE c (d);\n"
        upgrade(database, [first])
        database.execute("INSERT INTO a VALUES (1)")
        second = (
            "ALTER TABLE a ADD COLUMN e DEFAULT ';';\n"
            "CREATE TRIGGER t AFTER INSERT ON a BEGIN\n  DELETE FROM c;\n  DELETE FROM c;\nEND;\n"
        )
        upgrade(database, [first, second, "CREATE TABLE f (g)"])
        self.assertEqual(database.execute("PRAGMA user_version").fetchone(), (3,))
        self.assertEqual(database.execute("SELECT b, e FROM a").fetchall(), [(1, ";")])
        self.assertEqual(database.execute("SELECT * FROM f").fetchall(), [])

    def test_a_queue_of_the_first_version_is_upgraded_with_all_its_mail(self) -> None:
        database = sqlite3.connect(self.path, isolation_level=None)
        upgrade(database, scripts()[:1])
        for id in (1, 2, 3):
            database.execute(
                "INSERT INTO message VALUES (?, 'ann', 'sender.example', '{}', x'', ?, ?, ?, ?, ?)",
                (id, BODY.content, BODY.size, NOW, NOW + LIFETIME, "gone" if id == 3 else None),
            )
            database.execute(
                "INSERT INTO recipient VALUES (?, 0, 'bob', 'next.example', '{}', ?, ?, NULL, NULL,"
                " NULL, NULL)",
                (id, id - 1, None if id == 3 else NOW),
            )
        database.execute("INSERT INTO failure VALUES (9, 0, '', '', 0, '550', NULL)")
        database.close()
        recovery = self.store.open()
        self.assertEqual(
            recovery.census,
            Census(messages=3, recipients=3, deferred=2, quarantined=1, failures=1),
        )
        (leased,) = self.store.apply([Lease(NOW, (Want("next.example", 9),))])
        assert leased is not None
        first, second = leased.messages
        self.assertEqual(evolve(first, trace=b""), evolve(message(1), trace=b""))
        self.assertEqual(second.envelope.recipients[0].attempts, 1)

    def test_mail_of_a_queue_without_assessments_has_the_default_one(self) -> None:
        database = sqlite3.connect(self.path, isolation_level=None)
        upgrade(database, scripts()[:8])
        database.execute(
            "INSERT INTO message VALUES (1, 'ann', 'sender.example', '{}', x'', ?, ?, ?, ?, NULL)",
            (BODY.content, BODY.size, NOW, NOW + LIFETIME),
        )
        complete_old_queue(database)
        self.assertEqual(self.store.open().census, Census(messages=1, recipients=1))
        (leased,) = self.store.apply([Lease(NOW, (Want("next.example", 9),))])
        assert leased is not None
        self.assertEqual(leased.messages, (evolve(message(1), trace=b""),))

    def test_mail_of_which_nothing_was_found_out_has_no_assessment_on_the_disk(self) -> None:
        self.store.open()
        self.store.apply([Accept(message(1), False)])
        self.store.close()
        self.assertEqual(self.query("SELECT assessment FROM message"), [(None,)])

    def test_of_too_many_records_of_failures_the_oldest_are_removed(self) -> None:
        self.store.open()
        self.store.close()
        database = sqlite3.connect(self.path, isolation_level=None)
        database.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO failure SELECT i, 0, '', '', ? + i / 1000.0, '550', NULL FROM n",
            (MOST_FAILURES, NOW),
        )
        database.execute("UPDATE census SET failures = ?", (MOST_FAILURES,))
        database.close()
        self.store.open()
        lost = message(MOST_FAILURES + 1, sender=None, received_at=NOW + 200)
        self.store.apply([Accept(lost)])
        failed = Outcome(RecipientNumber(0), FAILED)
        self.store.apply([Settle(lost, (RecipientNumber(0),), unreported=(failed,), at=NOW + 200)])
        self.assertEqual(self.store.census().failures, MOST_FAILURES)
        self.store.close()
        self.assertEqual(
            self.query("SELECT min(message), max(message), count(*) FROM failure"),
            [(2, MOST_FAILURES + 1, MOST_FAILURES)],
        )

    def test_an_upgrade_whose_last_step_fails_changes_nothing(self) -> None:
        database = sqlite3.connect(":memory:", isolation_level=None)
        self.addCleanup(database.close)
        steps = ["CREATE TABLE a (b);", "CREATE TABLE c (d);\nINSERT INTO nowhere VALUES (1);"]
        self.assertRaises(sqlite3.Error, upgrade, database, steps)
        self.assertEqual(database.execute("PRAGMA user_version").fetchone(), (0,))
        self.assertEqual(database.execute("SELECT name FROM sqlite_master").fetchall(), [])

    def test_an_upgrade_over_several_versions_is_one_transaction(self) -> None:
        database = sqlite3.connect(":memory:", isolation_level=None)
        self.addCleanup(database.close)
        statements: list[str] = []
        database.set_trace_callback(statements.append)
        upgrade(database, ["CREATE TABLE a (b)", "CREATE TABLE c (d)"])
        self.assertEqual(statements.count("COMMIT"), 1)

    def test_a_file_that_is_no_database_is_refused(self) -> None:
        with open(self.path, "wb") as file:
            file.write(b"Dear operator, " * 1000)
        self.assertRaises(StoreError, self.store.open)
        with self.assertRaises(StoreError):
            self.store.apply([])


class Plans(StoreTestCase):
    """Every statement searches by an index: its cost is that of its result, not of the queue."""

    def plans(self, *operations: Operation) -> list[str]:
        """Return the query plans of the statements of a batch that search for rows."""
        database = self.store._database
        assert database is not None
        statements: list[str] = []
        database.set_trace_callback(statements.append)
        self.store.apply(operations)
        database.set_trace_callback(None)
        return [
            str(row[3])
            for statement in statements
            if statement.startswith(("SELECT", "WITH", "DELETE", "UPDATE", " "))
            for row in database.execute("EXPLAIN QUERY PLAN " + statement)
        ]

    def assertOnlySearches(self, plans: list[str]) -> None:
        tables = [plan for plan in plans if " message" in plan or " recipient" in plan]
        self.assertNotEqual(tables, [])
        self.assertEqual([plan for plan in tables if not plan.startswith("SEARCH")], [])

    def setUp(self) -> None:
        super().setUp()
        self.store.open()
        self.store.apply([Accept(message(id, f"a@{id}.example"), False) for id in range(1, 10)])

    def test_a_lease_searches_by_the_index_of_its_domains(self) -> None:
        wants = tuple(Want(f"{id}.example", 3) for id in range(1, 9))
        plans = self.plans(Lease(NOW, wants))
        self.assertOnlySearches(plans)
        # The index alone has all columns of the condition: many rows of a domain may be read.
        due = [plan for plan in plans if "recipient_due" in plan]
        self.assertEqual(len(due), len(wants))
        self.assertEqual([plan for plan in due if "COVERING INDEX" not in plan], [])

    def test_a_survey_searches_by_indexes_alone(self) -> None:
        self.store.apply([deferred(message(1, "a@1.example"), NOW + 1e6)])
        self.assertOnlySearches(self.plans(Survey(NOW, NOW + 4000)))

    def test_a_lease_of_mail_with_priorities_searches_by_its_index(self) -> None:
        for id, parameters in ((20, {"priority": 3}), (21, {"until": int(NOW) + 9_000_000})):
            self.store.apply([Accept(special(id, "a@1.example", **parameters), False)])
        plans = self.plans(Lease(NOW, (Want("1.example", 3),)), Survey(NOW, NOW + 4000))
        self.assertOnlySearches(plans)
        self.assertTrue(
            any("recipient_due_by_level (domain=? AND level=?" in each for each in plans)
        )
        self.assertTrue(any("recipient_due (domain=?" in each for each in plans))

    def test_settling_many_at_once_searches_by_the_primary_key(self) -> None:
        done = [settled(message(id, f"a@{id}.example")) for id in range(1, 5)]
        again = [deferred(message(id, f"a@{id}.example"), NOW + 60) for id in range(5, 9)]
        self.assertOnlySearches(self.plans(*done, *again))

    def test_forgetting_searches_by_the_primary_key(self) -> None:
        self.assertOnlySearches(self.plans(Forget((QueueId(1), QueueId(2)))))

    def test_the_operators_operations_search_by_keys(self) -> None:
        for selection in (Selection(), Selection(ids=(QueueId(1), QueueId(2)))):
            self.assertOnlySearches(self.plans(Browse(selection)))
            self.assertOnlySearches(self.plans(Intervene("hold", selection, NOW)))
            self.assertOnlySearches(self.plans(Intervene("release", selection, NOW)))
            self.assertOnlySearches(self.plans(Intervene("remove", selection, NOW)))
        self.assertOnlySearches(self.plans(Inspect(QueueId(1))))
        self.assertOnlySearches(self.plans(Tally((QueueId(3), QueueId(5)))))

    def test_waiting_recipients_of_domains_are_counted_in_the_indexes_alone(self) -> None:
        plans = self.plans(CountWaiting(("1.example", "2.example")))
        self.assertOnlySearches(plans)
        for index in ("recipient_due (domain=?", "recipient_due_by_level (domain=?"):
            self.assertTrue(any(f"COVERING INDEX {index}" in plan for plan in plans), plans)

    def test_a_domain_with_little_mail_is_found_by_its_indexes(self) -> None:
        self.store.apply([Intervene("hold", Selection(domain="2.example"), NOW)])
        self.store.apply([Accept(special(20, "a@1.example", priority=3), False)])
        for operation in (
            Browse(Selection(domain="1.example")),
            Intervene("remove", Selection(domain="2.example"), NOW),
        ):
            plans = self.plans(operation)
            self.assertOnlySearches(plans)
            for index in ("recipient_due (domain=?", "recipient_due_by_level (domain=?"):
                self.assertTrue(any(index in plan for plan in plans), index)
            self.assertFalse(any("PRIMARY KEY (message>?" in plan for plan in plans), plans)

    def test_a_slice_passes_over_a_bounded_number_of_recipients(self) -> None:
        many = [Accept(message(id, "a@one.example"), False) for id in range(100, 9100)]
        for start in range(0, 9000, 500):
            self.store.apply(many[start : start + 500])
        looked_at, after = [], -1
        while True:
            (page,) = self.store.apply([Browse(Selection(to="nobody@one.example"), after)])
            assert isinstance(page, Page)
            looked_at.append(page.looked_at)
            if page.next is None:
                break
            after = page.next
        self.assertEqual(looked_at, [4000, 4000, 1009])

    def test_counts_are_read_and_not_counted_when_the_store_is_opened(self) -> None:
        before = self.store.census()
        self.restart()
        self.query("DELETE FROM recipient WHERE message = 1")
        self.assertEqual(self.store.open().census, before)


class Recovery(StoreTestCase):
    def test_a_file_without_a_row_is_swept(self) -> None:
        self.store.open()
        self.store.apply([Accept(self.large(1))])
        self.large(2)
        self.restart()
        self.assertEqual(self.store.open().swept, (str(QueueId(2)),))
        self.assertEqual(self.files.names(self.spool.directory), [str(QueueId(1))])

    def test_files_are_swept_at_the_first_opening_only(self) -> None:
        self.store.open()
        self.large(1)
        self.store.close()
        self.assertEqual(self.store.open().swept, ())
        self.assertEqual(self.files.names(self.spool.directory), [str(QueueId(1))])

    def test_a_sweep_that_failed_is_repeated_at_the_next_opening(self) -> None:
        self.files.make_directories(self.spool.directory)
        self.large(1)
        self.files.fail_next("names", OSError(errno.EIO, "no"))
        self.assertRaises(StoreError, self.store.open)
        self.assertEqual(self.store.open().swept, (str(QueueId(1)),))

    def test_a_message_without_its_file_is_quarantined_and_never_leased(self) -> None:
        self.store.open()
        self.store.apply([Accept(self.large(1)), Accept(message(2))])
        self.restart()
        self.files.unlink(self.spool.path(QueueId(1)))
        recovery = self.store.open()
        self.assertEqual(recovery.quarantined, (QueueId(1),))
        self.assertEqual(recovery.census.quarantined, 1)
        self.assertEqual(recovery.census.messages, 2)
        self.assertEqual(self.leased(NOW + 1e9), [2])
        self.restart()
        self.assertEqual(self.store.open().census.quarantined, 1)
        self.assertEqual(self.leased(NOW + 1e9), [2])

    def test_a_file_that_came_back_is_not_swept(self) -> None:
        self.store.open()
        self.store.apply([Accept(self.large(1))])
        self.restart()
        self.files.unlink(self.spool.path(QueueId(1)))
        self.store.open()
        self.large(1)
        self.restart()
        self.assertEqual(self.store.open().swept, ())


class Trouble(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store.open()
        self.store.apply([Accept(message(1)), Accept(message(2))])
        self.before = self.store.census()

    def fill(self) -> None:
        """Limit the database to its size now."""
        self.pragma(f"max_page_count = {self.pragma('page_count')}")

    def test_a_full_disk_raises_store_full_and_nothing_is_written(self) -> None:
        self.fill()
        large = message(3, body=MemoryBody(b"x" * 60_000))
        with self.assertRaises(StoreFull):
            self.store.apply(
                [settled(message(1)), Accept(large), Lease(NOW, (Want("next.example", 9),))]
            )
        self.assertEqual(self.store.census(), self.before)
        self.restart()
        self.store.open()
        self.assertEqual(self.leased(), [1, 2])

    def test_a_store_that_was_full_can_still_be_used(self) -> None:
        self.fill()
        large = message(3, body=MemoryBody(b"x" * 60_000))
        with self.assertRaises(StoreFull):
            self.store.apply([Accept(large)])
        self.store.apply([settled(message(1))])
        self.pragma("max_page_count = 100000")
        self.store.apply([Accept(large)])
        self.assertEqual(self.store.census().messages, 2)

    def test_room_for_outcomes_is_kept_free(self) -> None:
        self.files.capacity = 1 << 20
        with self.assertRaises(StoreFull):
            self.store.apply([Accept(message(3)), settled(message(1))])
        self.assertEqual(self.store.census(), self.before)
        self.store.apply([settled(message(1))])
        self.assertEqual(self.store.census().messages, 1)
        self.files.capacity = None
        self.store.apply([Accept(message(3))])

    def test_a_lease_of_a_failed_batch_ends(self) -> None:
        self.restart()
        self.store.open()
        self.fill()
        large = message(3, body=MemoryBody(b"x" * 60_000))
        with self.assertRaises(StoreFull):
            self.store.apply([Lease(NOW, (Want("next.example", 9),)), Accept(large)])
        self.assertEqual(self.store.census().leased, 0)
        self.assertEqual(self.leased(), [1, 2])

    def test_a_lease_before_a_failed_batch_is_kept(self) -> None:
        self.fill()
        with self.assertRaises(StoreFull):
            self.store.apply([Accept(message(3, body=MemoryBody(b"x" * 60_000)))])
        self.assertEqual(self.leased(), [])

    def test_an_error_of_the_database_raises_store_error_and_nothing_is_written(self) -> None:
        self.pragma("query_only = ON")
        with self.assertRaises(StoreError):
            self.store.apply([deferred(message(1), NOW + 60), Accept(message(3))])
        self.assertEqual(self.store.census(), self.before)
        self.pragma("query_only = OFF")
        self.store.close()
        self.assertEqual(self.store.open().census, self.before)

    def test_a_batch_with_an_invalid_operation_writes_nothing(self) -> None:
        nonsense = settled(message(2**70))
        batch = [Accept(message(3)), settled(message(1)), nonsense]
        self.assertRaises(OverflowError, self.store.apply, batch)
        self.assertEqual(self.store.census(), self.before)
        self.store.apply([settled(message(1))])
        self.assertEqual(self.store.census().messages, 1)

    def test_a_message_with_a_known_id_is_refused(self) -> None:
        with self.assertRaises(StoreError):
            self.store.apply([Accept(message(1, "eve@next.example", sender=None))])
        self.restart()
        self.store.open()
        (leased,) = self.store.apply([Lease(NOW, (Want("next.example", 1),))])
        assert leased is not None
        self.assertEqual(leased.messages, (message(1),))

    def test_a_directory_that_cannot_be_used_raises_store_error(self) -> None:
        missing = SQLiteStore("/nowhere/at/all/queue", spool=self.spool, files=self.files)
        self.assertRaises(StoreError, missing.open)
        self.restart()
        self.files.fail_next("sync_directory", OSError(errno.EIO, "no"))
        self.assertRaises(StoreError, self.store.open)
        with self.assertRaises(StoreError):
            self.store.apply([Lease(NOW, (Want("next.example", 1),))])

    def test_a_body_file_is_removed_after_the_commit_that_removes_its_row(self) -> None:
        self.store.apply([Accept(self.large(5))])
        self.pragma("query_only = ON")
        with self.assertRaises(StoreError):
            self.store.apply([Forget((QueueId(5),))])
        self.assertEqual(self.files.names(self.spool.directory), [str(QueueId(5))])
        self.pragma("query_only = OFF")
        self.store.apply([Forget((QueueId(5),))])
        self.assertEqual(self.files.names(self.spool.directory), [])


class PowerFailure(StoreTestCase):
    """The order on disk: a body is durable before the row that names it."""

    def crash_after_accepting(self, files: UnsyncedFiles) -> tuple[QueueId, ...]:
        """Accept a large message and lose the power; return the messages that lost their body."""
        self.new_disk(files)
        self.store = self.new_store()
        self.store.open()
        self.store.apply([Accept(self.large(1))])
        self.store.close()
        self.files.crash()
        self.files.make_directories(self.spool.directory)
        self.store = self.new_store()
        recovery = self.store.open()
        if not recovery.quarantined:
            (leased,) = self.store.apply([Lease(NOW, (Want("next.example", 1),))])
            assert leased is not None
            self.assertEqual(b"".join(leased.messages[0].body.chunks()), b"large " * 100)
        return recovery.quarantined

    def test_a_committed_message_has_its_body_after_a_power_failure(self) -> None:
        self.assertEqual(self.crash_after_accepting(UnsyncedFiles()), ())

    def test_on_a_disk_that_does_not_sync_a_power_failure_loses_the_body(self) -> None:
        self.assertEqual(self.crash_after_accepting(UnsyncedFiles(syncs=False)), (QueueId(1),))

    def test_at_whatever_operation_the_power_fails_a_row_has_its_body(self) -> None:
        points = 0
        for operations in range(30):
            self.store.close()
            if os.path.exists(self.path):
                os.unlink(self.path)
            self.new_disk(UnsyncedFiles())
            self.store = self.new_store()
            self.store.open()
            self.files.cut_power_in(operations)
            try:
                self.store.apply([Accept(self.large(1), lease=False)])
            except (OSError, StoreError, self.failureException):
                points += 1
            self.store.close()
            self.files.crash()
            self.store = self.new_store()
            self.assertEqual(self.store.open().quarantined, ())
        self.assertGreater(points, 3)
