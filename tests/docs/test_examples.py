"""The Python examples on the pages run."""

import ast
import re
import textwrap
import unittest
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.mail.smtp import SMTPServerError
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta import Config
from twisted_mta.testing.client import SMTPClientEnd
from twisted_mta.testing.delivery import RecordingDelivery
from twisted_mta.testing.memory_mta import MemoryMTA
from twisted_mta.testing.network import MemoryNetwork, address

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


def examples(page: str) -> list[str]:
    """Return the Python blocks of a page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?: {3}.*\n|\n)+)", text, re.MULTILINE)
    return [textwrap.dedent(block) for block in blocks]


class RecordedMessage:
    """An `IMessage` that records what it is told."""

    def __init__(self) -> None:
        self.calls: list[bytes | str] = []

    def lineReceived(self, line: bytes) -> None:
        self.calls.append(line)

    def eomReceived(self) -> Deferred[None]:
        self.calls.append("queued")
        return succeed(None)

    def connectionLost(self) -> None:
        self.calls.append("lost")


class Examples(SynchronousTestCase):
    def test_all_of_them_are_python(self) -> None:
        for page in ("tutorial.rst", "embedding.rst", "filters.rst", "testing.rst"):
            for example in examples(page):
                ast.parse(example)

    def test_the_tests_with_an_agent_in_memory_pass(self) -> None:
        suite = unittest.TestSuite()
        for example in (each for each in examples("testing.rst") if "MemoryMTA(" in each):
            names: dict[str, Any] = {"__name__": "example"}
            exec(example, names)
            for case in names.values():
                if isinstance(case, type) and case.__module__ == "example":
                    suite.addTests(unittest.defaultTestLoader.loadTestsFromTestCase(case))
        result = unittest.TestResult()
        suite.run(result)
        self.assertEqual((result.testsRun, result.errors, result.failures), (5, [], []))

    def test_mail_comes_to_a_server_that_is_running(self) -> None:
        (example,) = (each for each in examples("testing.rst") if "with running() as" in each)
        exec(example, {"__name__": "example"})

    def test_a_filter_refuses_what_it_looks_for_and_queues_the_rest(self) -> None:
        (example,) = examples("filters.rst")
        names: dict[str, Any] = {}
        exec(example.partition("application = ")[0], names)
        for line, wanted in (
            (b"Good morning!", True),
            (b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE", False),
        ):
            queued = RecordedMessage()
            message = names["FilteredMessage"](queued)
            message.lineReceived(line)
            result = message.eomReceived()
            if wanted:
                self.successResultOf(result)
            else:
                self.assertEqual(self.failureResultOf(result, SMTPServerError).value.code, 550)
            self.assertEqual(queued.calls, [line, "queued" if wanted else "lost"])

    def test_an_application_submits_observes_and_steers(self) -> None:
        mta = MemoryMTA(
            self.mktemp(),
            local_domains=("example.net",),
            recipients="any",
            routes=(("far.example", "smtp://192.0.2.1"),),
        )
        self.addCleanup(mta.stop)
        mta.start()
        names: dict[str, Any] = {"agent": mta.mta, "print": lambda *words: said.append(words)}
        said: list[tuple[Any, ...]] = []
        for example in examples("embedding.rst"):
            if any(each in example for each in ("def welcome", "def report", "def log", "tidy_up")):
                exec(example, names)

        def run(coroutine: Any) -> Any:
            running = Deferred.fromCoroutine(coroutine)
            mta.reactor.settle()
            return self.successResultOf(running)

        id = run(names["welcome"](mta.mta, "bob@example.net"))
        self.assertEqual(len(mta.mail("bob", "example.net")), 1)
        self.assertEqual([each[1:3] for each in said], [(id, "Accepted"), (id, "Delivered")])
        names["stop"]()
        said.clear()
        receipt = mta.submit(b"Subject: x\n\n", sender="", recipients=["ann@far.example"])
        reporting = Deferred.fromCoroutine(names["report"](mta.mta, receipt))
        mta.advance(3 * 86400 + 1)
        run(names["tidy_up"](mta.mta))
        self.successResultOf(reporting)
        self.assertEqual(said, [("ann@far.example", "Removed", None)])

    def test_an_extension_is_given_to_an_agent(self) -> None:
        (example,) = (text for text in examples("embedding.rst") if "XTICKET" in text)
        names: dict[str, Any] = {
            "config": Config(state_dir=self.mktemp()),
            "reactor": Clock(),
        }
        exec(example, names)
        self.assertEqual(names["TICKET"].mail["XTICKET"]("ann"), "ann")

    def test_a_checker_is_given_to_an_agent(self) -> None:
        (example,) = (text for text in examples("embedding.rst") if "checkers=[" in text)
        names: dict[str, Any] = {"reactor": Clock()}
        imported = "from twisted.internet import reactor\n"
        self.assertIn(imported, example)
        exec(example.replace(imported, ""), names)
        self.assertEqual(names["agent"].config.listeners, (names["submission"],))

    def test_a_verb_of_a_subclass_of_twisted_mail_becomes_an_extension(self) -> None:
        (example,) = (text for text in examples("from-twisted-mail.rst") if "XCLOCK" in text)
        network = MemoryNetwork()
        names: dict[str, Any] = {"delivery": RecordingDelivery()}
        exec(example, names)
        names["factory"].clock = network
        client = SMTPClientEnd()
        server = names["factory"].buildProtocol(address("192.0.2.7", 4711))
        network.join(client, server, "127.0.0.1", 25)
        self.addCleanup(client.transport.abortConnection)
        for line in (b"EHLO client.example\r\n", b"XCLOCK\r\n"):
            client.transport.write(line)
            network.advance(0)
        self.assertIn(b"XCLOCK\r\n", client.unread)
        self.assertTrue(client.unread.endswith(b"250 2.0.0 noon\r\n"))

    def test_a_policy_refuses_marks_and_rewrites(self) -> None:
        (example,) = (text for text in examples("embedding.rst") if "class Rules" in text)
        names: dict[str, Any] = {}
        exec(example.partition("\n\nagent = ")[0], names)
        mta = MemoryMTA(
            self.mktemp(), application_policy=names["Rules"](), local_domains=("example.net",)
        )
        self.addCleanup(mta.stop)
        mta.start()
        stranger = mta.connect(source="192.0.2.7", greet=False)
        refused = stranger.say("EHLO localhost")[-1]
        self.assertEqual(refused, "550 5.7.1 You are not localhost")
        mta.submit_by_smtp(b"X-Campaign: 1\r\n\r\nHello\r\n", "sales@example.net")
        for name in ("ann", "bob"):
            (mail,) = mta.mail(name, "example.net")
            self.assertIn(b"\nX-Bulk: yes\n", mail)
        mta.submit_by_smtp(b"\r\nlottery\r\n", "carl@example.net")
        self.assertEqual(mta.mail("carl", "example.net"), [])
