"""The contract of a store for mail with a priority, a return time, or a release time."""

from __future__ import annotations

from attrs import evolve

from twisted_mta.mail.message import Message
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.store.contract import Lease, Want

from ..mail import NOW, deferred, message, numbers, settled
from .harness import StoreHarness

HOUR = 3600


def special(id: int, *recipients: str, at: float = NOW, **parameters: str | int) -> Message:
    """Return a message with parameters of MAIL: ``priority``, ``by``, ``until``."""
    names = {"priority": "MT-PRIORITY", "by": "BY", "until": "HOLDUNTIL"}
    made = message(id, *recipients, received_at=at)
    its = {names[key]: value for key, value in parameters.items()}
    return evolve(made, envelope=evolve(made.envelope, parameters=its))


class PriorityConformance(StoreHarness):
    """The part of the contract about priorities, return times and release times."""

    def next(self, now: float = NOW + HOUR, limit: int = 1) -> list[int]:
        leased = self.lease(now, limit, "next.example")
        return [int(each.id) for each in leased.messages]

    # Priorities (RFC 6710).

    def test_mail_of_a_higher_priority_is_leased_first(self) -> None:
        self.accept(
            message(1),
            special(2, priority=-3),
            special(3, priority=4),
            message(4),
            special(5, priority=9),
        )
        self.assertEqual([self.next() for _ in range(6)], [[5], [3], [1], [4], [2], []])

    def test_mail_of_a_higher_priority_is_leased_first_after_a_restart(self) -> None:
        self.accept(message(1), special(2, priority=-3), special(3, priority=4))
        self.restart()
        self.assertEqual([self.next() for _ in range(4)], [[3], [1], [2], []])

    def test_a_flood_of_one_priority_hides_nothing_of_another(self) -> None:
        flood = (special(id, priority=-4, at=NOW - 100 + id / 100) for id in range(1, 301))
        self.accept(*flood, message(1000), special(1001, priority=3))
        self.assertEqual(self.next(limit=2), [1000, 1001])
        self.assertEqual(len(self.next(limit=1000)), 300)

    def test_old_mail_is_leased_before_new_mail_of_a_higher_priority(self) -> None:
        self.accept(message(1, received_at=NOW - 3 * HOUR), message(2, received_at=NOW - HOUR))
        self.accept(special(3, priority=2))
        self.assertEqual([self.next(NOW) for _ in range(3)], [[1], [3], [2]])

    def test_mail_of_a_high_priority_is_not_leased_before_it_is_due(self) -> None:
        self.accept(special(1, priority=9), message(2), lease=True)
        self.do(deferred(special(1, priority=9), NOW + 300), deferred(message(2), NOW + 100))
        leased = self.lease(NOW + 200, 10, "next.example")
        self.assertEqual([int(each.id) for each in leased.messages], [2])
        self.assertEqual(leased.rest, {"next.example": NOW + 300})
        self.assertEqual(self.next(NOW + 300), [1])

    def test_the_next_due_time_is_the_first_of_all_priorities(self) -> None:
        sent = special(1, priority=9), message(2), special(3, priority=-9)
        self.accept(*sent, lease=True)
        for each, wait in zip(sent, (30, 20, 10), strict=True):
            self.do(deferred(each, NOW + wait))
        self.assertEqual(self.survey(), {"next.example": NOW + 10})
        for rest, id in ((10, 3), (20, 2), (30, 1)):
            self.assertEqual(self.lease(NOW, 9, "next.example").rest, {"next.example": NOW + rest})
            self.assertEqual(self.next(NOW + rest), [id])
        self.assertEqual(self.lease(NOW + 60, 9, "next.example").rest, {"next.example": None})

    def test_a_survey_names_domains_that_have_only_mail_with_a_priority(self) -> None:
        self.accept(special(1, "a@one.example", "b@two.example", priority=1))
        self.accept(special(2, "a@three.example", priority=-1), message(3, "b@four.example"))
        names = ("one.example", "two.example", "three.example", "four.example")
        self.assertEqual(self.survey(), dict.fromkeys(names, NOW))
        self.restart()
        self.assertEqual(self.survey(), dict.fromkeys(names, NOW))

    def test_a_survey_makes_due_what_a_wrong_clock_put_off_whatever_its_priority(self) -> None:
        sent = special(1, priority=1), special(2, priority=-1)
        self.accept(*sent, lease=True)
        self.do(*(deferred(each, NOW + 86400) for each in sent))
        self.assertEqual(self.survey(NOW, NOW + 3600), {"next.example": NOW})
        self.assertEqual(self.due(), [(1, [0]), (2, [0])])

    # Return times (RFC 2852).

    def test_mail_with_a_return_time_is_leased_whatever_the_limit_of_ids(self) -> None:
        """So that it is read among the mail of a suspended next hop."""
        self.accept(*(message(id) for id in range(1, 10)))
        self.accept(special(50, by=f"{int(NOW)};R"), special(51, by=f"{int(NOW)};N"))
        (leased,) = self.do(Lease(NOW, (Want("next.example", 100, before=QueueId(3)),)))
        self.assertEqual([int(each.id) for each in leased.messages], [1, 2, 50])

    # Release times (RFC 4865).

    def test_mail_with_a_release_time_is_due_at_that_time(self) -> None:
        self.accept(special(1, until=int(NOW) + 100), message(2))
        self.assertEqual(self.survey(), {"next.example": NOW})
        self.assertEqual(self.next(NOW + 99, 9), [2])
        self.restart()
        self.assertEqual(self.survey(), {"next.example": NOW})
        self.assertEqual(self.next(NOW + 99, 9), [2])
        self.assertEqual(self.next(NOW + 100, 9), [1])

    def test_a_survey_leaves_release_times_as_they_are(self) -> None:
        month = 30 * 86400
        for id, parameters in ((1, {}), (2, {"priority": 2})):
            self.accept(special(id, until=int(NOW) + month, **parameters))
        self.survey(NOW, NOW + HOUR)
        self.survey(NOW, set_back=month)
        self.assertEqual(self.due(NOW + HOUR), [])
        self.restart()
        self.survey(NOW, NOW + HOUR)
        self.assertEqual(self.due(NOW + month), [(1, [0]), (2, [0])])

    def test_mail_that_was_released_is_deferred_like_other_mail(self) -> None:
        held = special(1, until=int(NOW) + 100)
        self.accept(held)
        [leased] = self.lease(NOW + 100).messages
        self.assertEqual(numbers(leased), [0])
        self.do(deferred(leased, NOW + 86400))
        self.assertEqual(self.survey(NOW + 200, NOW + 4000), {"next.example": NOW + 200})
        [leased] = self.lease(NOW + 200).messages
        self.do(settled(leased))
        self.assertEqual(self.survey(), {})
