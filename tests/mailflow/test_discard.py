"""Mail for an alias that leads to ``/dev/null``."""

from __future__ import annotations

from tests.logs import logged_lines
from twisted_mta.telemetry.metrics import table

from .routed_mtas import CONTENT, RoutedTestCase

ALIASES = """\
noreply: /dev/null
team: /dev/null, ann, carol@b.example
@virtual.example: /dev/null
"""


class Discarded(RoutedTestCase):
    def setUp(self) -> None:
        super().setUp()
        settings = {"virtual_domains": ("virtual.example",), "srs_domain": None}
        self.begin("ab", {"a": ALIASES}, a=settings, recipients="existing")
        for name, local_part in (("a", "ann"), ("b", "carol")):
            mta = self.mtas[name]
            mta.files.make_directories(f"{mta.mta.config.maildir}/{name}.example/{local_part}/new")

    def test_the_message_counts_as_delivered_and_the_log_says_discarded(self) -> None:
        lines = logged_lines(self, " discarded: ")
        self.assertTrue(self.send("noreply@a.example", sender="x@b.example").startswith("250 "))
        self.settle()
        (line,) = lines
        self.assertIn("to=<noreply@/dev/null> orig_to=<noreply@a.example>", line)
        self.assertIn("2.0.0 Discarded", line)
        agent = self.mtas["a"].mta.agent
        self.assertEqual(agent.shards[0].commit.census().messages, 0)
        delivered = agent.metrics.snapshot().total(table.OUTCOMES, outcome="delivered")
        self.assertEqual(delivered, 1)

    def test_other_members_of_the_alias_get_the_mail(self) -> None:
        self.send("team@a.example")
        self.settle()
        self.assertEqual([len(self.mail("a", "ann")), len(self.mail("b", "carol"))], [1, 1])

    def test_a_catch_all_discards_every_name_of_its_domain(self) -> None:
        for name in ("x", "/etc/passwd", '"a b"'):
            self.assertTrue(self.send(f"{name}@virtual.example").startswith("250 "), name)
        self.settle()
        self.assertEqual(self.failures("a"), 0)

    def test_no_notice_is_sent_even_if_one_of_success_was_wanted(self) -> None:
        client = self.mtas["a"].connect(("127.0.0.1", 25))
        client.say(
            "MAIL FROM:<ann@a.example>", "RCPT TO:<noreply@a.example> NOTIFY=SUCCESS", "DATA"
        )
        client.send(CONTENT + b".\r\n")
        self.settle()
        self.assertEqual(self.mail("a", "ann"), [])

    def test_the_null_device_is_not_an_address_that_a_client_can_name(self) -> None:
        for name in ("noreply@/dev/null", "/dev/null"):
            reply = self.send(name)
            self.assertTrue(reply.startswith("50"), reply)
        self.assertTrue(self.send("/dev/null@a.example").startswith("550 5.1.1 "))
