"""Delivery over a network: order of targets, reuse of connections, timeouts, back-pressure."""

import errno
import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from attrs import define, evolve, frozen
from twisted.internet.defer import Deferred, fail, inlineCallbacks, succeed
from twisted.internet.error import ConnectBindError, ConnectError
from twisted.internet.task import deferLater  # noqa: TID251
from twisted.trial.unittest import TestCase

from tests.functional.machine import need, path_of
from tests.logs import logged_lines
from tests.tidy import TidyTestCase
from twisted_mta.delivery.relay import Relay, RelaySettings
from twisted_mta.interfaces import NoTarget
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.assessment import Assessment
from twisted_mta.mail.body import Body, MemoryBody
from twisted_mta.mail.envelope import Envelope, Recipient, RecipientNumber
from twisted_mta.mail.failed_step import failed_step
from twisted_mta.mail.message import Message
from twisted_mta.mail.next_hop import Host, NextHop, Target
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.mail.reply import Reply
from twisted_mta.mail.tls_policy import TLSLevel
from twisted_mta.testing.network import MemoryNetwork
from twisted_mta.testing.peer import ScriptedPeer, ScriptStep
from twisted_mta.tls.client import ClientContexts

HOP = NextHop("smtp", hosts=(Host("mx.example"),))
FIRST = Target("mx1.example", "192.0.2.1", 25)
SECOND = Target("mx2.example", "2001:db8::2", 25)


def message(body: Body | None = None, number: int = 1) -> Message:
    return Message(
        id=QueueId(number),
        envelope=Envelope(
            Mailbox("a", "client.example"),
            (Recipient(RecipientNumber(0), Mailbox("b", "example.net")),),
        ),
        trace=b"Received: x\r\n",
        body=body or MemoryBody(b"Subject: x\r\n\r\nHello\r\n"),
        received_at=0.0,
        expires_at=1.0,
    )


OPENING: list[ScriptStep] = [
    ("send", b"220 mx.example\r\n"),
    ("expect", b"EHLO client.example\r\n"),
    ("send", b"250-mx.example\r\n250 PIPELINING\r\n"),
]
GROUP: list[ScriptStep] = [
    ("expect", b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"),
]
TAKEN: list[ScriptStep] = [
    *GROUP,
    ("send", b"250 Ok\r\n250 Ok\r\n354 Go on\r\n"),
    ("content",),
    ("send", b"250 2.0.0 Queued\r\n"),
]
PARTING: list[ScriptStep] = [
    ("expect", b"QUIT\r\n"),
    ("send", b"221 Bye\r\n"),
    ("close",),
]


class RelayTestCase(TidyTestCase):
    """A relay on a network in memory."""

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.targets: Sequence[Target] = [FIRST]
        self.located = 0
        self.relays: list[Relay] = []
        self.relay = self.make_relay()
        self.addCleanup(self.assert_nothing_is_open)

    def make_relay(
        self,
        tls_level: TLSLevel = "may",
        source_address: str | None = None,
        settings: RelaySettings | None = None,
    ) -> Relay:
        relay = Relay(
            reactor=self.network,
            locate=self.locate,
            helo="client.example",
            contexts=ClientContexts(),
            tls_level=tls_level,
            source_address=source_address,
            settings=settings,
        )
        self.relays.append(relay)
        return relay

    def assert_nothing_is_open(self) -> None:
        """Check that the end of all relays leaves neither a connection nor a timer."""
        for relay in self.relays:
            relay.abort()
        self.network.settle()
        open_connections = [ours for ours, _ in self.network.connections if ours.connected]
        self.assertEqual((open_connections, self.network.getDelayedCalls()), ([], []))

    def locate(self, next_hop: NextHop) -> "Deferred[Sequence[Target]]":
        self.located += 1
        return succeed(self.targets)

    def server(self, *script: ScriptStep, target: Target = FIRST) -> ScriptedPeer:
        peer = ScriptedPeer(list(script))
        self.network.listen(target.address, target.port, peer)
        return peer

    def deliver(self, mail: Message | None = None) -> "Deferred[Sequence[Outcome]]":
        delivering = self.relay.deliver(HOP, mail or message())
        self.network.settle()
        return delivering

    def outcome(self, delivering: "Deferred[Sequence[Outcome]]") -> Outcome:
        [outcome] = self.successResultOf(delivering)
        return outcome


class Quarantine(RelayTestCase):
    def sent(self, mail: Message) -> bytes:
        peer = self.server(*OPENING, *TAKEN, *PARTING)
        self.assertTrue(self.outcome(self.deliver(mail)).delivered)
        (content,) = peer.contents
        return content

    def test_mail_in_quarantine_goes_on_with_a_flag_and_a_reason(self) -> None:
        mail = evolve(message(), assessment=Assessment(quarantine="dmarc=fail (b.example)"))
        self.assertEqual(
            self.sent(mail),
            b"X-Spam-Flag: YES\r\nX-Spam-Reason: dmarc=fail (b.example)\r\n"
            b"Received: x\r\nSubject: x\r\n\r\nHello\r\n.\r\n",
        )

    def test_a_reason_cannot_add_fields_or_long_lines(self) -> None:
        reason = "\r\nX-Spam-Flag: NO\r\n\r\n\u00fc" + "x" * 5000
        sent = self.sent(evolve(message(), assessment=Assessment(quarantine=reason)))
        header = sent.partition(b"\r\n\r\n")[0].split(b"\r\n")
        self.assertEqual(
            [line.partition(b":")[0] for line in header],
            [b"X-Spam-Flag", b"X-Spam-Reason", b"Received", b"Subject"],
        )
        self.assertLess(max(map(len, header)), 998)
        self.assertTrue(sent.isascii())

    def test_other_mail_has_no_flag(self) -> None:
        self.assertNotIn(b"X-Spam", self.sent(message()))


class TargetTests(RelayTestCase):
    def test_a_message_is_delivered_with_the_facts_of_its_session(self) -> None:
        peer = self.server(*OPENING, *TAKEN, *PARTING)
        outcome = self.outcome(self.deliver())
        self.assertEqual(str(outcome.reply), "250 2.0.0 Queued")
        self.assertEqual(outcome.remote, "mx1.example[192.0.2.1]:25")
        self.assertIsNone(outcome.tls)
        self.assertEqual(peer.contents, [b"Received: x\r\nSubject: x\r\n\r\nHello\r\n.\r\n"])
        self.network.advance(5)
        self.assertTrue(peer.finished, peer.problems)
        self.assertTrue(peer.lost)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_the_next_target_is_tried_without_a_reply_to_the_message(self) -> None:
        """RFC 5321 §5.1: no connection, a refusing greeting, or a connection that is lost early."""
        self.targets = [FIRST, SECOND]
        scripts: list[list[ScriptStep]] = [
            [("close",)],
            [("send", b"421 4.3.2 Busy\r\n"), ("close",)],
            [("send", b"450 4.3.2 Busy\r\n"), *PARTING],
            [("send", b"554 No\r\n"), *PARTING],
            [*OPENING, ("abort",)],
            [*OPENING, *GROUP, ("send", b"421 4.3.2 Busy\r\n"), ("close",)],
        ]
        for script in scripts:
            first = self.server(*script)
            self.server(*OPENING, *TAKEN, *PARTING, target=SECOND)
            outcome = self.outcome(self.deliver())
            self.assertEqual(outcome.remote, "mx2.example[2001:db8::2]:25")
            self.assertTrue(outcome.delivered)
            self.assertEqual(first.problems, [])
            self.network.advance(5)

    def test_a_reply_to_the_message_ends_the_attempt(self) -> None:
        self.targets = [FIRST, SECOND]
        for reply in (b"450 4.7.1 Greylisted\r\n", b"550 5.7.1 No\r\n"):
            self.server(*OPENING, *GROUP, ("send", reply * 3))
            self.assertEqual(str(self.outcome(self.deliver()).reply).encode(), reply.rstrip())
            self.relay.abort()
            self.network.settle()

    def test_targets_without_a_reply_are_all_named_in_the_reply(self) -> None:
        """The reply is 4.4.1 with the last failure of each host."""
        self.targets = [FIRST, SECOND]
        outcome = self.outcome(self.deliver())
        self.assertEqual(outcome.reply.enhanced, "4.4.1")
        self.assertIsNone(outcome.remote)
        for target, line in zip(self.targets, outcome.reply.lines, strict=True):
            self.assertIn(f"{target}: Connection was refused", line)

    def test_the_last_reply_of_a_server_is_the_outcome_and_the_others_are_in_the_log(self) -> None:
        """A connection that fails, before or after it, tells less than what a server says."""
        third = Target("mx3.example", "192.0.2.3", 25)
        lines = logged_lines(self, "was not taken by")
        busy: ScriptStep = ("send", b"450 4.3.2 Busy\r\n")
        down: ScriptStep = ("send", b"421 4.3.2 Down\r\n")
        for targets, replies, said in (
            ([FIRST, SECOND], {FIRST: busy}, FIRST),
            ([SECOND, FIRST], {FIRST: busy}, FIRST),
            ([FIRST, SECOND, third], {FIRST: down, SECOND: busy}, SECOND),
            ([third, SECOND, FIRST], {SECOND: down, FIRST: busy}, FIRST),
        ):
            self.relay.connections.unreachable.clear()
            lines.clear()
            self.targets = targets
            for target, reply in replies.items():
                self.server(reply, *([("close",)] if reply is down else PARTING), target=target)
            outcome = self.outcome(self.deliver())
            self.assertEqual(str(outcome.reply), "450 4.3.2 Busy")
            self.assertEqual(outcome.remote, str(said))
            self.assertTrue(outcome.unreachable and outcome.deferred)
            self.assertEqual(failed_step(outcome), "it refused the session at its greeting")
            others = [target for target in targets if target != said]
            self.assertEqual(len(lines), len(others))
            for target, line in zip(others, lines, strict=True):
                self.assertIn(f"{target} either: ", line)
                self.assertIn(str(target), outcome.transcript)

    def test_a_permanent_refusal_of_one_server_defers_while_another_is_down(self) -> None:
        """It is kept as it was said."""
        for targets in ([FIRST, SECOND], [SECOND, FIRST]):
            self.relay.connections.unreachable.clear()
            self.targets = targets
            self.server(("send", b"521 5.3.2 No mail here\r\n"), *PARTING)
            outcome = self.outcome(self.deliver())
            self.assertEqual(str(outcome.reply), "521 5.3.2 No mail here")
            self.assertEqual(outcome.remote, str(FIRST))
            self.assertTrue(outcome.deferred and outcome.temporary)

    def test_a_message_fails_once_every_target_has_refused_for_good(self) -> None:
        """A refusal that is temporary, or no reply, defers; so does ``554`` in a greeting."""
        self.targets = [FIRST, SECOND]
        for first, second, failed in (
            (b"500 No\r\n", b"521 5.3.2 No mail here\r\n", True),
            (b"521 No\r\n", b"500 No\r\n", True),
            (b"521 No\r\n", b"554 No\r\n", False),
            (b"554 No\r\n", b"521 No\r\n", False),
            (b"450 No\r\n", b"521 No\r\n", False),
        ):
            self.server(("send", first), *PARTING)
            self.server(("send", second), *PARTING, target=SECOND)
            outcome = self.outcome(self.deliver())
            self.assertEqual(outcome.failed, failed, (first, second))
            self.assertEqual(outcome.unreachable, not failed)
            self.assertIn(second.decode().rstrip(), str(outcome.reply))

    def test_a_local_error_does_not_make_a_next_hop_unreachable(self) -> None:
        self.network.refusal = ConnectBindError(errno.EMFILE, "Too many open files")
        outcome = self.outcome(self.deliver())
        self.assertEqual((outcome.reply.code, outcome.reply.enhanced), (451, "4.3.0"))
        self.assertFalse(outcome.unreachable)
        self.server(*OPENING, *TAKEN, *PARTING)
        self.assertTrue(self.outcome(self.deliver()).delivered)

    def test_a_target_without_a_source_address_counts_as_unreachable(self) -> None:
        self.network.refusal = ConnectError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        for source, unreachable in (("192.0.2.99", False), (None, True)):
            self.relay.connections.source_of = lambda address, source=source: source
            outcome = self.outcome(self.deliver())
            self.assertEqual(outcome.unreachable, unreachable)

    def test_the_status_of_an_unsafe_target_precedes_that_of_others(self) -> None:
        self.targets = [FIRST, SECOND]
        self.relay = self.make_relay(tls_level="encrypt")
        self.server(*OPENING, *PARTING)
        outcome = self.outcome(self.deliver())
        self.assertEqual(outcome.reply.enhanced, "4.7.4")
        self.assertIn("STARTTLS is not offered", outcome.reply.lines[0])
        self.assertIn("Connection was refused", outcome.reply.lines[1])

    def test_the_reply_of_an_only_target_is_the_outcome(self) -> None:
        self.server(("send", b"521 5.3.2 No mail here\r\n"), *PARTING)
        outcome = self.outcome(self.deliver())
        self.assertEqual(str(outcome.reply), "521 5.3.2 No mail here")
        self.assertEqual(outcome.remote, "mx1.example[192.0.2.1]:25")

    def test_a_next_hop_without_a_target_has_the_reply_of_the_lookup(self) -> None:
        reply = Reply.of(556, "1.10", "null MX")
        self.relay.locate = lambda next_hop: fail(NoTarget(reply))
        self.assertEqual(self.outcome(self.deliver()).reply, reply)
        self.relay.locate = lambda next_hop: succeed([])
        self.assertEqual(self.outcome(self.deliver()).reply.enhanced, "4.4.4")

    def test_an_internal_error_in_the_lookup_defers(self) -> None:
        self.relay.locate = lambda next_hop: fail(ZeroDivisionError())
        self.assertEqual(self.outcome(self.deliver()).reply.enhanced, "4.3.0")
        self.relay.locate = lambda next_hop: 1 / 0  # type: ignore[assignment, return-value]
        self.assertEqual(self.outcome(self.deliver()).reply.enhanced, "4.3.0")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_the_source_address_is_of_the_family_of_the_target(self) -> None:
        self.relay = self.make_relay(source_address="192.0.2.99")
        self.targets = [FIRST, SECOND]
        self.outcome(self.deliver())
        self.assertEqual(self.network.sources, [("192.0.2.99", 0), None])

    def test_the_number_of_targets_is_bounded(self) -> None:
        self.targets = [Target("mx", f"192.0.2.{number}", 25) for number in range(1, 30)]
        self.outcome(self.deliver())
        self.assertEqual(len(self.network.sources), 10)


class DeadlineTests(RelayTestCase):
    """RFC 5321 §4.5.3.2, on a clock."""

    def test_connecting_times_out(self) -> None:
        self.network.swallow(FIRST.address, FIRST.port)
        delivering = self.deliver()
        self.network.advance(29.9)
        self.assertNoResult(delivering)
        self.network.advance(0.1)
        self.assertEqual(self.outcome(delivering).reply.enhanced, "4.4.1")

    def test_a_greeting_that_never_arrives_times_out(self) -> None:
        """5 minutes in all, however slowly octets arrive; then the next target is tried."""
        self.targets = [FIRST, SECOND]
        first = self.server()
        self.server(*OPENING, *TAKEN, target=SECOND)
        delivering = self.deliver()
        for octet in b"220-more\r\n220-and more\r\n220 and":
            first.transport.write(bytes([octet]))
            self.network.advance(9)
        self.network.advance(20)
        self.assertNoResult(delivering)
        self.network.advance(1)
        self.assertTrue(self.outcome(delivering).delivered)
        self.assertTrue(first.lost)

    def test_a_final_dot_without_a_reply_is_uncertain(self) -> None:
        """10 minutes; the message may have been delivered, and the log has one line on it."""
        self.server(*OPENING, *TAKEN[:-1])
        lines = logged_lines(self)
        delivering = self.deliver()
        self.network.advance(599)
        self.assertNoResult(delivering)
        self.network.advance(1)
        outcome = self.outcome(delivering)
        self.assertTrue(outcome.uncertain)
        self.assertEqual(outcome.reply.enhanced, "4.4.2")
        self.assertEqual(len([line for line in lines if "duplicate" in line]), 1)

    def test_the_deadlines_hold_on_a_connection_that_was_idle(self) -> None:
        """Not that of an idle connection, and not none."""
        peer = self.server(*OPENING, *TAKEN, *GROUP)
        self.assertTrue(self.outcome(self.deliver()).delivered)
        self.network.advance(4)
        delivering = self.deliver()
        self.network.advance(299)
        self.assertFalse(peer.lost)
        self.network.advance(1)
        self.assertTrue(peer.lost)
        self.assertTrue(self.outcome(delivering).deferred)  # there is no second server

    def test_the_deadline_of_the_final_dot_holds_on_a_connection_that_was_idle(self) -> None:
        peer = self.server(*OPENING, *TAKEN, *TAKEN[:-1])
        self.assertTrue(self.outcome(self.deliver()).delivered)
        self.network.advance(4)
        delivering = self.deliver()
        self.network.advance(599)
        self.assertNoResult(delivering)
        self.network.advance(1)
        self.assertTrue(peer.lost)
        self.assertTrue(self.outcome(delivering).uncertain)

    def test_a_server_that_stops_reading_times_out(self) -> None:
        """3 minutes for each block of the content; the final dot is not sent."""
        peer = self.server(*OPENING, *TAKEN)
        body = PatternBody(size=1_000_000)
        delivering = self.relay.deliver(HOP, message(body))
        while b"DATA" not in peer.received:
            self.assertTrue(self.network.step())
        peer.transport.pauseProducing()
        self.network.settle()
        self.network.advance(179)
        self.assertNoResult(delivering)
        self.network.advance(1)
        outcome = self.outcome(delivering)
        self.assertFalse(outcome.uncertain)
        self.assertIn("while sending", outcome.reply.text)
        self.assertTrue(peer.lost)

    def test_a_server_that_reads_slowly_has_three_minutes_for_each_block(self) -> None:
        """RFC 5321 §4.5.3.2.5: the time begins anew whenever the server has read something."""
        peer = self.server(*OPENING, *TAKEN)
        body = PatternBody(size=1_000_000)
        delivering = self.relay.deliver(HOP, message(body))
        while b"DATA" not in peer.received:
            self.assertTrue(self.network.step())
        for _ in range(4):
            peer.transport.pauseProducing()
            self.network.settle()
            self.network.advance(170)
            self.assertNoResult(delivering)
            before = len(peer.received)
            peer.transport.resumeProducing()
            while len(peer.received) < before + 1000:
                self.assertTrue(self.network.step())
        self.network.settle()
        self.assertTrue(self.outcome(delivering).delivered)


class ReuseTests(RelayTestCase):
    def test_one_connection_serves_message_after_message(self) -> None:
        """There is no further lookup and no further connection."""
        peer = self.server(*OPENING, *TAKEN, *TAKEN, *TAKEN, *PARTING)
        for number in range(3):
            self.assertTrue(self.outcome(self.deliver(message(number=number))).delivered)
        self.assertEqual(self.located, 1)
        self.assertEqual(len(peer.contents), 3)
        self.network.advance(4.9)
        self.assertFalse(peer.finished)
        self.network.advance(0.1)
        self.assertTrue(peer.finished, peer.problems)

    def test_messages_are_spread_over_exchangers_of_equal_preference(self) -> None:
        """RFC 5321 §5.1: each message, on connections that are kept to each of them."""
        first, second = (evolve(target, equal=True) for target in (FIRST, SECOND))
        peers = [self.server(*OPENING, *TAKEN, *TAKEN, target=target) for target in (first, second)]
        for order in ((first, second), (second, first), (first, second), (second, first)):
            self.targets = order
            outcome = self.outcome(self.deliver())
            self.assertEqual(outcome.remote, str(order[0]))
        self.assertEqual([len(peer.contents) for peer in peers], [2, 2])
        self.assertEqual(len(self.network.connections), 2)

    def test_an_equal_exchanger_that_is_down_is_passed_over_for_a_minute(self) -> None:
        first, second = (evolve(target, equal=True) for target in (FIRST, SECOND))
        self.targets = [first, second]
        self.server(*OPENING, *TAKEN, *PARTING, target=second)
        self.assertTrue(self.outcome(self.deliver()).delivered)
        self.assertEqual(self.relay.connections.unreachable.seconds_left(first), 60.0)

    def test_another_next_hop_at_the_same_target_uses_the_connection(self) -> None:
        peer = self.server(*OPENING, *TAKEN, *TAKEN)
        self.deliver()
        other = self.relay.deliver(NextHop("smtp", domain="example.org"), message())
        self.network.settle()
        self.assertTrue(self.outcome(other).delivered)
        self.assertTrue(peer.finished)

    def test_a_connection_serves_one_message_at_a_time(self) -> None:
        peers = [self.server(*OPENING, *TAKEN), self.server(*OPENING, *TAKEN)]
        deliveries = [self.relay.deliver(HOP, message()) for _ in peers]
        self.network.settle()
        for delivering, peer in zip(deliveries, peers, strict=True):
            self.assertTrue(self.outcome(delivering).delivered)
            self.assertTrue(peer.finished)

    def test_an_idle_connection_that_is_dead_is_replaced(self) -> None:
        """The message is tried again at once, on a new connection."""
        ends: list[list[ScriptStep]] = [
            [("close",)],
            [("abort",)],
            [("send", b"421 4.4.2 Idle\r\n"), ("close",)],
        ]
        for end in ends:
            for at_once in (True, False):
                waiting = [] if at_once else GROUP
                self.server(*OPENING, *TAKEN, *waiting, *end)
                second = self.server(*OPENING, *TAKEN, *PARTING)
                self.outcome(self.deliver())
                outcome = self.outcome(self.deliver())
                self.assertTrue(outcome.delivered)
                self.network.advance(5)
                self.assertTrue(second.finished, second.problems)

    def test_an_idle_connection_to_a_dead_host_leads_to_a_new_lookup(self) -> None:
        """The next hop is looked up again, and its other targets are tried."""
        self.server(*OPENING, *TAKEN, *GROUP, ("abort",))
        self.outcome(self.deliver())
        self.targets = [FIRST, SECOND]
        self.server(*OPENING, *TAKEN, target=SECOND)
        self.assertTrue(self.outcome(self.deliver()).delivered)
        self.assertEqual(self.located, 2)
        self.assertEqual(len(self.network.sources), 3)

    def test_a_host_that_ends_its_connections_does_not_keep_the_mail_of_a_next_hop(self) -> None:
        """DNS has another host by now."""
        self.server(*OPENING, *TAKEN, *GROUP, ("send", b"421 4.4.2 Idle\r\n"), ("close",))
        old = self.server(*OPENING, *TAKEN)
        self.outcome(self.deliver())
        self.targets = [SECOND]
        new = self.server(*OPENING, *TAKEN, target=SECOND)
        self.assertTrue(self.outcome(self.deliver()).delivered)
        self.assertEqual(len(new.contents), 1)
        self.assertEqual(old.received, b"")

    def test_the_number_of_messages_on_a_connection_is_bounded(self) -> None:
        self.relay = self.make_relay(settings=RelaySettings(messages_per_connection=2))
        peer = self.server(*OPENING, *TAKEN, *TAKEN, *PARTING)
        other = self.server(*OPENING, *TAKEN)
        for _ in range(3):
            self.assertTrue(self.outcome(self.deliver()).delivered)
        self.assertTrue(peer.finished)
        self.assertTrue(other.finished)

    def test_the_number_of_idle_connections_is_bounded(self) -> None:
        """The longest idle connection is closed."""
        self.relay = self.make_relay(settings=RelaySettings(idle_connections=1))
        peer = self.server(*OPENING, *TAKEN, *PARTING)
        self.server(*OPENING, *TAKEN, target=SECOND)
        self.outcome(self.deliver())
        self.targets = [SECOND]
        other = self.relay.deliver(NextHop("smtp", domain="example.org"), message())
        self.network.settle()
        self.assertTrue(self.outcome(other).delivered)
        self.assertTrue(peer.finished)

    def test_closing_sends_quit_on_each_connection(self) -> None:
        """Idle connections get QUIT at once, others after their transaction."""
        idle = self.server(*OPENING, *TAKEN, *PARTING)
        self.outcome(self.deliver())
        self.targets = [SECOND]
        busy = self.server(*OPENING, *TAKEN[:-1], target=SECOND)
        delivering = self.relay.deliver(NextHop("smtp", domain="example.org"), message())
        self.network.settle()
        closing = self.relay.close()
        self.network.settle()
        self.assertTrue(idle.finished)
        self.assertNoResult(closing)
        busy.script = list(PARTING)
        busy.transport.write(b"250 Queued\r\n")
        self.network.settle()
        self.assertTrue(self.outcome(delivering).delivered)
        self.assertTrue(busy.finished)
        self.successResultOf(closing)
        self.successResultOf(self.relay.close())
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_aborting_defers_all_messages(self) -> None:
        """All messages are deferred, those that wait for a connection included."""
        self.server(*OPENING)
        first = self.deliver()
        self.network.swallow(SECOND.address, SECOND.port)
        self.targets = [SECOND]
        second = self.relay.deliver(NextHop("smtp", domain="example.org"), message())
        self.relay.abort()
        self.network.settle()
        for delivering in (first, second):
            self.assertEqual(self.outcome(delivering).reply.code // 100, 4)
        self.successResultOf(self.relay.close())
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_the_connection_is_closed_after_the_reply_to_quit(self) -> None:
        peer = self.server(*OPENING, *TAKEN, *PARTING[:2])
        self.outcome(self.deliver())
        closing = self.relay.close()
        self.network.settle()
        self.successResultOf(closing)
        self.assertTrue(peer.lost)

    def test_a_server_that_does_not_reply_to_quit_is_dropped(self) -> None:
        """The connection is dropped after 5 seconds."""
        peer = self.server(*OPENING, *TAKEN, ("expect", b"QUIT\r\n"))
        self.outcome(self.deliver())
        closing = self.relay.close()
        self.network.advance(4.9)
        self.assertNoResult(closing)
        self.network.advance(0.1)
        self.successResultOf(closing)
        self.assertTrue(peer.finished)
        self.assertTrue(peer.lost)


@define
class PatternBody:
    """A content generated as it is read; counts the octets read."""

    size: int
    torn_at: int = -1
    read: int = 0

    def chunks(self) -> Iterator[bytes]:
        line = b".leading dot and some text, 40 octets.\r\n"
        block = line * 1600
        while self.read < self.size:
            if 0 <= self.torn_at <= self.read:
                raise OSError("Input/output error")
            chunk = block[: self.size - self.read]
            self.read += len(chunk)
            yield chunk

    def digest(self) -> str:
        digest = hashlib.sha256(b"Received: x\r\n")
        for chunk in PatternBody(self.size).chunks():
            digest.update(chunk)
        return digest.hexdigest()


class BodyTests(RelayTestCase):
    def test_20_mebibytes_are_sent_with_bounded_memory(self) -> None:
        """A content is read no faster than the server takes it, and arrives unchanged."""
        peer = self.server(*OPENING, *TAKEN)
        body = PatternBody(size=20 * 1024 * 1024 // 40 * 40)
        delivering = self.relay.deliver(HOP, message(body))
        while not self.network.connections:
            self.assertTrue(self.network.step())
        [(client, _)] = self.network.connections
        most_ahead = 0
        while self.network.step():
            most_ahead = max(most_ahead, body.read - len(peer.received))
        self.assertTrue(self.outcome(delivering).delivered)
        self.assertLess(client.peak, 256 * 1024)
        self.assertLess(most_ahead, 256 * 1024)
        [content] = peer.contents
        plain = content.removesuffix(b".\r\n").replace(b"\r\n.", b"\r\n")
        self.assertEqual(hashlib.sha256(plain).hexdigest(), body.digest())

    def test_a_content_that_cannot_be_read_to_its_end_is_deferred(self) -> None:
        """The connection is dropped without a final dot, for small and large contents."""
        for size in (10_000, 1_000_000):
            peer = self.server(*OPENING, *TAKEN)
            body = PatternBody(size=size, torn_at=0 if size < 65_536 else 500_000)
            outcome = self.outcome(self.deliver(message(body)))
            self.assertEqual(outcome.reply.enhanced, "4.3.0")
            self.assertFalse(outcome.uncertain)
            self.assertTrue(peer.lost)
            self.assertEqual(peer.contents, [])

    def test_a_content_in_thousands_of_small_pieces_is_sent(self) -> None:
        """Each piece is there at once, and none is read within the sending of another."""

        @frozen
        class Crumbs:
            size: int = 160_000

            def chunks(self) -> Iterator[bytes]:
                return iter([b"0123456\r\n0"] * 16_000)

        peer = self.server(*OPENING, *TAKEN)
        self.assertTrue(self.outcome(self.deliver(message(Crumbs()))).delivered)
        self.assertEqual(len(peer.contents[0]), 160_000 + 13 + len(b"\r\n.\r\n"))

    def test_a_refusal_during_the_content_ends_it(self) -> None:
        """Reading ends, and the connection is dropped."""
        peer = self.server(*OPENING, *TAKEN)
        body = PatternBody(size=5_000_000)
        delivering = self.relay.deliver(HOP, message(body))
        while len(peer.received) < 100_000:
            self.assertTrue(self.network.step())
        peer.transport.write(b"552 5.3.4 Too large\r\n")
        self.network.settle()
        self.assertEqual(str(self.outcome(delivering).reply), "552 5.3.4 Too large")
        self.assertLess(body.read, 1_000_000)
        self.assertTrue(peer.lost)


class SMTPSinkTests(TestCase):
    """Postfix's sink as the next hop, over TCP."""

    def setUp(self) -> None:
        need("smtp-sink")
        from twisted.internet import reactor  # noqa: TID251

        self.reactor: Any = reactor
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        os.chmod(self.folder, 0o777)
        user = ["-u", "nobody"] if os.getuid() == 0 else []
        sink = subprocess.Popen(
            [
                *(path_of("smtp-sink"), *user, "-R", self.folder, "-d", "m."),
                *(f"127.0.0.1:{port}", "10"),
            ],
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(sink.wait)
        self.addCleanup(sink.terminate)
        target = Target("localhost", "127.0.0.1", port)
        self.relay = Relay(
            reactor=self.reactor,
            locate=lambda next_hop: succeed([target]),
            helo="client.example",
            contexts=ClientContexts(),
        )
        self.addCleanup(self.relay.close)

    @inlineCallbacks
    def test_messages_arrive_unchanged(self) -> Generator["Deferred[Any]", Any, None]:
        """A small and a large message on one connection."""
        for _ in range(200):  # until it listens
            [outcome] = yield self.relay.deliver(HOP, message())
            if outcome.delivered:
                break
            yield deferLater(self.reactor, 0.05)
        body = PatternBody(size=5_000_000)
        [outcome] = yield self.relay.deliver(HOP, message(body))
        self.assertTrue(outcome.delivered, outcome)
        contents = []
        for name in os.listdir(self.folder):
            with open(os.path.join(self.folder, name), "rb") as file:
                contents.append(file.read())
        large = max(contents, key=len)
        expected = b"".join(PatternBody(size=5_000_000).chunks()).replace(b"\r\n", b"\n")
        self.assertTrue(large.rstrip(b"\n").endswith(expected.rstrip(b"\n")))
