"""Expansion: aliases, missing members, virtual domains, loops, and rewritten reverse-paths."""

from collections.abc import Sequence

from tests.tidy import TidyTestCase
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.reply import Reply
from twisted_mta.routing.alias_file import parse_aliases
from twisted_mta.routing.alias_walk import MOST_RECIPIENTS, ExpansionStep
from twisted_mta.routing.expansion import Expander
from twisted_mta.routing.mailbox_lookup import MailboxLookup
from twisted_mta.routing.srs import SenderRewriting

LOCAL = ("us.example", "second.example")
VIRTUAL = ("virtual.example",)
SRS = SenderRewriting("us.example", b"0123456789abcdef")
SENDER = Mailbox("ann", "sender.example")


class ExpansionTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.mailboxes: Sequence[str] | None = None
        self.srs: SenderRewriting | None = None
        self.now = 20_000 * 86_400.0

    def expander(self, aliases: str = "") -> Expander:
        return Expander(
            MailboxLookup(
                local_domains=LOCAL,
                virtual_domains=VIRTUAL,
                aliases=parse_aliases(aliases.encode(), name="aliases", ours=(*LOCAL, *VIRTUAL)),
                srs=self.srs,
                exists=lambda mailbox: self.mailboxes is None or str(mailbox) in self.mailboxes,
                has_mailbox=lambda mailbox: str(mailbox) in (self.mailboxes or ()),
                wall_time=lambda: self.now,
            )
        )

    def expand(
        self, aliases: str, mailbox: str, reverse_path: Mailbox | None = SENDER
    ) -> list[str] | str:
        """Return the final recipients, or the beginning of the reply.

        Missing members are followed by the beginning of their refusal.
        """
        found = self.expander(aliases).expand(Mailbox.parse(mailbox), reverse_path)
        if isinstance(found, Reply):
            return str(found)[:9]
        return [
            f"{each.mailbox}" + ("" if each.refusal is None else f" {each.refusal}"[:10])
            for each in found
        ]


class Aliasing(ExpansionTestCase):
    def test_a_mailbox_without_an_alias_is_its_own_recipient(self) -> None:
        self.assertEqual(self.expand("", "Bob+x@us.example"), ["Bob+x@us.example"])
        self.assertEqual(self.expand("eve: x", "bob@us.example"), ["bob@us.example"])

    def test_aliases_are_followed_recursively(self) -> None:
        aliases = "postmaster: root\nroot: ann, bob@else.example\nann: carol"
        self.assertEqual(
            self.expand(aliases, "Postmaster@us.example"), ["carol@us.example", "bob@else.example"]
        )

    def test_a_target_without_a_domain_is_in_the_domain_of_the_lookup(self) -> None:
        self.assertEqual(self.expand("bob: eve", "bob@second.example"), ["eve@second.example"])
        self.assertEqual(
            self.expand("bob@second.example: eve", "bob@second.example"), ["eve@second.example"]
        )
        # A virtual domain has aliases only.
        self.assertEqual(
            self.expand("bob@virtual.example: eve", "bob@virtual.example"), ["eve@us.example"]
        )

    def test_an_alias_with_a_domain_applies_to_that_domain_only(self) -> None:
        aliases = "bob@us.example: eve"
        self.assertEqual(self.expand(aliases, "bob@second.example"), ["bob@second.example"])

    def test_a_mailbox_reached_twice_is_one_recipient(self) -> None:
        aliases = "all: a, b, Eve@us.example, x@else.example\na: eve, b\nb: eve, x@else.example"
        self.assertEqual(
            self.expand(aliases, "all@us.example"), ["eve@us.example", "x@else.example"]
        )

    def test_a_name_that_leads_back_to_itself_is_the_mailbox(self) -> None:
        for aliases, found in (
            ("bob: bob, x@else.example", ["bob@us.example", "x@else.example"]),
            ("bob: Bob@us.example, x@else.example", ["Bob@us.example", "x@else.example"]),
            ("bob: eve\neve: bob, x@else.example", ["bob@us.example", "x@else.example"]),
            ("bob: bob+copy, x@else.example", ["bob+copy@us.example", "x@else.example"]),
        ):
            self.assertEqual(self.expand(aliases, "bob@us.example"), found, aliases)

    def test_a_name_that_leads_back_to_itself_without_a_mailbox_is_missing(self) -> None:
        self.mailboxes = ["eve@us.example"]
        self.assertEqual(
            self.expand("bob: bob, x@else.example", "bob@us.example"),
            ["bob@us.example 550 5.1.1", "x@else.example"],
        )
        self.assertEqual(
            self.expand("bob: bob+copy, x@else.example", "Bob@us.example"),
            ["bob+copy@us.example 550 5.1.1", "x@else.example"],
        )
        virtual = "a@virtual.example: a@virtual.example, x@else.example"
        self.assertEqual(
            self.expand(virtual, "a@virtual.example"),
            ["a@virtual.example 550 5.1.1", "x@else.example"],
        )
        self.assertEqual(self.expand("bob: bob", "bob@us.example"), "550 5.1.1")

    def test_lists_that_contain_each_other_are_no_mailboxes(self) -> None:
        self.mailboxes = ["eve@us.example"]
        aliases = "all: eve, staff\nstaff: all, x@else.example"
        self.assertEqual(
            self.expand(aliases, "all@us.example"), ["eve@us.example", "x@else.example"]
        )

    def test_aliases_that_lead_only_to_themselves_defer(self) -> None:
        # An operator can correct it: mail must not bounce.
        self.mailboxes = []
        loop = "a: b\nb: c\nc: b"
        self.assertEqual(self.expand(loop, "a@us.example"), "451 4.3.5")
        self.mailboxes = ["b@us.example"]
        self.assertEqual(self.expand(loop, "a@us.example"), ["b@us.example"])

    def test_a_domain_may_be_an_alias_of_another(self) -> None:
        aliases = "@virtual.example: @us.example\nbob: x@else.example"
        self.assertEqual(self.expand(aliases, "eve+t@virtual.example"), ["eve+t@us.example"])
        self.assertEqual(self.expand(aliases, "bob@virtual.example"), ["x@else.example"])

    def test_a_list_with_too_many_members_defers(self) -> None:
        many = ", ".join(f"u{number}@else.example" for number in range(MOST_RECIPIENTS))
        found = self.expand(f"all: {many}", "all@us.example")
        self.assertEqual(len(found), MOST_RECIPIENTS)
        lists = f"all: half, one\nhalf: {many}"
        self.assertEqual(self.expand(lists, "all@us.example"), "451 4.3.5")
        many = "\n".join(f"n{number}: n{number + 1}" for number in range(MOST_RECIPIENTS))
        self.assertEqual(self.expand(many, "n0@us.example"), "451 4.3.5")

    def test_case_and_spelling_are_ignored(self) -> None:
        aliases = "d\u00f6rte: x@else.example"
        self.assertEqual(self.expand(aliases, "Do\u0308RTE@us.example"), ["x@else.example"])


class MissingMembers(ExpansionTestCase):
    """Members that do not exist do not keep mail from the others."""

    def test_the_other_members_are_final_recipients(self) -> None:
        self.mailboxes = ["eve@us.example"]
        aliases = "all: ghost, eve, list, x@else.example\nlist: Ghost, spook, eve, d\u00f6rte"
        self.assertEqual(
            self.expand(aliases, "all@us.example"),
            [
                "ghost@us.example 550 5.1.1",
                "eve@us.example",
                "spook@us.example 550 5.1.1",
                "d\u00f6rte@us.example 550 5.1.1",
                "x@else.example",
            ],
        )

    def test_a_list_without_any_existing_member_does_not_exist(self) -> None:
        self.mailboxes = []
        aliases = "all: ghost, list\nlist: spook, all"
        self.assertEqual(self.expand(aliases, "all@us.example"), "550 5.1.1")

    def test_postmaster_and_mailboxes_of_a_catch_all_exist(self) -> None:
        self.mailboxes = []
        aliases = "all: postmaster, ghost@second.example\n@second.example: x@else.example"
        self.assertEqual(
            self.expand(aliases, "all@us.example"), ["postmaster@us.example", "x@else.example"]
        )

    def test_each_member_is_looked_up_once(self) -> None:
        looked_up: list[str] = []

        def exists(mailbox: Mailbox) -> bool:
            looked_up.append(str(mailbox))
            return False

        aliases = parse_aliases(b"all: a, b, c, x@else.example", name="aliases", ours=LOCAL)
        expander = Expander(
            MailboxLookup(
                local_domains=LOCAL, aliases=aliases, exists=exists, wall_time=lambda: self.now
            )
        )
        expander.expand(Mailbox("all", "us.example"), SENDER)
        self.assertEqual(looked_up, ["a@us.example", "b@us.example", "c@us.example"])

    def test_the_steps_have_each_missing_member(self) -> None:
        self.mailboxes = ["eve@us.example"]
        steps: list[ExpansionStep] = []
        mailbox = Mailbox("all", "us.example")
        self.expander("all: all, ghost, eve").expand(mailbox, None, steps)
        self.assertEqual(
            [(str(step.mailbox), step.finding) for step in steps],
            [
                ("all@us.example", "alias"),
                ("all@us.example", "nobody"),
                ("ghost@us.example", "nobody"),
                ("eve@us.example", "mailbox"),
            ],
        )

    def test_a_notice_goes_to_the_existing_members(self) -> None:
        self.mailboxes = ["eve@us.example"]
        found = self.expander("all: ghost, eve").notice_recipients(Mailbox("all", "us.example"))
        self.assertEqual(
            [(each.number, str(each.mailbox)) for each in found], [(0, "eve@us.example")]
        )


class PassedAliases(ExpansionTestCase):
    """Each final recipient keeps the aliases that led to it."""

    def passed(self, aliases: str, mailbox: str) -> dict[str, list[str]]:
        found = self.expander(aliases).expand(Mailbox.parse(mailbox), SENDER)
        assert not isinstance(found, Reply)
        return {str(each.mailbox): [str(alias) for alias in each.aliases] for each in found}

    def test_all_passed_aliases_are_kept_in_order(self) -> None:
        aliases = "all: list, x@else.example, Bob\nlist: y@else.example, sub\nsub: z@else.example"
        self.assertEqual(
            self.passed(aliases, "ALL@us.example"),
            {
                "y@else.example": ["all@us.example", "list@us.example"],
                "z@else.example": ["all@us.example", "list@us.example", "sub@us.example"],
                "x@else.example": ["all@us.example"],
                "Bob@us.example": ["all@us.example"],
            },
        )
        self.assertEqual(self.passed(aliases, "bob@us.example"), {"bob@us.example": []})

    def test_a_passed_alias_has_the_name_of_its_key(self) -> None:
        aliases = (
            "bob: x@else.example\neve+list: y@else.example\n@virtual.example: @us.example\n"
            "ann@second.example: z@else.example"
        )
        for mailbox, found in (
            ("Bob+tag@us.example", {"x@else.example": ["bob@us.example"]}),
            ("bob@second.example", {"x@else.example": ["bob@second.example"]}),
            ("eve+list@us.example", {"y@else.example": ["eve+list@us.example"]}),
            ("ann+1@second.example", {"z@else.example": ["ann@second.example"]}),
            ("Zoe+1@virtual.example", {"Zoe+1@us.example": ["zoe@virtual.example"]}),
            (
                "bob@virtual.example",
                {"x@else.example": ["bob@virtual.example", "bob@us.example"]},
            ),
        ):
            self.assertEqual(self.passed(aliases, mailbox), found)

    def test_the_number_of_passed_aliases_is_bounded(self) -> None:
        aliases = "\n".join(f"n{number}: n{number + 1}" for number in range(100))
        (passed,) = self.passed(aliases, "n0@us.example").values()
        self.assertEqual(passed, [f"n{number}@us.example" for number in range(16)])

    def test_mailboxes_of_one_alias_share_a_key(self) -> None:
        aliases = "bob: x@else.example\nbob@second.example: y@else.example\n@virtual.example: eve"
        aliases += "\nall: x@else.example\ninfo: eve, x@else.example"
        expander = self.expander(aliases)

        def alias_of(mailbox: str) -> str:
            return expander.alias_of(Mailbox.parse(mailbox))

        self.assertEqual(alias_of("bob+1@us.example"), alias_of("BOB@us.example"))
        self.assertNotEqual(alias_of("bob@us.example"), alias_of("bob@second.example"))
        # With the same targets in every domain it is one alias, otherwise one in each domain.
        self.assertEqual(alias_of("all@us.example"), alias_of("all@second.example"))
        self.assertNotEqual(alias_of("info@us.example"), alias_of("info@second.example"))
        self.assertEqual(alias_of("zoe+1@virtual.example"), alias_of("Zoe@virtual.example"))
        self.assertNotEqual(alias_of("zoe@virtual.example"), alias_of("zed@virtual.example"))


class CatchAll(ExpansionTestCase):
    aliases = "@us.example: rest@else.example\nbob: x@else.example\nname@us.example: y@else.example"

    def test_a_catch_all_applies_without_an_alias_and_a_mailbox(self) -> None:
        self.mailboxes = ["eve@us.example"]
        for mailbox, found in (
            ("anybody@us.example", "rest@else.example"),
            ("bob@us.example", "x@else.example"),
            ("name@us.example", "y@else.example"),
            ("eve@us.example", "eve@us.example"),
            ("anybody@second.example", "anybody@second.example"),
        ):
            self.assertEqual(self.expand(self.aliases, mailbox), [found])

    def test_accepting_all_mailboxes_does_not_disable_a_catch_all(self) -> None:
        self.mailboxes = None
        self.assertEqual(self.expand(self.aliases, "new@us.example"), ["rest@else.example"])


class VirtualDomains(ExpansionTestCase):
    def test_a_virtual_domain_has_aliases_only(self) -> None:
        aliases = "bob@virtual.example: bob@us.example\neve: x@else.example"
        self.assertEqual(self.expand(aliases, "Bob+t@virtual.example"), ["bob@us.example"])
        for other in ("eve", "carol", "+bob"):
            self.assertEqual(self.expand(aliases, f"{other}@virtual.example"), "550 5.1.1")

    def test_a_member_in_a_virtual_domain_without_an_alias_is_missing(self) -> None:
        aliases = "bob: eve, carol@virtual.example"
        self.assertEqual(
            self.expand(aliases, "bob@us.example"),
            ["eve@us.example", "carol@virtual.example 550 5.1.1"],
        )
        self.assertEqual(self.expand("bob: carol@virtual.example", "bob@us.example"), "550 5.1.1")

    def test_a_virtual_domain_may_have_a_catch_all(self) -> None:
        aliases = "@virtual.example: rest\nbob@virtual.example: x@else.example"
        self.assertEqual(self.expand(aliases, "bob@virtual.example"), ["x@else.example"])
        self.assertEqual(self.expand(aliases, "eve@virtual.example"), ["rest@us.example"])

    def test_postmaster_of_a_virtual_domain_is_that_of_the_first_local_domain(self) -> None:
        # RFC 5321 §4.5.1
        self.assertEqual(self.expand("", "PostMaster@virtual.example"), ["postmaster@us.example"])
        aliases = "postmaster: ann"
        self.assertEqual(self.expand(aliases, "postmaster@virtual.example"), ["ann@us.example"])
        aliases = "postmaster@virtual.example: x@else.example"
        self.assertEqual(self.expand(aliases, "postmaster@virtual.example"), ["x@else.example"])


class Forwarding(ExpansionTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.srs = SRS

    def reverse_paths(self, aliases: str, reverse_path: Mailbox | None) -> list[Mailbox | None]:
        found = self.expander(aliases).expand(Mailbox("list", "us.example"), reverse_path)
        assert not isinstance(found, Reply)
        return [each.reverse_path for each in found]

    def test_forwarded_mail_has_a_rewritten_reverse_path(self) -> None:
        aliases = "list: bob, eve@second.example, x@else.example, y@else.example"
        rewritten = SRS.rewritten(SENDER, self.now)
        self.assertEqual(self.reverse_paths(aliases, SENDER), [None, None, rewritten, rewritten])

    def test_reverse_paths_of_ours_and_null_ones_stay(self) -> None:
        for reverse_path in (
            None,
            Mailbox("ann", "second.example"),
            Mailbox("ann", "virtual.example"),
        ):
            self.assertEqual(self.reverse_paths("list: x@else.example", reverse_path), [None])

    def test_without_srs_reverse_paths_stay(self) -> None:
        self.srs = None
        self.assertEqual(self.reverse_paths("list: x@else.example", SENDER), [None])

    def test_a_reverse_path_too_long_to_rewrite_stays(self) -> None:
        long = Mailbox("x" * 240, "sender.example")
        self.assertEqual(self.reverse_paths("list: x@else.example", long), [None])


class Notices(ExpansionTestCase):
    def recipients(self, aliases: str, mailbox: str) -> list[tuple[int, str, str]]:
        found = self.expander(aliases).notice_recipients(Mailbox.parse(mailbox))
        return [(each.number, str(each.mailbox), str(each.original)) for each in found]

    def test_a_notice_follows_aliases(self) -> None:
        aliases = "bob: bob, x@else.example"
        self.assertEqual(
            self.recipients(aliases, "bob@us.example"),
            [(0, "bob@us.example", "None"), (1, "x@else.example", "bob@us.example")],
        )
        self.assertEqual(
            self.recipients(aliases, "bob@else.example"), [(0, "bob@else.example", "None")]
        )

    def test_a_notice_to_a_virtual_mailbox_without_an_alias_keeps_its_recipient(self) -> None:
        self.mailboxes = []
        mailbox = "bob@virtual.example"
        self.assertEqual(self.recipients("a: a", mailbox), [(0, mailbox, "None")])

    def test_a_notice_creates_no_mailbox(self) -> None:
        self.mailboxes = []
        for mailbox in ("a@us.example", "bob@us.example"):
            self.assertEqual(self.recipients("a: a", mailbox), [])


class RestoredSenders(ExpansionTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.srs = SRS
        self.there = SRS.rewritten(SENDER, self.now)

    def test_a_notice_to_a_rewritten_mailbox_goes_to_the_sender(self) -> None:
        self.mailboxes = []
        self.assertEqual(self.expand("", str(self.there), None), ["ann@sender.example"])
        lower = Mailbox(self.there.local_part.lower(), self.there.domain)
        self.assertEqual(self.expand("", str(lower), None), ["ann@sender.example"])

    def test_mail_with_a_reverse_path_is_refused_for_a_rewritten_mailbox(self) -> None:
        # Otherwise everybody who saw a rewritten address could relay through us.
        self.assertEqual(self.expand("", str(self.there), SENDER), "550 5.7.1")

    def test_a_forged_or_old_rewritten_mailbox_does_not_exist(self) -> None:
        aliases = "@us.example: rest"
        forged = str(self.there).replace("=ann@", "=victim@")
        self.assertEqual(self.expand(aliases, forged, None), "550 5.1.1")
        self.now += 22 * 86_400
        self.assertEqual(self.expand(aliases, str(self.there), None), "550 5.1.1")

    def test_a_rewritten_mailbox_in_another_domain_of_ours_leads_back(self) -> None:
        # SRS may have used that domain before, or one domain is an alias of the other.
        for domain in ("second.example", "virtual.example"):
            other = Mailbox(self.there.local_part, domain)
            self.assertEqual(self.expand("", str(other), None), ["ann@sender.example"])
            self.assertEqual(self.expand("", str(other), SENDER), "550 5.7.1")

    def test_a_forged_rewritten_mailbox_in_another_domain_is_an_ordinary_name(self) -> None:
        forged = Mailbox(self.there.local_part.replace("=ann", "=victim"), "second.example")
        self.assertEqual(self.expand("", str(forged), None), [str(forged)])
        self.assertEqual(self.expand("", str(forged), SENDER), [str(forged)])

    def test_a_rewritten_mailbox_is_reached_through_an_alias_of_its_domain(self) -> None:
        self.srs = SenderRewriting("us.example", b"0123456789abcdef")
        aliases = "@second.example: @us.example"
        for local_part in (self.there.local_part, self.there.local_part.upper()):
            other = Mailbox(local_part, "second.example")
            (found,) = self.expand(aliases, str(other), None)
            self.assertEqual(found.lower(), "ann@sender.example")
            forged = Mailbox(local_part.lower().replace("=ann", "=eve"), "second.example")
            self.assertEqual(self.expand(aliases, str(forged), None), "550 5.1.1")

    def test_srs1_of_another_forwarder_leads_back_through_ours(self) -> None:
        """Forwarded by us, by another host, and by us again: SRS1 leads back to an SRS0 of ours."""
        self.mailboxes = []
        for separator in "=+-":
            first = SRS.rewritten(SENDER, self.now)
            first = Mailbox(f"SRS0{separator}{first.local_part[5:]}", first.domain)
            other = SenderRewriting("other.example", b"another key for it").rewritten(
                first, self.now
            )
            again = SRS.rewritten(other, self.now)
            self.assertEqual(again.local_part[:5], "SRS1=")
            for local_part in (again.local_part, again.local_part.lower()):
                mailbox = str(Mailbox(local_part, "us.example"))
                self.assertEqual(self.expand("", mailbox, None), ["ann@sender.example"])
                self.assertEqual(self.expand("", mailbox, SENDER), "550 5.7.1")

    def test_nested_rewritten_mailboxes_of_ours_are_restored_in_turn(self) -> None:
        """Any number of rounds: each of them was written here."""
        self.mailboxes = []
        there = self.there
        for _ in range(5):
            day = there.local_part.split("=")[2]
            rest = f"{day}=us.example={there.local_part}"
            there = Mailbox(f"SRS0={SRS._hash('0', rest)}={rest}", "us.example")
        self.assertEqual(self.expand("", str(there), None), ["ann@sender.example"])

    def test_each_nested_round_is_verified(self) -> None:
        self.mailboxes = []
        forged = self.there.local_part.replace("=ann", "=victim")
        rest = f"us.example={forged[4:]}"
        mailbox = f"SRS1={SRS._hash('1', rest)}={rest}@us.example"
        self.assertEqual(self.expand("@us.example: rest", mailbox, None), "550 5.1.1")
        rest = f"us.example={self.there.local_part[4:]}"
        mailbox = f"SRS1={SRS._hash('1', rest)}={rest}@us.example"
        self.assertEqual(self.expand("", mailbox, None), ["ann@sender.example"])
        self.now += 22 * 86_400
        self.assertEqual(self.expand("", mailbox, None), "550 5.1.1")

    def test_a_restored_mailbox_of_ours_is_expanded(self) -> None:
        there = SRS.rewritten(Mailbox("ann", "us.example"), self.now)
        rest = f"us.example={there.local_part[4:]}"
        mailbox = f"SRS1={SRS._hash('1', rest)}={rest}@us.example"
        self.assertEqual(self.expand("ann: x@else.example", mailbox, None), ["x@else.example"])
        self.mailboxes = []
        self.assertEqual(self.expand("", mailbox, None), "550 5.1.1")
        steps: list[ExpansionStep] = []
        self.expander("ann: x@else.example").expand(Mailbox.parse(mailbox), None, steps)
        self.assertEqual(
            [step.finding for step in steps], ["sender", "sender", "alias", "elsewhere"]
        )

    def test_a_restored_sender_in_a_domain_of_ours_is_expanded(self) -> None:
        there = SRS.rewritten(Mailbox("ann", "second.example"), self.now)
        self.assertEqual(self.expand("ann: bob", str(there), None), ["bob@second.example"])

    def test_a_domain_for_srs_alone_has_no_other_mailboxes(self) -> None:
        self.srs = SenderRewriting("srs.example", b"0123456789abcdef")
        self.assertIn("srs.example", self.expander().domains)
        there = self.srs.rewritten(SENDER, self.now)
        self.assertEqual(self.expand("", str(there), None), ["ann@sender.example"])
        self.assertEqual(self.expand("bob: eve", "bob@srs.example", None), "550 5.1.1")
        self.assertEqual(self.expand("", "postmaster@srs.example"), ["postmaster@us.example"])
