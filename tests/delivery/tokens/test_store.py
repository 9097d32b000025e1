"""Tokens that all processes of one MTA share."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve

from tests.tidy import TidyTestCase
from twisted_mta.config.token_account import TokenAccount, TokenGrant
from twisted_mta.delivery.tokens.grant import Granted
from twisted_mta.delivery.tokens.store import Claim, TokenStore
from twisted_mta.delivery.tokens.token import Token

NOW = 1_800_000_000.0
ACCOUNT = TokenAccount("ann", TokenGrant("https://tokens.example/", "us"))


class Sharing(TidyTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = Path(self.mktemp()).absolute() / "tokens" / "tokens.sqlite"
        self.path.parent.parent.mkdir(parents=True)
        self.one, self.two = TokenStore(str(self.path)), TokenStore(str(self.path))

    def claim(
        self, store: TokenStore, now: float = NOW, *, refused: str = "", refresh_token: str = "r1"
    ) -> Token | Claim | None:
        return store.claim(ACCOUNT, now, refused=refused, refresh_token=refresh_token)

    def save(self, value: str = "abc", *, refresh_token: str = "") -> None:
        granted = Granted(Token.lasting(value, 3600, NOW), refresh_token)
        self.one.save(ACCOUNT, granted, NOW, refresh_token="r1")

    def test_one_process_asks_and_the_others_get_its_token(self) -> None:
        self.assertEqual(self.claim(self.one), Claim())
        self.assertIsNone(self.claim(self.two))
        self.save()
        self.assertEqual(self.claim(self.two), Token.lasting("abc", 3600, NOW))

    def test_a_process_that_has_waited_for_the_file_sees_what_was_written_meanwhile(self) -> None:
        self.claim(self.one)
        self.assertIsNone(self.claim(self.two, NOW - 0.1))
        self.save()
        self.assertEqual(self.claim(self.two, NOW - 0.1), Token.lasting("abc", 3600, NOW))

    def test_a_token_that_was_refused_or_is_to_be_renewed_is_asked_for_again(self) -> None:
        self.claim(self.one)
        self.save()
        self.assertEqual(self.claim(self.two, refused="abc"), Claim())
        self.save()
        self.assertEqual(self.claim(self.two, NOW + 3300), Claim())

    def test_a_claim_ends_when_it_is_given_back_or_its_process_has_died(self) -> None:
        self.claim(self.one)
        self.one.release(ACCOUNT)
        self.assertEqual(self.claim(self.two), Claim())
        self.assertIsNone(self.claim(self.one, NOW + 89))
        self.assertEqual(self.claim(self.one, NOW + 90), Claim())

    def test_a_clock_that_was_set_back_leaves_neither_a_token_nor_a_claim(self) -> None:
        self.claim(self.one)
        self.save()
        self.assertEqual(self.claim(self.two, NOW - 86_400), Claim())
        self.assertEqual(self.claim(self.one, NOW - 2 * 86_400), Claim())

    def test_a_new_refresh_token_replaces_the_operators_until_that_changes(self) -> None:
        self.claim(self.one)
        self.save(refresh_token="r2")
        self.assertEqual(self.claim(self.two, refused="abc"), Claim("r2"))
        self.two.release(ACCOUNT)
        self.assertEqual(self.claim(self.two, refused="abc", refresh_token="new"), Claim())

    def test_another_account_has_another_token(self) -> None:
        self.claim(self.one)
        self.save()
        other = evolve(ACCOUNT, username="bob")
        self.assertEqual(self.two.claim(other, NOW, refused="", refresh_token="r1"), Claim())

    def test_the_file_is_for_its_owner_alone(self) -> None:
        self.claim(self.one)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.path.parent.stat().st_mode & 0o777, 0o700)
        self.assertNotIn("secret", repr(Claim("secret")))
