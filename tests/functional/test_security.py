"""TLS to next hops: levels, the memory, and credentials, which are sent only under TLS."""

from __future__ import annotations

import json
import re
import ssl
from base64 import b64encode

from ..server.authority import Authority, Issued, self_signed
from .hop import Hop
from .machine import eventually
from .mail import ProgramTestCase, message, submit
from .mta import MTA
from .test_next_hops import metric, status

NAME = "localhost"  # the system resolves it without the DNS
PASSWORD = "correct horse battery staple"
QUICK = '[queue]\nretry_minimum = "1 s"\nretry_maximum = "1 s"\n'


class Securing(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority()
        self.trusted = self.home / "authority.pem"
        self.trusted.write_bytes(self.authority.issued.pem)

    def context(self, issued: Issued, name: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issued.save(str(self.home), f"{name}.pem"))
        return context

    def good(self) -> ssl.SSLContext:
        issued = self.authority.issue(NAME, names=[NAME], for_clients=False)
        return self.context(issued, "good")

    def outcome(self, mta: MTA, domain: str) -> str:
        """Return the first line of the log about a recipient in a domain."""
        line = rf"(?:delivered|deferred|failed): from=.* to=<bob@{re.escape(domain)}>.*"
        return eventually(
            lambda: next(iter(re.findall(line, mta.output())), ""), f"an outcome at {domain}"
        )

    def send(self, mta: MTA, domain: str) -> str:
        submit(mta.smtp, message(), f"bob@{domain}", starttls=False)
        return self.outcome(mta, domain)


class Levels(Securing):
    def test_each_level_has_its_outcome_with_each_certificate(self) -> None:
        issue = self.authority.issue
        contexts = {
            "clear": None,
            "good": self.good(),
            "other": self.context(issue("x", names=["mx.example.net"], for_clients=False), "other"),
            "nameless": self.context(issue(NAME, for_clients=False), "nameless"),
            "expired": self.context(
                issue(NAME, names=[NAME], days=(-9, -1), for_clients=False), "expired"
            ),
            "alone": self.context(self_signed(NAME, names=[NAME]), "alone"),
        }
        routes, destinations = [], []
        for kind, context in contexts.items():
            hop = self.enterContext(Hop())
            hop.context = context
            for level in ("none", "may", "encrypt", "verify"):
                domain = f"{level}.{kind}.example"
                # A next hop for each level: hosts of routes are not looked up in the DNS.
                routes.append(f'"{domain}" = "smtp://{NAME}:{hop.port}"')
                destinations.append(
                    f'[[destination]]\ndomain = "{domain}"\ntls = "{level}"\n'
                    + (f'authorities = "{self.trusted}"\n' if level == "verify" else "")
                )
        toml = "[mta]\nroutes = {" + ", ".join(routes) + "}\n" + "".join(destinations)
        mta = self.enterContext(MTA(self.home, toml=toml))
        for kind in contexts:
            for level in ("none", "may", "encrypt", "verify"):
                submit(mta.smtp, message(), f"bob@{level}.{kind}.example", starttls=False)
        expected = {
            ("clear", "encrypt"): r"deferred.* 4\.7\.4 ",
            ("clear", "verify"): r"deferred.* 4\.7\.4 ",
            (
                "other",
                "verify",
            ): r"deferred.* 4\.7\.5 .*not for localhost, but for mx\.example\.net",
            ("nameless", "verify"): r"deferred.* 4\.7\.5 ",
            ("expired", "verify"): r"deferred.* 4\.7\.5 .*expired",
            ("alone", "verify"): r"deferred.* 4\.7\.5 .*self.signed",
        }
        for kind in contexts:
            for level in ("none", "may", "encrypt", "verify"):
                line = self.outcome(mta, f"{level}.{kind}.example")
                under_tls = level != "none" and kind != "clear"
                tls = r'"TLSv1\.3, verified"' if level == "verify" else r"TLSv1\.3"
                default = rf"delivered.* tls={tls} " if under_tls else r"delivered(?!.* tls=)"
                self.assertRegex(line, expected.get((kind, level), default))


class Remembering(Securing):
    def begin(self, *lines: str) -> tuple[Hop, MTA]:
        hop = self.enterContext(Hop())
        hop.context = self.good()
        toml = (
            f'[mta]\nroutes = {{"*" = "smtp://{NAME}:{hop.port}"}}\n{QUICK}'
            f'[[destination]]\ndomain = "patient.example"\ntls_memory = "require"\n'
        )
        return hop, self.enterContext(MTA(self.home, *lines, toml=toml))

    def hosts(self, mta: MTA, *words: str) -> list[dict[str, object]]:
        told = mta.tool("tls", *words, "--json")
        self.assertEqual(told.returncode, 0, told.stderr)
        hosts: list[dict[str, object]] = json.loads(told.stdout)["hosts"]
        return hosts

    def remember(self, *options: str) -> tuple[Hop, MTA]:
        hop, mta = self.begin(*options)
        self.assertEqual(self.hosts(mta), [])
        self.assertIn("delivered", self.send(mta, "first.example"))
        (host,) = self.hosts(mta, NAME)
        self.assertEqual((host["host"], host["port"], host["missing"]), (NAME, hop.port, None))
        self.assertEqual(self.hosts(mta, "elsewhere.example"), [])
        hop.context = None
        # An idle connection would still have TLS.
        self.assertEqual(mta.terminate(), 0)
        mta.start()
        return hop, mta

    def test_missing_starttls_is_an_alarm_and_mail_is_delivered_even_after_a_restart(self) -> None:
        hop, mta = self.remember()
        self.assertRegex(self.send(mta, "plain.example"), r"delivered(?!.* tls=)")
        self.assertIsNone(hop.transactions[-1].tls)
        self.assertRegex(mta.output(), r"ALARM: localhost\S+ has no TLS now, and had before")
        self.assertEqual(metric(mta, "tls_alarms_total"), 1)
        self.assertEqual(status(mta)["counters"]["tls_alarms"], 1)
        (host,) = self.hosts(mta)
        self.assertIsNotNone(host["missing"])
        plain = mta.tool("tls")
        self.assertRegex(plain.stdout, rf"\nlocalhost\t{hop.port}\t20\d\d-.*\t20.*\t20")

    def test_with_tls_memory_require_mail_waits_until_starttls_is_back(self) -> None:
        hop, mta = self.remember()
        line = self.send(mta, "patient.example")
        self.assertRegex(line, r"deferred.*tls_memory requires it")
        self.assertEqual(len(hop.transactions), 1)
        hop.context = self.good()
        hop.wait_for(2)
        self.assertEqual(hop.transactions[1].tls, "TLSv1.3")
        (host,) = self.hosts(mta)
        self.assertIsNone(host["missing"])

    def test_workers_share_the_tls_memory(self) -> None:
        hop, mta = self.begin("--workers", "2")
        for number in range(6):
            submit(mta.smtp, message(), f"bob@d{number}.example", starttls=False)
        hop.wait_for(6)
        self.assertEqual([host["host"] for host in self.hosts(mta)], [NAME])


class Accounts(Securing):
    def smarthost(self, password: str) -> tuple[Hop, MTA]:
        hop = self.enterContext(Hop())
        hop.accounts = {"branch": PASSWORD}
        secret = self.home / "password"
        secret.write_text(f"{password}\n", encoding="utf-8")
        secret.chmod(0o600)
        toml = (
            f'[mta]\nroutes = {{"*" = "smtp://{NAME}:{hop.port}"}}\n{QUICK}'
            f'[log]\nformat = "json"\n'
            f'[[destination]]\ndomain = "{NAME}:{hop.port}"\ntls = "may"\n'
            f'username = "branch"\npassword_file = "{secret}"\n'
        )
        return hop, self.enterContext(MTA(self.home, toml=toml))

    def assertSecret(self, hop: Hop, mta: MTA, password: str) -> None:
        secrets = (password, b64encode(f"\0branch\0{password}".encode()).decode())
        clear = b"\n".join(hop.commands).decode("latin-1")
        for secret in secrets:
            self.assertNotIn(secret, mta.output())
            self.assertNotIn(secret, clear)
        self.assertNotIn("AUTH", clear)

    def test_mail_is_sent_with_credentials_under_tls(self) -> None:
        hop, mta = self.smarthost(PASSWORD)
        hop.context = self.good()
        submit(mta.smtp, message(), "bob@elsewhere.example", starttls=False)
        (sent,) = hop.wait_for(1)
        self.assertEqual((sent.account, sent.tls), ("branch", "TLSv1.3"))
        self.assertSecret(hop, mta, PASSWORD)

    def test_credentials_are_never_sent_in_clear(self) -> None:
        hop, mta = self.smarthost(PASSWORD)
        hop.extensions.append("AUTH PLAIN LOGIN")
        submit(mta.smtp, message(), "bob@elsewhere.example", starttls=False)
        eventually(lambda: re.search(r'"status": ?"deferred"', mta.output()), "a deferral")
        self.assertEqual(hop.transactions, [])
        self.assertSecret(hop, mta, PASSWORD)
        hop.context = self.good()
        hop.wait_for(1)

    def test_refused_credentials_defer_mail_and_are_counted(self) -> None:
        hop, mta = self.smarthost("wrong horse")
        hop.context = self.good()
        submit(mta.smtp, message(), "bob@elsewhere.example", starttls=False)
        eventually(lambda: "ALARM: " in mta.output(), "an alarm")
        eventually(lambda: metric(mta, "credentials_refused_total") >= 1, "the count")
        eventually(lambda: re.search(r'"status": ?"deferred"', mta.output()), "a deferral")
        refused = f"{NAME}:{hop.port} does not take our account and password: 535"
        self.assertIn(refused, mta.tool("status").stdout)
        self.assertSecret(hop, mta, "wrong horse")
        hop.accounts["branch"] = "wrong horse"
        hop.wait_for(1)
        eventually(lambda: refused not in mta.tool("status").stdout, "the end of the trouble")
