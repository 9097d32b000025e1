"""A short search of every target, the corpus, and the discovery of broken code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.mail.reply import Reply
from twisted_mta.policy.delegation import answer
from twisted_mta.smtp.client import session
from twisted_mta.smtp.client.awaited import Awaited
from twisted_mta.smtp.client.machine import Event
from twisted_mta.smtp.client.session import ClientSession
from twisted_mta.smtp.data import DataReader, NewlineNormalizer
from twisted_mta.smtp.server import session as server
from twisted_mta.smtp.server.session import Session

from .case import Case, Unreadable
from .corpus import CORPUS, keep, load
from .search import Search, failure, growth, smaller
from .targets.all import TARGETS

SECONDS = 0.5  # for each target
STRETCH = 0.1  # seconds of search between two looks at its findings
LEAK = 131  # octets that every case leaves behind
PATIENCE = 120.0  # seconds until broken code has to be found; mostly it takes less than one


class ShortSearch(SynchronousTestCase):
    """The beginning of a search, from the corpus."""

    def assertHolds(self, name: str) -> None:
        search = Search(TARGETS[name], seed=1, corpus=load(name))
        result = search.run(SECONDS)
        while result.executions <= 100 and result.seconds < PATIENCE:
            result = search.run(STRETCH)
        self.assertEqual([f"{one.error}\n{one.case.text()}" for one in result.findings], [])
        self.assertGreater(result.executions, 100)

    def test_the_session_target_holds_for_a_search(self) -> None:
        self.assertHolds("session")

    def test_the_address_target_holds_for_a_search(self) -> None:
        self.assertHolds("address")

    def test_the_data_target_holds_for_a_search(self) -> None:
        self.assertHolds("data")

    def test_the_header_target_holds_for_a_search(self) -> None:
        self.assertHolds("header")

    def test_the_client_target_holds_for_a_search(self) -> None:
        self.assertHolds("client")

    def test_the_milter_target_holds_for_a_search(self) -> None:
        self.assertHolds("milter")

    def test_the_policy_service_target_holds_for_a_search(self) -> None:
        self.assertHolds("policy_service")

    def test_memory_does_not_grow(self) -> None:
        for name, target in TARGETS.items():
            cases = load(name)
            # A cache that fills up grows for a while, and a leak goes on growing.
            if growth(target, cases, 100) >= 100 * LEAK:
                self.assertLess(growth(target, cases, 500), 500 * LEAK, name)


class Corpus(SynchronousTestCase):
    def test_each_case_of_the_corpus_is_small_and_holds(self) -> None:
        paths = sorted(CORPUS.iterdir())
        self.assertLess(sum(path.stat().st_size for path in paths), 512 * 1024)
        for path in paths:
            case = Case.parse(path.read_text("ascii"))
            self.assertIsNone(failure(TARGETS[case.target], case), path.name)

    def test_every_target_has_cases_in_the_corpus(self) -> None:
        self.assertEqual([name for name in TARGETS if not load(name)], [])


class BrokenCode(SynchronousTestCase):
    """Each of these faults was in some mail server, and a search finds it.

    Any search does, from nothing; one that begins with the corpus may find it sooner.
    """

    def assertFound(
        self,
        name: str,
        owner: object,
        attribute: str,
        broken: object,
        *,
        corpus: Sequence[Case] = (),
    ) -> None:
        self.patch(owner, attribute, broken)
        search = Search(TARGETS[name], seed=1, corpus=corpus)
        result = search.run(STRETCH)
        while not result.findings and result.seconds < PATIENCE:
            result = search.run(STRETCH)
        self.assertTrue(result.findings, f"{result.executions} cases did not find it")
        # The file of the finding reproduces it.
        finding = result.findings[0]
        again = Case.parse(finding.case.text())
        self.assertIsNotNone(failure(TARGETS[name], again), finding.case.text())

    def test_a_dot_between_bare_line_feeds_that_ends_the_content_is_noticed(self) -> None:
        read = DataReader.read

        def broken(reader: DataReader, octets: bytes) -> tuple[bytes, bytes]:
            return read(reader, octets.replace(b"\n.\n", b"\r\n.\r\n"))

        self.assertFound("data", DataReader, "read", broken)

    def test_removing_one_dot_too_many_is_noticed(self) -> None:
        read = DataReader.read

        def broken(reader: DataReader, octets: bytes) -> tuple[bytes, bytes]:
            content, rest = read(reader, octets)
            return content.replace(b"\r\n.", b"\r\n"), rest

        self.assertFound("data", DataReader, "read", broken)

    def test_newlines_that_depend_on_the_cut_are_noticed(self) -> None:
        def broken(normalizer: NewlineNormalizer, content: bytes) -> bytes:
            lines = content.replace(b"\0", b"").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            return lines.replace(b"\n", b"\r\n")

        self.assertFound("data", NewlineNormalizer, "feed", broken)

    def test_a_control_character_in_the_answer_of_a_service_is_noticed(self) -> None:
        self.assertFound("policy_service", answer, "_CONTROL", re.compile(rb"\0"))

    def test_obeying_a_command_behind_starttls_is_noticed(self) -> None:
        established = Session.tls_established

        def broken(session: Session, facts: Any) -> None:
            transaction, state = session.transaction, session.state
            established(session, facts)
            session.greeting = "EHLO"
            session.transaction = transaction
            session.state = type(state).GREETED

        self.assertFound("session", Session, "tls_established", broken)

    def test_one_reply_too_many_is_noticed(self) -> None:
        def broken(session: Session, argument: str) -> None:
            session._reply(Reply.of(252, "0.0", "Perhaps"))
            session._reply(Reply.of(250, "0.0", "OK"))

        self.assertFound("session", server, "_COMMANDS", {**server._COMMANDS, "VRFY": broken})

    def test_a_forgotten_recipient_is_noticed(self) -> None:
        def broken(session: ClientSession, reply: Reply, steps: list[Any]) -> None:
            session._transaction = None
            session._held_back.clear()
            session._enter(Event.ENDED)

        actions = {**session._ACTIONS, Awaited.MAIL: (broken,) * 4}
        self.assertFound("client", session, "_ACTIONS", actions)

    def test_one_lmtp_reply_taken_for_all_recipients_is_noticed(self) -> None:
        def broken(session: ClientSession, reply: Reply) -> None:
            session._current.settle(session._current.accepted, reply)

        self.assertFound("client", ClientSession, "_settle_next", broken, corpus=load("client"))

    def test_credentials_in_clear_are_noticed(self) -> None:
        def broken(session: ClientSession) -> bool:
            return session._tls_level == "encrypt"

        self.assertFound("client", ClientSession, "_needs_tls", property(broken))


class Reproducers(SynchronousTestCase):
    def test_a_case_is_read_back_from_its_file(self) -> None:
        octets = bytes(range(256)) + b"\\x41\\ \r\n "
        case = Case("session", (1, 0, 3), (), (octets, b"", b"end ", b" "))
        self.assertEqual(Case.parse(case.text()), case)
        self.assertTrue(case.text().isascii())

    def test_a_file_without_a_case_is_an_error_that_says_why(self) -> None:
        for text in ("EHLO x", "knobs one", "> \\x4"):
            self.assertRaises(Unreadable, Case.parse, text)

    def test_a_finding_is_stored_with_its_error(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        case = Case("data", pieces=(b"a\r\n",))
        path = keep(case, folder, "failure-", "not good\nat all")
        self.assertTrue(path.name.startswith("failure-data-"))
        self.assertIn("# not good\n", path.read_text("ascii"))
        self.assertEqual(Case.parse(path.read_text("ascii")), case)

    def test_a_case_is_reduced_to_the_pieces_that_fail(self) -> None:
        case = Case("data", (1, 1), (3,), (b"some text", b"x" * 300 + b"BAD" + b"y" * 300, b"more"))
        small = smaller(case, lambda other: any(b"BAD" in piece for piece in other.pieces))
        self.assertEqual(small, Case("data", (0, 0), (0,), (b"BAD",)))

    def test_the_same_seed_gives_the_same_search(self) -> None:
        def reached() -> tuple[int, list[Case]]:
            result = Search(TARGETS["data"], seed=7).run(60.0, executions=150)
            return result.steps, result.kept

        self.assertEqual(reached(), reached())
