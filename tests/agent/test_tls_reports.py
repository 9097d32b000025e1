"""Reports on TLS in a whole agent: from a session with an exchanger to the mail to its domain."""

from __future__ import annotations

import gzip
import json
import os
from email import message_from_bytes, policy
from types import SimpleNamespace
from typing import Any

import dkim
from attrs import evolve
from twisted.internet.defer import maybeDeferred

from tests.logs import logged_lines
from tests.mailflow.there import ThereTestCase
from tests.policy.dkim.key_files import write_key
from tests.reports.tls.collector_host import CollectorHost
from tests.server.authority import Authority
from tests.tls.mta_sts.policy_host import PolicyHost, response
from twisted_mta.admin.http import Request
from twisted_mta.admin.local import LocalAgent
from twisted_mta.admin.tls_reports import TLSReportsAPI
from twisted_mta.agent.tls_reports import FILE
from twisted_mta.cli.dkim.records import record_of
from twisted_mta.config import (
    Destination,
    DKIMKey,
    Listener,
    MTASTSSettings,
    PolicySettings,
    TLSReportSettings,
)
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.tlsa import TLSA
from twisted_mta.policy.dkim.signing_keys import SigningKey
from twisted_mta.system.ports import Ports
from twisted_mta.testing import MemoryMTA
from twisted_mta.tls.own_records import shown_certificates

HOUR = 3_600.0
RECORD = "v=TLSRPTv1; rua=mailto:tls@ours.example"


class TLSReportsTestCase(ThereTestCase):
    zone = f"""
        _smtp._tls.there.example. TXT "{RECORD}"
    """

    def ours(self, *, reports: bool = True, **settings: Any) -> MemoryMTA:
        return self.started(
            "ours",
            local_domains=("ours.example",),
            policy=PolicySettings(report_from=Mailbox.parse("noc@ours.example")),
            tls_report=TLSReportSettings() if reports else None,
            **settings,
        )

    def there(self, **listener: Any) -> MemoryMTA:
        return self.started_there(
            listeners=(Listener(endpoint="tcp:25:interface=192.0.2.1", **listener),)
        )

    def ask_for_reports(self, *places: str) -> None:
        """Let the domain ask for its reports elsewhere."""
        text = f"v=TLSRPTv1; rua={', '.join(places)}"
        self.resolver.add_zone(f'_smtp._tls.there.example. TXT "{text}"')

    def pass_hours(self, hours: int) -> None:
        for _ in range(hours):
            self.reactor.jump(HOUR)

    def mails(self, mta: MemoryMTA, hours: int = 30) -> list[bytes]:
        self.pass_hours(hours)
        return mta.mail("tls", "ours.example")

    def report(self, content: bytes) -> dict[str, Any]:
        message = message_from_bytes(content, policy=policy.default)
        _, data = message.iter_parts()
        found: dict[str, Any] = json.loads(gzip.decompress(data.get_content()))
        return found


class Sessions(TLSReportsTestCase):
    def only_report(self, mta: MemoryMTA) -> Any:
        (content,) = self.mails(mta)
        (entry,) = self.report(content)["policies"]
        return entry

    def test_a_session_counts_once_whatever_it_carries(self) -> None:
        ours, there = self.ours(), self.there()
        for _ in range(3):
            self.send(ours)
        self.assertEqual(self.arrived(there), 3)
        self.assertEqual(
            self.only_report(ours),
            {
                "policy": {"policy-type": "no-policy-found", "policy-domain": "there.example"},
                "summary": {
                    "total-successful-session-count": 1,
                    "total-failure-session-count": 0,
                },
            },
        )

    def test_a_server_without_tls_is_a_failure(self) -> None:
        ours, there = self.ours(), self.there(tls="none")
        self.send(ours)
        self.assertEqual(self.arrived(there), 1)
        entry = self.only_report(ours)
        self.assertEqual(entry["summary"]["total-failure-session-count"], 1)
        (details,) = entry["failure-details"]
        self.assertEqual(
            {name: details[name] for name in details if name != "sending-mta-ip"},
            {
                "result-type": "starttls-not-supported",
                "receiving-mx-hostname": "mx.there.example",
                "receiving-ip": "192.0.2.1",
                "failed-session-count": 1,
            },
        )
        self.assertIn("sending-mta-ip", details)

    def test_routes_are_not_reported(self) -> None:
        ours, there = self.ours(routes=(("*", "smtp://mx.there.example"),)), self.there()
        self.send(ours)
        self.assertEqual(self.arrived(there), 1)
        self.assertEqual(self.mails(ours), [])

    def test_a_host_that_is_down_says_nothing_of_tls(self) -> None:
        ours = self.ours()
        self.send(ours)
        self.assertEqual(self.mails(ours), [])


class UnderMTASTS(TLSReportsTestCase):
    def publish(self, mode: str, *steps: bytes, mx: str = "mx.there.example") -> MTASTSSettings:
        """Publish a policy; return settings with the authority of its host."""
        authority = Authority()
        host = "mta-sts.there.example"
        issued = authority.issue("x", names=[host], for_clients=False)
        policy = f"version: STSv1\r\nmode: {mode}\r\nmx: {mx}\r\nmax_age: 86400\r\n"
        steps = steps or (response(policy.encode()),)
        self.resolver.add_zone(f"""
            _mta-sts.there.example. TXT "v=STSv1; id=1;"
            {host}.                 A   192.0.2.8
        """)
        hosts = [PolicyHost(self.reactor, issued, *steps) for _ in range(9)]
        self.reactor.listen("192.0.2.8", 443, *hosts)
        return MTASTSSettings(authorities=authority.issued.save(self.directory, "ca.pem"))

    def entries(self, mta: MemoryMTA) -> Any:
        (content,) = self.mails(mta)
        return self.report(content)["policies"]

    def test_a_policy_that_is_tested_tells_of_a_certificate_that_is_not_trusted(self) -> None:
        ours, there = self.ours(mta_sts=self.publish("testing")), self.there()
        self.send(ours)
        self.assertEqual(self.arrived(there), 1)
        (entry,) = self.entries(ours)
        self.assertEqual(
            entry["policy"],
            {
                "policy-type": "sts",
                "policy-domain": "there.example",
                "policy-string": [
                    "version: STSv1",
                    "mode: testing",
                    "mx: mx.there.example",
                    "max_age: 86400",
                ],
                "mx-host": ["mx.there.example"],
            },
        )
        (details,) = entry["failure-details"]
        self.assertEqual(
            (details["result-type"], details["failed-session-count"]),
            ("certificate-not-trusted", 1),
        )

    def test_a_policy_that_is_enforced_keeps_the_mail_and_tells(self) -> None:
        ours, there = self.ours(mta_sts=self.publish("enforce")), self.there()
        self.send(ours)
        self.assertEqual(self.arrived(there), 0)
        (entry,) = self.entries(ours)
        self.assertEqual(entry["policy"]["policy-type"], "sts")
        self.assertEqual(entry["summary"]["total-successful-session-count"], 0)
        self.assertEqual(
            {each["result-type"] for each in entry["failure-details"]}, {"certificate-not-trusted"}
        )

    def test_an_exchanger_that_is_not_allowed_is_a_failure(self) -> None:
        settings = self.publish("testing", mx="other.example")
        ours, there = self.ours(mta_sts=settings), self.there()
        self.send(ours)
        self.assertEqual(self.arrived(there), 1)
        (entry,) = self.entries(ours)
        self.assertEqual(entry["summary"]["total-failure-session-count"], 1)
        (details,) = entry["failure-details"]
        self.assertEqual(details["result-type"], "validation-failure")
        self.assertIn("found mx.there.example as a mail exchanger", details["failure-reason-code"])

    def test_a_policy_that_cannot_be_fetched_is_a_failure_beside_the_session(self) -> None:
        settings = self.publish("enforce", response(b"", status="404 Not Found"))
        ours, there = self.ours(mta_sts=settings), self.there()
        self.send(ours)
        self.assertEqual(self.arrived(there), 1)
        policy, session = sorted(
            self.entries(ours), key=lambda entry: str(entry["policy"]["policy-type"]), reverse=True
        )
        self.assertEqual(policy["policy"]["policy-type"], "sts")
        (details,) = policy["failure-details"]
        self.assertEqual(details["result-type"], "sts-policy-fetch-error")
        self.assertIn("answers 404", details["failure-reason-code"])
        self.assertEqual(session["policy"]["policy-type"], "no-policy-found")
        self.assertEqual(session["summary"]["total-successful-session-count"], 1)


class UnderDANE(TLSReportsTestCase):
    PLACE = "_25._tcp.mx.there.example"

    def setUp(self) -> None:
        super().setUp()
        self.resolver.signed = ("there.example",)

    def entries(self, mta: MemoryMTA) -> Any:
        self.send(mta)
        (content,) = self.mails(mta)
        return self.report(content)["policies"]

    def test_a_server_that_fits_its_records_is_a_success(self) -> None:
        ours, there = self.ours(), self.there()
        (shown,) = shown_certificates(there.mta.config)
        self.resolver.tlsa_records[self.PLACE] = [shown.tlsa]
        (entry,) = self.entries(ours)
        self.assertEqual(
            entry,
            {
                "policy": {
                    "policy-type": "tlsa",
                    "policy-domain": "mx.there.example",
                    "policy-string": [shown.tlsa.text],
                },
                "summary": {
                    "total-successful-session-count": 1,
                    "total-failure-session-count": 0,
                },
            },
        )

    def test_a_server_that_fits_none_is_a_failure(self) -> None:
        ours, there = self.ours(), self.there()
        self.resolver.tlsa_records[self.PLACE] = [TLSA(3, 1, 1, bytes(32))]
        (entry,) = self.entries(ours)
        self.assertEqual(self.arrived(there), 0)
        (details,) = entry["failure-details"]
        self.assertEqual(details["result-type"], "validation-failure")
        self.assertIn("fit none of its TLSA record", details["failure-reason-code"])

    def test_records_that_are_not_usable_are_a_failure_beside_the_session(self) -> None:
        ours, there = self.ours(), self.there()
        self.resolver.tlsa_records[self.PLACE] = [TLSA(1, 1, 1, bytes(32))]
        entries = self.entries(ours)
        self.assertEqual(self.arrived(there), 1)
        (failed,) = [each for each in entries if "failure-details" in each]
        self.assertEqual(failed["policy"]["policy-type"], "tlsa")
        self.assertEqual(failed["failure-details"][0]["result-type"], "tlsa-invalid")

    def test_a_look_up_that_fails_is_a_failure(self) -> None:
        ours, _ = self.ours(), self.there()
        self.resolver.fail(self.PLACE)
        (entry,) = self.entries(ours)
        self.assertEqual(entry["policy"]["policy-type"], "tlsa")
        self.assertEqual(
            {each["result-type"] for each in entry["failure-details"]}, {"dnssec-invalid"}
        )

    def test_dane_that_is_demanded_and_not_there_is_a_failure(self) -> None:
        destination = Destination(domain="there.example", tls="dane")
        ours, _ = self.ours(destinations=(destination,)), self.there()
        (entry,) = self.entries(ours)
        self.assertEqual(
            {each["result-type"] for each in entry["failure-details"]}, {"dane-required"}
        )


class Reporting(TLSReportsTestCase):
    def test_the_mail_is_signed_as_dkimpy_sees_it(self) -> None:
        path = write_key(os.path.join(self.directory, "key.pem"), "ed25519")
        table = DKIMKey(domain="ours.example", selector="s1", key=path)
        ours, _ = self.ours(dkim_keys=(table,)), self.there()
        self.send(ours)
        (content,) = self.mails(ours)
        key = record_of(SigningKey.read(table))
        asked = []

        def answer(name: bytes, timeout: int = 5) -> bytes:
            asked.append(name)
            return key.encode()

        signed = content[content.index(b"DKIM-Signature:") :].replace(b"\n", b"\r\n")
        self.patch(dkim, "time", SimpleNamespace(time=ours.wall_time))
        self.assertTrue(dkim.verify(signed, dnsfunc=answer))
        self.assertEqual(asked, [b"s1._domainkey.ours.example."])
        message = message_from_bytes(content, policy=policy.default)
        self.assertEqual(message["Return-Path"], "<noc@ours.example>")
        self.assertEqual(message["TLS-Report-Domain"], "there.example")

    def test_a_domain_that_asks_for_none_gets_none(self) -> None:
        del self.resolver.texts["_smtp._tls.there.example"]
        ours, _ = self.ours(), self.there()
        self.send(ours)
        self.assertEqual(self.mails(ours), [])

    def test_each_day_has_its_report(self) -> None:
        ours, _ = self.ours(), self.there()
        self.send(ours)
        self.assertEqual(len(self.mails(ours)), 1)
        self.send(ours)
        first, second = map(self.report, self.mails(ours))
        days = [each["date-range"]["start-datetime"] for each in (first, second)]
        self.assertEqual(days, sorted(set(days)))
        self.assertNotEqual(first["report-id"], second["report-id"])

    def test_counts_survive_a_restart(self) -> None:
        ours, _ = self.ours(), self.there()
        self.send(ours)
        ours.stop()
        self.assertEqual(len(self.mails(self.ours())), 1)

    def test_without_the_table_nothing_is_counted(self) -> None:
        ours, _ = self.ours(reports=False), self.there()
        self.send(ours)
        self.assertEqual(self.mails(ours), [])
        self.assertFalse(os.path.exists(os.path.join(self.directory, "ours", FILE)))

    def test_a_reload_turns_them_on_and_off(self) -> None:
        ours, _ = self.ours(reports=False), self.there()
        off = ours.mta.config
        on = evolve(off, tls_report=TLSReportSettings())
        lines = self.successResultOf(ours.mta.reload(on))
        self.assertIn("[tls_report] on; before: off", lines)
        self.send(ours)
        self.assertEqual(len(self.mails(ours)), 1)
        self.send(ours)
        self.successResultOf(ours.mta.reload(off))
        self.assertEqual(len(self.mails(ours)), 1)

    def test_sessions_are_counted_as_metrics_too(self) -> None:
        ours, _ = self.ours(reports=False), self.there()
        self.send(ours)
        agent = ours.mta.agent
        assert agent is not None
        self.assertIn("no-policy-found", str(agent.metrics.snapshot().to_json()))


class Loops(TLSReportsTestCase):
    def test_reports_to_each_other_end(self) -> None:
        """The session that carries a report makes no report (RFC 8460 §3)."""
        self.ask_for_reports("mailto:tls@there.example")
        ours, there = self.ours(), self.there(tls="none")
        self.send(ours)
        there.stop()  # ends the session
        there = self.there(tls="none")
        self.pass_hours(30)
        (report,) = there.inbox_of("tls@there.example")
        self.assertEqual(report.header("TLS-Required"), "No")
        self.pass_hours(60)
        self.assertEqual(len(there.inbox_of("tls@there.example")), 1)


class AtOnce(TLSReportsTestCase):
    """``twisted-mta tls report``: what was counted by now."""

    def ask(self, mta: MemoryMTA, method: str = "GET", query: str = "") -> Any:
        agent = mta.mta.agent
        assert agent is not None
        local = LocalAgent(agent, ports=Ports(self.reactor), state=lambda: "ready")
        api = TLSReportsAPI(local, clock=self.reactor)
        request = Request(method=method, path="/v1/tls-reports", query=query)
        answering = maybeDeferred(api.answer, request)
        self.reactor.settle()
        response = self.successResultOf(answering)
        return json.loads(response.body) if response.code == 200 else response.code

    def successes(self, entry: Any) -> int:
        (policy,) = entry["policies"]
        found: int = policy["summary"]["total-successful-session-count"]
        return found

    def test_the_report_of_today_is_shown_and_stays(self) -> None:
        ours, _ = self.ours(), self.there()
        self.send(ours)
        for _ in range(2):
            (shown,) = self.ask(ours)["reports"]
            self.assertEqual(shown["domain"], "there.example")
            self.assertEqual(shown["to"], ["mailto:tls@ours.example"])
            self.assertEqual(self.successes(shown["report"]), 1)
        self.assertEqual(ours.mail("tls", "ours.example"), [])
        self.assertEqual(self.ask(ours, query="domain=elsewhere.example")["reports"], [])

    def test_the_last_report_is_shown_after_it_was_sent(self) -> None:
        ours, _ = self.ours(), self.there()
        self.send(ours)
        (sent,) = map(self.report, self.mails(ours))
        (shown,) = self.ask(ours, query="domain=there.example")["reports"]
        self.assertEqual(shown["report"], sent)

    def test_a_report_on_a_part_of_the_day_is_followed_by_one_on_the_rest(self) -> None:
        ours, there = self.ours(), self.there()
        self.send(ours)
        answer = self.ask(ours, "POST", "domain=there.example")
        (attempt,) = answer["attempts"]
        self.assertEqual(
            attempt, {"domain": "there.example", "done": True, "what": "sent to tls@ours.example"}
        )
        self.reactor.advance(1)
        (first,) = map(self.report, ours.mail("tls", "ours.example"))
        there.stop()  # ends the session
        self.there()
        self.send(ours)
        first, second = map(self.report, self.mails(ours))
        self.assertEqual([self.successes(each) for each in (first, second)], [1, 1])
        self.assertLess(first["date-range"]["end-datetime"], second["date-range"]["start-datetime"])
        self.assertTrue(second["date-range"]["end-datetime"].endswith("T23:59:59Z"))
        self.assertNotEqual(first["report-id"], second["report-id"])

    def test_there_may_be_nothing_to_send(self) -> None:
        ours = self.ours()
        self.assertEqual(self.ask(ours, "POST")["attempts"], [])

    def test_a_report_that_has_to_wait_does_not_keep_the_others(self) -> None:
        self.resolver.add_zone("""
            also.example.            MX  10 mx.also.example.
            mx.also.example.         A   192.0.2.2
            _smtp._tls.also.example. TXT "v=TLSRPTv1; rua=https://nowhere.example/"
        """)
        ours, _ = self.ours(), self.there()
        self.started(
            "also",
            local_domains=("also.example",),
            listeners=(Listener(endpoint="tcp:25:interface=192.0.2.2"),),
        )
        self.send(ours)
        self.send(ours, "bob@also.example")
        first, second = self.ask(ours, "POST")["attempts"]
        self.assertEqual((first["domain"], first["done"]), ("also.example", False))
        self.assertIn("not sent to https://nowhere.example/: ", first["what"])
        self.assertEqual((second["domain"], second["done"]), ("there.example", True))

    def test_a_domain_that_asks_for_none_is_told_of(self) -> None:
        del self.resolver.texts["_smtp._tls.there.example"]
        ours, _ = self.ours(), self.there()
        self.send(ours)
        (attempt,) = self.ask(ours, "POST")["attempts"]
        self.assertEqual(
            attempt["what"], "not sent: _smtp._tls.there.example does not ask for reports"
        )

    def test_without_the_table_there_are_no_reports(self) -> None:
        self.assertEqual(self.ask(self.ours(reports=False)), 409)


class Destinations(TLSReportsTestCase):
    def test_a_collector_that_leads_to_us_gets_no_request(self) -> None:
        """A URL that names our own machine, or a host of our own network."""
        lines = logged_lines(self, "the TLS report on ")
        self.resolver.add_zone("inside.example. A 127.0.0.1")
        self.ask_for_reports("https://inside.example:25/x")
        ours, _ = self.ours(), self.there()
        self.send(ours)
        self.pass_hours(30)
        self.assertIn("inside.example has the address 127.0.0.1, of no public host", lines[0])
        self.assertIn("has to wait", lines[0])

    def test_a_collector_gets_a_report(self) -> None:
        authority = Authority()
        file = authority.issued.save(self.directory, "ca.pem")
        self.ask_for_reports("https://reports.there.example/v1")
        self.resolver.add_zone("reports.there.example. A 192.0.2.9")
        issued = authority.issue("x", names=["reports.there.example"], for_clients=False)
        host = CollectorHost(self.reactor, issued, response(b"", status="201 Created"))
        self.reactor.listen("192.0.2.9", 443, host)
        ours, _ = self.ours(mta_sts=MTASTSSettings(authorities=file)), self.there()
        lines = logged_lines(self, "TLS report ")
        self.send(ours)
        self.pass_hours(30)
        self.assertTrue(host.request.startswith(b"POST /v1 HTTP/1.1\r\n"))
        report = json.loads(gzip.decompress(host.body))
        self.assertEqual(report["contact-info"], "noc@ours.example")
        (line,) = lines
        self.assertIn("on there.example to https://reports.there.example/v1: 1 session,", line)

    def test_a_report_is_tried_for_a_day(self) -> None:
        lines = logged_lines(self, "the TLS report on ")
        self.ask_for_reports("https://nowhere.example/", "mailto:tls@ours.example")
        ours, _ = self.ours(), self.there()
        self.send(ours)
        # What has come to one destination is not sent there again.
        self.assertEqual(len(self.mails(ours, 60)), 1)
        self.assertGreater(len(lines), 5)
        self.assertEqual([line for line in lines if "is given up" in line], lines[-1:])
        count = len(lines)
        self.pass_hours(60)
        self.assertEqual(len(lines), count)

    def test_a_dns_that_does_not_answer_is_asked_again(self) -> None:
        ours, _ = self.ours(), self.there()
        self.send(ours)
        self.resolver.fail("_smtp._tls.there.example")
        self.assertEqual(self.mails(ours, 30), [])
        self.resolver.mend("_smtp._tls.there.example")
        self.assertEqual(len(self.mails(ours, 8)), 1)
