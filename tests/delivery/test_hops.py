"""Kinds of next hops, terms, credentials, unreachable next hops, conversion, and shutdown."""

import email
import os
from functools import partial
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed

from tests.delivery.hops import HopTestCase, to
from tests.delivery.test_relay import FIRST, GROUP, HOP, OPENING, PARTING, SECOND, TAKEN, message
from tests.tls.test_client import SECURED, TLS_OPENING
from twisted_mta.config import ConfigError, Destination
from twisted_mta.delivery.adaptation import seven_bit
from twisted_mta.delivery.credentials import load_credentials
from twisted_mta.interfaces import NoTarget
from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.message import Message
from twisted_mta.mail.next_hop import Host, NextHop, Target
from twisted_mta.mail.reply import Reply
from twisted_mta.message.mime.conversion_plan import CannotConvert
from twisted_mta.testing.peer import ScriptedPeer, ScriptStep

SOCKET = "/run/dovecot/lmtp"


class KindTests(HopTestCase):
    def test_implicit_tls_begins_with_the_handshake(self) -> None:
        """``smtps:`` begins with the handshake, before the greeting, and sends no STARTTLS."""
        hop = NextHop("smtp", hosts=(Host("mx1.example", 465),), implicit_tls=True)
        self.targets = [Target("mx1.example", "192.0.2.1", 465)]
        for level in ("none", "may"):
            self.use(tls=level)
            peer = self.server(
                ("starttls",),
                *OPENING[:2],
                ("send", b"250-mx.example\r\n250-PIPELINING\r\n250 STARTTLS\r\n"),
                *TAKEN,
                *PARTING,
                target=self.targets[0],
            )
            outcome = self.send_one(hop)
            self.assertTrue(outcome.delivered, outcome)
            self.assertIsNotNone(outcome.tls)
            self.network.advance(5)
            self.assertTrue(peer.finished, peer.problems)
        self.assertEqual(self.memory.entries(), [])  # implicit TLS cannot be stripped: no entry

    def test_implicit_tls_never_falls_back_to_clear(self) -> None:
        """A failed handshake defers, and so does a server that greets in clear."""
        self.use()
        hop = NextHop("smtp", hosts=(Host("mx1.example", 25),), implicit_tls=True)
        for script in ([("close",)], [("send", b"220 mx.example\r\n")]):
            peer = self.server(*script)  # type: ignore[misc]
            self.assertEqual(self.send_one(hop).reply.enhanced, "4.7.5")
            self.assertNotIn(b"EHLO", peer.received)
        self.assertEqual(len(self.network.connections), 2)

    def lmtp(self, *replies: bytes) -> list[ScriptStep]:
        return [
            ("send", b"220 lmtp.example LMTP\r\n"),
            ("expect", b"LHLO client.example\r\n"),
            ("send", b"250-lmtp.example\r\n250-STARTTLS\r\n250 PIPELINING\r\n"),
            (
                "expect",
                b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@example.net>\r\n"
                b"RCPT TO:<c@example.net>\r\nDATA\r\n",
            ),
            ("send", b"250 Ok\r\n250 Ok\r\n250 Ok\r\n354 Go on\r\n"),
            ("content",),
            *(("send", reply) for reply in replies),
        ]

    def test_lmtp_over_a_unix_socket_has_a_reply_for_each_recipient(self) -> None:
        """Each recipient has its reply; a UNIX socket needs no TLS."""
        self.use(tls="verify")
        peer = ScriptedPeer(self.lmtp(b"250 2.0.0 Ok\r\n", b"452 4.2.2 Full\r\n"))
        self.network.listen_unix(SOCKET, peer)
        hop = NextHop("lmtp", hosts=(Host(SOCKET),))
        first, second = self.send(to("b@example.net", "c@example.net"), hop)
        self.assertEqual((str(first.reply), first.remote), ("250 2.0.0 Ok", SOCKET))
        self.assertEqual(str(second.reply), "452 4.2.2 Full")
        self.assertTrue(peer.finished, peer.problems)
        self.assertEqual(self.located, 0)

    def test_messages_are_delivered_by_lmtp_over_tcp(self) -> None:
        self.use(tls="none")
        hop = NextHop("lmtp", hosts=(Host("mx1.example", 24),))
        self.targets = [Target("mx1.example", "192.0.2.1", 24)]
        peer = self.server(*self.lmtp(b"250 Ok\r\n250 Ok\r\n"), target=self.targets[0])
        outcomes = self.send(to("b@example.net", "c@example.net"), hop)
        self.assertTrue(all(outcome.delivered for outcome in outcomes))
        self.assertTrue(peer.finished, peer.problems)

    def test_a_missing_socket_defers(self) -> None:
        self.use()
        [outcome] = self.send(hop=NextHop("lmtp", hosts=(Host(SOCKET),)))
        self.assertTrue(outcome.unreachable)
        self.assertIn(SOCKET, outcome.reply.text)


def mail_to(*mailboxes: str) -> bytes:
    rcpt = "".join(f"RCPT TO:<{mailbox}>\r\n" for mailbox in mailboxes)
    return f"MAIL FROM:<a@client.example>\r\n{rcpt}DATA\r\n".encode()


class TermsTests(HopTestCase):
    def test_recipients_with_different_terms_share_no_connection(self) -> None:
        """They share a smarthost only; the outcomes are in the order of the envelope."""
        self.use(Destination(domain="secret.example", tls="encrypt"))
        secured = self.server(
            *TLS_OPENING,
            *SECURED,
            ("expect", mail_to("b@secret.example")),
            ("send", b"250 Ok\r\n250 Ok\r\n354 Go on\r\n"),
            ("content",),
            ("send", b"250 second\r\n"),
        )
        clear = self.server(
            *OPENING,
            ("expect", mail_to("a@plain.example", "c@other.example")),
            ("send", b"250 Ok\r\n250 Ok\r\n250 Ok\r\n354 Go on\r\n"),
            ("content",),
            ("send", b"250 first\r\n"),
        )
        # The terms of the first recipient come first.
        self.network._listening.pop((FIRST.address, 25))
        self.network.listen(FIRST.address, 25, clear, secured)
        outcomes = self.send(to("a@plain.example", "b@secret.example", "c@other.example"))
        self.assertEqual(
            [(each.number, each.reply.text) for each in outcomes],
            [(0, "first"), (1, "second"), (2, "first")],
        )
        self.assertIsNotNone(outcomes[1].tls)
        self.assertTrue(secured.finished and clear.finished, (secured.problems, clear.problems))

    def test_each_host_of_a_route_has_its_own_terms(self) -> None:
        """The second host does not get the password of the first."""
        self.use(
            Destination(
                domain="mx1.example",
                username="us",
                password_file=self.file("password", b"secret"),
            )
        )
        hop = NextHop("smtp", hosts=(Host("mx1.example"), Host("mx2.example")))
        self.targets = [FIRST, SECOND]
        refused = self.server(*OPENING, *PARTING)  # without STARTTLS
        second = self.server(*OPENING, *TAKEN, target=SECOND)
        self.assertTrue(self.send_one(hop).delivered)
        self.assertTrue(refused.finished and second.finished, second.problems)

    def test_a_connection_is_closed_after_its_number_of_messages(self) -> None:
        self.use(Destination(domain="example.net", messages_per_connection=1))
        peers = [self.server(*OPENING, *TAKEN, *PARTING) for _ in range(2)]
        for peer in peers:
            self.assertTrue(self.send_one().delivered)
            self.assertTrue(peer.finished, peer.problems)

    def test_the_source_address_is_that_of_the_destination_and_family(self) -> None:
        sources = ("192.0.2.99", "2001:db8::99")
        self.use(Destination(domain="example.net", source_address=sources))
        self.targets = [FIRST, SECOND]
        self.send()
        self.assertEqual(self.network.sources, [("192.0.2.99", 0), ("2001:db8::99", 0)])

    def test_a_password_that_was_not_loaded_defers(self) -> None:
        """The mail is deferred, never sent without AUTH, and the log has the error."""
        self.use()
        self.relay.terms._destination_for = lambda domain, hosts, exchanger: Destination(
            domain="*", username="us", password_file="/nowhere"
        )
        self.assertEqual(self.send_one().reply.enhanced, "4.3.0")
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)


class ReloadTests(HopTestCase):
    def test_mail_to_a_domain_that_had_some_before_goes_on_the_new_terms(self) -> None:
        """Neither the terms of the domain nor its idle connection outlive a reload."""
        self.use(Destination(domain="example.net", source_address=("192.0.2.8",)))
        first = self.server(*OPENING, *TAKEN, *TAKEN, *PARTING)
        self.assertTrue(self.send_one().delivered)
        self.assertTrue(self.send_one().delivered)
        self.assertEqual(self.network.sources, [("192.0.2.8", 0)])
        self.reconfigure(Destination(domain="example.net", source_address=("192.0.2.9",)))
        self.network.settle()
        self.assertTrue(first.finished, first.problems)
        self.server(*OPENING, *TAKEN, *PARTING)
        self.assertTrue(self.send_one().delivered)
        self.assertEqual(self.network.sources, [("192.0.2.8", 0), ("192.0.2.9", 0)])


class CredentialFileTests(HopTestCase):
    def destination(self, content: bytes) -> Destination:
        return Destination(
            domain="relay.example", username="us", password_file=self.file("password", content)
        )

    def test_the_first_line_is_the_password(self) -> None:
        for content in (b"p w\xc3\xa4", b"p w\xc3\xa4\n", b"p w\xc3\xa4\r\nnot this\n"):
            loaded = load_credentials(self.destination(content))
            assert loaded is not None
            self.assertEqual(loaded.credentials.password, "p w\xe4")
            self.assertEqual(loaded.warnings, ())

    def test_a_password_file_that_others_can_read_is_warned_about(self) -> None:
        destination = self.destination(b"secret")
        os.chmod(str(destination.password_file), 0o644)
        loaded = load_credentials(destination)
        assert loaded is not None
        self.assertIn(
            "others than its owner can read or write it; expected chmod 600", loaded.warnings[0]
        )
        os.chmod(str(destination.password_file), 0o666)
        error = self.assertRaises(ConfigError, load_credentials, destination)
        self.assertIn("mode 0666: others than its owner may write it", str(error))

    def test_errors_name_file_and_destination_and_never_the_content(self) -> None:
        for content, text in (
            (b"", "holds no password"),
            (b"\nsecret", "holds no password"),
            (b"secret\xff", "no UTF-8"),
            (b"secret\0", "a NUL in it"),
        ):
            error = self.assertRaises(ConfigError, load_credentials, self.destination(content))
            self.assertIn("[[destination]] relay.example, password_file = ", str(error))
            self.assertIn(text, str(error))
            self.assertNotIn("secret", str(error).replace("password_file", ""))
        destination = Destination(domain="*", username="us", password_file="/nowhere/at/all")
        error = self.assertRaises(ConfigError, load_credentials, destination)
        self.assertIn("No such file or directory; expected a readable file", str(error))


class UnreachableTests(HopTestCase):
    """Whether a failure concerns the next hop as a whole, or the message."""

    def setUp(self) -> None:
        super().setUp()
        self.use()

    def test_a_next_hop_without_any_host_up_is_unreachable(self) -> None:
        self.assertTrue(self.send_one().unreachable)
        self.relay.locate = lambda hop: fail(NoTarget(Reply.of(451, "4.3", "SERVFAIL")))
        self.assertTrue(self.send_one().unreachable)

    def test_a_next_hop_without_a_usable_session_is_unreachable(self) -> None:
        for script in (
            [("send", b"421 4.3.2 Busy\r\n")],
            [("send", b"450 Busy\r\n"), *PARTING],
            [("send", b"554 No\r\n"), *PARTING],
            [*OPENING[:2], ("send", b"451 No\r\n"), *PARTING],
        ):
            self.server(*script)  # type: ignore[misc]
            self.assertTrue(self.send_one().unreachable, script)
        self.use(tls="encrypt")
        self.server(*OPENING, *PARTING)
        self.assertTrue(self.send_one().unreachable)

    def test_a_reply_to_the_message_does_not_make_a_next_hop_unreachable(self) -> None:
        for script in (
            [*GROUP, ("send", b"450 4.7.1 Greylisted\r\n" * 3)],
            [*GROUP, ("send", b"421 4.7.0 Not you\r\n")],
            [*GROUP, ("close",)],
            [*TAKEN[:-1], ("close",)],
        ):
            self.server(*OPENING, *script)
            outcome = self.send_one()
            self.assertEqual(outcome.reply.code // 100, 4)
            self.assertFalse(outcome.unreachable, script)
            self.relay.abort()
            self.network.settle()

    def test_a_permanent_failure_does_not_make_a_next_hop_unreachable(self) -> None:
        self.relay.locate = lambda hop: fail(NoTarget(Reply.of(556, "1.10", "null MX")))
        self.assertFalse(self.send_one().unreachable)


class EndTests(HopTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.use()

    def test_at_the_end_only_replies_to_final_dots_are_awaited(self) -> None:
        """Messages in all other states are deferred with a reply of our own."""
        waiting = self.server(*OPENING, *TAKEN[:-1])
        sent = self.deliver()
        greeting = self.server(target=SECOND)
        self.targets = [SECOND]
        hop = NextHop("smtp", domain="example.org")
        others = [self.relay.deliver(hop, message())]
        self.network.settle()
        self.network.swallow("192.0.2.3", 25)
        self.targets = [Target("mx3.example", "192.0.2.3", 25)]
        others.append(self.relay.deliver(evolve(hop, domain="example.com"), message()))
        self.network.settle()
        never: Any = fail(NoTarget(Reply.of(451, None, "")))
        never.addErrback(lambda _: None)
        self.relay.locate = lambda _: type(never)()
        others.append(self.relay.deliver(evolve(hop, domain="example.edu"), message()))
        self.relay.abort_unsent()
        others.append(self.relay.deliver(hop, message()))
        self.network.settle()
        for delivering in others:
            outcome = self.outcome(delivering)
            self.assertEqual(str(outcome.reply), "451 4.3.2 we are closing")
            self.assertIsNone(outcome.remote)
            self.assertFalse(outcome.unreachable or outcome.uncertain)
        self.assertTrue(greeting.lost)
        self.assertNoResult(sent)
        waiting.transport.write(b"250 2.0.0 Queued\r\n")
        self.network.settle()
        self.assertTrue(self.outcome(sent).delivered)
        self.relay.close()
        self.network.advance(5)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_recipients_with_a_reply_keep_it(self) -> None:
        peer = self.server(
            *OPENING,
            ("expect", mail_to("b@example.net", "c@example.net")),
            ("send", b"250 Ok\r\n550 5.1.1 Nobody\r\n250 Ok\r\n"),
        )
        delivering = self.relay.deliver(HOP, to("b@example.net", "c@example.net"))
        self.network.settle()
        self.relay.abort_unsent()
        self.network.settle()
        first, second = self.successResultOf(delivering)
        self.assertEqual(str(first.reply), "550 5.1.1 Nobody")
        self.assertEqual((second.reply.code, second.remote), (451, None))
        self.assertTrue(peer.lost)

    def test_the_setup_time_excludes_the_transaction(self) -> None:
        """Setup is lookups, connecting, greeting and handshakes, without the transaction."""
        peer = self.server()
        delivering = self.deliver()
        self.network.advance(7)
        peer.script = [*OPENING[1:], *TAKEN[:-1]]
        peer.transport.write(b"220 mx.example\r\n")
        self.network.settle()
        self.network.advance(5)
        peer.transport.write(b"250 2.0.0 Queued\r\n")
        self.network.settle()
        self.assertEqual(self.outcome(delivering).setup, 7)

    def test_traffic_is_counted(self) -> None:
        self.server(*TLS_OPENING, *SECURED, *TAKEN, *TAKEN)
        self.send()
        self.send()
        traffic = self.relay.connections.traffic
        self.assertEqual((traffic.connections, traffic.reused, traffic.handshakes), (1, 1, 1))


class ConversionTests(HopTestCase):
    """Conversion to 7 bits for a next hop without 8BITMIME (RFC 6152 §3)."""

    def setUp(self) -> None:
        super().setUp()
        self.use()
        self.conversions: list[Deferred[Message]] = []

    def later(self, function: Any, mail: Message) -> "Deferred[Any]":
        """Run a call when the test fires its Deferred."""
        working: Deferred[Any] = Deferred()
        self.conversions.append(working.addCallback(lambda _: function(mail)))
        return working

    def eight_bit(self, content: bytes) -> Message:
        envelope = evolve(message().envelope, parameters={"BODY": "8BITMIME"})
        return evolve(message(MemoryBody(content)), envelope=envelope)

    def test_the_connection_waits_while_a_content_is_converted(self) -> None:
        self.relay.connections._convert = partial(self.later, seven_bit)
        peer = self.server(*OPENING, *TAKEN, *PARTING)
        text = "Subject: x\r\n\r\nViele Gr\u00fc\u00dfe an alle, die das lesen\r\n"
        delivering = self.deliver(self.eight_bit(text.encode()))
        self.network.advance(60)
        self.assertNoResult(delivering)
        self.conversions[0].callback(None)  # type: ignore[arg-type]
        self.network.settle()
        self.assertTrue(self.outcome(delivering).delivered)
        [content] = peer.contents
        self.assertTrue(content.isascii())
        self.assertIn(b"Gr=C3=BC=C3=9Fe", content)
        self.network.advance(5)
        self.assertTrue(peer.finished, peer.problems)

    def test_a_setting_sends_a_header_with_octets_over_127_as_it_came(self) -> None:
        """``eight_bit_headers``; the body is converted all the same."""
        header = "Subject: sch\u00f6n\r\n".encode() + b"From: J\xf6rg <j@client.example>\r\n"
        body = "Viele Gr\u00fc\u00dfe an alle, die das lesen\r\n".encode()

        def executor(function: Any, /, *arguments: Any) -> "Deferred[Any]":
            return maybeDeferred(function, *arguments)

        for destinations, general, sent in (
            ((), "return", False),
            ((), "send", True),
            ((Destination(domain="example.net", eight_bit_headers="send"),), "return", True),
            ((Destination(domain="example.net", eight_bit_headers="return"),), "send", False),
        ):
            self.use(*destinations, executor=executor, eight_bit_headers=general)
            peer = self.server(*OPENING, *(TAKEN if sent else ()), *PARTING)
            outcome = self.outcome(self.deliver(self.eight_bit(header + b"\r\n" + body)))
            self.assertEqual((outcome.delivered, outcome.failed), (sent, not sent))
            self.network.advance(5)
            self.assertTrue(peer.finished, peer.problems)
            if not sent:
                self.assertEqual(outcome.reply.enhanced, "5.6.3")
                continue
            [content] = peer.contents
            head, _, rest = content.partition(b"\r\n\r\n")
            self.assertIn(header, head + b"\r\n")
            self.assertTrue(rest.isascii())
            self.assertIn(b"Gr=C3=BC=C3=9Fe", rest)
            self.assertNotIn(b"BODY", peer.received)

    def test_a_body_outside_of_any_part_arrives(self) -> None:
        text = "Viele Gr\u00fc\u00dfe an alle, die das lesen\r\n".encode()
        head = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        other = b"--another\r\n\r\n" + text + b"--another--\r\n"
        for body in (text, other, text + b"--b--\r\n"):
            self.use()
            self.relay.connections._convert = lambda mail: succeed(seven_bit(mail))
            peer = self.server(*OPENING, *TAKEN, *PARTING)
            self.assertTrue(self.outcome(self.deliver(self.eight_bit(head + body))).delivered)
            [content] = peer.contents
            arrived = email.message_from_bytes(content.removesuffix(b".\r\n"))
            self.assertEqual(arrived.get_payload(decode=True), body)

    def test_a_connection_may_end_during_the_conversion(self) -> None:
        """The next target is tried, and the result for the first is dropped."""
        self.relay.connections._convert = partial(self.later, seven_bit)
        self.targets = [FIRST, SECOND]
        first = self.server(*OPENING)
        second = self.server(*OPENING, *TAKEN, target=SECOND)
        delivering = self.deliver(self.eight_bit(b"Subject: x\r\n\r\nx\xff\r\n"))
        first.transport.abortConnection()
        self.network.settle()
        for conversion in self.conversions:
            conversion.callback(None)  # type: ignore[arg-type]
        self.network.settle()
        self.assertEqual(self.outcome(delivering).remote, str(SECOND))
        self.assertEqual(len(second.contents), 1)

    def test_a_content_that_cannot_be_converted_or_read(self) -> None:
        for error, reply in (
            (CannotConvert("why"), "554 5.6.3"),
            (OSError(5, "Input/output error"), "451 4.3.0 the message cannot be read"),
            (ZeroDivisionError(), "451 4.3.0 internal error"),
        ):
            self.relay.connections._convert = lambda mail, error=error: fail(error)  # type: ignore[misc]
            peer = self.server(*OPENING, *PARTING)
            delivering = self.deliver(self.eight_bit(b"\r\n\xff\r\n"))
            outcome = self.outcome(delivering)
            self.assertTrue(str(outcome.reply).startswith(reply), outcome)
            self.assertIsNone(outcome.remote)
            self.network.advance(5)
            self.assertTrue(peer.finished, peer.problems)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_without_an_executor_a_conversion_fails(self) -> None:
        self.server(*OPENING)
        outcome = self.outcome(self.deliver(self.eight_bit(b"\r\n\xff\r\n")))
        self.assertEqual(outcome.reply.enhanced, "5.6.3")
