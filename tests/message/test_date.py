"""Dates in header fields."""

from email.utils import parsedate_to_datetime

from tests.tidy import TidyTestCase
from twisted_mta.message.date import date_time


class Dates(TidyTestCase):
    def test_a_date_has_the_form_of_rfc_5322(self) -> None:
        self.assertEqual(date_time(1795341600), "Sun, 22 Nov 2026 10:00:00 +0000")
        self.assertEqual(date_time(1795341600, 5 * 3600 + 1800), "Sun, 22 Nov 2026 15:30:00 +0530")
        self.assertEqual(date_time(1795341600, -12600), "Sun, 22 Nov 2026 06:30:00 -0330")
        self.assertEqual(date_time(1795341600 + 9 * 86400)[:16], "Tue, 1 Dec 2026 ")

    def test_a_date_with_any_offset_is_the_same_moment(self) -> None:
        for offset in range(-12 * 3600, 14 * 3600, 900):
            found = parsedate_to_datetime(date_time(1795341600, offset))
            self.assertEqual(found.timestamp(), 1795341600)
