"""Readers at the boundaries of what they accept."""

from tests.tidy import TidyTestCase
from twisted_mta.config import amounts
from twisted_mta.config import readers as read
from twisted_mta.config.destination import pattern
from twisted_mta.config.endpoint import endpoint
from twisted_mta.config.setting import Read, shown
from twisted_mta.config.tables import LogSettings

LONGEST_DOMAIN = ".".join(("a" * 63, "b" * 63, "c" * 63, "d" * 61))

BOUNDARIES: tuple[tuple[Read, tuple[object, ...], tuple[object, ...]], ...] = (
    (read.number(1, 64), (1, 64, "1", "64", " 7 "), (0, 65, "0", "65", "-1", 1.0, True)),
    (read.number(0, 256), (0, 256), (-1, 257)),
    (read.count, (1, 10**9), (0, 10**9 + 1)),
    (read.text("text"), ("a",), ("", "a\0", "\0", None)),
    (read.domain, (LONGEST_DOMAIN, "a" * 63), (f"{LONGEST_DOMAIN}e", "a" * 64, "")),
    (
        read.network,
        ("0.0.0.0/0", "192.0.2.1", "192.0.2.0/31", "::/0", "2001:db8::1/128"),
        ("192.0.2.1/31", "192.0.2.0/33", "2001:db8::/129", "192.0.2.0/-1", 3221225985),
    ),
    (read.address, ("192.0.2.255", "::1"), ("192.0.2.256", "192.0.2", "::g", 3221225985)),
    (
        read.nameserver,
        ("192.0.2.1:1", "192.0.2.1:65535", "[::1]:65535", "::1", "[::1]"),
        ("192.0.2.1:0", "192.0.2.1:65536", "[::1]:65536", "[::1", "192.0.2.1:", "a.example"),
    ),
    (
        endpoint,
        ("tcp:0", "tcp:65535", r"tcp6:25:interface=\:\:1", "unix:/run/a.sock"),
        ("tcp:65536", "tcp:-1", "tcp:", "tcp:25:26", "tcp:²", "unix:", "unix:a\tb", "tcp6:25:::1"),
    ),
    (
        pattern,
        ("a.example:1", "a.example:65535", "[192.0.2.1]", ".a.example", "*", "/run/a.sock"),
        ("a.example:0", "a.example:65536", ".[192.0.2.1]", "..a.example", ""),
    ),
    (amounts.duration, (0, 10**10, "0", "0.5 s", 2.5), (-1, 10**10 + 1, "1 month", "-1", True)),
    (amounts.period, ("0.001 s", 1), (0, "0 days")),
    (
        amounts.size,
        (1, (1 << 62) - 1, "1 octet", "0.5 KiB"),
        (0, 1 << 62, "0.5 octets", "1 PiB", 1.5, float("inf"), float("nan")),
    ),
    (
        read.table(LogSettings),
        ({}, {"format": "json"}, LogSettings()),
        ("json", 5, None, ["format"], {"formt": "json"}, {"format": "xml"}),
    ),
    (amounts.rate, ("1/s", "999999999/day"), ("0/s", "1/week", "1000000000/s", "1", "/s")),
)


class Boundaries(TidyTestCase):
    def test_values_within_the_boundaries_are_read_and_others_refused(self) -> None:
        for reader, accepted, refused in BOUNDARIES:
            for value in accepted:
                reader(value)
            for value in refused:
                with self.assertRaises(ValueError, msg=f"{reader}: {shown(value)}"):
                    reader(value)

    def test_what_a_reader_returns_is_read_again_as_the_same(self) -> None:
        for reader, accepted, _ in BOUNDARIES:
            for value in accepted:
                once = reader(value)
                self.assertEqual(reader(once), once, shown(value))
