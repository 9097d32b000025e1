"""Answers about the queue of an agent in memory."""

from __future__ import annotations

import json
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from tests.agent.explain.world import World
from tests.queue.mail import message
from tests.tidy import TidyTestCase
from twisted_mta.admin.queue_answers import show_message
from twisted_mta.mail.assessment import Assessment, Verdict
from twisted_mta.mail.message import Message
from twisted_mta.queue.store.contract import Accept


class Showing(TidyTestCase):
    def setUp(self) -> None:
        self.world = World(self.mktemp())
        self.addCleanup(self.world.stop)

    def shown(self, queued: Message) -> dict[str, Any]:
        agent = self.world.mta.mta.agent
        assert agent is not None
        shard = agent.shards[0]
        shard.commit.perform(Accept(queued))
        shown = Deferred.fromCoroutine(show_message(agent, shard, id=str(queued.id), content=False))
        self.world.reactor.settle()
        facts: dict[str, Any] = json.loads(json.dumps(self.successResultOf(shown)))
        return facts

    def test_a_message_is_shown_with_what_policies_found_out(self) -> None:
        assessment = Assessment((Verdict("spf", "fail", "sender.example"),), "spoofed", signs=True)
        shown = self.shown(evolve(message(1), assessment=assessment))
        self.assertEqual(
            shown["assessment"],
            {
                "verdicts": [{"policy": "spf", "result": "fail", "text": "sender.example"}],
                "quarantine": "spoofed",
                "signs": True,
            },
        )
        self.assertIsNone(shown["quarantine"])  # that is another one: a lost body

    def test_a_message_that_no_policy_was_asked_about_has_no_verdicts(self) -> None:
        self.assertEqual(
            self.shown(message(1))["assessment"],
            {"verdicts": [], "quarantine": "", "signs": False},
        )
