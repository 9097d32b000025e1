"""The program does what `explain` has said, in random configurations."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.tidy import TidyTestCase
from twisted_mta.config import Destination

from .world import SENDER, World

DOMAINS = ("a.example", "b.example", "c.b.example", "nowhere.example")
HOSTS = {
    "mx1.host": ("192.0.2.1",),
    "mx2.host": ("192.0.2.2", "2001:db8::2"),
    "mx3.host": ("192.0.2.3",),
}
ADDRESSES = [address for addresses in HOSTS.values() for address in addresses]
CONTENT = b"Subject: Hi\r\n\r\nHi.\r\n"

urls = st.sampled_from(
    (
        "smtp://mx1.host",
        "smtp://mx3.host,mx1.host",
        "smtp://mx2.host:2525",
        "discard:",
        "maildir:",
        "error:5.7.1 No",
        "error:4.7.1 Not now",
    )
)
routes = st.dictionaries(st.sampled_from((*DOMAINS, ".b.example", "*")), urls, max_size=3)
exchangers = st.dictionaries(
    st.sampled_from(DOMAINS[:3]),
    st.lists(st.sampled_from(tuple(HOSTS)), min_size=1, max_size=3, unique=True),
    max_size=3,
)
names = st.sampled_from(("ann", "bob", "cat", "dan"))
targets = st.one_of(names, st.sampled_from([f"x@{domain}" for domain in DOMAINS]))
aliases = st.dictionaries(names, st.lists(targets, min_size=1, max_size=3), max_size=4)
destinations = st.dictionaries(
    st.sampled_from((*DOMAINS, ".b.example", "*", "mx1.host", "mx2.host")),
    st.fixed_dictionaries(
        {},
        optional={
            "tls": st.sampled_from(("none", "may", "encrypt")),
            "tls_memory": st.sampled_from(("alarm", "require")),
            "retry_minimum": st.sampled_from((30.0, 900.0)),
        },
    ),
    max_size=3,
)
servers = st.fixed_dictionaries(
    {
        address: st.one_of(
            st.none(),
            st.fixed_dictionaries(
                {
                    "offers_tls": st.booleans(),
                    "answer": st.sampled_from(
                        (b"250 2.1.5 Ok\r\n", b"451 4.7.1 Later\r\n", b"550 5.1.1 Nobody\r\n")
                    ),
                }
            ),
        )
        for address in ADDRESSES
    }
)
recipients = st.one_of(
    names.map(lambda name: f"{name}@localhost"),
    st.sampled_from([f"x@{domain}" for domain in DOMAINS]),
)
pauses = st.sampled_from((0.0, 3.0, 20.0, 400.0, 4000.0))


def place(address: str, target: dict[str, Any]) -> tuple[str, int]:
    return address, target["port"]


class Predictions(TidyTestCase):
    def world(self, **drawn: Any) -> World:
        return World(
            self.mktemp(),
            local_domains=("localhost",),
            routes=tuple(drawn["routes"].items()),
            aliases="".join(f"{name}: {', '.join(to)}\n" for name, to in drawn["aliases"].items()),
            mail_exchangers={
                domain: [(10 * number, host) for number, host in enumerate(hosts, 1)]
                for domain, hosts in drawn["exchangers"].items()
            },
            addresses=HOSTS,
            destinations=tuple(
                Destination(domain=domain, **terms)
                for domain, terms in drawn["destinations"].items()
            ),
        )

    def place_servers(self, world: World, drawn: dict[str, Any]) -> None:
        for address, how in drawn.items():
            world.quit(address)
            if how is not None:
                port = 2525 if address in HOSTS["mx2.host"] else 25
                world.serve(address, port=port, **how)

    @settings(
        max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    @given(
        routes=routes,
        exchangers=exchangers,
        aliases=aliases,
        destinations=destinations,
        acts=st.lists(st.tuples(servers, pauses, recipients), min_size=1, max_size=4),
    )
    def test_explanations_come_true(self, acts: Any, **drawn: Any) -> None:
        world = self.world(**drawn)
        try:
            for placed, pause, recipient in acts:
                self.place_servers(world, placed)
                world.mta.advance(pause)
                world.forget()
                self.foretell(world, recipient)
        finally:
            world.stop()

    def foretell(self, world: World, recipient: str) -> None:
        """Ask, send, and compare; then ask of what is left, let time pass, and compare again."""
        facts = world.explain(recipient)
        self.assertEqual(world.reactor.dialled, [], "a question has nothing sent")
        answer = world.mta.submit_by_smtp(CONTENT, recipient, sender=SENDER)
        if facts["refused"]:
            event("refused")
            self.assertEqual(answer, facts["refused"])
            return
        self.assertTrue(answer.startswith("250 "), answer)
        found = re.search(r"\b([0-9A-Z]{13})\b", answer)
        assert found is not None, answer
        id = found[1]
        ways = {each["mailbox"]: each["way"] for each in facts["recipients"]}
        tried = {}
        for each in world.settled:
            if str(each["id"]) == id:
                tried[each["recipient"]] = each["next_hop"]
        expected = {
            mailbox: way["next_hop"] for mailbox, way in ways.items() if not self.is_suspended(way)
        }
        self.assertEqual(tried, expected)
        if len({way["next_hop"] for way in ways.values()}) == 1 and len(ways) == 1:
            (way,) = ways.values()
            self.compare_dialling(world, way)
        self.compare_next_attempt(world, id)

    def is_suspended(self, way: dict[str, Any]) -> bool:
        return any(each["suspended"] for each in way.get("standings", ()))

    def compare_dialling(self, world: World, way: dict[str, Any]) -> None:
        """Whom we connect to, in which order, and under which TLS."""
        dialled = world.reactor.dialled
        if "targets" not in way or self.is_suspended(way):
            self.assertEqual(dialled, [])
            return
        targets = [each for each in way["targets"] if not each["passed_over"]]
        open_ones = [each for each in targets if each["connection_open"]]
        if open_ones:
            event("a connection was open")
            self.assertIn(len(dialled), (0, 1, 2, 3, 4))
            return
        expected: list[tuple[str, int]] = []
        for target in targets:
            server = world.servers.get(target["address"])
            listens = server is not None and server.port is not None
            if listens and server is not None and server.port is not None:
                listens = server.port.port == target["port"]
            expected.append((target["address"], target["port"]))
            if not listens or server is None:
                continue
            level = target["tls"]["level"]
            if level == "encrypt" and not server.offers_tls:
                self.assertEqual(server.under_tls, [])
                continue
            event(f"TLS level {level}")
            self.assertEqual(server.under_tls, [level != "none" and server.offers_tls])
            break
        self.assertEqual(dialled, expected)

    def compare_next_attempt(self, world: World, id: str) -> None:
        """Nothing is tried before the time that is named, and something at that time."""
        facts = world.explain_id(id)
        if facts is None:
            return
        event("deferred")
        now = facts["now"]
        waiting = {each["mailbox"]: each for each in facts["recipients"]}
        for mailbox, each in waiting.items():
            kinds = [hold["kind"] for hold in each["holds"]]
            self.assertTrue(kinds, mailbox)
            self.assertGreater(each["next_attempt"], now, kinds)
        first = min(each["next_attempt"] for each in waiting.values())
        world.forget()
        world.mta.advance(first - now - 0.5)
        self.assertEqual([each for each in world.settled if str(each["id"]) == id], [])
        world.mta.advance(1.0)
        tried = [each["recipient"] for each in world.settled if str(each["id"]) == id]
        due = [
            mailbox for mailbox, each in waiting.items() if each["next_attempt"] <= first + 0.001
        ]
        if any(waiting[mailbox]["way"]["next_hop"] for mailbox in due):
            self.assertTrue(set(tried) & set(due) or world.reactor.dialled, (tried, due))
