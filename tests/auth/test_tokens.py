"""Bearer tokens: how they are made, stored, found, and what a file of them may hold."""

from __future__ import annotations

import json
import os

from tests.tidy import TidyTestCase
from twisted_mta.auth.tokens import Token, Tokens, TokensError, changing, read_tokens

DIGEST = "ab" * 32


def secret(count: int) -> bytes:
    return bytes(range(count))


class OneToken(TidyTestCase):
    def test_it_is_found_by_its_text_which_its_line_does_not_have(self) -> None:
        token, text = Token.new("billing", ["submit", "read"], secret)
        self.assertRegex(text, r"^tmta_[\w-]{43}$")
        self.assertNotIn(text, token.line())
        self.assertNotIn(token.digest, repr(token))
        self.assertEqual(Token.parse(token.line()), token)
        tokens = Tokens({token.digest: token})
        self.assertEqual(tokens.find(text), token)
        for wrong in ("", text[:-1], text + " ", text.upper(), token.digest, "\ud800"):
            self.assertIsNone(tokens.find(wrong), wrong)

    def test_a_line_that_is_wrong_is_refused_with_the_field_and_without_its_value(self) -> None:
        good = {"name": "billing", "sha256": DIGEST, "scopes": ["read"]}
        for change, text in (
            ({"name": ""}, "name: expected 1 to 255"),
            ({"name": "a\nb"}, "name: expected 1 to 255"),
            ({"sha256": DIGEST.upper()}, "sha256: expected 64 hex digits"),
            ({"sha256": "secret"}, "sha256: expected 64 hex digits"),
            ({"sha256": None}, "sha256: expected 64 hex digits"),
            ({"scopes": []}, "scopes: found none"),
            ({"scopes": "read"}, "scopes: found none"),
            ({"scopes": ["root"]}, "scopes: found root"),
            ({"scopes": [["read"]]}, "scopes: found "),
            ({"token": "x"}, "found field token"),
        ):
            with self.assertRaisesRegex(TokensError, text) as caught:
                Token.parse(json.dumps({**good, **change}))
            self.assertNotIn("secret", str(caught.exception))
        for line in ("", "[]", "[" * 100_000, "token"):
            with self.assertRaisesRegex(TokensError, "not an object of JSON"):
                Token.parse(line)


class File(TidyTestCase):
    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())

    def write(self, text: str) -> None:
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(self.path, 0o600)

    def test_a_change_keeps_the_comments_and_the_mode(self) -> None:
        first, _ = Token.new("first", ["read"], secret)
        self.write(f"# ours\n\n{first.line()}\n")
        second, _ = Token.new("second", ["act"], lambda count: bytes(count))
        with changing(self.path) as tokens:
            tokens["second"] = second
        with open(self.path, encoding="utf-8") as file:
            self.assertEqual(file.read(), f"# ours\n\n{first.line()}\n{second.line()}\n")
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)
        self.assertEqual([*read_tokens(self.path).by_digest.values()], [first, second])

    def test_the_same_name_twice_and_a_file_for_others_are_refused(self) -> None:
        line = Token("billing", DIGEST, ("read",)).line()
        self.write(f"{line}\n{line.replace('billing', 'Billing')}\n")
        with self.assertRaisesRegex(TokensError, "line 2: found Billing again"):
            read_tokens(self.path)
        os.chmod(self.path, 0o604)
        with self.assertRaisesRegex(TokensError, "found mode 0604"):
            read_tokens(self.path)
        os.unlink(self.path)
        with self.assertRaisesRegex(TokensError, "twisted-mta users token"):
            read_tokens(self.path)
