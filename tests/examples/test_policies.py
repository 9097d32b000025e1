"""The examples with policies: rules that forward, and a service that is asked."""

from __future__ import annotations

from typing import Any

from tests.waiting import until
from twisted_mta import MailTransferAgent

from .running import MESSAGE, ExampleTestCase, Recorder, example, maildir


class ForwardByRules(ExampleTestCase):
    async def test_mail_goes_where_the_first_rule_says_from_the_forwarder(self) -> None:
        elsewhere = ("books.example", "archive.example", "office.example")
        config = self.config(routes=dict.fromkeys(elsewhere, "maildir:"))
        agent = example("forward_by_rules").make_agent(self.reactor, "fwd@box.example", config)
        await self.start(agent)
        for subject in (b"plain", b"[invoice] 42", b"[invoice] for the list"):
            content = b"Subject: " + subject + b"\n\nHello.\n"
            if b"list" in subject:
                content = b"List-Id: <a.b>\n" + content
            self.assertEqual(
                await self.send(agent.ports["smtp"], "bob@box.example", content=content), 250
            )
        await self.steps("Delivered", "Delivered", "Delivered")
        (kept,) = maildir(config.maildir, "box.example", "bob")
        self.assertIn(b"Subject: plain", kept)
        self.assertIn(b"Return-Path: <ann@sender.example>", kept)
        forwarded = maildir(config.maildir, "books.example", "accounting")
        self.assertEqual(len(forwarded), 2)
        self.assertIn(b"Return-Path: <fwd@box.example>", forwarded[0])
        await self.send(
            agent.ports["smtp"], "bob@box.example", sender="", content=b"List-Id: <a>\n\nBounced\n"
        )
        await until(lambda: len(self.events) == 8)
        for domain, name in (("archive.example", "lists"), ("office.example", "reader")):
            (mail,) = maildir(config.maildir, domain, name)
            self.assertIn(b"Return-Path: <>", mail)


class AskHTTPService(ExampleTestCase):
    async def agent(self, url: str) -> MailTransferAgent:
        module = example("ask_http_service")
        policy: Any = module.AskService(self.reactor, url)
        self.addCleanup(policy.pool.closeCachedConnections)
        agent: MailTransferAgent = module.make_agent(self.reactor, policy, self.config())
        await self.start(agent)
        return agent

    async def test_the_service_decides_on_each_recipient(self) -> None:
        service = Recorder()
        service.codes = {b"eve": 404, b"joe": 500}
        agent = await self.agent(await self.serve(service))
        codes = [
            await self.send(agent.ports["smtp"], f"{name}@box.example", content=MESSAGE)
            for name in ("bob", "eve", "joe")
        ]
        self.assertEqual(codes, [250, 550, 451])
        self.assertEqual(
            service.requests[0].uri,
            b"/?client=127.0.0.1&sender=ann%40sender.example&recipient=bob%40box.example",
        )

    async def test_without_an_answer_in_time_the_client_tries_again_later(self) -> None:
        service = Recorder()
        service.never = True
        agent = await self.agent(await self.serve(service))
        self.assertEqual(await self.send(agent.ports["smtp"], "bob@box.example"), 451)

    async def test_without_a_service_the_client_tries_again_later(self) -> None:
        agent = await self.agent("http://127.0.0.1:1/")
        self.assertEqual(await self.send(agent.ports["smtp"], "bob@box.example"), 451)
        self.assertEqual(len(self.flushLoggedErrors()), 1)
