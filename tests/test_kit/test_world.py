"""A world of agents: its time, its faults, and the same run again."""

from __future__ import annotations

import errno
from typing import Any

from tests.tidy import TidyTestCase
from twisted_mta.mail.events import Bounced
from twisted_mta.queue.store.contract import StoreError
from twisted_mta.testing import MemoryMTA, World
from twisted_mta.testing.world_network import Cut

CONTENT = b"Subject: Hi\r\n\r\nHello\r\n"


class InAWorld(TidyTestCase):
    def setUp(self) -> None:
        self.world = self.enterContext(World(seed=5))
        self.agent = self.world.agent("near.example")
        self.hop = self.world.hop("far.example")

    def submit(self, recipient: str = "bob@far.example", agent: MemoryMTA | None = None) -> None:
        mta = (agent or self.agent).mta
        submitted = mta.submit(CONTENT, sender="ann@near.example", recipients=[recipient])
        submitted.addErrback(lambda failure: None)


class Time(InAWorld):
    def test_octets_connections_and_names_take_their_time(self) -> None:
        self.world.latency = (1.0, 1.0)
        self.submit()
        # Two lookups, the connection, the greeting, EHLO and its reply, MAIL … DATA and their
        # replies, the content: one second each at least.
        self.world.advance(7.5)
        self.assertEqual(self.hop.received, [])
        self.world.advance(4)
        self.assertEqual(len(self.hop.received), 1)

    def test_a_commit_takes_its_time_and_so_does_its_answer(self) -> None:
        self.world.commit_time = (2.0, 2.0)
        answers: list[object] = []
        submitted = self.agent.mta.submit(CONTENT, sender="", recipients=["bob@far.example"])
        submitted.addCallback(answers.append)
        self.world.advance(1.9)
        self.assertEqual(answers, [])
        self.world.advance(2.2)
        self.assertEqual(len(answers), 1)

    def test_the_wall_clock_of_one_agent_is_set(self) -> None:
        other = self.world.agent("other.example")
        self.world.step_clock(self.agent, -86_400)
        self.assertEqual(other.wall_time() - self.agent.wall_time(), 86_400)

    def test_no_time_until_something_is_an_error_that_names_it(self) -> None:
        self.assertRaises(TimeoutError, self.world.advance_until, lambda: False, 10)


class Crashes(InAWorld):
    def test_an_agent_starts_again_and_delivers(self) -> None:
        self.hop.defer(1)
        self.submit()
        self.world.advance(1)
        self.world.crash(self.agent)
        self.world.advance(hours=1)
        self.assertEqual(len(self.hop.received), 1)

    def test_the_power_goes_off_at_a_write_of_a_mailbox(self) -> None:
        self.world.crash_at_write(self.agent, 14)
        self.submit("ann@near.example")
        self.world.advance(4)
        self.assertFalse(self.agent.is_running)
        self.world.advance(60)
        self.assertEqual(len(self.agent.inbox), 1)

    def test_a_transaction_is_durable_or_not_as_the_power_goes_off(self) -> None:
        for durable in (False, True):
            self.hop.received.clear()
            self.world.crash_at_commit(self.agent, 0, durable=durable)
            self.submit()
            self.world.advance(60)
            self.assertEqual(len(self.hop.received), int(durable))

    def test_a_dead_agent_hears_nothing(self) -> None:
        self.world.latency = (1.0, 1.0)
        self.submit()
        self.world.advance(0.5)  # a lookup is under way
        self.world.crash(self.agent)
        self.world.down_time = 1000.0
        self.world.advance(500)
        self.assertEqual(self.hop.connections, 0)

    def test_an_agent_that_stops_is_started_again(self) -> None:
        before = self.agent.mta
        self.world.restart(self.agent)
        self.world.advance(60)
        self.assertIsNot(self.agent.mta, before)
        self.submit()
        self.world.advance(1)
        self.assertEqual(len(self.hop.received), 1)

    def test_an_agent_that_cannot_start_is_started_until_it_can(self) -> None:
        self.world.crash(self.agent)
        for _ in range(3):
            self.agent.files.fail_next("sync_directory", OSError(errno.EIO, "broken"))
        self.world.advance(1)
        self.agent.files.fail_next("sync_directory", OSError(errno.EIO, "broken"))
        self.world.advance(30)
        self.assertTrue(self.agent.is_running)
        self.assertTrue(any("cannot start" in line for line in self.world.transcript))

    def test_a_failed_transaction_is_in_doubt_or_not(self) -> None:
        for durable in (False, True):
            self.hop.received.clear()
            self.world.fail_commit(self.agent, 0, durable=durable)
            client = self.agent.connect()
            reply = client.mail(CONTENT, "bob@far.example")
            self.assertEqual(reply[0][:3], "451")
            self.world.advance(hours=1)
            self.assertEqual(self.hop.received, [])  # the client was told to try again
            client.say("QUIT")
            self.assertEqual(len(self.flushLoggedErrors(StoreError)), 1)


class Connections(InAWorld):
    def test_a_reply_that_is_lost_makes_a_second_copy(self) -> None:
        self.world.network.cut_next("192.0.2.1", Cut("reply"))
        self.submit()
        self.world.advance(hours=1)
        self.assertEqual(len(self.hop.received), 2)

    def test_a_dot_that_is_lost_makes_none(self) -> None:
        self.world.network.cut_next("192.0.2.1", Cut("dot"))
        self.submit()
        self.world.advance(hours=1)
        self.assertEqual((self.hop.connections, len(self.hop.received)), (2, 1))

    def test_a_connection_breaks_at_an_octet(self) -> None:
        self.world.network.cut_next("192.0.2.1", Cut("octets", 30))
        self.submit()
        self.world.advance(hours=1)
        self.assertEqual((self.hop.connections, len(self.hop.received)), (2, 1))

    def test_a_part_of_all_connections_breaks(self) -> None:
        self.world.network.loss = 1.0
        for _ in range(8):
            self.submit()
            self.world.advance(1)
        self.world.network.mend()
        self.world.advance(hours=1)
        self.assertTrue(any(line.endswith("cut") for line in self.world.transcript))
        self.assertTrue(self.hop.received)

    def test_a_host_is_out_of_reach_and_everything_arrives_later(self) -> None:
        self.world.latency = (0.5, 0.5)
        self.submit()
        self.world.advance(2)  # connected
        self.world.network.part("192.0.2.1")
        self.world.advance(60)
        self.assertEqual((self.hop.connections, self.hop.received), (1, []))
        self.world.network.rejoin("192.0.2.1")
        self.world.advance(10)
        self.assertEqual(len(self.hop.received), 1)

    def test_a_crash_of_the_client_is_noticed_or_not(self) -> None:
        for silent in (0.0, 1.0):
            self.world.network.silent_crashes = silent
            other = self.world.agent(f"other{silent:.0f}.example")
            self.hop.hang(1)
            self.submit(agent=other)
            self.world.advance(2)
            self.world.crash(other)
            self.world.advance(1)
            open_ends = [ends[1] for ends in self.world.network.connections if ends[1].connected]
            self.assertEqual(len(open_ends), int(silent))


class Names(InAWorld):
    def test_a_name_is_denied_by_mistake(self) -> None:
        self.world.resolver.deny("far.example")
        self.submit()
        self.world.advance(1)
        self.assertTrue(any(isinstance(each, Bounced) for each in self.agent.events))

    def test_all_faults_end(self) -> None:
        self.world.resolver.fail("far.example")
        self.hop.defer()
        self.agent.files.capacity = 0
        self.world.crash(self.agent)
        self.world.mend()
        self.world.advance(10)
        self.submit()
        self.world.advance(1)
        self.assertEqual(len(self.hop.received), 1)


class Replay(TidyTestCase):
    def run_once(self, seed: int, **settings: Any) -> tuple[str, list[str]]:
        with World(seed=seed, **settings) as world:
            agents = [world.agent(f"{name}.example") for name in "ab"]
            world.hop("far.example").defer(2).then_accept()
            world.latency, world.commit_time = (0.01, 0.3), (0.0, 0.05)
            world.network.loss = 0.5
            world.at(1.0, world.crash, agents[0])
            for agent in agents:
                agent.mta.submit(
                    CONTENT,
                    sender="ann@a.example",
                    recipients=["bob@far.example", "x@a.example", "y@b.example"],
                )
            world.advance(hours=2)
            return world.digest(), world.transcript

    def test_the_same_seed_gives_the_same_run(self) -> None:
        self.assertEqual(self.run_once(3), self.run_once(3))

    def test_another_seed_gives_another_run(self) -> None:
        self.assertNotEqual(self.run_once(3)[0], self.run_once(4)[0])

    def test_agents_speak_tls_where_that_is_asked_for(self) -> None:
        with World(tls=True) as world:
            agent = world.agent("near.example")
            hop = world.hop("far.example")
            agent.submit(CONTENT, sender="", recipients=["bob@far.example"])
            world.advance(1)
            self.assertIn("STARTTLS", hop.commands)
