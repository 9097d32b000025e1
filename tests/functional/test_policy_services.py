"""Policy services of Debian, asked by the MTA itself."""

from __future__ import annotations

import smtplib
from collections.abc import Sequence

from .machine import LOOPBACK, cannot_run, eventually, need
from .mail import ProgramTestCase, message
from .mta import MTA
from .nsd import NSD
from .policy_services import (
    PolicydSPF,
    Postgrey,
    ScriptedServices,
    address_with_free_port_53,
)
from .postfix import Postfix

OURS = "192.0.2.25"
CLIENT, NEIGHBOR, OTHER = "198.51.100.7", "198.51.100.200", "203.0.113.9"
ANN, BOB = "ann@sender.example", "bob@example.net"
DELAY = 3  # seconds
SETTINGS = f"""\
[mta]
local_domains = ["example.net"]
recipients = "any"
smtp = "off"
relay_from = ["{LOOPBACK}/32"]
[policy]
spf = "off"
dkim = "off"
dmarc = "off"
arc = "off"
[dns]
nameservers = ["{LOOPBACK}:9"]
timeout = "1 s"
[[listener]]
endpoint = "tcp:0:interface={LOOPBACK}"
xclient_from = ["{LOOPBACK}"]
"""

PAIRS = (
    ("DUNNO", "DUNNO"),
    ("dunno", "ok"),
    ("OK", "REJECT"),
    ("REJECT", "DUNNO"),
    ("DUNNO", "REJECT 5.7.23 Not you"),
    ("REJECT No", "DEFER"),
    ("DEFER", "REJECT"),
    ("DEFER Not now", "DUNNO"),
    ("550 No such luck", "DUNNO"),
    ("450 4.2.0 Grey", "DUNNO"),
    ("450 5.2.0 Grey", "DUNNO"),
    ("12345", "REJECT"),
    ("DEFER_IF_PERMIT 4.2.0 Grey", "DUNNO"),
    ("DEFER_IF_PERMIT Grey", "REJECT No"),
    ("DEFER_IF_PERMIT Grey", "OK"),
    ("DEFER_IF_PERMIT One", "DEFER_IF_PERMIT Two"),
    ("DEFER_IF_REJECT Later", "REJECT No"),
    ("DEFER_IF_REJECT Later", "DUNNO"),
    ("PREPEND X-A: b", "DUNNO"),
    ("WARN odd", "REJECT No"),
    ("INFO odd", "DUNNO"),
    ("DISCARD", "REJECT"),
    ("HOLD", "REJECT No"),
    ("REDIRECT carol@example.net", "REJECT No"),
    ("BCC carol@example.net", "DUNNO"),
)
"""The actions of two services."""

Envelope = tuple[str, str, str]
"""The address of the client, the reverse-path, the recipient."""


def table(service: Postgrey | PolicydSPF) -> str:
    """Return the table of a service."""
    return f'[[policy_service]]\nendpoint = "{service.endpoint}"\n'


def reply(smtp: int, envelope: Envelope) -> str:
    """Send a message as another client; return the reply to RCPT, or else to the content."""
    client, sender, recipient = envelope
    with smtplib.SMTP(LOOPBACK, smtp, timeout=60) as session:
        session.ehlo("proxy.example")
        words = f"ADDR={client} NAME=client.example PORT=4321 DESTADDR={OURS} DESTPORT=25"
        named = session.docmd("XCLIENT", words)
        assert named[0] == 220, named
        session.ehlo("client.example")
        session.mail(sender)
        code, text = session.rcpt(recipient)
        if code == 250:
            code, text = session.data(message())
        return f"{code} {text.decode()}"


class Greylisting(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        need("postgrey")

    def test_postgrey_defers_and_lets_through_with_its_field(self) -> None:
        service = self.enterContext(Postgrey(self.home, delay=1))
        mta = self.enterContext(MTA(self.home, toml=SETTINGS + table(service)))
        checked = mta.tool("check", "--no-dns", "--config", str(self.home / "mta.toml")).stdout
        words = f"note: [[policy_service]] {service.endpoint}: it answers within "
        self.assertIn(words, " ".join(checked.split()))
        envelope = (CLIENT, ANN, BOB)
        first = reply(mta.smtp, envelope)
        self.assertRegex(first, r"^450 4\.2\.0 Greylisted, see http.*/example\.net\.html")
        eventually(lambda: reply(mta.smtp, envelope)[:3] == "250", "postgrey to let it through")
        (mail,) = mta.wait_for_mail("example.net", "bob", 1)
        header = mail[: mail.index(b"\nReceived:")]
        self.assertRegex(
            header, rb"\nX-Greylist: delayed \d seconds by postgrey-1\.\d+ at grey\.example;"
        )
        self.assertIn(f"policy_service=mark ({service.endpoint})", mta.output())
        service.stop()
        self.assertEqual(reply(mta.smtp, envelope)[:9], "451 4.7.1")
        self.assertIn(f"the policy service {service.endpoint} failed: ", mta.output())
        service.start()
        self.assertEqual(reply(mta.smtp, envelope)[:3], "250")

    def outcomes(self, mta: MTA) -> Sequence[str]:
        """Return the classes of the replies of a dialogue about greylisting, with its names."""
        found = []

        def outcome(name: str, *envelope: str) -> None:
            client, sender, recipient = envelope
            found.append(f"{name}: {reply(mta.smtp, (client, sender, recipient))[0]}")

        outcome("a new triplet", CLIENT, ANN, BOB)
        outcome("again at once", CLIENT, ANN, BOB)
        outcome("another sender", CLIENT, "eve@sender.example", BOB)
        outcome("another recipient", CLIENT, ANN, "carol@example.net")
        outcome("a list", CLIENT, "list-b-12-x@l.example", BOB)
        outcome("a tag", CLIENT, "list+bob@l.example", BOB)
        outcome("the null sender", CLIENT, "", BOB)
        outcome("the postmaster", CLIENT, ANN, "postmaster@example.net")
        last = (CLIENT, "last@sender.example", BOB)
        outcome("the last one", *last)
        eventually(lambda: reply(mta.smtp, last)[0] == "2", "the delay to be over")
        outcome("again", CLIENT, ANN, BOB)
        outcome("a neighbor", NEIGHBOR, ANN, BOB)
        outcome("in other letters", CLIENT, "Ann@Sender.Example", "BOB@example.net")
        outcome("a list, with another number", CLIENT, "list-b-3456-x@l.example", BOB)
        outcome("another tag", CLIENT, "list+carol@l.example", BOB)
        outcome("the null sender again", CLIENT, "", BOB)
        outcome("another network", OTHER, ANN, BOB)
        return found

    def test_postgrey_and_our_own_greylisting_have_the_same_outcomes(self) -> None:
        service = self.enterContext(Postgrey(self.home, delay=DELAY))
        with MTA(self.home, toml=SETTINGS + table(service)) as asking:
            theirs = self.outcomes(asking)
        own = self.home / "own"
        own.mkdir()
        with MTA(own, toml=f'{SETTINGS}[greylist]\ndelay = "{DELAY} s"\n') as greylisting:
            ours = self.outcomes(greylisting)
        self.assertEqual(theirs, ours)
        self.assertEqual("".join(each[-1] for each in ours), "4444444242222224")


class BesidePostfix(ProgramTestCase):
    """Postfix and the MTA ask the same services about the same mail."""

    VARYING = ("instance", "queue_id")

    def setUp(self) -> None:
        super().setUp()
        need("postfix")
        self.services = self.enterContext(ScriptedServices(2))

    def start(self, at: str, restrictions: str) -> tuple[MTA, Postfix]:
        """Start both, with the services at one stage."""
        ports = self.services.ports
        asked = ", ".join(f"check_policy_service inet:{LOOPBACK}:{port}" for port in ports)
        postfix = Postfix(
            self.home,
            {
                "smtpd_authorized_xclient_hosts": LOOPBACK,
                "relay_domains": "example.net",
                "relay_transport": "discard:",
                "smtpd_relay_restrictions": "reject_unauth_destination",
                restrictions: f"{asked}, permit",
            },
        )
        tables = "".join(
            f'[[policy_service]]\nendpoint = "tcp:{LOOPBACK}:{port}"\nat = "{at}"\n'
            for port in ports
        )
        mta = MTA(self.home, toml=SETTINGS + tables)
        return self.enterContext(mta), self.enterContext(postfix)

    def outcomes(self, smtp: int) -> list[str]:
        """Return the replies for pairs of actions, without what Postfix puts before their text."""
        found = []
        for pair in PAIRS:
            self.services.actions[:] = pair
            said = reply(smtp, (CLIENT, ANN, BOB))
            code, status, text = said.split(" ", 2)
            text = text.rpartition(" rejected: ")[2]
            found.append(f"{pair}: " + ("taken" if code == "250" else f"{code} {status} {text}"))
        return found

    def test_answers_have_the_same_outcomes(self) -> None:
        mta, postfix = self.start("rcpt", "smtpd_recipient_restrictions")
        self.assertEqual(self.outcomes(mta.smtp), self.outcomes(postfix.port))

    def test_both_send_the_same_attributes(self) -> None:
        for at, restrictions in (
            ("rcpt", "smtpd_recipient_restrictions"),
            ("data", "smtpd_data_restrictions"),
            ("end", "smtpd_end_of_data_restrictions"),
        ):
            mta, postfix = self.start(at, restrictions)
            sent = []
            for smtp in (mta.smtp, postfix.port):
                self.services.asked[0].clear()
                self.assertEqual(reply(smtp, (CLIENT, ANN, BOB))[:3], "250")
                (attributes,) = self.services.asked[0]
                sent.append({**attributes, **dict.fromkeys(self.VARYING, "")})
            self.assertEqual([*sent[0]], [*sent[1]])
            for name, value in sent[0].items():
                self.assertEqual((name, value), (name, sent[1][name]), at)
            mta.stop()
            postfix.stop()


class SPF(ProgramTestCase):
    def test_policyd_spf_refuses_a_spoofed_sender(self) -> None:
        need("policyd-spf", "nsd", "nsd-checkconf", "unshare", "systemd-socket-activate")
        zones = {"sender.example": f'@ TXT "v=spf1 ip4:{CLIENT} -all"\n'}
        nsd = NSD(self.home, zones)
        try:
            nsd.address, nsd.port = address_with_free_port_53(), 53
        except OSError as error:
            cannot_run(f"port 53 cannot be used: {error}", fail=False)
        self.enterContext(nsd)
        service = self.enterContext(PolicydSPF(self.home, nsd.address))
        mta = self.enterContext(MTA(self.home, toml=SETTINGS + table(service)))
        refused = reply(mta.smtp, (OTHER, ANN, BOB))
        self.assertRegex(refused, r"^550 5\.7\.23 Message rejected due to: SPF fail")
        self.assertIn(OTHER, refused)
        self.assertEqual(reply(mta.smtp, (CLIENT, ANN, BOB))[:9], "250 2.0.0")
        (mail,) = mta.wait_for_mail("example.net", "bob", 1)
        header = b" ".join(mail[: mail.index(b"\nReceived:")].split())
        self.assertRegex(header, rb"Received-SPF: Pass \(mailfrom\).*client-ip=198\.51\.100\.7")
