"""Numbers of things, in words."""

from __future__ import annotations

from tests.tidy import TidyTestCase
from twisted_mta.mail.counted import counted


class Counted(TidyTestCase):
    def test_one_is_singular_and_every_other_number_is_plural(self) -> None:
        for number, text in (
            (0, "0 messages"),
            (1, "1 message"),
            (2, "2 messages"),
            (1204, "1,204 messages"),
        ):
            self.assertEqual(counted(number, "message"), text)

    def test_a_noun_may_have_its_verb(self) -> None:
        self.assertEqual(counted(1, "alias leads", "aliases lead"), "1 alias leads")
        self.assertEqual(counted(0, "alias leads", "aliases lead"), "0 aliases lead")
