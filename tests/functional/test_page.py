"""The operator's page in a browser: troubles come and go, charts, the queue, actions, a phone."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
from pathlib import Path

from tests.server.authority import Authority

from .browser import Browser
from .clock import WallClock
from .machine import LOOPBACK, children, eventually, free_port, need, need_proc
from .mail import ProgramTestCase, message, submit
from .mta import MTA, TOOL
from .sinks import Sink
from .test_health import OwnDisk

SOON = 5.0
"""Seconds within which an open page shows a trouble, and its end."""

VERDICT = "document.querySelector('.verdict h2').textContent"
PASSWORD = "correct horse battery staple"

# What a reader without sight, or with a keyboard alone, needs of every page.
ACCESSIBLE = """(() => {
  const problems = [];
  const named = (each) => each.labels?.length || each.ariaLabel
    || each.getAttribute("aria-labelledby") || each.textContent.trim();
  for (const each of document.querySelectorAll("input:not([type=hidden]), select, button, a"))
    if (!named(each)) problems.push("without a name: " + each.outerHTML);
  for (const each of document.querySelectorAll("svg"))
    if (!each.querySelector("title") || !each.querySelector("desc")
        || each.getAttribute("role") !== "img") problems.push("a picture without words");
  for (const each of document.querySelectorAll("table"))
    if (!each.querySelector("th[scope]")) problems.push("a table without headers");
  const ids = [...document.querySelectorAll("[id]")].map((each) => each.id);
  if (new Set(ids).size !== ids.length) problems.push("an id twice: " + ids);
  for (const each of document.querySelectorAll("[aria-labelledby]"))
    for (const id of each.getAttribute("aria-labelledby").split(" "))
      if (!document.getElementById(id)) problems.push("no element " + id);
  const levels = [...document.querySelectorAll("h1, h2, h3")].map((each) => +each.tagName[1]);
  if (levels[0] !== 1 || levels.filter((each) => each === 1).length !== 1)
    problems.push("headings: " + levels);
  if (!document.documentElement.lang || document.querySelectorAll("main").length !== 1)
    problems.push("language or main part");
  const luminance = (color) => {
    const [r, g, b] = color.match(/[0-9.]+/g).map(Number).map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (each) => {
    for (; each; each = each.parentElement) {
      const color = getComputedStyle(each).backgroundColor;
      if (!color.endsWith(", 0)") && color !== "transparent") return color;
    }
    return "rgb(255, 255, 255)";
  };
  for (const each of document.querySelectorAll("body *")) {
    const text = [...each.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!text || each.closest("svg, .skip, noscript")) continue;
    const [a, b] = [luminance(getComputedStyle(each).color), luminance(behind(each))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) problems.push(`contrast ${contrast}: ${each.outerHTML.slice(0, 99)}`);
  }
  if (document.documentElement.scrollWidth > innerWidth)
    problems.push(`${document.documentElement.scrollWidth} wide, on ${innerWidth}`);
  return problems;
})()"""


def axe_core() -> Path | None:
    """Return the path of axe-core, a program that looks for barriers in pages; None: it is missing.

    ``AXE`` in the environment names another version than that of the tests' libraries.
    """
    if axe := os.environ.get("AXE"):
        return Path(axe)
    library = importlib.util.find_spec("axe_core_python")
    if library is None:
        if os.environ.get("CI"):
            raise AssertionError("axe-core-python is not installed")
        return None
    return Path(str(library.origin)).with_name("axe.min.js")


class PageTestCase(ProgramTestCase):
    def setUp(self) -> None:
        need("chromium")
        need("bash")
        super().setUp()

    def browser(self, mta: MTA, path: str = "/") -> Browser:
        browser = self.enterContext(Browser(self.home))
        browser.open(f"http://{LOOPBACK}:{mta.web}{path}")
        return browser

    def assertAccessible(self, browser: Browser) -> None:
        """Check all widths and colors of the page; write pictures where the environment asks."""
        pictures = os.environ.get("PICTURES")
        for width in (1280, 390):
            for dark in (False, True):
                browser.shape(width, dark=dark)
                self.assertEqual(browser.do(ACCESSIBLE), [], (width, dark))
                if axe := axe_core():
                    browser.do(f"{axe.read_text(encoding='utf-8')}\n;0")
                    found = browser.do(
                        "axe.run().then((found) => found.violations.map("
                        "(each) => `${each.id}: ${each.nodes[0].html}`))"
                    )
                    self.assertEqual(found, [], (width, dark))
                if pictures:
                    path = browser.do("location.pathname").strip("/").partition("/")
                    name = f"{path[0] or 'state'}{'-one' if path[2] else ''}"
                    shade = "dark" if dark else "light"
                    browser.picture(Path(pictures) / f"{name}-{width}-{shade}.png")


class Troubles(PageTestCase):
    """An operator leaves the page open."""

    def test_a_dead_next_hop_comes_and_goes(self) -> None:
        port = free_port()
        toml = '[queue]\nretry_minimum = "1 s"\nretry_maximum = "1 s"\n'
        with MTA(self.home, "--route", f"relay.example=smtp://{LOOPBACK}:{port}", toml=toml) as mta:
            browser = self.browser(mta)
            browser.wait(f"{VERDICT} === 'All is well'")
            submit(mta.smtp, message(), "bob@relay.example")
            mta.wait_for(lambda: "deferred" in mta.output(), "an attempt that failed")
            browser.wait(f"{VERDICT} === '1 trouble'", SOON)
            self.assertIn("What to do: See twisted-mta explain", browser.text())
            news = browser.do("document.getElementById('news').textContent")
            self.assertEqual(news, "1 trouble")  # what a screen reader says
            browser.wait(
                "document.querySelector('#queue td a')?.textContent === 'relay.example'", 40
            )
            sink = self.enterContext(Sink(self.home, port=port))
            sink.wait_for_messages(1)
            browser.wait(f"{VERDICT} === 'All is well'", SOON)
            self.assertEqual(browser.complaints, [])

    def test_a_stopped_worker_comes_and_goes(self) -> None:
        need_proc()
        with MTA(self.home, "--workers", "2") as mta:
            workers = mta.wait_for(
                lambda: found if len(found := children(mta.pid)) == 2 else [], "both workers"
            )
            browser = self.browser(mta)
            browser.wait(f"{VERDICT} === 'All is well'")
            os.kill(workers[1], signal.SIGSTOP)
            try:
                browser.wait(f"{VERDICT} === '1 trouble'", SOON)
                self.assertIn("worker 1 is not answering", browser.text())
            finally:
                os.kill(workers[1], signal.SIGCONT)
            browser.wait(f"{VERDICT} === 'All is well'", SOON)
            self.assertEqual(browser.complaints, [])

    def test_a_full_disk_comes_and_goes(self) -> None:
        need("unshare")
        need_proc()
        with OwnDisk(self.home, toml='[mta]\nminimum_free_disk = "8 MiB"\n') as mta:
            browser = self.browser(mta)
            browser.wait(f"{VERDICT} === 'All is well'")
            filling = mta.disk / "filling"
            free = os.statvfs(mta.disk)
            filling.write_bytes(b"x" * (free.f_bavail * free.f_frsize - (6 << 20)))
            browser.wait(f"{VERDICT} === 'Mail is refused'", SOON)
            self.assertIn("What to do: Free space", browser.text())
            filling.unlink()
            browser.wait(f"{VERDICT} === 'All is well'", SOON)

    def test_an_expired_certificate_comes_and_goes(self) -> None:
        need("cc")
        authority, path = Authority(), self.home / "mx.pem"
        authority.issue("mx.example").save(str(self.home), "mx.pem")
        clock = WallClock(self.home)
        mta = MTA(self.home, "--tls-certificate", str(path))
        mta.environment = clock.environment
        with mta:
            browser = self.browser(mta)
            browser.wait(f"{VERDICT} === 'All is well'")
            clock.set(40 * 86_400.0)
            browser.wait("document.body.innerText.includes('the certificate expired on')", SOON)
            authority.issue("mx.example", days=(-1, 400)).save(str(self.home), "mx.pem")
            self.assertEqual(mta.tool("reload").returncode, 0)
            browser.wait("!document.body.innerText.includes('the certificate expired on')", SOON)

    def test_a_page_says_that_the_mta_does_not_answer(self) -> None:
        with MTA(self.home) as mta:
            for _ in range(3):
                submit(mta.smtp, message(), "bob@localhost")
            mta.wait_for_mail("localhost", "bob", 3)
            browser = self.browser(mta)
            browser.wait(f"{VERDICT} === 'All is well'")
            mta.stop()
            browser.wait("!document.getElementById('stale').hidden", SOON)
            self.assertIn("the MTA does not answer", browser.text())
            mta.start()
            browser.wait("document.getElementById('stale').hidden", SOON)
            # The charts know of before the restart.
            told = "document.getElementById('throughput-desc').textContent"
            browser.wait(f"/accepted: at most [1-3];?/.test({told}.replace(',', ';'))")


class Reading(PageTestCase):
    def test_all_pages_fit_on_a_phone_in_the_dark_and_for_a_screen_reader(self) -> None:
        port = free_port()
        route = f"relay.example=smtp://{LOOPBACK}:{port}"
        with MTA(self.home, "--workers", "2", "--route", route) as mta:
            for number in range(6):
                submit(mta.smtp, message(), f"{'long-name-' * 5}{number}@relay.example")
                submit(mta.smtp, message(), "bob@localhost")
            mta.wait_for_mail("localhost", "bob", 6)
            browser = self.browser(mta)
            browser.wait(f"{VERDICT} === '1 trouble'")
            browser.wait("document.querySelectorAll('svg path').length >= 4")
            browser.click("summary", "Throughput")
            browser.wait("document.querySelector('details[open] td')")
            self.assertAccessible(browser)
            # The part is replaced every 2 seconds, and stays open.
            before = browser.do("document.querySelector('#state time').textContent")
            browser.wait(
                f"document.querySelector('#state time').textContent !== {json.dumps(before)}"
            )
            self.assertTrue(browser.do("!!document.querySelector('details[open]')"))
            for span in ("24 hours", "7 days"):
                browser.click("nav a", span)
                browser.wait(f"document.querySelector('#charts h2').textContent.includes('{span}')")
            browser.click("header nav a", "Queue")
            browser.wait("document.querySelectorAll('#found tbody tr').length === 6")
            self.assertAccessible(browser)
            browser.do("document.querySelector('[name=to]').value = '*3@relay.example'")
            browser.click("button", "Search")
            browser.wait("document.querySelectorAll('#found tbody tr').length === 1")
            browser.click("#found a")
            browser.wait("document.getElementById('explanation')?.textContent.includes('Why:')")
            self.assertNotIn("Header section", browser.text())
            self.assertAccessible(browser)
            self.assertEqual(browser.complaints, [])

    def test_the_keyboard_leads_to_the_content_and_the_queue(self) -> None:
        with MTA(self.home) as mta:
            browser = self.browser(mta)
            browser.wait(VERDICT)
            browser.press("Tab", 9)
            browser.wait("document.activeElement.textContent === 'To the content'")
            self.assertGreater(browser.do("document.activeElement.offsetHeight"), 10)
            browser.press("Tab", 9)
            browser.press("Tab", 9)
            browser.press("Enter", 13)
            browser.wait("location.pathname === '/queue'")
            self.assertIn("The queue is empty.", browser.text())


class Acting(PageTestCase):
    def test_an_operator_logs_in_and_holds_and_removes_mail(self) -> None:
        users = self.home / "users"
        subprocess.run(
            [TOOL, "users", "add", "--file", users, "ann"],
            input=f"{PASSWORD}\n".encode(),
            check=True,
            capture_output=True,
        )
        port = free_port()
        toml = f'[web]\nusers = "{users}"\n'
        with MTA(self.home, "--route", f"a.example=smtp://{LOOPBACK}:{port}", toml=toml) as mta:
            for name in ("bob", "carol"):
                submit(mta.smtp, message(), f"{name}@a.example")
            browser = self.browser(mta, "/queue")
            browser.wait("document.querySelectorAll('#found tbody tr').length === 2")
            self.assertNotIn("Remove", browser.text())
            browser.click("a", "Log in")
            browser.wait("document.querySelector('[name=password]')")
            browser.do("document.querySelector('[name=name]').value = 'ann'")
            browser.do(f"document.querySelector('[name=password]').value = '{PASSWORD}'")
            browser.click("button", "Log in")
            browser.wait(f"{VERDICT}.length > 0")
            browser.wait("document.querySelector('main').dataset.events === 'open'")
            browser.open(f"http://{LOOPBACK}:{mta.web}/queue?to=bob%40a.example")
            browser.wait("document.querySelectorAll('#found tbody tr').length === 1")
            self.assertAccessible(browser)
            browser.click("button", "Hold")
            browser.wait("document.querySelector('h1').textContent.startsWith('Hold 1 recipient')")
            self.assertAccessible(browser)
            self.assertNotIn('"held"', mta.tool("queue", "list", "--json").stdout)
            browser.click("button", "Hold")
            browser.wait("document.querySelector('h1').textContent.startsWith('On hold: 1')")
            browser.click("header nav a", "Queue")
            browser.wait("document.querySelector('#found .held')")
            browser.click("#found a")
            browser.wait("document.getElementById('header')?.textContent.includes('Greetings')")
            self.assertAccessible(browser)
            browser.click("button", "Remove")
            browser.wait("document.querySelector('button.grave')")
            browser.click("button.grave")
            browser.wait("document.querySelector('h1').textContent.startsWith('Removed: 1')")
            left = json.loads(mta.tool("queue", "list", "--json").stdout)
            self.assertEqual(
                [each["recipients"][0]["address"] for each in left["messages"]],
                ["carol@a.example"],
            )
            browser.click("button", "Log out")
            browser.wait("document.querySelector('[name=password]')")
            self.assertEqual(browser.complaints, [])
            eventually(lambda: "ann (login)" in mta.output(), "the name in the log", 5)
