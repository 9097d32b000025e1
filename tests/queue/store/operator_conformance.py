"""The operator's part of the contract of a store (`queue.operator.operations`)."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.envelope import RecipientNumber
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.ids import first_id
from twisted_mta.queue.operator.operations import (
    FIRST,
    Action,
    Browse,
    CountWaiting,
    Inspect,
    Inspected,
    Intervene,
    Page,
    Removed,
    Tallied,
    Tally,
    WaitingCounts,
)
from twisted_mta.queue.operator.selection import STATES, Selection
from twisted_mta.queue.store.contract import Operation, Settle

from ..mail import DEFERRED, LIFETIME, NOW, deferred, message, settled
from .harness import StoreHarness
from .priority_conformance import special


def untried(message: Any, *which: int) -> Settle:
    return Settle(message, untried=tuple(map(RecipientNumber, which or (0,))))


class OperatorConformance(StoreHarness):
    """The operator's part of the contract."""

    def page(self, operation: Operation) -> Page:
        (page,) = self.do(operation)
        assert isinstance(page, Page)
        return page

    def browse(self, **filters: Any) -> list[tuple[int, list[int]]]:
        """Return the selected messages: ids with the numbers of their recipients."""
        selection = Selection.parse(filters, now=NOW)
        return picked(self.page(Browse(selection)))

    def intervene(self, action: Action, *, dry_run: bool = False, **filters: Any) -> Any:
        selection = Selection.parse(filters, now=NOW)
        return picked(self.page(Intervene(action, selection, NOW + 1, dry_run=dry_run)))

    def state(self, id: int) -> list[str]:
        """Return the state of each recipient of a message."""
        inspected = self.inspect(id)
        return [] if inspected is None else [entry.state for entry in inspected.recipients]

    def inspect(self, id: int) -> Inspected | None:
        (inspected,) = self.do(Inspect(QueueId(id)))
        assert inspected is None or isinstance(inspected, Inspected)
        return inspected

    # Listing.

    def test_messages_are_listed_in_the_order_of_ids(self) -> None:
        self.accept(message(3), message(1, "a@one.example", "b@two.example"), message(2))
        self.assertEqual(self.browse(), [(1, [0, 1]), (2, [0]), (3, [0])])

    def test_a_listed_message_has_its_sender_and_size(self) -> None:
        self.accept(message(1, sender=None, body=MemoryBody(b"x" * 12)))
        (listed,) = self.page(Browse(Selection())).messages
        self.assertEqual((listed.reverse_path, listed.size), (None, 12))

    def test_recipients_are_selected_by_address_domain_and_state(self) -> None:
        sent = message(1, "a@one.example", "b@two.example", "A.B@sub.two.example")
        self.accept(sent, message(2, "a@two.example"))
        self.do(deferred(sent, NOW + 60, 1))
        for filters, expected in (
            ({"domain": "two.example"}, [(1, [1]), (2, [0])]),
            ({"domain": "TWO.example."}, [(1, [1]), (2, [0])]),
            ({"domain": ".two.example"}, [(1, [2])]),
            ({"to": "a@ONE.example"}, [(1, [0])]),
            ({"to": "a*"}, [(1, [0, 2]), (2, [0])]),
            ({"to": "?@two.example"}, [(1, [1]), (2, [0])]),
            ({"to": "a"}, []),
            ({"to": "[ab]@two.example"}, []),
            ({"to": "*@*two*"}, [(1, [1, 2]), (2, [0])]),
            ({"to": "*".join("a" * 300)}, []),
            ({"state": "deferred"}, [(1, [1])]),
            ({"state": "queued", "domain": "two.example"}, [(2, [0])]),
            ({"state": "held"}, []),
        ):
            self.assertEqual(self.browse(**filters), expected, filters)  # type: ignore[arg-type]

    def test_a_pattern_with_many_stars_is_matched_quickly(self) -> None:
        self.accept(message(1, f"{'a' * 64}@{'a' * 60}.{'a' * 60}.example"))
        self.assertEqual(self.browse(to="*a" * 400 + "b"), [])

    def test_a_recipient_is_selected_by_the_address_that_an_alias_led_from(self) -> None:
        sent = message(1)
        (bob,) = sent.envelope.recipients
        alias = evolve(bob, original=evolve(bob.mailbox, local_part="sales"))
        self.accept(sent.for_recipients((alias,)))
        self.assertEqual(self.browse(to="sales@next.example"), [(1, [0])])
        self.assertEqual(self.browse(to="bob@next.example"), [(1, [0])])

    def test_messages_are_selected_by_id_sender_and_age(self) -> None:
        old, new = int(first_id(NOW - 7200)), int(first_id(NOW - 60))
        self.accept(message(old), message(new, sender=None))
        self.assertEqual(self.browse(ids=[str(QueueId(new))]), [(new, [0])])
        self.assertEqual(self.browse(ids=[str(QueueId(new + 1))]), [])
        self.assertEqual(self.browse(ids=[]), [])
        self.assertEqual(self.browse(**{"from": "<>"}), [(new, [0])])
        self.assertEqual(self.browse(**{"from": "ann@*"}), [(old, [0])])
        self.assertEqual(self.browse(older=3600), [(old, [0])])
        for older in (-1, -1e300, float("inf"), float("nan"), 10**400, True, "1"):
            self.assertRaises(ValueError, self.browse, older=older)

    def test_pages_never_split_a_message(self) -> None:
        self.accept(*(message(id, "a@one.example", "b@two.example") for id in range(1, 6)))
        pages, after = [], FIRST
        while True:
            page = self.page(Browse(Selection(), after, 3))
            pages.append(picked(page))
            if page.next is None:
                break
            after = page.next
        self.assertEqual([[id for id, _ in page] for page in pages if page], [[1, 2], [3, 4], [5]])
        self.assertTrue(all(numbers == [0, 1] for page in pages for _, numbers in page))

    def all_pages(self, make: Any) -> list[tuple[int, list[int]]]:
        """Return the selected messages of all slices; ``make`` returns the operation of a slice."""
        selected: list[tuple[int, list[int]]] = []
        after: int | None = FIRST
        while after is not None:
            page = self.page(make(after))
            selected += picked(page)
            self.assertTrue(page.next is None or page.next > after)
            after = page.next
        return selected

    def test_the_database_passes_over_no_selected_recipient(self) -> None:
        mailboxes = (
            *("ann@one.example", "Ann.B+c@One.example", "a_n@two.example", "o'neill@one.example"),
            *(
                '"a b"@one.example',
                '"a@b"@x.one.example',
                "m\u00fcller@one.example",
                "aNN@[192.0.2.1]",
            ),
        )
        self.accept(
            *(
                message(id, mailboxes[id % 8], mailboxes[id // 8], sender=sender)
                for id, sender in enumerate((*mailboxes, None) * 7, 1)
                if id < 64
            )
        )
        patterns = (
            *("ann@one.example", "*@one.example", "a*", "*n@one.example", "?n*@*", "<>", "x@y.z"),
            *(
                "*@*.example",
                '"*',
                "?a b?@one.example",
                "a_n@*",
                "m*r@one.example",
                "*'*@one.example",
            ),
            *(
                "A*@ONE.EXAMPLE",
                "*",
                "ann?one.example",
                "%@one.example",
                "?a*@one.example",
                "*a b?@ONE.EXAMPLE",
                "\u212a*@one.example",
            ),
        )
        entries = [
            (inspected.message, entry)
            for id in range(1, 64)
            if (inspected := self.inspect(id)) is not None
            for entry in inspected.recipients
        ]
        for filters in (
            *({"to": pattern} for pattern in patterns),
            *({"from": pattern} for pattern in patterns),
            *({"domain": domain} for domain in ("one.example", ".example", "x.example")),
            *({"state": state} for state in STATES),
            {"to": "a*", "from": "*@one.example", "domain": "one.example", "state": "queued"},
        ):
            selection = Selection.parse(filters, now=NOW)
            expected: dict[int, list[int]] = {}
            for each, entry in entries:
                if selection.picks_recipient(entry) and selection.picks_message(
                    each.id, each.envelope.reverse_path
                ):
                    expected.setdefault(int(each.id), []).append(entry.recipient.number)
            for limit, reach in ((100, 4000), (3, 5), (1, 1)):
                selected = self.all_pages(
                    lambda after, asked=(selection, limit, reach): Browse(
                        asked[0], after, asked[1], asked[2]
                    )
                )
                self.assertEqual(selected, sorted(expected.items()), (filters, limit))

    def test_an_intervention_in_many_slices_changes_every_selected_recipient(self) -> None:
        self.accept(*(message(id, "a@one.example", "b@two.example") for id in range(1, 701)))
        self.accept(message(701, "a@one.example"), lease=True)
        selection = Selection(domain="one.example")
        for action, held in (("hold", 701), ("retry", 701), ("release", 0), ("retry", 0)):
            changed, leased, after = 0, 0, FIRST
            while True:
                page = self.page(Intervene(action, selection, NOW + 5, after))  # type: ignore[arg-type]
                changed += len(page.more) + sum(len(each.recipients) for each in page.messages)
                leased += sum(entry.leased for each in page.messages for entry in each.recipients)
                if page.next is None:
                    break
                after = page.next
            expected = {"hold": (701, 1), "release": (701, 1)}.get(action, (0 if held else 700, 0))
            self.assertEqual((changed, leased), expected, action)
            self.assertEqual(self.store.census().held, held)
        first = self.page(Browse(selection)).messages
        self.assertTrue(all(each.recipients[0].next_attempt == NOW + 5 for each in first))

    def test_a_selection_may_name_more_ids_than_a_slice(self) -> None:
        self.accept(*(message(id) for id in range(1, 501)))
        selection = Selection(ids=tuple(QueueId(id) for id in range(1, 501)))
        listed, after = 0, FIRST
        while True:
            page = self.page(Browse(selection, after))
            listed += len(page.messages)
            if page.next is None:
                break
            after = page.next
        self.assertEqual(listed, 500)

    def test_a_leased_recipient_is_shown_as_leased(self) -> None:
        self.accept(message(1), lease=True)
        inspected = self.inspect(1)
        assert inspected is not None
        self.assertTrue(inspected.recipients[0].leased)
        self.assertEqual(inspected.recipients[0].state, "queued")

    # One message.

    def test_an_inspected_message_has_all_recipients_with_their_states(self) -> None:
        sent = message(1, "a@one.example", "b@two.example")
        self.accept(sent, lease=True)
        self.do(deferred(sent, NOW + 60, 1))
        inspected = self.inspect(1)
        assert inspected is not None
        self.assertEqual(b"".join(inspected.message.body.chunks()), b"".join(sent.body.chunks()))
        first, second = inspected.recipients
        self.assertEqual((first.state, first.leased), ("queued", True))
        self.assertEqual((second.state, second.next_attempt), ("deferred", NOW + 60))
        self.assertEqual(second.recipient.last_reply, DEFERRED)

    def test_inspecting_an_unknown_id_returns_none(self) -> None:
        self.assertIsNone(self.inspect(1))

    # Retrying.

    def test_a_retried_recipient_is_due(self) -> None:
        self.accept(message(1), lease=True)
        self.do(deferred(message(1), NOW + 3600))
        self.assertEqual(self.intervene("retry"), [(1, [0])])
        self.assertEqual(self.survey(), {"next.example": NOW + 1})
        self.assertEqual(self.due(NOW + 1), [(1, [0])])

    def test_leased_and_held_recipients_are_not_retried(self) -> None:
        self.accept(message(1), lease=True)
        self.accept(message(2))
        self.intervene("hold", ids=[str(QueueId(2))])
        self.assertEqual(self.intervene("retry"), [])
        self.assertEqual(self.due(NOW + 1), [])

    # Holding and releasing.

    def test_a_held_recipient_is_never_due_and_is_counted(self) -> None:
        self.accept(message(1), message(2))
        self.assertEqual(self.intervene("hold", ids=[str(QueueId(1))]), [(1, [0])])
        self.assertEqual(self.due(NOW + 2 * LIFETIME), [(2, [0])])
        self.assertEqual(self.state(1), ["held"])
        self.assertEqual(self.store.census().held, 1)
        self.restart()
        self.assertEqual(self.due(NOW + 2 * LIFETIME), [(2, [0])])
        self.assertEqual(self.store.census().held, 1)

    def test_a_survey_does_not_release_held_recipients(self) -> None:
        self.accept(message(1))
        self.intervene("hold")
        self.assertEqual(self.survey(NOW, NOW - 1), {})
        self.assertEqual(self.state(1), ["held"])

    def test_only_selected_recipients_are_held(self) -> None:
        self.accept(message(1, "a@one.example", "b@two.example"))
        self.assertEqual(self.intervene("hold", domain="two.example"), [(1, [1])])
        self.assertEqual(self.due(), [(1, [0])])

    def test_holding_a_held_recipient_changes_nothing(self) -> None:
        self.accept(message(1))
        self.intervene("hold")
        self.assertEqual(self.intervene("hold"), [])
        self.assertEqual(self.store.census().held, 1)

    def test_a_released_recipient_is_due(self) -> None:
        self.accept(message(1), message(2))
        self.intervene("hold")
        self.assertEqual(self.intervene("release", ids=[str(QueueId(1))]), [(1, [0])])
        self.assertEqual(self.due(NOW + 1), [(1, [0])])
        self.assertEqual(self.store.census().held, 1)

    def test_releasing_a_recipient_that_is_not_held_changes_nothing(self) -> None:
        self.accept(message(1), lease=True)
        self.do(deferred(message(1), NOW + 3600))
        self.assertEqual(self.intervene("release"), [])
        self.assertEqual(self.survey(), {"next.example": NOW + 3600})

    def test_a_recipient_held_while_leased_is_held_after_a_deferral(self) -> None:
        self.accept(message(1), message(2))
        leased = self.lease().messages
        self.intervene("hold")
        self.do(deferred(leased[0], NOW + 60), untried(leased[1]))
        self.assertEqual(self.due(NOW + LIFETIME), [])
        self.assertEqual((self.state(1), self.state(2)), (["held"], ["held"]))
        self.intervene("release")
        self.assertEqual(self.due(NOW + 1), [(1, [0]), (2, [0])])

    def test_a_recipient_held_while_leased_can_still_be_delivered(self) -> None:
        self.accept(message(1), lease=True)
        self.intervene("hold")
        self.do(settled(message(1)))
        census = self.store.census()
        self.assertEqual((census.messages, census.recipients, census.held), (0, 0, 0))

    # Removing.

    def test_removing_the_last_recipient_removes_the_message_and_its_file(self) -> None:
        body = self.large_body(1, b"x" * 300)
        self.accept(message(1, "a@one.example", "b@two.example", body=body))
        self.assertEqual(self.intervene("remove", domain="one.example"), [(1, [0])])
        self.assertEqual(self.state(1), ["queued"])
        self.assertEqual(self.stored_bodies(), [str(QueueId(1))])
        self.intervene("remove")
        self.assertIsNone(self.inspect(1))
        self.assertEqual(self.stored_bodies(), [])
        self.assertEqual(self.store.census().recipients, 0)

    def test_a_held_recipient_can_be_removed(self) -> None:
        self.accept(message(1))
        self.intervene("hold")
        self.assertEqual(self.intervene("remove", state="held"), [(1, [0])])
        self.assertEqual((self.store.census().held, self.store.census().messages), (0, 0))

    def test_a_recipient_removed_while_leased_leaves_after_a_deferral(self) -> None:
        self.accept(message(1), message(2))
        leased = self.lease().messages
        self.assertEqual(self.intervene("remove"), [(1, [0]), (2, [0])])
        self.assertEqual(self.intervene("remove"), [])
        self.assertEqual(
            self.do(deferred(leased[0], NOW + 60), untried(leased[1])),
            [Removed((RecipientNumber(0),))] * 2,
        )
        census = self.store.census()
        self.assertEqual((census.messages, census.recipients, census.deferred), (0, 0, 0))

    def test_a_recipient_removed_while_leased_can_still_be_delivered(self) -> None:
        self.accept(message(1), lease=True)
        self.intervene("remove")
        self.assertEqual(self.do(settled(message(1))), [None])
        self.assertEqual(self.store.census().messages, 0)

    def test_a_recipient_removed_while_leased_leaves_at_the_next_start(self) -> None:
        self.accept(message(1, body=self.large_body(1, b"x" * 300)), lease=True)
        self.accept(message(2))
        self.intervene("remove", ids=[str(QueueId(1))])
        self.restart()
        self.assertIsNone(self.inspect(1))
        self.assertEqual(self.due(), [(2, [0])])
        self.assertEqual(self.store.census().recipients, 1)
        self.assertEqual(self.stored_bodies(), [])

    def test_a_recipient_settled_and_removed_in_one_batch_leaves(self) -> None:
        self.accept(message(1), lease=True)
        self.do(deferred(message(1), NOW + 60), Intervene("remove", Selection(), NOW))
        self.assertEqual(self.store.census().recipients, 0)

    def test_a_dry_run_returns_the_recipients_and_changes_nothing(self) -> None:
        self.accept(message(1), message(2))
        for action in ("hold", "remove", "retry"):
            self.assertEqual(
                self.intervene(action, dry_run=True),  # type: ignore[arg-type]
                [(1, [0]), (2, [0])],
            )
        self.assertEqual(self.due(), [(1, [0]), (2, [0])])

    def test_the_states_are_queued_deferred_held_and_quarantined(self) -> None:
        self.assertEqual(STATES, ("queued", "deferred", "held", "quarantined"))

    # Counting.

    def test_a_tally_counts_by_age_state_and_reason(self) -> None:
        old, new = int(first_id(NOW - 7200)), int(first_id(NOW - 60))
        first = message(old, "a@one.example", "b@one.example")
        self.accept(first, message(new), message(new + 1))
        self.do(deferred(first, NOW + 60, 0, 1))
        self.intervene("hold", ids=[str(QueueId(new))])
        counts: dict[Any, int] = {}
        after = FIRST
        for limit in (1, 100):
            (tallied,) = self.do(Tally((first_id(NOW - 3600),), after, limit))
            assert isinstance(tallied, Tallied)
            for each, count in tallied.counts.items():
                key = each.age, each.deferred, each.held, each.code, each.ours
                counts[key] = counts.get(key, 0) + count
            after = FIRST if tallied.next is None else tallied.next
        # The first slice ends within the old message, whose other recipient is not counted.
        self.assertEqual(
            counts,
            {
                (0, True, False, 451, False): 1,
                (1, False, True, None, True): 1,
                (1, False, False, None, True): 1,
            },
        )

    def test_a_tally_counts_by_domain(self) -> None:
        old, new = int(first_id(NOW - 7200)), int(first_id(NOW - 60))
        first = message(old, "a@one.example", "b@two.example")
        self.accept(first, message(new, "c@one.example"))
        self.do(deferred(first, NOW + 60, 0))
        (tallied,) = self.do(Tally((first_id(NOW - 3600),), FIRST, 100))
        assert isinstance(tallied, Tallied)
        shown = {
            domain: (sorted((each.age, each.deferred, n) for each, n in counts.items()), int(id))
            for domain, (counts, id) in tallied.domains.items()
        }
        self.assertEqual(
            shown,
            {
                "one.example": ([(0, True, 1), (1, False, 1)], old),
                "two.example": ([(0, False, 1)], old),
            },
        )

    def test_a_tally_finds_the_oldest_message_that_waits(self) -> None:
        held, future, tried, new = (int(first_id(NOW - age)) for age in (9000, 8000, 7000, 60))
        first = message(tried, "a@one.example")
        self.accept(message(held), message(future), first, message(new))
        self.do(deferred(message(future), NOW + 900))
        self.do(deferred(first, NOW + 900))
        self.intervene("hold", ids=[str(QueueId(held))])

        def oldest(now: float, limit: int = 100) -> int | None:
            (tallied,) = self.do(Tally((first_id(NOW - 3600),), FIRST, limit, now))
            assert isinstance(tallied, Tallied)
            return tallied.oldest

        self.assertEqual(oldest(NOW), future)
        self.assertIsNone(oldest(NOW, 1))
        self.intervene("remove", ids=[str(QueueId(future))])
        self.assertEqual(oldest(NOW), tried)
        self.intervene("remove", ids=[str(QueueId(tried))])
        self.assertEqual(oldest(NOW), new)
        # One that was never tried, and is to be released later, does not wait yet.
        self.assertIsNone(oldest(NOW - 86_400))

    def test_the_recipients_of_domains_that_wait_are_counted(self) -> None:
        first = message(1, "a@one.example", "b@one.example", "c@two.example")
        self.accept(first, special(2, "d@one.example", priority=3), message(3, "e@one.example"))
        self.do(deferred(first, NOW + 900, 0))
        self.intervene("hold", ids=[str(QueueId(3))])
        for most, expected in ((1000, 3), (2, 2)):
            domains = ("one.example", "two.example", "three.example")
            (counts,) = self.do(CountWaiting(domains, most))
            assert isinstance(counts, WaitingCounts)
            self.assertEqual(
                counts.by_domain,
                {"one.example": expected, "two.example": 1, "three.example": 0},
            )


def picked(page: Page) -> list[tuple[int, list[int]]]:
    """Return the ids of a page with the numbers of their recipients."""
    return [
        (int(each.id), [int(entry.recipient.number) for entry in each.recipients])
        for each in page.messages
    ]
