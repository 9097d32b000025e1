"""The machines of a queue as people see them: in the status, on the page, and as troubles."""

from __future__ import annotations

import json
from typing import Any

from attrs import evolve

from tests.tidy import TidyTestCase
from twisted_mta.admin.merging import gauges
from twisted_mta.admin.status import Status
from twisted_mta.admin.web.page import html
from twisted_mta.cli.status import facts, tables
from twisted_mta.cluster.machines import ClusterStatus, Machine
from twisted_mta.telemetry.metrics import table

NOW = 1_800_000_000.0
A = Machine(
    id="a" * 32,
    hostname="mx1.example",
    version="1.0",
    workers=2,
    settings="same",
    since=NOW - 7200,
    silent=1.0,
    ahead=0.2,
    alive=True,
    leases=3,
)
B = evolve(A, id="b" * 32, hostname="mx2.<example>", leases=0)
BOTH = ClusterStatus(own=A.id, seen=2.0, machines=(A, B), limits="fine", problem="")


def status(cluster: ClusterStatus) -> Status:
    return Status(
        hostname="mx1.example",
        version="1.0",
        started_at=NOW - 7200,
        now=NOW,
        queue={},
        counters={},
        troubles=tuple(cluster.troubles()),
        cluster=cluster,
    )


class Troubles(TidyTestCase):
    def texts(self, cluster: ClusterStatus) -> list[str]:
        return [each.text for each in cluster.troubles()]

    def test_there_are_none_as_long_as_all_is_well(self) -> None:
        self.assertEqual(self.texts(BOTH), [])

    def test_a_silent_machine_a_wrong_clock_and_other_settings_are_troubles(self) -> None:
        silent = evolve(B, alive=False, silent=40.0)
        (text,) = self.texts(evolve(BOTH, machines=(A, silent)))
        self.assertEqual(
            text,
            "mx2.<example> (bbbbbbbb) has been silent for 42 s; the others deliver its mail",
        )
        late, early = evolve(B, ahead=-60.0), evolve(B, ahead=60.0)
        self.assertIn("60 s behind that of", self.texts(evolve(BOTH, machines=(A, late)))[0])
        self.assertIn("60 s ahead of that of", self.texts(evolve(BOTH, machines=(A, early)))[0])
        other = evolve(B, settings="other")
        self.assertIn("other limits", self.texts(evolve(BOTH, machines=(A, other)))[0])

    def test_limits_without_the_database_are_a_trouble(self) -> None:
        (trouble,) = evolve(BOTH, problem="connection refused").troubles()
        self.assertIn("goes on with its share of them: connection refused", trouble.text)
        self.assertEqual((trouble.severity, trouble.stops), ("warning", False))


class Shown(TidyTestCase):
    def test_the_tool_shows_each_machine(self) -> None:
        answer: dict[str, Any] = json.loads(json.dumps(status(BOTH).to_json()))
        self.assertIn(("limits of all machines", "fine"), list(facts(answer)))
        rows = {title: rows for title, _, rows in tables(answer, brief=True)}["Machines"]
        self.assertEqual(
            list(rows),
            [
                ("mx1.example", "aaaaaaaa", "alive, this one", "2 h", "1.0", "2", "3"),
                ("mx2.<example>", "bbbbbbbb", "alive", "2 h", "1.0", "2", "0"),
            ],
        )

    def test_the_page_shows_each_machine(self) -> None:
        silent = evolve(B, alive=False, silent=40.0)
        page = html(status(evolve(BOTH, machines=(A, silent)))).decode()
        self.assertIn("mx2.&lt;example&gt;", page)
        self.assertIn("silent for 42 s", page)
        self.assertNotIn("<example>", page)

    def test_they_are_counted(self) -> None:
        silent = evolve(B, alive=False, silent=40.0)
        numbers = gauges(status(evolve(BOTH, machines=(A, silent))))
        self.assertEqual(
            [numbers.total(table.MACHINES, state=each) for each in ("alive", "silent")], [1, 1]
        )

    def test_a_machine_without_others_shows_nothing_of_it(self) -> None:
        alone = evolve(status(BOTH), cluster=None, troubles=())
        self.assertNotIn("Machines", html(alone).decode())
        answer = alone.to_json()
        self.assertIsNone(answer["cluster"])
        self.assertNotIn("Machines", [title for title, _, _ in tables(answer, brief=True)])
