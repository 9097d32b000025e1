"""The page of the design is true: the way of a message, and a diagram of every state machine."""

import re
import sys
from pathlib import Path
from types import FrameType

from twisted.trial.unittest import SynchronousTestCase

import twisted_mta
from twisted_mta.testing.memory_mta import MemoryMTA
from twisted_mta.testing.peer import ScriptedPeer

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
PACKAGE = Path(str(twisted_mta.__file__)).parent

NEXT_HOP = "192.0.2.1"


def relay_one_message(directory: str) -> list[tuple[str, str]]:
    """Relay a message, and return the functions that ran: (file, qualified name), in order."""
    called: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            called.append((str(path.relative_to(PACKAGE)), frame.f_code.co_qualname))

    mta = MemoryMTA(directory, routes=[("*", f"smtp://{NEXT_HOP}")])
    mta.start()
    steps = [
        ("send", b"220 mx.example ESMTP\r\n"),
        ("expect", re.compile(rb"EHLO [^\r]*\r\n")),
        ("send", b"250 mx.example\r\n"),
        ("expect", re.compile(rb"MAIL FROM:[^\r]*\r\n")),
        ("send", b"250 ok\r\n"),
        ("expect", re.compile(rb"RCPT TO:[^\r]*\r\n")),
        ("send", b"250 ok\r\n"),
        ("expect", b"DATA\r\n"),
        ("send", b"354 go on\r\n"),
        ("content",),
        ("send", b"250 taken\r\n"),
    ]
    peer = ScriptedPeer(steps)
    mta.reactor.listen(NEXT_HOP, 25, peer)
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        mta.submit_by_smtp(b"Subject: x\r\n\r\nhello\r\n", "bob@elsewhere.example")
        mta.advance(1)
    finally:
        sys.setprofile(before)
    mta.stop()
    assert len(peer.contents) == 1, peer.problems
    return called


class Design(SynchronousTestCase):
    def test_a_message_takes_the_way_on_the_page(self) -> None:
        page = (DOCS / "design.rst").read_text(encoding="utf-8")
        way = re.findall(r"^   \* - ``(\S+\.py)``\n     - ``(\S+)``$", page, re.MULTILINE)
        self.assertGreater(len(way), 30)
        called = iter(relay_one_message(self.mktemp()))
        for step in way:
            self.assertIn(step, called, "no such function, or not after the one before it")

    def test_every_table_of_transitions_is_drawn(self) -> None:
        drawn = [
            module
            for page in sorted(DOCS.glob("*.rst"))
            for module in re.findall(r"\.\. states:: (\S+)\.TRANSITIONS\n", page.read_text("utf-8"))
        ]
        tables = [
            ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
            for path in sorted(PACKAGE.rglob("*.py"))
            if re.search(r"^TRANSITIONS\b", path.read_text("utf-8"), re.MULTILINE)
        ]
        self.assertEqual(sorted(drawn), sorted(tables))
