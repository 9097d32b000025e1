"""The connection: turns, timeouts, flow control, late decisions, delays and the log."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger, formatEvent

from tests.server.dialogue import DialogueTestCase
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.envelope import Parameters
from twisted_mta.mail.reply import Reply
from twisted_mta.server.protocol import ESMTPProtocol
from twisted_mta.server.timeouts import Timeouts as ServerTimeouts
from twisted_mta.smtp.server import session as server
from twisted_mta.smtp.server.session import Session
from twisted_mta.telemetry.metrics import Metrics, table
from twisted_mta.testing.delivery import RecordingDelivery


class Turns(DialogueTestCase):
    """A burst of commands of one client does not keep the others waiting."""

    def setUp(self) -> None:
        super().setUp()
        rcpt = self.delivery.rcpt
        self.begun: list[str] = []

        def slow(session: Session, path: Mailbox, parameters: Parameters) -> Any:
            self.begun.append(path.local_part)
            self.network.rightNow += 0.002
            return rcpt(session, path, parameters)

        self.patch(self.delivery, "rcpt", slow)

    def burst(self, name: str, count: int) -> bytes:
        rcpt = "".join(f"RCPT TO:<{name}@d.example>\r\n" for _ in range(count))
        return f"HELO x\r\nMAIL FROM:<a@b.example>\r\n{rcpt}".encode()

    def test_other_clients_have_their_turn_and_replies_stay_in_order(self) -> None:
        one, other = self.connect(), self.connect()
        one.transport.write(self.burst("one", 8))
        other.transport.write(self.burst("other", 1))
        self.network.advance(0)
        self.assertLess(self.begun.index("other"), 5)
        self.assertEqual(self.begun.count("one"), 8)
        self.say(one, b"RSET\r\nNOOP\r\n")
        self.assertEqual(
            self.hear(one),
            ["220 ", "250 ", "250 2.1.0", *["250 2.1.5"] * 8, *["250 2.0.0"] * 2],
        )

    def test_many_commands_without_a_decision_are_interrupted(self) -> None:
        client = self.connect()

        def slow(session: Session, argument: str) -> None:
            self.begun.append("NOOP")
            self.network.rightNow += 0.001
            session._reply(Reply.of(250, "0.0", "OK"))

        self.patch(server, "_COMMANDS", {**server._COMMANDS, "NOOP": slow})
        client.transport.write(b"NOOP\r\n" * 200)
        self.network.step()
        self.assertEqual(len(self.begun), 25)
        self.network.advance(0)
        self.assertEqual(len(self.begun), 200)
        self.assertEqual(len(self.hear(client)), 201)

    def test_a_burst_ends_with_the_connection(self) -> None:
        client = self.connect()
        client.transport.write(self.burst("one", 8))
        self.network.step()
        self.assertLess(self.begun.count("one"), 8)
        client.transport.abortConnection()
        self.network.advance(0)
        self.assertLess(self.begun.count("one"), 8)


class Reads(DialogueTestCase):
    def test_a_content_is_read_in_larger_pieces_than_commands(self) -> None:
        client = self.connect()
        end: Any = self.server_end(client)
        for _ in range(2):
            self.begin_content(client)
            self.assertEqual(end.bufferSize, 131_072)
            self.say(client, b"x\r\n" * 100_000)
            self.assertEqual(end.bufferSize, 131_072)
            self.say(client, b".\r\n")
            self.assertEqual(self.hear(client), ["250 2.0.0"])
            self.assertEqual(end.bufferSize, 65_536)


class Counts(DialogueTestCase):
    """Each refusal is counted, whether it is given at once or later."""

    def assert_counted(self, *expected: tuple[str, str, str, int]) -> None:
        series = self.metrics.snapshot().series(table.REFUSED)
        self.assertEqual(sorted((*labels, number) for labels, number in series), sorted(expected))

    def test_refusals_are_counted_by_stage_class_and_subject(self) -> None:
        for late in (False, True):
            self.metrics = Metrics()
            self.delivery = RecordingDelivery(
                refusals={
                    "eve@b.example": Reply.of(451, "7.1", "Later"),
                    "c@d.example": Reply.of(550, "1.1", "No such mailbox"),
                    ".": Reply.of(554, "6.0", "No"),
                }
            )
            if late:
                self.hold_decisions()
            self.serve()
            client = self.connect()
            for line in (
                b"HELO x\r\n",
                b"MAIL FROM:<eve@b.example>\r\n",
                b"MAIL FROM:<a@b.example>\r\n",
                b"RCPT TO:<c@d.example>\r\n",
                b"RCPT TO:<d@d.example>\r\n",
                b"DATA\r\n",
                b"x\r\n.\r\n",
            ):
                self.say(client, line)
                while self.asked:
                    self.decide()
            self.assert_counted(("mail", "4", "7", 1), ("rcpt", "5", "1", 1), ("data", "5", "6", 1))

    def test_lmtp_counts_the_refusal_of_each_recipient(self) -> None:
        refusal = Reply.of(452, "2.2", "Full")
        self.serve(
            RecordingDelivery(refusals={".c@d.example": refusal, ".e@d.example": refusal}),
            dialect="lmtp",
        )
        client = self.connect()
        self.say(client, b"LHLO x\r\n")
        self.say(client, b"MAIL FROM:<a@b.example>\r\n")
        for name in (b"c", b"d", b"e"):
            self.say(client, b"RCPT TO:<%b@d.example>\r\n" % name)
        self.say(client, b"DATA\r\n")
        self.say(client, b"x\r\n.\r\n")
        self.assert_counted(("data", "4", "2", 2))


class Timeouts(DialogueTestCase):
    def test_silence_between_commands_is_421_4_4_2_after_five_minutes(self) -> None:
        # RFC 5321 §4.5.3.2.7
        client = self.connect()
        self.network.advance(200)
        self.say(client, b"NOOP\r\n")
        self.network.advance(299)
        self.assertEqual(self.hear(client), ["220 ", "250 2.0.0"])
        self.network.advance(1.5)
        self.assertEqual(self.hear(client), ["421 4.4.2"])
        self.assertTrue(client.over)

    def test_silence_in_content_is_421_4_4_2_after_three_minutes(self) -> None:
        client = self.connect()
        self.network.advance(30)
        self.begin_content(client)
        self.network.advance(179)
        self.assertEqual(self.hear(client), [])
        self.network.advance(1.5)
        self.assertEqual(self.hear(client), ["421 4.4.2"])
        self.assertTrue(client.over)
        self.assertEqual(self.delivery.calls[-1], "abort")

    def test_silence_in_refused_content_is_421_4_4_2_after_three_minutes(self) -> None:
        client = self.connect()
        self.begin_content(client)
        self.say(client, b"bare\nline feed")
        self.network.advance(181)
        self.assertEqual(self.hear(client), ["421 4.4.2"])

    def test_a_client_whose_content_ends_in_another_line_end_is_told_so(self) -> None:
        client = self.connect()
        self.begin_content(client)
        self.say(client, b"Subject: x\n\none\n.\n")
        self.network.advance(181)
        self.assertIn(b"421 4.4.2 Only <CR><LF>.<CR><LF> ends a message", client.unread)
        client = self.connect()
        self.begin_content(client)
        self.say(client, b"Subject: x\n\none\n.\n\n")
        self.network.advance(181)
        self.assertIn(b"421 4.4.2 Idle for too long", client.unread)

    def test_a_client_that_keeps_sending_may_take_an_hour(self) -> None:
        client = self.connect()
        self.begin_content(client)
        for _ in range(20):
            self.say(client, b"x" * 500 * 170)
            self.network.advance(170)
        self.say(client, b"\r\n.\r\n")
        self.assertEqual(self.hear(client), ["250 2.0.0"])
        self.network.advance(290)
        self.assertEqual(self.hear(client), [])  # the timeout of commands holds again
        self.network.advance(11)
        self.assertEqual(self.hear(client), ["421 4.4.2"])

    def test_content_below_the_minimum_rate_is_421_4_4_2_after_the_grace(self) -> None:
        client = self.connect()
        self.begin_content(client)
        for _ in range(17):
            self.network.advance(10)
            self.say(client, b"x" * 4990)
        self.assertEqual(self.hear(client), [])
        self.network.advance(11)
        self.assertEqual(self.hear(client), ["421 4.4.2"])

    def test_tiny_chunks_below_the_minimum_rate_are_421_4_4_2(self) -> None:
        self.serve(chunking=True)
        client = self.connect()
        self.say(client, b"EHLO x\r\n")
        self.say(client, b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n")
        for _ in range(18):
            self.hear(client)
            self.say(client, b"BDAT 1\r\nx")
            self.network.advance(10)
        self.assertEqual(self.hear(client), ["250 2.0.0", "421 4.4.2"])

    def test_single_octets_of_a_command_do_not_extend_the_timeout(self) -> None:
        client = self.connect()
        self.hear(client)
        for _ in range(29):
            self.network.advance(10)
            self.say(client, b"x")
        self.assertEqual(self.hear(client), [])
        self.network.advance(11)
        self.assertEqual(self.hear(client), ["421 4.4.2"])

    def test_a_pending_decision_does_not_count_as_silence(self) -> None:
        self.serve(timeouts=ServerTimeouts(decision=2000))
        client = self.connect()
        self.hold_decisions()
        self.say(client, b"HELO x\r\nMAIL FROM:<>\r\n")
        self.hear(client)
        for _ in range(100):
            self.network.advance(10)
        self.assertEqual(self.hear(client), [])
        self.decide()
        self.assertEqual(self.hear(client), ["250 2.1.0"])
        for _ in range(29):
            self.network.advance(10)
        self.assertEqual(self.hear(client), [])
        self.network.advance(11)
        self.assertEqual(self.hear(client), ["421 4.4.2"])

    def test_the_rate_of_content_is_measured_from_its_own_start(self) -> None:
        self.serve(timeouts=ServerTimeouts(decision=2000))
        for trickles in (False, True):
            client = self.connect()
            self.hold_decisions()
            self.say(client, b"HELO x\r\nMAIL FROM:<>\r\n")
            self.decide()
            self.say(client, b"RCPT TO:<a@b.example>\r\n")
            self.decide()
            self.say(client, b"DATA\r\n")
            self.hear(client)
            self.network.advance(185)  # the timer fires within
            self.decide()
            self.assertEqual(self.hear(client), ["354 "])
            for _ in range(17):
                self.network.advance(10)
                if trickles:
                    self.say(client, b"x")
            self.assertEqual(self.hear(client), [])
            self.network.advance(11)
            self.assertEqual(self.hear(client), ["421 4.4.2"])

    def test_a_client_that_does_not_read_the_last_reply_is_aborted(self) -> None:
        for last in (b"QUIT\r\n", None):
            client = self.connect()
            client.transport.pauseProducing()
            if last is None:
                self.network.advance(300)
            else:
                self.say(client, last)
            self.network.advance(9)
            self.assertFalse(client.over)
            self.network.advance(2)
            self.assertTrue(client.over)

    def test_a_tls_client_that_does_not_close_after_quit_is_aborted(self) -> None:
        client = self.connect()
        self.say(client, b"STARTTLS\r\n")
        self.start_tls(client)
        client.transport.pauseProducing()
        self.say(client, b"QUIT\r\n")
        self.network.advance(9)
        self.assertFalse(client.over)
        self.network.advance(2)
        self.assertTrue(client.over)


class FlowControl(DialogueTestCase):
    def test_commands_are_not_read_while_their_replies_are_not_read(self) -> None:
        client = self.connect()
        server = self.server_end(client)
        client.transport.pauseProducing()
        for _ in range(50):
            self.say(client, b"HELP\r\n" * 1000)
        self.assertLess(server.peak, 300_000)
        self.assertGreater(len(client.transport._waiting), 200_000)  # they stay with the client
        client.transport.resumeProducing()
        self.network.advance(0)
        self.assertEqual(len(self.hear(client)), 1 + 50_000)

    def test_commands_under_tls_are_not_read_while_their_replies_are_not_read(self) -> None:
        client = self.connect()
        self.say(client, b"STARTTLS\r\n")
        self.start_tls(client)
        server = self.server_end(client)
        client.transport.pauseProducing()
        for _ in range(50):
            self.say(client, b"HELP\r\n" * 1000)
            self.network.advance(0.001)
        self.assertLess(server.peak, 300_000)
        client.transport.resumeProducing()
        self.network.advance(1)
        self.assertEqual(len(self.hear(client)), 2 + 50_000)
        self.say(client, b"QUIT\r\n")
        self.assertEqual(self.hear(client), ["221 2.0.0"])
        self.network.advance(0)
        self.assertTrue(client.over)


class DelayedReplies(DialogueTestCase):
    def test_after_five_errors_each_further_error_is_answered_a_second_later(self) -> None:
        client = self.connect()
        self.say(client, b"NONSENSE\r\n" * 5)
        self.assertEqual(self.hear(client), ["220 ", *["500 5.5.2"] * 5])
        self.say(client, b"NONSENSE\r\n")
        self.assertEqual(self.hear(client), [])
        self.say(client, b"NOOP\r\n")
        self.network.advance(0.9)
        self.assertEqual(self.hear(client), [])
        self.network.advance(0.1)
        self.assertEqual(self.hear(client), ["500 5.5.2", "250 2.0.0"])

    def test_other_clients_do_not_wait_with_the_delayed_one(self) -> None:
        slowed, other = self.connect(), self.connect()
        self.say(slowed, b"NONSENSE\r\n" * 6)
        self.say(other, b"NOOP\r\n")
        self.assertEqual(self.hear(other), ["220 ", "250 2.0.0"])
        self.assertEqual(self.hear(slowed), ["220 "])

    def test_starttls_behind_errors_begins_after_its_delayed_reply(self) -> None:
        client = self.connect()
        self.say(client, b"NONSENSE\r\n" * 6)
        self.say(client, b"STARTTLS\r\n")
        self.network.advance(1)
        self.assertEqual(self.hear(client), ["220 ", *["500 5.5.2"] * 6, "220 2.0.0"])
        self.start_tls(client)
        self.say(client, b"NOOP\r\n")
        self.assertEqual(self.hear(client), ["250 2.0.0"])

    def test_a_connection_that_is_lost_during_a_delay_leaves_no_timer(self) -> None:
        client = self.connect()
        self.say(client, b"NONSENSE\r\n" * 6)
        client.transport.loseConnection()
        self.network.advance(0)
        self.assertEqual(self.network.getDelayedCalls(), [])


class Decisions(DialogueTestCase):
    def test_replies_to_a_burst_are_in_order_when_decisions_are_late(self) -> None:
        # RFC 2920 §3.1
        client = self.connect()
        self.hold_decisions()
        self.say(
            client,
            b"HELO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nNOOP\r\nRCPT TO:<e@f>\r\nDATA\r\n",
        )
        self.assertEqual(self.hear(client), ["220 ", "250 "])
        for expected in (["250 2.1.0"], ["250 2.1.5", "250 2.0.0"], ["250 2.1.5"], ["354 "]):
            self.decide()
            self.assertEqual(self.hear(client), expected)
        self.say(client, b"x\r\n.\r\nQUIT\r\n")
        self.assertEqual(self.hear(client), [])
        self.decide()
        self.assertEqual(self.hear(client), ["250 2.0.0", "221 2.0.0"])
        self.assertTrue(client.over)

    def test_reading_is_paused_during_a_decision(self) -> None:
        client = self.connect()
        self.hold_decisions()
        self.say(client, b"HELO x\r\nMAIL FROM:<a@b>\r\n")
        for _ in range(50):
            self.say(client, b"NOOP\r\n" * 1000)
        self.assertGreater(len(client.transport._waiting), 290_000)
        self.decide()
        self.network.advance(0)
        self.assertEqual(len(self.hear(client)), 3 + 50_000)

    def test_content_that_is_sent_before_a_late_354_is_not_executed(self) -> None:
        client = self.connect()
        self.say(client, b"HELO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")
        self.hold_decisions()
        self.say(client, b"DATA\r\n")
        self.say(client, b"QUIT\r\n")
        self.hear(client)
        self.decide()
        self.assertEqual(self.hear(client), ["554 5.5.0"])
        self.assertTrue(client.over)
        self.assertEqual(self.factory.violations, 1)
        self.assertEqual(self.delivery.calls, ["mail", "rcpt", "open", "abort"])

    def test_a_decision_after_the_connection_is_lost_changes_nothing(self) -> None:
        for last, asked in (
            (b"MAIL FROM:<a@b>\r\n", "mail"),
            (b"RCPT TO:<c@d>\r\n", "rcpt"),
            (b"DATA\r\n", "open"),
            (b"x\r\n.\r\n", "finish"),
        ):
            client = self.connect()
            self.hold_decisions()
            self.say(client, b"HELO x\r\n")
            for line in (b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<c@d>\r\n", b"DATA\r\n", b"x\r\n.\r\n"):
                self.say(client, line)
                if line == last:
                    break
                self.decide()
            self.assertEqual(self.delivery.calls[-1], asked)
            client.transport.abortConnection()
            self.network.advance(0)
            self.decide()
            self.assertEqual(self.delivery.open_sinks, 0)
            self.assertEqual(len(self.delivery.messages), int(asked == "finish"))

    def test_content_is_aborted_once_when_the_connection_is_lost(self) -> None:
        client = self.connect()
        self.begin_content(client)
        self.say(client, b"half a mess")
        client.transport.abortConnection()
        self.network.advance(0)
        self.assertEqual(self.delivery.calls[-2:], ["open", "abort"])

    def test_a_connection_is_counted_out_even_if_its_sink_fails_to_abort(self) -> None:
        class Stuck:
            def write(self, content: bytes) -> None:
                pass

            def finish(self) -> None:
                raise AssertionError

            def abort(self) -> None:
                raise OSError("stuck")

        client = self.connect()
        self.delivery.open = lambda session: Stuck()  # type: ignore[method-assign,assignment,return-value]
        self.begin_content(client)
        client.abort()
        self.network.advance(0)
        self.successResultOf(self.factory.drain())
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_a_failed_decision_is_451(self) -> None:
        class Failing(RecordingDelivery):
            def mail(self, *args: Any) -> Any:
                if not self.calls:
                    self.calls.append("mail")
                    raise RuntimeError("mail")
                return None

            def rcpt(self, *args: Any) -> Any:
                later: Deferred[Any] = Deferred()
                later.errback(RuntimeError("rcpt"))
                return later

        self.factory.delivery = Failing()
        client = self.connect()
        self.say(client, b"HELO x\r\nMAIL FROM:<a@b>\r\n")
        self.assertEqual(self.hear(client), ["220 ", "250 ", "451 4.3.0"])
        self.say(client, b"MAIL FROM:<a@b>\r\n")
        self.say(client, b"RCPT TO:<c@d>\r\n")
        self.assertEqual(self.hear(client), ["250 2.1.0", "451 4.3.0"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

    def test_content_that_cannot_be_written_is_451_at_its_end(self) -> None:
        class Full:
            aborted = 0

            def write(self, content: bytes) -> None:
                raise OSError("no room")

            def finish(self) -> None:
                raise AssertionError

            def abort(self) -> None:
                self.aborted += 1

        sink = Full()
        client = self.connect()
        self.delivery.open = lambda session: sink  # type: ignore[method-assign,assignment,return-value]
        self.begin_content(client)
        self.say(client, b"x\r\ny\r\n")
        self.say(client, b"x\r\ny\r\n.\r\nNOOP\r\n")
        self.assertEqual(self.hear(client), ["451 4.3.0", "250 2.0.0"])
        self.assertEqual(sink.aborted, 1)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_a_decision_that_comes_from_within_another_question_is_answered_once(self) -> None:
        # The question is answered from within itself: no recursion, no second reply.
        class Eager(RecordingDelivery):
            def mail(self, session: Any, *args: Any) -> Any:
                later: Deferred[Any] = Deferred()
                later.callback(None)
                return later

            rcpt = mail

        self.factory.delivery = Eager()
        client = self.connect()
        self.say(client, b"HELO x\r\n" + b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRSET\r\n" * 2000)
        self.assertEqual(len(self.hear(client)), 2 + 6000)


class ErrorLimit(DialogueTestCase):
    def test_errors_of_all_kinds_count_towards_the_limit(self) -> None:
        self.serve(max_errors=4)
        client = self.connect()
        self.say(client, b"XYZZY\r\nRCPT TO:<x>\r\nMAIL\r\n" + b"x" * 3000 + b"\r\nNOOP\r\n")
        self.assertEqual(
            self.hear(client),
            ["220 ", "500 5.5.2", "503 5.5.1", "503 5.5.1", "500 5.5.2", "421 4.7.0"],
        )
        self.assertTrue(client.over)

    def test_replies_of_4yz_do_not_count_towards_the_limit(self) -> None:
        self.serve(max_errors=2)
        self.factory.delivery = RecordingDelivery(refusals={"<>": Reply.of(451, "3.0", "Later")})
        client = self.connect()
        self.say(client, b"HELO x\r\n" + b"MAIL FROM:<>\r\n" * 10)
        self.assertEqual(self.hear(client)[2:], ["451 4.3.0"] * 10)


class Log(DialogueTestCase):
    def test_refusals_and_ends_by_the_session_itself_are_logged(self) -> None:
        logged: list[str] = []
        log = Logger(observer=lambda event: logged.append(formatEvent(event)))
        self.patch(ESMTPProtocol, "_log", log)
        client = self.connect()
        self.begin_content(client)
        self.say(client, b"bare\nline feed\r\n.\r\n")
        self.network.advance(301)
        self.assertEqual(
            [line.partition(" (")[0] for line in logged],
            [
                "192.0.2.7 was told: 550 5.6.0 Message has a CR or LF outside CR LF, or a NUL",
                "192.0.2.7 was told: 421 4.4.2 Idle for too long",
            ],
        )
