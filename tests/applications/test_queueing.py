"""An application that keeps twisted.mail's own server, with our queue behind it."""

import os
import threading
from email import message_from_bytes
from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.mail import smtp

from tests.applications.test_console import RunningTestCase
from tests.waiting import until
from twisted_mta import Accepted, Config, ESMTPFactory, LMTPFactory, MailTransferAgent
from twisted_mta.config import Listener
from twisted_mta.testing.client import SMTPClientEnd


class TheirsFactory(smtp.SMTPFactory):
    protocol = smtp.ESMTP

    def __init__(self, delivery: Any) -> None:
        super().__init__()
        self.delivery = delivery

    def buildProtocol(self, addr: Any) -> Any:
        protocol = super().buildProtocol(addr)
        protocol.delivery = self.delivery
        return protocol


class QueueBehindTwistedMail(RunningTestCase):
    async def start(self, **settings: Any) -> MailTransferAgent:
        directory = self.mktemp()
        mta = MailTransferAgent(
            Config(
                state_dir=directory,
                hostname="mx.example",
                local_domains=("mx.example",),
                **settings,
            ),
            reactor=self.reactor,
        )
        mta.startService()
        self.addCleanup(mta.stopService)
        return mta

    async def test_a_message_is_queued_and_delivered(self) -> None:
        mta = await self.start()
        delivery = mta.message_delivery()
        sent = await self.send(
            TheirsFactory(delivery), "ann@client.example", ["bob@mx.example"], b"Subject: x\n\ny\n"
        )
        self.assertEqual(sent[0], 1)
        folder = os.path.join(mta.config.maildir, "mx.example", "bob", "new")
        await until(lambda: os.path.isdir(folder) and os.listdir(folder))
        with open(os.path.join(folder, os.listdir(folder)[0]), "rb") as file:
            message = message_from_bytes(file.read())
        self.assertEqual(message["Return-Path"], "<ann@client.example>")
        self.assertEqual(message["Subject"], "x")
        self.assertRegex(message["Received"], r"by mx\.example with ESMTP id [0-9A-Z]{13}")

    async def reply_to(self, client: SMTPClientEnd) -> bytes:
        while (line := await client.line()) is not None and line[3:4] == b"-":
            pass
        return line or b""

    async def test_our_own_factory_in_front_of_it_is_traced_as_what_it_spoke(self) -> None:
        mta = await self.start(relay_from=())
        for factory, hello, name in (
            (ESMTPFactory, b"EHLO", "ESMTP"),
            (ESMTPFactory, b"HELO", "SMTP"),
            (LMTPFactory, b"LHLO", "LMTP"),
        ):
            port = await self.listen(factory(mta.message_delivery(), hostname="app.example"))
            endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", port)
            client = await connectProtocol(endpoint, SMTPClientEnd())
            dialogue = (
                (hello + b" x", b"25"),
                (b"MAIL FROM:<>", b"250"),
                (f"RCPT TO:<{name}@mx.example>".encode(), b"250"),
                (b"RCPT TO:<victim@ext.example>", b"550"),
                (b"DATA", b"354"),
                (b"Subject: x\r\n.", b"250"),
                (b"QUIT", b"221"),
            )
            await self.reply_to(client)
            for line, code in dialogue:
                client.transport.write(line + b"\r\n")
                reply = await self.reply_to(client)
                self.assertTrue(reply.startswith(code), (line, reply))
            client.transport.loseConnection()
            folder = os.path.join(mta.config.maildir, "mx.example", name.lower(), "new")
            await until(lambda folder=folder: os.path.isdir(folder) and os.listdir(folder))
            with open(os.path.join(folder, os.listdir(folder)[0]), "rb") as file:
                received = message_from_bytes(file.read())["Received"]
            self.assertIn(f"by mx.example with {name} id ", received)

    async def test_a_recipient_that_the_intake_refuses_is_refused(self) -> None:
        mta = await self.start(recipients="existing", relay_from=())
        for recipient, code in (("bob@mx.example", 550), ("victim@ext.example", 550)):
            with self.assertRaises(smtp.SMTPDeliveryError) as caught:
                await self.send(
                    TheirsFactory(mta.message_delivery()), "a@b.example", [recipient], b"x"
                )
            self.assertEqual(caught.exception.code, code)
            status = await mta.status()
            self.assertEqual(status.queue["messages"], 0)

    async def test_a_message_is_not_acknowledged_when_the_queue_is_closed(self) -> None:
        mta = await self.start()
        delivery = mta.message_delivery()
        await mta.stopService()
        with self.assertRaises(smtp.SMTPDeliveryError):
            await self.send(TheirsFactory(delivery), "a@b.example", ["bob@mx.example"], b"x")
        self.flushLoggedErrors(smtp.SMTPServerError)


class SeveralAgentsInOneProcess(RunningTestCase):
    def agent(self, name: str, state_dir: str, **parts: Any) -> MailTransferAgent:
        agent = MailTransferAgent(
            Config(
                state_dir=state_dir,
                hostname=name,
                local_domains=(name,),
                listeners=(Listener(endpoint="tcp:0:interface=127.0.0.1"),),
            ),
            reactor=self.reactor,
            **parts,
        )
        agent.startService()
        self.addCleanup(agent.stopService)
        return agent

    async def arrived(self, agent: MailTransferAgent, count: int) -> None:
        new = os.path.join(agent.config.maildir, agent.config.hostname, "b", "new")
        await until(lambda: os.path.isdir(new) and len(os.listdir(new)) == count)

    async def test_three_agents_have_nothing_in_common_and_one_is_restarted(self) -> None:
        """Each has its own port, queue, mailboxes, policy and subscribers."""
        asked: list[str] = []
        told: list[str] = []

        class Named:
            def __init__(self, name: str) -> None:
                self.name = name

            def mail(self, session: Any, sender: Any) -> None:
                asked.append(self.name)

        names = ["one.example", "two.example", "three.example"]
        directories = {name: self.mktemp() for name in names}

        async def started(name: str) -> MailTransferAgent:
            agent = self.agent(name, directories[name], policy=Named(name))
            await agent.when_ready()
            agent.subscribe(
                lambda event: told.append(name) if isinstance(event, Accepted) else None
            )
            return agent

        async def post(agent: MailTransferAgent) -> None:
            sent: Deferred[Any] = Deferred()
            to = f"b@{agent.config.hostname}"
            client = smtp.SMTPSenderFactory("a@x.example", to, BytesIO(b"Subject: x\n\n"), sent)
            client.noisy = False
            self.reactor.connectTCP("127.0.0.1", agent.ports["smtp"], client)
            await sent

        agents = {name: await started(name) for name in names}
        for name in names:
            await post(agents[name])
            await self.arrived(agents[name], 1)
        self.assertEqual((asked, told), (names, names))
        threads = threading.active_count()
        await agents["two.example"].stopService()
        self.assertLess(threading.active_count(), threads)
        await post(agents["three.example"])
        await self.arrived(agents["three.example"], 2)
        with self.assertRaisesRegex(RuntimeError, "make a new one"):
            agents["two.example"].startService()
        for count in (2, 3):
            again = await started("two.example")
            await post(again)
            await self.arrived(again, count)
            await again.stopService()
        await post(agents["one.example"])
        await self.arrived(agents["one.example"], 2)
        self.assertEqual(asked[3:], ["three.example", "two.example", "two.example", "one.example"])
        self.assertEqual(told, asked)
        for name in ("one.example", "three.example"):
            await agents[name].stopService()
        await self.disconnected()
        mine = [each.name for each in threading.enumerate() if "twisted-mta" in each.name]
        self.assertEqual(mine, [])

    async def test_two_agents_relay_mail_to_each_other(self) -> None:
        second = MailTransferAgent(
            Config(
                state_dir=self.mktemp(),
                hostname="two.example",
                local_domains=("two.example",),
                listeners=(Listener(endpoint="tcp:0:interface=127.0.0.1"),),
            ),
            reactor=self.reactor,
        )
        second.startService()
        self.addCleanup(second.stopService)
        port = second.bound[0].port.getHost().port
        first = MailTransferAgent(
            Config(
                state_dir=self.mktemp(),
                hostname="one.example",
                local_domains=("one.example",),
                listeners=(Listener(endpoint="tcp:0:interface=127.0.0.1"),),
                routes=(("two.example", f"smtp://127.0.0.1:{port}"),),
            ),
            reactor=self.reactor,
        )
        first.startService()
        self.addCleanup(first.stopService)
        sent: Deferred[Any] = Deferred()
        client = smtp.SMTPSenderFactory(
            "a@client.example", "b@two.example", BytesIO(b"Subject: x\n\n"), sent, retries=0
        )
        client.noisy = False
        self.reactor.connectTCP("127.0.0.1", first.bound[0].port.getHost().port, client)
        await sent
        folder = os.path.join(second.config.maildir, "two.example", "b", "new")
        await until(lambda: os.path.isdir(folder) and os.listdir(folder))
        with open(os.path.join(folder, os.listdir(folder)[0]), "rb") as file:
            traces = message_from_bytes(file.read()).get_all("Received")
        self.assertEqual(len(traces), 2)
        self.assertIn("by two.example with ESMTPS", traces[0])
        self.assertIn("by one.example with SMTP id", traces[1])  # Twisted's client sends HELO
