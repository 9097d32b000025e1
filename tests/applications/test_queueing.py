"""An application that keeps twisted.mail's own server, with our queue behind it."""

import os
import threading
from base64 import b64encode
from email import message_from_bytes
from io import BytesIO
from typing import Any

from attrs import evolve
from twisted.cred.checkers import AllowAnonymousAccess, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.mail import smtp
from twisted.mail.imap4 import PLAINCredentials
from twisted.mail.interfaces import IMessageSMTP
from zope.interface import implementer

from tests.applications.test_console import RunningTestCase
from tests.waiting import until
from twisted_mta import Accepted, Config, ESMTPFactory, LMTPFactory, MailTransferAgent, Reply
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


@implementer(IMessageSMTP)
class Named:
    def __init__(self, name: str, message: Any) -> None:
        self.message = message
        message.lineReceived(f"X-For: {name}".encode())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.message, name)


@implementer(smtp.IMessageDelivery)
class Naming:
    """Stands before the queue, and adds a field with the recipient."""

    def __init__(self, queue: Any) -> None:
        self.queue = queue
        self.receivedHeader = queue.receivedHeader
        self.validateFrom = queue.validateFrom

    def validateTo(self, user: Any) -> Any:
        begin = self.queue.validateTo(user)
        return lambda: Named(str(user.dest), begin())


@implementer(IRealm)
class Queueing:
    def __init__(self, delivery: Any) -> None:
        self.delivery = delivery

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        return smtp.IMessageDelivery, self.delivery, lambda: None


def theirs_with_portal(portal: Portal) -> Any:
    factory = TheirsFactory(None)
    factory.portal = portal
    make = factory.buildProtocol

    def build(addr: Any) -> Any:
        protocol = make(addr)
        protocol.challengers = {b"PLAIN": PLAINCredentials}
        return protocol

    factory.buildProtocol = build  # type: ignore[method-assign]
    return factory


def ours_with_portal(portal: Portal) -> ESMTPFactory:
    return ESMTPFactory(portal, auth="any")


class QueueBehindTwistedMail(RunningTestCase):
    async def start(self, policy: object = None, **settings: Any) -> MailTransferAgent:
        directory = self.mktemp()
        mta = MailTransferAgent(
            Config(
                state_dir=directory,
                hostname="mx.example",
                local_domains=("mx.example",),
                **settings,
            ),
            reactor=self.reactor,
            policy=policy,
        )
        self.accepted: list[Accepted] = []
        mta.subscribe(
            lambda event: self.accepted.append(event) if isinstance(event, Accepted) else None
        )
        mta.startService()
        self.addCleanup(mta.stopService)
        return mta

    async def talk(self, factory: Any, *lines: bytes) -> list[bytes]:
        """Return the reply to each line, in a session of its own."""
        port = await self.listen(factory)
        self.addCleanup(self.disconnected)
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", port)
        client = await connectProtocol(endpoint, SMTPClientEnd())
        await self.reply_to(client)
        replies = []
        for line in (b"EHLO client.example", *lines):
            client.transport.write(line + b"\r\n")
            replies.append(await self.reply_to(client))
        client.transport.loseConnection()
        return replies

    async def received_by(self, mta: MailTransferAgent, name: str) -> Any:
        """Return the one message in a mailbox."""
        folder = os.path.join(mta.config.maildir, "mx.example", name, "new")
        await until(lambda: os.path.isdir(folder) and os.listdir(folder))
        with open(os.path.join(folder, os.listdir(folder)[0]), "rb") as file:
            return message_from_bytes(file.read())

    async def test_all_recipients_are_one_message_of_the_queue(self) -> None:
        mta = await self.start()
        for factory in (TheirsFactory, ESMTPFactory):
            with self.subTest(factory=factory):
                self.accepted.clear()
                names = [b"u%d" % number for number in range(200)]
                replies = await self.talk(
                    factory(mta.message_delivery()),
                    b"MAIL FROM:<ann@client.example>",
                    *(b"RCPT TO:<" + name + b"@mx.example>" for name in names),
                    b"DATA",
                    b"Subject: x\r\n\r\ny\r\n.",
                )
                self.assertEqual({reply[:3] for reply in replies[2:202]}, {b"250"})
                self.assertEqual(replies[-1][:3], b"250")
                (event,) = self.accepted
                self.assertEqual(len(event.recipients), 200)
                received = await self.received_by(mta, "u199")
                self.assertEqual(received.get_payload(), "y\n")
                self.assertIn("with ESMTP id", received["Received"])
                self.assertNotIn("for <", received["Received"])

    async def test_a_second_transaction_of_a_session_is_another_message(self) -> None:
        mta = await self.start()
        mail = (
            b"MAIL FROM:<ann@client.example>",
            b"RCPT TO:<bob@mx.example>",
            b"DATA",
            b"Subject: x\r\n\r\ny\r\n.",
        )
        for factory in (TheirsFactory, ESMTPFactory):
            self.accepted.clear()
            replies = await self.talk(factory(mta.message_delivery()), *mail, *mail)
            self.assertEqual([replies[4][:3], replies[8][:3]], [b"250", b"250"])
            self.assertEqual([len(each.recipients) for each in self.accepted], [1, 1])

    async def test_a_delivery_in_between_may_give_each_recipient_another_content(self) -> None:
        mta = await self.start()
        for factory in (TheirsFactory, ESMTPFactory):
            replies = await self.talk(
                factory(Naming(mta.message_delivery())),
                b"MAIL FROM:<ann@client.example>",
                b"RCPT TO:<bob@mx.example>",
                b"RCPT TO:<eve@mx.example>",
                b"DATA",
                b"Subject: x\r\n\r\ny\r\n.",
            )
            self.assertEqual(replies[-1][:3], b"250")
        for name in ("bob", "eve"):
            received = await self.received_by(mta, name)
            self.assertEqual(received["X-For"], f"{name}@mx.example")

    async def test_a_user_of_the_applications_portal_may_relay_and_is_traced_so(self) -> None:
        mta = await self.start(relay_from=(), routes={"far.example": "discard:"})
        rcpt = (b"MAIL FROM:<any@sender.example>", b"RCPT TO:<eve@far.example>")
        for make in (theirs_with_portal, ours_with_portal):
            with self.subTest(make=make):
                realm = Queueing(mta.message_delivery())
                checker = InMemoryUsernamePasswordDatabaseDontUse(ann=b"secret")
                portal = Portal(realm, [checker, AllowAnonymousAccess()])
                replies = await self.talk(make(portal), *rcpt)
                self.assertEqual(replies[2][:3], b"550")
                login = b"AUTH PLAIN " + b64encode(b"\0ann\0secret")
                replies = await self.talk(
                    make(portal),
                    login,
                    *rcpt,
                    b"RCPT TO:<user@mx.example>",
                    b"DATA",
                    b"Subject: x\r\n\r\ny\r\n.",
                )
                self.assertEqual(
                    [each[:3] for each in replies[1:]], [b"235", *[b"250"] * 3, b"354", b"250"]
                )
                received = await self.received_by(mta, "user")
                self.assertRegex(received["Received"], "with ESMTPA id")

    async def test_the_policies_are_asked(self) -> None:
        class Rules:
            def helo(self, session: Any) -> Any:
                return Reply(550, "5.7.1", "helo") if session.helo == "bad.example" else None

            async def mail(self, session: Any, sender: Any) -> Any:
                return Reply(550, "5.7.2", "mail") if sender.local_part == "bad" else None

            def rcpt(self, session: Any, recipient: Any) -> Any:
                return Reply(451, "4.7.3", "rcpt") if recipient.local_part == "bad" else None

            def message(self, session: Any, envelope: Any, content: Any) -> Any:
                return Reply(550, "5.7.4", "content") if b"bad" in content.read() else None

        mta = await self.start(Rules())
        for factory in (TheirsFactory, ESMTPFactory):
            with self.subTest(factory=factory):
                replies = await self.talk(
                    factory(mta.message_delivery()),
                    b"EHLO bad.example",
                    b"MAIL FROM:<ann@client.example>",
                    b"RCPT TO:<bob@mx.example>",
                    b"EHLO good.example",
                    b"MAIL FROM:<bad@client.example>",
                    b"RCPT TO:<bob@mx.example>",
                    b"RSET",
                    b"MAIL FROM:<ann@client.example>",
                    b"RCPT TO:<bad@mx.example>",
                    b"RCPT TO:<bob@mx.example>",
                    b"DATA",
                    b"Subject: bad\r\n\r\n.",
                )
                # A server of twisted.mail asks about the sender with the first recipient.
                refused = replies[2:4] if factory is ESMTPFactory else replies[3:4]
                self.assertIn(b"5.7.1 helo", b"".join(refused))
                refused = replies[5:7] if factory is ESMTPFactory else replies[6:7]
                self.assertIn(b"5.7.2 mail", b"".join(refused))
                self.assertEqual(replies[9][:15], b"451 4.7.3 rcpt")
                self.assertEqual(replies[10][:3], b"250")
                # A server of twisted.mail says 550 to every failure of a content.
                refused_content = b"5.7.4 content" if factory is ESMTPFactory else b"550 "
                self.assertIn(refused_content, replies[12])
                self.flushLoggedErrors(smtp.SMTPServerError)
        self.assertEqual(self.accepted, [])

    async def test_a_reload_changes_what_is_taken(self) -> None:
        mta = await self.start(relay_from=())
        delivery = mta.message_delivery()
        rcpt = (b"MAIL FROM:<>", b"RCPT TO:<bob@new.example>")
        self.assertEqual((await self.talk(ESMTPFactory(delivery), *rcpt))[-1][:3], b"550")
        await mta.reload(evolve(mta.config, local_domains=("mx.example", "new.example")))
        for factory in (TheirsFactory, ESMTPFactory):
            self.assertEqual((await self.talk(factory(delivery), *rcpt))[-1][:3], b"250")

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
        threads = set(threading.enumerate())
        await agents["two.example"].stopService()
        # Some have ended; meanwhile the other agents may have started some.
        self.assertTrue(threads.difference(threading.enumerate()))
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
