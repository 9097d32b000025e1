"""Durations, sizes and rates: how they are read and written."""

from hypothesis import given
from hypothesis import strategies as st

from tests.tidy import TidyTestCase
from twisted_mta.config.amounts import (
    Rate,
    duration,
    duration_text,
    rate,
    size,
    size_text,
)


class Amounts(TidyTestCase):
    def test_durations_are_read_with_and_without_units(self) -> None:
        for text, seconds in (
            ("30 s", 30), ("5 min", 300), ("1h", 3600), ("5 days", 432000), ("1 day", 86400),
            ("1.5 h", 5400), ("90", 90), (90, 90), (0.25, 0.25), (" 2 weeks ", 1209600),
        ):  # fmt: skip
            self.assertEqual(duration(text), seconds, text)

    def test_sizes_are_read_with_and_without_units(self) -> None:
        for text, octets in (
            ("50 MiB", 50 << 20), ("64KiB", 65536), ("1 GiB", 1 << 30), ("1.5 KiB", 1536),
            ("50 MB", 50_000_000), ("10", 10), (65536, 65536), ("1 octet", 1),
        ):  # fmt: skip
            self.assertEqual(size(text), octets, text)

    def test_every_name_of_a_unit_is_read_in_any_case(self) -> None:
        for reader, units in (
            (duration, {
                1: "s sec second seconds", 60: "m min minute minutes", 3600: "h hour hours",
                86_400: "d day days", 604_800: "w week weeks",
            }),
            (size, {
                1: "b octet octets byte bytes", 1 << 10: "KiB", 1 << 20: "MiB", 1 << 30: "GiB",
                1 << 40: "TiB", 10**3: "kB", 10**6: "MB", 10**9: "GB", 10**12: "TB",
            }),
        ):  # fmt: skip
            for worth, names in units.items():
                for name in names.split():
                    for written in (name, name.lower(), name.upper()):
                        self.assertEqual(reader(f"3 {written}"), 3 * worth, written)

    def test_other_values_are_neither_duration_nor_size(self) -> None:
        for text in ("", "s", "-1", "5 mib", "1 month", "1e3", "٣ s", True, None, float("nan"), -1):
            self.assertRaises(ValueError, duration, text)
        for text in ("", "MiB", "-1", "5 min", "0", 0, "1.5 octets", True, None, float("inf")):
            self.assertRaises(ValueError, size, text)

    @given(st.integers(0, 10**10) | st.floats(0, 10**6))
    def test_a_written_duration_reads_as_the_same(self, seconds: float) -> None:
        if "e" not in repr(float(seconds)):  # 1e-07 s is never written
            self.assertEqual(duration(duration_text(seconds)), seconds)

    @given(st.integers(1, 1 << 61))
    def test_a_written_size_reads_as_the_same(self, octets: int) -> None:
        self.assertEqual(size(size_text(octets)), octets)

    def test_rates_are_written_as_they_are_read(self) -> None:
        for text in ("10/s", "100/min", "1000/h", "5000/day"):
            self.assertEqual(str(rate(text)), text)
        self.assertEqual(rate(" 7 / second "), Rate(7, 1.0))
