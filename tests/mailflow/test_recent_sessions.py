"""Recent sessions: what is remembered of clients that have gone."""

from __future__ import annotations

from typing import Any

from tests.tidy import TidyTestCase
from twisted_mta.telemetry.recent_sessions import MOST_SESSIONS, merged_sessions
from twisted_mta.testing import MemoryMTA


class RecentSessions(TidyTestCase):
    def setUp(self) -> None:
        self.mta = self.enterContext(MemoryMTA())

    def sessions(
        self, peer: str | None = None, *, refused: bool = False, limit: int = 100
    ) -> list[dict[str, Any]]:
        return self.mta.mta.agent.sessions.listed(peer, refused, limit)

    def talk(self, *lines: str) -> Any:
        """Say lines, each after the reply to the one before; return the client."""
        client = self.mta.connect()
        self.mta.advance(0)
        for line in lines:
            client.send(f"{line}\r\n".encode())
            self.mta.advance(0)
        return client

    def test_a_session_with_mail_is_remembered_when_it_ends(self) -> None:
        client = self.talk(
            *("EHLO shop.example", "MAIL FROM:<ann@shop.example>", "RCPT TO:<bob@localhost>"),
            *("DATA", "Subject: Hello\r\n\r\nHello.\r\n."),
        )
        self.assertEqual(self.sessions(), [])
        self.mta.advance(5)
        client.send(b"QUIT\r\n")
        self.mta.advance(1)
        client.transport.loseConnection()
        self.mta.advance(1)
        (session,) = self.sessions()
        for name, expected in (
            ("kind", "smtp"),
            ("helo", "shop.example"),
            ("tls", ""),
            ("account", None),
            ("accepted", 1),
            ("refused", 0),
            ("replies", []),
            ("end", "QUIT"),
        ):
            self.assertEqual(session[name], expected, name)
        self.assertGreaterEqual(session["seconds"], 5)
        self.assertAlmostEqual(session["began"], self.mta.wall_time() - 7, delta=2)
        self.assertTrue(session["peer"].startswith(session["address"]))

    def test_refusals_are_remembered_with_their_text_and_all_is_printable(self) -> None:
        client = self.talk(
            "EHLO evil<b>.example",
            "MAIL FROM:<>",
            *(f"RCPT TO:<u{number}@@elsewhere.example>" for number in range(5)),
        )
        client.transport.loseConnection()
        self.mta.advance(1)
        (session,) = self.sessions(refused=True)
        self.assertGreaterEqual(session["refused"], 5)
        self.assertEqual(len(session["replies"]), 3)
        self.assertEqual(session["end"], "the client hung up")
        for text in (*session["replies"], session["helo"], session["end"]):
            self.assertTrue(text.isprintable() and text.isascii())

    def test_what_was_refused_stays_in_sight_and_memory_is_bounded(self) -> None:
        self.talk("EHLO spammer.example", "NONSENSE").transport.loseConnection()
        for _ in range(MOST_SESSIONS + 5):
            self.talk("EHLO shop.example").transport.loseConnection()
        self.mta.advance(1)
        self.assertEqual(len(self.sessions(limit=1000)), MOST_SESSIONS)
        self.assertEqual(
            [each["helo"] for each in self.sessions("spam", refused=True)], ["spammer.example"]
        )
        self.assertEqual(self.sessions("spam"), [])

    def test_sessions_are_found_by_network_and_name(self) -> None:
        self.talk("EHLO shop.example").transport.loseConnection()
        self.mta.advance(1)
        address = self.sessions()[0]["address"]
        for peer, found in ((address, 1), (f"{address}/24", 1), ("192.0.2.77", 0), ("SHOP", 1)):
            self.assertEqual(len(self.sessions(peer)), found, peer)

    def test_those_of_all_processes_are_merged_by_their_end(self) -> None:
        one, two = {"began": 10.0, "seconds": 1.0}, {"began": 5.0, "seconds": 7.0}
        merged = merged_sessions([(0, [one]), (1, [two])])
        self.assertEqual([each["worker"] for each in merged], [1, 0])


class SessionsWithServers(TidyTestCase):
    """What is remembered of connections to next hops."""

    def setUp(self) -> None:
        self.mta = self.enterContext(MemoryMTA())

    def sessions(self, peer: str | None = None, **wanted: Any) -> list[dict[str, Any]]:
        """Return the sessions with servers."""
        return self.mta.mta.agent.sessions.listed(
            peer, wanted.get("refused", False), 100, wanted.get("direction", "out")
        )

    def send(self, *recipients: str) -> None:
        self.mta.submit(b"Subject: Hello\r\n\r\n", sender="ann@localhost", recipients=recipients)
        self.mta.advance(2)

    def assertMembers(self, session: dict[str, Any], **expected: Any) -> None:
        self.assertEqual({name: session[name] for name in expected}, expected)

    def test_a_connection_is_one_session_however_many_messages_it_serves(self) -> None:
        self.mta.hop()
        self.send("bob@far.example")
        self.send("bob@far.example")
        self.assertEqual(self.sessions(), [])
        self.mta.advance(minutes=10)
        (session,) = self.sessions()
        self.assertMembers(
            session,
            direction="out",
            kind="smtp",
            peer="far.example[192.0.2.1]:25",
            address="192.0.2.1",
            host="far.example",
            accepted=2,
            refused=0,
            replies=[],
            end="QUIT",
        )
        self.assertGreater(session["seconds"], 3)
        self.assertLess(session["began"], self.mta.wall_time() - 500)

    def test_refusals_are_told_and_found(self) -> None:
        hop = self.mta.hop()
        hop.refuse(1)
        self.send("bob@far.example")
        self.send("eve@far.example")
        self.mta.advance(minutes=10)
        (session,) = self.sessions("192.0.2.0/24", refused=True)
        self.assertMembers(session, accepted=1, refused=1, end="QUIT")
        self.assertEqual(session["replies"], ["550 5.1.1 No such mailbox"])
        self.assertEqual(self.sessions("192.0.3.0/24"), [])
        self.assertEqual(len(self.sessions("FAR", refused=True)), 1)
        self.assertEqual(len(self.sessions("near", refused=True)), 0)

    def test_a_server_that_is_down_has_a_session_without_a_connection(self) -> None:
        self.mta.resolver.default = "192.0.2.9"
        self.send("bob@far.example")
        session = self.sessions()[0]
        self.assertMembers(session, accepted=0, tls="", verdict="", address="192.0.2.9")
        self.assertTrue(session["end"].startswith("no connection: "), session["end"])

    def test_neither_direction_pushes_the_other_out(self) -> None:
        self.mta.hop()
        self.send("bob@far.example")
        self.mta.advance(minutes=10)
        for _ in range(MOST_SESSIONS + 1):
            client = self.mta.connect()
            self.mta.advance(0)
            client.transport.loseConnection()
        self.mta.advance(1)
        self.assertEqual(len(self.sessions()), 1)
        directions = [each["direction"] for each in self.sessions(direction=None)]
        self.assertEqual(set(directions), {"in"})  # those that have ended last
        self.assertEqual(len(self.sessions(direction="in")), 100)
