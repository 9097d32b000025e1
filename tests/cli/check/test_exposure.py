"""Findings about valid settings with unintended effects."""

import os
from ipaddress import ip_network

from attrs import evolve

from tests.cli.check.checking import CheckTestCase
from twisted_mta.config import Listener, PolicySettings, QueueSettings
from twisted_mta.config.tables import WebSettings

ALL_HOSTS = (ip_network("0.0.0.0/0"), ip_network("::/0"))
PUBLIC = "tcp:0"


class Relaying(CheckTestCase):
    def test_relaying_for_all_hosts_is_an_open_relay(self) -> None:
        texts = self.found(self.config(relay_from=ALL_HOSTS))
        self.assertEqual([text.split(":")[0] for text in texts], ["warning", "warning"])
        self.assertIn("listed as an open relay; name your own networks", texts[0])

    def test_relaying_for_a_very_large_network_is_a_warning_if_it_can_connect(self) -> None:
        wide = (ip_network("64.0.0.0/4"),)
        self.assertEqual(self.found(self.config(relay_from=wide)), [])
        (text,) = self.found(self.config(PUBLIC, recipients="existing", relay_from=wide))[:1]
        self.assertIn("64.0.0.0/4 is larger than one operator's network", text)
        own = (ip_network("10.0.0.0/8"), ip_network("192.0.2.0/24"))
        texts = self.found(self.config(PUBLIC, relay_from=own))
        self.assertEqual([text for text in texts if "relay_from" in text], [])

    def test_all_hosts_as_forwarders_is_a_warning(self) -> None:
        policy = PolicySettings(
            dmarc="enforce", trusted_forwarders=("0.0.0.0/0", "192.0.2.0/24", "a.example")
        )
        (text,) = self.found(self.config(policy=policy))
        self.assertIn("[policy] trusted_forwarders: 0.0.0.0/0 is all hosts: dmarc = enforce", text)

    def test_all_hosts_as_proxies_is_a_warning(self) -> None:
        listener = Listener(endpoint="tcp:0:interface=127.0.0.1", xclient_from=ALL_HOSTS[:1])
        (text,) = self.found(self.config(listeners=[listener]))
        self.assertIn("xclient_from: 0.0.0.0/0 is all hosts: any client may claim", text)


class Page(CheckTestCase):
    def test_secrets_in_clear_from_other_machines_are_a_warning(self) -> None:
        page = WebSettings(tokens="/nowhere")
        for web, settings, warned in (
            ("tcp:0", page, True),
            ("tcp:0", evolve(page, tls=True), False),
            ("tcp:0", WebSettings(), False),
            ("tcp:0:interface=127.0.0.1", page, False),
            ("unix:/run/page", page, False),
        ):
            texts = self.found(self.config(web=web, web_page=settings))
            found = [text for text in texts if "can be read on their way" in text]
            self.assertEqual(len(found), warned, (web, texts))


class Recipients(CheckTestCase):
    def test_relay_domains_without_a_list_of_recipients_make_backscatter(self) -> None:
        (text,) = self.found(self.config(relay_domains=("backup.example",)))
        self.assertIn(
            "warning: [mta] relay_domains: any invented address in backup.example is accepted", text
        )
        self.assertIn("(backscatter); name the addresses", text)

    def test_any_recipient_on_a_public_listener_is_a_warning(self) -> None:
        (text,) = self.found(self.config(PUBLIC, recipients="any"))
        self.assertIn(
            'warning: [mta] recipients: "any": tcp:0 accepts mail for any invented name', text
        )
        self.assertEqual(self.found(self.config("tcp:0:interface=127.0.0.1", recipients="any")), [])

    def test_a_capture_server_on_a_public_listener_is_a_warning(self) -> None:
        (text,) = self.found(self.config(PUBLIC, capture=True))
        self.assertIn("warning: [mta] capture: true: tcp:0 accepts mail of any host", text)
        self.assertEqual(self.found(self.config("tcp:0:interface=127.0.0.1", capture=True)), [])

    def test_existing_recipients_without_a_maildir_is_a_warning(self) -> None:
        config = self.config(PUBLIC, local_domains=["example.net"])
        self.assertEqual(
            self.found(config),
            [
                'warning: [mta] recipients: "existing": DIR/state/maildir has no Maildir yet:'
                " all local recipients are refused (550); create"
                " DIR/state/maildir/example.net/NAME for each"
            ],
        )
        os.makedirs(os.path.join(self.state, "maildir", "example.net", "you"))
        os.chmod(self.state, 0o700)
        self.assertEqual(self.found(config), [])


class Routes(CheckTestCase):
    def of(self, *routes: tuple[str, str], **values: object) -> list[str]:
        return self.found(self.config(routes=routes, **values), notes=True)[:-1]

    def test_an_invalid_route_is_an_error(self) -> None:
        texts = self.of(("a.example", "smtp://b:99999"), ("*", "discard:"))
        self.assertEqual(len(texts), 1)
        self.assertTrue(
            texts[0].startswith("error: route a.example=smtp://b:99999: not a host and port"),
            texts[0],
        )

    def test_a_route_with_the_same_next_hop_as_another_is_a_warning(self) -> None:
        hub, other = "smtp://hub.example", "smtp://other.example"
        self.assertEqual(
            self.of((".example.org", hub), ("a.example.org", hub), ("b.example.org", other)),
            [
                "warning: route a.example.org=smtp://hub.example: it changes nothing:"
                " route .example.org=smtp://hub.example has the same next hop; remove it"
            ],
        )
        (text,) = self.of(("*", hub), (".example.org", hub))
        self.assertIn("route .example.org=smtp://hub.example: it changes nothing", text)
        (text,) = self.of(("example.net", "maildir:"), local_domains=["example.net"])
        self.assertIn("local domain example.net has the same next hop", text)
        self.assertEqual(self.of(("*", hub), ("a.example", "discard:"), (".a.example", other)), [])

    def test_a_route_for_all_domains_without_relaying_is_a_warning(self) -> None:
        routes = (("*", "smtp://hub.example"), ("local.example", "smtp://inside.example"))
        (text,) = self.of(*routes, relay_from=[])
        self.assertIn(
            "warning: route *=smtp://hub.example: no client may relay to other domains", text
        )

    def test_a_suffix_of_a_local_domain_is_a_note(self) -> None:
        (text,) = self.of((".example.net", "discard:"), local_domains=["example.net"])
        self.assertIn("it applies to domains below example.net, which is local itself", text)


class OpenFiles(CheckTestCase):
    def test_a_limit_of_files_below_all_connections_is_a_warning(self) -> None:
        listeners = [
            Listener(endpoint=f"tcp:0:interface=127.0.0.{number}", max_connections=1000)
            for number in (1, 2)
        ]
        config = self.config(listeners=listeners, queue=QueueSettings(concurrency=100))
        self.assertEqual(
            self.found(config, descriptors=lambda: 2163),
            [
                "warning: open files: a process may open 2163 files here; 2000 incoming connections"
                " and 100 deliveries need 2164; LimitNOFILE=4096 in the systemd unit, or ulimit -n"
                " 4096"
            ],
        )
        self.assertEqual(self.found(config, descriptors=lambda: 2164), [])
        self.assertEqual(self.found(config, descriptors=lambda: -1), [])  # unlimited
