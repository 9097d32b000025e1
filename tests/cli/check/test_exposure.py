"""What a check says of settings that are right, and do not do what was meant."""

import os
from ipaddress import ip_network

from tests.cli.check.checking import CheckTestCase
from twisted_mta.config import Listener, QueueSettings

EVERYBODY = (ip_network("0.0.0.0/0"), ip_network("::/0"))
PUBLIC = "tcp:0"


class Relaying(CheckTestCase):
    def test_everybody_is_an_open_relay(self) -> None:
        texts = self.found(self.config(relay_from=EVERYBODY))
        self.assertEqual([text.split(":")[0] for text in texts], ["warning", "warning"])
        self.assertIn("listed as an open relay; name your own networks", texts[0])

    def test_a_large_part_of_the_internet_is_warned_of_where_it_can_connect(self) -> None:
        wide = (ip_network("64.0.0.0/4"),)
        self.assertEqual(self.found(self.config(relay_from=wide)), [])
        (text,) = self.found(self.config(PUBLIC, recipients="existing", relay_from=wide))[:1]
        self.assertIn("64.0.0.0/4 holds more of the Internet than one network", text)
        own = (ip_network("10.0.0.0/8"), ip_network("192.0.2.0/24"))
        texts = self.found(self.config(PUBLIC, relay_from=own))
        self.assertEqual([text for text in texts if "relay_from" in text], [])

    def test_proxies_are_not_everybody(self) -> None:
        listener = Listener(endpoint="tcp:0:interface=127.0.0.1", xclient_from=EVERYBODY[:1])
        (text,) = self.found(self.config(listeners=[listener]))
        self.assertIn("xclient_from: 0.0.0.0/0 is everybody: whoever connects may claim", text)


class Recipients(CheckTestCase):
    def test_any_recipient_from_anywhere_is_warned_of(self) -> None:
        (text,) = self.found(self.config(PUBLIC, recipients="any"))
        self.assertIn('warning: [mta] recipients: "any": tcp:0 takes mail for every name', text)
        self.assertEqual(self.found(self.config("tcp:0:interface=127.0.0.1", recipients="any")), [])

    def test_existing_recipients_of_whom_there_are_none(self) -> None:
        config = self.config(PUBLIC, local_domains=["example.net"])
        self.assertEqual(
            self.found(config),
            [
                'warning: [mta] recipients: "existing": there is no Maildir below'
                " DIR/state/maildir yet, so that every local recipient is refused with 550; make"
                " DIR/state/maildir/example.net/NAME for each"
            ],
        )
        os.makedirs(os.path.join(self.state, "maildir", "example.net", "you"))
        os.chmod(self.state, 0o700)
        self.assertEqual(self.found(config), [])


class Routes(CheckTestCase):
    def of(self, *routes: tuple[str, str], **values: object) -> list[str]:
        return self.found(self.config(routes=routes, **values), notes=True)[:-1]

    def test_a_route_that_cannot_be_read_is_an_error(self) -> None:
        texts = self.of(("a.example", "smtp://b:99999"), ("*", "discard:"))
        self.assertEqual(len(texts), 1)
        self.assertTrue(
            texts[0].startswith("error: route a.example=smtp://b:99999: not a host and port"),
            texts[0],
        )

    def test_a_route_without_which_mail_goes_the_same_way(self) -> None:
        hub, other = "smtp://hub.example", "smtp://other.example"
        self.assertEqual(
            self.of((".example.org", hub), ("a.example.org", hub), ("b.example.org", other)),
            [
                "warning: route a.example.org=smtp://hub.example: it changes nothing: without it,"
                " route .example.org=smtp://hub.example says the same; leave it out"
            ],
        )
        (text,) = self.of(("*", hub), (".example.org", hub))
        self.assertIn("route .example.org=smtp://hub.example: it changes nothing", text)
        (text,) = self.of(("example.net", "maildir:"), local_domains=["example.net"])
        self.assertIn("without it, local domain example.net says the same", text)
        self.assertEqual(self.of(("*", hub), ("a.example", "discard:"), (".a.example", other)), [])

    def test_routes_for_others_whom_nobody_may_send_to(self) -> None:
        routes = (("*", "smtp://hub.example"), ("local.example", "smtp://inside.example"))
        (text,) = self.of(*routes, relay_from=[])
        self.assertIn("warning: route *=smtp://hub.example: nobody may send to other domains", text)

    def test_a_suffix_says_nothing_of_the_local_domain_itself(self) -> None:
        (text,) = self.of((".example.net", "discard:"), local_domains=["example.net"])
        self.assertIn("it is for domains below example.net, and not for that one", text)


class OpenFiles(CheckTestCase):
    def test_the_limit_covers_all_connections(self) -> None:
        listeners = [
            Listener(endpoint=f"tcp:0:interface=127.0.0.{number}", max_connections=1000)
            for number in (1, 2)
        ]
        config = self.config(listeners=listeners, queue=QueueSettings(concurrency=100))
        self.assertEqual(
            self.found(config, descriptors=lambda: 2163),
            [
                "warning: open files: 2163 are allowed to a process started here, and 2000"
                " connections in with 100 out need 2164; LimitNOFILE=4096 in the systemd unit, or"
                " ulimit -n 4096"
            ],
        )
        self.assertEqual(self.found(config, descriptors=lambda: 2164), [])
        self.assertEqual(self.found(config, descriptors=lambda: -1), [])  # unlimited
