"""Allow and deny lists: which mail of strangers is refused, and what exempts it."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from tests.logs import logged_lines
from tests.policy.dkim.keys import key, record
from twisted_mta.config import PolicySettings
from twisted_mta.policy.dkim.body_hashes import body_hash
from twisted_mta.policy.dkim.signing import sign
from twisted_mta.service import CannotReload
from twisted_mta.testing.memory_mta import EPOCH, MemoryMTA

from .strangers import MESSAGE, STRANGER, TAKEN, StrangersTestCase

HEADER, BODY = MESSAGE.split(b"\r\n\r\n")
SIGNING = key("ed25519", domain="signed.example")


def signed(time: int) -> bytes:
    """Return the message with a signature of signed.example."""
    header = HEADER + b"\r\n"
    return sign(header, body_hash([BODY]), SIGNING, time=time) + header + b"\r\n" + BODY


class WithLists(StrangersTestCase):
    zone = f"""
        sender.example.             TXT "v=spf1 ip4:{STRANGER} -all"
        mx.sender.example.          A   {STRANGER}
        mx.sender.example.          TXT "v=spf1 a -all"
        7.2.0.192.in-addr.arpa.     PTR mx.sender.example.
    """

    def mta(self, *, allow: str = "", deny: str = "", **settings: Any) -> MemoryMTA:
        policy = PolicySettings(
            allow=self.write("allow", allow), deny=self.write("deny", deny), dmarc="off"
        )
        mta = self.started(**{"policy": policy, **settings})
        self.resolver.texts[SIGNING.record_name] = [record(SIGNING)]
        return mta


DENIED = ["550 5.7.1"]


class Denied(WithLists):
    def test_each_kind_of_entry_is_refused_at_rcpt_with_what_is_refused(self) -> None:
        for entry, reply in (
            (STRANGER, f"Mail from {STRANGER} is not accepted here"),
            ("192.0.2.0/29  # a comment", f"Mail from {STRANGER} is not accepted here"),
            ("::ffff:192.0.2.7", None),
            ("client:mx.sender.example", f"Mail from {STRANGER} is not accepted here"),
            ("client:.Example", f"Mail from {STRANGER} is not accepted here"),
            ("helo:mx.sender.example", "Mail of clients that call themselves mx.sender.example is"),
            ("helo:.SENDER.example.", "Mail of clients that call themselves mx.sender.example is"),
            ("Ann@sender.EXAMPLE", "Mail of ann@sender.example is not accepted here"),
            ("sender.example", "Mail of ann@sender.example is not accepted here"),
            (".example", "Mail of ann@sender.example is not accepted here"),
            ("to:bob@us.example", "Mail for this recipient is not accepted here"),
            ("to: us.example", "Mail for this recipient is not accepted here"),
            ("192.0.2.8", None),
            ("2001:db8::/32", None),
            ("client:sender.example", None),
            ("client:.mx.sender.example", None),
            ("helo:sender.example", None),
            (".sender.example", None),
            ("nn@sender.example", None),
            ("to:b@us.example", None),
            ("to:.us.example", None),
        ):
            mta = self.mta(deny=f"# list\n{entry}\n")
            replies = self.replies(mta)
            if reply is None and not entry.startswith("::ffff"):
                self.assertEqual([each[:9] for each in replies], TAKEN, entry)
            elif reply is not None:
                self.assertEqual(len(replies), 1, entry)
                self.assertTrue(replies[0].startswith(f"550 5.7.1 {reply}"), (entry, replies))

    def test_the_postmaster_is_reached_unless_he_is_listed_himself(self) -> None:
        mta = self.mta(deny=STRANGER)
        codes = self.codes(mta, "postmaster@us.example", "bob@us.example")
        self.assertEqual(codes, ["250 2.1.5", "550 5.7.1", "250 2.0.0"])
        mta = self.mta(deny="to:postmaster@us.example")
        self.assertEqual(self.codes(mta, "postmaster@us.example"), DENIED)

    def test_clients_that_may_relay_are_not_denied(self) -> None:
        mta = self.mta(deny="127.0.0.0/8\nsender.example\n")
        self.assertEqual(self.codes(mta, source=""), TAKEN)

    def test_a_reverse_name_that_is_not_known_denies_nothing(self) -> None:
        mta = self.mta(deny="client:.example\n")
        self.resolver.hold(STRANGER)
        client = mta.connect(source=STRANGER, greet=False)
        client.say("EHLO x", "MAIL FROM:<ann@sender.example>")
        client.send(b"RCPT TO:<bob@us.example>\r\n")
        mta.advance(11)
        self.assertEqual(client.say("NOOP")[0][:9], "250 2.1.5")
        self.resolver.release(STRANGER)

    def test_a_denial_is_counted_and_foretold_by_explain(self) -> None:
        mta = self.mta(deny=f"#\n{STRANGER}\n")
        log = logged_lines(self, "denied by ")
        self.assertEqual(self.codes(mta), DENIED)
        self.assertIn(f"deny, line 2: {STRANGER}: client {STRANGER}", log[0])
        self.assertEqual(self.counted(mta, "deny", "refuse"), 1)
        self.assertEqual(self.foretold(mta), ["550 5.7.1 Mail from 192.0.2.7 is not accepted here"])
        self.assertEqual(self.foretold(mta, "postmaster@us.example"), [])

    def foretold(self, mta: MemoryMTA, to: str = "bob@us.example") -> list[str]:
        facts = self.explained(mta, to, sender="ann@signed.example")
        return [each["reply"] for each in facts["forecast"]["refusals"]]


class Allowed(WithLists):
    DENY = f"{STRANGER}\n.example\n"

    def test_a_client_is_exempt_by_its_address_and_by_confirmed_names(self) -> None:
        for entry in ("192.0.2.0/24", "client:.sender.example", "helo:mx.sender.example"):
            self.assertEqual(self.codes(self.mta(deny=self.DENY, allow=entry)), TAKEN, entry)

    def test_a_name_in_ehlo_that_spf_does_not_prove_exempts_nothing(self) -> None:
        mta = self.mta(deny=self.DENY, allow="helo:.example\n")
        self.assertEqual(self.codes(mta, helo="forged.example"), DENIED)

    def test_a_sender_is_exempt_with_spf_and_not_without(self) -> None:
        for entry in ("ann@sender.example", "sender.example", ".example"):
            mta = self.mta(deny=self.DENY, allow=entry)
            self.assertEqual(self.codes(mta), TAKEN, entry)
            # The sender is claimed by a client that its SPF record forbids, without a signature.
            codes = self.codes(mta, source="192.0.2.9", helo="x")
            self.assertEqual(codes, ["250 2.1.5", "550 5.7.1"], entry)

    def test_a_sender_is_exempt_with_a_signature_of_its_domain(self) -> None:
        mta = self.mta(deny=self.DENY, allow="signed.example\nunsigned.example\n")
        content = signed(int(EPOCH))
        self.assertEqual(self.codes(mta, sender="ann@signed.example", content=content), TAKEN)
        (mail,) = mta.inbox_of("bob@us.example")
        self.assertIn(b"dkim=pass", mail.raw)
        refused = ["250 2.1.5", "550 5.7.1"]
        self.assertEqual(self.codes(mta, sender="ann@signed.example"), refused)
        self.assertEqual(self.codes(mta, sender="ann@unsigned.example", content=content), refused)

    def test_a_subdomain_that_signs_for_the_organization_counts(self) -> None:
        mta = self.mta(deny=self.DENY, allow="mail.signed.example\n")
        self.resolver.texts["_dmarc.signed.example"] = ["v=DMARC1; p=none"]
        content = signed(int(EPOCH))
        self.assertEqual(self.codes(mta, sender="ann@mail.signed.example", content=content), TAKEN)

    def test_without_spf_and_dkim_no_sender_is_exempt(self) -> None:
        mta = self.mta(deny=self.DENY, allow="sender.example\n192.0.2.8\n")
        settings = evolve(mta.mta.config.policy, spf="off", dkim="off", arc="off")
        self.successResultOf(mta.mta.reload(evolve(mta.mta.config, policy=settings)))
        self.assertEqual(self.codes(mta), DENIED)

    def test_a_recipient_that_wants_all_mail_gets_it(self) -> None:
        mta = self.mta(deny=self.DENY, allow="to:abuse@us.example\n")
        codes = self.codes(mta, "abuse+tag@us.example", "bob@us.example")
        self.assertEqual(codes, ["250 2.1.5", "550 5.7.1", "250 2.0.0"])

    def test_recipients_that_are_exempt_anyway_are_sent_to_apart(self) -> None:
        """A refusal after the content concerns all recipients of the transaction."""
        mta = self.mta(deny=self.DENY, allow="to:abuse@us.example\nsigned.example\n")
        for first, second in (("abuse", "bob"), ("bob", "postmaster")):
            codes = self.codes(
                mta, f"{first}@us.example", f"{second}@us.example", sender="ann@signed.example"
            )
            self.assertEqual(codes[:2], ["250 2.1.5", "452 4.5.3"])

    def test_nothing_else_is_skipped_and_nothing_is_relayed(self) -> None:
        mta = self.mta(allow=f"{STRANGER}\nsender.example\nto:far.example\n", recipients="existing")
        codes = self.codes(mta, "bob@far.example", "bob@us.example")
        self.assertEqual(codes, ["550 5.7.1", "550 5.1.1"])
        enforcing = evolve(mta.mta.config.policy, spf="enforce")
        self.successResultOf(mta.mta.reload(evolve(mta.mta.config, policy=enforcing)))
        client = mta.connect(source="192.0.2.9")
        self.assertEqual(client.say("MAIL FROM:<ann@sender.example>")[-1][:10], "550 5.7.23")

    def test_what_was_exempt_stands_in_the_log_and_with_the_message(self) -> None:
        mta = self.mta(deny=self.DENY, allow="# none\nsender.example\n")
        log = logged_lines(self, "checked: ")
        self.assertEqual(self.codes(mta), TAKEN)
        self.assertEqual(self.counted(mta, "allow", "pass"), 1)
        self.assertIn(
            "allow=pass (over deny, line 2: sender.example, sender.example by SPF)", log[0]
        )


class Files(WithLists):
    def test_a_reload_reads_the_lists_again_and_a_bad_one_changes_nothing(self) -> None:
        mta = self.mta(deny="192.0.2.8\n")
        self.assertEqual(self.codes(mta), TAKEN)
        path = self.write("deny", f"192.0.2.8\n{STRANGER}\n")
        self.assertIn(f"{path}: 2 entries; before: 1", self.reloaded(mta))
        self.assertEqual(self.codes(mta), DENIED)
        for entry, mistake in (
            ("192.0.2.1/24", "bits are set beyond the prefix; expected 192.0.2.0/24"),
            ("192.0.2.300", "not a network; expected 192.0.2.0/24 or 2001:db8::/32"),
            ("@a.example", "no local part; expected a.example for all of a domain"),
            ("to:192.0.2.1", "an address; expected it without to:"),
            ("a b", "not a domain name; expected an address, a network, a domain, .domain, a"),
            ("from:a@b.example", "not of the form local-part@domain; expected an address"),
        ):
            self.write("deny", f"\n{entry}\n")
            reloading = mta.mta.reload(mta.mta.config)
            mta.reactor.settle()
            error = str(self.failureResultOf(reloading, CannotReload).value)
            self.assertIn(f'deny:2: "{entry}": {mistake}', error)
        self.assertEqual(self.codes(mta), DENIED)

    def reloaded(self, mta: MemoryMTA) -> list[str]:
        reloading = mta.mta.reload(mta.mta.config)
        mta.reactor.settle()
        lines: list[str] = self.successResultOf(reloading)
        return lines
