"""The queue over HTTP: the answers of all shards are merged."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from tests.admin.agents import ScriptedAgents
from tests.tidy import TidyTestCase
from twisted_mta.admin.http import Request, Response
from twisted_mta.admin.queue_api import QueueAPI
from twisted_mta.mail.queue_id import QueueId


def name(id: int) -> str:
    return str(QueueId(id))


class QueueAPITestCase(TidyTestCase):
    """Two shards, with even and with odd ids; `asked` records the questions to them."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[tuple[int, str, Mapping[str, Any]]] = []
        self.shards: dict[int, list[int]] = {0: [2, 4, 6, 8], 1: [1, 3, 5, 7]}
        self.gone: dict[int, None] = {}
        self.looks = 2  # messages that a shard lists, or changes, at once
        self.recipient = {"number": 0, "in_delivery": False, "waiting": False, "expected_at": None}
        self.agents = ScriptedAgents()
        self.agents.numbers = (0, 1)
        self.agents.answer_shard = self.ask_shard
        self.api = QueueAPI(self.agents, clock=self.clock)

    def ask_shard(self, shard: int, what: str, arguments: Mapping[str, Any]) -> Deferred[Any]:
        self.asked.append((shard, what, arguments))
        if shard in self.gone:
            return fail(LookupError(f"shard {shard} is gone"))
        if arguments.get("filters", {}).get("domain") == "?":
            return fail(ValueError("domain: what is that?"))
        ids = self.shards[shard]
        if what in ("show", "body"):
            if QueueId.parse(arguments["id"]) not in ids:
                return succeed(None)
            if what == "show":
                shown = {"id": arguments["id"], "content": arguments["content"]}
                return succeed({**shown, "recipients": [dict(self.recipient)]})
            piece = b"x" * 10
            return succeed({"content": b64encode(piece).decode(), "size": 25})
        left = [id for id in ids if id > arguments["after"]][: self.looks]
        following = left[-1] if len(left) == self.looks else None
        if what == "export_many":
            return succeed({"records": [{"id": name(id)} for id in left], "next": following})
        if what == "list":
            listed = [{"id": name(id), "recipients": [dict(self.recipient)]} for id in left]
            return succeed({"messages": listed, "next": following})
        done = dict.fromkeys(("messages", "recipients", "looked_at"), len(left))
        return succeed({**done, "busy": 0, "elsewhere": 0, "next": following})

    def ask(self, path: str, method: str = "GET", **other: Any) -> Response:
        where, _, query = path.partition("?")
        answer = self.api.answer(
            Request(method=method, path=f"/v1/queue{where}", query=query, **other)
        )
        return self.successResultOf(answer) if isinstance(answer, Deferred) else answer

    def json_of(self, path: str, method: str = "GET", code: int = 200, **other: Any) -> Any:
        answer = self.ask(path, method, **other)
        self.assertEqual(answer.code, code, answer.body)
        return json.loads(answer.body)

    def act(self, action: str, code: int = 200, **wish: Any) -> Any:
        body = json.dumps(wish).encode()
        return self.json_of(f"/{action}", "POST", code, body=body, user="uid 7")


class Listing(QueueAPITestCase):
    def test_pages_of_all_shards_are_one_list_in_the_order_of_ids(self) -> None:
        found, after = [], ""
        for _ in range(20):
            page = self.json_of(f"?limit=3{after}")
            self.assertLessEqual(len(page["messages"]), 3)
            found += [message["id"] for message in page["messages"]]
            if page["next"] is None:
                break
            after = f"&after={page['next']}"
        self.assertEqual(found, [name(id) for id in range(1, 9)])

    def test_mail_that_waits_in_another_process_is_not_in_delivery(self) -> None:
        self.recipient["in_delivery"] = True
        self.agents.answers["waiting"] = lambda ids: [(name(3), 0, 60.0), (name(4), 1, None)]
        shown = [*self.json_of("")["messages"], self.json_of(f"/{name(3)}")["message"]]
        self.assertEqual(
            [(name(3), False, True, 60.0)] * 2,
            [
                (each["id"], entry["in_delivery"], entry["waiting"], entry["expected_at"])
                for each in shown
                for entry in each["recipients"]
                if not entry["in_delivery"]
            ],
        )
        self.assertIn(("waiting", {"ids": [name(3)]}), self.agents.asked)
        self.agents.answers.clear()  # one that cannot be asked changes nothing
        (entry,) = self.json_of(f"/{name(3)}")["message"]["recipients"]
        self.assertTrue(entry["in_delivery"])

    def test_filters_in_the_query_reach_the_shards(self) -> None:
        self.json_of(
            f"?to=a%2Bb@x&from=%3C%3E&domain=x&state=held&older=60&id={name(1)}&id={name(2)}"
        )
        self.assertEqual(
            self.asked[0][2]["filters"],
            {
                "to": "a+b@x",
                "from": "<>",
                "domain": "x",
                "state": "held",
                "older": 60.0,
                "ids": [name(1), name(2)],
            },
        )

    def test_parameters_that_cannot_be_read_are_refused_with_why(self) -> None:
        for query, why in (
            ("colour=red", "found filter 'colour', expected one of id, to, from"),
            ("older=soon", "older: found 'soon', expected seconds"),
            ("limit=0", "limit: found '0', expected a number from 1"),
            ("limit=9999", "limit: found '9999', expected a number from 1"),
            ("to=a&to=b", "to: found 2 values, expected one"),
            ("after=x", "a queue id has"),
            ("domain=?", "domain: what is that?"),
        ):
            self.assertIn(why, self.json_of(f"?{query}", code=400)["error"])

    def test_a_shard_that_cannot_be_asked_is_named(self) -> None:
        self.gone[1] = None
        page = self.json_of("?limit=9")
        self.assertEqual(page["missing"], [{"shard": 1, "why": "shard 1 is gone"}])
        self.assertEqual([each["id"] for each in page["messages"]], [name(2), name(4)])

    def test_a_shard_that_hangs_is_missing_after_20_seconds(self) -> None:
        self.agents.numbers = (0,)
        self.agents.answer_shard = lambda *_: Deferred()
        answer = self.api.answer(Request(method="GET", path="/v1/queue"))
        assert isinstance(answer, Deferred)
        self.clock.advance(20)
        page = json.loads(self.successResultOf(answer).body)
        self.assertEqual(page["missing"][0]["why"], "it has not answered in time")


class Showing(QueueAPITestCase):
    def test_a_message_is_found_in_any_shard(self) -> None:
        for id in (3, 4):
            self.assertEqual(self.json_of(f"/{name(id)}")["message"]["id"], name(id))

    def test_an_unknown_message_is_404_or_503_where_a_shard_is_missing(self) -> None:
        self.assertIn("not in the queue", self.json_of(f"/{name(99)}", code=404)["error"])
        self.gone[1] = None
        self.assertIn("shard 1 is gone", self.json_of(f"/{name(99)}", code=503)["error"])
        self.json_of("/nonsense", code=400)
        self.json_of(f"/{name(3)}/colour", code=404)

    def test_a_long_content_is_sent_in_pieces(self) -> None:
        answer = self.ask(f"/{name(3)}/body")
        self.assertEqual((answer.content_type, answer.size), ("message/rfc822", 25))
        assert answer.pieces is not None
        pieces = [self.successResultOf(answer.pieces()) for _ in range(4)]
        self.assertEqual([len(piece) for piece in pieces], [10, 10, 10, 0])
        self.assertEqual([each[2]["offset"] for each in self.asked[2:]], [10, 20])

    def test_public_requests_get_envelopes_only(self) -> None:
        self.assertFalse(self.json_of(f"/{name(3)}", public=True)["message"]["content"])
        for path in (f"/{name(3)}/body", f"/{name(3)}/record", "/records"):
            self.json_of(path, code=403, public=True)
        self.json_of("/remove", "POST", code=403, public=True, body=b'{"all": true}')


class Exporting(QueueAPITestCase):
    def exported(self) -> tuple[list[str], list[Any]]:
        """Return the ids that all answers together have, and the shards that are missing."""
        records, missing, after = [], [], ""
        for _ in range(20):
            page = self.json_of(f"/records?domain=x{after}")
            records += [each["id"] for each in page["records"]]
            missing += page["missing"]
            if page["next"] is None:
                return records, missing
            after = f"&after={page['next']}"
        raise AssertionError("it has no end")

    def test_each_message_of_all_shards_is_there_once(self) -> None:
        self.assertEqual(self.exported(), ([name(id) for id in (2, 4, 6, 8, 1, 3, 5, 7)], []))
        self.assertEqual(
            {(each["filters"]["domain"], each["limit"]) for _, _, each in self.asked}, {("x", 250)}
        )

    def test_a_shard_that_cannot_be_asked_is_named_and_the_others_are_exported(self) -> None:
        self.gone[0] = None
        records, missing = self.exported()
        self.assertEqual(records, [name(id) for id in (1, 3, 5, 7)])
        self.assertEqual(missing, [{"shard": 0, "why": "shard 0 is gone"}])

    def test_what_cannot_be_read_is_refused(self) -> None:
        for query in ("limit=251", "limit=x", "after=0.?", "by=domain", "domain=?"):
            self.json_of(f"/records?{query}", code=400)


class Acting(QueueAPITestCase):
    def test_an_action_goes_through_all_shards(self) -> None:
        said = self.act("hold", all=True)
        self.assertEqual((said["recipients"], said["next"]), (8, None))
        self.assertEqual(
            [(shard, each["after"]) for shard, _, each in self.asked][:3], [(0, -1), (0, 4), (0, 8)]
        )
        self.assertTrue(all(each["by"] == "uid 7" for _, _, each in self.asked))

    def test_an_action_with_a_limit_stops_and_continues_where_it_was(self) -> None:
        amounts, after = [], None
        while True:
            said = self.act("retry", domain="x", limit=3, after=after)
            amounts.append(said["recipients"])
            after = said["next"]
            if after is None:
                break
        self.assertEqual(sum(amounts), 8)
        self.assertLessEqual(max(amounts), 4)

    def test_a_dry_run_is_passed_on_to_the_shards(self) -> None:
        self.assertTrue(self.act("remove", all=True, dry_run=True)["dry_run"])
        self.assertTrue(all(each["dry_run"] for _, _, each in self.asked))

    def test_an_action_on_all_messages_needs_all_true(self) -> None:
        self.assertIn("found no filters; expected", self.act("remove", 400)["error"])
        self.assertEqual(self.asked, [])

    def test_bodies_that_cannot_be_read_are_refused(self) -> None:
        for body in (
            b'{"domain": "\\ud800"}',
            b"[" * 500_000,
            b"{",
            b"[]",
            b'{"all": true, "limit": "x"}',
            b'{"all": true, "dry_run": 1}',
        ):
            self.json_of("/hold", "POST", 400, body=body)
        self.act("hold", 400, all=True, after="x")
        self.act("hold", 400, domain="?")
        for body in (b'{"all":' * 100_000, b"\xff", b"1" * 10_000):
            self.json_of("/hold", "POST", 400, body=body)
        self.assertEqual(self.ask("/hold").headers["Allow"], "POST")
        self.assertEqual(self.ask("", "POST").code, 405)

    def test_a_shard_that_cannot_be_asked_does_not_stop_the_others(self) -> None:
        self.gone[0] = None
        said = self.act("hold", all=True)
        self.assertEqual(said["recipients"], 4)
        self.assertEqual(said["missing"], [{"shard": 0, "why": "shard 0 is gone"}])
