"""Lists that all machines of a queue share, with a real database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock

from tests.functional.machine import folder
from tests.queue.store.test_postgresql import server
from tests.tidy import TidyTestCase
from twisted_mta.cluster.away import DatabaseAway
from twisted_mta.cluster.database import ClusterDatabase
from twisted_mta.delivery.shared_sent_counts import SharedSentCounts
from twisted_mta.policy.greylist.decisions import Decisions
from twisted_mta.policy.greylist.file import Attempt, Decision, GreylistFile
from twisted_mta.policy.greylist.shared import SharedGreylist
from twisted_mta.policy.suppression.file import DAY, Attempted, SuppressionFile, Terms
from twisted_mta.policy.suppression.shared import SharedSuppression
from twisted_mta.queue.store.postgresql.connection import Connecting
from twisted_mta.system.executors import inline_executor

from .members import connect

_T = TypeVar("_T")

NOW = 1_800_000_000.0
TERMS = Terms(bounces=3, within=30 * DAY, keep=90 * DAY)
TABLES = ("greylist_pair", "greylist_network", "suppression", "bounce", "sent")
NOWHERE = "postgresql://127.0.0.1:1/nothing"


class InlineThread:
    """Runs calls at once."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def __call__(self, function: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Deferred[_T]:
        return execute(function, *args, **kwargs)


class ListsTestCase(TidyTestCase):
    kept_open = ("/data", "postgresql.log")

    def setUp(self) -> None:
        self.home: Path = self.enterContext(folder(self.id().rsplit(".", 1)[-1][:40]))
        self.sql = connect()
        self.addCleanup(self.sql.close)
        self.database()
        for table in TABLES:
            self.sql.execute(f"DELETE FROM {table}".encode())  # noqa: S608 - of this file
        self.sql.execute("UPDATE suppression_forgotten SET change = 0")

    def database(self, url: str = "") -> ClusterDatabase:
        clock = Clock()
        connecting = Connecting(url or server().url, clock.seconds)
        database = ClusterDatabase(connecting, thread=InlineThread(), reactor=clock)
        self.addCleanup(database.close)
        if not url:
            database.call(lambda _: None)
        return database


class Suppressed(ListsTestCase):
    def machine(self, name: str, url: str = "") -> tuple[SuppressionFile, SharedSuppression]:
        file = SuppressionFile(str(self.home / name / "suppression.sqlite"))
        return file, SharedSuppression(file, self.database(url))

    def on_list(self, file: SuppressionFile, address: str = "bob@example.org") -> bool:
        return file.find([address], NOW)[0] is not None

    def bounce(self, shared: SharedSuppression, day: int) -> list[str]:
        bounced = Attempted("bob@example.org", NOW - day * DAY, "550 5.1.1 unknown")
        return [each.change for each in shared.note([bounced], TERMS)]

    def test_what_one_adds_the_others_have(self) -> None:
        (a_file, a), (b_file, b) = self.machine("a"), self.machine("b")
        b.follow()
        a.add("bob@example.org", "he asked for it", NOW)
        self.assertTrue(self.on_list(a_file))
        self.assertFalse(self.on_list(b_file))
        b.follow()
        self.assertTrue(self.on_list(b_file))
        self.assertTrue(b.remove("bob@example.org", NOW))
        self.assertFalse(b.remove("bob@example.org", NOW))
        a.follow()
        self.assertFalse(self.on_list(a_file))

    def test_bounces_at_several_machines_count_together(self) -> None:
        (a_file, a), (b_file, b) = self.machine("a"), self.machine("b")
        self.assertEqual(self.bounce(a, 2), [])
        self.assertEqual(self.bounce(b, 1), [])
        self.assertEqual(self.bounce(b, 1), [])
        self.assertEqual(self.bounce(a, 0), ["added"])
        b.follow()
        (entry,) = b_file.find(["bob@example.org"], NOW)
        assert entry is not None
        self.assertEqual((entry.bounces, entry.reply), (3, "550 5.1.1 unknown"))
        delivered = Attempted("bob@example.org", NOW, None)
        self.assertEqual([each.change for each in b.note([delivered], TERMS)], ["delivered"])
        a.follow()
        self.assertFalse(self.on_list(a_file))
        self.assertEqual(self.bounce(a, 0), [])

    def test_a_list_of_one_machine_becomes_the_list_of_all(self) -> None:
        (a_file, a), (b_file, b) = self.machine("a"), self.machine("b")
        a_file.add("ann@example.org", "by a", NOW)
        b_file.add("bob@example.org", "by b", NOW)
        for _ in range(2):
            a.follow()
            b.follow()
        for file in (a_file, b_file):
            self.assertTrue(self.on_list(file, "ann@example.org"))
            self.assertTrue(self.on_list(file, "bob@example.org"))

    def test_a_machine_that_was_away_for_long_learns_what_was_taken_off(self) -> None:
        (_, a), (b_file, b) = self.machine("a"), self.machine("b")
        a.add("bob@example.org", "", NOW)
        b.follow()
        a.remove("bob@example.org", NOW)
        later = Attempted("carl@example.org", NOW + 40 * DAY, "550 5.1.1 unknown")
        a.note([later], TERMS)  # what was taken off is forgotten
        self.assertEqual(self.sql.execute("SELECT count(*) FROM suppression").fetchall(), [(0,)])
        self.assertTrue(self.on_list(b_file))
        b.follow()
        self.assertFalse(self.on_list(b_file))

    def test_many_entries_are_copied(self) -> None:
        a_file, a = self.machine("a")
        for number in range(2_500):
            self.sql.execute(
                "INSERT INTO suppression VALUES (%s, 0, NULL, 0, '', false,"
                " nextval('suppression_number'))",
                (f"u{number}@example.org",),
            )
        a.follow()
        self.assertEqual(len(a_file.page("", 5_000, NOW)), 2_500)

    def test_without_the_database_the_copy_is_read_and_nothing_changes(self) -> None:
        a_file, a = self.machine("a")
        a.add("bob@example.org", "", NOW)
        cut_off = SharedSuppression(a_file, self.database(NOWHERE))
        self.assertTrue(self.on_list(a_file))
        with self.assertRaises(DatabaseAway):
            cut_off.remove("bob@example.org", NOW)
        self.assertTrue(self.on_list(a_file))


class Greylisted(ListsTestCase):
    def machine(self, name: str, url: str = "") -> Decisions:
        file = GreylistFile(str(self.home / name / "greylist.sqlite"))
        shared = SharedGreylist(self.database(url))
        return Decisions(
            file,
            executor=inline_executor,
            clock=Clock(),
            shared=shared.decide,
            foretell_shared=shared.foretell,
        )

    def attempt(self, after: float, network: str = "192.0.2.0/24") -> Attempt:
        return Attempt(network, f"{network}ann bob".encode(), 300.0, NOW + after)

    def decide(self, decisions: Decisions, after: float) -> str:
        results: list[Decision | None] = []
        decisions.decide(self.attempt(after)).addCallback(results.append)
        [result] = results
        assert result is not None
        return f"{result.why} {result.wait:g}"

    def test_what_came_to_one_machine_passes_on_another(self) -> None:
        a, b = self.machine("a"), self.machine("b")
        self.assertEqual(self.decide(a, 0), "new 300")
        self.assertEqual(self.decide(b, 100), "new 200")
        self.assertEqual(self.decide(b, 301), "again 0")
        self.assertEqual(self.decide(a, 302), "known 0")
        self.assertEqual(self.decide(a, 303), "known 0")

    def test_what_has_passed_is_known_without_the_database(self) -> None:
        a, b = self.machine("a"), self.machine("b")
        self.decide(a, 0)
        self.decide(b, 301)
        cut_off = self.machine("b", NOWHERE)
        self.assertEqual(self.decide(cut_off, 310), "known 0")

    def test_without_the_database_a_machine_decides_by_what_it_knows(self) -> None:
        cut_off = self.machine("a", NOWHERE)
        self.assertEqual(self.decide(cut_off, 0), "new 300")
        self.assertEqual(self.decide(cut_off, 301), "again 0")

    def test_nothing_is_remembered_of_what_is_foretold(self) -> None:
        a, b = self.machine("a"), self.machine("b")
        self.decide(a, 0)
        foretold: list[Decision | None] = []
        for after in (100, 301):
            b.foretell(self.attempt(after)).addCallback(foretold.append)
        self.assertEqual([each and each.wait for each in foretold], [200, 0])
        rows = self.sql.execute("SELECT passed FROM greylist_pair").fetchall()
        self.assertEqual(rows, [(False,)])

    def test_one_attempt_in_a_batch_follows_from_another(self) -> None:
        shared = SharedGreylist(self.database())
        results: list[list[Decision]] = []
        shared.decide([self.attempt(0), self.attempt(300), self.attempt(301)]).addCallback(
            results.append
        )
        self.assertEqual([each.why for each in results[0]], ["new", "again", "known"])


class Sent(ListsTestCase):
    def test_the_messages_of_a_day_hold_for_all(self) -> None:
        a, b = SharedSentCounts(self.database()), SharedSentCounts(self.database())
        self.assertEqual(a.take("192.0.2.1", 20_000, 10, 4), 4)
        self.assertEqual(b.take("192.0.2.1", 20_000, 10, 4), 4)
        self.assertEqual(a.take("192.0.2.1", 20_000, 10, 4), 2)
        self.assertEqual(b.take("192.0.2.1", 20_000, 10, 4), 0)
        self.assertEqual(b.take("192.0.2.1", 20_001, 10, 4), 4)
        self.assertEqual(a.counted(20_000), {"192.0.2.1": 10})

    def test_a_lower_limit_takes_nothing_back(self) -> None:
        counts = SharedSentCounts(self.database())
        counts.take("192.0.2.1", 20_000, 10, 8)
        self.assertEqual(counts.take("192.0.2.1", 20_000, 5, 1), 0)
        self.assertEqual(counts.counted(20_000), {"192.0.2.1": 8})
