"""Addresses in header fields and arguments, as ``twisted-mta-sendmail`` reads them."""

from tests.tidy import TidyTestCase
from twisted_mta.submitter.addresses import AddressError, addresses, checked, qualified


class Addresses(TidyTestCase):
    def test_names_comments_groups_and_routes_are_left_out(self) -> None:
        for text, found in (
            ("ann", ["ann"]),
            ("ann@example.net, bob", ["ann@example.net", "bob"]),
            ("Ann Lee <ann@example.net>", ["ann@example.net"]),
            ('"Lee, Ann" <ann@example.net>, <bob>', ["ann@example.net", "bob"]),
            ("ann@example.net (Ann (the \\) one), really)", ["ann@example.net"]),
            ("friends: ann, Bob <bob@x>;, eve", ["ann", "bob@x", "eve"]),
            ("undisclosed-recipients:;", []),
            ('"a, b"@example.net', ['"a, b"@example.net']),
            ('<"a>b"@example.net>', ['"a>b"@example.net']),
            ("<@relay.example:ann@example.net>", ["ann@example.net"]),
            ("ann@[IPv6:2001:db8::1], eve", ["ann@[IPv6:2001:db8::1]", "eve"]),
            ("ann @ example . net", ["ann@example.net"]),
            (" , ,ann,", ["ann"]),
            ("<>", []),
        ):
            self.assertEqual(addresses(text), found, text)

    def test_what_is_no_list_of_addresses_is_refused(self) -> None:
        for text in ('"ann', "ann (", "<ann", "ann>", "<a> <b>", "ann bob", "a@[1"):
            self.assertRaises(AddressError, addresses, text)

    def test_a_long_field_is_read_in_linear_time(self) -> None:
        for piece in ("(", "a,", '"', "<a>,", "\\", "a ", "[", ":"):
            with self.subTest(piece):
                try:
                    addresses(piece * 200_000)
                except AddressError:
                    continue

    def test_a_bare_name_gets_the_domain(self) -> None:
        self.assertEqual(qualified("ann", "example.net"), "ann@example.net")
        self.assertEqual(qualified("ann@x", "example.net"), "ann@x")
        self.assertEqual(qualified('"a@b"', "example.net"), '"a@b"@example.net')

    def test_an_address_cannot_end_a_command(self) -> None:
        for text in ("a\r\nRCPT TO:<b>", "a b@x", "a>@x", "a\x00@x", "", '"a"@x y'):
            self.assertRaises(AddressError, checked, text)
        for text in ('"a b"@x', "grüße@x", '"a>b"@x'):
            self.assertEqual(checked(text), text)
