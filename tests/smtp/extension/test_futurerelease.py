"""HOLDFOR and HOLDUNTIL: the times that clients write, and the seconds that are kept."""

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.smtp.command import CommandError
from twisted_mta.smtp.extension.futurerelease import future_release

NOW = 1_800_000_000.25  # 2027-01-15T08:00:00Z and a quarter of a second
DAY = 86_400


class Reading(SynchronousTestCase):
    def setUp(self) -> None:
        self.readers = future_release(DAY, lambda: NOW).mail

    def test_a_time_is_kept_in_seconds_and_never_too_early(self) -> None:
        for written, seconds in (
            ("2027-01-15T09:00:00Z", 3600),
            ("2027-01-15T09:00:00.000000000Z", 3600),
            ("2027-01-15T09:00:00.000000001Z", 3601),
            ("2027-01-15T09:00:00.123456789Z", 3601),
            ("2027-01-15t09:00:00,5z", 3601),
            ("2027-01-15T09:00Z", 3600),
            ("2027-01-15T10:30:00+0130", 3600),
            ("2027-01-15T04:00:00-05:00", 3600),
            ("2027-01-15T08:59:60Z", 3600),
        ):
            self.assertEqual(self.readers["HOLDUNTIL"](written), 1_800_000_000 + seconds, written)

    def test_a_time_within_the_present_second_has_not_passed(self) -> None:
        self.assertEqual(self.readers["HOLDUNTIL"]("2027-01-15T08:00:00.5Z"), 1_800_000_001)
        self.assertRaises(CommandError, self.readers["HOLDUNTIL"], "2027-01-15T08:00:00Z")

    def test_the_longest_hold_is_the_announced_one(self) -> None:
        self.assertEqual(self.readers["HOLDFOR"]("86400"), DAY)
        self.assertRaises(CommandError, self.readers["HOLDFOR"], "86401")
        self.assertEqual(self.readers["HOLDUNTIL"]("2027-01-16T08:00:00Z"), 1_800_000_000 + DAY)
        self.assertRaises(CommandError, self.readers["HOLDUNTIL"], "2027-01-16T08:00:01Z")

    def test_zero_is_no_time_to_hold_a_message(self) -> None:
        """RFC 4865 §3."""
        for written in ("0", "00", "01", "", "+1", "1.5", None):
            self.assertRaises(CommandError, self.readers["HOLDFOR"], written)
        self.assertEqual(self.readers["HOLDFOR"]("1"), 1)
