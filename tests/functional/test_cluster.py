"""Several MTAs with one queue in PostgreSQL: limits and lists hold for all of them together."""

from __future__ import annotations

import smtplib
import time
from collections.abc import Sequence

import psycopg

from .hop import Hop
from .machine import LOOPBACK, eventually
from .mail import ProgramTestCase, message, trusting
from .mta import MTA
from .postgresql import PostgreSQL

IMPATIENT = '[queue]\nretry_minimum = "1 s"\nretry_maximum = "1 s"\n'


class Cluster(ProgramTestCase):
    """Some MTAs, `mtas`, with a database and a next hop."""

    def setUp(self) -> None:
        super().setUp()
        self.home.chmod(0o755)
        self.database = self.enterContext(PostgreSQL(self.home))
        self.hop = self.enterContext(Hop())

    def start(self, count: int, toml: str = "", *options: str) -> list[MTA]:
        mtas = []
        for number in range(count):
            home = self.home / f"m{number}"
            home.mkdir()
            mta = MTA(
                home,
                *("--queue", self.database.url),
                *("--route", f"relay.example=smtp://{LOOPBACK}:{self.hop.port}"),
                *options,
                toml=IMPATIENT + toml,
            )
            self.addCleanup(mta.kill)
            mtas.append(mta)
            mta.start()
        return mtas

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        with psycopg.connect(
            self.database.url, autocommit=True, options="-c search_path=twisted_mta"
        ) as database:
            done = database.execute(statement.encode())
            return done.fetchall() if done.description else []

    def all_alive(self, count: int) -> None:
        eventually(
            lambda: (
                self.sql("SELECT count(*) FROM machine WHERE seen > now() - interval '5 s'")
                == [(count,)]
            ),
            f"{count} machines",
        )

    def submit(self, mtas: Sequence[MTA], each: int) -> None:
        """Submit messages to all, in turn."""
        clients = [smtplib.SMTP(LOOPBACK, mta.smtp, timeout=30) for mta in mtas]
        for client in clients:
            client.starttls(context=trusting())
        for number in range(each):
            for client in clients:
                client.sendmail(
                    "ann@sender.example", [f"bob{number}@relay.example"], message(f"{number}")
                )
        for client in clients:
            client.quit()


CONNECTIONS = '[[destination]]\ndomain = "relay.example"\nconnections = 3\n'


class LimitsOfDestinations(Cluster):
    def test_connections_hold_for_all_machines(self) -> None:
        self.hop.delay = 0.02
        mtas = self.start(3, CONNECTIONS)
        self.all_alive(3)
        self.submit(mtas, 40)
        self.hop.wait_for(120)
        self.assertEqual(self.hop.most, 3)

    def test_a_rate_holds_for_all_machines(self) -> None:
        rate = '[[destination]]\ndomain = "relay.example"\nrate = "10/s"\n'
        mtas = self.start(3, rate)
        self.all_alive(3)
        self.submit(mtas, 20)
        began = sorted(each.began for each in self.hop.wait_for(60))
        # The next hop sees them some milliseconds late, some later than others.
        windows = [last - first for first, last in zip(began, began[10:], strict=False)]
        self.assertGreater(min(windows), 0.9)
        self.assertLess(began[-1] - began[0], 15)

    def test_one_machine_may_have_all(self) -> None:
        self.hop.delay = 0.5
        mtas = self.start(2, CONNECTIONS)
        self.all_alive(2)
        self.submit(mtas[:1], 12)
        self.hop.wait_for(12)
        self.assertEqual(self.hop.most, 3)

    def test_the_part_of_a_dead_machine_goes_to_the_others(self) -> None:
        self.hop.delay = 10.0
        mtas = self.start(2, CONNECTIONS)
        self.all_alive(2)
        self.submit(mtas[:1], 3)
        eventually(lambda: self.hop.under_way == 3, "three transactions of the first machine")
        self.hop.delay = 0.1
        self.submit(mtas[1:], 6)
        mtas[0].kill()
        killed = time.monotonic()
        eventually(
            lambda: sum(each.ended > killed for each in self.hop.transactions) >= 9, "all mail"
        )
        self.assertLess(time.monotonic() - killed, 60)
        self.assertLessEqual(self.hop.most, 3)

    def test_without_the_database_each_machine_has_its_share(self) -> None:
        self.hop.delay = 0.3
        mtas = self.start(3, CONNECTIONS)
        self.all_alive(3)
        self.submit(mtas, 40)
        self.hop.wait_for(3)
        before = len(self.hop.transactions)
        self.database.kill()
        # Each goes on with what it has leased, until the leases of the messages end.
        self.hop.wait_for(before + 40)
        self.assertLessEqual(self.hop.most, 3)
        self.database.start()
        self.hop.wait_for(120, 120)
        self.assertLessEqual(self.hop.most, 3)
