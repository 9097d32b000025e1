"""Lists with members that do not exist: the others get the mail, and a notice is sent."""

from __future__ import annotations

from typing import Any

from tests.logs import logged_lines
from twisted_mta.config import QueueSettings

from .routed_mtas import CONTENT, RoutedTestCase

ALIASES = """\
carol: carol, carol@b.example
team: ghost, eve, Ghost+x, carol@b.example, ann
dead: ghost, spook
"""


class MissingMembers(RoutedTestCase):
    def begin_with(self, aliases: str = ALIASES, **settings: Any) -> None:
        settings = {"recipients": "existing", **settings}
        self.begin("ab", {"a": aliases}, a=settings)
        for name in ("ann", "eve", "owner"):
            self.mtas["a"].files.make_directories(self.maildir(name))

    def maildir(self, name: str) -> str:
        return f"{self.mtas['a'].mta.config.maildir}/a.example/{name}/new"

    def test_a_local_copy_without_a_mailbox_bounces_to_the_sender(self) -> None:
        self.begin_with()
        self.assertTrue(self.send("carol@a.example").startswith("250 "))
        self.settle()
        self.assertEqual(len(self.mail("b", "carol")), 1)
        (notice,) = self.mail("a", "ann")
        self.assertIn(b"Final-Recipient: rfc822; carol@a.example", notice)
        self.assertIn(b"Action: failed\nStatus: 5.1.1", notice)
        self.assertFalse(self.mtas["a"].files.is_directory(self.maildir("carol")))
        # With a mailbox, there is one copy here and one there.
        self.mtas["a"].files.make_directories(self.maildir("carol"))
        self.send("carol@a.example")
        self.settle()
        self.assertEqual([len(self.mail(name, "carol")) for name in "ab"], [1, 2])
        self.assertEqual(len(self.mail("a", "ann")), 1)

    def test_existing_members_get_the_mail_and_the_sender_one_bounce(self) -> None:
        self.begin_with()
        self.send("team@a.example", "eve@a.example")
        self.settle()
        self.assertEqual(len(self.mail("a", "eve")), 1)
        self.assertEqual(len(self.mail("b", "carol")), 1)
        copy, notice = sorted(self.mail("a", "ann"), key=len)
        self.assertIn(b"Good morning!", copy)
        self.assertEqual(notice.count(b"Status: 5.1.1"), 2)
        self.assertIn(b"<ghost@a.example>\n    to which mail for <team@a.example> is", notice)

    def test_without_a_notice_a_missing_member_is_an_unreported_failure(self) -> None:
        self.begin_with()
        self.send("carol@a.example", sender="")
        client = self.mtas["a"].connect(("127.0.0.1", 25))
        client.say("MAIL FROM:<ann@a.example>", "RCPT TO:<carol@a.example> NOTIFY=NEVER", "DATA")
        (answer,) = client.send(CONTENT + b".\r\n")
        self.assertTrue(answer.startswith("250 "))
        self.settle()
        self.assertEqual(self.failures("a"), 2)
        self.assertEqual(self.mail("a", "ann"), [])

    def test_bounce_postmaster_reports_missing_members_of_mail_without_a_sender(self) -> None:
        self.begin_with(queue=QueueSettings(bounce_postmaster=True))
        self.send("carol@a.example", sender="")
        self.settle()
        (notice,) = self.mail("a", "postmaster")
        self.assertIn(b"Final-Recipient: rfc822; carol@a.example", notice)

    def test_the_owner_of_a_list_gets_the_notice_instead_of_the_sender(self) -> None:
        self.begin_with(ALIASES + "owner-team: owner\nall: team, spook\n")
        client = self.mtas["a"].connect(("127.0.0.1", 25))
        client.say("MAIL FROM:<ann@a.example>", "RCPT TO:<all@a.example> NOTIFY=NEVER", "DATA")
        client.send(CONTENT + b".\r\n")
        self.settle()
        (notice,) = self.mail("a", "owner")
        self.assertIn(b"To: <owner-team@a.example>", notice)
        self.assertEqual(notice.count(b"Status: 5.1.1"), 2)
        self.assertNotIn(b"spook", notice)
        self.assertIn(b"Subject: Members of your list that get no mail\n", notice)
        self.assertIn(b"A message for a list that you look after", notice)
        self.assertNotIn(b"our message", notice)  # it is not the owner's
        self.assertIn(b"The message is attached.", notice.replace(b"\n", b" "))
        self.assertEqual(
            self.failures("a"), 1
        )  # spook's list has no owner, and its sender is quiet

    def test_an_owner_that_does_not_exist_is_passed_over(self) -> None:
        self.begin_with(ALIASES + "owner-team: spook\nall: team\nowner-all: owner\n")
        for list, reader in (("team", "ann"), ("all", "owner")):
            self.send(f"{list}@a.example")
            self.settle()
            self.assertIn(b"Status: 5.1.1", b"".join(self.mail("a", reader)))
        self.assertFalse(self.mtas["a"].files.is_directory(self.maildir("owner-team")))

    def test_a_notice_makes_no_mailbox_for_a_local_sender_that_does_not_exist(self) -> None:
        # Otherwise a client could make mailboxes by forged senders of our domains.
        self.begin_with()
        for sender in ("forged", "dead"):
            self.send("team@a.example", sender=f"{sender}@a.example")
            self.settle()
            self.assertFalse(self.mtas["a"].files.is_directory(self.maildir(sender)))
            self.assertTrue(self.send(f"{sender}@a.example").startswith("550 5.1.1 "))
        self.assertEqual(self.failures("a"), 4)

    def test_a_list_without_any_existing_member_is_refused(self) -> None:
        self.begin_with()
        self.assertTrue(self.send("dead@a.example").startswith("550 5.1.1 "))

    def test_missing_members_refuse_refuses_every_list_with_a_missing_member(self) -> None:
        self.begin_with(missing_members="refuse")
        for name in ("carol", "team", "dead"):
            self.assertTrue(self.send(f"{name}@a.example").startswith("550 5.1.1 "), name)
        self.assertTrue(self.send("eve@a.example").startswith("250 "))

    def test_postmaster_is_accepted_with_missing_members(self) -> None:
        for setting in ("notice", "refuse"):
            self.setUp()
            self.begin_with("postmaster: ghost, eve\n", missing_members=setting)
            self.assertTrue(self.send("postmaster@a.example").startswith("250 "), setting)
            self.settle()
            there = "eve" if setting == "notice" else "postmaster"
            self.assertEqual(len(self.mail("a", there)), 1, setting)

    def test_a_member_refused_by_an_error_route_bounces(self) -> None:
        routes = (("refused.example", "error:5.1.6 Moved"), ("waits.example", "error:4.3.2 Later"))
        self.begin_with(
            "team: x@refused.example, y@waits.example, eve\n"
            "all: x@refused.example, y@waits.example\n",
            routes=routes,
        )
        self.send("team@a.example")
        self.settle()
        self.assertEqual(len(self.mail("a", "eve")), 1)
        (notice,) = self.mail("a", "ann")
        self.assertIn(b"550 5.1.6 Moved", notice)
        self.assertNotIn(b"waits.example", notice)
        # No member gets it now, but one may later: the client has to try again.
        self.assertTrue(self.send("all@a.example").startswith("450 4.3.2 "))

    def test_direct_lmtp_bounces_missing_members(self) -> None:
        self.begin_with("team: ghost, eve\n")
        client = self.mtas["a"].connect(("127.0.0.1", 24), greet=False)
        client.say("LHLO client.example")
        answer = client.mail(CONTENT, "team@a.example", "ann@a.example", sender="ann@a.example")
        self.assertEqual([each[:3] for each in answer], ["250", "250"])
        self.settle()
        self.assertEqual(len(self.mail("a", "eve")), 1)
        self.assertEqual(len(self.mail("a", "ann")), 2)

    def test_the_log_names_missing_members(self) -> None:
        self.begin_with()
        lines = logged_lines(self)
        self.send("carol@a.example")
        self.settle()
        (at_rcpt,) = [each for each in lines if each.startswith("the alias carol@a.example leads")]
        self.assertIn("<carol@a.example> (550 5.1.1 No such mailbox here)", at_rcpt)
        (failed,) = [each for each in lines if " failed: " in each]
        self.assertIn("from=<ann@a.example> to=<carol@a.example> relay=maildir", failed)
