"""The pipe between a parent and a worker."""

from __future__ import annotations

import json
import socket
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection

from tests.tidy import TidyTestCase
from twisted_mta.mail.address import AddressError
from twisted_mta.testing.network import MemoryTransport, address
from twisted_mta.workers.pipe import CallFailed, Pipe, PipeClosed


class RecordingPipe(Pipe):
    """A pipe that records the octets that it receives."""

    heard = b""

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        super().dataReceived(data)  # type: ignore[no-untyped-call]


class End:
    """One end of a pipe: the calls that it got, and how often it was lost."""

    def __init__(self, clock: Clock, *, client: bool) -> None:
        self.said: list[Any] = []
        self.lost = 0
        self.later: Deferred[Any] = Deferred()
        self.pipe = RecordingPipe(
            {
                "add": lambda a, b: a + b,
                "say": lambda word: self.said.append(word),
                "fail": self.fail,
                "later": lambda: self.later,
                "unsayable": object,
                "size": lambda text: len(text),
            },
            self.lose,
        )
        here = address("127.0.0.1", 1)
        self.transport = MemoryTransport(clock, client=client, host=here, peer=here)

    def fail(self) -> None:
        raise OSError("the disk is full")

    def lose(self) -> None:
        self.lost += 1


class Calls(TidyTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.parent = End(self.clock, client=True)
        self.worker = End(self.clock, client=False)
        ends = (self.parent, self.worker)
        for end, other in zip(ends, reversed(ends), strict=True):
            end.transport.other = other.transport
            end.transport.protocol = end.pipe
        for end in ends:
            end.pipe.makeConnection(end.transport)  # type: ignore[no-untyped-call]

    def settle(self) -> None:
        for _ in range(10):
            self.clock.advance(0)

    def answer(self, called: Deferred[Any]) -> Any:
        self.settle()
        return self.successResultOf(called)

    def test_each_end_may_call_the_other(self) -> None:
        self.assertEqual(self.answer(self.parent.pipe.call("add", a=1, b=2)), 3)
        self.assertEqual(self.answer(self.worker.pipe.call("add", a="x", b="y")), "xy")

    def test_answers_may_come_in_any_order(self) -> None:
        first = self.parent.pipe.call("later")
        second = self.parent.pipe.call("add", a=1, b=1)
        self.assertEqual(self.answer(second), 2)
        self.assertNoResult(first)
        self.worker.later.callback([1, {"two": None}])
        self.assertEqual(self.answer(first), [1, {"two": None}])

    def test_calls_without_an_answer_arrive_in_order(self) -> None:
        for number in range(5):
            self.parent.pipe.send("say", word=number)
        self.settle()
        self.assertEqual(self.worker.said, [0, 1, 2, 3, 4])
        self.assertEqual(self.parent.pipe.heard, b"")

    def test_a_failed_call_keeps_the_name_and_the_text_of_the_error(self) -> None:
        called = self.parent.pipe.call("fail")
        self.settle()
        error = self.failureResultOf(called, CallFailed).value
        self.assertEqual((error.error, str(error)), ("OSError", "the disk is full"))
        self.assertEqual(self.answer(self.parent.pipe.call("add", a=1, b=2)), 3)

    def test_an_error_about_the_arguments_has_one_name_whatever_its_kind(self) -> None:
        for error in (ValueError("not this"), AddressError("not this")):
            called = self.parent.pipe.call("later")
            self.settle()
            self.worker.later.errback(error)
            self.settle()
            told = self.failureResultOf(called, CallFailed).value
            self.assertEqual((told.error, str(told)), ("ValueError", "not this"))
            self.worker.later = Deferred()

    def test_a_failed_call_without_an_answer_is_logged(self) -> None:
        self.parent.pipe.send("fail")
        self.settle()
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_an_unknown_call_fails_and_the_pipe_stays_open(self) -> None:
        for name, arguments in (("nothing", {}), ("add", {"c": 1}), ("unsayable", {})):
            called = self.parent.pipe.call(name, **arguments)
            self.settle()
            self.failureResultOf(called, CallFailed)
        self.parent.pipe.send("nothing")
        self.settle()
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)
        self.assertEqual(self.answer(self.parent.pipe.call("add", a=1, b=2)), 3)

    def test_calls_under_way_fail_when_the_other_end_closes(self) -> None:
        waiting = [self.parent.pipe.call("later") for _ in range(2)]
        self.settle()
        self.worker.transport.loseConnection()
        self.settle()
        for each in (*waiting, self.parent.pipe.call("add", a=1, b=2)):
            self.failureResultOf(each, PipeClosed)
        self.parent.pipe.send("say")
        self.assertEqual((self.parent.lost, self.worker.lost), (1, 1))
        self.worker.later.callback(None)  # the other end has closed

    def test_the_answer_to_a_cancelled_call_is_dropped(self) -> None:
        called = self.parent.pipe.call("later")
        self.settle()
        called.cancel()
        self.failureResultOf(called, CancelledError)
        self.worker.later.callback("too late")
        self.settle()
        self.assertEqual(self.answer(self.parent.pipe.call("add", a=1, b=2)), 3)

    def test_one_failing_call_may_cancel_another(self) -> None:
        first, second = (self.parent.pipe.call("later") for _ in range(2))
        first.addErrback(lambda _: second.cancel())
        self.settle()
        self.worker.transport.loseConnection()
        self.settle()
        self.failureResultOf(second, CancelledError)
        self.assertEqual(self.parent.lost, 1)

    def test_settings_of_any_size_pass(self) -> None:
        self.assertEqual(
            self.answer(self.parent.pipe.call("size", text="é" * 2_000_000)), 2_000_000
        )

    def test_a_message_may_arrive_in_pieces(self) -> None:
        said = json.dumps({"call": "add", "id": 7, "arguments": {"a": 1, "b": 1}}).encode("ascii")
        for octet in len(said).to_bytes(4, "big") + said:
            self.worker.pipe.dataReceived(bytes((octet,)))
        self.settle()
        self.assertEqual(self.parent.lost, 0)  # an answer without a call is dropped

    def test_a_message_that_cannot_be_read_closes_the_pipe(self) -> None:
        for garbage in (b"{", b"\xff", b"[]", b"null", b'{"id": 1}', b'{"call": "add"}'):
            self.setUp()
            waiting = self.worker.pipe.call("later")
            self.settle()
            self.parent.pipe.sendString(garbage)  # type: ignore[no-untyped-call]
            self.settle()
            self.assertEqual((self.parent.lost, self.worker.lost), (1, 1), garbage)
            self.failureResultOf(waiting, PipeClosed)
            self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_a_message_that_is_too_long_closes_the_pipe(self) -> None:
        self.parent.transport.write((Pipe.MAX_LENGTH + 1).to_bytes(4, "big"))
        self.settle()
        self.assertEqual((self.parent.lost, self.worker.lost), (1, 1))


class QuietReactor:
    """A reactor that reads and writes nothing by itself."""

    def addReader(self, reader: object) -> None:
        """Do nothing."""

    removeReader = addWriter = removeWriter = addReader


class OverSockets(TidyTestCase):
    def setUp(self) -> None:
        self.heard: list[str] = []
        ours, self.theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(self.theirs.close)
        for each in (ours, self.theirs):
            each.setblocking(False)
        self.pipe = Pipe({"say": lambda word: self.heard.append(word[0])}, lambda: None)
        transport = Connection(ours, self.pipe, QuietReactor())  # type: ignore[no-untyped-call]
        transport.connected = 1
        self.pipe.makeConnection(transport)  # type: ignore[no-untyped-call]

    def test_what_is_sent_now_can_be_read_at_once(self) -> None:
        self.pipe.send("say", word="later")
        with self.assertRaises(BlockingIOError):
            self.theirs.recv(100)
        self.pipe.send_now("say", word="now")
        octets = self.theirs.recv(1000)
        self.assertIn(b"later", octets)
        self.assertIn(b"now", octets)

    def test_all_that_a_dead_process_has_sent_is_read(self) -> None:
        message = b'{"call":"say","arguments":{"word":"%s"}}'
        for letter in b"abc":
            said = message % (bytes([letter]) * 30_000)
            self.theirs.send(len(said).to_bytes(4, "big") + said)
        self.theirs.close()
        self.pipe.read_rest()
        self.assertEqual(self.heard, ["a", "b", "c"])
