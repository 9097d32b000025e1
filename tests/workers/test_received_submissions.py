"""A worker takes mail of the application from its parent, with the agent of one in memory."""

from __future__ import annotations

import pickle
from base64 import b64encode
from typing import Any

from twisted.internet.defer import Deferred

from tests.tidy import TidyTestCase
from twisted_mta.mail.events import Accepted
from twisted_mta.smtp.application_envelope import read_envelope
from twisted_mta.telemetry.log import Log
from twisted_mta.testing.memory_mta import EPOCH, MemoryMTA
from twisted_mta.workers.submissions import ReceivedSubmissions
from twisted_mta.workers.worker import Worker

PLAIN = b"Subject: Hi\r\n\r\nHello.\r\n"


class Receiving(TidyTestCase):
    def setUp(self) -> None:
        self.mta = MemoryMTA(
            self.mktemp(), recipients="existing", routes=(("*", "smtp://192.0.2.1"),)
        )
        self.addCleanup(self.mta.stop)
        self.mta.start()
        self.calls = ReceivedSubmissions(lambda: self.mta.mta.agent).calls

    def call(self, name: str, **arguments: Any) -> Deferred[Any]:
        called: Deferred[Any] = self.calls[f"submission_{name}"](**arguments)
        self.mta.reactor.settle()
        return called

    def begin(self, recipient: str = "postmaster@localhost") -> Any:
        envelope = read_envelope(
            "app@localhost", [recipient], notify=None, hold_until=None, now=EPOCH, longest=1.0
        )
        packed = b64encode(pickle.dumps(envelope)).decode("ascii")
        return self.successResultOf(self.call("begin", number=1, envelope=packed))

    def write(self, content: bytes = PLAIN) -> None:
        self.call("write", number=1, octets=b64encode(content).decode("ascii"))

    def test_a_message_that_is_finished_is_in_the_queue(self) -> None:
        begun = self.begin()
        self.write()
        self.write(b"More.\r\n")
        self.assertEqual(self.successResultOf(self.call("finish", number=1)), begun)
        (mail,) = self.mta.mail("postmaster")
        self.assertTrue(mail.endswith(b"Hello.\nMore.\n"))
        self.assertEqual({each.id for each in self.mta.events}, {begun["id"]})

    def test_a_message_that_is_aborted_is_not(self) -> None:
        self.begin()
        self.write(PLAIN + b"x" * 100_000)
        self.call("abort", number=1)
        self.call("abort", number=1)
        self.assertEqual(self.mta.events, [])
        self.assertEqual([each for each in self.mta.files.tree() if "/body/" in each], [])

    def test_a_refusal_is_an_answer(self) -> None:
        refused = self.begin("nobody@localhost")
        self.assertEqual(list(refused["recipients"]), ["nobody@localhost"])
        self.assertEqual(refused["refused"]["code"], 550)
        self.begin()
        self.write(b"Received: from x by y\r\n" * 101 + PLAIN)
        self.assertEqual(
            self.successResultOf(self.call("finish", number=1))["refused"]["code"], 554
        )

    def test_a_successor_finds_what_is_in_the_queue_and_tells_of_what_was_not_told(self) -> None:
        id = self.mta.submit(PLAIN, sender="", recipients=["a@far.example", "b@far.example"]).id
        gone = self.mta.submit(PLAIN, sender="", recipients=["postmaster@localhost"]).id
        self.mta.events.clear()
        worker = Worker(0, self.mta.reactor, Log("text", worker=0))
        worker._agent = self.mta.mta.agent
        found = worker.queued_recipients([id, gone], [])
        self.mta.reactor.settle()
        self.assertEqual(self.successResultOf(found), {id: [0, 1]})
        self.assertEqual(self.mta.events, [])
        found = worker.queued_recipients([id, gone], [id, gone])
        self.mta.reactor.settle()
        self.successResultOf(found)
        (told,) = self.mta.events
        self.assertIsInstance(told, Accepted)
        self.assertEqual((told.id, told.recipients), (id, ("a@far.example", "b@far.example")))
