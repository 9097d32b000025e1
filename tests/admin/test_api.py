"""The API over HTTP: status, metrics, explanations, TLS hosts and actions."""

import json
from collections.abc import Mapping
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from tests.admin.agents import ScriptedAgents
from tests.tidy import TidyTestCase
from twisted_mta.admin.api import Action, Actions, Admin
from twisted_mta.admin.http import Request, Response
from twisted_mta.admin.overview import Installation, Overview
from twisted_mta.admin.questions import PendingReport
from twisted_mta.admin.report import ProcessReport
from twisted_mta.admin.status import Status
from twisted_mta.telemetry.metrics import Metrics, table

NOW = 1_790_000_000.0


def report(number: int | None = None, *, accepted: int = 0, **other: Any) -> ProcessReport:
    metrics = Metrics()
    metrics.count(table.MESSAGES_ACCEPTED, by=accepted)
    values: dict[str, Any] = {
        "number": number,
        "pid": 100 + (number or 0),
        "state": "ready",
        "started_at": NOW - 60,
        "queue": {"messages": 1},
        "metrics": metrics.snapshot(),
        **other,
    }
    return ProcessReport(**values)


class AdminTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.agents = ScriptedAgents()
        self.agents.given_reports = [report()]

    def overview(self, **other: Any) -> Overview:
        return Overview(
            Installation(hostname="mail.example", version="1.2.3", **other),
            reports=self.agents.reports,
            clock=self.clock,
            wall_time=lambda: NOW,
        )

    def admin(self, actions: dict[str, Action] | None = None, **other: Any) -> Admin:
        return Admin(
            agents=self.agents,
            overview=self.overview(**other),
            actions=Actions(by_name=actions or {}),
            version="1.2.3",
            clock=self.clock,
        )

    def ask(self, admin: Admin, path: str, method: str = "GET", **other: Any) -> Response:
        answer = admin.answer(Request(method=method, path=path, **other))
        return self.successResultOf(answer) if isinstance(answer, Deferred) else answer

    def json_of(self, admin: Admin, path: str, method: str = "GET") -> tuple[int, Any]:
        answer = self.ask(admin, path, method)
        self.assertEqual(answer.content_type, "application/json")
        return answer.code, json.loads(answer.body)


class Explaining(AdminTestCase):
    def test_explain_decodes_the_address_and_passes_it_on(self) -> None:
        self.agents.answers["explain"] = lambda wanted: {"mailbox": wanted["address"]}
        path = "/v1/explain/%22a%20b%2Fc%22@d.example"
        answer = self.ask(self.admin(), path, query="client=192.0.2.1&helo=mx")
        facts = {"mailbox": '"a b/c"@d.example', "unready": "", "troubles": []}
        self.assertEqual(json.loads(answer.body), {"version": 1, **facts})
        query = {
            "address": '"a b/c"@d.example',
            "client": "192.0.2.1",
            "sender": None,
            "helo": "mx",
        }
        self.assertEqual(self.agents.asked, [("explain", {"wanted": query})])

    def test_explain_answers_404_for_unknown_ids_and_400_for_other_texts(self) -> None:
        self.agents.answers["explain"] = lambda wanted: None
        admin = self.admin()
        self.assertEqual(self.json_of(admin, "/v1/explain/1M81ARNJN5BHJ")[0], 404)
        code, facts = self.json_of(admin, "/v1/explain/x%1b")
        self.assertEqual(code, 400)
        self.assertIn("neither a queue id nor an address: x\\x1b; ", facts["error"])
        self.assertEqual(self.json_of(admin, "/v1/explain/x", "POST")[0], 405)

    def test_explain_answers_503_after_28_seconds_of_silence(self) -> None:
        self.agents.answers["explain"] = lambda wanted: Deferred()
        answer = self.admin().answer(Request(method="GET", path="/v1/explain/a@b.example"))
        assert isinstance(answer, Deferred)
        self.clock.advance(28)
        self.assertEqual(self.successResultOf(answer).code, 503)


class Reading(AdminTestCase):
    def test_the_status_is_versioned(self) -> None:
        admin = self.admin(listeners=lambda: ["smtp tcp 127.0.0.1:25"], wanted_listeners=1)
        code, facts = self.json_of(admin, "/v1/status")
        self.assertEqual((code, facts["version"]), (200, 1))
        self.assertEqual(facts["listeners"], ["smtp tcp 127.0.0.1:25"])
        self.assertEqual((facts["hostname"], facts["ready"]), ("mail.example", True))

    def test_metrics_are_given_raw_and_for_prometheus(self) -> None:
        self.agents.given_reports = [report(0, accepted=2), report(1, accepted=3)]
        own = Metrics()
        own.count(table.WORKER_RESTARTS)
        admin = self.admin(metrics=own)
        _, facts = self.json_of(admin, "/v1/metrics")
        self.assertEqual(facts["version"], 1)
        accepted = [{"labels": {}, "value": 5}]
        self.assertEqual(facts["metrics"]["twisted_mta_messages_accepted_total"], accepted)
        answer = self.ask(admin, "/metrics")
        self.assertTrue(answer.content_type.startswith("text/plain; version=0.0.4"))
        for line in (
            b"twisted_mta_messages_accepted_total 5.0\n",
            b"twisted_mta_worker_restarts_total 1.0\n",
            b"twisted_mta_queue_messages 2.0\n",
            b'twisted_mta_build_info{version="1.2.3"} 1.0\n',
        ):
            self.assertIn(line, answer.body)
        answer = self.ask(admin, "/metrics", accept="application/openmetrics-text")
        self.assertTrue(answer.content_type.startswith("application/openmetrics-text"))

    def test_other_paths_are_404_with_a_list_of_paths(self) -> None:
        admin = self.admin({"reload": list})
        for path in ("/", "/v1/", "/v1/reload/", "/v2/status", "/v1/stop"):
            code, facts = self.json_of(admin, path)
            self.assertEqual(code, 404)
            self.assertIn("GET /v1/status", facts["error"])
            self.assertIn("POST /v1/reload", facts["error"])

    def test_the_hosts_that_tls_was_used_with_are_listed(self) -> None:
        entry = {"host": "mx.example", "port": 25, "first": 1.0, "last": 2.0, "missing": None}
        last = {"host": "mx.example", "port": 25, "at": 2.0}
        self.agents.answers["tls"] = lambda domain: [entry]
        self.agents.answers["tls_handshakes"] = lambda: [last, {**last, "port": 26}]
        admin = self.admin()
        shown = {**entry, "handshake": last}
        self.assertEqual(self.json_of(admin, "/v1/tls"), (200, {"version": 1, "hosts": [shown]}))
        self.assertEqual(self.json_of(admin, "/v1/tls/example", "POST")[0], 405)
        self.assertEqual(self.json_of(admin, "/v1/tls/example/report", "POST")[0], 404)

    def test_the_tls_of_a_domain_is_that_of_its_targets(self) -> None:
        self.agents.numbers = (3, 1)
        self.agents.answers.update(tls=lambda domain: [], tls_handshakes=lambda: [{**last}])
        last = {"host": "mx.example", "port": 25, "at": 2.0}

        def answer(shard: int, name: str, arguments: Mapping[str, Any]) -> Any:
            asked.append((shard, name, arguments))
            return {"domain": "example", "targets": [{"host": "mx.example", "port": 25}]}

        asked: list[Any] = []
        self.agents.answer_shard = answer
        admin = self.admin()
        for path, method, probe in (
            ("/v1/tls/example", "GET", False),
            ("/v1/tls/example/probe", "POST", True),
        ):
            code, facts = self.json_of(admin, path, method)
            self.assertEqual(code, 200)
            self.assertEqual(facts["domain"]["targets"][0]["handshake"], last)
            self.assertEqual(asked.pop(), (1, "tls_domain", {"domain": "example", "probe": probe}))

    def test_a_host_is_forgotten_by_all_processes(self) -> None:
        ports = [25]
        self.agents.answers["tls_forget"] = lambda host: ports
        admin = self.admin()
        path = "/v1/tls/mx.example/forget"
        self.assertEqual(
            self.json_of(admin, path, "POST"),
            (200, {"version": 1, "host": "mx.example", "ports": [25]}),
        )
        self.assertEqual(self.agents.asked[-1], ("tls_forget", {"host": "mx.example"}))
        ports = []
        self.assertEqual(self.json_of(admin, path, "POST")[0], 404)
        self.assertEqual(self.json_of(admin, path)[0], 405)

    def test_other_methods_are_not_allowed(self) -> None:
        admin = self.admin({"reload": lambda: self.fail("it was done")})
        for path, method, allowed in (
            ("/v1/status", "POST", "GET, HEAD"),
            ("/metrics", "DELETE", "GET, HEAD"),
            ("/v1/reload", "GET", "POST"),
            ("/v1/reload", "HEAD", "POST"),
        ):
            answer = self.ask(admin, path, method)
            self.assertEqual((answer.code, answer.headers["Allow"]), (405, allowed))
            self.assertIn(allowed, json.loads(answer.body)["error"])

    def test_callers_at_one_time_share_one_answer(self) -> None:
        waiting: Deferred[ProcessReport] = Deferred()
        self.agents.given_reports = [PendingReport(waiting, report(0))]
        overview = self.overview()
        statuses = [overview.status() for _ in range(5)]
        self.assertEqual(self.agents.reports_asked, 1)
        waiting.callback(report(0))
        for status in statuses:
            self.assertEqual(self.successResultOf(status).state, "ready")
        self.agents.given_reports = [report(0)]
        self.successResultOf(overview.status())
        self.assertEqual(self.agents.reports_asked, 2)


class SilentWorkers(AdminTestCase):
    """Workers that hang, end and start again."""

    def state(self, overview: Overview) -> Status:
        asked = overview.status()
        self.assertNoResult(asked)
        self.clock.advance(1.5)
        return self.successResultOf(asked)

    def test_a_worker_that_hangs_is_shown_as_not_answering_after_a_second_and_a_half(self) -> None:
        never: Deferred[ProcessReport] = Deferred()
        self.agents.given_reports = [report(0), PendingReport(never, report(1, restarts=2))]
        status = self.state(self.overview())
        self.assertEqual(
            [(each.number, each.state) for each in status.processes],
            [(0, "ready"), (1, "not answering")],
        )
        self.assertEqual(status.processes[1].restarts, 2)
        self.assertEqual(status.unready, "")
        never.callback(report(1))  # too late

    def test_a_worker_that_still_hangs_gets_a_quarter_of_a_second(self) -> None:
        overview = self.overview()
        self.agents.given_reports = [PendingReport(Deferred(), report(0))]
        self.state(overview)
        self.agents.given_reports = [PendingReport(Deferred(), report(0))]
        asked = overview.status()
        self.assertNoResult(asked)
        self.clock.advance(0.25)
        self.assertEqual(self.successResultOf(asked).state, "not answering")
        again: Deferred[ProcessReport] = Deferred()
        self.agents.given_reports = [PendingReport(again, report(0))]
        asked = overview.status()
        again.callback(report(0))
        self.assertEqual(self.successResultOf(asked).state, "ready")

    def test_a_worker_whose_pipe_breaks_is_shown_as_not_answering_at_once(self) -> None:
        self.agents.given_reports = [PendingReport(fail(EOFError()), report(0))]
        status = self.successResultOf(self.overview().status())
        self.assertEqual(status.processes[0].state, "not answering")

    def test_the_last_report_of_a_silent_worker_still_counts(self) -> None:
        overview = self.overview()
        self.agents.given_reports = [report(0, accepted=7)]
        self.successResultOf(overview.status())
        for _ in range(2):
            self.agents.given_reports = [
                PendingReport(
                    Deferred(), ProcessReport(number=0, pid=100, state="ready", started_at=0.0)
                )
            ]
            status = self.state(overview)
            self.assertEqual(status.counters["accepted"], 7)
            self.assertEqual(status.queue, {"messages": 1})
        self.agents.given_reports = [report(0, accepted=9)]
        self.assertEqual(self.successResultOf(overview.status()).counters["accepted"], 9)

    def test_the_queue_of_a_worker_that_has_ended_still_counts(self) -> None:
        overview = self.overview()
        self.agents.given_reports = [report(0), report(1, queue={"messages": 20})]
        self.successResultOf(overview.status())
        new = report(1, pid=200, state="starting", queue={}, restarts=1)
        for gone in (report(1, pid=0, state="ended", queue={}), new):
            self.agents.given_reports = [report(0), gone]
            status = self.successResultOf(overview.status())
            self.assertEqual(status.queue, {"messages": 21})
            self.assertIn("its part of the queue is that of 2026-09-21", status.incomplete[0])
        self.agents.given_reports = [PendingReport(fail(EOFError()), new), report(0)]
        self.assertEqual(self.successResultOf(overview.status()).queue, {"messages": 21})
        self.agents.given_reports = [report(0), report(1, pid=200, queue={"messages": 19})]
        status = self.successResultOf(overview.status())
        self.assertEqual((status.queue, status.incomplete), ({"messages": 20}, ()))

    def test_a_queue_that_was_never_counted_is_said_to_be_missing(self) -> None:
        self.agents.given_reports = [report(0), report(1, state="starting", queue={})]
        status = self.successResultOf(self.overview().status())
        self.assertEqual(status.queue, {"messages": 1})
        self.assertEqual(
            status.incomplete, ("worker 1 is starting: its part of the queue is not counted",)
        )

    def test_no_counter_goes_backwards_when_a_worker_ends(self) -> None:
        overview = self.overview()
        seen = []
        for reports in (
            [report(0, accepted=7), report(1, accepted=5)],
            [report(1, accepted=6)],
            [report(0, pid=200, started_at=NOW, accepted=1, restarts=1), report(1, accepted=6)],
        ):
            self.agents.given_reports = reports
            seen.append(self.successResultOf(overview.status()).counters["accepted"])
        self.assertEqual(seen, [12, 13, 14])


class Acting(AdminTestCase):
    def test_an_action_returns_lines_that_say_what_was_done(self) -> None:
        done: Deferred[list[str]] = Deferred()
        admin = self.admin({"reload": lambda: done, "reopen-logs": lambda: None})
        answer = admin.answer(Request(method="POST", path="/v1/reload"))
        assert isinstance(answer, Deferred)
        self.assertNoResult(answer)
        done.callback(["aliases: 3 more"])
        self.assertEqual(
            json.loads(self.successResultOf(answer).body),
            {"version": 1, "action": "reload", "lines": ["aliases: 3 more"]},
        )
        code, facts = self.json_of(admin, "/v1/reopen-logs", "POST")
        self.assertEqual((code, facts["lines"]), (200, []))

    def test_a_refused_action_says_why_on_one_printable_line(self) -> None:
        def refuse() -> None:
            raise ValueError("routes: \x1b[31mno\nsuch")

        code, facts = self.json_of(self.admin({"reload": refuse}), "/v1/reload", "POST")
        self.assertEqual(code, 409)
        self.assertEqual(facts, {"error": "routes: \\x1b[31mno\\nsuch"})

    def test_an_unexpected_error_of_an_action_is_logged(self) -> None:
        code, _ = self.json_of(self.admin({"reload": lambda: 1 / 0}), "/v1/reload", "POST")
        self.assertEqual(code, 409)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_the_time_of_the_start_is_the_parents(self) -> None:
        self.agents.given_reports = [evolve(report(0), started_at=NOW - 5)]
        status = self.successResultOf(self.overview(started_at=lambda: NOW - 500).status())
        self.assertEqual(status.started_at, NOW - 500)
