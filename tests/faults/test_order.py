"""The order on the disk, by system calls: mail is durable before it is acknowledged."""

import re

from twisted.trial.unittest import SynchronousTestCase

from ..functional.machine import LOOPBACK, need
from ..functional.mail import ProgramTestCase, message, message_full_of_dots, submit
from ..functional.sinks import Sink
from .traced import TracedMTA, completed


class Order(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        need("strace")
        self.sink = self.enterContext(Sink(self.home))
        route = f"relay.example=smtp://{LOOPBACK}:{self.sink.port}"
        self.mta = self.enterContext(TracedMTA(self.home, "--route", route))

    def calls(self) -> list[str]:
        """End the MTA; return its system calls from the first MAIL on."""
        self.assertEqual(self.mta.terminate(), 0)
        calls = self.mta.calls()
        first = next(number for number, call in enumerate(calls) if '"250 2.1.0' in call)
        return calls[first:]

    def assertOrder(self, calls: list[str], *patterns: str) -> None:
        """Each pattern matches a call behind that of the pattern before."""
        place = 0
        for pattern in patterns:
            rest = [n for n in range(place, len(calls)) if re.search(pattern, calls[n])]
            self.assertTrue(rest, f"no {pattern} in\n" + "\n".join(calls[place:]))
            place = rest[0] + 1

    def assertNever(self, calls: list[str], pattern: str, before: str) -> None:
        """No call that matches ``pattern`` comes before the first that matches ``before``."""
        found = (number for number, call in enumerate(calls) if re.search(before, call))
        end = next(found, len(calls))
        self.assertEqual([call for call in calls[:end] if re.search(pattern, call)], [])

    def test_a_small_message_is_committed_before_it_is_acknowledged(self) -> None:
        submit(self.mta.smtp, message(), "bob@localhost", starttls=False)
        self.mta.wait_for_mail("localhost", "bob")
        calls = self.calls()
        self.assertNever(calls, '"250 2.0.0', before=r"^fdatasync\(.*-wal>")
        self.assertOrder(calls, '"354 ', r"^fdatasync\(.*-wal>", '"250 2.0.0')

    def test_a_large_message_is_synced_then_its_folder_then_committed_then_acknowledged(
        self,
    ) -> None:
        submit(self.mta.smtp, message_full_of_dots(200_000), "bob@localhost", starttls=False)
        self.mta.wait_for_mail("localhost", "bob")
        calls = self.calls()
        self.assertNever(calls, r"^f(data)?sync\(.*-wal>", before=r"^fsync\(\d+<.*/body>")
        self.assertNever(calls, '"250 2.0.0', before=r"^f(data)?sync\(.*-wal>")
        self.assertOrder(
            calls,
            r"^f(data)?sync\(.*/body/[^/>]+>",
            r"^fsync\(\d+<.*/body>",
            r"^f(data)?sync\(.*-wal>",
            '"250 2.0.0',
        )

    def test_a_body_is_removed_only_after_the_commit_that_settles_it(self) -> None:
        submit(self.mta.smtp, message_full_of_dots(200_000), "bob@localhost", starttls=False)
        self.mta.wait_for_mail("localhost", "bob")
        self.assertOrder(
            self.calls(),
            r"^f(data)?sync\(.*-wal>",  # accepted
            r"^fsync\(\d+<.*/new>",  # delivered
            r"^f(data)?sync\(.*-wal>",  # settled
            r"^unlink\(.*/body/",
        )

    def test_a_maildir_file_is_synced_moved_and_its_folder_synced_before_it_is_settled(
        self,
    ) -> None:
        submit(self.mta.smtp, message(), "bob@localhost", starttls=False)
        self.mta.wait_for_mail("localhost", "bob")
        self.assertOrder(
            self.calls(),
            r"^f(data)?sync\(.*-wal>",  # accepted
            r"^f(data)?sync\(.*/bob/tmp/",
            r"^(link|rename)\w*\(.*/bob/tmp/.*/bob/new/",
            r"^fsync\(\d+<.*/bob/new>",
            r"^f(data)?sync\(.*-wal>",  # settled
        )

    def test_a_message_is_committed_before_it_is_relayed(self) -> None:
        submit(self.mta.smtp, message(), "bob@relay.example", starttls=False)
        self.sink.wait_for_messages()
        calls = self.calls()
        self.assertNever(calls, "RCPT TO:<bob@relay", before=r"^f(data)?sync\(.*-wal>")
        self.assertOrder(calls, r"^f(data)?sync\(.*-wal>", "RCPT TO:<bob@relay", r"sync\(.*-wal>")


class Trace(SynchronousTestCase):
    def test_calls_are_in_the_order_of_their_return(self) -> None:
        lines = (
            "7 fsync(3</a> <unfinished ...>",
            '8 sendto(4<s>, "250 ", 4) = 4',
            "7 <... fsync resumed>) = 0",
            "7 +++ killed by SIGKILL +++",
        )
        self.assertEqual(completed(lines), ['sendto(4<s>, "250 ", 4) = 4', "fsync(3</a>) = 0"])
