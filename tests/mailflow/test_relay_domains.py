"""A backup MX: relay domains, which are not ours, and the addresses that exist in them."""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import evolve

from twisted_mta.config import Listener
from twisted_mta.config.setting import ConfigError
from twisted_mta.service import CannotReload
from twisted_mta.testing import MemoryMTA
from twisted_mta.testing.client import MemoryClient

from .strangers import STRANGER, StrangersTestCase

RELAYED = ("backup.example", "bücher.example")


class RelayDomainTestCase(StrangersTestCase):
    settings: ClassVar[dict[str, Any]] = {
        "local_domains": ("us.example",),
        "relay_domains": RELAYED,
        "recipients": "existing",
    }

    def mta(
        self, *, recipients: str | None = None, aliases: str = "", **settings: Any
    ) -> MemoryMTA:
        if recipients is not None:
            settings["relay_recipients"] = self.write("recipients", recipients)
        if aliases:
            settings["aliases"] = self.write("aliases", aliases)
        return self.started(**settings)

    def begin(self, mta: MemoryMTA, source: str = STRANGER, **how: Any) -> MemoryClient:
        client = mta.connect(source=source, **how)
        client.say("MAIL FROM:<ann@sender.example>")
        return client

    def rcpt(self, mta: MemoryMTA, *recipients: str, source: str = STRANGER) -> list[str]:
        """Return the codes of the replies to each recipient."""
        client = self.begin(mta, source)
        return [client.say(f"RCPT TO:{each}")[0][:9] for each in recipients]


class Relaying(RelayDomainTestCase):
    def test_a_stranger_may_send_to_a_relay_domain_and_to_no_other(self) -> None:
        self.assertEqual(
            self.rcpt(
                self.mta(),
                "<bob@backup.example>",
                "<bob@other.example>",
                "<bob@sub.backup.example>",
                "<bob@ackup.example>",
                "<bob%other.example@us.example>",
            ),
            ["250 2.1.5", "550 5.7.1", "550 5.7.1", "550 5.7.1", "550 5.1.1"],
        )

    def test_no_spelling_of_an_address_changes_the_decision(self) -> None:
        replies = self.rcpt(
            self.mta(),
            "<bob@BACKUP.Example>",
            "<bob@backup.example.>",
            "<@us.example,@b.example:bob@backup.example>",
            '<"bob"@backup.example>',
            "<bob@xn--bcher-kva.example>",
            "<bob@XN--BCHER-KVA.example>",
            "<@backup.example:bob@other.example>",
            "<bob@other.example.>",
        )
        self.assertEqual(replies, ["250 2.1.5"] * 6 + ["550 5.7.1"] * 2)

    def test_mail_goes_to_the_exchangers_that_are_better_than_ourselves(self) -> None:
        zone = """
            backup.example.     MX 10 mx1.backup.example.
            backup.example.     MX 20 mta.example.
            mx1.backup.example. A  192.0.2.1
            mta.example.        A  192.0.2.2
        """
        mta = self.mta(zone=zone)
        (recipient,) = self.explained(mta, "bob@backup.example")["recipients"]
        way = recipient["way"]
        self.assertEqual([each["host"] for each in way["targets"]], ["mx1.backup.example"])
        self.assertEqual(way["rule"], "mail exchangers of backup.example")
        away = self.mta(zone="backup.example. MX 10 mta.example.")
        (recipient,) = self.explained(away, "bob@backup.example")["recipients"]
        self.assertEqual(recipient["way"]["targets"], [])
        self.assertIn("loops back to myself", recipient["way"]["failure"])

    def test_our_aliases_and_mailboxes_are_not_for_a_relay_domain(self) -> None:
        mta = self.mta(aliases="bob: ann@us.example\n@us.example: ann\n")
        mta.files.make_directories(f"{mta.mta.config.maildir}/us.example/ann/new")
        mta.files.make_directories(f"{mta.mta.config.maildir}/backup.example/bob/new")
        self.assertEqual(
            self.rcpt(mta, "<bob@us.example>", "<bob@backup.example>"), ["250 2.1.5"] * 2
        )
        explained = self.explained(mta, "bob@backup.example")
        self.assertEqual(explained["where"], "relay")
        self.assertEqual(
            [each["mailbox"] for each in explained["recipients"]], ["bob@backup.example"]
        )
        self.assertEqual(explained["steps"], [])

    def test_lmtp_and_submission_listeners_know_no_relay_domains(self) -> None:
        listeners = [
            Listener(kind="lmtp", endpoint="tcp:24:interface=127.0.0.1"),
            Listener(kind="submission", endpoint="tcp:587:interface=127.0.0.1"),
        ]
        mta = self.mta(listeners=listeners)
        client = mta.connect(("127.0.0.1", 24), greet=False)
        client.say("LHLO client.example")
        client.say("MAIL FROM:<ann@sender.example>")
        self.assertEqual(client.say("RCPT TO:<bob@backup.example>")[0][:9], "550 5.7.1")
        client = self.begin(mta, address=("127.0.0.1", 587))
        self.assertEqual(client.say("RCPT TO:<bob@backup.example>")[0][:3], "503")

    def test_a_domain_is_ours_or_relayed_and_not_both(self) -> None:
        for ours in ({"local_domains": ("Backup.example.",)}, {"srs_domain": "backup.example"}):
            with self.assertRaises(ConfigError) as raised:
                self.mta(**ours)
            self.assertIn("backup.example is ours by ", str(raised.exception))
        with self.assertRaises(ConfigError) as raised:
            self.mta(aliases="a: b\n", virtual_domains=("xn--bcher-kva.example",))
        self.assertIn("is ours by virtual_domains; expected", str(raised.exception))
        with self.assertRaises(ConfigError) as raised:
            self.mta(relay_domains=(), relay_recipients="file")
        self.assertIn("there are no relay_domains; expected at least one", str(raised.exception))


class Recipients(RelayDomainTestCase):
    LIST = (
        "# all that exist\nBob@backup.example\nsales+eu@BACKUP.example.  # a tag\n@bücher.example\n"
    )

    def test_an_address_that_is_not_in_the_list_is_refused(self) -> None:
        mta = self.mta(recipients=self.LIST)
        for source in (STRANGER, ""):
            self.assertEqual(
                self.rcpt(
                    mta,
                    "<bob@backup.example>",
                    "<BOB+tag@backup.example>",
                    "<sales+eu@backup.example>",
                    "<any@xn--bcher-kva.example>",
                    "<postmaster@backup.example>",
                    "<sales@backup.example>",
                    "<+@backup.example>",
                    "<nobody@backup.example>",
                    source=source,
                ),
                ["250 2.1.5"] * 5 + ["550 5.1.1"] * 3,
            )

    def test_explain_tells_of_an_address_that_does_not_exist(self) -> None:
        mta = self.mta(recipients=self.LIST)
        explained = self.explained(mta, "x@backup.example")
        self.assertEqual(explained["refused"], "550 5.1.1 No such mailbox here")

    def test_members_of_aliases_are_refused_as_well(self) -> None:
        mta = self.mta(recipients=self.LIST, aliases="gone: nobody@backup.example\n")
        self.assertEqual(self.rcpt(mta, "<gone@us.example>"), ["550 5.1.1"])

    def test_the_list_is_read_again_at_a_reload_and_a_bad_one_changes_nothing(self) -> None:
        mta = self.mta(recipients=self.LIST)
        path = self.write("recipients", "eve@backup.example\n")
        lines = self.reload(mta)
        self.assertIn(f"{path}: 1 recipient; before: 3", lines)
        asked = ("<eve@backup.example>", "<bob@backup.example>")
        self.assertEqual(self.rcpt(mta, *asked), ["250 2.1.5", "550 5.1.1"])
        for content, mistake in (
            ("eve\n", ':1: "eve": not of the form local-part@domain; expected name@backup.example'),
            (
                "#\n@us.example\n",
                ':2: "@us.example": us.example is none of relay_domains; expected',
            ),
            ("\n\nbob@backup.example\ta\n", ':3: "bob@backup.example?a": not of the form'),
        ):
            self.write("recipients", content)
            reloading = mta.mta.reload(mta.mta.config)
            mta.reactor.settle()
            error = str(self.failureResultOf(reloading, CannotReload).value)
            self.assertIn("recipients:", error)
            self.assertIn(mistake.replace("?", "\\t"), error)
        self.assertEqual(self.rcpt(mta, *asked), ["250 2.1.5", "550 5.1.1"])

    def test_relay_domains_change_at_a_reload(self) -> None:
        mta = self.mta()
        self.reload(mta, relay_domains=("other.example",))
        asked = ("<bob@other.example>", "<bob@backup.example>")
        self.assertEqual(self.rcpt(mta, *asked), ["250 2.1.5", "550 5.7.1"])

    def reload(self, mta: MemoryMTA, **changed: Any) -> list[str]:
        reloading = mta.mta.reload(evolve(mta.mta.config, **changed))
        mta.reactor.settle()
        lines: list[str] = self.successResultOf(reloading)
        return lines
