"""Mail loops end: each alias expands a message once, and a failed notice makes no other notice."""

from __future__ import annotations

import re
from typing import Any, Literal

from twisted_mta.config import Listener, QueueSettings
from twisted_mta.testing.memory_mta import MemoryMTA

from .routed_mtas import CONTENT, RoutedTestCase


class Lists(RoutedTestCase):
    """Each forwarded copy names its aliases, and mail that comes back to one of them is refused."""

    def test_a_list_whose_two_members_forward_back_gets_each_copy_once(self) -> None:
        aliases = {
            "a": "team: eve, one@b.example, two@c.example",
            "b": "one: team@a.example",
            "c": "two: team@a.example",
        }
        self.begin("abc", aliases)
        self.assertTrue(self.send("team@a.example").startswith("250 "))
        self.settle()
        self.assertEqual(len(self.mail("a", "eve")), 1)
        # The message, and a notice for each of the two copies that came back.
        self.assertEqual([self.accepted(name) for name in "abc"], [3, 1, 1])
        notices = self.mail("a", "ann")
        self.assertEqual(len(notices), 2)
        for notice in notices:
            self.assertIn(b"Status: 5.4.6", notice)
            self.assertIn(b"Final-Recipient: rfc822; team@a.example", notice)
            self.assertIn(b"Delivered-To: team@a.example", notice)

    def test_two_members_at_one_server_that_forward_back_make_no_loop(self) -> None:
        self.begin(
            "ab",
            {
                "a": "team: one@b.example, two@b.example",
                "b": "one: x\nx: team@a.example\ntwo: team@a.example",
            },
        )
        self.send("team@a.example")
        self.settle()
        self.assertEqual([self.accepted(name) for name in "ab"], [2, 1])

    def test_mail_that_comes_back_with_another_tag_or_case_is_a_loop(self) -> None:
        for back in ("team+again@a.example", "TEAM@a.example", "other@a.example"):
            self.setUp()
            aliases = {"a": "team: one@b.example\nother: team", "b": f"one: {back}"}
            self.begin("ab", aliases)
            self.send("Team+x@a.example")
            self.settle()
            self.assertEqual([self.accepted(name) for name in "ab"], [2, 1], back)

    def test_a_loop_with_the_null_reverse_path_ends_in_unreported_failures(self) -> None:
        self.begin("ab", {"a": "team: one@b.example, eve", "b": "one: team@a.example"})
        self.send("team@a.example", sender="")
        self.settle()
        self.assertEqual([self.accepted(name) for name in "ab"], [1, 1])
        self.assertEqual([self.failures(name) for name in "ab"], [0, 1])
        self.assertEqual(len(self.mail("a", "eve")), 1)

    def test_a_loop_of_a_notice_ends(self) -> None:
        # The sender is an alias here, whose target forwards back.
        aliases = {"a": "ann: one@b.example", "b": "one: ann@a.example"}
        self.begin("ab", aliases, b={"recipients": "existing"})
        self.send("nobody@b.example", sender="ann@a.example")
        self.settle()
        # a accepted the message, b refused it; b accepted the notice, a refused it.
        self.assertEqual([self.accepted(name) for name in "ab"], [1, 1])
        self.assertEqual([self.failures(name) for name in "ab"], [0, 1])

    def test_recipients_outside_the_loop_get_the_mail(self) -> None:
        self.begin("ab", {"a": "team: one@b.example, eve", "b": "one: team@a.example"})
        content = b"Delivered-To: team@a.example\r\n" + CONTENT
        answer = self.send("team@a.example", "zoe@a.example", content=content)
        self.assertEqual(answer[:3], "250")
        self.settle()
        self.assertEqual(len(self.mail("a", "zoe")), 1)
        self.assertEqual((self.mail("a", "eve"), self.accepted("b")), ([], 0))
        (notice,) = self.mail("a", "ann")
        self.assertEqual(notice.count(b"Status: 5.4.6"), 2)
        self.assertIn(
            b"<eve@a.example>\n    to which mail for <team@a.example> is forwarded", notice
        )

    def test_a_message_whose_recipients_are_all_in_a_loop_is_refused(self) -> None:
        self.begin("a", {"a": "team: eve"})
        for field in (
            b"Delivered-To: team@a.example\r\n",
            b"delivered-to :\r\n\t<TEAM+x@A.example>\r\n",
            b"X: y\r\nDelivered-To: x@a.example\r\nDelivered-To: Team@a.example\r\n",
        ):
            answer = self.send("team@a.example", content=field + CONTENT)
            self.assertTrue(answer.startswith("554 5.4.6 "), answer)
        answer = self.send("team@a.example", content=field.rstrip() + b"\r\n\r\n")
        self.assertTrue(answer.startswith("554 5.4.6 "), answer)
        self.assertEqual(self.mail("a", "eve"), [])

    def test_delivered_to_fields_of_other_hosts_are_no_loop(self) -> None:
        self.begin("a", {"a": "team: eve\nt\u00e9: bob"})
        for number, field in enumerate(
            (
                b"Delivered-To: team@b.example\r\n",
                b"Delivered-To: eve@a.example\r\n",
                b"Delivered-To: no address\r\n",
                b"Delivered-To: \xff@a.example\r\n",
                b"X-Delivered-To: team@a.example\r\n",
                b"Subject: x\r\n\r\nDelivered-To: team@a.example\r\n",
            ),
            1,
        ):
            answer = self.send("team@a.example", content=field + CONTENT)
            self.assertTrue(answer.startswith("250 "), (field, answer))
            self.settle()
            self.assertEqual(len(self.mail("a", "eve")), number)

    def test_direct_lmtp_refuses_a_loop_for_each_recipient(self) -> None:
        self.answer_each("direct")

    def test_queued_lmtp_refuses_a_loop_for_each_recipient(self) -> None:
        self.answer_each("queue")

    def answer_each(self, lmtp: Literal["queue", "direct"]) -> None:
        aliases = {"a": "team: eve\nall: bob, dave\nboth: team, zoe"}
        self.begin("a", aliases, lmtp=lmtp)
        content = b"Delivered-To: team@a.example\r\n" + CONTENT

        def mail(*names: str) -> list[str]:
            client = self.mtas["a"].connect(("127.0.0.1", 24), greet=False)
            client.say("LHLO client.example")
            return client.mail(content, *names, sender="ann@a.example")

        names = ("zoe@a.example", "team@a.example", "all@a.example", "team@a.example")
        answer = mail(*names)
        self.assertEqual(
            [each[:9] for each in answer], ["250 2.0.0", "554 5.4.6", "250 2.0.0", "554 5.4.6"]
        )
        self.settle()
        self.assertEqual([len(self.mail("a", name)) for name in ("zoe", "bob", "ann")], [1, 1, 0])
        # The loop in an alias that also leads to others is reported in a notice.
        answer = mail("both@a.example")
        self.assertEqual([each[:9] for each in answer], ["250 2.0.0"])
        self.settle()
        self.assertEqual([len(self.mail("a", name)) for name in ("zoe", "ann")], [2, 1])

    def test_an_alias_in_a_loop_is_not_reported_as_expanded(self) -> None:
        self.begin("a", {"a": "team: eve, bob\nall: team, zoe, dave"})
        content = b"Delivered-To: team@a.example\r\n" + CONTENT
        client = self.mtas["a"].connect(("127.0.0.1", 25))
        rcpt = [f"RCPT TO:<{name}@a.example> NOTIFY=SUCCESS" for name in ("team", "all")]
        client.say("MAIL FROM:<ann@a.example>", *rcpt, "DATA")
        self.assertEqual(client.send(content + b".\r\n")[0][:3], "250")
        self.settle()
        self.assertEqual([len(self.mail("a", name)) for name in ("eve", "zoe", "dave")], [0, 1, 1])
        (notice,) = self.mail("a", "ann")
        self.assertIn(b"Final-Recipient: rfc822; all@a.example\nAction: expanded", notice)
        self.assertNotIn(b"team@a.example\nAction: expanded", notice)

    def test_a_recipient_reached_by_another_alias_too_gets_the_mail(self) -> None:
        self.begin("a", {"a": "team: eve\nall: bob, eve"})
        content = b"Delivered-To: team@a.example\r\n" + CONTENT
        answer = self.send("team@a.example", "all@a.example", content=content)
        self.assertEqual(answer[:3], "250")
        self.settle()
        self.assertEqual([len(self.mail("a", name)) for name in ("eve", "bob", "ann")], [1, 1, 0])

    def test_a_copy_for_members_of_two_aliases_names_both(self) -> None:
        # Mail that comes back to either of the two has then passed that one.
        members = "one@b.example, two@b.example, one@c.example, two@c.example"
        back = "left@a.example, right@a.example"
        far = f"one: {back}\ntwo: {back}"
        self.begin("abc", {"a": f"left: {members}\nright: {members}", "b": far, "c": far})
        self.send("left@a.example", "right@a.example")
        self.settle()
        # The message, and a notice for each of the two copies that came back.
        self.assertEqual([self.accepted(name) for name in "abc"], [3, 1, 1])
        notices = self.mail("a", "ann")
        self.assertEqual(len(notices), 2)
        for notice in notices:
            for name in (b"left", b"right"):
                self.assertIn(b"Delivered-To: " + name + b"@a.example", notice)

    def test_a_catch_all_that_leads_back_to_its_own_domain_makes_no_endless_loop(self) -> None:
        self.begin(
            "ab",
            {
                "a": "@a.example: one@b.example, two@b.example",
                "b": "@b.example: left@a.example, right@a.example",
            },
        )
        self.send("team@a.example")
        self.settle()
        self.assertLess(self.accepted("a"), 6)

    def test_an_international_alias_is_named_in_ascii(self) -> None:
        # The copy needs no extension that the message does not need.
        self.begin(
            "ab", {"a": "team: t\u00e9am\nt\u00e9am: one@b.example", "b": "one: team@a.example"}
        )
        self.send("team@a.example")
        self.settle()
        self.assertEqual([self.accepted(name) for name in "ab"], [2, 1])
        (notice,) = self.mail("a", "ann")
        self.assertIn(rb"Delivered-To: t\x{E9}am@a.example", notice)

    def test_a_copy_names_only_the_aliases_of_its_recipient(self) -> None:
        self.begin("ab", {"a": "secret: x@b.example\nteam: y@b.example, y2@b.example"})
        self.send("secret@a.example", "team@a.example", "z@b.example")
        self.settle()
        named = {
            name: re.findall(rb"(?m)^Delivered-To: (\S+)$", b"".join(self.mail("b", name)))
            for name in ("x", "y", "y2", "z")
        }
        self.assertEqual(
            named,
            {
                "x": [b"x@b.example", b"secret@a.example"],
                "y": [b"y@b.example", b"team@a.example"],
                "y2": [b"y2@b.example", b"team@a.example"],
                "z": [b"z@b.example"],
            },
        )
        self.assertEqual(self.accepted("b"), 3)

    def test_a_copy_sent_after_a_restart_names_its_aliases(self) -> None:
        self.begin("ab", {"a": "team: sub\nsub: one@b.example"})
        self.mtas["b"].stop()
        self.send("team@a.example")
        self.mtas["a"].advance(10)
        again = self.mtas["a"].mta.config
        self.mtas["a"].stop()
        a = MemoryMTA(
            again.state_dir,
            reactor=self.reactor,
            files=self.mtas["a"].files,
            hostname="mx.a.example",
            local_domains=again.local_domains,
            routes=again.routes,
            aliases=again.aliases,
        )
        peer = MemoryMTA(
            self.mktemp(),
            reactor=self.reactor,
            hostname="mx.b.example",
            local_domains=("b.example",),
            listeners=(Listener(endpoint="tcp:25:interface=127.0.0.2"),),
        )
        for each in (a, peer):
            each.start()
            self.addCleanup(each.stop)
        del self.mtas["a"], self.mtas["b"]
        for _ in range(60):
            a.advance(60)
        (mail,) = peer.mail("one", "b.example")
        self.assertIn(
            b"Delivered-To: sub@a.example\nDelivered-To: team@a.example\nReceived: ", mail
        )


class Smarthosts(RoutedTestCase):
    def test_two_smarthosts_of_each_other_stop_at_the_limit_of_hops(self) -> None:
        self.begin(
            "ab",
            {},
            a={"routes": (("*", "smtp://127.0.0.2"),)},
            b={"routes": (("*", "smtp://127.0.0.1"),)},
        )
        self.send("x@else.example")
        self.settle()
        self.assertLessEqual(self.accepted("a") + self.accepted("b"), 102)
        notices = self.mail("a", "ann")
        self.assertEqual(len(notices), 1)
        self.assertIn(b"Status: 5.4.6", notices[0])


class Postmasters(RoutedTestCase):
    """With `bounce_postmaster`, a bounce without a sender goes to one postmaster, once."""

    def begin_two(self, aliases: dict[str, str], **settings: Any) -> None:
        self.begin("ab", aliases, queue=QueueSettings(bounce_postmaster=True), **settings)

    def test_two_postmasters_that_forward_to_each_other_make_no_loop(self) -> None:
        # Neither postmaster can be reached: the failures stay unreported.
        self.begin_two(
            {"a": "postmaster: boss@b.example", "b": "postmaster: boss@a.example"},
            recipients="existing",
        )
        self.send("nobody@b.example", sender="")
        self.settle()
        self.assertLessEqual(self.accepted("a") + self.accepted("b"), 2)
        self.assertGreaterEqual(self.failures("a") + self.failures("b"), 1)

    def test_two_postmasters_that_forward_to_each_others_lists_make_no_loop(self) -> None:
        # The envelopes name the lists then, no longer postmaster.
        aliases = {
            "a": "postmaster: ops-b@b.example\nops-a: gone@b.example",
            "b": "postmaster: ops-a@a.example\nops-b: gone@a.example",
        }
        self.begin_two(aliases, recipients="existing")
        self.send("nobody@b.example", sender="")
        self.settle()
        self.assertLessEqual(self.accepted("a") + self.accepted("b"), 3)
        self.assertGreaterEqual(self.failures("a") + self.failures("b"), 1)

    def test_a_loop_with_the_null_reverse_path_is_not_reported_to_postmaster(self) -> None:
        self.begin_two({"a": "team: one@b.example", "b": "one: team@a.example"})
        self.send("team@a.example", sender="")
        self.settle()
        self.assertEqual([self.mail(name, "postmaster") for name in "ab"], [[], []])
        self.assertEqual([self.failures(name) for name in "ab"], [0, 1])

    def test_mail_without_a_sender_that_fails_is_reported_to_postmaster_once(self) -> None:
        self.begin_two({}, b={"recipients": "existing"})
        self.send("nobody@b.example", sender="")
        self.settle()
        (notice,) = self.mail("a", "postmaster")
        self.assertIn(b"To: <postmaster@a.example>", notice)
        self.assertEqual(self.failures("a"), 0)
