"""A reload applies each setting of listeners and of AUTH that it may change, and takes it back."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

import attrs
from attrs import evolve

from tests.agent.test_agent import ENDPOINT
from tests.agent.test_listeners import PASSWORD, WithAccounts, reload
from tests.server.authority import self_signed
from twisted_mta.auth.accounts import Account
from twisted_mta.auth.accounts_file import changing
from twisted_mta.config import Listener, RelayCertificate
from twisted_mta.config.certificates import SNICertificate
from twisted_mta.config.change import _FIXED
from twisted_mta.mail.tls_facts import TLSFacts
from twisted_mta.smtp.peer import Peer
from twisted_mta.smtp.server.session import Session
from twisted_mta.testing.memory_mta import MemoryMTA
from twisted_mta.tls.server import ServerContext

NETWORK = (ip_network("192.0.2.0/24"),)
LMTP: Mapping[str, Any] = {"kind": "lmtp", "endpoint": "tcp:24:interface=127.0.0.1"}
SUBMISSION: Mapping[str, Any] = {"kind": "submission", "auth": "any"}
ASKED: Mapping[str, Any] = {"client_certificates": "ask"}


class OfListeners(WithAccounts):
    def setUp(self) -> None:
        super().setUp()
        self.authority = self_signed("authority.example").save(self.directory, "authority.pem")

    def changed(self) -> Mapping[str, tuple[Mapping[str, Any], Any]]:
        """Return a listener's other settings and the new value, for each setting."""
        named = SNICertificate(names=("a.example",), certificate=self.authority, key=self.authority)
        return {
            "tls": ({}, "none"),
            "require_tls": ({}, True),
            "auth": ({}, "any"),
            "auth_mechanisms": (SUBMISSION, ("LOGIN",)),
            "max_auth_failures": (SUBMISSION, 2),
            "own_addresses": (SUBMISSION, "header"),
            "add_sender": (SUBMISSION, True),
            "hide_client_address": (SUBMISSION, True),
            "recipients_per_hour": (SUBMISSION, 7),
            "messages_per_hour": (SUBMISSION, 7),
            "minimum_tls": ({}, "1.3"),
            "minimum_cipher_bits": ({}, 256),
            "ciphers": ({}, "ECDHE+AESGCM"),
            "tls_tickets": ({}, False),
            "sni": ({}, (named,)),
            "client_certificates": ({}, "ask"),
            "client_certificate_authorities": (ASKED, self.authority),
            "relay_certificates": (ASKED, (RelayCertificate("0" * 64),)),
            "require_tls_from": ({}, NETWORK),
            "xclient_from": ({}, NETWORK),
            "vrfy_from": ({}, NETWORK),
            "expn_from": ({}, NETWORK),
            "lmtp_delivery": (LMTP, "direct"),
            "bare_newlines": ({}, "reject"),
            "long_lines": ({}, "reject"),
            "max_message_size": ({}, 1 << 20),
            "max_recipients": ({}, 200),
            "max_hops": ({}, 50),
            "max_header_size": ({}, 1 << 10),
            "minimum_deliver_by": ({}, 60.0),
            "max_future_release": (SUBMISSION, 3600.0),
            "max_connections": ({}, 9),
            "max_connections_per_peer": ({}, 9),
            "max_errors": ({}, 9),
            "slow_after_errors": ({}, 9),
            "error_delay": ({}, 9.0),
            "command_timeout": ({}, 9.0),
            "data_timeout": ({}, 9.0),
            "tls_handshake_timeout": ({}, 9.0),
            "minimum_rate": ({}, 9),
            "rate_grace": ({}, 9.0),
        }

    def shown(self, mta: MemoryMTA) -> dict[str, Any]:
        """Return all that decides on new connections of the one listener."""
        (factory,) = mta.mta.agent.listeners.factories
        (intake,) = mta.mta.agent.listeners.intakes
        settings = factory.settings
        session = Session(settings, peer=Peer("192.0.2.9"), tls_ready=factory.tls_ready)
        replies = []
        for command in ("LHLO x", "EHLO x", "HELP", "VRFY bob@localhost", "EXPN bob@localhost"):
            session.receive(f"{command}\r\n".encode())
            session.step()
            replies.append(session.output())
        tls = factory.tls.settings if isinstance(factory.tls, ServerContext) else None
        return {
            "replies": replies,
            "policy": intake.policy,
            "tls": tls,
            "suffices": [
                settings.tls_suffices(TLSFacts(version, "AES", bits))
                for version in ("TLSv1.2", "TLSv1.3")
                for bits in (128, 256)
            ],
            "downgrade": settings.requires_tls_of(Peer("192.0.2.9")),
            "limits": (factory.timeouts, factory.max_connections, factory.max_connections_per_peer),
            "auth": settings.auth and attrs.asdict(settings.auth),
            "session": [
                getattr(settings, name)
                for name in (
                    *("require_tls", "bare_newlines", "long_lines", "max_message_size"),
                    *("max_recipients", "max_errors"),
                )
            ],
        }

    def test_each_setting_that_may_be_reloaded_is_applied_and_taken_back(self) -> None:
        changed = self.changed()
        reloadable = {each.name for each in attrs.fields(Listener)} - set(_FIXED["listeners"])
        self.assertEqual(set(changed), reloadable)
        for fixed in ({}, SUBMISSION, LMTP):
            kind = fixed.get("kind", "smtp")
            before = Listener(**{"endpoint": ENDPOINT, **fixed})
            mta = self.started(users=self.users, listeners=(before,))
            for name, (others, value) in changed.items():
                if others.get("kind", "smtp") != kind:
                    continue
                before = Listener(**{"endpoint": ENDPOINT, **others})
                reload(mta, listeners=(before,))
                shown = self.shown(mta)
                lines = reload(mta, listeners=(evolve(before, **{name: value}),))
                self.assertTrue(any(f"{name} = " in line for line in lines), lines)
                self.assertNotEqual(self.shown(mta), shown, name)
                reload(mta, listeners=(before,))
                self.assertEqual(self.shown(mta), shown, name)
            mta.stop()


class OfTheIntake(WithAccounts):
    def code(self, mta: MemoryMTA, recipient: str) -> str:
        return self.codes(mta, "MAIL FROM:<ann@far.example>", f"RCPT TO:<{recipient}>")

    def test_a_reload_changes_which_clients_may_relay(self) -> None:
        mta = self.started(listeners=(Listener(endpoint=ENDPOINT),))
        self.assertEqual(self.code(mta, "bob@far.example"), "250 250")
        reload(mta, relay_from=NETWORK)
        self.assertEqual(self.code(mta, "bob@far.example"), "250 550")

    def test_a_reload_changes_the_domains_and_mailboxes_that_are_ours(self) -> None:
        mta = self.started(listeners=(Listener(endpoint=ENDPOINT),), relay_from=())
        self.assertEqual(self.code(mta, "bob@new.example"), "250 550")
        reload(mta, local_domains=("localhost", "new.example"))
        self.assertEqual(self.code(mta, "bob@new.example"), "250 250")
        reload(mta, recipients="existing", users=self.users)
        self.assertEqual(self.code(mta, "eve@new.example"), "250 550")
        self.assertEqual(self.code(mta, "ann@new.example"), "250 250")

    def test_a_reload_changes_what_happens_to_an_alias_with_missing_members(self) -> None:
        aliases = self.write("aliases", "team: ann@localhost, eve@localhost\n")
        mta = self.started(
            users=self.users,
            aliases=aliases,
            recipients="existing",
            listeners=(Listener(endpoint=ENDPOINT),),
        )
        self.assertEqual(self.code(mta, "team@localhost"), "250 250")
        reload(mta, missing_members="refuse")
        self.assertEqual(self.code(mta, "team@localhost"), "250 550")

    def test_a_reload_changes_the_lifetime_of_messages(self) -> None:
        mta = self.started(listeners=(Listener(endpoint=ENDPOINT),))
        reload(mta, queue=evolve(mta.mta.config.queue, lifetime=86400.0))
        (intake,) = mta.mta.agent.listeners.intakes
        self.assertEqual(intake.policy.lifetime, 86400.0)


class OfAUTH(WithAccounts):
    """Settings of ``[mta]``, as a client notices them."""

    def failures(self, mta: MemoryMTA, name: str) -> int:
        """Return after how many failures an account is not judged any more."""
        client = mta.connect()
        for failures in range(100):
            if client.say(self.plain(name, "wrong"))[0].startswith("454"):
                client.say("QUIT")
                return failures
        raise AssertionError("the account is judged all the same")

    def lenient(self, **settings: Any) -> MemoryMTA:
        mta = self.submission(max_auth_failures=1000, max_errors=1000, slow_after_errors=1000)
        reload(mta, **settings)
        return mta

    def test_a_reload_changes_the_limit_of_failures_of_an_account(self) -> None:
        mta = self.lenient(auth_failures_per_account=5)
        self.assertEqual(self.failures(mta, "ann"), 5)
        reload(mta, auth_failures_per_account=7)
        self.assertEqual(self.failures(mta, "ann"), 2)

    def test_a_reload_changes_the_limit_of_failures_of_an_address(self) -> None:
        mta = self.lenient(auth_failures_per_account=0, auth_failures_per_address=5)
        self.assertEqual(self.failures(mta, "ann"), 5)
        reload(mta, auth_failures_per_address=8)
        self.assertEqual(self.failures(mta, "bob@localhost"), 3)

    def test_a_reload_changes_the_period_of_failures(self) -> None:
        mta = self.lenient(auth_failures_per_account=2, auth_failure_period=600.0)
        reload(mta, auth_failure_period=60.0)
        self.assertEqual(self.failures(mta, "ann"), 2)
        mta.advance(59)
        self.assertEqual(self.failures(mta, "ann"), 0)
        mta.advance(1)
        self.assertEqual(self.failures(mta, "ann"), 2)

    def test_a_reload_changes_the_delay_of_a_failure(self) -> None:
        mta = self.lenient()
        reload(mta, auth_failure_delay=3.0)
        client = mta.connect()
        self.assertEqual(client.say(self.plain("ann", "wrong")), [])
        mta.advance(2.9)
        self.assertEqual(client.heard(), [])
        mta.advance(0.1)
        self.assertEqual(client.heard()[0][:3], "535")

    def test_a_reload_changes_the_file_of_accounts_and_the_domains_of_logins(self) -> None:
        mta = self.submission()
        other = f"{self.users}.other"
        with changing(other) as accounts:
            accounts["eve"] = Account.of("eve", PASSWORD, secret=bytes)
        reload(mta, users=other, local_domains=("eve.example",))
        self.assertEqual(self.codes(mta, self.plain("ann")), "535")
        self.assertEqual(self.codes(mta, self.plain("eve@eve.example")), "235")
        self.assertEqual(self.codes(mta, self.plain("eve@localhost")), "535")

    def test_a_reload_names_ten_changed_accounts_and_counts_the_rest(self) -> None:
        mta = self.submission()
        self.assertEqual(reload(mta), [])
        with changing(self.users) as accounts:
            for number in range(11):
                accounts[f"user{number}"] = Account(f"user{number}")
        first = ", ".join(sorted(f"user{number}" for number in range(11))[:10])
        self.assertEqual(reload(mta), [f"{self.users}: 14 accounts, changed: {first} and 1 more"])
        with changing(self.users) as accounts:
            for number in range(1, 11):
                del accounts[f"user{number}"]
            accounts["ann"] = Account("ann", addresses=("new@far.example",))
            del accounts["user0"]
        first = "ann, " + ", ".join(sorted(f"user{number}" for number in range(11))[:9])
        self.assertEqual(reload(mta), [f"{self.users}: 3 accounts, changed: {first} and 2 more"])
        self.assertEqual(reload(mta), [])
