"""Webhooks of ``twistd mta``: an HTTPS server gets each event, whatever is killed meanwhile."""

from __future__ import annotations

import json
import re
import sys
import threading
from pathlib import Path

from .machine import LOOPBACK, eventually, free_port, listens, need, run
from .mail import ProgramTestCase, message, submit
from .mta import MTA, TOOL
from .postgresql import PostgreSQL
from .program import Program
from .test_smarthost import certificate_pair
from .webhook_receiver import WebhookReceiver

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


class ExampleReceiver(Program):
    """An example of the documentation.

    Args:
        home: of its log.
        command: that runs it.
        secret: that it verifies with.
    """

    def __init__(self, home: Path, *command: str, secret: str) -> None:
        super().__init__(home, f"{Path(command[-1]).name}.log")
        self.port = free_port()
        self.arguments = [*command, str(self.port)]
        self.environment = {"WEBHOOK_SECRET": secret}

    def start(self) -> None:
        """Start it; return when it listens."""
        self.spawn(self.arguments)
        self.wait_for(lambda: listens(self.port), "a port that listens")

    def events(self) -> list[dict[str, object]]:
        """Return the events that it has printed."""
        lines = self.output().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


class Webhooks(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        need("openssl")
        self.secret = self.new_secret("secret")
        self.pair = certificate_pair(self.home)
        self.receiver = self.enterContext(WebhookReceiver(self.pair))

    def new_secret(self, name: str) -> str:
        made = run(TOOL, "webhooks", "secret", self.home / name)
        self.assertEqual(made.returncode, 0, made.stdout)
        return made.stdout.strip()

    def hook(self, url: str, *more: str, secret: str = "secret") -> str:
        lines = (f'url = "{url}"', f'secret_file = "{self.home / secret}"', *more)
        return "\n".join(("[[webhook]]", *lines, ""))

    def mta(self, *options: str, hooks: str = "") -> MTA:
        own = self.hook(self.receiver.url, f'authorities = "{self.home}/certificate.pem"')
        return self.enterContext(MTA(self.home, *options, toml=hooks or own))

    def test_each_step_arrives_and_the_tool_shows_and_tests_the_webhook(self) -> None:
        mta = self.mta()
        submit(mta.smtp, message(), "bob@localhost")
        for type in ("accepted", "delivered"):  # in any order
            eventually(lambda: self.receiver.taken(type), f"the event {type}")  # noqa: B023
        self.assertEqual(self.receiver.taken("accepted"), self.receiver.taken("delivered"))
        tested = mta.tool("webhooks", "test")
        self.assertEqual((tested.returncode, tested.stdout), (0, f"{self.receiver.url}: taken\n"))

        def shown() -> list[str]:
            return mta.tool("webhooks", "list").stdout.splitlines()[1].split("\t")

        eventually(lambda: shown()[1:4] == ["ready", "0", "2"], "an empty outbox")
        self.receiver.code = 500
        refused = mta.tool("webhooks", "test", self.receiver.url)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("not taken: it answers 500, expected 2xx", refused.stdout)

    def test_a_kill_between_outcome_and_post_loses_no_event(self) -> None:
        mta = self.mta()
        self.receiver.code = 0  # it reads the request, and does not answer
        submit(mta.smtp, message(), "bob@localhost")
        mta.wait_for_mail("localhost", "bob")
        for type in ("accepted", "delivered"):  # in any order
            eventually(lambda: self.receiver.taken(type), f"a request for {type}")  # noqa: B023
        before = {event["type"]: event["id"] for _, event in self.receiver.forget()}
        mta.kill()
        self.receiver.code = 204
        mta.start()
        eventually(lambda: self.receiver.taken("delivered"), "the event after the restart")
        eventually(lambda: self.receiver.taken("accepted"), "the other event")
        after = {event["type"]: event["id"] for _, event in self.receiver.forget()}
        self.assertEqual(after, before)

    def test_kills_under_load_lose_no_event(self) -> None:
        mta = self.mta()
        self.receiver.code = 503
        sent = 0
        for _ in range(3):
            enough = threading.Event()
            killing = threading.Thread(target=lambda: (enough.wait(60), mta.kill()))  # noqa: B023
            killing.start()
            for number in range(200):
                if number == 15:
                    enough.set()  # and goes on, until the connection breaks
                try:
                    submit(mta.smtp, message(), "bob@localhost", starttls=False)
                except OSError:
                    break
                sent += 1
            enough.set()
            killing.join()
            mta.start()
        self.receiver.forget()
        self.receiver.code = 204
        self.assertEqual(mta.tool("reload").returncode, 0)
        mta.wait_for(
            lambda: '"messages": 0' in mta.tool("status", "--json").stdout, "an empty queue"
        )
        delivered = {
            found[1].decode()
            for each in mta.mail("localhost", "bob")
            if (found := re.search(rb"\sid (\w{13})\b", each))
        }
        self.assertGreaterEqual(len(delivered), sent)
        self.assertGreaterEqual(sent, 45)
        for type in ("accepted", "delivered"):
            missing = f"{type} events of all messages"
            eventually(lambda: delivered <= set(self.receiver.taken(type)), missing)  # noqa: B023

    def test_the_receivers_of_the_documentation_verify_events(self) -> None:
        need("node")
        other = self.new_secret("other")
        receivers = [
            ExampleReceiver(self.home, *command, secret=self.secret)
            for command in (
                (sys.executable, str(EXAMPLES / "webhook_receiver.py")),
                ("node", str(EXAMPLES / "webhook_receiver.mjs")),
            )
        ]
        for each in receivers:
            self.enterContext(each)
        urls = [f"http://{LOOPBACK}:{each.port}/" for each in receivers]
        mta = self.mta(hooks="".join(map(self.hook, urls)))
        submit(mta.smtp, message(), "bob@localhost")
        for each in receivers:
            eventually(lambda: len(each.events()) == 2, "two events")  # noqa: B023
            self.assertEqual({event["type"] for event in each.events()}, {"accepted", "delivered"})
        # With two secrets each signs; with the other one alone, neither takes anything.
        both = f"{other}\n{self.secret}\n"
        (self.home / "secret").write_text(both, encoding="ascii")
        self.assertEqual(mta.tool("reload").returncode, 0)
        self.assertEqual(mta.tool("webhooks", "test").returncode, 0)
        (self.home / "secret").write_text(f"{other}\n", encoding="ascii")
        self.assertEqual(mta.tool("reload").returncode, 0)
        refused = mta.tool("webhooks", "test")
        self.assertEqual(refused.returncode, 1)
        self.assertEqual(refused.stdout.count("it answers 401, expected 2xx"), 2)

    def test_a_server_that_does_not_prove_its_name_gets_no_event(self) -> None:
        mta = self.mta(hooks=self.hook(self.receiver.url))  # without its authority
        submit(mta.smtp, message(), "bob@localhost")
        eventually(
            lambda: "its certificate is self-signed" in mta.tool("webhooks", "list").stdout,
            "a failure that is shown",
        )
        self.assertEqual(self.receiver.requests, [])

    def test_each_worker_posts_its_own_events_and_their_sum_is_shown(self) -> None:
        mta = self.mta("--workers", "2")
        for _ in range(10):
            submit(mta.smtp, message(), "bob@localhost")
        eventually(lambda: len(self.receiver.requests) >= 20, "two events of each message")
        for type in ("accepted", "delivered"):
            self.assertEqual(len(set(self.receiver.taken(type))), 10)
        self.assertEqual(len(self.receiver.requests), 20)

        def posted() -> int:
            [hook] = json.loads(mta.tool("webhooks", "list", "--json").stdout)["webhooks"]
            return int(hook["posted"])

        eventually(lambda: posted() == 20, "the sum of both workers")

    def test_a_queue_in_postgresql_loses_no_event_either(self) -> None:
        self.home.chmod(0o755)
        database = self.enterContext(PostgreSQL(self.home))
        mta = self.mta("--queue", database.url)
        self.receiver.code = 503
        submit(mta.smtp, message(), "bob@localhost")
        mta.wait_for_mail("localhost", "bob")
        eventually(lambda: self.receiver.taken("delivered"), "a request")
        mta.kill()
        self.receiver.forget()
        self.receiver.code = 204
        mta.start()
        eventually(lambda: self.receiver.taken("delivered"), "the event after the restart")
        eventually(lambda: self.receiver.taken("accepted"), "the other event")
