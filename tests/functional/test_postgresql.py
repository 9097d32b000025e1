"""One queue in PostgreSQL that several MTAs accept into and deliver from; deaths of all kinds."""

from __future__ import annotations

import json
import os
import re
import signal
import smtplib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from .machine import LOOPBACK, children, eventually, free_port, run
from .mail import ProgramTestCase, as_stored, message, message_with_attachment, submit, trusting
from .mta import MTA, TOOL
from .postgresql import PostgreSQL, Standby
from .sinks import Sink

IMPATIENT = '[queue]\nretry_minimum = "1 s"\nretry_maximum = "1 s"\n'


class SharedQueue(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.home.chmod(0o755)
        self.database = self.enterContext(PostgreSQL(self.home))
        self.port = free_port()  # of the next hop

    def mta(self, name: str, *options: str, url: str = "") -> MTA:
        home = self.home / name
        home.mkdir(exist_ok=True)
        mta = MTA(
            home,
            *("--queue", url or self.database.url),
            *("--route", f"relay.example=smtp://{LOOPBACK}:{self.port}"),
            *options,
            toml=IMPATIENT,
        )
        self.addCleanup(mta.kill)
        return mta

    def sink(self) -> Sink:
        sink = Sink(self.home, port=self.port)
        self.addCleanup(sink.kill)
        return sink

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        with psycopg.connect(
            self.database.url, autocommit=True, options="-c search_path=twisted_mta"
        ) as database:
            done = database.execute(statement.encode())
            return done.fetchall() if done.description else []

    def is_empty(self) -> bool:
        return self.sql("SELECT count(*) FROM message") == [(0,)]

    def test_mail_is_delivered_and_nothing_is_left(self) -> None:
        mta = self.mta("a")
        with mta:
            content = message_with_attachment(3_000_000)
            submit(mta.smtp, message("small"), "bob@localhost")
            submit(mta.smtp, content, "carl@localhost")
            (small,) = mta.wait_for_mail("localhost", "bob")
            (large,) = mta.wait_for_mail("localhost", "carl")
            self.assertTrue(small.endswith(as_stored(message("small"))))
            self.assertTrue(large.endswith(as_stored(content)))
            mta.wait_for(self.is_empty, "an empty queue")
            self.assertEqual(self.sql("SELECT count(*) FROM piece"), [(0,)])
            self.assertEqual(list((mta.state / "body").iterdir()), [])
            self.assertEqual(mta.terminate(), 0, mta.output())

    def test_mail_survives_the_death_of_mta_and_database(self) -> None:
        mta = self.mta("a")
        with mta:
            content = message_with_attachment(1_000_000)
            submit(mta.smtp, message("first"), "bob@relay.example")
            submit(mta.smtp, content, "carl@relay.example")
            mta.kill()
            self.database.kill()
            self.database.start()
            with self.sink() as sink, mta:
                first, second = sorted(sink.wait_for_messages(2), key=len)
                self.assertTrue(first.endswith(message("first")), first)
                self.assertTrue(second.endswith(content))
                mta.wait_for(self.is_empty, "an empty queue")

    def test_without_the_database_mail_is_put_off_and_all_resumes_by_itself(self) -> None:
        mta = self.mta("a")
        with mta:
            submit(mta.smtp, message("before"), "bob@relay.example")
            self.database.kill()
            with smtplib.SMTP(LOOPBACK, mta.smtp, timeout=30) as client:
                client.starttls(context=trusting())
                for _ in range(2):
                    before = time.monotonic()
                    with self.assertRaises(smtplib.SMTPException) as refused:
                        client.sendmail("ann@sender.example", ["bob@localhost"], message())
                    self.assertIn("451", str(refused.exception))
                    self.assertLess(time.monotonic() - before, 1.0)
            self.database.start()
            with self.sink() as sink:
                eventually(mta.is_ready, "readiness")
                submit(mta.smtp, message("after"), "bob@relay.example")
                received = sink.wait_for_messages(2)
                self.assertEqual(
                    sorted(each.endswith(message("before")) for each in received), [False, True]
                )
                mta.wait_for(self.is_empty, "an empty queue")

    def test_a_database_that_is_not_there_at_the_start_is_waited_for(self) -> None:
        self.database.stop()
        mta = self.mta("a")
        with mta:
            self.assertFalse(mta.is_ready())
            self.assertIn("is closed", mta.tool("status").stdout)
            before = time.monotonic()
            with self.assertRaises(smtplib.SMTPException) as refused:
                submit(mta.smtp, message("before"), "bob@localhost")
            self.assertIn("451", str(refused.exception))
            self.assertLess(time.monotonic() - before, 1.0)
            self.database.start()
            eventually(mta.is_ready, "readiness")
            submit(mta.smtp, message("after"), "bob@localhost")
            mta.wait_for_mail("localhost", "bob")

    def test_a_database_that_refuses_the_program_fails_the_start(self) -> None:
        self.sql("CREATE ROLE stranger LOGIN")
        server = f"{LOOPBACK}:{self.database.port}"
        for url, why in (
            (f"postgresql://unknown@{server}/postgres", 'role "unknown" does not exist'),
            (f"postgresql://mta@{server}/unknown", 'database "unknown" does not exist'),
            (f"postgresql://stranger@{server}/postgres", "permission denied"),
        ):
            mta = self.mta("a", url=url)
            mta.spawn(mta.command())
            self.assertEqual(mta.wait(), 1)
            self.assertIn(why, mta.output())

    def test_rows_that_others_have_locked_stop_no_new_mail(self) -> None:
        mta = self.mta("a")
        with mta:
            submit(mta.smtp, message("first"), "bob@relay.example")
            mta.wait_for(
                lambda: self.sql("SELECT 1 FROM recipient WHERE attempts > 0"), "a deferral"
            )
            with psycopg.connect(
                self.database.url, options="-c search_path=twisted_mta"
            ) as operator:
                operator.execute("SELECT 1 FROM recipient FOR UPDATE")
                held = mta.tool("queue", "hold", "--all")
                self.assertEqual(held.returncode, 1, held.stdout)
                self.assertIn("locked by others", held.stderr)
                submit(mta.smtp, message("second"), "carl@localhost")
                mta.wait_for_mail("localhost", "carl")
            self.assertTrue(mta.is_ready())
            self.assertNotIn("the queue is closed", mta.output())
            mta.wait_for(lambda: mta.tool("queue", "hold", "--all").returncode == 0, "a hold")

    def test_workers_share_the_queue_and_it_is_counted_once(self) -> None:
        mta = self.mta("a", "--workers", "2")
        with mta:
            for number in range(8):
                submit(mta.smtp, message(f"number {number}"), "bob@relay.example")
            mta.wait_for(lambda: self.counted(mta) == 8, "8 messages")
            listed = json.loads(mta.tool("queue", "list", "--json").stdout)
            self.assertEqual(len(listed["messages"]), 8)
            self.assertEqual(self.sql("SELECT count(*) FROM worker WHERE number >= 0"), [(2,)])
            (first, *_) = children(mta.pid)
            os.kill(first, signal.SIGKILL)
            mta.wait_for(lambda: "works again" in mta.output(), "its successor")
            # Far earlier than the half minute that leases last.
            leased = "SELECT count(*) FROM recipient WHERE lease NOT IN (SELECT id FROM worker)"
            self.assertEqual(self.sql(leased), [(0,)])
            with self.sink() as sink:
                self.assertEqual(len(sink.wait_for_messages(8)), 8)
                mta.wait_for(self.is_empty, "an empty queue")
            mta.wait_for(lambda: self.counted(mta) == 0, "no messages")
            self.assertEqual(mta.terminate(), 0, mta.output())

    def counted(self, mta: MTA) -> int:
        status = json.loads(mta.tool("status", "--json").stdout)
        return int(status["queue"]["messages"])

    def test_the_work_of_a_dead_mta_is_taken_over(self) -> None:
        a, b = self.mta("a"), self.mta("b")
        with a, b:
            for number in range(20):
                submit(a.smtp, message(f"number {number}"), "bob@relay.example")
            a.kill()
            killed = time.monotonic()
            with self.sink() as sink:
                received = sink.wait_for_messages(20)
                took = time.monotonic() - killed
                b.wait_for(self.is_empty, "an empty queue")
            self.assertEqual(len(received), 20)
            self.assertLess(took, 60)

    def test_two_mtas_deliver_each_message_once(self) -> None:
        a, b = self.mta("a"), self.mta("b")
        with a, b:
            for number in range(30):
                submit((a, b)[number % 2].smtp, message(f"number {number}"), "bob@relay.example")
            with self.sink() as sink:
                a.wait_for(self.is_empty, "an empty queue")
                self.assertEqual(len(sink.wait_for_messages(30)), 30)

    def test_a_long_queue_is_moved_while_mail_goes_on(self) -> None:
        mta = self.mta("a")
        shared, mta.options = (
            mta.options,
            tuple(each for each in mta.options if each not in ("--queue", self.database.url)),
        )
        with mta:
            for number in range(20):
                submit(mta.smtp, message(f"number {number}"), "bob@relay.example")
            self.assertEqual(mta.terminate(), 0, mta.output())
        before = mta.state / "before"
        before.mkdir(mode=0o700)
        for path in [*mta.state.glob("queue.sqlite*"), mta.state / "body"]:
            path.rename(before / path.name)
        mta.options = shared
        with mta, self.sink() as sink:
            submit(mta.smtp, message("number 20"), "bob@relay.example")
            (before / "machine").write_bytes((mta.state / "machine").read_bytes())
            where = ("--state-dir", before, "--to", self.database.url)
            done = run(TOOL, "queue", "move", *where)
            self.assertEqual(done.stdout, "moved: 20 recipients of 20 messages\n")
            self.assertEqual(len(sink.wait_for_messages(21)), 21)
            mta.wait_for(self.is_empty, "an empty queue")
            self.assertEqual(len(sink.received()), 21)

    def test_a_queue_of_this_machine_alone_is_not_left_behind(self) -> None:
        mta = self.mta("a")
        mta.state.mkdir(mode=0o700)
        Path(mta.state, "queue.sqlite").touch()
        mta.spawn(mta.command())
        self.assertEqual(mta.wait(), 1)
        self.assertIn("deliver it with --queue sqlite:", mta.output())


class Failover(ProgramTestCase):
    """A standby that has every commit takes the place of its primary."""

    def setUp(self) -> None:
        super().setUp()
        self.home.chmod(0o755)
        self.primary = self.enterContext(PostgreSQL(self.folder("primary")))
        self.standby = self.enterContext(Standby(self.folder("standby"), self.primary))
        self.sink = Sink(self.home, port=free_port())
        self.addCleanup(self.sink.kill)
        self.mta = MTA(
            self.folder("mta"),
            *("--queue", self.standby.both),
            *("--route", f"relay.example=smtp://{LOOPBACK}:{self.sink.port}"),
            toml=IMPATIENT,
        )

    def folder(self, name: str) -> Path:
        folder = self.home / name
        folder.mkdir()
        folder.chmod(0o755)
        return folder

    def offered(self, name: str) -> bool:
        """Submit a message; return whether it was acknowledged."""
        try:
            submit(self.mta.smtp, message(name), "bob@relay.example", starttls=False)
        except (smtplib.SMTPException, OSError):
            return False
        return True

    def offer_until(self, acked: set[str], end: Callable[[], bool], what: str) -> None:
        """Submit messages without a pause; note those that are acknowledged."""

        def offer() -> bool:
            name = f"number {len(acked)} {what}"
            if self.offered(name):
                acked.add(name)
            return end()

        eventually(offer, what)

    def arrived(self) -> list[str]:
        """Return the messages that have arrived; each name is that of one."""
        names = (re.search(rb"number \d+ [a-z ]+", each) for each in self.sink.received())
        return sorted(name[0].decode().strip() for name in names if name)

    def test_nothing_that_was_acknowledged_is_lost_with_the_primary(self) -> None:
        acked: set[str] = set()
        with self.mta:
            self.offer_until(acked, lambda: len(acked) >= 10, "before")
            killer = threading.Timer(0.3, self.primary.kill)
            killer.start()
            self.addCleanup(killer.join)
            # The last ones are in flight as the server dies.
            self.offer_until(acked, lambda: not self.mta.is_ready(), "meanwhile")
            before = len(acked)
            self.standby.promote()
            self.offer_until(acked, lambda: len(acked) >= before + 5, "afterwards")
            with self.sink:
                eventually(lambda: len(self.arrived()) >= len(acked), "all mail")
                self.mta.wait_for(
                    lambda: self.standby.sql("SELECT count(*) FROM twisted_mta.message") == [(0,)],
                    "an empty queue",
                )
            self.assertEqual(self.arrived(), sorted(acked))

    def test_a_former_primary_that_comes_back_is_not_used(self) -> None:
        with self.mta:
            self.assertTrue(self.offered("number 1 before"))
            self.primary.kill()
            self.standby.promote()
            eventually(lambda: self.offered("number 2 promoted"), "mail on the standby")
            # It comes back as a server of its own, and the URL names it first.
            self.primary.start()
            self.primary.sql("ALTER SYSTEM RESET synchronous_standby_names")
            self.primary.sql("SELECT pg_reload_conf()")
            for _ in range(2):  # once in this process, once in another one
                self.standby.sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
                )
                eventually(lambda: self.offered("number 3 again"), "mail on the standby")
                rows = self.primary.sql("SELECT count(*) FROM twisted_mta.message")
                self.assertEqual(rows, [(1,)])
                self.mta.terminate()
                self.mta.start()
            self.standby.kill()
            eventually(lambda: not self.mta.is_ready(), "the loss of the database")
            eventually(lambda: "stop that server, or make it a standby" in self.mta.output(), "it")
            self.assertFalse(self.offered("number 4 nowhere"))

    def test_a_commit_that_the_standby_has_not_is_no_commit(self) -> None:
        with self.mta:
            self.assertTrue(self.offered("number 1 before"))
            self.standby.kill()
            results: list[bool] = []
            client = threading.Thread(target=lambda: results.append(self.offered("number 2 alone")))
            client.start()
            while client.is_alive():
                # An administrator, or a time limit, ends the wait for the standby.
                self.primary.sql(
                    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
                    " WHERE wait_event = 'SyncRep'"
                )
                client.join(0.02)
            self.assertEqual(results, [False])
        self.primary.kill()  # in order, it would wait for its standby
