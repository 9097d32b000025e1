"""The tables about sending: limits of accounts, the suppression list, complaint feedback."""

from __future__ import annotations

import os

from tests.tidy import TidyTestCase
from twisted_mta.config import Config, ConfigError, load
from twisted_mta.mail.address import Mailbox


class Tables(TidyTestCase):
    def load(self, text: str) -> Config:
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return load({"local-domain": ["us.test"]}, path, environment={})

    def refused(self, text: str) -> str:
        with self.assertRaises(ConfigError) as caught:
            self.load(text)
        return str(caught.exception).rpartition(os.sep)[2].partition(": ")[2]

    def test_limits_are_read(self) -> None:
        config = self.load(
            "[account_limits]\nmessages_per_hour = 500\n"
            '[[account_limit]]\naccount = "newsletter"\nrecipients_per_hour = 9\n'
            '[[account_limit]]\naccount = "uid:33"\n'
        )
        self.assertEqual(config.account_limits.messages_per_hour, 500)
        self.assertEqual(config.account_limits.recipients_per_hour, 0)
        names = [each.account for each in config.limits_of_accounts]
        self.assertEqual(names, ["newsletter", "uid:33"])

    def test_bad_limits_say_what_was_expected(self) -> None:
        for text, words in (
            ("[[account_limit]]\nmessages_per_hour = 1\n", "[[account_limit]] 1 has no account"),
            ('[[account_limit]]\naccount = ""\n', "expected an account such as newsletter"),
            ('[account_limits]\nmessages_per_hour = "many"\n', "messages_per_hour = "),
            ("[account_limits]\nmessages_per_hour = -1\n", "expected a whole number from 0"),
            ('[[account_limit]]\naccount = "a"\n' * 2, "found two; expected one"),
            ('[[account_limit]]\naccount = "a"\n[[account_limit]]\naccount = "A"\n', "found two"),
        ):
            self.assertIn(words, self.refused(text), text)

    def test_suppression_and_feedback_are_off_without_their_tables(self) -> None:
        config = self.load("")
        self.assertEqual((config.suppression, config.feedback), (None, None))

    def test_the_table_turns_suppression_on(self) -> None:
        settings = self.load("[suppression]\n").suppression
        assert settings is not None
        day = 86_400
        self.assertEqual(
            (settings.bounces, settings.within / day, settings.keep / day), (3, 30, 90)
        )
        for text in ("bounces = 0", 'within = "soon"', "keep = -1"):
            self.assertIn("expected", self.refused(f"[suppression]\n{text}\n"))

    def test_feedback_needs_an_address_of_ours(self) -> None:
        settings = self.load('[feedback]\naddress = "fbl@us.test"\n').feedback
        self.assertEqual(settings and settings.address, Mailbox("fbl", "us.test"))
        for text, words in (
            ("", "[feedback] has no address; expected one such as"),
            ('address = "fbl"', "expected a mailbox such as fbl@example.net"),
            ('address = "fbl@elsewhere.test"', "elsewhere.test is not ours; expected an address"),
            ('address = "f\xe9l@us.test"', "characters outside ASCII"),
            ("address = 7", "expected one string: a mailbox such as"),
        ):
            self.assertIn(words, self.refused(f"[feedback]\n{text}\n"), text)
