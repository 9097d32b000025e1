"""MTA-STS with real parts: a zone on NSD, HTTPS policy hosts, next hops with many certificates."""

from __future__ import annotations

import random
import re
import socket
import ssl
from collections.abc import Sequence
from http.client import HTTPResponse
from pathlib import Path
from typing import Literal

from attrs import frozen

from tests.server.authority import Authority, Issued, self_signed

from .hop import Hop
from .machine import cannot_run, free_port, need
from .mail import ProgramTestCase, message, submit
from .mta import MTA
from .nsd import NSD
from .policy_host import PORT, PolicyHost

ZONE = "sts.example"

Fate = Literal["verified", "encrypted", "clear", "deferred"]


def policy(mode: str = "enforce", mx: str = "*.{domain}", max_age: int = 86_400) -> str:
    return f"version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: {max_age}\n"


@frozen
class Case:
    """A domain whose mail is sent.

    Attributes:
        name: of the domain, below `ZONE`.
        fate: of its mail at ``auto``, the default.
        says: a part of the log about it.
        demanded: of its mail at ``mta-sts``.
        policy: what its policy host sends; ``{domain}`` is the domain.
        status: of the response.
        kind: its media type.
        chunked: whether it comes in chunks.
        short: octets that are missing at the end of the response.
        host: what the policy host shows: names of a certificate, or a certificate.
        shown: likewise of the exchanger; None: no STARTTLS.
        record: the TXT record; empty: there is none.
    """

    name: str
    fate: Fate
    says: str = ""
    demanded: Fate = "deferred"
    policy: str = policy()
    status: str = "200 OK"
    kind: str = "text/plain"
    chunked: bool = False
    short: int = 0
    host: Issued | Sequence[str] = ("mta-sts.{domain}",)
    shown: Issued | Sequence[str] | None = ("mx.{domain}",)
    record: str = "v=STSv1; id=1;"

    @property
    def domain(self) -> str:
        return f"{self.name}.{ZONE}"

    @property
    def response(self) -> bytes:
        body = self.policy.format(domain=self.domain).encode()
        length = f"Content-Length: {len(body)}"
        if self.chunked:
            length = "Transfer-Encoding: chunked"
            body = b"".join(b"1\r\n%c\r\n" % each for each in body) + b"0\r\n\r\n"
        head = f"HTTP/1.1 {self.status}\r\nContent-Type: {self.kind}\r\n{length}\r\n\r\n"
        return (head.encode() + body)[: -self.short or None]


def cases() -> list[Case]:
    anyone, old = self_signed("x"), (-30, -2)
    authority = AUTHORITY
    return [
        # The policy is had, and the exchanger fulfills it or not.
        Case("good", "verified", demanded="verified"),
        Case("wildcard", "verified", shown=("*.{domain}",), demanded="verified"),
        Case("chunked", "verified", chunked=True, demanded="verified"),
        Case("exact", "verified", policy=policy(mx="mx.{domain}"), demanded="verified"),
        Case("other-name", "deferred", "is not for mx.other-name.", shown=("www.{domain}",)),
        Case("no-san", "deferred", "cannot be compared", shown=()),
        Case("self-signed", "deferred", "self-signed", shown=anyone),
        Case("stranger", "deferred", "no trusted authority", shown=issued(Authority("Other"), "x")),
        Case(
            "expired",
            "deferred",
            "has expired",
            shown=issued(authority, f"mx.expired.{ZONE}", days=old),
        ),
        Case("clear", "deferred", "STARTTLS is not offered", shown=None),
        Case("elsewhere", "deferred", "expected one that", policy=policy(mx="mx.example.com")),
        Case("two-labels", "deferred", "expected one that", policy=policy(mx="*.sts.example")),
        # It is not enforced.
        Case(
            "testing",
            "encrypted",
            "(policy 1, testing), and not fulfilled: its certificate is self-signed",
            policy=policy("testing"),
            shown=anyone,
        ),
        Case("none", "clear", policy=policy("none"), shown=None),
        Case("no-record", "clear", record="", shown=None),
        Case("two-records", "clear", record='v=STSv1; id=1;" "x" TXT "v=STSv1; id=2;', shown=None),
        Case("bad-record", "clear", record="v=STSv1;", shown=None),
        # It cannot be had.
        Case("moved", "clear", "answers 302, expected 200", status="302 Found", shown=None),
        Case("missing", "clear", "answers 404, expected 200", status="404 No", shown=None),
        Case("html", "clear", "sends text/html", kind="text/html", shown=None),
        Case("broken", "clear", "found no version", policy="mode: enforce\n", shown=None),
        Case("large", "clear", "octets", policy=policy() + "x" * (1 << 20), shown=None),
        Case("short", "clear", "mta-sts.short.", short=10, shown=None),
        Case("host-name", "clear", "is not for mta-sts.", host=("{domain}",), shown=None),
        Case("host-no-san", "clear", "cannot be compared", host=(), shown=None),
        Case("host-self-signed", "clear", "self-signed", host=anyone, shown=None),
        Case(
            "host-expired",
            "clear",
            "has expired",
            host=issued(authority, f"mta-sts.host-expired.{ZONE}", days=old),
            shown=None,
        ),
    ]


AUTHORITY = Authority()


def issued(authority: Authority, *names: str, days: tuple[int, int] = (-1, 30)) -> Issued:
    return authority.issue("x", names=names, days=days, for_clients=False)


class MTASTS(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        need("nsd", "nsd-checkconf")
        self.port = free_port()
        self.net = f"127.{random.randrange(64, 250)}.{random.randrange(1, 250)}"
        self.authorities = self.home / "authorities.pem"
        self.authorities.write_bytes(AUTHORITY.issued.pem)
        self.hosts: dict[str, PolicyHost] = {}
        self.hops: dict[str, Hop] = {}

    def listen(self, cases: Sequence[Case]) -> None:
        """Start the servers of all cases, and the name server."""
        zone = ""
        for place, case in enumerate(cases, 1):
            address = f"{self.net}.{place}"
            zone += f"{case.name} MX 10 mx.{case.name}\nmx.{case.name} A {address}\n"
            zone += f"mta-sts.{case.name} A {address}\n"
            if case.record:
                zone += f'_mta-sts.{case.name} TXT "{case.record}"\n'.replace(
                    '" TXT "', f'"\n_mta-sts.{case.name} TXT "'
                )
            self.listen_at(case, address)
        self.name_server = self.enterContext(NSD(self.home, {ZONE: zone}))

    def listen_at(self, case: Case, address: str) -> None:
        hop = self.hops[case.name] = Hop(self.port, address)
        if case.shown is not None:
            hop.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            hop.context.load_cert_chain(self.chain(case, "mx", case.shown))
        self.enterContext(hop)
        chain = self.chain(case, "mta-sts", case.host)
        host = self.hosts[case.name] = PolicyHost(address, chain, case.response)
        try:
            self.enterContext(host)
        except PermissionError as error:
            cannot_run(f"port {PORT} cannot be bound: {error}", fail=False)

    def chain(self, case: Case, role: str, shown: Issued | Sequence[str]) -> Path:
        if not isinstance(shown, Issued):
            shown = issued(AUTHORITY, *(each.format(domain=case.domain) for each in shown))
        return Path(shown.save(str(self.home), f"{role}.{case.domain}.pem"))

    def start_mta(self, level: str = "auto", *options: str) -> MTA:
        home = self.home / level
        home.mkdir()
        toml = (
            f'[delivery]\nport = {self.port}\ntls = "{level}"\n'
            f'[dns]\nnameservers = ["127.0.0.1:{self.name_server.port}"]\ntimeout = "5 s"\n'
            f'[mta_sts]\nauthorities = "{self.authorities}"\n'
            '[queue]\nretry_minimum = "1 h"\nretry_maximum = "1 h"\n'
        )
        return self.enterContext(MTA(home, *options, toml=toml))

    def send(self, mta: MTA, cases: Sequence[Case]) -> dict[str, str]:
        """Send mail of each case; return the line of the log on each, once it was tried."""
        before = len(mta.output())
        for case in cases:
            submit(mta.smtp, message(), f"bob@{case.domain}", starttls=False)
        pattern = re.compile(r"(?:delivered|deferred|failed): .* to=<bob@([^>]+)> .*")

        def tried() -> dict[str, str]:
            found = {each[1]: each[0] for each in pattern.finditer(mta.output()[before:])}
            return found if len(found) == len(cases) else {}

        return mta.wait_for(tried, "all mail was tried")

    def test_every_case_at_auto(self) -> None:
        table = cases()
        self.listen(table)
        mta = self.start_mta()
        lines = self.send(mta, table)
        for case in table:
            line = lines[case.domain]
            self.assertEqual(_fate(line), case.fate, line)
            about = [each for each in mta.output().splitlines() if case.domain in each]
            self.assertIn(case.says, "\n".join(about))
            if case.name.startswith("host-"):
                self.assertEqual(self.hosts[case.name].requests, [])
                self.assertEqual(self.hosts[case.name].handshakes, 1)

    def test_every_case_at_mta_sts(self) -> None:
        table = cases()
        self.listen(table)
        lines = self.send(self.start_mta("mta-sts"), table)
        for case in table:
            self.assertEqual(_fate(lines[case.domain]), case.demanded, lines[case.domain])

    def test_a_policy_is_obeyed_after_a_restart_without_its_host(self) -> None:
        table = [case for case in cases() if case.name == "good"]
        self.listen(table)
        mta = self.start_mta()
        self.assertEqual(_fate(self.send(mta, table)[f"good.{ZONE}"]), "verified")
        mta.stop()
        self.hosts["good"].stop()
        self.hops["good"].context = None  # a man in the middle takes STARTTLS out
        mta.start()
        line = self.send(mta, table)[f"good.{ZONE}"]
        self.assertEqual(_fate(line), "deferred", line)
        self.assertIn("STARTTLS is not offered", line)
        explained = mta.tool("explain", f"bob@good.{ZONE}").stdout
        self.assertIn(f"TLS verify (MTA-STS of good.{ZONE} (policy 1, enforce), since ", explained)

    def test_workers_share_what_they_find(self) -> None:
        table = [case for case in cases() if case.name == "good"]
        self.listen(table)
        mta = self.start_mta("auto", "--workers", "2")
        for _ in range(30):
            self.send(mta, table)
            workers = set(re.findall(r" worker=(\d+)[^\n]* delivered: ", mta.output()))
            if len(workers) == 2:
                break
        self.assertEqual(len(workers), 2)
        self.assertEqual(len(self.hosts["good"].requests), 1)

    def test_our_own_policy_by_https(self) -> None:
        name = "mta-sts.ours.example"
        chain = issued(AUTHORITY, name, "mta.example").save(str(self.home), "own.pem")
        toml = (
            f'[mta]\nlocal_domains = ["ours.example"]\ntls_certificate = "{chain}"\n'
            f'[mta_sts]\npublish = "tcp:{self.port}:interface=127.0.0.1"\nmode = "enforce"\n'
        )
        mta = self.enterContext(MTA(self.home, toml=toml))
        self.assertIn(f"mta-sts tcp 127.0.0.1:{self.port}", mta.output())
        context = ssl.create_default_context(cafile=str(self.authorities))
        connected = socket.create_connection(("127.0.0.1", self.port), 30.0)
        with context.wrap_socket(connected, server_hostname=name) as secured:
            request = f"GET /.well-known/mta-sts.txt HTTP/1.1\r\nHost: {name}\r\n\r\n"
            secured.sendall(request.encode())
            answer = HTTPResponse(secured)
            answer.begin()
            body = answer.read().decode()
        self.assertEqual(answer.headers.get_content_type(), "text/plain")
        self.assertEqual(
            body, "version: STSv1\r\nmode: enforce\r\nmx: mta.example\r\nmax_age: 604800\r\n"
        )


def _fate(line: str) -> Fate:
    if line.startswith("delivered"):
        if " tls=" not in line:
            return "clear"
        return "verified" if ', verified" ' in line else "encrypted"
    assert line.startswith("deferred"), line
    return "deferred"
