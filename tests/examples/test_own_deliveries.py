"""The examples with deliveries of their own: database, web service, mailing list."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from twisted.enterprise.adbapi import ConnectionPool

from twisted_mta import Config, MailTransferAgent

from .running import MESSAGE, ExampleTestCase, Recorder, example, maildir


class Database(ExampleTestCase):
    async def agent(self, path: str) -> MailTransferAgent:
        pool = ConnectionPool("sqlite3", path, check_same_thread=False, cp_max=1, cp_noisy=False)
        self.addCleanup(pool.close)
        config = self.config(routes={"box.example": "deliver:db"})
        agent: MailTransferAgent = example("deliver_to_database").make_agent(
            self.reactor, pool, config
        )
        await self.start(agent)
        return agent

    async def test_mail_has_a_row_and_its_recipients_too(self) -> None:
        path = self.mktemp()
        agent = await self.agent(path)
        code = await self.send(agent.ports["smtp"], "bob@box.example", "eve@box.example")
        self.assertEqual(code, 250)
        (event,) = await self.steps("Delivered")
        self.assertEqual(event.next_hop, "deliver:db")
        connection = sqlite3.connect(path)
        self.addCleanup(connection.close)
        ((id, sender, content),) = connection.execute("SELECT * FROM message")
        self.assertEqual((id, sender), (event.id, "ann@sender.example"))
        self.assertTrue(content.endswith(MESSAGE.replace(b"\n", b"\r\n")))
        self.assertEqual(
            list(connection.execute("SELECT * FROM recipient ORDER BY mailbox")),
            [(id, "bob@box.example"), (id, "eve@box.example")],
        )

    async def test_mail_waits_while_the_database_cannot_be_opened(self) -> None:
        directory = Path(self.mktemp())
        agent = await self.agent(str(directory / "mail.sqlite"))
        self.assertEqual(await self.send(agent.ports["smtp"], "bob@box.example"), 250)
        (event,) = await self.steps("Deferred")
        self.assertEqual(str(event.reply), "451 4.3.0 The delivery has failed for now")
        self.assertTrue(self.flushLoggedErrors(sqlite3.OperationalError))
        directory.mkdir()
        await agent.queue.retry(all=True)
        await self.steps("Deferred", "Delivered")


class Webhook(ExampleTestCase):
    async def agent(self, url: str) -> MailTransferAgent:
        config = self.config(routes={"box.example": "deliver:web"})
        agent: MailTransferAgent = example("deliver_to_webhook").make_agent(
            self.reactor, url, config
        )
        await self.start(agent)
        return agent

    async def test_mail_is_posted_as_it_is(self) -> None:
        service = Recorder()
        agent = await self.agent(await self.serve(service))
        large = MESSAGE + b"0123456789" * 7 * 4096 + b"\n"  # in a file of the queue
        await self.send(agent.ports["smtp"], "bob@box.example", "eve@box.example", content=large)
        await self.steps("Delivered")
        (body,), (request,) = service.bodies, service.requests
        self.assertTrue(body.endswith(b"0123456789\r\n"))
        self.assertEqual(request.requestHeaders.getRawHeaders("Content-Type"), ["message/rfc822"])
        self.assertEqual(request.requestHeaders.getRawHeaders("X-Sender"), ["ann@sender.example"])
        self.assertEqual(
            request.requestHeaders.getRawHeaders("X-Recipient"),
            ["bob@box.example", "eve@box.example"],
        )

    async def test_the_answer_decides_on_the_mail(self) -> None:
        service = Recorder()
        service.codes = {b"spoiled": 422, b"busy": 503, b"many": 429}
        agent = await self.agent(await self.serve(service))
        kinds = []
        for word, kind in (
            (b"spoiled", "Bounced"), (b"busy", "Deferred"), (b"many", "Deferred"),
        ):  # fmt: skip
            await self.send(
                agent.ports["smtp"], "bob@box.example", sender="", content=MESSAGE + word + b"\n"
            )
            kinds.append(kind)
            await self.steps(*kinds)

    async def test_a_service_that_does_not_answer_in_time_is_asked_again_later(self) -> None:
        service = Recorder()
        service.never = True
        url = await self.serve(service)
        delivery = example("deliver_to_webhook").WebhookDelivery(self.reactor, url)
        agent = MailTransferAgent(
            self.config(routes={"box.example": "deliver:web"}),
            reactor=self.reactor,
            deliveries={"web": delivery},
            delivery_timeout=0.3,
        )
        await self.start(agent)
        await self.send(agent.ports["smtp"], "bob@box.example")
        (event,) = await self.steps("Deferred")
        self.assertIn("took too long", str(event.reply))

    async def test_mail_is_deferred_while_there_is_no_service(self) -> None:
        agent = await self.agent("http://127.0.0.1:1/")
        await self.send(agent.ports["smtp"], "bob@box.example")
        await self.steps("Deferred")
        self.assertEqual(len(self.flushLoggedErrors()), 1)


class MailingList(ExampleTestCase):
    async def agent(self, members: str) -> tuple[MailTransferAgent, Config]:
        module = example("mailing_list")
        self.file = Path(self.mktemp())
        self.file.write_text(members)
        config = self.config(
            local_domains=["lists.example", "box.example"],
            routes={"lists.example": "deliver:list"},
        )
        list_ = module.MailingList("announce@lists.example", self.file)
        agent: MailTransferAgent = module.make_agent(self.reactor, list_, config)
        await self.start(agent)
        return agent, config

    async def post(self, agent: MailTransferAgent, **mail: Any) -> Any:
        return await self.send(agent.ports["smtp"], "announce@lists.example", **mail)

    async def test_a_post_goes_to_all_subscribers(self) -> None:
        agent, config = await self.agent("bob@box.example\neve@box.example\nann@sender.example")
        self.file.write_text("bob@box.example\neve@box.example\nann@box.example\n")
        await self.post(agent, sender="ann@box.example")
        await self.steps("Delivered", "Delivered")
        for name in ("ann", "bob", "eve"):
            (mail,) = maildir(config.maildir, "box.example", name)
            self.assertIn(b"Return-Path: <announce-bounces@lists.example>\n", mail)
            self.assertIn(b"\nList-Id: <announce.lists.example>\n", mail)
            self.assertTrue(mail.endswith(MESSAGE))

    async def test_a_post_of_a_stranger_is_returned(self) -> None:
        agent, config = await self.agent("bob@box.example")
        await self.post(agent, sender="ann@box.example")
        bounced, _ = await self.steps("Bounced", "Delivered")
        self.assertEqual(str(bounced.reply), "550 5.7.1 Only subscribers may post")
        (bounce,) = maildir(config.maildir, "box.example", "ann")
        self.assertIn(b"Only subscribers may post", bounce)

    async def test_a_message_that_comes_back_is_in_a_loop(self) -> None:
        agent, _ = await self.agent("ann@box.example")
        await self.post(
            agent,
            sender="ann@box.example",
            content=b"List-Id: <announce.lists.example>\n" + MESSAGE,
        )
        bounced, _ = await self.steps("Bounced", "Delivered")
        self.assertEqual(str(bounced.reply), "554 5.4.6 The message was here before")

    async def test_bounces_end_at_the_list_and_other_names_are_refused(self) -> None:
        agent, _ = await self.agent("ann@box.example")
        await self.send(
            agent.ports["smtp"], "announce-bounces@lists.example", "x@lists.example", sender=""
        )
        delivered, bounced = await self.steps("Delivered", "Bounced")
        self.assertEqual(delivered.recipients, ("announce-bounces@lists.example",))
        self.assertEqual(bounced.recipients, ("x@lists.example",))
