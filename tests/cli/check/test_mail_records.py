"""Findings about the records of our domains, with a scripted name server on loopback."""

from __future__ import annotations

import json
from collections.abc import Sequence

import dns.rcode
from click.testing import CliRunner

from tests.cli.check.checking import NOW, CheckTestCase, machine
from tests.cli.check.nameserver import NameServer
from tests.policy.dkim.key_files import write_key
from twisted_mta.cli.check.mail_records import mail_records
from twisted_mta.cli.command import main
from twisted_mta.cli.dkim.records import record_of
from twisted_mta.config import Config, DeliverySettings, DKIMKey, DNSSettings
from twisted_mta.policy.dkim.signing_keys import SigningKey

MX, PTR, SPF, DKIM, DMARC = "MX", "PTR", "SPF", "DKIM", "DMARC"


def strings(text: str) -> str:
    """Return a text as the strings of a TXT record."""
    return " ".join(f'"{text[at : at + 255]}"' for at in range(0, len(text), 255))


class RecordsTestCase(CheckTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.dns = NameServer(self)
        self.key = DKIMKey(
            domain="example.net",
            selector="s1",
            key=write_key(self.path("s1.pem"), "rsa-2048"),
        )
        self.dns.records |= {
            "mail.example.net. A": ["192.0.2.1"],
            "mail.example.net. AAAA": ["2001:db8::1"],
            "mail.example.net. TXT": ['"v=spf1 a -all"'],
            "1.2.0.192.in-addr.arpa. PTR": ["mail.example.net."],
            f"{'.'.join('1' + '0' * 23 + '8bd01002')}.ip6.arpa. PTR": ["mail.example.net."],
            "example.net. MX": ["10 mail.example.net."],
            "example.net. TXT": ['"v=spf1 mx -all"', '"something else"'],
            "s1._domainkey.example.net. TXT": [strings(record_of(SigningKey.read(self.key)))],
            "_dmarc.example.net. TXT": ['"v=DMARC1; p=reject; rua=mailto:postmaster@example.net"'],
        }

    def text(self, name: str, *texts: str) -> None:
        self.dns.records[f"{name}. TXT"] = [strings(text) for text in texts]

    def settings(self, **values: object) -> Config:
        sound: dict[str, object] = {
            "local_domains": ["example.net"],
            "dkim_keys": [self.key],
            "dns": DNSSettings(nameservers=[self.dns.host]),
        }
        return self.config(**{**sound, **values})

    def of(self, kind: str = "", **values: object) -> list[str]:
        """Return the findings about a kind of record that do not pass."""
        return [each for each in self.all(kind, **values) if not each.startswith("pass: ")]

    def all(self, kind: str = "", **values: object) -> list[str]:
        found = mail_records(self.settings(**values), machine(), seconds=30.0)
        return [
            "\n".join((f"{each.severity}: {each}".replace(self.directory, "DIR"), *each.records))
            for each in found
            if each.where.endswith(kind)
        ]


class Domains(RecordsTestCase):
    def test_a_domain_with_all_records_passes(self) -> None:
        self.assertEqual(
            self.all(local_domains=["example.net", "localhost"], dkim_keys=[self.key]),
            [
                "pass: mail.example.net address: 192.0.2.1, 2001:db8::1, none of which is of this"
                " machine",
                "pass: mail.example.net PTR: 192.0.2.1 has that name",
                "pass: mail.example.net PTR: 2001:db8::1 has that name",
                "pass: example.net MX: 10 mail.example.net (192.0.2.1, 2001:db8::1), this host",
                "pass: example.net SPF: 192.0.2.1 may send (mx of example.net)",
                "pass: example.net SPF: 2001:db8::1 may send (mx of example.net)",
                "pass: example.net DKIM: s1._domainkey.example.net: the same key (rsa, 2048 bits)",
                "pass: example.net DMARC: _dmarc.example.net asks to refuse mail that fails",
                "pass: mail.example.net MX: is missing; the address counts instead (192.0.2.1,"
                " 2001:db8::1), this host",
                "pass: mail.example.net SPF: 192.0.2.1 may send (a of mail.example.net)",
                "pass: mail.example.net SPF: 2001:db8::1 may send (a of mail.example.net)",
                "pass: mail.example.net DMARC: _dmarc.example.net asks to refuse mail that fails",
            ],
        )

    def test_a_domain_without_any_record_is_told_what_to_publish(self) -> None:
        found = self.of(local_domains=["new.example"], hostname="mx.new.example", dkim_keys=())
        self.assertEqual(
            found[:5],
            [
                "fail: mx.new.example address: is missing: many hosts refuse mail with such a name"
                " in EHLO; publish the public address of this host\n"
                "mx.new.example. IN A ADDRESS",
                "fail: new.example MX: is missing, and there is no address: no mail arrives;"
                " publish\nnew.example. IN MX 10 mx.new.example.",
                "fail: new.example SPF: is missing: large receivers refuse mail of such a domain;"
                " publish, with any other host that sends its mail\n"
                'new.example. IN TXT "v=spf1 mx a:mx.new.example -all"',
                "warning: new.example DKIM: no key is configured: its mail is not signed;"
                " twisted-mta dkim new --domain new.example",
                "warning: new.example DMARC: is missing: large receivers expect one; publish, and a"
                " stronger p= later\n"
                '_dmarc.new.example. IN TXT "v=DMARC1; p=none; rua=mailto:postmaster@new.example"',
            ],
        )

    def test_a_server_that_does_not_answer_is_no_missing_record(self) -> None:
        names = ("example.net", "s1._domainkey.example.net", "_dmarc.example.net")
        self.dns.failing += [f"{name}. {type}" for name in names for type in ("MX", "TXT")]
        found = [each for each in self.of() if "example.net " in each.partition(": ")[2]]
        own = [each for each in found if each.startswith("warning: example.net ")]
        self.assertEqual(len(own), 4, found)
        for each in found:
            self.assertIn("cannot be looked up now", each)
            self.assertTrue(each.startswith("warning: "), each)

    def test_without_a_name_server_nothing_passes(self) -> None:
        dead = DNSSettings(nameservers=["127.0.0.1:1"])
        self.assertEqual(
            self.all(dns=dead), ["fail: DNS: no name server answers; check again later"]
        )

    def test_where_all_questions_are_refused_nothing_passes(self) -> None:
        self.dns.rcode = dns.rcode.REFUSED
        found = self.all()
        self.assertTrue(found)
        for each in found:
            self.assertRegex(each, "^warning: .* cannot be looked up now")

    def test_a_name_server_of_our_domains_alone_answers(self) -> None:
        passing = self.all()
        self.dns.failing.append(". SOA")
        self.assertEqual(self.all(), passing)

    def test_all_questions_share_a_deadline(self) -> None:
        hours = iter(range(1000))
        hurried = machine(wall_time=lambda: NOW + next(hours))
        last = [*mail_records(self.settings(), hurried, seconds=10.0)][-1]
        self.assertEqual((last.severity, last.where), ("fail", "DNS"))
        self.assertIn("not all questions were answered within 10 s", last.what)


class OwnName(RecordsTestCase):
    def test_an_address_without_a_name_fails(self) -> None:
        del self.dns.records["1.2.0.192.in-addr.arpa. PTR"]
        self.assertEqual(
            self.of(PTR),
            [
                "fail: mail.example.net PTR: 192.0.2.1 has no name: large receivers refuse its"
                " mail; have the provider of the address publish\n"
                "1.2.0.192.in-addr.arpa. IN PTR mail.example.net."
            ],
        )

    def test_an_address_with_another_name_is_a_warning(self) -> None:
        self.dns.records["1.2.0.192.in-addr.arpa. PTR"] = ["host-1.isp.example."]
        (text,) = self.of(PTR)
        self.assertIn(
            "warning: mail.example.net PTR: 192.0.2.1 has the name host-1.isp.example, and not the"
            " one in EHLO",
            text,
        )

    def test_the_name_in_ehlo_counts(self) -> None:
        found = self.of(PTR, delivery=DeliverySettings(helo="out.example.net"))
        self.assertEqual(found, [])
        self.dns.records["out.example.net. A"] = ["192.0.2.1"]
        (text,) = self.of(PTR, delivery=DeliverySettings(helo="out.example.net"))
        self.assertIn("out.example.net PTR: 192.0.2.1 has the name mail.example.net", text)

    def test_a_source_address_has_to_have_the_name_too(self) -> None:
        self.dns.records["9.8.8.8.in-addr.arpa. PTR"] = ["mail.example.net."]
        delivery = DeliverySettings(source_address=("8.8.8.9",))
        self.assertEqual(
            self.of(PTR, delivery=delivery),
            [
                "fail: mail.example.net PTR: 8.8.8.9 has that name, which does not have the"
                " address; publish\nmail.example.net. IN A 8.8.8.9"
            ],
        )
        (text, _) = self.of(SPF, delivery=delivery)
        self.assertIn("8.8.8.9 gets fail (-all of example.net)", text)

    def test_a_short_name_fails(self) -> None:
        first, *_ = self.of(hostname="mail")
        self.assertIn("fail: mail: is not a full host name", first)


class Exchangers(RecordsTestCase):
    def exchangers(self, *records: str) -> list[str]:
        self.dns.records["example.net. MX"] = list(records)
        return self.of(MX)

    def test_an_exchanger_without_an_address_fails(self) -> None:
        self.assertEqual(
            self.exchangers("10 mail.example.net.", "20 gone.example.net.", "30 192.0.2.1."),
            [
                f"fail: example.net MX: {each} has no address; publish one, or remove the record"
                for each in ("20 gone.example.net", "30 192.0.2.1")
            ],
        )

    def test_a_null_exchanger_fails(self) -> None:
        (text,) = self.exchangers("0 .")
        self.assertIn("fail: example.net MX: 0 . says that it accepts no mail", text)

    def test_exchangers_that_are_other_hosts_are_a_warning(self) -> None:
        self.dns.records["mx.isp.example. A"] = ["192.0.2.99"]
        (text,) = self.exchangers("10 mx.isp.example.")
        self.assertEqual(
            text,
            "warning: example.net MX: no exchanger is this host, so that mail from other hosts does"
            " not come here; unless another host relays it to this one, publish\n"
            "example.net. IN MX 10 mail.example.net.",
        )
        self.assertIn(
            "pass: example.net MX: 10 mx.isp.example (192.0.2.99), another host", self.all(MX)
        )

    def test_an_exchanger_is_this_host_by_its_address(self) -> None:
        self.dns.records["mx.example.net. A"] = ["192.0.2.1"]
        self.dns.records["local.example.net. A"] = ["127.0.0.1"]
        self.assertEqual(self.exchangers("10 mx.example.net."), [])
        self.assertEqual(self.exchangers("10 local.example.net."), [])


class Senders(RecordsTestCase):
    def spf(self, *texts: str) -> list[str]:
        self.text("example.net", *texts)
        return self.of(SPF)

    def test_a_record_that_does_not_let_this_host_send_fails(self) -> None:
        self.assertEqual(
            self.spf("v=spf1 ip4:192.0.2.1 ~all"),
            [
                "fail: example.net SPF: it does not let this host send: 2001:db8::1 gets softfail"
                " (~all of example.net); publish instead\n"
                'example.net. IN TXT "v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 ~all"'
            ],
        )
        (text,) = self.spf("v=spf1")
        self.assertTrue(text.endswith('"v=spf1 ip4:192.0.2.1 ip6:2001:db8::1"'), text)

    def test_a_long_record_is_shown_in_several_strings(self) -> None:
        hosts = " ".join(f"ip4:198.51.100.{number}" for number in range(20))
        (text,) = self.spf(f"v=spf1 {hosts} -all")
        _, _, record = text.partition("IN TXT ")
        first, second = record.strip('"').split('" "')
        self.assertEqual(len(first), 255)
        self.assertEqual(first + second, f"v=spf1 {hosts} ip4:192.0.2.1 ip6:2001:db8::1 -all")

    def test_a_broken_record_fails(self) -> None:
        for texts in (
            ("v=spf1 mxx -all",),
            ("v=spf1 include:nowhere.example -all",),
            ("v=spf1 mx -all", "v=spf1 a -all"),
        ):
            (text,) = self.spf(*texts)
            self.assertTrue(text.startswith("fail: example.net SPF: "), text)
            self.assertTrue("is broken: " in text or "remove all but one" in text, text)

    def test_a_record_that_lets_every_host_send_is_a_warning(self) -> None:
        (text,) = self.spf("v=spf1 +all")
        self.assertIn("warning: example.net SPF: v=spf1 +all lets every host send", text)

    def test_a_record_that_cannot_be_evaluated_now_is_a_warning(self) -> None:
        self.dns.failing.append("slow.example. TXT")
        self.text("slow.example", "v=spf1 -all")
        for text in self.spf("v=spf1 include:slow.example -all"):
            self.assertTrue(text.startswith("warning: example.net SPF: cannot be evaluated now"))


class Keys(RecordsTestCase):
    def test_a_missing_or_another_key_fails_with_the_record_to_publish(self) -> None:
        other = DKIMKey(
            domain="example.net", selector="s1", key=write_key(self.path("other"), "ed25519")
        )
        name = "s1._domainkey.example.net"
        right = self.dns.records.pop(f"{name}. TXT")
        found = self.of(DKIM)[0]
        self.assertIn(f"fail: example.net DKIM: {name}: there is no such name: signatures", found)
        self.assertIn(f"\n{name}. IN TXT (\n", found)
        self.dns.records[f"{name}. TXT"] = right
        found = self.of(DKIM, dkim_keys=[other])[0]
        self.assertIn(f"fail: example.net DKIM: {name}: found another key (rsa, 2048 bits)", found)
        self.assertIn("\n; as one text: v=DKIM1; k=ed25519; p=", found)

    def test_a_key_that_cannot_be_read_fails(self) -> None:
        broken = DKIMKey(domain="example.net", selector="s2", key=self.path("nothing.pem"))
        found = self.of(DKIM, dkim_keys=[broken, self.key])
        self.assertEqual(len(found), 1)
        self.assertIn("fail: example.net DKIM: DIR/nothing.pem: cannot be read", found[0])


class Policies(RecordsTestCase):
    def dmarc(self, *texts: str) -> Sequence[str]:
        self.text("_dmarc.example.net", *texts)
        return [each for each in self.all(DMARC) if ": example.net DMARC" in each]

    def test_the_request_is_shown(self) -> None:
        for record, asks in (
            ("p=none", "asks for nothing if mail fails"),
            ("p=quarantine", "asks to quarantine mail that fails"),
            ("p=reject; t=y", "asks to refuse mail that fails, but only for a test (t=y)"),
        ):
            self.assertEqual(
                self.dmarc(f"v=DMARC1; {record}"),
                [f"pass: example.net DMARC: _dmarc.example.net {asks}"],
            )

    def test_several_records_fail(self) -> None:
        (text,) = self.dmarc("v=DMARC1; p=none", "v=DMARC1; p=reject")
        self.assertIn(
            "fail: example.net DMARC: there are several records, which count as none", text
        )

    def test_a_broken_record_fails(self) -> None:
        first, *_ = self.dmarc("v=DMARC1; p=none; adkim=x")
        self.assertIn("fail: example.net DMARC: at example.net: adkim: found x, expected", first)

    def test_a_destination_of_reports_elsewhere_has_to_agree(self) -> None:
        self.text("_dmarc.reports.example", "v=DMARC1; p=none")
        record = "v=DMARC1; p=none; rua=mailto:a@example.net,mailto:b@reports.example"
        self.assertEqual(
            self.dmarc(record)[1:],
            [
                "warning: example.net DMARC: b@reports.example gets no reports: its domain does not"
                " agree; have its owner publish, or name a mailbox of yours\n"
                'example.net._report._dmarc.reports.example. IN TXT "v=DMARC1"'
            ],
        )
        self.text("example.net._report._dmarc.reports.example", "v=DMARC1")
        self.assertEqual(self.dmarc(record)[1:], [])


class Tool(RecordsTestCase):
    def run_tool(self, *words: str) -> tuple[int, str]:
        file = self.write(
            "mta.toml",
            '[mta]\nhostname = "mail.example.net"\nlocal_domains = ["example.net"]\n'
            'smtp = "tcp:0:interface=127.0.0.1"\nweb = "off"\n'
            f'[dns]\nnameservers = ["{self.dns.host}"]\n'
            f'[[dkim]]\ndomain = "example.net"\nselector = "s1"\nkey = "{self.key.key}"\n',
        )
        words = ("check", "--config", file, "--state-dir", self.state, *words)
        result = CliRunner().invoke(main, words)
        return result.exit_code, result.output

    def test_records_are_checked_on_request(self) -> None:
        status, output = self.run_tool("--dns")
        self.assertEqual(status, 0, output)
        self.assertIn("pass: example.net MX: 10 mail.example.net", output)
        self.assertNotIn("pass: ", self.run_tool()[1])

    def test_a_record_to_correct_ends_with_1_and_is_shown_to_be_copied(self) -> None:
        self.text("example.net", "v=spf1 a:other.example -all")
        status, output = self.run_tool("--dns")
        self.assertEqual(status, 1, output)
        self.assertIn(
            '\n    example.net. IN TXT "v=spf1 a:other.example ip4:192.0.2.1 ip6:2001:db8::1'
            ' -all"\n',
            output,
        )
        self.assertIn("a start would work", output.splitlines()[-1])
        self.assertIn("1 to correct in the DNS", output.splitlines()[-1])
        told = json.loads(self.run_tool("--dns", "--json")[1])
        (failing,) = (each for each in told["findings"] if each["severity"] == "fail")
        self.assertEqual(failing["where"], "example.net SPF")
        self.assertEqual(len(failing["records"]), 1)
        self.assertTrue(told["good"])

    def test_two_opposite_options_are_refused(self) -> None:
        self.assertEqual(self.run_tool("--dns", "--no-dns")[0], 2)
