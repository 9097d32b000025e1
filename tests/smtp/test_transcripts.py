"""Every transcript: against the pure session at all split points, in memory, and over TCP."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.server.certificate import server_context
from twisted_mta.testing.transcript import Transcript, TranscriptError

PATHS = sorted((Path(__file__).parent.parent / "transcripts").glob("*.smtp"))


class AgainstTheSession(SynchronousTestCase):
    """Whole, octet by octet, and cut in two at every place."""


class InMemory(SynchronousTestCase):
    """Against the protocol, with real TLS, on a clock."""


class WithLateDecisions(SynchronousTestCase):
    """The same, with every decision two seconds late."""


class OverTCP(TestCase):
    """Over a real connection, with real TLS."""


def _tests(path: Path) -> dict[type, Callable[[Any], Any]]:
    def pure(self: SynchronousTestCase) -> None:
        transcript = Transcript.load(path)
        self.assertTrue(transcript.title)
        self.assertGreaterEqual(transcript.play_pure(), 1)

    def memory(self: SynchronousTestCase) -> None:
        Transcript.load(path).play_in_memory(server_context())

    def late(self: SynchronousTestCase) -> None:
        Transcript.load(path).play_in_memory(server_context(), late=2)

    def tcp(self: TestCase) -> Deferred[None]:
        from twisted.internet import reactor  # noqa: TID251

        playing = Transcript.load(path).play_over_tcp(reactor, server_context())
        return Deferred.fromCoroutine(playing)

    return {AgainstTheSession: pure, InMemory: memory, WithLateDecisions: late, OverTCP: tcp}


for _path in PATHS:
    for _case, _test in _tests(_path).items():
        setattr(_case, "test_" + _path.stem.replace("-", "_"), _test)
del _case  # or it would be collected once more


class ThePlayer(SynchronousTestCase):
    """The player notices every difference."""

    def played(self, text: str) -> str:
        transcript = Transcript(text, "x.smtp")
        error = self.assertRaises(TranscriptError, transcript.play_pure)
        return str(error)

    def test_another_reply_is_noticed(self) -> None:
        error = self.played("S: 220 *\nC: NOOP\nS: 251 *")
        self.assertIn("x.smtp:3: found 250 2.0.0 OK, expected 251 *", error)

    def test_a_missing_reply_is_noticed(self) -> None:
        self.assertIn("(nothing)", self.played("S: 220 *\nS: 250 *"))

    def test_a_surplus_reply_is_noticed(self) -> None:
        self.assertIn("expected nothing more", self.played("S: 220 *\nC: NOOP"))

    def test_a_single_line_in_place_of_several_is_noticed(self) -> None:
        self.assertIn("expected 250-*", self.played("S: 220 *\nC: NOOP\nS: 250-*"))

    def test_a_missing_or_surplus_keyword_is_noticed(self) -> None:
        text = "@ tls none\nS: 220 *\nC: EHLO x\nS: 250-*\n"
        self.assertIn("expected S? STARTTLS", self.played(text + "S? STARTTLS"))
        self.assertIn("expected S! SIZE", self.played(text + "S! SIZE"))

    def test_a_connection_that_stays_open_is_noticed(self) -> None:
        self.assertIn("the end of the connection", self.played("S: 220 *\nCLOSED"))

    def test_a_connection_that_closes_is_noticed(self) -> None:
        error = self.played("S: 220 *\nC: QUIT\nS: 221 *\nS: 250 *")
        self.assertIn("found the end of the connection", error)

    def test_a_missing_or_surplus_message_is_noticed(self) -> None:
        taken = (
            "S: 220 *\nC: EHLO x\nS: 250-*\nC: MAIL FROM:<>\nC: RCPT TO:<a@b>\nC: DATA\n"
            "S: 250 *\nS: 250 *\nS: 354 *\nC: x\nC: .\nS: 250 *\n"
        )
        self.assertIn("expected as message 1 none", self.played(taken))
        self.assertIn(
            "expected as message 1", self.played(f"{taken}M: from <> to <a@c>\nM> x\\r\\n")
        )
        self.assertIn(
            "expected as message 1", self.played(f"{taken}M: from <> to <a@b>\nM> y\\r\\n")
        )
        Transcript(f"{taken}M: from <> to <a@b>\nM> x\\r\\n", "x").play_pure()

    def test_a_violation_is_noticed(self) -> None:
        text = "@ whole\nS: 220 *\nC: EHLO x\nC: NOOP\nS: 554 *\nCLOSED\n"
        self.assertIn("expected 0 violations", self.played(text))

    def test_a_difference_at_some_splits_only_is_noticed(self) -> None:
        text = "@ violations 1\nS: 220 *\nC: EHLO x\nC: NOOP\nS: 554 *\nCLOSED\n"
        self.assertIn("(cut: ", self.played(text))

    def test_a_malformed_line_of_a_transcript_is_refused(self) -> None:
        for line in ("X: y", "@ nonsense 1", "C* x y", "M> before its message"):
            error = self.assertRaises(TranscriptError, Transcript, line, "x")
            self.assertIn("x:1", str(error))
