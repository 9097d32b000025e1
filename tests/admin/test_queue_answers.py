"""Answers about the queue of an agent in memory."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Coroutine
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from tests.agent.explain.world import World
from tests.queue.mail import BODY, message
from tests.tidy import TidyTestCase
from twisted_mta.admin.queue_answers import list_messages, read_content, show_message
from twisted_mta.mail.assessment import Assessment, Verdict
from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.message import Message
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.store.contract import Accept
from twisted_mta.queue.store.spool import FileBody


class AnswersTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.world = World(self.mktemp())
        self.addCleanup(self.world.stop)

    def queue(self, queued: Message) -> None:
        """Put a message into the queue, which makes no attempt at it."""
        self.world.mta.mta.agent.shards[0].commit.perform(Accept(queued))  # type: ignore[union-attr]
        self.world.reactor.settle()

    def ask(self, question: Callable[..., Coroutine[Any, Any, Any]], **arguments: Any) -> Any:
        """Return an answer as it leaves the process."""
        agent = self.world.mta.mta.agent
        assert agent is not None
        asked = Deferred.fromCoroutine(question(agent, agent.shards[0], **arguments))
        self.world.reactor.settle()
        return json.loads(json.dumps(self.successResultOf(asked)))


class Listing(AnswersTestCase):
    def listed(self, limit: int = 10, after: int = 0, **filters: Any) -> Any:
        return self.ask(list_messages, filters=filters, after=after, limit=limit)

    def test_messages_are_listed_with_their_paths_size_and_state(self) -> None:
        self.queue(message(1, "bob@next.example", "eve@next.example"))
        [listed] = self.listed()["messages"]
        self.assertEqual(
            {name: listed[name] for name in ("id", "reverse_path", "size")},
            {"id": str(QueueId(1)), "reverse_path": "ann@sender.example", "size": BODY.size},
        )
        first, second = listed["recipients"]
        self.assertEqual((first["number"], first["address"]), (0, "bob@next.example"))
        self.assertEqual((second["number"], second["address"]), (1, "eve@next.example"))
        self.assertEqual((first["attempts"], first["last"], first["held_at"]), (0, None, None))
        self.assertFalse(first["removing"])

    def test_the_null_reverse_path_is_null(self) -> None:
        self.queue(message(1, sender=None))
        [listed] = self.listed()["messages"]
        self.assertIsNone(listed["reverse_path"])

    def test_a_list_goes_on_behind_its_last_message(self) -> None:
        for id in range(1, 6):
            self.queue(message(id))
        found, after = [], 0
        for _ in range(3):
            page = self.listed(2, after)
            found.append([each["id"] for each in page["messages"]])
            if page["next"] is None:
                break
            after = page["next"]
        ids = [str(QueueId(id)) for id in range(1, 6)]
        self.assertEqual(found, [ids[:2], ids[2:4], ids[4:]])


class Reading(AnswersTestCase):
    """The content of a message: trace fields and body, in pieces."""

    def whole(self, queued: Message) -> bytes:
        return bytes(queued.trace) + b"".join(queued.body.chunks())

    def check(self, queued: Message) -> None:
        whole = self.whole(queued)
        self.queue(queued)
        for length in (1, 7, len(queued.trace), len(whole) + 1):
            read = b""
            for offset in range(0, len(whole), length):
                piece = self.ask(read_content, id=str(queued.id), offset=offset, length=length)
                self.assertEqual(piece["size"], len(whole))
                read += b64decode(piece["content"])
            self.assertEqual(read, whole, length)

    def test_a_content_in_memory_is_read_in_pieces(self) -> None:
        self.check(message(1))

    def test_a_content_in_a_file_is_read_in_pieces(self) -> None:
        queued, files = message(1), self.world.mta.files
        agent = self.world.mta.mta.agent
        assert agent is not None
        path = f"{agent.config.state_dir}/body/{queued.id}"
        content = b"Subject: File\r\n\r\nIn a file.\r\n"
        file = files.create(path)
        file.write(content)
        file.close()
        self.check(evolve(queued, body=FileBody(files, path, len(content))))

    def test_a_content_in_a_file_that_was_used_again_is_read_in_pieces(self) -> None:
        queued, files = message(1), self.world.mta.files
        agent = self.world.mta.mta.agent
        assert agent is not None
        made_for = QueueId(7)
        path = f"{agent.config.state_dir}/body/{made_for}"
        content = b"Subject: File\r\n\r\nIn a file.\r\n"
        file = files.create(path)
        file.write(b"%s\r\n%sof another one" % (str(queued.id).encode(), content))
        file.close()
        self.check(evolve(queued, body=FileBody(files, path, len(content), queued.id, made_for)))

    def test_the_content_of_another_shard_is_none(self) -> None:
        self.assertIsNone(self.ask(read_content, id=str(QueueId(9)), offset=0, length=9))
        self.assertIsNone(self.ask(show_message, id=str(QueueId(9)), content=True))


class Showing(AnswersTestCase):
    def shown(self, queued: Message, *, content: bool = False) -> Any:
        self.queue(queued)
        return self.ask(show_message, id=str(queued.id), content=content)

    def test_with_its_content_a_message_has_its_header_section_and_no_more(self) -> None:
        self.assertNotIn("header", self.shown(message(1)))
        shown = self.shown(message(2), content=True)
        self.assertEqual(shown["header"], [["Received", "by mta.example"], ["Subject", "Hello"]])
        self.assertFalse(shown["header_truncated"])

    def test_a_long_header_section_is_cut_and_says_so(self) -> None:
        body = MemoryBody(b"Subject: Hello\r\nX: " + b"x" * 300_000 + b"\r\n\r\nbody\r\n")
        shown = self.shown(message(1, body=body), content=True)
        self.assertTrue(shown["header_truncated"])
        self.assertEqual([name for name, _ in shown["header"]], ["Received", "Subject", "X"])
        self.assertLess(len(json.dumps(shown)), 300_000)

    def test_the_null_reverse_path_is_null(self) -> None:
        self.assertIsNone(self.shown(message(1, sender=None))["reverse_path"])

    def test_a_message_is_shown_with_what_policies_found_out(self) -> None:
        assessment = Assessment((Verdict("spf", "fail", "sender.example"),), "spoofed", signs=True)
        shown = self.shown(evolve(message(1), assessment=assessment))
        self.assertEqual(
            shown["assessment"],
            {
                "verdicts": [{"policy": "spf", "result": "fail", "text": "sender.example"}],
                "quarantine": "spoofed",
                "signs": True,
                "hold": "",
                "own": False,
            },
        )
        self.assertEqual(shown["reverse_path"], "ann@sender.example")
        self.assertIsNone(shown["quarantine"])  # that is another one: a lost body

    def test_a_message_that_no_policy_was_asked_about_has_no_verdicts(self) -> None:
        self.assertEqual(
            self.shown(message(1))["assessment"],
            {
                "verdicts": [],
                "quarantine": "",
                "signs": False,
                "hold": "",
                "own": False,
            },
        )
