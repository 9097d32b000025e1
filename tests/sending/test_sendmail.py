"""`sendmail` on a network in memory: what it says to a server, and what it answers."""

from __future__ import annotations

import contextlib
import io
import os
import re
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from tests.docs.test_examples import examples
from tests.logs import logged_lines
from tests.server.authority import Authority
from tests.tidy import TidyTestCase
from twisted_mta import (
    AuthFailed,
    ConnectionFailed,
    Reply,
    SendError,
    SendResult,
    SessionRefused,
    TLSFailed,
    sendmail,
)
from twisted_mta.mail.address import Mailbox
from twisted_mta.testing.peer import ScriptedPeer, ScriptStep
from twisted_mta.testing.reactor import MemoryReactor
from twisted_mta.testing.tls import PeerTLS, certificate
from twisted_mta.tls.certificates import CertificateError

PLAIN = b"Subject: Hi\r\n\r\nHello.\r\n"
ANY_LINES: ScriptStep = ("expect", re.compile(rb"(?:[^\r]*\r\n)+"))


def opening(*keywords: bytes) -> list[ScriptStep]:
    lines = [b"mx.example", *keywords]
    ends = [b" " if number == len(lines) else b"-" for number in range(1, len(lines) + 1)]
    reply = b"".join(b"250%b%b\r\n" % pair for pair in zip(ends, lines, strict=True))
    return [
        ("send", b"220 mx.example\r\n"),
        ("expect", b"EHLO app.example\r\n"),
        ("send", reply),
    ]


def secured(*keywords: bytes) -> list[ScriptStep]:
    return [
        *opening(b"STARTTLS"),
        ("expect", b"STARTTLS\r\n"),
        ("send", b"220 Go\r\n"),
        ("starttls",),
        *opening(*keywords)[1:],
    ]


PARTING: list[ScriptStep] = [("expect", b"QUIT\r\n"), ("send", b"221 Bye\r\n"), ("close",)]


def transaction(mail: bytes = b"", rcpt: bytes = b"") -> list[ScriptStep]:
    group = b"MAIL FROM:<ann@app.example>%b\r\nRCPT TO:<bob@x.example>%b\r\nDATA\r\n" % (mail, rcpt)
    return [
        ("expect", group),
        ("send", b"250 Ok\r\n250 Ok\r\n354 Go on\r\n"),
        ("content",),
        ("send", b"250 2.0.0 Taken\r\n"),
        *PARTING,
    ]


class Sending(TidyTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactor()
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)

    def serve(
        self, *script: ScriptStep, address: str = "192.0.2.1", port: int = 25, tls: Any = None
    ) -> ScriptedPeer:
        peer = ScriptedPeer(list(script), tls=tls)
        self.reactor.listen(address, port, peer)
        return peer

    def sending(
        self,
        host: str = "192.0.2.1",
        recipients: Any = ("bob@x.example",),
        message: Any = PLAIN,
        *,
        sender: Any = "ann@app.example",
        **arguments: Any,
    ) -> Deferred[SendResult]:
        arguments = {"helo": "app.example", "reactor": self.reactor, **arguments}
        result = sendmail(host, sender, recipients, message, **arguments)
        self.reactor.settle()
        return result

    def send(self, *arguments: Any, **named: Any) -> SendResult:
        result = self.sending(*arguments, **named)
        if not result.called:
            self.reactor.advance(1)
        return self.successResultOf(result)

    def error(self, kind: type[SendError], *arguments: Any, **named: Any) -> SendError:
        failing = self.sending(*arguments, **named)
        if not failing.called:
            self.reactor.advance(1)
        error = self.failureResultOf(failing, kind).value
        assert isinstance(error, SendError)
        return error

    def assertFinished(self, *peers: ScriptedPeer) -> None:
        for peer in peers:
            self.assertEqual((peer.problems, peer.script), ([], []))

    def write(self, name: str, content: bytes) -> str:
        path = os.path.join(self.directory, name)
        Path(path).write_bytes(content)
        return path


class Results(Sending):
    def test_the_result_has_the_reply_for_each_recipient_as_it_was_written(self) -> None:
        peer = self.serve(
            *opening(b"PIPELINING"),
            (
                "expect",
                b"MAIL FROM:<ann@app.example>\r\nRCPT TO:<Bob@x.example>\r\n"
                b"RCPT TO:<eve@x.example>\r\nRCPT TO:<carl@x.example>\r\nDATA\r\n",
            ),
            ("send", b"250 Ok\r\n250 Ok\r\n550 5.1.1 No Eve\r\n452 4.2.2 Full\r\n354 Go on\r\n"),
            ("content",),
            ("send", b"250 2.0.0 Taken\r\n"),
            *PARTING,
        )
        carl = Mailbox.parse("carl@x.example")
        result = self.send(recipients=["Bob@X.example", "eve@x.example", carl])
        self.assertEqual(
            result.recipients,
            {
                "Bob@X.example": Reply(250, "2.0.0", "Taken"),
                "eve@x.example": Reply(550, "5.1.1", "No Eve"),
                "carl@x.example": Reply(452, "4.2.2", "Full"),
            },
        )
        self.assertEqual(result.accepted, ["Bob@X.example"])
        self.assertEqual(list(result.refused), ["eve@x.example", "carl@x.example"])
        self.assertEqual(result.server, "192.0.2.1[192.0.2.1]:25")
        self.assertFalse(result.uncertain)
        self.assertEqual(peer.contents, [b"Subject: Hi\r\n\r\nHello.\r\n.\r\n"])
        self.assertFinished(peer)

    def test_refusals_are_in_the_result_even_if_nobody_is_accepted(self) -> None:
        for said, code in ((b"550 5.7.1 Not you\r\n", 550), (b"451 4.7.1 Later\r\n", 451)):
            peer = self.serve(*opening(), ("expect", b"MAIL FROM:<>\r\n"), ("send", said), *PARTING)
            result = self.send(sender="")
            self.assertEqual(result.recipients["bob@x.example"].code, code)
            self.assertFinished(peer)

    def test_a_connection_that_is_lost_after_the_final_dot_leaves_the_result_uncertain(
        self,
    ) -> None:
        logged_lines(self)
        self.serve(*opening(b"PIPELINING"), *transaction()[:3], ("abort",))
        result = self.send()
        self.assertTrue(result.uncertain)
        self.assertEqual(result.recipients["bob@x.example"].code, 451)
        self.assertIsNone(result.server)

    def test_more_than_a_thousand_recipients_are_several_transactions(self) -> None:
        recipients = [f"u{number}@x.example" for number in range(1500)]
        script: list[ScriptStep] = opening(b"PIPELINING")
        for part in (recipients[:1000], recipients[1000:]):
            lines = b"".join(b"RCPT TO:<%b>\r\n" % each.encode() for each in part)
            script += [
                ("expect", b"MAIL FROM:<ann@app.example>\r\n" + lines + b"DATA\r\n"),
                ("send", b"250 Ok\r\n" * (len(part) + 1) + b"354 Go on\r\n"),
                ("content",),
                ("send", b"250 2.0.0 Taken\r\n"),
            ]
        peer = self.serve(*script, *PARTING)
        self.assertEqual(self.send(recipients=recipients).accepted, recipients)
        self.assertFinished(peer)

    def test_recipients_beyond_a_lost_connection_are_refused_in_the_result(self) -> None:
        recipients = [f"u{number}@x.example" for number in range(2500)]
        taken = b"250 Ok\r\n" * 1001 + b"354 Go on\r\n"
        self.serve(
            *opening(b"PIPELINING"),
            ("expect", re.compile(rb"MAIL.*DATA\r\n", re.DOTALL)),
            ("send", taken),
            ("content",),
            ("send", b"250 2.0.0 Taken\r\n"),
            ("close",),
        )
        result = self.send(recipients=recipients)
        self.assertEqual(result.accepted, recipients[:1000])
        self.assertEqual(list(result.refused), recipients[1000:])
        self.assertIn("Connection was refused", str(result.recipients[recipients[-1]]))

    def test_lmtp_has_a_reply_for_each_recipient_after_the_content(self) -> None:
        self.serve(
            ("send", b"220 mx.example\r\n"),
            ("expect", b"LHLO app.example\r\n"),
            ("send", b"250-mx.example\r\n250 PIPELINING\r\n"),
            ("expect", re.compile(rb"MAIL.*DATA\r\n", re.DOTALL)),
            ("send", b"250 Ok\r\n250 Ok\r\n250 Ok\r\n354 Go on\r\n"),
            ("content",),
            ("send", b"250 2.0.0 Bob\r\n552 5.2.2 Carl is full\r\n"),
            *PARTING,
            port=24,
        )
        recipients = ["bob@x.example", "carl@x.example"]
        result = self.send(recipients=recipients, port=24, lmtp=True)
        self.assertEqual([each.code for each in result.recipients.values()], [250, 552])


class Extensions(Sending):
    def test_size_and_dsn_are_sent_where_they_are_announced(self) -> None:
        size = b" SIZE=%d" % len(PLAIN)
        notify = b" NOTIFY=SUCCESS,FAILURE"
        peer = self.serve(*opening(b"PIPELINING", b"SIZE 1000", b"DSN"), *transaction(size, notify))
        self.send(notify=["FAILURE", "SUCCESS"])
        self.assertFinished(peer)

    def test_a_message_over_the_size_that_is_announced_is_not_sent(self) -> None:
        peer = self.serve(*opening(b"SIZE 10"), *PARTING)
        self.assertEqual(self.send().recipients["bob@x.example"].enhanced, "5.3.4")
        self.assertFinished(peer)

    def test_content_of_8_bits_is_declared_or_converted(self) -> None:
        content = b"Subject: Hi\nMIME-Version: 1.0\n" + (
            b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n"
            b"\xc3\xa4\n"
        )
        peer = self.serve(*opening(b"PIPELINING", b"8BITMIME"), *transaction(b" BODY=8BITMIME"))
        self.send(message=content)
        self.assertIn(b"\r\n\r\n\xc3\xa4\r\n.\r\n", peer.contents[0])
        old = self.serve(*opening(b"PIPELINING"), *transaction())
        self.send(message=content)
        self.assertIn(b"\r\n\r\nw6QNCg==\r\n.\r\n", old.contents[0])
        self.assertFinished(peer, old)

    def test_a_header_in_utf_8_needs_smtputf8(self) -> None:
        content = "Subject: Grüße\n\nHello.\n".encode()
        keywords = b"PIPELINING", b"8BITMIME"
        peer = self.serve(
            *opening(*keywords, b"SMTPUTF8"), *transaction(b" SMTPUTF8 BODY=8BITMIME")
        )
        self.send(message=content)
        old = self.serve(*opening(*keywords), *PARTING)
        refused = self.send(message=content).recipients["bob@x.example"]
        self.assertEqual(refused.enhanced, "5.6.9")
        latin = self.serve(*opening(*keywords), *transaction(b" BODY=8BITMIME"))
        self.send(message=content.decode().encode("latin-1"))
        self.assertFinished(peer, old, latin)


class Messages(Sending):
    def arrives(self, message: Any) -> bytes:
        peer = self.serve(*opening(b"PIPELINING"), *transaction())
        self.send(message=message)
        self.assertFinished(peer)
        return peer.contents[0].removesuffix(b".\r\n")

    def test_lines_end_in_cr_lf_and_dots_are_stuffed(self) -> None:
        wanted = b"Subject: Hi\r\n\r\n..\r\n..dot\r\nbye\r\n"
        content = b"Subject: Hi\n\n.\n.dot\nbye"
        for message in (
            content,
            bytearray(content),
            memoryview(content),
            io.BytesIO(content),
            content.replace(b"\n", b"\r\n"),
        ):
            self.assertEqual(self.arrives(message), wanted)

    def test_a_file_is_read_from_where_it_stands_and_stays_open(self) -> None:
        with io.BytesIO(b"(skipped)" + PLAIN) as file:
            file.seek(9)
            self.assertEqual(self.arrives(file), PLAIN)
            self.assertFalse(file.closed)

    def test_a_pipe_is_sent_whole(self) -> None:
        content = b"Subject: Hi\r\n\r\n" + b"x" * 60 + b"\r\n"
        reading, writing = os.pipe()
        with open(reading, "rb") as file:
            with open(writing, "wb") as filled:
                filled.write(content)
            self.assertEqual(self.arrives(file), content)

    def test_a_message_object_is_sent_without_bcc(self) -> None:
        mail = EmailMessage(policy=policy.default)
        mail["To"], mail["Bcc"] = "bob@x.example", "eve@x.example"
        mail.set_content("Hello.\n")
        sent = self.arrives(mail)
        self.assertNotIn(b"Bcc", sent)
        self.assertTrue(sent.endswith(b"\r\n\r\nHello.\r\n"), sent)
        self.assertEqual(mail["Bcc"], "eve@x.example")

    def test_a_message_larger_than_any_buffer_arrives_whole(self) -> None:
        lines = b"".join(b".%d\r\n" % number for number in range(30_000))
        peer = self.serve(*opening(b"PIPELINING"), *transaction())
        self.send(message=io.BytesIO(b"\r\n" + lines))
        stuffed = b"\r\n" + lines.replace(b"\r\n.", b"\r\n..").replace(b".0", b"..0", 1)
        self.assertEqual(len(peer.contents[0]), len(stuffed) + 3)
        self.assertEqual(peer.contents[0], stuffed + b".\r\n")
        client, _ = self.reactor.connections[0]
        self.assertLess(client.peak, 200_000)


class TransportSecurity(Sending):
    def setUp(self) -> None:
        super().setUp()
        authority = Authority()
        self.authorities = authority.issued.save(self.directory, "ca.pem")
        issued = authority.issue("mx.example", names=["192.0.2.1"], for_clients=False)
        self.trusted = PeerTLS(shown=(issued.certificate, issued.key))

    def test_tls_is_used_where_it_is_offered_whatever_the_certificate(self) -> None:
        peer = self.serve(*secured(b"PIPELINING"), *transaction(), tls=PeerTLS())
        tls = self.send().tls
        assert tls is not None
        self.assertFalse(tls.peer_verified)
        self.assertFinished(peer)

    def test_mail_goes_in_clear_where_tls_is_optional_and_fails(self) -> None:
        logged_lines(self)
        failing: list[ScriptStep] = [*secured()[:5], ("close",)]
        broken = self.serve(*failing)
        self.serve(*failing)  # the second try is with a smaller ClientHello
        peer = self.serve(*opening(b"PIPELINING", b"STARTTLS"), *transaction())
        self.assertIsNone(self.send().tls)
        self.assertFinished(peer)
        self.assertNotIn(b"MAIL", broken.received)

    def test_no_starttls_is_sent_without_tls(self) -> None:
        peer = self.serve(*opening(b"PIPELINING", b"STARTTLS"), *transaction())
        self.assertIsNone(self.send(tls="none").tls)
        self.assertFinished(peer)

    def test_encrypt_fails_where_there_is_no_tls(self) -> None:
        peer = self.serve(*opening(), *PARTING)
        error = self.error(TLSFailed, tls="encrypt")
        self.assertEqual(str(error), "192.0.2.1[192.0.2.1]:25: STARTTLS is not offered")
        self.assertFinished(peer)

    def test_verify_takes_a_certificate_of_the_authorities(self) -> None:
        for arguments in ({"tls": "verify"}, {}):
            peer = self.serve(*secured(b"PIPELINING"), *transaction(), tls=self.trusted)
            tls = self.send(authorities=self.authorities, **arguments).tls
            assert tls is not None
            self.assertTrue(tls.peer_verified)
            self.assertFinished(peer)

    def test_a_certificate_that_is_not_verified_is_named(self) -> None:
        peer = self.serve(*secured()[:6], *PARTING)
        error = self.error(TLSFailed, tls="verify")
        made, _ = certificate()
        self.assertIn("its certificate is self-signed", str(error))
        self.assertIn("not for 192.0.2.1, but for mx.example", str(error))
        assert error.tls is not None
        self.assertIn(f"SHA-256 {error.tls.peer_fingerprint}, subject CN=mx.example", str(error))
        self.assertEqual(made.subject.rfc4514_string(), error.tls.peer_subject)
        self.assertNotIn(b"MAIL", peer.received)

    def test_implicit_tls_is_that_of_port_465_and_verified(self) -> None:
        script: list[ScriptStep] = [("starttls",), *opening(b"PIPELINING"), *transaction()]
        for port, arguments in ((465, {}), (10465, {"implicit_tls": True})):
            peer = self.serve(*script, port=port, tls=self.trusted)
            tls = self.send(port=port, authorities=self.authorities, **arguments).tls
            assert tls is not None
            self.assertTrue(tls.peer_verified)
            self.assertFinished(peer)
        self.serve(("starttls",), *opening(), port=465)
        self.error(TLSFailed, port=465)
        peer = self.serve(*script, port=465)
        self.send(port=465, tls="encrypt")
        self.assertFinished(peer)

    def test_our_certificate_is_shown_to_a_server_that_asks_for_it(self) -> None:
        ours = Authority("App CA").issue("app.example").save(self.directory, "app.pem")
        tls = PeerTLS(ask=True)
        self.serve(*secured(b"PIPELINING"), *transaction(), tls=tls)
        self.send(tls="encrypt", client_certificate=ours)
        self.assertEqual(tls.client_subjects, ["CN=app.example"])

    def test_a_file_without_a_certificate_is_an_error(self) -> None:
        path = self.write("empty.pem", b"")
        self.failureResultOf(self.sending(authorities=path), CertificateError)
        self.assertEqual(self.reactor.connections, [])


class Authentication(Sending):
    ACCOUNT = {"username": "ann", "password": "secret", "tls": "encrypt"}  # noqa: RUF012

    def test_auth_comes_before_mail_under_tls(self) -> None:
        peer = self.serve(
            *secured(b"PIPELINING", b"AUTH PLAIN"),
            ("expect", b"AUTH PLAIN AGFubgBzZWNyZXQ=\r\n"),
            ("send", b"235 2.7.0 Hello\r\n"),
            *transaction(),
        )
        self.send(**self.ACCOUNT)
        self.assertFinished(peer)

    def test_a_password_is_never_sent_in_clear(self) -> None:
        for level in ("may", "encrypt", "verify", None):
            peer = self.serve(*opening(b"AUTH PLAIN LOGIN"), *PARTING)
            error = self.error(TLSFailed, **{**self.ACCOUNT, "tls": level})
            self.assertIn("our credentials are never sent in clear", str(error))
            self.assertNotIn(b"AUTH", bytes(peer.received))

    def test_a_password_is_sent_to_a_verified_server_unless_a_lower_level_is_chosen(self) -> None:
        peer = self.serve(*secured()[:6], *PARTING)
        self.error(TLSFailed, **{**self.ACCOUNT, "tls": None})
        self.assertNotIn(b"AUTH", peer.received)

    def test_refused_credentials_are_an_error_with_the_reply(self) -> None:
        log = logged_lines(self)
        for said in (b"535 5.7.8 Wrong\r\n", b"454 4.7.0 Not now\r\n"):
            self.serve(
                *secured(b"AUTH PLAIN"),
                ("expect", b"AUTH PLAIN AGFubgBzZWNyZXQ=\r\n"),
                ("send", said),
                *PARTING,
            )
            error = self.error(AuthFailed, **self.ACCOUNT)
            self.assertEqual(f"{error.reply}\r\n".encode(), said)
            self.assertEqual(str(error), f"192.0.2.1[192.0.2.1]:25: {said.decode().strip()}")
            self.assertEqual(error.server, "192.0.2.1[192.0.2.1]:25")
        self.assertNotIn("secret", repr(log))

    def test_a_server_without_auth_is_an_error(self) -> None:
        logged_lines(self)
        self.serve(*secured(), *PARTING)
        error = self.error(AuthFailed, **self.ACCOUNT)
        self.assertIn("AUTH is not offered", str(error))
        self.assertIsNone(error.server)


class Connecting(Sending):
    def test_a_refused_connection_is_an_error_with_the_address(self) -> None:
        error = self.error(ConnectionFailed)
        self.assertRegex(str(error), r"^192\.0\.2\.1\[192\.0\.2\.1\]:25: Connection was refused")

    def test_a_greeting_that_refuses_is_an_error_with_the_reply(self) -> None:
        peer = self.serve(("send", b"554 5.3.2 Not here\r\n"), *PARTING)
        error = self.error(SessionRefused)
        self.assertEqual(error.reply, Reply(554, "5.3.2", "Not here"))
        self.assertEqual(str(error), "192.0.2.1[192.0.2.1]:25: 554 5.3.2 Not here")
        self.assertFinished(peer)

    def test_a_connection_that_ends_before_a_transaction_is_an_error(self) -> None:
        self.serve(*opening(), ("abort",))
        error = self.error(SessionRefused)
        self.assertIn("connection lost", str(error))

    def test_ipv6_addresses_are_hosts_with_and_without_brackets(self) -> None:
        for host in ("2001:db8::1", "[2001:db8::1]", "[IPv6:2001:db8::1]"):
            peer = self.serve(*opening(b"PIPELINING"), *transaction(), address="2001:db8::1")
            self.send(host)
            self.assertFinished(peer)

    def test_localhost_is_both_loopback_addresses(self) -> None:
        peer = self.serve(*opening(b"PIPELINING"), *transaction(), address="::1")
        result = self.send("localhost")
        self.assertEqual(result.server, "localhost[::1]:25")
        self.assertFinished(peer)

    def test_a_unix_socket_is_a_host(self) -> None:
        peer = ScriptedPeer([*opening(b"PIPELINING"), *transaction()])
        self.reactor.listen_unix("/run/mta.sock", peer)
        self.assertEqual(self.send("/run/mta.sock").server, "/run/mta.sock")

    def test_a_timeout_bounds_each_wait(self) -> None:
        self.serve(("send", b"220 mx.example\r\n"), ANY_LINES)
        failing = self.sending(timeout=7)
        self.reactor.advance(6)
        self.assertNoResult(failing)
        self.reactor.pump([1] * 5)
        error = self.failureResultOf(failing, SessionRefused).value
        self.assertIn("timed out after 7 s before the reply to EHLO", str(error))

        self.reactor.swallow("192.0.2.9", 25)
        failing = self.sending("192.0.2.9", timeout=3)
        self.reactor.advance(3)
        self.failureResultOf(failing, ConnectionFailed)


class Cancelling(Sending):
    def cancel_after(self, *script: ScriptStep) -> Deferred[SendResult]:
        peer = self.serve(*script)
        sending = self.sending()
        self.assertNoResult(sending)
        sending.cancel()
        self.reactor.settle()
        self.assertTrue(peer.lost)
        return sending

    def test_to_cancel_closes_the_connection(self) -> None:
        for script in (
            (),
            opening(b"PIPELINING"),
            [*opening(b"PIPELINING"), *transaction()[:3]],
        ):
            self.failureResultOf(self.cancel_after(*script), CancelledError)

    def test_to_cancel_ends_an_attempt_to_connect(self) -> None:
        self.reactor.swallow("192.0.2.1", 25)
        sending = self.sending()
        sending.cancel()
        self.failureResultOf(sending, CancelledError)
        self.assertEqual(self.reactor.left_open(), [])

    def test_to_cancel_ends_a_look_up(self) -> None:
        class Silent:
            cancelled = False

            def resolveHostName(self, receiver: Any, name: str, *_: object) -> None:
                receiver.resolutionBegan(self)

            def cancel(self) -> None:
                Silent.cancelled = True

        self.patch(MemoryReactor, "nameResolver", Silent())
        sending = self.sending("mail.example")
        sending.cancel()
        self.failureResultOf(sending, CancelledError)
        self.assertTrue(Silent.cancelled)
        timing_out = self.sending("mail.example", timeout=5)
        self.reactor.advance(5)
        error = self.failureResultOf(timing_out, ConnectionFailed).value
        self.assertEqual(
            str(error), "mail.example: the look-up of its addresses timed out after 5 s"
        )

    def test_to_cancel_after_the_last_reply_gives_the_result_at_once(self) -> None:
        taken = self.cancel_after(*opening(b"PIPELINING"), *transaction()[:4])
        self.assertEqual(self.successResultOf(taken).accepted, ["bob@x.example"])


class Arguments(Sending):
    def refusal(self, **arguments: Any) -> str:
        error = self.failureResultOf(self.sending(**arguments), TypeError, ValueError).value
        self.assertEqual(self.reactor.connections, [])
        return f"{type(error).__name__}: {error}"

    def test_what_cannot_be_used_is_refused_before_a_connection_is_made(self) -> None:
        for arguments, text in (
            (
                {"message": "text"},
                "TypeError: message: found str, expected an EmailMessage, bytes or a binary file",
            ),
            (
                {"message": io.StringIO("text")},
                "TypeError: message: found a file of text, expected a binary file",
            ),
            (
                {"recipients": "bob@x.example"},
                "TypeError: recipients: found 'bob@x.example', expected a sequence of mailboxes",
            ),
            (
                {"recipients": []},
                "ValueError: recipients: found none, expected at least one mailbox",
            ),
            (
                {"host": "no host"},
                "ValueError: host: found 'no host', expected a name or an address: not a domain"
                " name",
            ),
            (
                {"tls": "always"},
                "ValueError: tls: found 'always', expected one of none, may, encrypt, verify",
            ),
            (
                {"tls": "none", "username": "a", "password": "b"},
                "ValueError: tls: found 'none' with username, expected 'encrypt' or 'verify'",
            ),
            (
                {"tls": "none", "port": 465},
                "ValueError: tls: found 'none' with implicit_tls, expected 'encrypt' or 'verify'",
            ),
            (
                {"tls": "encrypt", "authorities": "ca.pem"},
                "ValueError: tls: found 'encrypt' with authorities, expected 'verify'",
            ),
            (
                {"username": "ann"},
                "ValueError: found one of username and password, expected both or neither",
            ),
            (
                {"client_key": "key.pem"},
                "ValueError: client_key: found one without client_certificate",
            ),
            ({"port": 65536}, "ValueError: port: found 65536, expected a number from 1 to 65535"),
            ({"timeout": 0}, "ValueError: timeout: found 0, expected seconds"),
            ({"helo": "no name"}, "ValueError: helo: found 'no name', expected a domain name"),
        ):
            with self.subTest(arguments=arguments):
                self.assertEqual(self.refusal(**arguments), text)

    def test_a_file_that_cannot_be_read_is_its_own_error(self) -> None:
        class Broken(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                raise PermissionError(13, "Permission denied")

        failing = self.sending(message=Broken())
        result: list[Failure] = []
        failing.addErrback(result.append)
        self.assertIsInstance(result[0].value, PermissionError)


class Pages(Sending):
    """The functions on the pages run, with a server in memory in place of theirs."""

    def setUp(self) -> None:
        super().setUp()
        authority = Authority()
        self.authorities = authority.issued.save(self.directory, "ca.pem")
        names = ["smtp.example.net"]
        issued = authority.issue("smtp.example.net", names=names, for_clients=False)
        self.tls = PeerTLS(shown=(issued.certificate, issued.key))

    def serve_refusing(self) -> ScriptedPeer:
        return self.serve(
            *secured(b"PIPELINING", b"AUTH PLAIN"),
            ("expect", b"AUTH PLAIN AHNob3AAc2VjcmV0\r\n"),
            ("send", b"235 2.7.0 Hello\r\n"),
            ("expect", re.compile(rb"MAIL FROM:<shop@example.net>\r\nRCPT.*DATA\r\n", re.DOTALL)),
            ("send", b"250 Ok\r\n550 5.1.1 No Bob\r\n503 5.5.1 No recipients\r\n"),
            *PARTING,
            port=587,
            tls=self.tls,
        )

    def function(self, page: str, name: str) -> Any:
        """Return a function of a page, which sends through the network of the test."""

        def send(host: str, *values: Any, **arguments: Any) -> Deferred[SendResult]:
            self.assertEqual(host, "smtp.example.net")
            self.reactor.names = {host: ["192.0.2.1"]}
            arguments.update(authorities=self.authorities, helo="app.example", reactor=self.reactor)
            return sendmail(host, *values, **arguments)

        (text,) = (text for text in examples(page) if f"async def {name}(" in text)
        names: dict[str, Any] = {}
        exec(text, names)
        names["sendmail"] = send
        return names[name]

    def run_to_its_end(self, coroutine: Any) -> Any:
        done = Deferred.fromCoroutine(coroutine)
        self.reactor.settle()
        return self.successResultOf(done)

    def test_the_function_of_embedding_prints_refusals_and_errors(self) -> None:
        hand_in = self.function("embedding.rst", "hand_in")
        peer = self.serve_refusing()
        with contextlib.redirect_stdout(io.StringIO()) as out:
            self.run_to_its_end(hand_in(PLAIN, ["bob@x.example"], "secret"))
            self.run_to_its_end(hand_in(PLAIN, ["bob@x.example"], "secret"))
        refused, failed = out.getvalue().splitlines()
        self.assertEqual(refused, "bob@x.example 550 5.1.1 No Bob")
        self.assertTrue(failed.startswith("ConnectionFailed smtp.example.net["), failed)
        self.assertFinished(peer)

    def test_the_function_for_those_who_come_from_twisted_mail_returns_refusals(self) -> None:
        send = self.function("from-twisted-mail.rst", "send")
        self.serve_refusing()
        refused = self.run_to_its_end(send("shop@example.net", ["bob@x.example"], PLAIN))
        self.assertEqual(refused, {"bob@x.example": Reply(550, "5.1.1", "No Bob")})
