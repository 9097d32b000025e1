"""Live traces: filters, slow readers, sessions, and what is left out."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.task import Clock

from tests.agent.explain.world import World
from tests.tidy import TidyTestCase
from twisted_mta.config import Destination
from twisted_mta.delivery.connection import Connection
from twisted_mta.smtp.conversation import Line, Overhearing
from twisted_mta.telemetry.tracing import Buffer, Event, Filter, SessionEnds, Tracing

CONTENT = b"Subject: private\r\n\r\nvery private\r\n"
IN = SessionEnds(direction="in", peer="192.0.2.9:4711", address="192.0.2.9")
OUT = SessionEnds(
    direction="out",
    peer="mx.example[192.0.2.1]:25",
    names=("mx.example", "192.0.2.1", "mx.example:25", "192.0.2.1:25"),
)


class Filters(TidyTestCase):
    def test_a_filter_matches_sessions_by_direction_client_and_server(self) -> None:
        for said, inward, outward in (
            ({}, True, True),
            ({"direction": "in"}, True, False),
            ({"direction": "out"}, False, True),
            ({"client": "192.0.2.0/24"}, True, False),
            ({"client": "192.0.2.8"}, False, False),
            ({"next_hop": "MX.example"}, False, True),
            ({"next_hop": "192.0.2.1:25"}, False, True),
            ({"next_hop": "mx2.example"}, False, False),
        ):
            wanted = Filter.parse(said)
            self.assertEqual((wanted.matches(IN), wanted.matches(OUT)), (inward, outward), said)
            self.assertEqual(Filter.parse(wanted.to_json()), wanted)

    def test_an_invalid_filter_is_refused(self) -> None:
        for said in ({"client": "x\x1b"}, {"direction": "up"}, {"colour": "red"}):
            with self.assertRaises(ValueError) as caught:
                Filter.parse(said)
            self.assertNotIn("\x1b", str(caught.exception))


class Buffers(TidyTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.ready = True
        self.told: list[tuple[int, int]] = []
        self.buffer = Buffer(
            clock=self.clock,
            deliver=lambda events, lost: self.told.append((len(events), lost)),
            ready=lambda: self.ready,
        )

    def test_a_slow_reader_loses_lines_and_gets_their_number(self) -> None:
        self.ready = False
        for _ in range(5000):
            self.buffer.put({})
        self.clock.advance(1)
        self.assertEqual(self.told, [])
        self.ready = True
        self.buffer.flush()
        self.clock.pump([0.1] * 10)
        self.assertEqual(sum(events for events, _ in self.told), 2000)
        self.assertEqual(sum(lost for _, lost in self.told), 3000)
        self.assertEqual(self.buffer.lost, 3000)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lines_are_gathered_for_a_moment(self) -> None:
        for _ in range(3):
            self.buffer.put({})
        self.clock.advance(0.06)
        self.assertEqual(self.told, [(3, 0)])

    def test_a_closed_buffer_leaves_no_timer(self) -> None:
        self.buffer.put({})
        self.buffer.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ByEnvelope(TidyTestCase):
    def lines(self, said: Mapping[str, str], *spoken: str) -> list[str]:
        clock = Clock()
        told: list[Event] = []
        tracing = Tracing(clock=clock, wall_time=lambda: 0.0)
        tracing.open(1, Filter.parse(said), lambda events, lost: told.extend(events))
        traced = tracing.attach(None, lambda: IN)
        assert traced is not None
        for text in spoken:
            traced(Line("client", text))
        clock.pump([0.1] * 3)
        return [str(event["text"]) for event in told]

    def test_a_session_is_shown_from_its_beginning_once_it_matches(self) -> None:
        spoken = ("EHLO x", "MAIL FROM:<a@b.example> SIZE=1", "RCPT TO:<C@d.example>", "DATA")
        other = ("MAIL FROM:<x@y.example>", "RCPT TO:<z@y.example>", "QUIT")
        for said in (
            {"sender": "a@B.example"},
            {"sender": "@b.example"},
            {"recipient": "c@d.example"},
            {"sender": "<a@b.example>", "recipient": "@d.example"},
        ):
            self.assertEqual(self.lines(said, *spoken, *other), list(spoken), said)
        for said in ({"sender": "c@d.example"}, {"sender": "x@y.example", "recipient": "q@r"}):
            self.assertEqual(self.lines(said, *spoken, *other), [], said)

    def test_the_null_reverse_path_can_be_selected(self) -> None:
        self.assertEqual(len(self.lines({"sender": "<>"}, "MAIL FROM:<>")), 1)


class LeftOut(TidyTestCase):
    def setUp(self) -> None:
        self.lines: list[str] = []
        self.overhearing = Overhearing(lambda line: self.lines.append(str(line)))

    def test_credentials_and_lines_that_are_not_commands_are_left_out(self) -> None:
        self.overhearing.received(b"EHLO me")
        self.overhearing.received(b"AUTH PLAIN AHVzZXIAcGVuY2ls")
        self.overhearing.received(b"dXNlcg==", secret=True)
        self.overhearing.received(b"auth plain\tAHVzZXIAcGVuY2ls")
        self.overhearing.received(b"cGVuY2ls")  # out of order: AUTH was refused
        self.overhearing.received(b"Subject: private")
        self.overhearing.sent(b"334 VXNlcm5hbWU6\r\n235 2.7.0 Known\r\n")
        self.overhearing.content(17)
        self.assertEqual(
            self.lines,
            [
                "C: EHLO me",
                "C: AUTH PLAIN (taken out)",
                "C: (taken out)",
                "C: AUTH PLAIN (taken out)",
                "C: (8 octets that are not a command)",
                "C: (16 octets that are not a command)",
                "S: 334 (taken out)",
                "S: 235 2.7.0 Known",
                "C: (17 octets)",
            ],
        )


class Sessions(TidyTestCase):
    def world(self, **settings: Any) -> World:
        world = World(
            self.mktemp(),
            mail_exchangers={"a.example": [(10, "mx1.host")]},
            addresses={"mx1.host": ["192.0.2.1"]},
            **settings,
        )
        self.addCleanup(world.stop)
        self.told: list[Event] = []
        return world

    def open(self, world: World, name: int = 1, **said: str) -> None:
        def deliver(events: Sequence[Event], lost: int) -> None:
            self.told.extend(events)

        tracing = world.mta.mta.agent.tracing
        tracing.open(name, Filter.parse(said), deliver)
        self.addCleanup(tracing.close, name)

    def texts(self, world: World, direction: str) -> list[str]:
        world.mta.advance(0.2)
        return [
            f"{each['who'][0]} {each['text']}"
            for each in self.told
            if each["direction"] == direction
        ]

    def test_both_sessions_of_a_relayed_message_are_shown(self) -> None:
        world = self.world()
        world.serve("192.0.2.1")
        self.open(world)
        world.mta.submit_by_smtp(CONTENT, "b@a.example", sender="s@sender.example")
        inward, outward = self.texts(world, "in"), self.texts(world, "out")
        for line in (
            "s 220 mta.example ESMTP",
            "c EHLO client.example",
            "c MAIL FROM:<s@sender.example>",
            "c (34 octets)",
            "n the connection is over",
        ):
            self.assertIn(line, inward)
        self.assertIn("c STARTTLS", outward)
        self.assertTrue([each for each in outward if each.startswith("n TLSv1.3 ")])
        self.assertIn("c RCPT TO:<b@a.example>", outward)
        self.assertNotIn("private", str(self.told))

    def test_a_session_that_is_open_already_is_shown_from_then_on(self) -> None:
        world = self.world()
        client = world.mta.connect()
        self.open(world, client="127.0.0.1")
        client.say("NOOP")
        self.assertEqual(
            self.texts(world, "in"),
            [
                "n a client at a listener for smtp (under way already)",
                "c NOOP",
                "s 250 2.0.0 OK",
            ],
        )
        world.mta.mta.agent.tracing.close(1)
        client.say("NOOP")
        self.assertEqual(len(self.texts(world, "in")), 3)
        self.assertIsNone(client.transport.other.protocol.session.overheard)

    def test_a_failed_connection_is_shown(self) -> None:
        world = self.world()
        self.open(world, next_hop="mx1.host")
        world.mta.submit_by_smtp(CONTENT, "b@a.example", sender="s@sender.example")
        first, second = self.texts(world, "out")
        self.assertEqual(first, "n to mx1.host[192.0.2.1]:25")
        self.assertTrue(second.startswith("n no connection: "))

    def test_content_sent_among_commands_is_left_out(self) -> None:
        world = self.world()
        self.open(world)
        client = world.mta.connect()
        client.say("MAIL FROM:<a@b.example>", "RCPT TO:<bob@localhost>")
        client.send(b"DATA\r\n" + CONTENT + b".\r\n")  # RFC 2920 §3.1: out of step
        self.texts(world, "in")
        self.assertNotIn("private", str(self.told))

    def test_passwords_are_left_out(self) -> None:
        world = self.world(
            destinations=(Destination(domain="a.example", tls="encrypt"),),
        )
        self.open(world)
        client = world.mta.connect()
        secret = base64.b64encode(b"\0user\0pencil").decode()
        client.say(f"AUTH PLAIN {secret}", "AUTH LOGIN", secret, secret)
        self.texts(world, "in")
        self.assertIn("AUTH PLAIN (taken out)", str(self.told))
        self.assertNotIn(secret, str(self.told))

    def test_without_an_open_trace_sessions_have_no_listener(self) -> None:
        world = self.world()
        world.serve("192.0.2.1")
        client = world.mta.connect()
        self.assertIsNone(client.transport.other.protocol.session.overheard)
        world.mta.submit_by_smtp(CONTENT, "b@a.example", sender="s@sender.example")
        world.mta.advance(0.2)
        protocols = [mine.protocol for mine, _ in world.reactor.connections]
        under_tls = [getattr(each, "wrappedProtocol", each) for each in protocols]
        outgoing = [each for each in under_tls if isinstance(each, Connection)]
        self.assertEqual([each.conversation.listener for each in outgoing], [None])
