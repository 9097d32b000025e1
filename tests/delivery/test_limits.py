"""LIMITS (RFC 9422): transactions and sessions stay within the limits of a server."""

from twisted.internet.defer import Deferred, succeed

from tests.delivery.hops import HopTestCase, to
from tests.delivery.test_relay import FIRST, HOP, PARTING
from twisted_mta.config import Destination
from twisted_mta.mail.next_hop import NextHop, Target
from twisted_mta.smtp.extension.limits import Limits
from twisted_mta.testing.peer import ScriptStep


def opening(limits: str, more: str = "") -> list[ScriptStep]:
    return [
        ("send", b"220 mx.example\r\n"),
        ("expect", b"EHLO client.example\r\n"),
        ("send", f"250-mx.example\r\n{more}250-PIPELINING\r\n250 LIMITS {limits}\r\n".encode()),
    ]


def transaction(*recipients: str) -> list[ScriptStep]:
    names = "".join(f"RCPT TO:<{recipient}>\r\n" for recipient in recipients)
    return [
        ("expect", f"MAIL FROM:<a@client.example>\r\n{names}DATA\r\n".encode()),
        ("send", b"250 Ok\r\n" * (1 + len(recipients)) + b"354 Go on\r\n"),
        ("content",),
        ("send", b"250 2.0.0 Queued\r\n"),
    ]


class Obeyed(HopTestCase):
    def assertDelivered(self, *mailboxes: str) -> None:
        outcomes = self.send(to(*mailboxes))
        self.assertEqual([each.number for each in outcomes], list(range(len(mailboxes))))
        self.assertTrue(all(each.delivered for each in outcomes), outcomes)

    def test_recipients_beyond_rcptmax_get_another_transaction(self) -> None:
        peer = self.server(
            *opening("RCPTMAX=2"),
            *transaction("b@example.net", "c@example.net"),
            *transaction("d@example.net"),
        )
        self.assertDelivered("b@example.net", "c@example.net", "d@example.net")
        self.assertEqual(peer.problems, [])
        self.assertTrue(peer.finished)

    def test_hundreds_of_transactions_that_end_at_once_are_no_recursion(self) -> None:
        """A server that takes one recipient at a time, and no message of this size."""
        self.use(Destination(domain="*", messages_per_connection=1000))
        self.server(*opening("RCPTMAX=1", "250-SIZE 5\r\n"), *PARTING)
        outcomes = self.send(to(*(f"b{number}@example.net" for number in range(600))))
        self.assertEqual([each.number for each in outcomes], list(range(600)))
        self.assertEqual({each.reply.code for each in outcomes}, {552})

    def test_after_mailmax_transactions_the_session_ends(self) -> None:
        first = self.server(*opening("MAILMAX=1"), *transaction("b@example.net"), *PARTING)
        self.assertDelivered("b@example.net")
        self.assertTrue(first.finished, first.problems)
        second = self.server(*opening("MAILMAX=1"), *transaction("b@example.net"), *PARTING)
        self.assertDelivered("b@example.net")
        self.assertTrue(second.finished, second.problems)

    def test_rcptmax_and_mailmax_hold_together(self) -> None:
        peers = [
            self.server(*opening("RCPTMAX=1 MAILMAX=1"), *transaction(name), *PARTING)
            for name in ("b@example.net", "c@example.net")
        ]
        self.assertDelivered("b@example.net", "c@example.net")
        self.assertEqual([peer.finished for peer in peers], [True, True])

    def test_domains_beyond_rcptdomainmax_get_another_session(self) -> None:
        first = self.server(
            *opening("RCPTDOMAINMAX=1"),
            *transaction("b@example.net", "d@example.net"),
            *PARTING,
        )
        second = self.server(*opening("RCPTDOMAINMAX=1"), *transaction("c@example.org"))
        self.assertDelivered("b@example.net", "c@example.org", "d@example.net")
        self.assertEqual([first.problems, second.problems], [[], []])
        self.assertTrue(first.finished)

    def test_unknown_and_malformed_limits_are_ignored(self) -> None:
        peer = self.server(
            *opening("RCPTMAX=0 MAILMAX=x RCPTDOMAINMAX FUTURE=1 RCPTMAX=-1"),
            *transaction("b@example.net", "c@example.org"),
        )
        self.assertDelivered("b@example.net", "c@example.org")
        self.assertEqual(peer.problems, [])

    def test_a_server_that_closes_is_not_tried_again_for_the_rest(self) -> None:
        self.server(
            *opening("RCPTMAX=1"),
            ("expect", b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"),
            ("send", b"250 Ok\r\n421 4.3.2 Closing\r\n"),
            ("close",),
        )
        outcomes = self.send(to("b@example.net", "c@example.net"))
        self.assertEqual([each.reply.code for each in outcomes], [421, 421])

    def test_a_stop_defers_the_rest_and_keeps_what_was_delivered(self) -> None:
        for how in ("abort_unsent", "abort"):
            self.relay = self.make_relay()
            self.server(*opening("RCPTMAX=1"), *transaction("b@example.net"))
            delivering = self.relay.deliver(
                HOP, to("b@example.net", "c@example.net", "d@e.example")
            )
            self.network.settle()
            self.assertNoResult(delivering)  # the second one waits for the reply to MAIL
            getattr(self.relay, how)()
            self.network.settle()
            outcomes = self.successResultOf(delivering)
            self.assertEqual([each.number for each in outcomes], [0, 1, 2])
            self.assertEqual([each.reply.code for each in outcomes], [250, 451, 451])

    def test_other_exchangers_defer_the_rest(self) -> None:
        """What was delivered stays so: the delivery as a whole is not `Regrouped`."""
        self.server(*opening("RCPTMAX=1 MAILMAX=1"), *transaction("b@example.net"), *PARTING)
        groups = [HOP, NextHop("smtp", domain="example.net", exchanger=".example")]
        self.relay.connections.grouped = lambda next_hop: groups.pop(0)
        outcomes = self.send(to("b@example.net", "c@example.net", "d@example.net"))
        self.assertEqual([each.reply.code for each in outcomes], [250, 451, 451])
        self.assertIn("have changed meanwhile", outcomes[2].reply.text)

    def test_an_error_within_the_rest_defers_it(self) -> None:
        def locate(next_hop: NextHop) -> Deferred[list[Target]]:
            if self.located:
                raise RuntimeError("an error of ours")
            self.located += 1
            return succeed([FIRST])

        self.relay.locate = locate  # type: ignore[assignment]
        self.server(*opening("RCPTMAX=1 MAILMAX=1"), *transaction("b@example.net"), *PARTING)
        outcomes = self.send(to("b@example.net", "c@example.net"))
        self.assertEqual([each.reply.code for each in outcomes], [250, 451])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_of_a_limit_given_twice_the_smaller_counts(self) -> None:
        self.assertEqual(Limits.announced("rcptmax=5 RCPTMAX=3"), Limits(recipients=3))
        self.assertEqual(Limits.announced("RCPTMAX=1000000"), Limits())
