"""Replies of large receivers and of common servers, and why each does not take mail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.mail.classification import classify
from twisted_mta.mail.classification_table import CLASSIFICATIONS, ROWS
from twisted_mta.mail.events import Bounced, Delivered
from twisted_mta.mail.reply import Reply

REPLIES = Path(__file__).with_name("replies.txt")


def read_replies() -> Iterator[tuple[str, Reply]]:
    """Yield each reply of the file with the classification above it."""
    expected = ""
    for line in REPLIES.read_text().splitlines():
        if line.startswith("["):
            expected = line.strip("[]")
        elif line and not line.startswith("#"):
            code, _, text = line.partition(" ")
            yield expected, Reply.received(int(code), tuple(text.split(" / ")))


class Classifications(SynchronousTestCase):
    def test_replies_of_large_receivers(self) -> None:
        for expected, reply in read_replies():
            self.assertEqual(classify(reply), expected, str(reply))

    def test_every_classification_has_examples(self) -> None:
        found = dict.fromkeys(expected for expected, _ in read_replies())
        self.assertEqual(tuple(found), CLASSIFICATIONS)

    def test_a_reply_that_takes_mail_has_none(self) -> None:
        self.assertIsNone(classify(Reply(250, "2.0.0", "over quota")))

    def test_rows_can_be_found_and_say_whose_words_they_have(self) -> None:
        for row in ROWS:
            self.assertTrue(row.source)
            for word in row.words:
                self.assertEqual(word, " ".join(word.lower().split()))

    def test_no_reply_takes_long(self) -> None:
        hostile = Reply.of(550, None, *["over quot unsolicite 5.1 " * 100] * 100)
        began = time.process_time()
        self.assertEqual(classify(hostile), "other")
        self.assertLess(time.process_time() - began, 0.02)

    def test_an_event_has_the_classification_of_its_reply(self) -> None:
        common = ("ID", "a@x.test", ("b@y.test",), "smtp:y.test")
        bounced = Bounced(*common, Reply(550, "5.1.1", "User unknown"), 0.0)
        self.assertEqual(bounced.classification, "unknown-user")
        self.assertIsNone(Delivered(*common, Reply(250, "2.0.0", "ok"), 0.0).classification)
        self.assertIsNone(Delivered(*common, None, 0.0).classification)
