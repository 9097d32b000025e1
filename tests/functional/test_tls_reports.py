"""Reports on TLS from a running MTA with two workers, by HTTPS and by mail; what it publishes."""

from __future__ import annotations

import gzip
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import dkim
import dns.message
import dns.query

from tests.policy.dkim.key_files import write_key
from tests.server.authority import Authority
from twisted_mta.cli.dkim.records import record_of
from twisted_mta.config import DKIMKey
from twisted_mta.policy.dkim.signing_keys import SigningKey

from .hop import Hop
from .machine import LOOPBACK, eventually, need
from .mail import ProgramTestCase, message, submit
from .mta import MTA
from .nsd import NSD

SESSIONS = 8


class Collector:
    """An HTTPS server that takes reports.

    Attributes:
        port: on loopback.
        posts: the path, the media type and the content of each.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.posts: list[tuple[str, str | None, bytes]] = []
        posts = self.posts

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                posts.append((self.path, self.headers["Content-Type"], content))
                self.send_response(201)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = HTTPServer((LOOPBACK, 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}
        )

    def __enter__(self) -> Collector:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class TLSReports(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        need("nsd", "nsd-checkconf")
        self.authority = Authority()
        self.authority.issued.save(str(self.home), "authorities.pem")
        self.collector = self.enterContext(Collector(self.context("reports.there.example")))
        self.hop = self.enterContext(Hop())
        self.hop.context = self.context("mx.there.example")
        table = DKIMKey(
            domain="ours.example",
            selector="s1",
            key=write_key(str(self.home / "s1.pem"), "rsa-2048"),
        )
        text = record_of(SigningKey.read(table))
        strings = " ".join(f'"{text[at : at + 255]}"' for at in range(0, len(text), 255))
        uri = f"https://reports.there.example:{self.collector.port}/v1"
        zones = {
            "there.example": f"@ MX 10 mx\nmx A {LOOPBACK}\nreports A {LOOPBACK}\n"
            f'_smtp._tls TXT "v=TLSRPTv1; rua={uri},mailto:tls@there.example"\n',
            "ours.example": f"s1._domainkey TXT {strings}\n",
        }
        self.nsd = self.enterContext(NSD(self.home, zones))
        toml = (
            f'[mta]\nlocal_domains = ["ours.example"]\nworkers = 2\n'
            f'[dns]\nnameservers = ["{LOOPBACK}:{self.nsd.port}"]\n'
            f"[delivery]\nport = {self.hop.port}\n"
            '[[destination]]\ndomain = "*"\nmessages_per_connection = 1\n'
            f'[[dkim]]\ndomain = "ours.example"\nselector = "s1"\nkey = "{table.key}"\n'
            f'[mta_sts]\nauthorities = "{self.home}/authorities.pem"\n'
            '[tls_report]\n[policy]\nreport_from = "noc@ours.example"\norganization = "Ours"\n'
        )
        self.mta = self.enterContext(MTA(self.home, toml=toml))

    def context(self, name: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued = self.authority.issue(name, names=[name], for_clients=False)
        context.load_cert_chain(issued.save(str(self.home), f"{name}.pem"))
        return context

    def tool(self, *words: str, status: int = 0) -> str:
        done = self.mta.tool(*words)
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stdout

    def txt(self, name: bytes, timeout: float = 5) -> bytes | None:
        """Return a TXT record, as dkimpy asks for it."""
        question = dns.message.make_query(name.decode(), "TXT")
        answer = dns.query.udp(question, LOOPBACK, timeout=timeout, port=self.nsd.port)
        records = [record for each in answer.answer for record in each]
        return b"".join(records[0].strings) if records else None

    def counts(self, report: Any) -> dict[str, int]:
        (entry,) = report["policies"]
        summary: dict[str, int] = entry["summary"]
        return summary

    def test_sessions_of_both_workers_are_in_one_report(self) -> None:
        for _ in range(SESSIONS):
            submit(self.mta.smtp, message(), "bob@there.example", starttls=False)
        self.hop.wait_for(SESSIONS)
        self.assertEqual(self.hop.connections, SESSIONS)
        expected = {
            "total-successful-session-count": SESSIONS,
            "total-failure-session-count": 0,
        }
        shown = json.loads(self.tool("tls", "report", "--dry-run", "there.example"))
        self.assertEqual(self.counts(shown), expected)
        self.assertEqual(self.collector.posts, [])
        self.assertEqual(
            self.tool("tls", "report", "there.example"),
            f"there.example: sent to https://reports.there.example:{self.collector.port}/v1;"
            " sent to tls@there.example\n",
        )
        ((path, kind, content),) = self.collector.posts
        self.assertEqual((path, kind), ("/v1", "application/tlsrpt+gzip"))
        posted = json.loads(gzip.decompress(content))
        self.assertEqual(self.counts(posted), expected)
        self.assertEqual(posted["organization-name"], "Ours")
        self.hop.wait_for(SESSIONS + 1)
        mail = self.hop.transactions[-1].content
        self.assertIn(b'report-type="tlsrpt"', mail)
        self.assertTrue(dkim.verify(mail, dnsfunc=self.txt), mail)
        # The session of the report itself is in none.
        self.assertIn("nothing to report", self.mta.tool("tls", "report").stderr)
        lines = eventually(
            lambda: [x for x in self.mta.output().splitlines() if "TLS report " in x][1:],
            "both destinations are in the log",
        )
        self.assertIn(f"{SESSIONS} sessions, and 0 that failed", lines[0])

    def test_what_to_publish_is_printed_by_the_running_mta(self) -> None:
        printed = self.tool("tls", "records")
        self.assertRegex(printed, r"(?m)^_25\._tcp\.mta\.example\. IN TLSA 3 1 1 [0-9A-F]{64}$")
        self.assertIn(
            '_smtp._tls.ours.example. IN TXT "v=TLSRPTv1; rua=mailto:noc@ours.example"', printed
        )
        self.assertIn("; https://mta-sts.ours.example/.well-known/mta-sts.txt\nversion: ", printed)
