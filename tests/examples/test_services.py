"""The examples of whole services: sink, console, web application, filter, restart, ``.tac``."""

from __future__ import annotations

import os
import sys
from io import BytesIO, StringIO
from typing import Any

from attrs import evolve
from twisted.application.service import IService, IServiceCollection, loadApplication
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.mail.interfaces import IMessageDelivery, IMessageSMTP
from twisted.mail.smtp import SMTPSenderFactory
from twisted.web.client import Agent, FileBodyProducer, readBody
from twisted.web.http_headers import Headers
from zope.interface import implementer

from tests.waiting import until
from twisted_mta import ESMTPFactory, Listener, MailTransferAgent

from .running import EXAMPLES, MESSAGE, ExampleTestCase, example, maildir


class Servers(ExampleTestCase):
    async def printed(self, factory: ESMTPFactory, *recipients: str) -> tuple[int, str]:
        """Return the reply for a message, and what the example prints for it."""
        output = StringIO()
        self.patch(sys, "stdout", output)
        code = await self.send(await self.listen(factory), *recipients)
        return code, output.getvalue()

    async def test_the_sink_prints_envelopes(self) -> None:
        module = example("sink")
        factory = ESMTPFactory(module.TakeAll())
        code, output = await self.printed(factory, "bob@a.example", "eve@b.example")
        size = len(MESSAGE.replace(b"\n", b"\r\n"))
        self.assertEqual(
            (code, output), (250, f"<ann@sender.example> bob@a.example eve@b.example {size}\n")
        )

    async def test_the_console_prints_its_mail_and_refuses_the_rest(self) -> None:
        module = example("replace_twisted_mail")
        code, output = await self.printed(module.make_factory(), "console@localhost")
        lines = "Received: by the console\n" + MESSAGE.decode()
        self.assertEqual((code, output), (250, lines))
        code, output = await self.printed(module.make_factory(), "bob@localhost")
        self.assertEqual((code, output), (550, ""))


class WebApplication(ExampleTestCase):
    async def page(self, url: str, form: bytes | None = None) -> str:
        body = None if form is None else FileBodyProducer(BytesIO(form))
        headers = Headers({"Content-Type": ["application/x-www-form-urlencoded"]})
        method = b"GET" if form is None else b"POST"
        response = await Agent(self.reactor).request(method, url.encode(), headers, body)
        content: bytes = await readBody(response)
        return content.decode()

    async def test_the_form_sends_mail_and_the_page_shows_what_becomes_of_it(self) -> None:
        config = self.config(listeners=[], routes={"gone.example": "error:5.1.1 Nobody"})
        agent = MailTransferAgent(config, reactor=self.reactor)
        await self.start(agent)
        url = await self.serve(example("web_application").MailPage(agent))
        self.assertIn("Sent as ", await self.page(url, b"to=bob%40box.example&text=Hello"))
        for to in (b"nothing", b"a%40", b"%FF"):
            self.assertIn("Not sent: ", await self.page(url, b"to=" + to + b"&text=Hello"))
        self.assertIn("Not sent: ", await self.page(url, b"to=x%40gone.example&text=%3Cb%3E"))
        await self.steps("Delivered")
        page = await self.page(url)
        for cells in ("Accepted<td>bob@box.example", "Delivered<td>bob@box.example<td>maildir"):
            self.assertIn(cells, page)
        (mail,) = maildir(config.maildir, "box.example", "bob")
        self.assertIn(b"Hello", mail)


@implementer(IMessageSMTP)
class Filtered:
    """A message that goes on with one more field."""

    def __init__(self, filter_: Filter, sender: str, recipient: str) -> None:
        self.filter, self.sender, self.recipient = filter_, sender, recipient
        self.lines: list[bytes] = []

    def lineReceived(self, line: bytes) -> None:
        self.lines.append(line)

    async def eomReceived(self) -> None:
        sent: Deferred[Any] = Deferred()
        content = BytesIO(b"X-Filtered: yes\n" + b"\n".join(self.lines) + b"\n")
        client = SMTPSenderFactory(self.sender, self.recipient, content, sent, retries=0)
        client.noisy = False
        endpoint = TCP4ClientEndpoint(self.filter.reactor, "127.0.0.1", self.filter.onward)
        await endpoint.connect(client)
        await sent

    def connectionLost(self) -> None:
        """Do nothing."""


@implementer(IMessageDelivery)
class Filter:
    """A filter as others are: it takes mail by SMTP, and sends it on by SMTP."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.onward = 0

    def receivedHeader(self, *about: object) -> bytes:
        return b""

    def validateFrom(self, helo: object, origin: Any) -> Any:
        self.sender = str(origin)
        return origin

    def validateTo(self, user: Any) -> Any:
        return lambda: _AsDeferred(Filtered(self, self.sender, str(user.dest)))


@implementer(IMessageSMTP)
class _AsDeferred:
    def __init__(self, message: Filtered) -> None:
        self.lineReceived = message.lineReceived
        self.connectionLost = message.connectionLost
        self._message = message

    def eomReceived(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._message.eomReceived())


class AfterQueueFilter(ExampleTestCase):
    async def test_mail_passes_the_filter_once_and_is_delivered(self) -> None:
        filter_ = Filter(self.reactor)
        port = await self.listen(ESMTPFactory(filter_))
        directory = os.path.abspath(self.mktemp())
        service = example("after_queue_filter").make_service(
            self.reactor,
            ["box.example"],
            outside="tcp:0:interface=127.0.0.1",
            to_filter=f"smtp://127.0.0.1:{port}",
            from_filter="tcp:0:interface=127.0.0.1",
            directory=directory,
        )
        service.privilegedStartService()
        service.startService()
        self.addCleanup(service.stopService)
        behind, before = service
        await before.when_ready()
        filter_.onward = behind.ports["smtp"]
        self.assertEqual(await self.send(before.ports["smtp"], "bob@box.example"), 250)
        mail: list[bytes] = []
        await until(
            lambda: mail or mail.extend(maildir(f"{directory}/maildir", "box.example", "bob"))
        )
        self.assertEqual(mail[0].count(b"X-Filtered: yes"), 1)
        self.assertEqual(mail[0].count(b"\nReceived:"), 2)


class Restart(ExampleTestCase):
    async def test_a_setting_of_the_start_takes_a_new_agent_with_the_same_queue(self) -> None:
        config = self.config(routes={"*": "smtp://127.0.0.1:1"})
        mail = example("restart").Mail(self.reactor, config)
        first = mail.agent
        await self.start(first)
        self.addCleanup(lambda: mail.agent.stopService())
        receipt = await first.submit(MESSAGE, sender="", recipients=["bob@away.example"])
        await self.steps("Deferred")
        await mail.change(evolve(config, drain_timeout="20 s"))
        self.assertIs(mail.agent, first)
        await mail.change(evolve(config, hostname="other.example"))
        self.assertIsNot(mail.agent, first)
        self.assertEqual(mail.agent.config.hostname, "other.example")
        (listed,) = await mail.agent.queue.list()
        self.assertEqual(listed["id"], receipt.id)
        self.assertEqual(await self.send(mail.agent.ports["smtp"], "bob@box.example"), 250)

    async def test_where_the_new_agent_cannot_start_the_old_settings_go_on(self) -> None:
        config = self.config()
        mail = example("restart").Mail(self.reactor, config)
        await self.start(mail.agent)
        self.addCleanup(lambda: mail.agent.stopService())
        taken = await self.listen(ESMTPFactory())
        listener = Listener(endpoint=f"tcp:{taken}:interface=127.0.0.1")
        with self.assertRaisesRegex(Exception, "[Aa]ddress already in use"):
            await mail.change(evolve(config, listeners=[listener]))
        self.assertEqual(mail.agent.config, config)
        self.assertEqual(await self.send(mail.agent.ports["smtp"], "bob@box.example"), 250)


class Tac(ExampleTestCase):
    async def test_the_application_takes_mail(self) -> None:
        directory = self.mktemp()
        os.mkdir(directory)
        text = (EXAMPLES / "mail.tac").read_text()
        for old, new in (("tcp:2525:", "tcp:0:"), ("mail-state", os.path.abspath(directory))):
            self.assertIn(old, text)
            text = text.replace(old, new)
        path = os.path.join(directory, "mail.tac")
        with open(path, "w") as file:
            file.write(text)
        application = loadApplication(path, "python")
        service = IService(application)
        service.privilegedStartService()
        service.startService()
        self.addCleanup(service.stopService)
        (agent,) = IServiceCollection(application)
        code = await self.send(agent.ports["smtp"], "bob@example.net")
        self.assertEqual(code, 250)
        await until(lambda: maildir(agent.config.maildir, "example.net", "bob"))
