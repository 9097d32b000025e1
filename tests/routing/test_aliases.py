"""The file of aliases: its format, its mistakes, lookups, and parsing in slices."""

from tests.tidy import TidyTestCase
from twisted_mta.mail.address import Mailbox
from twisted_mta.routing.alias_file import (
    MOST_MEMBERS,
    AliasError,
    parse_aliases,
    parse_in_slices,
    read_aliases,
)
from twisted_mta.routing.aliases import Alias, Aliases, AliasTarget

OURS = ("us.example", "virtual.example")


def parsed(text: str) -> Aliases:
    return parse_aliases(text.encode(), name="aliases", ours=OURS)


class Parsing(TidyTestCase):
    def targets(self, text: str, key: str = "a") -> list[tuple[str | None, str | None]]:
        return [(each.local_part, each.domain) for each in parsed(text).entries[key].targets]

    def test_an_entry_has_a_key_and_targets(self) -> None:
        self.assertEqual(self.targets("a: b"), [("b", None)])
        self.assertEqual(
            self.targets("a: b, c@Else.Example , @us.example,d"),
            [("b", None), ("c", "else.example"), (None, "us.example"), ("d", None)],
        )
        self.assertEqual(self.targets("a:b,b, b,"), [("b", None)])

    def test_lines_may_continue_and_comments_are_skipped(self) -> None:
        text = "\ufeff# first\n\na: b, # the second\n\tc,\r\n# between\n\n    d@x.example\ne: f\n"
        self.assertEqual(self.targets(text), [("b", None), ("c", None), ("d", "x.example")])
        self.assertEqual(self.targets(text, "e"), [("f", None)])
        self.assertEqual(self.targets("a: b#c"), [("b#c", None)])
        self.assertEqual(parsed("# nothing\n\n").entries, {})

    def test_names_may_be_quoted(self) -> None:
        self.assertEqual(
            self.targets('"a": "b c", "d:e, \\"f\\""@x.example, "g@h"'),
            [("b c", None), ('d:e, "f"', "x.example"), ("g@h", None)],
        )
        self.assertEqual(
            self.targets("a: b@[IPv6:2001:DB8::1], c@[192.0.2.1]"),
            [("b", "[IPv6:2001:db8::1]"), ("c", "[192.0.2.1]")],
        )

    def test_keys_are_names_mailboxes_and_domains(self) -> None:
        text = 'A: x\nB@US.example: x\n@Virtual.Example: x\n"c d": x\nD\u00d6RTE: x'
        entries = parsed(text).entries
        self.assertEqual(
            sorted(entries, key=entries.line),
            ["a", "b@us.example", "@virtual.example", "c d", "d\u00f6rte"],
        )

    def assertRefused(self, text: str | bytes, expected: str) -> None:
        content = text if isinstance(text, bytes) else text.encode()
        error = self.assertRaises(AliasError, parse_aliases, content, name="a\nb", ours=OURS)
        self.assertEqual(str(error)[: len(expected)], expected)
        self.assertTrue(str(error).isprintable())

    def test_includes_programs_and_files_are_refused_by_name(self) -> None:
        for target, reason in (
            (":include:/etc/list", ":include: and the like are not read"),
            ("|/usr/bin/vacation bob", "no program is run"),
            ('"|/usr/bin/vacation bob"', "no program is run"),
            ("/var/mail/archive", "no file is written to"),
            ("/dev/null/x", "no file is written to"),
            (":blackhole:", "expected /dev/null"),
            ("\\bob", "no backslash is needed"),
        ):
            expected = r"a\nb:3: " + f'"{target}": {reason}'
            self.assertRefused(f"x: y\na: b,\n  {target}", expected)

    def test_each_mistake_is_reported_with_its_line_and_the_expectation(self) -> None:
        for text, expected in (
            ("a b", '1: "a": not an entry; expected name:, name@example.org: or @example.org: and'),
            ("a, b: c", '1: "a": not an entry'),
            (": b", '1: ":": not an entry'),
            ("\na:", '2: "a" has no target; expected name, name@example.org, @example.org or /dev'),
            ("/dev/null: a", '1: "/dev/null: a": no file is written to'),
            ("a: ,b", '1: ",": a name is missing before it'),
            ("a: b c", '1: "c": a comma is missing before it'),
            ("a: b\n  c", '2: "c": a comma is missing before it'),
            ("a: b: c", '1: "b": a key stands at the beginning of its line'),
            ("  b", "1: it begins with white space"),
            ("a: b\nA: c", '2: "a" stands in line 1 already'),
            ("a@us.example: b\na@US.example.: c", '2: "a@us.example" stands in line 1 already'),
            ('a: "b', '1: ""b": half a pair of quotation marks'),
            ("a: b@[x", '1: "[x": no name'),
            ("a: b@x..y", '1: "b@x..y": not a domain name; expected name, name@example.org'),
            ("a: b(c)", '1: "b(c)": not of the form local-part@domain'),
            ("a: <b@x.example>", '1: "<b@x.example>": not of the form'),
            ("a@else.example: b", '1: "a@else.example": else.example is none of our domains;'),
            ("@else.example: b", '1: "@else.example": else.example is none of our domains;'),
            (b"a: b\nc: \xff", "2: not UTF-8"),
            ("a: b\x1b", r'1: "b\x1b": not of the form'),
        ):
            self.assertRefused(text, rf"a\nb:{expected}")

    def test_the_number_of_targets_of_an_entry_is_bounded(self) -> None:
        names = [f"m{number}" for number in range(MOST_MEMBERS)]
        self.assertEqual(len(parsed("all: " + ",\n ".join(names)).entries["all"].targets), 10_000)
        many = "a: b\nall: " + ", ".join([*names, "one"])
        self.assertRefused(
            many, r'a\nb:2: "all" leads to more than 10,000 others; expected no more'
        )

    def test_an_unreadable_file_is_refused_by_name(self) -> None:
        path = self.mktemp()
        error = self.assertRaises(AliasError, read_aliases, path, ours=OURS)
        self.assertEqual(str(error), f"{path}: cannot be read: No such file or directory")
        with open(path, "w", encoding="utf-8") as file:
            file.write("a: b")
        self.assertEqual(list(read_aliases(path, ours=OURS).entries), ["a"])

    def test_a_file_of_more_than_64_mib_is_refused_with_the_limit(self) -> None:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.truncate((64 << 20) + 1)
        error = self.assertRaises(AliasError, read_aliases, path, ours=OURS)
        self.assertEqual(str(error), f"{path}: found more than 64 MiB; expected no more")


class Finding(TidyTestCase):
    aliases = parsed(
        "bob: x\nbob+lists: x\neve@us.example: x\nEVE+t@us.example: x\n@us.example: x\ncarol: x\n"
        "carol@us.example: x\nboth: x\nboth+t@us.example: x\n+odd: x\n"
    )

    def find(self, local_part: str, domain: str = "us.example", *, bare: bool = True) -> str | None:
        found = self.aliases.find(Mailbox(local_part, domain), bare=bare)
        return found.key if found else None

    def test_the_alias_of_the_whole_name_precedes_that_without_the_tag(self) -> None:
        for local_part, key in (
            ("bob", "bob"),
            ("BOB", "bob"),
            ("bob+lists", "bob+lists"),
            ("Bob+Lists", "bob+lists"),
            ("bob+other", "bob"),
            ("bob+lists+more", "bob"),
            ("eve", "eve@us.example"),
            ("eve+T", "eve+t@us.example"),
            ("eve+x", "eve@us.example"),
            ("carol", "carol@us.example"),
            ("both+t", "both+t@us.example"),
            ("both+x", "both"),
            ("+odd", "+odd"),
            ("+other", None),
            ("mallory", None),
            ("", None),
        ):
            self.assertEqual(self.find(local_part), key, local_part)

    def test_a_key_without_a_domain_applies_to_local_domains(self) -> None:
        self.assertEqual(self.find("bob", "other.example"), "bob")
        self.assertIsNone(self.find("bob", bare=False))
        self.assertEqual(self.find("eve", bare=False), "eve@us.example")

    def test_a_catch_all_has_a_lookup_of_its_own(self) -> None:
        found = self.aliases.catch_all("us.example")
        assert found is not None
        self.assertEqual((found.targets, found.line), ((AliasTarget("x", None),), 5))
        self.assertIsNone(self.aliases.catch_all("other.example"))

    def test_unicode_normalization_forms_are_one_name(self) -> None:
        # RFC 6532 §3.1
        aliases = parsed("do\u0308rte: x")
        self.assertIsNotNone(aliases.find(Mailbox("D\u00f6rte", "us.example"), bare=True))

    def test_the_null_device_discards_and_may_be_one_of_several_targets(self) -> None:
        discard = AliasTarget(None, "/dev/null")
        for text in ("/dev/null", '"/dev/null"', "/dev/null # not read", "\n  /dev/null\r"):
            (alias,) = parsed(f"noreply: {text}").entries.values()
            self.assertEqual(alias.targets, (discard,))
        (alias,) = parsed("list: ann,/dev/null,bob").entries.values()
        self.assertEqual(
            alias.targets, (AliasTarget("ann", None), discard, AliasTarget("bob", None))
        )


class PlainLines(TidyTestCase):
    """Most lines match a regular expression, with the same result as the tokenizer."""

    def test_plain_lines_parse_as_the_tokenizer_does(self) -> None:
        words = (
            "ann", "Ann", "a.b", "a+tag", "ann@example.org", "Ann@EXAMPLE.org", "@example.org",
            "ann@elsewhere.example", "ann@elsewhere.example.", "x@[192.0.2.1]", '"a b"@x.example',
            "é", "a..b", ".a", "a@", "@", "a@-x", "a@b_c", "|cmd", "a|b", "/dir", "a/b", "a@x..y",
            ":include:", "\\ann", "a@b@c", "a b", "", "~", "-", "a@xn--mnchen-3ya.de",
        )  # fmt: skip
        for key in words:
            for targets in (
                *words,
                "ann,bob",
                "ann , ann",
                "a@X.example,a@x.example",
                "ann,",
                ",a",
            ):
                for end in ("", "\r", "  ", " # why"):
                    line = f"{key}:\t{targets}{end}"
                    # A continuation line makes the tokenizer parse the entry.
                    expected = self.read(f"{line}\n ,zoe\n")
                    if isinstance(expected, Alias):
                        self.assertEqual(expected.targets[-1], AliasTarget("zoe", None))
                        *most, _ = expected.targets
                        expected = Alias(expected.key, tuple(most), 1)
                        self.assertEqual(self.read(line), expected, line)
                    elif "comma" not in expected and "name is missing" not in expected:
                        self.assertEqual(self.read(line), expected, line)

    def read(self, text: str) -> Alias | str:
        try:
            (alias,) = parsed(text).entries.values()
        except AliasError as error:
            return str(error)
        return alias

    def test_parsing_yields_every_32_lines_or_tokens(self) -> None:
        plain = "".join(f"u{number}: p{number}@x{number}.example\n" for number in range(3200))
        several = "".join(f'u{number}: "p"\n , q\n' for number in range(1600))
        long = "list: " + ", ".join(f"p{number}@x.example" for number in range(3200))
        for text in (plain, several, long):
            work = parse_in_slices(text.encode(), name="a", ours=OURS)
            self.assertGreaterEqual(sum(1 for _ in work), 99, text[:20])

    def test_emptying_a_table_yields_between_slices(self) -> None:
        aliases = parsed("".join(f"u{number}: p\n" for number in range(2000)))
        self.assertEqual(len(aliases.entries), 2000)
        self.assertGreaterEqual(sum(1 for _ in aliases.empty()), 3)
        self.assertEqual(len(aliases.entries), 0)
