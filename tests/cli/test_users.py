"""``twisted-mta users``: accounts are added, changed, listed and removed."""

from __future__ import annotations

import json
import os

from click.testing import CliRunner, Result

from tests.tidy import TidyTestCase
from twisted_mta.auth.accounts import verify
from twisted_mta.auth.accounts_file import read_accounts
from twisted_mta.auth.tokens import read_tokens
from twisted_mta.cli.command import main

PIN = "a1" * 32


class UsersTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())

    def run_tool(self, *words: str, said: str | None = None) -> Result:
        command, *rest = words
        return CliRunner().invoke(main, ["users", command, "--file", self.path, *rest], input=said)

    def succeeds(self, *words: str, said: str | None = None) -> list[str]:
        result = self.run_tool(*words, said=said)
        self.assertEqual(result.exit_code, 0, result.output)
        return result.output.splitlines()

    def fails(self, *words: str, said: str | None = None) -> str:
        result = self.run_tool(*words, said=said)
        self.assertEqual(result.exit_code, 1, result.output)
        return result.output.replace(self.path, "FILE")

    def has_password(self, name: str, password: str) -> bool:
        account = read_accounts(self.path).get(name)
        return account is not None and verify(account.argon2, password)


class Users(UsersTestCase):
    def test_an_account_is_added_with_the_password_of_standard_input(self) -> None:
        self.assertEqual(self.succeeds("add", "ann", said="opensesame\n"), ["ann added"])
        self.assertTrue(self.has_password("ann", "opensesame"))
        self.assertFalse(self.has_password("ann", "opensesame\n"))

    def test_an_account_that_is_added_again_is_changed_and_keeps_its_addresses(self) -> None:
        self.succeeds("add", "--address", "@example.net", "ann", said="first\n")
        self.assertEqual(self.succeeds("add", "ANN", said="second\r\n"), ["ANN changed"])
        self.assertTrue(self.has_password("ann", "second"))
        self.assertEqual(self.succeeds("list"), ["ann\tpassword\t@example.net"])
        self.succeeds("add", "--address", "*", "ann", said="third\n")
        self.assertEqual(self.succeeds("list"), ["ann\tpassword\t*"])

    def test_a_line_of_the_list_has_name_ways_and_addresses(self) -> None:
        self.succeeds("add", "ann", said="opensesame\n")
        self.succeeds(
            "add", "--no-password", "--certificate", PIN,
            "--address", "a@example.net", "--address", "@example.org", "printer",
        )  # fmt: skip
        self.succeeds("add", "--certificate", PIN, "both", said="opensesame\n")
        self.succeeds("add", "--no-password", "none")
        lines = [
            "ann\tpassword",
            "printer\tcertificate\ta@example.net @example.org",
            "both\tpassword+certificate",
            "none\tnothing",
        ]
        self.assertEqual(self.succeeds("list"), lines)
        self.assertEqual(self.succeeds("list", "Printer"), lines[1:2])
        listed = json.loads("\n".join(self.succeeds("list", "--json")))
        self.assertEqual(
            listed["accounts"][0], {"name": "ann", "ways": ["password"], "addresses": []}
        )
        self.assertEqual(
            listed["accounts"][1],
            {
                "name": "printer",
                "ways": ["certificate"],
                "addresses": ["a@example.net", "@example.org"],
            },
        )
        self.assertIn("eve: no such account", self.fails("list", "eve"))

    def test_a_removed_account_is_gone_and_the_others_stay(self) -> None:
        self.assertIn("FILE: no such file", self.fails("remove", "ann"))
        self.assertFalse(os.path.exists(self.path))
        self.succeeds("add", "--no-password", "ann")
        self.succeeds("add", "--no-password", "bob")
        self.assertEqual(self.succeeds("remove", "Ann"), ["Ann removed"])
        self.assertEqual(self.succeeds("list"), ["bob\tnothing"])
        self.assertIn("Ann: no such account in FILE", self.fails("remove", "Ann"))

    def test_what_is_wrong_changes_nothing_and_is_said(self) -> None:
        self.assertIn("addresses: found x, expected", self.fails("add", "--address", "x", "ann"))
        self.assertIn("certificates: expected", self.fails("add", "--certificate", "x", "ann"))
        self.assertFalse(os.path.exists(self.path))

    def test_the_file_may_be_named_by_a_configuration(self) -> None:
        config = os.path.abspath(self.mktemp())
        with open(config, "w", encoding="utf-8") as file:
            file.write(f'[mta]\nusers = "{self.path}"\n')
        self.succeeds("add", "--no-password", "ann")
        listed = CliRunner().invoke(main, ["users", "list", "--config", config])
        self.assertEqual((listed.exit_code, listed.output), (0, "ann\tnothing\n"))
        with open(config, "w", encoding="utf-8") as file:
            file.write('[mta]\nhostname = "mx.example"\n')
        unnamed = CliRunner().invoke(main, ["users", "list", "--config", config])
        self.assertEqual(unnamed.exit_code, 2)
        self.assertIn("names no users", unnamed.output)

    def test_without_a_file_it_is_said_how_to_name_one(self) -> None:
        result = CliRunner().invoke(main, ["users", "list"])
        self.assertEqual(result.exit_code, 2)
        self.assertIn("--file FILE, or --config FILE", result.output)


class Tokens(UsersTestCase):
    """The tokens of programs."""

    def test_a_token_is_printed_once_and_only_its_digest_is_stored(self) -> None:
        (text,) = self.succeeds("token", "--scope", "submit,read", "billing")
        token = read_tokens(self.path).find(text)
        assert token is not None
        self.assertEqual((token.name, token.scopes), ("billing", ("read", "submit")))
        with open(self.path, encoding="utf-8") as file:
            self.assertNotIn(text, file.read())
        self.assertEqual(self.succeeds("tokens"), ["billing\tread,submit"])

    def test_a_new_token_replaces_the_one_of_that_name(self) -> None:
        (first,) = self.succeeds("token", "billing")
        (second,) = self.succeeds("token", "Billing")
        tokens = read_tokens(self.path)
        self.assertIsNone(tokens.find(first))
        self.assertTrue(tokens.find(second))
        self.assertEqual(self.succeeds("token", "--remove", "billing"), ["billing removed"])
        self.assertEqual(self.succeeds("tokens"), [])
        self.assertIn("no such token", self.fails("token", "--remove", "billing"))

    def test_an_unknown_scope_is_refused(self) -> None:
        self.assertIn("scopes: found root", self.fails("token", "--scope", "root", "billing"))
