"""Requests to token servers, and their answers (RFC 6749)."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

from tests.tidy import TidyTestCase
from twisted_mta.config.token_account import TokenGrant
from twisted_mta.delivery.tokens.grant import (
    ClientRefused,
    Granted,
    Secrets,
    authorization,
    content,
    granted,
)
from twisted_mta.delivery.tokens.token import NoToken

NOW = 1_800_000_000.0
GRANT = TokenGrant("https://tokens.example/token", "our client", scope="mail.send offline")
SECRETS = Secrets("s3cret/+", "refresh-1")


def answer(code: int = 200, *, retry_after: str = "", **values: Any) -> Granted:
    return granted(code, json.dumps(values).encode(), retry_after, SECRETS, NOW)


class Requests(TidyTestCase):
    def test_a_refresh_token_is_exchanged(self) -> None:
        """RFC 6749 §6."""
        fields = parse_qs(content(GRANT, SECRETS, in_body=False).decode(), strict_parsing=True)
        self.assertEqual(
            fields,
            {
                "client_id": ["our client"],
                "grant_type": ["refresh_token"],
                "refresh_token": ["refresh-1"],
                "scope": ["mail.send offline"],
            },
        )

    def test_without_one_the_grant_is_by_client_credentials(self) -> None:
        """RFC 6749 §4.4.2."""
        fields = parse_qs(content(GRANT, Secrets("s3cret"), in_body=True).decode())
        self.assertEqual(fields["grant_type"], ["client_credentials"])
        self.assertEqual(fields["client_secret"], ["s3cret"])

    def test_the_secret_is_encoded_before_it_is_joined(self) -> None:
        """RFC 6749 §2.3.1: by the encoding of forms."""
        self.assertEqual(authorization(GRANT, SECRETS), "Basic b3VyK2NsaWVudDpzM2NyZXQlMkYlMkI=")
        self.assertEqual(authorization(GRANT, Secrets("", "refresh-1")), "")


class Answers(TidyTestCase):
    def refused(self, code: int = 200, *, retry_after: str = "", **values: Any) -> NoToken:
        with self.assertRaises(NoToken) as raised:
            answer(code, retry_after=retry_after, **values)
        return raised.exception

    def test_a_token_is_renewed_before_its_end(self) -> None:
        token = answer(access_token="abc", token_type="bearer", expires_in=3600).token
        self.assertEqual(token.value, "abc")
        self.assertEqual(token.renew_at, NOW + 3300)
        self.assertEqual(token.wait_at, NOW + 3590)
        self.assertEqual(token.expires_at, NOW + 3600)
        self.assertNotIn("abc", repr(token))

    def test_a_short_life_is_used_for_the_most_part(self) -> None:
        token = answer(access_token="abc", expires_in="10").token
        self.assertEqual((token.renew_at, token.wait_at), (NOW + 8, NOW + 8))

    def test_lives_that_are_none_are_taken_for_an_hour(self) -> None:
        for wrong in (None, "soon", [1], True, float("nan")):
            token = answer(access_token="abc", expires_in=wrong).token
            self.assertEqual(token.expires_at, NOW + 3600)
        for wrong in (-5, 0):
            self.assertEqual(answer(access_token="abc", expires_in=wrong).token.expires_at, NOW + 1)
        token = answer(access_token="abc", expires_in=10**400).token
        self.assertEqual(token.expires_at, NOW + 30 * 86_400)

    def test_a_new_refresh_token_replaces_ours(self) -> None:
        self.assertEqual(answer(access_token="abc", refresh_token="r2").refresh_token, "r2")
        self.assertEqual(answer(access_token="abc", refresh_token=7).refresh_token, "")

    def test_what_is_no_answer_gives_no_token(self) -> None:
        for octets in (b"", b"\xff", b"[]", b"null", b"[" * 100_000, b"<html>"):
            with self.assertRaises(NoToken):
                granted(200, octets, "", SECRETS, NOW)
        for values in ({}, {"access_token": 7}, {"access_token": ""}, {"access_token": "a\nb"}):
            error = self.refused(**values)
            self.assertNotIn("a\nb", error.reason)
        self.assertIn("expected Bearer", self.refused(access_token="a", token_type="mac").reason)

    def test_refusals_are_quoted_and_lasting_where_no_time_cures_them(self) -> None:
        """RFC 6749 §5.2."""
        error = self.refused(400, error="invalid_grant", error_description="Token\nexpired\x07")
        self.assertEqual(
            error.reason, r"the token server refuses: invalid_grant: Token expired\x07"
        )
        self.assertTrue(error.lasting)
        error = self.refused(503, retry_after="120")
        self.assertEqual(error.reason, "the token server answers 503, expected 200")
        self.assertEqual((error.lasting, error.retry_after), (False, 120.0))
        self.assertEqual(self.refused(429, retry_after="Fri, 1 Jan 2027").retry_after, 0.0)
        self.assertIsInstance(self.refused(401, error="invalid_client"), ClientRefused)

    def test_a_refusal_that_repeats_a_secret_is_not_quoted(self) -> None:
        for secret in ("s3cret/+", "refresh-1"):
            error = self.refused(400, error="invalid_grant", error_description=f"bad {secret}")
            self.assertNotIn(secret, error.reason)
