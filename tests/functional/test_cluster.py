"""Several MTAs with one queue in PostgreSQL: limits and lists hold for all of them together."""

from __future__ import annotations

import json
import re
import smtplib
import time
from collections.abc import Sequence
from urllib.request import urlopen

import psycopg

from .hop import Hop
from .machine import LOOPBACK, eventually, free_port, run
from .mail import ProgramTestCase, message, trusting
from .mta import MTA, TOOL
from .postgresql import PostgreSQL

IMPATIENT = '[queue]\nretry_minimum = "1 s"\nretry_maximum = "1 s"\n'


class Cluster(ProgramTestCase):
    """Some MTAs, `mtas`, with a database and a next hop."""

    def setUp(self) -> None:
        super().setUp()
        self.home.chmod(0o755)
        self.database = self.enterContext(PostgreSQL(self.home))
        self.hop = self.enterContext(Hop())

    def start(self, count: int, *tables: str) -> list[MTA]:
        """Start MTAs, each with tables of its own; the last ones hold for the rest."""
        mtas = []
        for number in range(count):
            toml = tables[min(number, len(tables) - 1)]
            home = self.home / f"m{number}"
            home.mkdir()
            mta = MTA(
                home,
                *("--queue", self.database.url),
                *("--route", f"relay.example=smtp://{LOOPBACK}:{self.hop.port}"),
                toml=toml + IMPATIENT,
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
        mtas = self.start(3, CONNECTIONS, CONNECTIONS, f"[mta]\nworkers = 2\n{CONNECTIONS}")
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
        # Ten at once, and ten in each of five seconds; were it ten of each machine, two seconds.
        self.assertGreater(began[-1] - began[0], 4)

    def test_one_machine_may_have_all_and_then_another(self) -> None:
        self.hop.delay = 0.3
        mtas = self.start(2, CONNECTIONS)
        self.all_alive(2)
        for number in range(3):
            # Its connections are kept for more mail, until the other one needs them.
            self.submit(mtas[number % 2 :][:1], 9)
            self.hop.wait_for(9 * (number + 1))
        self.assertEqual((self.hop.most, self.hop.most_open), (3, 3))

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
        self.hop.wait_for(before + 9)
        self.assertLessEqual(self.hop.most, 3)
        self.database.start()
        self.hop.wait_for(120, 120)
        self.assertLessEqual(self.hop.most, 3)


SHARED = """
[mta]
local_domains = ["us.test"]
recipients = "any"
users = "{users}"
auth_failures_per_account = 4
auth_failure_delay = "0 s"
[account_limits]
messages_per_hour = 5
[policy]
spf = "off"
dkim = "off"
dmarc = "off"
arc = "off"
[suppression]
[greylist]
delay = "1 s"
[[listener]]
kind = "submission"
endpoint = "tcp:0:interface=127.0.0.1"
auth = "any"
own_addresses = "off"
[[listener]]
kind = "lmtp"
endpoint = "tcp:0:interface=127.0.0.1"
[[listener]]
endpoint = "tcp:{port}:interface=127.0.0.1"
xclient_from = ["127.0.0.1"]
"""


class SharedLists(Cluster):
    """Two MTAs that know what the other one knows, within seconds."""

    def setUp(self) -> None:
        super().setUp()
        users = self.home / "users"
        done = run(TOOL, "users", "add", "--file", users, "ann", text="secret\n")
        self.assertEqual(done.returncode, 0, done.stdout)
        self.ports = [free_port(), free_port()]
        self.a, self.b = self.start(
            2, *(SHARED.format(users=users, port=port) for port in self.ports)
        )
        self.all_alive(2)

    def login(self, mta: MTA, password: str) -> int:
        """Log in, by each of two mechanisms where the first does not succeed."""
        with smtplib.SMTP(LOOPBACK, mta.submission, timeout=30) as session:
            try:
                return session.login("ann", password)[0]
            except smtplib.SMTPAuthenticationError as error:
                return error.smtp_code

    def rcpt(self, mta: MTA, recipient: str) -> int:
        with smtplib.SMTP(LOOPBACK, mta.submission, timeout=30) as session:
            session.login("ann", "secret")
            session.mail("ann@us.test")
            return session.rcpt(recipient)[0]

    def rcpt_of_stranger(self, port: int) -> int:
        with smtplib.SMTP(LOOPBACK, port, timeout=30) as session:
            session.ehlo("proxy.example")
            self.assertEqual(session.docmd("XCLIENT", "ADDR=192.0.2.7")[0], 220)
            session.ehlo("client.example")
            session.mail("ann@sender.example")
            return session.rcpt("bob@us.test")[0]

    def test_lists_and_counts_hold_for_all(self) -> None:
        a, b = self.a, self.b
        # Greylisting.
        self.assertEqual(self.rcpt_of_stranger(self.ports[0]), 451)
        eventually(
            lambda: self.rcpt_of_stranger(self.ports[1]) == 250, "what came to A passes on B"
        )
        self.assertEqual(self.rcpt_of_stranger(self.ports[0]), 250)
        # The suppression list.
        self.assertEqual(self.rcpt(b, "gone@relay.example"), 250)
        added = a.tool("suppression", "add", "gone@relay.example")
        self.assertEqual(added.returncode, 0, added.stderr)
        self.assertEqual(self.rcpt(a, "gone@relay.example"), 550)
        eventually(lambda: self.rcpt(b, "gone@relay.example") == 550, "the entry on B")
        self.assertIn("gone@relay.example", b.tool("suppression", "list").stdout)
        self.assertEqual(b.tool("suppression", "remove", "gone@relay.example").returncode, 0)
        eventually(lambda: self.rcpt(a, "gone@relay.example") == 250, "its removal on A")
        # Limits of accounts.
        codes = []
        for mta in (a, b, a, b, a, b, a, b):
            with smtplib.SMTP(LOOPBACK, mta.submission, timeout=30) as session:
                session.login("ann", "secret")
                try:
                    session.sendmail("ann@us.test", ["bob@relay.example"], message())
                    codes.append(250)
                except smtplib.SMTPDataError as error:
                    codes.append(error.smtp_code)
        self.assertEqual(codes, [250] * 5 + [450] * 3)
        # Guesses.
        self.assertEqual([self.login(a, "guess") for _ in range(3)], [535, 535, 454])
        eventually(lambda: self.login(b, "secret") == 454, "the throttle on B")

    def test_without_the_database_each_goes_on_by_itself(self) -> None:
        a, b = self.a, self.b
        self.assertEqual(a.tool("suppression", "add", "gone@relay.example").returncode, 0)
        eventually(lambda: self.rcpt(b, "gone@relay.example") == 550, "the entry on B")
        self.database.stop()
        self.assertEqual(self.rcpt(b, "gone@relay.example"), 550)
        failed = b.tool("suppression", "remove", "gone@relay.example")
        self.assertNotEqual(failed.returncode, 0)
        self.assertEqual([self.login(b, "guess") for _ in range(3)], [535, 535, 454])
        self.database.start()
        eventually(lambda: self.login(a, "secret") == 454, "the throttle on A")

    def test_each_machine_shows_all(self) -> None:
        a, b = self.a, self.b
        named = r"mta\.example\t[0-9a-f]{8}\talive"

        def shown() -> list[str]:
            return re.findall(named, a.tool("status").stdout)

        eventually(lambda: len(shown()) == 2, "two machines in the status")
        status = json.loads(a.tool("status", "--json").stdout)
        ids = {each["id"] for each in status["cluster"]["machines"]}
        self.assertEqual(ids, {(each.state / "machine").read_text()[:32] for each in (a, b)})
        with urlopen(f"http://{LOOPBACK}:{a.web}/metrics") as metrics:
            self.assertIn(b'machines{state="alive"} 2', metrics.read())
        self.hop.replies["RCPT"] = "451 4.2.0 later"
        self.submit([a], 1)
        machine = rf"mta\.example \({(a.state / 'machine').read_text()[:8]}\)"
        (id,) = {
            each["id"] for each in json.loads(b.tool("queue", "list", "--json").stdout)["messages"]
        }

        def explained(pattern: str) -> bool:
            return re.search(pattern, b.tool("explain", id).stdout) is not None

        self.assertTrue(explained(rf", received by {machine} "))
        eventually(lambda: explained(rf" from {machine} to 127"), "an attempt")
        self.hop.delay = 5.0
        self.hop.replies.clear()
        eventually(
            lambda: re.search(
                r"leased: bob0@relay\.example: mta\.example \([0-9a-f]{8}\), process 0\n",
                b.tool("queue", "show", id).stdout,
            ),
            "the lease of an attempt under way",
        )
        b.kill()
        eventually(
            lambda: "has been silent for" in a.tool("status").stdout, "the trouble of a silent one"
        )
        with urlopen(f"http://{LOOPBACK}:{a.web}/") as page:
            self.assertIn(b"silent for", page.read())
