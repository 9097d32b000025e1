"""The suspended destinations of a store (`queue.operator.operations`)."""

from __future__ import annotations

from twisted_mta.queue.operator.operations import ReadSuspended, Resume, Suspend
from twisted_mta.queue.operator.suspended import SuspendedDestination
from twisted_mta.queue.store.contract import Operation

from ..mail import NOW
from .harness import StoreHarness

NET = SuspendedDestination("example.net", NOW, None, "they are moving \u2013 \0", "ann")
HOP = SuspendedDestination("smtp:relay.example:25", NOW + 1, NOW + 600, "", "bob")


class SuspendedConformance(StoreHarness):
    """What a store remembers of suspended destinations."""

    def suspended(self, operation: Operation) -> list[SuspendedDestination]:
        (result,) = self.do(operation)
        return list(result.destinations)

    def test_no_destination_is_suspended_at_first(self) -> None:
        self.assertEqual(self.suspended(ReadSuspended()), [])
        self.assertEqual(self.suspended(Resume(None)), [])
        self.assertEqual(self.suspended(Resume("example.net")), [])

    def test_suspended_destinations_are_there_after_a_restart(self) -> None:
        self.do(Suspend(HOP))
        self.assertEqual(self.suspended(Suspend(NET)), [NET, HOP])
        self.store.close()
        self.store = self.new_store()
        self.assertEqual(self.store.open().suspended, (NET, HOP))
        self.assertEqual(self.suspended(ReadSuspended()), [NET, HOP])

    def test_one_that_is_suspended_again_has_the_new_reason_and_time(self) -> None:
        again = SuspendedDestination("example.net", NOW + 5, NOW + 50, "longer", "cat")
        self.do(Suspend(NET), Suspend(HOP))
        self.assertEqual(self.suspended(Suspend(again)), [again, HOP])

    def test_one_or_all_are_resumed(self) -> None:
        self.do(Suspend(NET), Suspend(HOP))
        self.assertEqual(self.suspended(Resume("example.net")), [NET])
        self.assertEqual(self.suspended(ReadSuspended()), [HOP])
        self.do(Suspend(NET))
        self.assertEqual(self.suspended(Resume(None)), [NET, HOP])
        self.assertEqual(self.suspended(ReadSuspended()), [])
