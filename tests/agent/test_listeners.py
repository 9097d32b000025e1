"""The settings of a listener, as its clients see them, in a whole MTA in memory."""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from typing import Any

from attrs import evolve

from tests.agent.test_agent import ENDPOINT, InMemory
from tests.logs import logged_lines
from twisted_mta.auth.accounts import Account
from twisted_mta.auth.accounts_file import changing
from twisted_mta.config import Listener
from twisted_mta.testing.memory_mta import MemoryMTA
from twisted_mta.tls.self_signed import SELF_SIGNED

PASSWORD = "open sesame 71"


class WithoutTLS(InMemory):
    """Applications on the same host verify a certificate that is offered, and cannot."""

    def test_starttls_is_neither_announced_nor_obeyed(self) -> None:
        mta = self.started(listeners=(Listener(endpoint=ENDPOINT, tls="none"),))
        client = mta.connect(greet=False)
        self.assertNotIn("STARTTLS", "".join(client.say("EHLO app.example")))
        self.assertNotIn("STARTTLS", "".join(client.say("HELP")))
        self.assertEqual(client.say("STARTTLS"), ["502 5.5.1 Command not implemented"])
        self.assertTrue(
            mta.submit_by_smtp(b"Subject: Hi\r\n\r\n", "bob@localhost").startswith("250 ")
        )

    def test_other_listeners_offer_starttls(self) -> None:
        mta = self.started(
            listeners=(
                Listener(endpoint=ENDPOINT, tls="none"),
                Listener(endpoint="tcp:26:interface=127.0.0.1"),
            )
        )
        client = mta.connect(("127.0.0.1", 26), greet=False)
        self.assertIn("250-STARTTLS", client.say("EHLO mx.example"))

    def test_no_certificate_is_made_where_no_listener_has_tls(self) -> None:
        mta = self.started(
            tls_certificate=None, listeners=(Listener(endpoint=ENDPOINT, tls="none"),)
        )
        self.assertNotIn(os.path.join(self.directory, SELF_SIGNED), self.files.tree())
        self.assertIn("250 ", mta.submit_by_smtp(b"Subject: Hi\r\n\r\n", "bob@localhost"))

    def test_a_reload_takes_tls_away_and_brings_it_back(self) -> None:
        mta = self.started(listeners=(Listener(endpoint=ENDPOINT),))
        for tls, announced in (("none", False), ("may", True)):
            listener = Listener(endpoint=ENDPOINT, tls=tls)  # type: ignore[arg-type]
            reload(mta, listeners=(listener,))
            features = mta.connect(greet=False).say("EHLO app.example")
            self.assertEqual("250-STARTTLS" in features, announced)

    def test_an_expired_certificate_is_no_fault_where_it_is_not_offered(self) -> None:
        mta = self.started(listeners=(Listener(endpoint=ENDPOINT),))
        listeners = mta.mta.agent.listeners
        mta.reactor.jump(100 * 365 * 86400)
        self.assertEqual(len(listeners.certificate_faults()), 1)
        reload(mta, listeners=(Listener(endpoint=ENDPOINT, tls="none"),))
        self.assertEqual(listeners.certificate_faults(), [])


class WithAccounts(InMemory):
    """Users ``ann``, and ``bob@localhost`` and ``bob@other.example``, with the same password."""

    def setUp(self) -> None:
        super().setUp()
        self.users = os.path.join(self.directory, "users")
        with changing(self.users) as accounts:
            for name in ("ann", "bob@localhost", "bob@other.example"):
                accounts[name] = Account.of(
                    name, PASSWORD, addresses=("sales@far.example",), secret=bytes
                )

    def submission(self, **settings: Any) -> MemoryMTA:
        listener = {"kind": "submission", "auth": "any", "own_addresses": "envelope", **settings}
        return self.started(
            users=self.users,
            auth_failure_delay=0.0,
            local_domains=("localhost", "other.example"),
            listeners=(Listener(endpoint=ENDPOINT, **listener),),
        )

    def plain(self, name: str, password: str = "", authzid: str = "") -> str:
        message = f"{authzid}\0{name}\0{password or PASSWORD}"
        return f"AUTH PLAIN {b64encode(message.encode()).decode()}"

    def codes(self, mta: MemoryMTA, *commands: str, greeting: str = "EHLO client.example") -> str:
        """Return the codes of the replies in a new session."""
        client = mta.connect(greet=False)
        client.say(greeting)
        codes = [client.say(command)[-1][:3] for command in commands]
        client.say("RSET", "QUIT")
        return " ".join(codes)


class Logins(WithAccounts):
    def test_a_login_with_a_local_domain_finds_the_account_of_its_local_part(self) -> None:
        mta = self.submission()
        for name, code in (
            ("ann", "235"),
            ("ann@localhost", "235"),
            ("Ann@Other.Example", "235"),
            ("bob@localhost", "235"),
            ("ann@far.example", "535"),
            ("bob", "535"),
            ("@localhost", "535"),
            ("ann@", "535"),
            ("ann@localhost@localhost", "535"),
            ("ann@" + "x" * 300, "535"),
        ):
            self.assertEqual(self.codes(mta, self.plain(name)), code, name)

    def test_a_login_with_a_domain_is_the_account_itself(self) -> None:
        mta = self.submission()
        login = self.plain("ann@other.example")
        for sender, code in (
            ("ann@localhost", "250"),
            ("sales@far.example", "250"),
            ("bob@localhost", "550"),
        ):
            self.assertEqual(self.codes(mta, login, f"MAIL FROM:<{sender}>"), f"235 {code}", sender)

    def test_an_authorization_identity_of_the_user_is_allowed_and_no_other(self) -> None:
        mta = self.submission()
        for name, authzid, code in (
            ("ann", "ann", "235"),
            ("ann", "ANN", "235"),
            ("ann", "ann@localhost", "235"),
            ("ann@localhost", "ann", "235"),
            ("ann", "Sales@far.example", "235"),
            ("bob@localhost", "bob@localhost", "235"),
            ("ann", "bob@localhost", "535"),
            ("bob@localhost", "bob@other.example", "535"),
            ("ann", "*", "535"),
            ("ann", "@far.example", "535"),
            ("ann", "eve", "535"),
        ):
            line = self.plain(name, authzid=authzid)
            self.assertEqual(self.codes(mta, line), code, (name, authzid))

    def test_failures_of_all_logins_of_an_account_count_together(self) -> None:
        mta = self.submission(max_auth_failures=100, slow_after_errors=1000, max_errors=100)
        names = ("ann", "ann@localhost", "ANN@other.example", "Ann")
        client = mta.connect()
        for number in range(20):
            client.say(self.plain(names[number % 4], "wrong"))
        for name in names:
            self.assertEqual(self.codes(mta, self.plain(name)), "454", name)
        self.assertEqual(self.codes(mta, self.plain("bob@localhost")), "235")

    def test_a_foreign_authorization_identity_counts_as_a_failure(self) -> None:
        mta = self.submission(max_auth_failures=100, slow_after_errors=1000, max_errors=100)
        client = mta.connect()
        for _ in range(20):
            client.say(self.plain("ann", authzid="eve"))
        self.assertEqual(self.codes(mta, self.plain("ann")), "454")

    def salt(self, mta: MemoryMTA, name: str) -> str:
        first = b64encode(f"n,,n={name},r=abc".encode()).decode()
        client = mta.connect()
        (line,) = client.say(f"AUTH SCRAM-SHA-256 {first}")
        client.say("*", "QUIT")
        return b64decode(line[4:]).decode().split(",")[1]

    def test_salts_do_not_show_which_logins_have_an_account(self) -> None:
        """Two logins of one account have one salt, and those of two accounts have two."""
        mta = self.submission()
        same = {
            name: self.salt(mta, name) == self.salt(mta, f"{name}@localhost")
            for name in (f"nobody{number}" for number in range(20))
        }
        self.assertEqual(set(same.values()), {True, False})
        for name in same:
            self.assertEqual(self.salt(mta, name), self.salt(mta, name.upper()))
        self.assertEqual(self.salt(mta, "ann"), self.salt(mta, "ann@localhost"))


class AuthOffered(WithAccounts):
    def announced(self, mta: MemoryMTA) -> str:
        lines = mta.connect(greet=False).say("EHLO client.example")
        return " ".join(line[9:] for line in lines if line[4:8] == "AUTH")

    def test_mechanisms_are_withheld_and_keep_the_order_of_the_setting(self) -> None:
        mta = self.submission(auth_mechanisms=("PLAIN", "SCRAM-SHA-256", "CRAM-MD5"))
        self.assertEqual(self.announced(mta), "PLAIN SCRAM-SHA-256")
        self.assertEqual(self.codes(mta, "AUTH LOGIN", "AUTH CRAM-MD5"), "504 504")
        self.assertEqual(self.codes(mta, self.plain("ann")), "235")

    def test_without_channel_binding_a_client_that_could_bind_is_no_sign_of_an_attack(self) -> None:
        mta = self.submission(auth_mechanisms=("SCRAM-SHA-256",))
        client = mta.connect()
        client.start_tls()
        client.say("EHLO client.example")
        first = b64encode(b"y,,n=ann,r=abc").decode()
        self.assertEqual(client.say(f"AUTH SCRAM-SHA-256 {first}")[0][:3], "334")

    def test_no_user_can_send_where_all_mechanisms_are_withheld(self) -> None:
        mta = self.submission(auth_mechanisms=("XOAUTH2",))
        self.assertEqual(self.announced(mta), "")
        self.assertEqual(self.codes(mta, self.plain("ann"), "MAIL FROM:<>"), "504 530")

    def test_a_reload_offers_other_mechanisms(self) -> None:
        mta = self.submission()
        self.assertEqual(self.announced(mta), "SCRAM-SHA-256 SCRAM-SHA-1 PLAIN LOGIN")
        listener = evolve(mta.mta.config.listeners[0], auth_mechanisms=("LOGIN",))
        reload(mta, listeners=(listener,))
        self.assertEqual(self.announced(mta), "LOGIN")

    def test_a_client_that_says_helo_may_authenticate_and_send(self) -> None:
        mta = self.submission()
        codes = self.codes(
            mta,
            "MAIL FROM:<ann@localhost>",
            self.plain("ann"),
            "MAIL FROM:<ann@localhost>",
            "RCPT TO:<carl@localhost>",
            "DATA",
            "Subject: Hi\r\n\r\n.",
            greeting="HELO fax.example",
        )
        self.assertEqual(codes, "530 235 250 250 354 250")

    def test_any_submitter_of_a_client_is_taken_and_not_passed_on(self) -> None:
        mta = self.submission()
        for value in ("ann", "<>", "ann@far.example", "a+40b", "+00", "x" * 480):
            codes = self.codes(mta, self.plain("ann"), f"MAIL FROM:<ann@localhost> AUTH={value}")
            self.assertEqual(codes, "235 250", value)


class FieldsOfOurOwnClients(WithAccounts):
    """Devices and applications leave out fields that RFC 5322 §3.6 demands or recommends."""

    def trace(self, mta: MemoryMTA, content: str, *before: str) -> str:
        """Send a message in a new session; return all that was put in front of it."""
        client = mta.connect()
        client.say(*before)
        client.say("MAIL FROM:<ann@localhost>", "RCPT TO:<carl@localhost>", "DATA")
        self.assertEqual(client.say(f"{content}\r\n.")[0][:3], "250")
        mta.advance(1)
        (mail,) = mta.mail("carl")
        new = f"{mta.mta.config.maildir}/localhost/carl/new"
        mta.files.unlink(f"{new}/{mta.files.names(new)[0]}")
        return mail.decode().partition("Subject:")[0]

    def test_missing_date_and_message_id_are_added_to_mail_of_clients_that_may_relay(self) -> None:
        mta = self.started(users=self.users, listeners=(Listener(endpoint=ENDPOINT, auth="any"),))
        trace = self.trace(mta, "Subject: Hi\r\n\r\n")
        self.assertRegex(trace, r"\nDate: Fri, 15 Jan 2027 08:00:\d\d \+0000\n")
        self.assertRegex(trace, r"\nMessage-ID: <[0-9A-Z]+@mta\.example>\n")
        trace = self.trace(mta, "Subject: Hi\r\nDate: today\r\nMessage-Id: <a@b>\r\n\r\n")
        self.assertEqual(trace.count("\nDate:") + trace.count("\nMessage-"), 0)

    def test_mail_of_strangers_stays_as_it_came_unless_they_authenticate(self) -> None:
        mta = self.started(
            users=self.users,
            relay_from=(),
            listeners=(Listener(endpoint=ENDPOINT, auth="any"),),
        )
        self.assertNotIn("\nDate:", self.trace(mta, "Subject: Hi\r\n\r\n"))
        trace = self.trace(mta, "Subject: Hi\r\n\r\n", self.plain("ann"))
        self.assertEqual((trace.count("\nDate:"), trace.count("\nMessage-ID:")), (1, 1))

    def test_mail_by_lmtp_stays_as_it_came(self) -> None:
        endpoint = "tcp:24:interface=127.0.0.1"
        mta = self.started(listeners=(Listener(endpoint=endpoint, kind="lmtp"),))
        client = mta.connect(("127.0.0.1", 24), greet=False)
        client.say("LHLO mx.example", "MAIL FROM:<>", "RCPT TO:<carl@localhost>", "DATA")
        client.say("Subject: Hi\r\n\r\n.")
        mta.advance(1)
        self.assertNotIn(b"\nDate:", mta.mail("carl")[0])

    def test_a_first_line_that_begins_with_white_space_is_no_part_of_our_own_fields(self) -> None:
        mta = self.started(listeners=(Listener(endpoint=ENDPOINT),))
        for number, first in enumerate((" by mx.bank.example", "\tfrom: eve@evil.test", " ")):
            mta.submit_by_smtp(
                f"{first}\r\nFrom: x\r\n\r\ntext\r\n".encode(), f"c{number}@localhost"
            )
            mta.advance(1)
            (mail,) = mta.mail(f"c{number}")
            header, _, text = mail.partition(b"\n\n")
            self.assertEqual(text.decode(), f"{first}\nFrom: x\n\ntext\n")
            self.assertIn(b"\nMessage-ID: ", header)
            self.assertNotIn(b"\nFrom: x", header)

    def test_a_from_field_behind_such_a_line_is_none(self) -> None:
        mta = self.submission(own_addresses="header")
        client = mta.connect()
        client.say(self.plain("ann"), "MAIL FROM:<ann@localhost>", "RCPT TO:<carl@localhost>")
        client.say("DATA")
        reply = client.say("  x\r\nFrom: ann@localhost\r\n\r\n.")
        self.assertEqual(reply[0][:9], "550 5.7.1")

    def test_the_address_of_a_user_is_kept_out_of_received_and_stays_in_the_log(self) -> None:
        mta = self.submission(hide_client_address=True)
        lines = logged_lines(self)
        trace = self.trace(mta, "Subject: Hi\r\n\r\n", self.plain("ann"))
        self.assertRegex(trace, r"\nReceived: by mta\.example with ESMTPA id \w+\n\tfor <carl@")
        self.assertNotIn("127.0.0.1", trace)
        self.assertNotIn("client.example", trace)
        self.assertTrue(any("accepted: " in each and "client=127.0.0.1" in each for each in lines))
        listener = evolve(mta.mta.config.listeners[0], hide_client_address=False)
        reload(mta, listeners=(listener,))
        trace = self.trace(mta, "Subject: Hi\r\n\r\n", self.plain("ann"))
        self.assertIn("Received: from client.example ([127.0.0.1])", trace)

    def test_the_address_of_a_client_without_a_user_is_never_left_out(self) -> None:
        listener = Listener(endpoint=ENDPOINT, auth="any", hide_client_address=True)
        mta = self.started(users=self.users, listeners=(listener,))
        self.assertIn("127.0.0.1", self.trace(mta, "Subject: Hi\r\n\r\n"))


def reload(mta: MemoryMTA, **settings: Any) -> list[str]:
    """Reload an MTA with other settings; return the lines about changes."""
    lines: list[list[str]] = []
    reloaded = mta.mta.reload(evolve(mta.mta.config, **settings))
    reloaded.addCallback(lines.append)
    mta.reactor.settle()
    return lines[0]
