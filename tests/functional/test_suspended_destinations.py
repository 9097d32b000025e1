"""Destinations that the operator suspends: by the tool, by the page, and over several machines."""

from __future__ import annotations

import json
import subprocess
from typing import Any
from urllib.request import urlopen

from .hop import Hop
from .machine import LOOPBACK, free_port
from .mail import ProgramTestCase, message, submit
from .mta import MTA, TOOL
from .postgresql import PostgreSQL
from .test_page import PASSWORD, PageTestCase

REASON = "they <b>move</b> their servers"


class SuspendedDestinations(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.hop = Hop(free_port())
        self.addCleanup(self.hop.stop)
        self.hop.start()

    def mta(self, *options: str, home: str = "", toml: str = "") -> MTA:
        folder = self.home / home
        folder.mkdir(exist_ok=True)
        route = f".far.example=smtp://{LOOPBACK}:{self.hop.port}"
        mta = MTA(folder, "--route", route, *options, toml=toml)
        self.addCleanup(mta.kill)
        return mta

    def listed(self, mta: MTA) -> list[Any]:
        destinations: list[Any] = json.loads(mta.tool("queue", "suspended", "--json").stdout)[
            "destinations"
        ]
        return destinations

    def in_force(self, mta: MTA) -> list[str]:
        with urlopen(f"http://{LOOPBACK}:{mta.web}/status.json", timeout=30) as answer:
            return [each["destination"] for each in json.load(answer)["suspended_by_operator"]]

    def test_a_domain_is_suspended_in_all_workers_over_restarts_until_it_is_resumed(self) -> None:
        with self.mta("--workers", "2") as mta:
            words = ("queue", "suspend", "A.far.example", "--reason", REASON, "--for", "2 hours")
            tried = mta.tool(*words, "--dry-run")
            self.assertIn("would be suspended: a.far.example", tried.stdout)
            self.assertEqual(self.listed(mta), [])
            self.assertIn("0 recipients wait", mta.tool(*words).stdout)
            for _ in range(20):
                submit(mta.smtp, message(), "bob@a.far.example")
            submit(mta.smtp, message(), "bob@b.far.example")
            mta.wait_for(lambda: len(self.hop.transactions) == 1, "the mail of the other domain")
            (each,) = self.listed(mta)
            self.assertEqual((each["waiting"], each["reason"]), (20, REASON))
            self.assertEqual(each["until"] - each["since"], 7200)
            found = json.loads(mta.tool("queue", "list", "--json").stdout)["messages"]
            id = found[0]["id"]
            self.assertIn("suspended by the operator", mta.tool("queue", "show", id).stdout)
            explained = mta.tool("explain", id).stdout
            self.assertIn("a.far.example is suspended by the operator since", explained)
            self.assertIn(REASON, explained)
            self.assertIn(
                "suspended by the operator", mta.tool("explain", "x@a.far.example").stdout
            )
            self.assertIn(REASON, mta.tool("queue", "summary").stderr)
            self.assertIn(REASON, mta.tool("status").stdout)
            mta.wait_for(
                lambda: "20 recipients wait for it" in mta.tool("status").stdout, "the trouble"
            )
            with urlopen(f"http://{LOOPBACK}:{mta.web}/metrics", timeout=30) as answer:
                metrics = answer.read().decode()
            self.assertTrue("\ntwisted_mta_destinations_suspended 1.0\n" in metrics)
            self.assertEqual(mta.terminate(), 0, mta.output())
        (each,) = self.listed(mta)  # by the files
        self.assertEqual((each["destination"], each["waiting"]), ("a.far.example", 20))
        self.assertIn(REASON, mta.tool("queue", "show", id).stdout)
        with self.mta("--workers", "3") as mta:
            for _ in range(20):
                submit(mta.smtp, message(), "bob@a.far.example")
            submit(mta.smtp, message(), "bob@b.far.example")
            mta.wait_for(lambda: len(self.hop.transactions) == 2, "the mail of the other domain")
            self.assertEqual(self.listed(mta)[0]["waiting"], 40)
            refused = mta.tool("queue", "resume", "b.far.example")
            self.assertEqual(refused.returncode, 1)
            self.assertIn("b.far.example is not suspended by the operator", refused.stderr)
            self.assertEqual(
                mta.tool("queue", "resume", "a.far.example").stdout, "resumed: a.far.example\n"
            )
            mta.wait_for(lambda: len(self.hop.transactions) == 42, "all mail")
            self.assertEqual(self.listed(mta), [])
            self.assertIn("resumed by the operator", mta.output())

    def test_a_next_hop_is_suspended_and_mail_that_was_deferred_is_due_when_it_is_resumed(
        self,
    ) -> None:
        self.hop.replies["RCPT"] = "450 4.2.0 later"
        with self.mta() as mta:
            submit(mta.smtp, message(), "bob@a.far.example")
            mta.wait_for(lambda: " deferred" in mta.output(), "an attempt")
            hop = f"smtp:{LOOPBACK}:{self.hop.port}"
            self.assertIn("1 recipient waits", mta.tool("queue", "suspend", hop).stdout)
            del self.hop.replies["RCPT"]
            submit(mta.smtp, message(), "bob@b.far.example")
            mta.tool("queue", "retry", "--all")
            self.assertEqual(self.listed(mta)[0]["waiting"], 2)
            self.assertEqual(self.hop.recipients(), [])
            self.assertEqual(mta.tool("queue", "resume", "--all").stdout, f"resumed: {hop}\n")
            mta.wait_for(lambda: len(self.hop.recipients()) == 2, "both")

    def test_all_domains_below_one_are_suspended_and_counted(self) -> None:
        with self.mta("--workers", "2") as mta:
            mta.tool("queue", "suspend", ".A.far.example")
            for name in ("x", "y", "x.y"):
                submit(mta.smtp, message(), f"bob@{name}.a.far.example")
            submit(mta.smtp, message(), "bob@a.far.example")
            mta.wait_for(lambda: len(self.hop.transactions) == 1, "the mail of the domain itself")
            (each,) = self.listed(mta)
            self.assertEqual((each["destination"], each["waiting"]), (".a.far.example", 3))
            self.assertEqual(mta.terminate(), 0, mta.output())
        self.assertEqual(self.listed(mta)[0]["waiting"], 3)  # by the files
        with self.mta("--workers", "2") as mta:
            mta.tool("queue", "resume", ".a.far.example")
            mta.wait_for(lambda: len(self.hop.transactions) == 4, "all mail")

    def test_machines_that_share_a_queue_see_the_same(self) -> None:
        self.home.chmod(0o755)
        database = self.enterContext(PostgreSQL(self.home))
        with (
            self.mta("--queue", database.url, "--workers", "2", home="a") as one,
            self.mta("--queue", database.url, home="b") as other,
        ):
            one.tool("queue", "suspend", "a.far.example")
            other.wait_for(lambda: self.in_force(other) == ["a.far.example"], "the other to know")
            submit(other.smtp, message(), "bob@a.far.example")
            submit(other.smtp, message(), "bob@b.far.example")
            one.wait_for(lambda: len(self.hop.transactions) == 1, "the mail of the other domain")
            self.assertEqual(self.listed(one)[0]["waiting"], 1)
            other.tool("queue", "resume", "a.far.example")
            other.wait_for(lambda: len(self.hop.transactions) == 2, "its mail")
            one.wait_for(lambda: self.in_force(one) == [], "the one to know")

    def test_mail_that_waits_in_another_process_or_machine_is_shown_so(self) -> None:
        self.home.chmod(0o755)
        database = self.enterContext(PostgreSQL(self.home))

        def states(mta: MTA) -> set[str]:
            lines = mta.tool("queue", "list").stdout.splitlines()[1:]
            return {line.split("\t")[5] for line in lines}

        terms = '[[destination]]\ndomain = ".far.example"\nrate = "1/h"\n'
        with self.mta("--queue", database.url, "--workers", "2", toml=terms, home="a") as one:
            for number in range(12):
                submit(one.smtp, message(), f"bob@{number}.far.example")
            one.wait_for(lambda: self.hop.transactions, "a transaction")
            one.wait_for(lambda: states(one) == {"queued, waiting"}, "mail in the memory of both")
            ids = [
                line.split("\t")[0] for line in one.tool("queue", "list").stdout.splitlines()[1:]
            ]
            explained = one.tool("explain", *ids).stdout
            self.assertEqual(explained.count("the rate limit 1/h."), 11, explained)
            with self.mta("--queue", database.url, toml=terms, home="b") as other:
                other.wait_for(
                    lambda: states(other) == {"queued, leased by another machine"}, "the list"
                )
                said = other.tool("explain", ids[0]).stdout
                self.assertIn("Another machine has leased it", said)

    def test_a_retry_on_one_machine_ends_the_suspensions_of_a_next_hop_on_all(self) -> None:
        self.home.chmod(0o755)
        database = self.enterContext(PostgreSQL(self.home))
        self.hop.stop()
        with (
            self.mta("--queue", database.url, "--workers", "2", home="a") as one,
            self.mta("--queue", database.url, home="b") as other,
        ):
            for mta in (one, other):
                for number in range(8):
                    submit(mta.smtp, message(), f"bob@{number}.far.example")
            hop = f"smtp:{LOOPBACK}:{self.hop.port}"
            for mta, count in ((one, 2), (other, 1)):
                mta.wait_for(
                    lambda mta=mta, count=count: (  # type: ignore[misc]
                        mta.output().count(f"{hop} is suspended for") >= count
                    ),
                    "each process to suspend it",
                )
            self.hop.start()
            one.tool("queue", "retry", "--all")
            for mta, count in ((one, 2), (other, 1)):
                mta.wait_for(
                    lambda mta=mta, count=count: (  # type: ignore[misc]
                        mta.output().count(f"{hop} is probed before its time") >= count
                    ),
                    "each process to try again",
                )
            one.wait_for(lambda: len(self.hop.transactions) == 16, "all mail")
            submit(other.smtp, message(), "bob@new.far.example")
            other.wait_for(lambda: f"{hop} is no longer suspended" in other.output(), "its probe")


class SuspendedOnThePage(PageTestCase):
    def test_an_operator_suspends_a_destination_and_resumes_it(self) -> None:
        users = self.home / "users"
        subprocess.run(
            [TOOL, "users", "add", "--file", users, "ann"],
            input=f"{PASSWORD}\n".encode(),
            check=True,
            capture_output=True,
        )
        hop = Hop(free_port())
        hop.start()
        self.addCleanup(hop.stop)
        route = f"far.example=smtp://{LOOPBACK}:{hop.port}"
        with MTA(self.home, "--route", route, toml=f'[web]\nusers = "{users}"\n') as mta:
            browser = self.browser(mta, "/login")
            browser.wait("document.querySelector('[name=password]')")
            browser.do("document.querySelector('[name=name]').value = 'ann'")
            browser.do(f"document.querySelector('[name=password]').value = '{PASSWORD}'")
            browser.click("button", "Log in")
            browser.wait("document.querySelector('#settings [name=destination]')")
            browser.do("document.querySelector('[name=destination]').value = 'Far.example'")
            browser.do(f"document.querySelector('[name=reason]').value = '{REASON}'")
            browser.do("document.querySelector('[name=for]').value = '2 hours'")
            browser.click("button", "Suspend deliveries")
            title = "document.querySelector('h1').textContent"
            browser.wait(f"{title} === 'Suspend deliveries to far.example?'")
            self.assertIn("0 recipients wait for it now", browser.text())
            self.assertAccessible(browser)
            self.assertNotIn("far.example", mta.tool("queue", "suspended").stdout)
            browser.click("button", "Suspend")
            browser.wait(f"{title} === 'Suspended: far.example'")
            browser.click("header nav a", "State")
            browser.wait("document.querySelector('#suspended-by-operator td')")
            submit(mta.smtp, message(), "bob@far.example")
            browser.wait(
                "document.querySelector('#suspended-by-operator').innerText.includes('ann')"
            )
            self.assertIn(REASON, browser.do("document.querySelector('.verdict').innerText"))
            self.assertAccessible(browser)
            browser.open(f"http://{LOOPBACK}:{mta.web}/queue?domain=far.example")
            browser.wait("document.querySelector('#found').innerText.includes('suspended')")
            self.assertAccessible(browser)
            browser.open(f"http://{LOOPBACK}:{mta.web}/")
            browser.wait("document.querySelector('#suspended-by-operator button')")
            browser.click("#suspended-by-operator button")
            browser.wait(f"{title} === 'Resume deliveries to far.example?'")
            self.assertIn("1 recipient waits for it", browser.text())
            self.assertEqual(hop.transactions, [])
            browser.click("button", "Resume")
            browser.wait(f"{title} === 'Resumed: far.example'")
            mta.wait_for(lambda: len(hop.transactions) == 1, "its mail")
            browser.click("header nav a", "State")
            browser.wait(
                "document.querySelector('#verdict') && !document.querySelector("
                "'#suspended-by-operator')"
            )
            self.assertEqual(browser.complaints, [])
