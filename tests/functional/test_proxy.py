"""The PROXY protocol with Debian's HAProxy, and XCLIENT with swaks."""

import smtplib

from .haproxy import HAProxy
from .machine import LOOPBACK, free_port, need, run
from .mail import ProgramTestCase, as_stored, message, trusting
from .mta import MTA

CLIENT = "127.0.0.2"
BALANCER = "127.0.0.3"

_TOML = """\
[[listener]]
endpoint = "tcp:{starttls}:interface=127.0.0.1"
proxy_protocol_from = ["127.0.0.3"]

[[listener]]
endpoint = "tcp:{implicit}:interface=127.0.0.1"
implicit_tls = true
proxy_protocol_from = ["127.0.0.3"]

[[listener]]
endpoint = "tcp:{xclient}:interface=127.0.0.1"
xclient_from = ["127.0.0.1"]
"""


class Proxies(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.ports = {name: free_port() for name in ("starttls", "implicit", "xclient")}
        need("haproxy", "swaks")
        self.mta = self.enterContext(MTA(self.home, toml=_TOML.format(**self.ports)))

    def balancer(self, **servers: tuple[str, str]) -> HAProxy:
        return self.enterContext(
            HAProxy(
                self.home,
                BALANCER,
                {name: (self.ports[to], options) for name, (to, options) in servers.items()},
            )
        )

    def trace(self, number: int) -> bytes:
        """Wait for ``count`` messages; return their header sections, unfolded."""
        mail = self.mta.wait_for_mail("localhost", "bob", number)
        return b"\n".join(b" ".join(each.split(b"\n\n", 1)[0].split()) for each in mail)

    def send(self, client: smtplib.SMTP) -> None:
        with client:
            client.ehlo("client.example")
            if not isinstance(client, smtplib.SMTP_SSL):
                client.starttls(context=trusting())
                client.ehlo("client.example")
            client.sendmail("ann@sender.example", ["bob@localhost"], message())

    def test_every_kind_of_header_that_haproxy_sends_names_the_client(self) -> None:
        kinds = {
            "v1": "send-proxy",
            "v2": "send-proxy-v2",
            "summed": "send-proxy-v2 proxy-v2-options crc32c,unique-id",
        }
        haproxy = self.balancer(**{name: ("starttls", each) for name, each in kinds.items()})
        for name in kinds:
            self.send(
                smtplib.SMTP(LOOPBACK, haproxy.ports[name], timeout=30, source_address=(CLIENT, 0))
            )
        trace = self.trace(len(kinds))
        for mail in self.mta.mail("localhost", "bob"):
            self.assertTrue(mail.endswith(as_stored(message())))
        self.assertEqual(trace.count(b"Received: from client.example ([127.0.0.2]) (TLSv1.3"), 3)
        self.assertNotIn(BALANCER.encode(), trace)
        self.assertNotIn("PROXY protocol", self.mta.output())

    def test_implicit_tls_passes_haproxy_end_to_end(self) -> None:
        haproxy = self.balancer(v2=("implicit", "send-proxy-v2"))
        self.send(
            smtplib.SMTP_SSL(
                LOOPBACK,
                haproxy.ports["v2"],
                timeout=30,
                source_address=(CLIENT, 0),
                context=trusting(),
            )
        )
        self.assertIn(b"Received: from client.example ([127.0.0.2]) (TLSv1.3", self.trace(1))

    def test_health_checks_with_the_header_succeed(self) -> None:
        options = ("option log-health-checks", "option smtpchk EHLO check.example")
        check = "\n    ".join(("check inter 100 fall 1", *options))
        haproxy = self.balancer(
            v1=("starttls", f"send-proxy check-send-proxy {check}"),
            v2=("starttls", f"send-proxy-v2 check-send-proxy {check}"),
            none=("starttls", check),
        )
        for name, word in (("v1", "succeeded"), ("v2", "succeeded"), ("none", "failed")):
            said = f"Health check for server {name}/mta {word}"
            haproxy.wait_for(lambda said=said: said in haproxy.output(), said)
        self.assertNotRegex(haproxy.output(), r"server v[12]/mta failed")

    def test_xclient_of_swaks_names_the_client(self) -> None:
        for when in ((), ("-tls",)):
            sent = run(
                "swaks",
                *("--server", f"{LOOPBACK}:{self.ports['xclient']}", *when),
                *("--from", "ann@sender.example", "--to", "bob@localhost"),
                *("--helo", "proxy.example"),
                *("--xclient-addr", "203.0.113.9", "--xclient-name", "name.example"),
                *("--data", message().decode("ascii")),
            )
            self.assertEqual(sent.returncode, 0, sent.stdout)
        self.assertEqual(
            self.trace(2).count(b"Received: from proxy.example (name.example [203.0.113.9])"), 2
        )
