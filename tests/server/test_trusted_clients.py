"""A whole listener and its unusual clients: devices that may relay, and strangers."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from tests.server.loopback import Client, LoopbackTestCase, listener, received

LOOPBACK = ip_network("127.0.0.0/8")


class Devices(LoopbackTestCase):
    async def send(self, relay_from: list[Any], *writes: bytes, **settings: Any) -> list[str]:
        """Send each write when the replies to those before it have come; return their codes."""
        self.mta = self.agent(listener(**settings), relay_from=relay_from)
        client: Client = await self.connect(self.mta)
        replies = []
        for write in writes:
            client.transport.write(write)
            expected = 1 if write.endswith(b".\r\n") else write.count(b"\n")
            replies += [(await client.reply())[:3] for _ in range(expected)]
        return replies

    SCANNER = (
        b"HELO Office 2 West\n",
        b"MAIL FROM:scan@mx.example\nRCPT TO:bob@mx.example\nDATA\n",
        b"Subject: scan\n\none\n.\ntwo\r\n.\r\n",
    )

    async def test_a_scanner_in_relay_from_is_served_as_it_writes(self) -> None:
        self.assertEqual(
            await self.send([LOOPBACK], *self.SCANNER), ["250", "250", "250", "354", "250"]
        )
        [message] = self.mta.messages
        self.assertIn(
            "from [127.0.0.1] ([127.0.0.1]) (greeted as Office 2 West)", received(message)
        )
        self.assertEqual(str(message.envelope.reverse_path), "scan@mx.example")
        self.assertEqual(
            len([each for each in self.log if ' helo="Office 2 West" with=' in each]), 1
        )

    async def test_a_name_with_spaces_does_not_pass_for_other_fields_of_the_log(self) -> None:
        self.mta = self.agent(listener(), relay_from=[LOOPBACK])
        client = await self.connect(self.mta)
        await client.say('HELO a" user=root b')
        await client.mail("bob@mx.example")
        [line] = [each for each in self.log if " accepted: " in each]
        self.assertIn(r' helo="a\x22 user=root b" with=SMTP', line)

    async def test_a_stranger_who_writes_the_same_is_refused(self) -> None:
        self.mta = self.agent(listener(), relay_from=[])
        for write, codes in (
            (b"HELO Office 2 West\r\nNOOP\r\n", ["501", "250"]),
            (b"HELO scan\n\r\n", ["500"]),
            (b"HELO scan\r\nMAIL FROM:scan@mx.example\r\n", ["250", "501"]),
        ):
            client: Client = await self.connect(self.mta)
            client.transport.write(write)
            self.assertEqual([(await client.reply())[:3] for _ in codes], codes)

    async def test_the_message_of_a_stranger_with_a_bare_newline_is_refused(self) -> None:
        writes = (
            b"HELO scan\r\n",
            b"MAIL FROM:<scan@a.example>\r\nRCPT TO:<bob@mx.example>\r\nDATA\r\n",
            b"Subject: scan\n\none\r\n.\r\n",
        )
        for relay_from, settings, code in (
            ([], {}, "550"),
            ([LOOPBACK], {}, "250"),
            ([LOOPBACK], {"bare_newlines": "reject"}, "550"),
            ([], {"bare_newlines": "normalize"}, "250"),
        ):
            self.assertEqual((await self.send(relay_from, *writes, **settings))[-1], code)
            await self.mta.stopService()
