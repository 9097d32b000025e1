"""The watch over troubles: since when they are there, and the lines about them in the log."""

import re

import click
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from tests.logs import logged_events, logged_lines
from tests.tidy import TidyTestCase
from twisted_mta.cli.command import main
from twisted_mta.health.clock_steps import ClockSteps
from twisted_mta.health.growth import Growth
from twisted_mta.health.lately import Lately
from twisted_mta.health.trouble import KINDS, SEVERITIES, Trouble, ordered
from twisted_mta.health.watch import Watch

NOW = 1_790_000_000.0
FULL = Trouble(kind="disk", text="12 octets are free", stops=True)
LOW = Trouble(kind="disk", text="200 octets are free", severity="warning")
DEAD = Trouble(kind="next_hops", text="smtp:dead.example is suspended")


class Kinds(TidyTestCase):
    def test_each_kind_says_when_it_is_there_and_what_to_do(self) -> None:
        for name, kind in KINDS.items():
            self.assertEqual(name, kind.name)
            self.assertTrue(kind.when.endswith("."), name)
            self.assertTrue(all(each in SEVERITIES for each in kind.severities), name)
            self.assertEqual(bool(kind.remedy), kind.logged, name)
            if kind.remedy:
                self.assertTrue(kind.remedy.endswith("."), name)

    def test_the_commands_of_remedies_exist(self) -> None:
        for name, kind in KINDS.items():
            for words in re.findall(r"twisted-mta((?: [a-z][a-z-]*)*)", kind.remedy):
                command: click.Command = main
                for word in words.split():
                    if not isinstance(command, click.Group):
                        break
                    found = command.get_command(click.Context(command), word)
                    self.assertIsNotNone(found, (name, words))
                    assert found is not None
                    command = found

    def test_an_unknown_kind_is_refused(self) -> None:
        self.assertRaises(KeyError, Trouble, kind="bad luck", text="")

    def test_of_one_trouble_in_several_processes_the_worst_is_kept(self) -> None:
        self.assertEqual(ordered((DEAD, LOW, FULL, LOW)), (FULL, DEAD))

    def test_a_trouble_has_the_remedy_and_severity_of_its_kind(self) -> None:
        self.assertEqual(FULL.severity, "critical")
        self.assertIn("Free space", FULL.remedy)


class WatchTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.wall = NOW
        self.watch = Watch(clock=self.clock, wall_time=lambda: self.wall)
        self.lines = logged_lines(self)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.wall += seconds


class Since(WatchTestCase):
    def test_a_trouble_keeps_its_begin_while_its_text_changes(self) -> None:
        (first,) = self.watch.seen([LOW])
        self.assertEqual((first.since, first.seconds), (NOW, 0.0))
        self.pass_time(30)
        (second,) = self.watch.seen([FULL])
        self.assertEqual((second.since, second.seconds), (NOW, 30.0))
        self.assertEqual((second.text, second.severity), (FULL.text, "critical"))

    def test_a_step_of_the_wall_clock_changes_no_duration(self) -> None:
        self.watch.seen([FULL])
        self.clock.advance(10)
        self.wall -= 3600
        (trouble,) = self.watch.seen([FULL])
        self.assertEqual((trouble.since, trouble.seconds), (NOW, 10.0))

    def test_one_that_comes_again_begins_anew(self) -> None:
        self.watch.seen([FULL])
        self.pass_time(5)
        self.assertEqual(self.watch.seen([]), ())
        self.pass_time(5)
        (trouble,) = self.watch.seen([FULL])
        self.assertEqual((trouble.since, trouble.seconds), (NOW + 10, 0.0))


class Lines(WatchTestCase):
    def test_the_begin_and_the_end_are_logged_once(self) -> None:
        events = logged_events(self)
        for troubles in ([FULL], [FULL], [FULL], [], []):
            self.watch.seen(troubles)
            self.pass_time(2)
        self.assertEqual(
            self.lines,
            [
                f"disk: 12 octets are free. {FULL.remedy}",
                "disk: over after 6 s: 12 octets are free",
            ],
        )
        self.assertEqual(
            [(each["log_level"], each["kind"], each["severity"]) for each in events],
            [(LogLevel.error, "disk", "critical"), (LogLevel.info, "disk", "critical")],
        )

    def test_a_change_of_severity_is_logged(self) -> None:
        for trouble in (LOW, FULL, FULL):
            self.watch.seen([trouble])
        self.assertEqual(len(self.lines), 2)
        self.assertIn("12 octets", self.lines[1])

    def test_a_trouble_that_comes_and_goes_gets_some_lines_and_then_one_a_minute(self) -> None:
        for _ in range(300):
            self.watch.seen([FULL])
            self.pass_time(1)
            self.watch.seen([])
            self.pass_time(1)
        self.assertLessEqual(len(self.lines), 4 + 10)
        self.assertIn("has come and gone since the last line", self.lines[-1])
        before = len(self.lines)
        self.pass_time(120)
        self.watch.seen([])
        self.assertEqual(len(self.lines), before + 1)
        self.assertIn("and is over: 12 octets are free", self.lines[-1])
        self.pass_time(600)
        self.watch.seen([])
        self.watch.seen([FULL])
        self.assertEqual(self.lines[before + 1 :], [f"disk: 12 octets are free. {FULL.remedy}"])

    def test_starts_and_drains_have_lines_of_their_own(self) -> None:
        for kind in ("start", "drain"):
            self.watch.seen([Trouble(kind=kind, text="it is", stops=True)])
            self.watch.seen([])
        self.assertEqual(self.lines, [])


class ClockOfTheMachine(TidyTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.wall = NOW
        self.steps = ClockSteps(clock=self.clock, wall_time=lambda: self.wall)

    def found(self, seconds: float, step: float = 0.0) -> list[str]:
        self.clock.advance(seconds)
        self.wall += seconds + step
        return [each.text for each in self.steps.troubles()]

    def test_a_step_is_shown_for_ten_minutes(self) -> None:
        self.assertEqual(self.found(0), [])
        self.assertEqual(self.found(2), [])
        (text,) = self.found(2, step=-3600)
        self.assertIn("was set back by 3,600 s", text)
        (text,) = self.found(10)
        self.assertIn("10 s ago", text)
        self.assertEqual(self.found(600), [])
        (text,) = self.found(2, step=5)
        self.assertIn("was set ahead by 5 s", text)

    def test_a_clock_that_is_kept_right_by_small_steps_is_none(self) -> None:
        self.found(0)
        for _ in range(100):
            self.assertEqual(self.found(2, step=1.5), [])
        self.assertEqual(self.found(86_400, step=43.0), [])


class GrowingCount(TidyTestCase):
    def test_growth_counts_for_some_hours(self) -> None:
        clock = Clock()
        growth = Growth(clock)
        self.assertEqual(growth.of(7), 0)
        clock.advance(86_400)
        self.assertEqual(growth.of(9), 2)
        clock.advance(6 * 3600)
        self.assertEqual(growth.of(10), 3)
        self.assertEqual(growth.of(10), 3)
        clock.advance(6 * 3600 + 1)
        self.assertEqual(growth.of(10), 0)
        self.assertEqual(growth.of(11), 1)
        self.assertEqual(growth.of(4), 0)


class FailuresOfLate(TidyTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.lately = Lately("tls", self.clock)

    def subjects(self) -> list[str]:
        return [each.subject for each in self.lately.troubles()]

    def test_a_failure_is_shown_until_the_subject_succeeds(self) -> None:
        self.lately.failed("mx.a:25", "no TLS")
        self.lately.failed("mx.b:25", "no TLS")
        self.assertEqual(self.subjects(), ["mx.a:25", "mx.b:25"])
        self.lately.succeeded("mx.a:25")
        self.assertEqual(self.subjects(), ["mx.b:25"])

    def test_it_is_forgotten_after_some_hours(self) -> None:
        self.lately.failed("mx.a:25", "no TLS")
        self.clock.advance(6 * 3600)
        self.assertEqual(self.subjects(), ["mx.a:25"])
        self.clock.advance(1)
        self.assertEqual(self.subjects(), [])

    def test_only_the_latest_are_kept(self) -> None:
        for number in range(1000):
            self.lately.failed(f"mx{number}:25", "no TLS")
        self.assertEqual(self.subjects(), [f"mx{number}:25" for number in range(990, 1000)])
