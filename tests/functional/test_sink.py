"""The sink of the other tests: any split of the stream gives the same ledger."""

import argparse
import asyncio
import hashlib
import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .sink import Options, Session


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        pass


CONTENT = b"Received: above\r\nX-Campaign: 7\r\n\r\n.\r.\n\r..\r\n..dots\r\n\r\r\n.end\r\n"
STUFFED = CONTENT.replace(b"\r\n.", b"\r\n..")
DIALOGUE = (
    b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"
    + STUFFED
    + b".\r\nQUIT\r\n"
)


class Ledger(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.home)

    def entries(self, *pieces: bytes) -> list[list[str]]:
        options = Options(
            argparse.Namespace(
                delay=0.0, messages=self.home / "messages", ledger=self.home / "ledger"
            )
        )
        session, wire = Session(options), Wire()
        session.connection_made(wire)
        for piece in pieces:
            session.data_received(piece)
        options.close()
        self.assertTrue(wire.written.endswith(b"250 taken\r\n221 bye\r\n"), wire.written)
        lines = (self.home / "ledger").read_text("utf-8").splitlines()
        (self.home / "ledger").unlink()
        return [line.split() for line in lines]

    def test_a_message_is_recorded_with_id_hash_and_recipients(self) -> None:
        ((_, name, digest, size, *recipients),) = self.entries(DIALOGUE)
        expected = CONTENT[CONTENT.index(b"X-Campaign") :]
        self.assertEqual(name, "7")
        self.assertEqual(digest, hashlib.sha256(expected).hexdigest())
        self.assertEqual(int(size), len(expected))
        self.assertEqual(recipients, ["a@b", "c@d"])
        (copy,) = (self.home / "messages").glob("*.eml")
        self.assertEqual(copy.read_bytes(), CONTENT)

    def test_no_split_of_the_stream_changes_the_ledger(self) -> None:
        whole = self.entries(DIALOGUE)[0][1:]
        for split in range(1, len(DIALOGUE)):
            pieces = (DIALOGUE[:split], DIALOGUE[split:])
            self.assertEqual(self.entries(*pieces)[0][1:], whole, split)
        octets = [DIALOGUE[place : place + 1] for place in range(len(DIALOGUE))]
        self.assertEqual(self.entries(*octets)[0][1:], whole)

    def test_a_message_without_our_field_is_recorded_completely(self) -> None:
        text = DIALOGUE.replace(b"X-Campaign", b"X-Other")
        ((_, name, _, size, *_),) = self.entries(text)
        self.assertEqual(name, "-")
        self.assertEqual(int(size), len(CONTENT) - len("Campaign") + len("Other"))
