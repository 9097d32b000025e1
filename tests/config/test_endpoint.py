"""Endpoint strings: how they are split, and which are refused."""

from tests.tidy import TidyTestCase
from twisted_mta.config.endpoint import Endpoint, endpoint


class Endpoints(TidyTestCase):
    def test_an_endpoint_string_is_split_as_twisted_does(self) -> None:
        self.assertEqual(
            Endpoint.parse(r"tcp6:port=25:interface=\:\:1:a=b=c"),
            Endpoint("tcp6", (), {"port": "25", "interface": "::1", "a": "b=c"}),
        )
        self.assertEqual(Endpoint.parse(r"unix:/a\:b\=c").arguments, ("/a:b=c",))

    def test_kinds_of_twisted_and_its_plugins_are_accepted(self) -> None:
        for description in (
            "tcp:0", "tcp:65535", "tcp:port=25", r"tcp6:25:interface=\:\:", "unix:/run/a:mode=666",
            "systemd:domain=INET:name=mta", "stdio:", "TCP:25",
        ):  # fmt: skip
            self.assertEqual(endpoint(description), description)

    def test_other_strings_are_refused(self) -> None:
        for description in (
            "", "tcp", "tcp:", "tcp:smtp", "tcp:65536", "tcp:-1", "unix:", "25",
            "tcp6:25:interface=127.0.0.1", "tcp:25\n", "http:80",
        ):  # fmt: skip
            self.assertRaises(ValueError, endpoint, description)
