"""What ends with the reactor."""

from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.system.shutdown import AtShutdown


class Reactor(ReactorBase):
    """One with events, and without sockets."""

    def installWaker(self) -> None:
        pass

    def removeAll(self) -> list[object]:
        return []


class Shutdown(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Reactor()
        self.calls: list[str] = []
        self.reactor.addSystemEventTrigger("during", "shutdown", self.calls.append, "over")
        self.ended: Deferred[None] = Deferred()
        self.at_shutdown = AtShutdown(self.reactor, self.end)

    def end(self) -> Deferred[None]:
        self.calls.append("end")
        return self.ended

    def shut_down(self) -> list[str]:
        self.reactor.fireSystemEvent("shutdown")
        return self.calls

    def test_the_reactor_waits_for_the_end(self) -> None:
        self.at_shutdown.start()
        self.at_shutdown.start()
        self.assertEqual(self.shut_down(), ["end"])
        self.ended.callback(None)
        self.assertEqual(self.calls, ["end", "over"])

    def test_triggers_of_the_application_come_first(self) -> None:
        self.at_shutdown.start()
        self.reactor.addSystemEventTrigger("before", "shutdown", self.calls.append, "application")
        self.assertEqual(self.shut_down(), ["application", "end"])

    def test_nothing_is_called_after_a_stop(self) -> None:
        self.at_shutdown.start()
        self.at_shutdown.stop()
        self.assertEqual(self.shut_down(), ["over"])

    def test_a_trigger_of_the_application_may_stop_it(self) -> None:
        self.at_shutdown.start()
        self.reactor.addSystemEventTrigger("before", "shutdown", self.at_shutdown.stop)
        self.assertEqual(self.shut_down(), ["over"])
        self.assertEqual(self.flushWarnings(), [])

    def test_a_reactor_without_events_never_ends(self) -> None:
        at_shutdown = AtShutdown(Clock(), self.end)
        at_shutdown.start()
        at_shutdown.stop()
        self.assertEqual(self.calls, [])
