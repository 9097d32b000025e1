"""Next hops: fairness, suspension and probes, and limits, as the servers see them."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections import Counter
from datetime import UTC, datetime
from threading import Thread
from typing import Any

from .hop import Hop, flood
from .machine import LOOPBACK, eventually, free_port
from .mail import ProgramTestCase, message, submit
from .mta import MTA

QUICK = """
[queue]
retry_minimum = "{0} s"
retry_maximum = "{0} s"
"""


def status(mta: MTA) -> dict[str, Any]:
    """Return the status as JSON."""
    with urllib.request.urlopen(f"http://{LOOPBACK}:{mta.web}/status.json", timeout=30) as answer:
        told: dict[str, Any] = json.loads(answer.read())
    return told


def metric(mta: MTA, name: str) -> float:
    """Return a metric without labels, or the sum over all of them."""
    with urllib.request.urlopen(f"http://{LOOPBACK}:{mta.web}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    found = re.findall(rf"^twisted_mta_{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
    return sum(map(float, found))


class Fairness(ProgramTestCase):
    MANY = 1000  # more than the runner has in memory

    def assertOthersDoNotWait(self, mta: MTA, good: Hop) -> None:
        took = []
        for number in range(5):
            began = time.monotonic()
            submit(mta.smtp, message(), f"user{number}@good.example", starttls=False)
            good.wait_for(number + 1)
            took.append(time.monotonic() - began)
        began = time.monotonic()
        submit(mta.smtp, message(), "bob@localhost", starttls=False)
        mta.wait_for_mail("localhost", "bob")
        took.append(time.monotonic() - began)
        self.assertLess(max(took), 5.0, took)

    def queue(self, bad: Hop, toml: str = "") -> tuple[MTA, Hop]:
        good = self.enterContext(Hop())
        routes = (
            *("--route", f"bad.example=smtp://{LOOPBACK}:{bad.port}"),
            *("--route", f"good.example=smtp://{LOOPBACK}:{good.port}"),
        )
        mta = self.enterContext(MTA(self.home, *routes, toml=toml))
        flood(mta.smtp, [f"u{number}@bad.example" for number in range(self.MANY)])
        return mta, good

    def test_mail_for_a_hanging_next_hop_delays_no_other_mail(self) -> None:
        bad = self.enterContext(Hop())
        bad.greeting = None
        mta, good = self.queue(bad)
        self.assertOthersDoNotWait(mta, good)
        self.assertLessEqual(bad.connections, 20)
        # Delivered mail leaves the queue a moment later.
        eventually(lambda: status(mta)["queue"]["messages"] == self.MANY, "those others to be gone")

    def test_mail_for_a_slow_next_hop_delays_no_other_mail(self) -> None:
        bad = self.enterContext(Hop())
        bad.delay = 1.0
        mta, good = self.queue(bad)
        self.assertOthersDoNotWait(mta, good)
        self.assertLessEqual(bad.most, 20)

    def test_mail_for_a_next_hop_that_is_down_delays_no_other_mail(self) -> None:
        mta, good = self.queue(Hop(free_port()), QUICK.format(1))
        self.assertOthersDoNotWait(mta, good)


class Down(ProgramTestCase):
    MANY = 300

    def all_at(self, hop: Hop, count: int) -> None:
        expected = sorted(f"u{number}@next.example" for number in range(count))
        eventually(lambda: len(hop.recipients()) >= count, "all of it", 90.0)
        self.assertEqual(hop.recipients(), expected)

    def start(self, hop: Hop, *options: str, toml: str) -> MTA:
        route = f"next.example=smtp://{LOOPBACK}:{hop.port}"
        return self.enterContext(MTA(self.home, "--route", route, *options, toml=toml))

    def fill(self, mta: MTA, count: int) -> None:
        flood(mta.smtp, [f"u{number}@next.example" for number in range(count)])

    def test_hundreds_of_messages_cause_one_probe_at_a_time(self) -> None:
        hop = self.enterContext(Hop())
        hop.greeting = ""  # it accepts connections, and is silent
        mta = self.start(hop, toml=QUICK.format(2))
        self.fill(mta, self.MANY)
        first = eventually(lambda: status(mta)["suspended"], "a suspension")
        self.assertEqual(first[0]["next_hop"], f"smtp:{LOOPBACK}:{hop.port}")
        before, began = hop.connections, time.monotonic()
        eventually(lambda: status(mta)["suspended"][0]["times"] >= 4, "three more probes")
        took = time.monotonic() - began
        self.assertLessEqual(hop.connections - before, 4, f"in {took:.1f} s")
        self.assertEqual(metric(mta, "next_hops_suspended"), 1)
        told = mta.tool("status")
        self.assertIn(f"smtp:{LOOPBACK}:{hop.port}\t", told.stdout)
        hop.greeting = "220 back"
        self.all_at(hop, self.MANY)
        self.assertEqual(len(hop.transactions), self.MANY)
        eventually(lambda: not status(mta)["queue"]["messages"], "an empty queue")
        self.assertEqual(status(mta)["suspended"], [])
        self.assertEqual(mta.output().count("is no longer suspended"), 1)
        suspended = re.findall(r"is suspended for", mta.output())
        self.assertLessEqual(len(suspended), 8)

    def test_421_in_the_greeting_suspends_the_next_hop(self) -> None:
        hop = self.enterContext(Hop())
        hop.greeting = "421 4.3.2 not today"
        mta = self.start(hop, toml=QUICK.format(2))
        self.fill(mta, 100)
        eventually(lambda: status(mta)["suspended"], "a suspension")
        before = hop.connections
        eventually(lambda: status(mta)["suspended"][0]["times"] >= 3, "two more probes")
        self.assertLessEqual(hop.connections - before, 3)
        hop.greeting = "220 back"
        self.all_at(hop, 100)

    def test_a_next_hop_that_defers_everything_is_retried_until_it_accepts(self) -> None:
        hop = self.enterContext(Hop())
        hop.replies["RCPT"] = "450 4.2.1 later"
        mta = self.start(hop, toml=QUICK.format(1))
        self.fill(mta, 100)
        eventually(lambda: mta.output().count(" deferred: ") >= 100, "100 deferrals")
        self.assertEqual(status(mta)["suspended"], [])
        self.assertLessEqual(hop.connections, 30)  # connections are reused
        del hop.replies["RCPT"]
        self.all_at(hop, 100)

    def test_a_connection_lost_after_the_dot_may_cause_duplicates_and_is_logged(self) -> None:
        hop = self.enterContext(Hop())
        hop.replies["."] = ""
        mta = self.start(hop, toml=QUICK.format(1))
        self.fill(mta, 20)
        hop.wait_for(20)
        del hop.replies["."]
        eventually(lambda: not status(mta)["queue"]["messages"], "an empty queue")
        self.assertEqual(
            sorted(dict.fromkeys(hop.recipients())), sorted(f"u{n}@next.example" for n in range(20))
        )
        copies = len(hop.transactions) - 20
        self.assertEqual(len(re.findall(r"Possible duplicate of", mta.output())), copies)
        self.assertGreaterEqual(copies, 20)


class Limits(ProgramTestCase):
    def limited(self, hop: Hop, *settings: str) -> MTA:
        lines = "\n".join(settings)
        toml = f'[[destination]]\ndomain = "{LOOPBACK}:{hop.port}"\n{lines}\n'
        route = f"next.example=smtp://{LOOPBACK}:{hop.port}"
        return self.enterContext(MTA(self.home, "--workers", "2", "--route", route, toml=toml))

    def flood(self, mta: MTA, count: int) -> None:
        threads = [
            Thread(
                target=flood,
                args=(mta.smtp, [f"u{each}@next.example" for each in range(start, count, 4)]),
            )
            for start in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def test_the_limit_of_connections_covers_all_workers(self) -> None:
        hop = self.enterContext(Hop())
        hop.delay = 0.05
        mta = self.limited(hop, "connections = 3")
        self.flood(mta, 120)
        hop.wait_for(120)
        self.assertLessEqual(hop.most, 3)
        self.assertGreaterEqual(hop.most, 2)
        self.assertEqual(len(hop.recipients()), 120)

    def test_the_rate_limit_covers_all_workers(self) -> None:
        hop = self.enterContext(Hop())
        mta = self.limited(hop, 'rate = "10/s"')
        self.flood(mta, 60)
        came = sorted(each.began for each in hop.wait_for(60))
        # The first ten may go at once; then one each tenth of a second.
        self.assertGreater(came[-1] - came[0], 4.5)
        self.assertLess(came[-1] - came[0], 12.0)
        for one, eleventh in zip(came, came[21:], strict=False):
            self.assertGreater(eleventh - one, 0.8)

    def test_limits_of_recipients_per_message_and_messages_per_connection(self) -> None:
        hop = self.enterContext(Hop())
        mta = self.limited(hop, "recipients_per_message = 7", "messages_per_connection = 4")
        submit(mta.smtp, message(), *(f"u{n}@next.example" for n in range(100)), starttls=False)
        eventually(lambda: len(hop.recipients()) >= 100, "100 recipients")
        self.assertEqual(len(frozenset(hop.recipients())), 100)
        self.assertEqual(max(len(each.recipients) for each in hop.transactions), 7)
        self.flood(mta, 60)
        hop.wait_for(15 + 60)
        counts: dict[int, int] = {}
        for each in hop.transactions:
            counts[each.connection] = counts.get(each.connection, 0) + 1
        self.assertEqual(max(counts.values()), 4)


class Sources(ProgramTestCase):
    POOL = """
    [delivery]
    source_pool = "bulk"

    [[source_pool]]
    name = "bulk"

    [[source_pool.address]]
    address = "127.0.0.11"
    helo = "out1.example"

    [[source_pool.address]]
    address = "{address}"
    helo = "out2.example"
    warm_up = {warm_up}
    warm_up_since = {day}

    [[reply_action]]
    pattern = '127\\.0\\.0\\.11 is blocked'
    action = "other_source"
    """

    def pooled(self, hop: Hop, *options: str, address: str, warm_up: str = "[6, 12]") -> MTA:
        day = datetime.fromtimestamp(time.time(), UTC).date()
        toml = self.POOL.format(address=address, warm_up=warm_up, day=day)
        route = f"next.example=smtp://{LOOPBACK}:{hop.port}"
        return self.enterContext(MTA(self.home, "--route", route, *options, toml=toml))

    def send(self, mta: MTA, count: int) -> None:
        flood(mta.smtp, [f"u{number}@next.example" for number in range(count)])

    def sources(self, hop: Hop) -> Counter[tuple[str, str]]:
        return Counter((each.peer, each.helo) for each in hop.transactions if each.recipients)

    def test_mail_leaves_from_both_addresses_and_no_more_than_may_today(self) -> None:
        """Workers share the count, and it survives their end."""
        hop = self.enterContext(Hop())
        mta = self.pooled(hop, "--workers", "2", address="127.0.0.12")
        self.send(mta, 20)
        hop.wait_for(20)
        mta.kill()
        mta.start()
        self.send(mta, 20)
        hop.wait_for(40)
        left = self.sources(hop)
        both = {("127.0.0.11", "out1.example"), ("127.0.0.12", "out2.example")}
        self.assertEqual(left.keys(), both)
        # Each process has counted one message at most before it died.
        self.assertIn(left["127.0.0.12", "out2.example"], (4, 5, 6))

    def test_an_address_of_another_machine_defers_mail_and_suspends_nothing(self) -> None:
        hop = self.enterContext(Hop())
        mta = self.pooled(hop, address="192.0.2.77", warm_up="[1000]")
        self.send(mta, 2)
        hop.wait_for(1)
        text = r"deferred: .* this system cannot connect from 192\.0\.2\.77: .*Cannot assign"
        eventually(lambda: re.search(text, mta.output()) is not None, "the deferral")
        self.assertEqual(self.sources(hop).keys(), {("127.0.0.11", "out1.example")})
        self.assertEqual(status(mta)["suspended"], [])

    def test_a_blocked_address_is_replaced_by_another(self) -> None:
        hop = self.enterContext(Hop())
        hop.blocked = "127.0.0.11"
        mta = self.pooled(hop, address="127.0.0.12", warm_up="[1000]")
        self.send(mta, 4)
        eventually(lambda: len(hop.recipients()) == 4, "4 recipients")
        self.assertEqual(self.sources(hop), {("127.0.0.12", "out2.example"): 4})
        self.assertGreaterEqual(metric(mta, "reply_actions_total"), 1)
