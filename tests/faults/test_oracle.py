"""The oracle finds lost, corrupt and doubled messages, so that its silence proves something."""

from twisted.trial.unittest import SynchronousTestCase

from .load import content
from .oracle import Copy, Verdict, judge, outstanding, read_copies, read_offers

OFFERED = (
    "offered 10.0 1 aa 100 a@x b@x",
    "acked 10.1 1",
    "offered 11.0 2 bb 100 a@x",
    "refused 11.1 2 451 4.3.0 Later",
    "offered 12.0 3 cc 100 a@x",
)


class Oracle(SynchronousTestCase):
    def verdict(self, *copies: Copy, faults: tuple[float, ...] = ()) -> Verdict:
        return judge(read_offers(OFFERED), copies, faults=faults)

    def test_a_message_that_arrived_once_and_unchanged_is_good(self) -> None:
        verdict = self.verdict(Copy("1", "a@x", "aa", 10.5), Copy("1", "b@x", "aa", 10.6))
        self.assertTrue(verdict.good)
        counts = (verdict.offered, verdict.acked, verdict.refused, verdict.unanswered)
        self.assertEqual(counts, (3, 1, 1, 1))

    def test_a_recipient_without_a_copy_is_lost(self) -> None:
        verdict = self.verdict(Copy("1", "a@x", "aa", 10.5))
        self.assertEqual(verdict.lost, [("1", "b@x")])
        self.assertFalse(verdict.good)

    def test_a_returned_recipient_is_not_lost(self) -> None:
        offers = read_offers(OFFERED)
        copies = [Copy("1", "a@x", "aa", 10.5)]
        self.assertEqual(outstanding(offers, copies, [("1", "b@x")]), [])

    def test_a_message_without_a_reply_may_arrive_or_not(self) -> None:
        both = (Copy("1", "a@x", "aa", 10.5), Copy("1", "b@x", "aa", 10.6))
        self.assertTrue(self.verdict(*both, Copy("3", "a@x", "cc", 13.0)).good)

    def test_a_copy_with_other_content_is_corrupt(self) -> None:
        copies = (Copy("1", "a@x", "aa", 10.5), Copy("1", "b@x", "ab", 10.6))
        verdict = self.verdict(*copies)
        self.assertEqual(verdict.corrupt, [copies[1]])
        self.assertFalse(verdict.good)

    def test_a_copy_that_was_not_offered_is_corrupt(self) -> None:
        both = (Copy("1", "a@x", "aa", 10.5), Copy("1", "b@x", "aa", 10.6))
        self.assertFalse(self.verdict(*both, Copy("-", "a@x", "dd", 11.0)).good)
        self.assertFalse(self.verdict(*both, Copy("1", "c@x", "aa", 11.0)).good)

    def test_a_second_copy_is_explained_by_a_fault_right_after_the_first(self) -> None:
        copies = (
            Copy("1", "a@x", "aa", 10.5),
            Copy("1", "b@x", "aa", 10.5),
            Copy("1", "a@x", "aa", 12.0),
        )
        verdict = self.verdict(*copies, faults=(10.8,))
        self.assertEqual(verdict.explained, [copies[2]])
        self.assertEqual(verdict.in_flight, 2)
        self.assertAlmostEqual(verdict.lag, 0.3)
        self.assertTrue(verdict.good)

    def test_a_second_copy_without_such_a_fault_is_not_explained(self) -> None:
        copies = (
            Copy("1", "a@x", "aa", 10.5),
            Copy("1", "b@x", "aa", 10.5),
            Copy("1", "a@x", "aa", 14.0),
        )
        for faults in ((), (9.0,), (15.0,), (13.0,)):
            verdict = self.verdict(*copies, faults=faults)
            self.assertEqual(verdict.unexplained, [copies[2]], faults)
            self.assertFalse(verdict.good)

    def test_the_ledger_of_the_sink_has_a_copy_for_each_recipient(self) -> None:
        self.assertEqual(
            read_copies(["10.5 1 aa 100 a@x b@x"]),
            [Copy("1", "a@x", "aa", 10.5), Copy("1", "b@x", "aa", 10.5)],
        )


class Load(SynchronousTestCase):
    def test_a_message_depends_on_seed_and_id_alone(self) -> None:
        self.assertEqual(content("7", 1), content("7", 1))
        self.assertNotEqual(content("7", 1), content("7", 2))

    def test_messages_are_small_and_large_with_dots_and_proper_line_ends(self) -> None:
        messages = [content(str(number), 0) for number in range(60)]
        self.assertLess(min(map(len, messages)), 8 * 1024)
        self.assertGreater(max(map(len, messages)), 64 * 1024)
        self.assertTrue(any(b"\r\n." in message for message in messages))
        for message in messages:
            self.assertEqual(message.count(b"\n"), message.count(b"\r\n"))
            self.assertLess(max(map(len, message.split(b"\r\n"))), 999)
