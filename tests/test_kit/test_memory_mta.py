"""An agent in memory: its time, its mailboxes, its crashes, and others beside it."""

from __future__ import annotations

import os
from datetime import timedelta

from tests.tidy import TidyTestCase
from twisted_mta.mail.events import Accepted, Deferred, Delivered, Expired
from twisted_mta.testing import MemoryMTA
from twisted_mta.testing.memory_mta import EPOCH
from twisted_mta.testing.network import MemoryNetwork, NeverQuiet
from twisted_mta.testing.reactor import MemoryReactor

CONTENT = b"Subject: Hi\r\n\r\nHello\r\n"


def submit(mta: MemoryMTA, recipient: str, sender: str = "ann@example.test") -> str:
    return mta.submit(CONTENT, sender=sender, recipients=[recipient]).id


class Clocks(TidyTestCase):
    def test_each_timer_on_the_way_fires_at_its_time(self) -> None:
        network, fired = MemoryNetwork(), list[float]()

        def fire(again: float = 0.0) -> None:
            fired.append(network.seconds())
            if again:
                network.callLater(again, fire)

        network.callLater(2.5, fire)
        network.callLater(1, fire, 3)
        moved = network.callLater(1, fire)
        moved.reset(7)
        network.callLater(11, fire).reset(6)
        network.advance(10)
        self.assertEqual(fired, [1, 2.5, 4, 6, 7])
        self.assertEqual(network.seconds(), 10)

    def test_timers_are_late_where_the_clock_jumps(self) -> None:
        network, fired = MemoryNetwork(), list[float]()
        for delay in (1, 2):
            network.callLater(delay, lambda: fired.append(network.seconds()))
        network.jump(10)
        self.assertEqual(fired, [10, 10])

    def test_a_timer_that_is_set_again_at_once_is_an_error_that_names_it(self) -> None:
        network = MemoryNetwork()

        def forever() -> None:
            network.callLater(0, forever)

        network.callLater(5, forever)
        error = self.assertRaises(NeverQuiet, network.advance, 10)
        self.assertRegex(str(error), "1,000,000 calls at 5 s on the clock.*forever")
        for call in network.getDelayedCalls():
            call.cancel()


class Time(TidyTestCase):
    def test_six_days_have_every_retry_a_delay_notice_and_a_bounce(self) -> None:
        with MemoryMTA(domain="example.test") as mta:
            hop = mta.hop().defer()
            submit(mta, "bob@there.example")
            mta.advance(days=6)
            deferred = [each for each in mta.events if isinstance(each, Deferred)]
            # An hour at most from one attempt to the next, for five days; the last one expires.
            self.assertEqual(len(deferred) + 1, hop.transactions)
            self.assertGreater(len(deferred), 120)
            self.assertEqual([each.at for each in deferred], sorted({each.at for each in deferred}))
            [expired] = [each for each in mta.events if isinstance(each, Expired)]
            self.assertAlmostEqual(expired.at, EPOCH + 5 * 86_400, delta=4 * 3600)
            delay, bounce = mta.inbox
            self.assertIn("delayed", delay.subject)
            self.assertIn("Action: failed", bounce.raw.decode())

    def test_an_idle_agent_wakes_up_about_twice_an_hour(self) -> None:
        with MemoryMTA(domain="example.test") as mta:
            submit(mta, "bob@example.test")
            mta.advance(hours=6)
            end = mta.reactor.seconds() + 10 * 86_400
            times = 0
            while mta.reactor.advance_to_next(end):
                times += 1
            self.assertLess(times, 10 * 24 * 3)

    def test_the_clock_moves_by_the_sum_of_all_that_is_said(self) -> None:
        mta = MemoryMTA(self.mktemp())
        mta.advance(5, minutes=1, hours=1, days=1)
        mta.advance(timedelta(hours=2))
        self.assertEqual(mta.reactor.seconds(), 86_400 + 3600 + 60 + 5 + 7200)
        self.assertEqual(mta.wall_time(), EPOCH + mta.reactor.seconds())

    def test_the_clock_stops_where_a_predicate_becomes_true(self) -> None:
        with MemoryMTA(domain="example.test") as mta:
            hop = mta.hop().defer(1)
            submit(mta, "bob@there.example")
            [mail] = mta.advance_until(lambda: hop.received)
            self.assertEqual(mail.to, ("bob@there.example",))
            delivered = mta.events[-1]
            assert isinstance(delivered, Delivered)
            self.assertEqual(mta.wall_time(), delivered.at)
            before = mta.wall_time()
            self.assertTrue(mta.advance_until(lambda: True))
            self.assertEqual(mta.wall_time(), before)
            error = self.assertRaises(
                TimeoutError, mta.advance_until, lambda: 0, timedelta(hours=1)
            )
            self.assertIn("within 3600 s", str(error))
            self.assertEqual(mta.wall_time(), before + 3600)


class Inbox(TidyTestCase):
    def test_a_sign_up_mail_has_its_link(self) -> None:
        with MemoryMTA(domain="example.test") as mta:
            mta.submit(
                b"Subject: Welcome\r\n\r\nConfirm: https://app.example/c?id=7.\r\n",
                sender="app@example.test",
                recipients=["ann@example.test"],
            )
            [mail] = mta.inbox
            self.assertEqual(mail.links, ("https://app.example/c?id=7",))
            self.assertEqual((mail.to, mail.sender), (("ann@example.test",), "app@example.test"))

    def test_mailboxes_are_read_together_and_one_by_one(self) -> None:
        with MemoryMTA(domain="example.test") as mta:
            boxes = ["bob", "ann", *["bob"] * 12]
            for number, box in enumerate(boxes):
                content = b"Subject: %d\r\n\r\n" % number
                mta.submit(content, sender="", recipients=[f"{box}@example.test"])
            numbers = [str(number) for number in range(len(boxes))]
            self.assertEqual([mail.subject for mail in mta.inbox], numbers)
            [mail] = mta.inbox_of("ANN+news@example.test")
            self.assertEqual((mail.subject, mail.sender), ("1", ""))
            self.assertEqual(mta.inbox_of("eve@example.test"), [])
            self.assertEqual(len(mta.mail("bob")), 13)

    def test_clients_come_from_any_address(self) -> None:
        with MemoryMTA(domain="example.test") as mta:
            stranger = mta.connect(source="203.0.113.9")
            stranger.say("MAIL FROM:<eve@there.example>")
            [refused] = stranger.say("RCPT TO:<bob@there.example>")
            self.assertRegex(refused, "^55. 5.7.1 ")
            [taken] = mta.connect(source="203.0.113.9").mail(CONTENT, "bob@example.test")
            self.assertRegex(taken, "^250 ")
            [mail] = mta.inbox
            self.assertIn("[203.0.113.9]", mail.header("Received") or "")


class Crashes(TidyTestCase):
    def test_acknowledged_mail_survives_a_crash(self) -> None:
        with MemoryMTA(domain="example.test") as mta:
            hop = mta.hop().defer()
            large = b"Subject: large\r\n\r\n" + b"x" * 998 + b"\r\n" * 100_000
            mta.submit(large, sender="", recipients=["bob@there.example"])
            submit(mta, "bob@there.example")
            hop.accept()
            mta.crash()
            mta.advance(days=1)
            self.assertEqual(hop.received, [])
            mta.start()
            mta.advance(hours=1)
            self.assertEqual({mail.subject for mail in hop.received}, {"large", "Hi"})
            self.assertEqual(
                {mail.raw.endswith(large[-50:]) for mail in hop.received}, {True, False}
            )

    def test_what_was_not_synced_is_lost(self) -> None:
        with MemoryMTA(domain="example.test") as mta:
            mta.files.syncs = False  # the disk only says so
            submit(mta, "bob@example.test")
            self.assertEqual(len(mta.inbox), 1)
            mta.crash()
            mta.files.syncs = True
            mta.start()
            mta.advance(days=1)
            self.assertEqual(mta.inbox, [])

    def test_mail_that_was_not_acknowledged_is_not_there_after_a_crash(self) -> None:
        with MemoryMTA(domain="example.test") as mta:
            client = mta.connect()
            client.say("MAIL FROM:<>", "RCPT TO:<bob@example.test>", "DATA")
            client.send(b"x" * 998 + b"\r\n" * 50_000)
            mta.crash()
            self.assertTrue(client.lost)
            self.assertRaises(ConnectionError, mta.connect)
            mta.restart()
            mta.advance(days=1)
            self.assertEqual(mta.inbox, [])
            self.assertEqual([each for each in mta.events if isinstance(each, Accepted)], [])

    def test_a_message_that_crashed_behind_its_dot_arrives_twice(self) -> None:
        with MemoryMTA(domain="example.test") as mta:
            hop = mta.hop().drop(1, at="dot").then_accept()
            submit(mta, "bob@there.example")
            self.assertEqual(len(hop.received), 1)
            mta.crash()
            mta.start()
            mta.advance(hours=1)
            self.assertEqual([mail.subject for mail in hop.received], ["Hi", "Hi"])

    def test_a_lookup_that_waits_in_a_crash_has_no_answer(self) -> None:
        with MemoryMTA(domain="example.test") as mta:
            hop = mta.hop()
            mta.resolver.hold("there.example")
            submit(mta, "bob@there.example")
            mta.crash()
            before = list(mta.events)
            mta.resolver.release("there.example")
            mta.advance(minutes=5)
            self.assertEqual((hop.connections, mta.events), (0, before))
            mta.start()
            mta.advance(minutes=5)
            self.assertEqual([each.to for each in hop.received], [("bob@there.example",)])

    def test_ids_after_a_crash_differ_from_those_before(self) -> None:
        with MemoryMTA(domain="example.test") as mta:
            mta.hop().defer()
            before = [submit(mta, "bob@there.example") for _ in range(50)]
            mta.crash()
            mta.start()
            after = [submit(mta, "bob@there.example") for _ in range(50)]
            self.assertEqual(len({*before, *after}), 100)

    def test_an_agent_stops_and_goes_on(self) -> None:
        with MemoryMTA(domain="example.test") as mta:
            mta.hop().defer(1)
            submit(mta, "bob@there.example")
            mta.restart()
            mta.advance(hours=1)
            self.assertEqual(len(mta.hop().received), 1)

    def test_another_agent_goes_on_with_the_disks_of_the_first(self) -> None:
        directory = self.mktemp()
        with MemoryMTA(directory, domain="example.test") as mta:
            mta.hop().defer()
            submit(mta, "bob@there.example")
            mta.crash()
        with MemoryMTA(directory, domain="example.test", files=mta.files) as again:
            again.advance(hours=1)  # its zone does not know the domain
            self.assertIn("bob@there.example", again.inbox[0].text)

    def test_the_temporary_directory_is_removed(self) -> None:
        with MemoryMTA(domain="example.test") as mta:
            directory = mta.mta.config.state_dir
            self.assertTrue(os.path.isdir(directory))
        self.assertFalse(os.path.exists(directory))


class Several(TidyTestCase):
    def test_agents_send_to_each_other_and_their_ids_differ(self) -> None:
        with (
            MemoryMTA(domain="one.test") as one,
            MemoryMTA(domain="two.test", beside=one) as two,
        ):
            ids = [submit(one, f"{number}@two.test", "ann@one.test") for number in range(30)]
            ids += [submit(two, f"{number}@one.test", "bob@two.test") for number in range(30)]
            one.advance(1)
            self.assertEqual(len(set(ids)), 60)
            self.assertEqual((len(one.inbox), len(two.inbox)), (30, 30))
            self.assertIn(
                "from mta.two.test (mta.two.test [198.51.100.2])", one.inbox[0].header("Received")
            )

    def test_ids_of_two_agents_differ_within_a_millisecond(self) -> None:
        # An id has 14 random bits, and the number of the agent.
        with (
            MemoryMTA(domain="one.test") as one,
            MemoryMTA(domain="two.test", beside=one) as two,
        ):
            ids = [submit(each, "ann@one.test") for each in (one, two) for _ in range(200)]
            self.assertEqual(len(set(ids)), 400)

    def test_the_crash_of_one_harms_no_other(self) -> None:
        with (
            MemoryMTA(domain="one.test") as one,
            MemoryMTA(domain="two.test", beside=one) as two,
        ):
            two.crash()
            submit(one, "bob@two.test", "ann@one.test")
            one.advance(hours=1)
            submit(one, "ann@one.test", "ann@one.test")
            self.assertEqual((len(one.inbox), two.inbox), (1, []))
            two.start()
            one.advance(hours=2)
            self.assertEqual(len(two.inbox), 1)

    def test_a_crash_amid_a_transaction_is_a_lost_connection_for_the_other(self) -> None:
        reactor = MemoryReactor()
        with (
            MemoryMTA(domain="one.test", reactor=reactor) as one,
            MemoryMTA(domain="two.test", beside=one) as two,
        ):
            one.mta.submit(CONTENT, sender="ann@one.test", recipients=["bob@two.test"])
            while not reactor.connections:
                reactor.step()
            for _ in range(10):
                reactor.step()
            two.crash()
            one.advance(1)
            [deferred] = [each for each in one.events if isinstance(each, Deferred)]
            self.assertIn("connection", str(deferred.reply).lower())
            two.start()
            one.advance(hours=1)
            self.assertEqual(len(two.inbox), 1)


class Zones(TidyTestCase):
    def test_the_first_hop_takes_what_is_neither_local_nor_in_the_zone(self) -> None:
        zone = """
            known.example.     MX 10 mx.known.example.
            mx.known.example.  A  192.0.2.7
        """
        with MemoryMTA(domain="example.test", zone=zone) as mta:
            first, known = mta.hop(), mta.hop("192.0.2.7")
            for domain in ("away.example", "known.example", "typo.known.example", "example.test"):
                submit(mta, f"bob@{domain}")
            mta.advance(1)
            self.assertEqual([mail.to for mail in first.received], [("bob@away.example",)])
            self.assertEqual([mail.to for mail in known.received], [("bob@known.example",)])
            bounce, mail = mta.inbox
            self.assertIn("bob@typo.known.example", bounce.raw.decode())
            self.assertEqual(mail.to, ("bob@example.test",))
            self.assertIs(mta.hop(), first)

    def test_without_a_hop_a_domain_outside_the_zone_does_not_exist(self) -> None:
        with MemoryMTA(domain="example.test") as mta:
            submit(mta, "bob@away.example")
            [bounce] = mta.inbox
            self.assertIn("Status: 5.1.2", bounce.raw.decode())
