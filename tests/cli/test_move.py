"""``twisted-mta queue move``, and commands for the database of an MTA that is down."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from tests.queue.mail import message
from tests.queue.store.test_postgresql import empty_queue, server, sql
from twisted_mta.cli.command import main
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.operator.operations import Suspend
from twisted_mta.queue.operator.suspended import SuspendedDestination
from twisted_mta.queue.store.contract import Accept
from twisted_mta.queue.store.lock import StateLock

from .test_transfer import LARGE, RICH, TransferTestCase


class SharedTestCase(TransferTestCase):
    kept_open = ("/data", "postgresql.log")

    def setUp(self) -> None:
        super().setUp()
        empty_queue()
        self.addCleanup(empty_queue)
        self.url = server().url

    def move(self, place: Path, option: str, status: int = 0) -> str:
        return self.tool(place, "move", option, self.url, status=status).output

    def moved(self) -> None:
        """Put two messages into the database, for the MTA in ``old``."""
        self.do(self.old, Accept(message(1), False), Accept(RICH, False))
        self.move(self.old, "--to")


class Move(SharedTestCase):
    def test_the_queue_goes_into_the_database_and_into_another_directory(self) -> None:
        self.do(self.old, Accept(message(1), False), Accept(RICH, False))
        self.assertEqual(self.move(self.old, "--to"), "moved: 3 recipients of 2 messages\n")
        self.assertEqual(
            sorted(path.name for path in self.old.iterdir()),
            ["body", "lock", "machine", "queue.lock", "queue.url"],
        )
        self.assertEqual(self.move(self.new, "--from"), "moved: 3 recipients of 2 messages\n")
        found = self.inspected(self.new, RICH.id)
        assert found is not None
        self.assertEqual(b"".join(found.message.body.chunks()), LARGE)
        self.assertEqual(sql("SELECT count(*) FROM message"), [(0,)])

    def test_suspended_destinations_go_along(self) -> None:
        self.do(self.old, Accept(message(1), False))
        self.do(self.old, Suspend(SuspendedDestination("far.example", 1.8e9, None, "why", "ann")))
        self.move(self.old, "--to")
        self.assertIn("far.example", self.tool(self.old, "suspended").output)
        self.move(self.new, "--from")
        self.assertIn("far.example\t", self.tool(self.new, "suspended").output)
        self.assertEqual(sql("SELECT count(*) FROM suspended"), [(0,)])
        self.move(self.new, "--to")
        self.assertEqual(sql("SELECT name FROM suspended"), [("far.example",)])

    def test_the_queues_of_all_workers_go(self) -> None:
        self.do(self.old, Accept(message(1), False))
        (self.old / "shard-1").mkdir(mode=0o700)
        self.do(self.old / "shard-1", Accept(message(2), False), Accept(message(3), False))
        self.assertEqual(self.move(self.old, "--to"), "moved: 3 recipients of 3 messages\n")
        self.assertEqual(list(self.old.rglob("queue.sqlite*")), [])
        self.assertEqual(sql("SELECT count(*) FROM message"), [(3,)])
        self.assertEqual(self.move(self.old, "--to"), "moved: 0 recipients of 0 messages\n")

    def test_it_is_told_to_programs(self) -> None:
        self.do(self.old, Accept(message(1), False))
        told = json.loads(self.tool(self.old, "move", "--to", self.url, "--json").output)
        self.assertEqual(
            {**told, "seconds": 0},
            {
                "version": 1,
                "messages": 1,
                "recipients": 1,
                "finished": 0,
                "left": {},
                "behind": 0,
                "reserved": 0,
                "seconds": 0,
            },
        )

    def test_a_running_mta_is_not_robbed(self) -> None:
        self.do(self.old, Accept(message(1), False))
        lock = StateLock(str(self.old / "queue.lock"))
        lock.acquire()
        self.addCleanup(lock.release)
        self.assertIn("stop that MTA, and repeat", self.move(self.old, "--to", status=3))
        self.assertIsNotNone(self.inspected(self.old, 1))

    def test_what_cannot_be_done_is_said(self) -> None:
        self.assertIn("there is no queue.sqlite in", self.move(self.old, "--to", status=1))
        for words in ((), ("--to", self.url, "--from", self.url), ("--to", "sqlite:")):
            self.tool(self.old, "move", *words, status=2)
        self.do(self.old, Accept(message(1), False))
        away = "postgresql://mta@127.0.0.1:1/mta"
        refused = self.tool(self.old, "move", "--to", away, status=1).output
        self.assertIn("onnection refused", refused)


class StoppedMachine(SharedTestCase):
    def test_list_show_summary_and_export_read_the_database(self) -> None:
        self.moved()
        before = self.versions()
        listed = json.loads(self.tool(self.old, "list", "--json").output)["messages"]
        self.assertEqual([each["id"] for each in listed], [str(QueueId(1)), str(RICH.id)])
        self.assertIn("@far.example (sent to", self.tool(self.old, "show", str(RICH.id)).output)
        body = self.tool(self.old, "show", str(RICH.id), "--body").stdout_bytes
        self.assertTrue(body.endswith(LARGE))
        self.assertIn("far.example\t1", self.tool(self.old, "summary").output)
        exported = self.exported("--all")
        self.assertEqual([each["id"] for each in exported], [str(QueueId(1)), str(RICH.id)])
        after = self.versions()
        self.assertEqual(after, before)
        self.tool(self.old, "hold", "--all", status=3)

    def test_what_was_exported_is_imported_into_the_database(self) -> None:
        self.moved()
        self.exported("--all")
        self.move(self.new, "--from")
        self.assertIn("imported: 3 recipients of 2 messages", self.import_into_the_database())
        self.assertIn("here before: 3 recipients", self.import_into_the_database())
        self.assertEqual(list((self.old / "body").iterdir()), [])
        body = self.tool(self.old, "show", str(RICH.id), "--body").stdout_bytes
        self.assertTrue(body.endswith(LARGE))

    def test_mail_that_a_dead_process_of_this_machine_has_leased_is_not_elsewhere(self) -> None:
        self.moved()
        (self.old / "machine").write_text("5d2c" * 16)
        sql("INSERT INTO worker (machine, slot, number, seen) VALUES (%s, 0, 1, now())", "5d2c" * 8)
        sql("UPDATE recipient SET lease = (SELECT max(id) FROM worker)")

        def states() -> set[tuple[bool, bool]]:
            messages = json.loads(self.tool(self.old, "list", "--json").output)["messages"]
            shown = json.loads(self.tool(self.old, "show", str(RICH.id), "--json").output)
            recipients = [entry for each in messages for entry in each["recipients"]]
            recipients += shown["message"]["recipients"]
            return {(each["in_delivery"], each["elsewhere"]) for each in recipients}

        self.assertEqual(states(), {(False, False)})
        (self.old / "machine").write_text("0" * 64)  # another one
        self.assertEqual(states(), {(False, True)})

    def versions(self) -> list[list[tuple[object, ...]]]:
        """Return which transactions have written the rows."""
        return [
            sql("SELECT xmin::text, message, number FROM recipient ORDER BY 2, 3"),
            sql("SELECT xmin::text, id FROM worker ORDER BY 2"),
        ]

    def import_into_the_database(self) -> str:
        return self.tool(self.old, "import", "--file", str(self.file)).output

    def test_a_database_that_is_away_is_an_error(self) -> None:
        (self.old / "queue.url").write_text("postgresql://mta@127.0.0.1:1/mta\n")
        ran = CliRunner().invoke(main, ["queue", "list", "--state-dir", str(self.old)])
        self.assertEqual(ran.exit_code, 1)
        self.assertIn("the queue in PostgreSQL cannot be read: ", ran.output)
