"""Mail that waits in a directory, written by users of this machine, some of them hostile."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from tests.logs import logged_lines
from tests.tidy import TidyTestCase
from twisted_mta.agent.maildrop import Maildrop
from twisted_mta.agent.maildrop_counts import Counts, count_files
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.reply import Reply
from twisted_mta.message.maildrop import WaitingEnvelope, written
from twisted_mta.server.application_mail import Receipt, SubmissionRefused
from twisted_mta.submitter.waiting import keep
from twisted_mta.system.executors import inline_executor

NO_SUCH = Reply(550, "5.1.1", "No such mailbox here")
FULL = Reply(452, "4.3.1", "No room")
CONTENT = b"Subject: x\r\n\r\nhello\r\n"


class MaildropTestCase(TidyTestCase):
    """A directory, and an MTA that takes what it is given, with the answers of ``refused``."""

    def setUp(self) -> None:
        super().setUp()
        above = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, above)
        self.directory = os.path.join(above, "drop")
        self.clock = Clock()
        self.now = time.time()  # noqa: TID251 - that of the files
        self.submitted: list[dict[str, Any]] = []
        self.refused: dict[str, Reply] = {}
        self.waiting: list[Deferred[Receipt]] | None = None
        self.maildrop = self.make()

    def make(self, *, shared: bool = True) -> Maildrop:
        return Maildrop(
            self.directory,
            shared=shared,
            submit=self.submit,
            executor=inline_executor,
            clock=self.clock,
            wall_time=lambda: self.now,
            limit=lambda: 10_000,
            hostname="mta.example",
            notice_domain=lambda: "mta.example",
        )

    def submit(
        self, message: Any, *, recipients: Sequence[Mailbox], **others: Any
    ) -> Deferred[Receipt]:
        refused = {
            str(each): self.refused[str(each)] for each in recipients if str(each) in self.refused
        }
        if refused:
            return fail(SubmissionRefused(next(iter(refused.values())), refused))
        content = message if isinstance(message, bytes) else message.read()
        self.submitted.append({"content": content, "to": list(map(str, recipients)), **others})
        if self.waiting is not None:
            self.waiting.append(Deferred())
            return self.waiting[-1]
        return succeed(Receipt("1"))

    def start(self) -> None:
        self.maildrop.start()
        self.addCleanup(self.maildrop.stop)

    def keep(self, *recipients: str, sender: str = "ann@x", content: bytes = CONTENT) -> str:
        return keep(self.directory, WaitingEnvelope(sender, recipients), content)

    def put(self, octets: bytes, name: str = "mail-1") -> str:
        path = os.path.join(self.directory, name)
        with open(path, "wb") as file:
            file.write(octets)
        return path

    def look(self) -> list[str]:
        """Let the next look come; return the names in the directory."""
        self.clock.advance(5)
        return sorted(os.listdir(self.directory))


class Taking(MaildropTestCase):
    def test_a_message_is_taken_in_with_its_envelope_and_removed(self) -> None:
        self.start()
        envelope = WaitingEnvelope(
            "ann@x", ("bob@x", "eve@y"), notify="NEVER", returned="HDRS", envelope_id="a b"
        )
        keep(self.directory, envelope, CONTENT)
        self.assertEqual(self.look(), [])
        (sent,) = self.submitted
        self.assertEqual(sent["content"], CONTENT)
        self.assertEqual((sent["sender"], sent["to"]), ("ann@x", ["bob@x", "eve@y"]))
        self.assertEqual(sent["parameters"], {"RET": "HDRS", "ENVID": "a+20b"})
        self.assertEqual((sent["notify"], sent["user"]), ("NEVER", os.getuid()))

    def test_what_waits_at_the_start_is_taken_in_at_once(self) -> None:
        os.mkdir(self.directory)
        self.keep("bob@x")
        self.start()
        self.assertEqual(len(self.submitted), 1)

    def test_users_may_write_to_a_shared_directory_and_not_read_it(self) -> None:
        self.start()
        self.assertEqual(stat.S_IMODE(os.stat(self.directory).st_mode), 0o3733)
        self.maildrop = self.make(shared=False)
        self.start()
        self.assertEqual(stat.S_IMODE(os.stat(self.directory).st_mode), 0o700)

    def test_files_are_readable_for_the_group_of_the_directory_whatever_the_umask(self) -> None:
        os.mkdir(self.directory)
        before = os.umask(0o777)
        try:
            path = self.keep("bob@x")
        finally:
            os.umask(before)
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o640)

    def test_a_message_that_is_still_written_waits_and_an_abandoned_one_is_removed(self) -> None:
        self.start()
        self.put(written(WaitingEnvelope("a@x", ("b@x",)))[:20], "part-1")
        self.assertEqual(self.look(), ["part-1"])
        self.now += 2 * 86_400
        self.assertEqual(self.look(), [])
        self.assertEqual(self.submitted, [])

    def test_a_deferred_message_stays_and_is_tried_again_later(self) -> None:
        self.start()
        self.refused = {"bob@x": FULL}
        self.keep("bob@x", "eve@x")
        self.assertEqual(len(self.look()), 1)
        (trouble,) = self.maildrop.troubles()
        self.assertEqual((trouble.kind, trouble.severity), ("waiting", "warning"))
        self.assertTrue(trouble.text.startswith("1 message in "), trouble.text)
        self.refused = {}
        self.assertEqual(len(self.look()), 1)
        self.clock.advance(60)
        self.assertEqual(self.look(), [])
        self.assertEqual(list(self.maildrop.troubles()), [])
        self.assertEqual([each["to"] for each in self.submitted], [["bob@x", "eve@x"]])

    def test_refused_recipients_are_bounced_and_the_others_get_it(self) -> None:
        self.start()
        self.refused = {"nosuch@x": NO_SUCH}
        self.keep("bob@x", "nosuch@x", "no mailbox")
        self.assertEqual(self.look(), [])
        message, notice = self.submitted
        self.assertEqual(message["to"], ["bob@x"])
        self.assertEqual((notice["sender"], notice["to"]), ("", ["ann@x"]))
        for part in (b"550 5.1.1 No such mailbox here", b"553 5.1.3 Not a mailbox", CONTENT):
            self.assertIn(part, notice["content"])

    def test_a_notice_that_is_deferred_does_not_send_the_message_again(self) -> None:
        self.start()
        self.refused = {"nosuch@x": NO_SUCH, "ann@x": FULL}
        self.keep("bob@x", "nosuch@x")
        self.assertEqual(len(self.look()), 1)
        self.refused.pop("ann@x")
        self.clock.advance(60)
        self.assertEqual(self.look(), [])
        self.assertEqual([each["to"] for each in self.submitted], [["bob@x"], ["ann@x"]])

    def test_a_message_that_is_too_large_is_bounced(self) -> None:
        self.start()
        self.keep("bob@x", content=CONTENT + b"x" * 10_000)
        self.assertEqual(self.look(), [])
        (notice,) = self.submitted
        self.assertIn(b"552 5.3.4 Message exceeds the limit", notice["content"])

    def test_a_stop_waits_for_what_is_under_way_and_begins_nothing_more(self) -> None:
        self.waiting = []
        self.start()
        for _ in range(25):
            self.keep("bob@x")
        self.look()
        self.assertEqual(len(self.submitted), 20)
        stopped = self.maildrop.stop()
        self.assertNoResult(stopped)
        for each in self.waiting:
            each.callback(Receipt("1"))
        self.successResultOf(stopped)
        self.assertEqual(len(os.listdir(self.directory)), 5)


class Hostile(MaildropTestCase):
    def test_links_pipes_and_directories_are_set_aside_unread(self) -> None:
        self.start()
        good = written(WaitingEnvelope("a@x", ("b@x",))) + b"secret"
        secrets = [self.put(good, os.path.join("..", name)) for name in ("one", "two")]
        os.symlink(secrets[0], os.path.join(self.directory, "mail-1"))
        os.link(secrets[1], os.path.join(self.directory, "mail-2"))
        os.mkfifo(os.path.join(self.directory, "mail-3"))
        os.mkdir(os.path.join(self.directory, "mail-4"))
        self.assertEqual(self.look(), [f"refused-mail-{number}" for number in (1, 2, 3, 4)])
        self.assertEqual(self.submitted, [])
        self.assertTrue(all(map(os.path.exists, secrets)))

    def test_files_of_another_format_are_set_aside_and_others_go_on(self) -> None:
        self.start()
        good = written(WaitingEnvelope("a@x", ("b@x",)))
        for number, octets in enumerate(
            (
                b"",
                b"hello",
                good.partition(b"\n\n")[0],
                good.replace(b"sender", b"sander"),
                good.replace(b"sender a@x\n", b"sender a\n"),
                good.replace(b"to b@x\n", b""),
                good.replace(b"b@x", b"\xff@x"),
                good[:-1] + b"to c@x\n" * 200_000,
            )
        ):
            self.put(octets, f"mail-{number}")
        self.put(good + CONTENT, "mail-good")
        names = self.look()
        self.assertEqual(names, [f"refused-mail-{number}" for number in range(8)])
        self.assertEqual([each["to"] for each in self.submitted], [["b@x"]])
        self.now += 8 * 86_400
        self.assertEqual(self.look(), [])

    def test_a_user_with_many_messages_does_not_keep_others_waiting(self) -> None:
        if os.getuid() != 0:
            self.skipTest("only root can make files of other users")
        self.start()
        good = written(WaitingEnvelope("a@x", ("flood@x",)))
        for number in range(1_500):
            os.chown(self.put(good, f"mail-{number}"), 1000, -1)
        other = written(WaitingEnvelope("a@x", ("other@x",)))
        os.chown(self.put(other, "mail-other"), 1001, -1)
        self.look()
        self.assertEqual(len(self.submitted), 1_000)
        places = [number for number, each in enumerate(self.submitted) if each["user"] == 1001]
        self.assertEqual(len(places), 1)
        self.assertLess(places[0], 2)
        self.look()
        self.assertEqual(len(self.submitted), 1_501)

    def test_a_user_who_fills_the_directory_hides_no_message_and_no_time_is_lost(self) -> None:
        self.start()
        for number in range(3_000):
            self.put(b"", f"part-{number}")
        self.keep("bob@x")
        self.assertEqual(len(self.look()), 3_000)
        self.assertEqual(len(self.submitted), 1)

    def test_what_waits_and_what_is_set_aside_is_counted(self) -> None:
        self.start()
        self.refused = {"bob@x": FULL}
        for number in range(25):
            self.keep("bob@x")
            self.put(b"no message", f"mail-{number}")
        self.put(b"", "part-1")
        self.look()
        self.assertEqual(self.maildrop.counts, Counts(waiting=25, set_aside=25))
        self.assertEqual(count_files(self.directory), self.maildrop.counts)
        self.refused = {}
        self.clock.advance(60)
        self.assertEqual(self.maildrop.counts, Counts(waiting=0, set_aside=25))

    def test_too_many_recipients_are_no_message(self) -> None:
        self.start()
        lines = b"".join(b"to b%d@x\n" % number for number in range(1_001))
        self.put(b"twisted-mta waiting mail 1\nsender a@x\n" + lines + b"\n" + CONTENT)
        self.assertEqual(self.look(), ["refused-mail-1"])

    def test_only_root_may_name_another_user(self) -> None:
        self.start()
        envelope = WaitingEnvelope("a@x", ("b@x",), user=1234)
        path = keep(self.directory, envelope, CONTENT)
        self.look()
        self.assertEqual(self.submitted[0]["user"], 1234)
        if os.getuid() == 0:
            path = keep(self.directory, envelope, CONTENT)
            os.chown(path, 1000, -1)
            self.look()
            self.assertEqual(self.submitted[1]["user"], 1000)

    def test_a_directory_that_is_none_is_logged_once(self) -> None:
        with open(self.directory, "wb"):
            pass
        lines = logged_lines(self, "cannot be taken in")
        self.start()
        self.clock.advance(5)
        self.clock.advance(5)
        self.assertEqual(len(lines), 1)
        (trouble,) = self.maildrop.troubles()
        self.assertIn("cannot be taken in: ", trouble.text)
