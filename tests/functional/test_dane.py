"""DANE with real parts: a signed zone on NSD, a validating Unbound, servers with many chains.

The same mail goes out by our MTA and by Postfix, over the same zone, to the same servers. Each case
is a domain; the table has what becomes of its mail.
"""

from __future__ import annotations

import hashlib
import random
import re
import ssl
from collections.abc import Sequence
from typing import Literal

from attrs import frozen
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.server.authority import Authority, Issued, self_signed

from .forked import run_script
from .forwarders import Unbound
from .hop import Hop
from .machine import LOOPBACK, eventually, free_port, need
from .mail import ProgramTestCase, message, submit
from .mta import MTA, TOOL
from .nsd import NSD
from .postfix import Postfix
from .signed_zone import signed

# A check asks for the root first, which no server here has.
_ROOT = """
    local-zone: "." typetransparent
    local-data: ". 300 IN SOA a. b. 1 2 3 4 5"
"""

SIGNED, PLAIN = "signed.example", "plain.example"

Fate = Literal["verified", "encrypted", "clear", "deferred"]


@frozen
class Case:
    """A domain whose mail is sent.

    Attributes:
        name: of the domain, below `SIGNED`, or `PLAIN` where ``unsigned``.
        fate: of its mail at ``auto``, the default, and at Postfix's ``dane``.
        demanded: of its mail at our ``dane`` and Postfix's ``dane-only``.
        says: a part of our reply where the mail is deferred at ``auto``.
        chain: what its server shows; empty: no STARTTLS.
        tlsa: the TLSA records of its server.
        records: more records, ``{mx}`` being the name of the server.
        mx: whether there is an MX record for ``mx.NAME``, with an address and ``tlsa`` there.
        unsigned: whether the domain is in a zone without signatures.
    """

    name: str
    fate: Fate
    demanded: Fate
    says: str = ""
    chain: Sequence[Issued] = ()
    tlsa: Sequence[str] = ()
    records: str = ""
    mx: bool = True
    unsigned: bool = False

    @property
    def domain(self) -> str:
        return f"{self.name}.{PLAIN if self.unsigned else SIGNED}"


def tlsa(usage: int, selector: int, matching: int, issued: Issued) -> str:
    """Return the data of a TLSA record that a certificate fits."""
    octets = issued.der
    if selector:
        key = issued.key.public_key()
        octets = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if matching:
        octets = (hashlib.sha256 if matching == 1 else hashlib.sha512)(octets).digest()
    return f"{usage} {selector} {matching} {octets.hex()}"


def cases(port: int) -> list[Case]:
    """Return the cases; TLSA records are those of ``port``."""
    authority, other = Authority(), Authority("Other CA")
    server, next_server = self_signed("a"), self_signed("b")
    below = f"_{port}._tcp"

    def issue(name: str, **kinds: object) -> Issued:
        kinds.setdefault("names", [f"mx.{name}.{SIGNED}"])
        return authority.issue("server", for_clients=False, **kinds)  # type: ignore[arg-type]

    def ta(name: str, fate: Fate, says: str = "", **kinds: object) -> Case:
        chain = [issue(name, **kinds), authority.issued]
        records = [tlsa(2, 0, 1, authority.issued)]
        return Case(name, fate, fate, says, chain=chain, tlsa=records)

    right = [tlsa(3, 1, 1, server)]
    return [
        # Usage 3: the certificate of the server itself.
        Case("ee", "verified", "verified", chain=[server], tlsa=right),
        Case("ee-full", "verified", "verified", chain=[server], tlsa=[tlsa(3, 0, 0, server)]),
        Case("ee-sha512", "verified", "verified", chain=[server], tlsa=[tlsa(3, 0, 2, server)]),
        Case(
            "ee-expired",
            "verified",
            "verified",
            chain=[expired := issue("other", days=(-30, -2))],
            tlsa=[tlsa(3, 1, 1, expired)],
        ),
        Case(
            "rollover",
            "verified",
            "verified",
            chain=[server],
            tlsa=[tlsa(3, 1, 1, next_server), *right],
        ),
        Case(
            "ee-other",
            "deferred",
            "deferred",
            "fit none of its TLSA records",
            chain=[next_server],
            tlsa=right,
        ),
        Case(
            "agility",
            "deferred",
            "deferred",
            "fit none of its TLSA records",
            chain=[server],
            tlsa=[*right, tlsa(3, 1, 2, next_server)],
        ),
        # Usage 2: an authority above it.
        ta("ta", "verified"),
        ta("ta-domain", "verified", names=[f"ta-domain.{SIGNED}"]),
        ta("ta-name", "deferred", "its certificate is not for", names=["www.example.com"]),
        ta("ta-expired", "deferred", "has expired", days=(-30, -2)),
        Case(
            "ta-no-san",
            "verified",
            "verified",
            chain=[
                authority.issue(f"mx.ta-no-san.{SIGNED}", for_clients=False),
                authority.issued,
            ],
            tlsa=[tlsa(2, 1, 1, authority.issued)],
        ),
        Case(
            "ta-forged",
            "deferred",
            "deferred",
            "its chain leads to no certificate of its TLSA records",
            chain=[
                other.issue("x", names=[f"mx.ta-forged.{SIGNED}"], for_clients=False),
                authority.issued,
            ],
            tlsa=[tlsa(2, 0, 1, authority.issued)],
        ),
        Case(
            "ta-unsent",
            "deferred",
            "deferred",
            "fit none of its TLSA records",
            chain=[issue("ta-unsent")],
            tlsa=[tlsa(2, 0, 1, authority.issued)],
        ),
        Case(
            "ta-whole",
            "verified",
            "verified",
            chain=[issue("ta-whole")],
            tlsa=[tlsa(2, 0, 0, authority.issued)],
        ),
        Case(
            "ta-key",
            "verified",
            "verified",
            chain=[issue("ta-key")],
            tlsa=[tlsa(2, 1, 0, authority.issued)],
        ),
        # Records that are not usable.
        Case(
            "unusable",
            "encrypted",
            "deferred",
            chain=[server],
            tlsa=[tlsa(1, 1, 1, server), "3 1 77 abcd"],
        ),
        Case(
            "unusable-clear",
            "deferred",
            "deferred",
            "STARTTLS is not offered",
            tlsa=[tlsa(0, 0, 1, server)],
        ),
        # Attacks.
        Case("stripped", "deferred", "deferred", "STARTTLS is not offered", tlsa=right),
        Case(
            "forged",
            "deferred",
            "deferred",
            "its TLSA records cannot be looked up",
            chain=[next_server],
            tlsa=right,
        ),
        Case("forged-mx", "deferred", "deferred", "SERVFAIL", chain=[server], tlsa=right),
        Case("forged-address", "deferred", "deferred", "be looked up", chain=[server], tlsa=right),
        Case(
            "lame",
            "deferred",
            "deferred",
            "its TLSA records cannot be looked up",
            chain=[server],
            records="_tcp.{mx} NS ns.{mx}\nns.{mx} A 127.99.99.99\n",
        ),
        # No DANE.
        Case("none", "encrypted", "deferred", chain=[server]),
        Case("none-clear", "clear", "deferred"),
        Case("plain", "clear", "deferred", unsigned=True),
        Case("plain-tlsa", "encrypted", "deferred", chain=[next_server], tlsa=right, unsigned=True),
        # MX records that are not secure, of a host that is.
        Case(
            "half",
            "encrypted",
            "deferred",
            unsigned=True,
            mx=False,
            records=f"half MX 10 mx.ee.{SIGNED}.\n",
        ),
        Case(
            "half-wrong",
            "deferred",
            "deferred",
            "fit none of its TLSA records",
            unsigned=True,
            mx=False,
            records=f"half-wrong MX 10 mx.ee-other.{SIGNED}.\n",
        ),
        # Aliases.
        Case(
            "alias-host",
            "verified",
            "verified",
            mx=False,
            records="alias-host MX 10 mx.alias-host\nmx.alias-host CNAME mx.ee\n",
        ),
        Case(
            "alias-own",
            "verified",
            "verified",
            mx=False,
            records=(
                "alias-own MX 10 mx.alias-own\nmx.alias-own CNAME mx.none\n"
                f"{below}.mx.alias-own TLSA {right[0]}\n"
            ),
        ),
        Case(
            "alias-away",
            "verified",
            "verified",
            mx=False,
            records=(
                f"alias-away MX 10 mx.alias-away\nmx.alias-away CNAME mx.half-host.{PLAIN}.\n"
                f"{below}.mx.alias-away TLSA {right[0]}\n"
            ),
        ),
        Case("half-host", "encrypted", "deferred", chain=[server], unsigned=True),
        Case(
            "alias-tlsa",
            "verified",
            "verified",
            chain=[server],
            records=f"{below}.{{mx}} CNAME {below}.mx.ee\n",
        ),
        Case(
            "alias-domain",
            "verified",
            "verified",
            mx=False,
            records="alias-domain CNAME ta-domain\n",
        ),
        Case("implicit", "verified", "verified", mx=False, chain=[server], tlsa=right),
        # Another exchanger is good enough.
        Case(
            "second",
            "verified",
            "verified",
            mx=False,
            records="second MX 10 mx.forged\nsecond MX 20 mx.stripped\nsecond MX 30 mx.ee\n",
        ),
    ]


class DANE(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        need("nsd", "nsd-checkconf", "unbound")
        self.port = free_port()
        self.cases = cases(self.port)
        net = f"127.{random.randrange(64, 250)}.{random.randrange(1, 250)}"
        self.resolver_address = f"{net}.53"
        zones = {SIGNED: "", PLAIN: ""}
        for place, case in enumerate(self.cases, 101):
            zone = PLAIN if case.unsigned else SIGNED
            zones[zone] += self.records_of(case, f"{net}.{place}")
            if case.chain or case.mx:
                self.listen(case, f"{net}.{place}")
        zone = signed(
            SIGNED,
            zones[SIGNED],
            forged={
                (f"_{self.port}._tcp.mx.forged.{SIGNED}", "TLSA"): "3 1 1 " + "00" * 32,
                (f"forged-mx.{SIGNED}", "MX"): "10 mx.none-clear",
                (f"mx.forged-address.{SIGNED}", "A"): "127.99.99.98",
            },
        )
        server = NSD(self.home, {PLAIN: zones[PLAIN]}, {SIGNED: zone.text})
        self.enterContext(server)
        self.unbound = self.enterContext(
            Unbound(
                self.home,
                {SIGNED: server.port, PLAIN: server.port},
                anchors=[zone.anchor],
                address=self.resolver_address,
                port=53,
                server=_ROOT,
            )
        )

    def records_of(self, case: Case, address: str) -> str:
        host = f"mx.{case.name}" if case.mx else case.name
        text = case.records.format(mx=host)
        if case.mx:
            text += f"{case.name} MX 10 {host}\n"
        if case.chain or case.mx:
            text += f"{host} A {address}\n"
        return text + "".join(f"_{self.port}._tcp.{host} TLSA {each}\n" for each in case.tlsa)

    def listen(self, case: Case, address: str) -> None:
        """Start the server of a case."""
        hop = Hop(self.port, address)
        if case.chain:
            file = self.home / f"{case.domain}.pem"
            above = (each.certificate.public_bytes(Encoding.PEM) for each in case.chain[1:])
            file.write_bytes(case.chain[0].pem + b"".join(above))
            hop.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            hop.context.load_cert_chain(file)
        self.enterContext(hop)

    def send_all(self, port: int, cases: Sequence[Case] = ()) -> None:
        for case in cases or self.cases:
            submit(port, message(), f"bob@{case.domain}", starttls=False)

    # Our MTA.

    def start_mta(self, level: str) -> MTA:
        home = self.home / level
        home.mkdir()
        toml = (
            f'[delivery]\nport = {self.port}\ntls = "{level}"\n'
            f'[dns]\nnameservers = ["{self.resolver_address}"]\ntimeout = "5 s"\n'
            '[queue]\nretry_minimum = "1 h"\nretry_maximum = "1 h"\n'
        )
        return self.enterContext(MTA(home, toml=toml))

    def lines(self, mta: MTA) -> dict[str, str]:
        """Wait until mail of all cases was tried once; return the line of the log on each."""
        pattern = re.compile(r"(?:delivered|deferred|failed): .* to=<bob@([^>]+)> .*")

        def tried() -> dict[str, str]:
            found = {each[1]: each[0] for each in pattern.finditer(mta.output())}
            return found if len(found) == len(self.cases) else {}

        return mta.wait_for(tried, "all mail was tried")

    def fates(self, mta: MTA) -> dict[str, Fate]:
        return {domain: _fate(line) for domain, line in self.lines(mta).items()}

    def test_every_case_at_auto(self) -> None:
        mta = self.start_mta("auto")
        self.send_all(mta.smtp)
        lines = self.lines(mta)
        for case in self.cases:
            line = lines[case.domain]
            self.assertEqual(_fate(line), case.fate, line)
            self.assertIn(case.says, line)
            if case.fate == "deferred":
                self.assertRegex(line, r'reply="4\d\d 4\.[47]\.')
        told = mta.tool("explain", f"bob@ee.{SIGNED}").stdout
        self.assertIn(f"TLS dane (DANE: _{self.port}._tcp.mx.ee.{SIGNED}, since ", told)
        told = mta.tool("explain", f"bob@forged.{SIGNED}").stdout
        self.assertIn("; not now: its TLSA records cannot be looked up", told)

    def test_an_operator_sets_wrong_records_aside(self) -> None:
        mta = self.start_mta("auto")
        submit(mta.smtp, message(), f"bob@ee-other.{SIGNED}", starttls=False)
        mta.wait_for(lambda: "deferred: " in mta.output(), "the mail is deferred")
        toml = mta.home / "mta.toml"
        text = f'[[destination]]\ndomain = "ee-other.{SIGNED}"\ntls = "encrypt"\n'
        toml.write_text(toml.read_text("utf-8") + text, "utf-8")
        told = mta.tool("reload")
        self.assertIn(f"smtp:ee-other.{SIGNED} is tried again", told.stdout)
        mta.wait_for(lambda: "delivered: " in mta.output(), "the mail is delivered")

    def test_the_check_proves_that_the_resolver_validates(self) -> None:
        for names, says in (
            ((SIGNED, f"mx.forged-address.{SIGNED}"), f"{SIGNED} is proven, "),
            ((PLAIN, f"mx.forged-address.{SIGNED}"), f"it does not set AD for {PLAIN}"),
            ((SIGNED, f"mx.none.{SIGNED}"), f"takes mx.none.{SIGNED}, whose signatures are wrong"),
        ):
            file = self.home / "check.toml"
            file.write_text(
                f'[dns]\nnameservers = ["{self.resolver_address}"]\n'
                f'signed_name = "{names[0]}"\nbogus_name = "{names[1]}"\n'
            )
            told = run_script([str(TOOL), "check", "--config", str(file), "--state-dir", "state"])
            self.assertIn(says, told.stdout)

    # Postfix.

    def start_postfix(self, level: str) -> Postfix:
        home = self.home / f"postfix-{level}"
        home.mkdir()
        resolv_conf = home / "resolv.conf"
        resolv_conf.write_text(
            f"nameserver {self.resolver_address}\noptions trust-ad timeout:1 attempts:1\n"
        )
        settings = {
            "smtp_dns_support_level": "dnssec",
            "smtp_host_lookup": "dns",
            "smtp_tcp_port": str(self.port),
            "smtp_tls_security_level": level,
            "smtp_tls_loglevel": "1",
            "smtp_connection_cache_on_demand": "no",
            "smtp_bind_address": LOOPBACK,
        }
        return self.enterContext(Postfix(home, settings, resolv_conf=resolv_conf))

    def postfix_fates(self, postfix: Postfix, count: int = 0) -> dict[str, Fate]:
        """Wait until mail of all cases was tried once; return what has become of it."""

        def tried() -> dict[str, Fate]:
            found = _postfix_fates(postfix.output())
            return found if len(found) == (count or len(self.cases)) else {}

        return eventually(tried, "all mail was tried")

    def test_postfix_comes_to_the_same_verdicts(self) -> None:
        need("postfix", "unshare")
        mtas = [self.start_mta(level) for level in ("auto", "dane")]
        postfixes = [self.start_postfix(level) for level in ("dane", "dane-only")]
        for each in (*mtas, *postfixes):
            self.send_all(each.smtp if isinstance(each, MTA) else each.port)
        ours = [self.fates(each) for each in mtas]
        theirs = [self.postfix_fates(each) for each in postfixes]
        for case in self.cases:
            found = [fates[case.domain] for fates in (*ours, *theirs)]
            expected = [case.fate, case.demanded] * 2
            self.assertEqual(found, expected, f"{case.name}: our auto, dane; Postfix's")

    def test_without_dane_postfix_falls_for_the_attacks(self) -> None:
        """The level of Debian's main.cf, as the table in the documentation says."""
        need("postfix", "unshare")
        postfix = self.start_postfix("may")
        names = {"stripped": "clear", "ee-other": "encrypted", "forged": "encrypted"}
        names |= {"lame": "encrypted", "ta-forged": "encrypted", "forged-mx": "deferred"}
        attacks = [case for case in self.cases if case.name in names]
        self.send_all(postfix.port, attacks)
        found = self.postfix_fates(postfix, len(attacks))
        self.assertEqual({case.name: found[case.domain] for case in attacks}, names)
        self.assertEqual({case.fate for case in attacks}, {"deferred"})


def _fate(line: str) -> Fate:
    if line.startswith("delivered"):
        if "verified by DANE" in line:
            return "verified"
        return "encrypted" if " tls=" in line else "clear"
    assert line.startswith("deferred"), line
    return "deferred"


def _postfix_fates(log: str) -> dict[str, Fate]:
    """Return what Postfix's log says of the mail to each domain.

    It logs the TLS of a connection first, then the mail that went over it, both by one process.
    """
    found: dict[str, Fate] = {}
    established: dict[str, str] = {}
    for line in log.splitlines():
        if match := re.search(r"smtp\[(\d+)\]: (\w+) TLS connection established to", line):
            established[match[1]] = match[2]
        elif match := re.search(r"\[(\d+)\]: \w+: to=<bob@([^>]+)>.* status=(\w+)", line):
            tls = established.pop(match[1], "")
            if match[3] != "sent":
                found[match[2]] = "deferred"
            else:
                found[match[2]] = (
                    "verified" if tls == "Verified" else "encrypted" if tls else "clear"
                )
    return found
