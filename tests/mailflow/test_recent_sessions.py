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
