"""Reports of processes, and the status that they are merged into."""

import json
from typing import Any

from attrs import evolve

from tests.tidy import TidyTestCase
from twisted_mta.admin.merging import gauges, merge
from twisted_mta.admin.report import (
    Connections,
    Destination,
    OperatorSuspensions,
    ProcessReport,
    RecentMessage,
    SuspendedByOperator,
    SuspendedHop,
    all_suspended,
)
from twisted_mta.admin.status import Status, short_duration
from twisted_mta.health.trouble import Trouble
from twisted_mta.telemetry.metrics import Metrics, table
from twisted_mta.webhooks.status import WebhookStatus

NOW = 1_790_000_000.0


DESTINATION: dict[str, Any] = {
    "domain": "dead.example",
    "recipients": 3,
    "deferred": 2,
    "held": 1,
    "since": NOW - 60,
    "reasons": {"dns": 2},
}


def recent(id: str, at: float) -> RecentMessage:
    return RecentMessage(
        id=id,
        received_at=at,
        reverse_path=None,
        recipients=("bob@localhost",),
        size=10,
        state="queued",
    )


def report(number: int | None = None, *, accepted: int = 0, **other: Any) -> ProcessReport:
    metrics = Metrics()
    metrics.count(table.MESSAGES_ACCEPTED, by=accepted)
    metrics.count(table.OUTCOMES, "smtp", "failed", "1")
    values: dict[str, Any] = {
        "number": number,
        "pid": 100 + (number or 0),
        "state": "ready",
        "started_at": NOW - 60,
        "queue": {"messages": 2, "deferred": 1},
        "connections": {"smtp tcp 127.0.0.1:25": Connections(1, 10)},
        "deliveries": 3,
        "metrics": metrics.snapshot(),
        "recent": (recent("A", NOW - 5),),
        "suspended": (suspended("smtp:dead.example"),),
        "destinations": (Destination(**DESTINATION),),
        **other,
    }
    return ProcessReport(**values)


def suspended(next_hop: str, seconds: float = 300.0, times: int = 1) -> SuspendedHop:
    return SuspendedHop(next_hop=next_hop, seconds=seconds, times=times, last="451 4.4.1 Refused")


def merged(*reports: ProcessReport, **other: Any) -> Status:
    return merge(reports, hostname="mail.example", version="1.2.3", now=NOW, **other)


class ReportAsJSON(TidyTestCase):
    def test_a_report_survives_json(self) -> None:
        for each in (report(), report(3, accepted=7, restarts=2, queue_open=False)):
            self.assertEqual(ProcessReport.from_json(json.loads(json.dumps(each.to_json()))), each)

    def test_json_of_another_shape_is_a_value_error(self) -> None:
        good = report().to_json()
        for change in (
            {"pid": None},
            {"state": "confused"},
            {"queue": []},
            {"connections": {"smtp": 3}},
            {"metrics": 3},
            {"recent": [{"id": "A"}]},
            {"suspended": [{"next_hop": "A"}]},
        ):
            self.assertRaises(ValueError, ProcessReport.from_json, {**good, **change})
        self.assertRaises(ValueError, ProcessReport.from_json, [])
        self.assertRaises(ValueError, ProcessReport.from_json, {})

    def test_a_report_is_of_bounded_size_however_long_replies_are(self) -> None:
        message = RecentMessage.shortened(
            id="A",
            received_at=NOW,
            reverse_path="a" * 10_000,
            recipients=["b" * 10_000] * 1000,
            size=1,
            state="deferred",
            last="451 " + "x" * 50_000,
        )
        self.assertEqual((len(message.recipients), message.more), (5, 995))
        full = report(recent=(message,) * 500)
        kept = ProcessReport.from_json(full.to_json())
        self.assertEqual(len(kept.recent), 50)
        self.assertLess(len(json.dumps(kept.to_json())), 200_000)


class Merging(TidyTestCase):
    def test_the_numbers_of_all_reports_are_added(self) -> None:
        status = merged(report(1, accepted=5), report(0, accepted=2))
        self.assertEqual(status.queue, {"messages": 4, "deferred": 2})
        self.assertEqual(status.connections, {"smtp tcp 127.0.0.1:25": Connections(2, 20)})
        self.assertEqual(status.deliveries, 6)
        self.assertEqual((status.counters["accepted"], status.counters["failed"]), (7, 2))
        self.assertEqual([each.number for each in status.processes], [0, 1])
        self.assertEqual([each.accepted for each in status.processes], [2, 5])
        self.assertEqual(status.processes[0].connections, Connections(1, 10))
        self.assertEqual(status.started_at, NOW - 60)
        self.assertEqual((status.state, status.unready, status.healthy), ("ready", "", True))

    def test_the_most_recent_messages_of_all_are_shown(self) -> None:
        one = tuple(recent(f"A{n}", NOW - 2 * n) for n in range(50))
        two = tuple(recent(f"B{n}", NOW - 2 * n - 1) for n in range(50))
        status = merged(report(0, recent=one), report(1, recent=two))
        self.assertEqual(len(status.recent), 50)
        self.assertEqual([each.id for each in status.recent[:4]], ["A0", "B0", "A1", "B1"])

    def test_a_next_hop_that_several_processes_suspend_is_shown_once(self) -> None:
        status = merged(
            report(0, suspended=(suspended("smtp:a", 10, 2), suspended("smtp:b", 10, 5))),
            report(1, suspended=(suspended("smtp:a", 20, 3),)),
        )
        self.assertEqual(
            [(each.next_hop, each.seconds, each.times) for each in status.suspended],
            [("smtp:b", 10, 5), ("smtp:a", 20, 3)],
        )
        many = tuple(suspended(f"smtp:{number}") for number in range(500))
        self.assertEqual(len(merged(report(suspended=many)).suspended), 50)
        self.assertEqual(status.to_json()["suspended"][0]["last"], "451 4.4.1 Refused")

    def test_a_webhook_of_several_processes_is_shown_once_with_sums_and_the_worst_state(
        self,
    ) -> None:
        good = WebhookStatus(
            key="a", url="https://a/", state="ready", posted=5, last_success=NOW - 1
        )
        bad = evolve(
            good,
            state="failing",
            waiting=3,
            failing_since=NOW - 9,
            error="no",
            last_success=NOW - 8,
        )
        other = evolve(good, key="b", url="https://b/")
        status = merged(report(0, webhooks=(good, other)), report(1, webhooks=(bad, other)))
        self.assertEqual(
            status.webhooks,
            (evolve(bad, posted=10, last_success=NOW - 1), evolve(other, posted=10)),
        )
        self.assertEqual(status.to_json()["webhooks"][0]["error"], "no")

    def test_all_destinations_that_the_operator_has_suspended_count(self) -> None:
        def one(worker: int) -> ProcessReport:
            return report(
                worker,
                suspended_by_operator=all_suspended(
                    SuspendedByOperator(
                        destination=f"d{number}.example", since=NOW - number, waiting=number
                    )
                    for number in range(1000)
                ),
                operator_suspensions=OperatorSuspensions(
                    number=1000, since=NOW - 999, waiting=499_500
                ),
            )

        status = merged(one(0), ProcessReport.from_json(one(1).to_json()))
        named = [each.destination for each in status.suspended_by_operator]
        self.assertEqual((len(named), named), (100, sorted(named)))
        self.assertIn("d999.example", named)  # most mail waits for it
        self.assertEqual(gauges(status).total(table.DESTINATIONS_SUSPENDED), 1000)
        [text] = [each.text for each in status.troubles if each.kind == "suspended_destinations"]
        self.assertTrue(text.startswith("1,000 destinations are suspended by the operator"), text)
        self.assertIn("999,000 recipients wait", text)
        self.assertIn("and others", text)

    def test_the_trouble_of_a_webhook_has_the_events_of_all_processes(self) -> None:
        good = WebhookStatus(key="a", url="https://a/", state="ready", waiting=2)
        bad = evolve(good, state="failing", waiting=1300, failures=3, error="it answers 502")
        status = merged(report(0, webhooks=(bad,)), report(1, webhooks=(good,)))
        self.assertEqual(
            _texts(status),
            ["the webhook https://a/ does not take events: it answers 502: 1,302 events wait"],
        )
        unsure = evolve(bad, failures=2)
        self.assertEqual(_texts(merged(report(0, webhooks=(unsure,)))), [])
        lost = evolve(good, dropped=3, expired=1, last_dropped=NOW - 3600)
        status = merged(report(0, webhooks=(lost,)), report(1, webhooks=(lost,)))
        self.assertEqual(
            _texts(status),
            [
                "8 events for the webhook https://a/ were dropped since the start: it has not"
                " taken them in time"
            ],
        )
        old = evolve(lost, last_dropped=NOW - 7 * 3600)
        self.assertEqual(_texts(merged(report(0, webhooks=(old,)))), [])

    def test_the_json_of_a_status_is_versioned_and_complete(self) -> None:
        facts = json.loads(json.dumps(merged(report(0), report(1)).to_json()))
        self.assertEqual((facts["version"], facts["program"]), (1, "1.2.3"))
        self.assertEqual((facts["ready"], facts["unready"]), (True, ""))
        self.assertEqual(facts["processes"][1]["connections"]["taken"], 10)
        self.assertEqual(facts["recent"][0]["recipients"], ["bob@localhost"])
        self.assertNotIn("metrics", facts)

    def test_gauges_have_the_numbers_of_the_status(self) -> None:
        silent = report(1, state="not answering")
        numbers = gauges(merged(report(0), silent))
        self.assertEqual(numbers.total(table.QUEUE_MESSAGES), 4)
        self.assertEqual(numbers.total(table.CONNECTIONS_OPEN, kind="smtp"), 2)
        self.assertEqual(numbers.total(table.DELIVERIES_ACTIVE), 6)
        self.assertEqual(numbers.total(table.PROCESSES, state="ready"), 1)
        self.assertEqual(numbers.total(table.PROCESSES, state="not answering"), 1)
        self.assertEqual(numbers.total(table.READY), 1)
        self.assertEqual(gauges(merged(report(0, state="draining"))).total(table.READY), 0)


class Readiness(TidyTestCase):
    def unready(self, *reports: ProcessReport, **other: Any) -> str:
        return merged(*reports, **other).unready

    def test_one_process_is_ready_when_its_state_is_and_its_queue_is_open(self) -> None:
        self.assertEqual(self.unready(report()), "")
        self.assertEqual(self.unready(report(state="starting")), "the process is starting")
        self.assertEqual(self.unready(report(state="draining")), "draining")
        self.assertEqual(
            self.unready(report(queue_open=False)), "the queue of the process is closed"
        )
        self.assertEqual(self.unready(), "no process")

    def test_every_listener_must_listen(self) -> None:
        two = ("smtp tcp 127.0.0.1:25", "web tcp 127.0.0.1:8025")
        self.assertEqual(self.unready(report(), listeners=two, wanted_listeners=2), "")
        self.assertEqual(
            self.unready(report(), listeners=two, wanted_listeners=3), "2 of 3 listeners listen"
        )

    def test_all_workers_must_have_started_once(self) -> None:
        self.assertEqual(
            self.unready(report(0), report(1, state="starting")), "worker 1 is starting"
        )

    def test_a_worker_that_has_ended_or_hangs_does_not_make_the_mta_unready(self) -> None:
        for gone in (
            report(1, state="starting", restarts=1),
            report(1, state="not answering"),
        ):
            self.assertEqual(self.unready(report(0), gone), "")
            self.assertNotEqual(self.unready(gone), "")

    def test_a_worker_with_a_closed_queue_makes_the_mta_unready(self) -> None:
        self.assertEqual(
            self.unready(report(0), report(1, queue_open=False)), "the queue of worker 1 is closed"
        )

    def test_a_trouble_that_stops_mail_makes_the_mta_unready(self) -> None:
        full = Trouble(kind="disk", text="12 octets are free", stops=True)
        expired = Trouble(kind="certificate", text="mx.pem has expired")
        status = merged(
            report(0, troubles=(expired, full), suspended=()),
            report(1, troubles=(evolve(full, text="11 octets are free"),), suspended=()),
        )
        self.assertEqual(status.unready, "12 octets are free")
        self.assertEqual(status.troubles, (full, expired))
        self.assertEqual(status.brief, "not ready: 12 octets are free, and 1 more")
        self.assertEqual(status.to_json()["troubles"][0]["kind"], "disk")
        numbers = gauges(status)
        self.assertEqual(numbers.total(table.READY), 0)
        self.assertEqual(numbers.total(table.TROUBLE, kind="disk"), 1)
        self.assertEqual(numbers.total(table.TROUBLE, kind="certificate"), 1)
        critical = {"kind": "certificate", "severity": "critical"}
        self.assertEqual(numbers.total(table.TROUBLE, **critical), 1)
        self.assertEqual(numbers.total(table.TROUBLE, kind="dns"), 0)

    def test_other_troubles_are_listed_and_leave_the_mta_ready(self) -> None:
        log = Trouble(kind="log", text="the log cannot be written")
        status = merged(report(0, suspended=()), troubles=[log])
        self.assertEqual((status.unready, status.troubles), ("", (log,)))
        self.assertEqual(status.brief, "ready: the log cannot be written")

    def test_mail_for_a_domain_is_that_of_all_processes(self) -> None:
        other = {**DESTINATION, "recipients": 4, "since": NOW - 99, "reasons": {"dns": 1, "tls": 1}}
        big = {**DESTINATION, "domain": "big.example", "recipients": 8}
        status = merged(
            report(0), report(1, destinations=(Destination(**other), Destination(**big)))
        )
        self.assertEqual(
            [each.domain for each in status.destinations], ["big.example", "dead.example"]
        )
        each = status.destinations[1]
        self.assertEqual((each.recipients, each.deferred, each.held), (7, 4, 2))
        self.assertEqual((each.since, each.reasons), (NOW - 99, {"dns": 3, "tls": 1}))

    def test_suspended_next_hops_are_named_with_the_mail_that_waits(self) -> None:
        routed = [evolve(suspended(f"lmtp:s{n}:24"), routed=True, waiting=n) for n in range(5)]
        status = merged(
            report(0, suspended=(suspended("smtp:x.example"), *routed[:3])),
            report(1, suspended=(routed[3], evolve(routed[4], last="421 \x1b" * 500), routed[3])),
        )
        routes, exchangers = status.troubles
        self.assertEqual((routes.severity, routes.stops), ("warning", False))
        self.assertTrue(
            routes.text.startswith("5 next hops are suspended, and 13 recipients wait for them: "),
            routes.text,
        )
        self.assertIn("; lmtp:s4:24 (4 recipients: 421 \\x1b", routes.text)
        self.assertLess(len(routes.text), 1000)
        self.assertTrue(routes.text.endswith("; and others"))
        self.assertEqual(exchangers.severity, "info")
        self.assertIn("smtp:x.example (0 recipients: 451 4.4.1 Refused)", exchangers.text)

    def test_a_listener_with_all_connections_in_use_is_a_trouble(self) -> None:
        name = "smtp tcp 127.0.0.1:25"
        half = report(0, connections={name: Connections(3, 9, 5)})
        other = report(1, connections={name: Connections(1, 9, 5)})
        self.assertEqual(self.unready(half, other), "")
        full = report(1, connections={name: Connections(2, 9, 5)})
        self.assertEqual(
            self.unready(half, full), f"all 5 connections of {name} are in use (max_connections)"
        )
        nearly = merged(report(0, connections={name: Connections(9, 9, 10)}, suspended=()))
        (trouble,) = nearly.troubles
        self.assertEqual(
            (trouble.severity, trouble.text),
            ("warning", f"9 of 10 connections of {name} are in use"),
        )

    def test_missing_workers_are_troubles(self) -> None:
        ended = report(1, state="ended", restarts=1, counted_at=NOW - 5, suspended=())
        new = report(2, state="starting", restarts=4, counted_at=0.0, suspended=())
        status = merged(report(0, suspended=()), ended, new)
        self.assertEqual(status.unready, "")
        self.assertEqual(
            [each.text for each in status.troubles],
            [
                "worker 1 has ended, and its successor is not there yet",
                "worker 2 is starting",
            ],
        )
        self.assertEqual(
            status.incomplete,
            (
                "worker 1 has ended, and its successor is not there yet: its part of the queue is"
                " that of 2026-09-21 14:13:15 UTC",
                "worker 2 is starting: its part of the queue is not counted",
            ),
        )

    def test_the_mta_is_healthy_while_a_queue_is_open(self) -> None:
        closed = report(0, queue_open=False)
        self.assertFalse(merged(closed).healthy)
        self.assertTrue(merged(closed, report(1)).healthy)
        self.assertTrue(merged(report(state="draining")).healthy)
        self.assertFalse(merged(evolve(report(), state="not answering")).healthy)
        self.assertFalse(merged().healthy)


class Words(TidyTestCase):
    def test_a_short_duration_has_two_units_at_most(self) -> None:
        for seconds, text in (
            (0, "0 s"),
            (59.6, "1 min"),
            (61, "1 min 1 s"),
            (3600, "1 h"),
            (86400 + 3600 * 2, "1 d 2 h"),
            (-3, "0 s"),
        ):
            self.assertEqual(short_duration(seconds), text)


def _texts(status: Status) -> list[str]:
    return [each.text for each in status.troubles if each.kind == "webhooks"]
