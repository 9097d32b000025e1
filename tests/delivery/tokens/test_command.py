"""Tokens that commands print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from tests.tidy import TidyTestCase
from twisted_mta.delivery.tokens.command import run, token_of
from twisted_mta.delivery.tokens.token import NoToken

NOW = 1_800_000_000.0


class Impatient:
    """A reactor on which all time has passed."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.spawnProcess = reactor.spawnProcess

    def callLater(self, seconds: float, function: Any, *args: Any) -> Any:
        return self._reactor.callLater(0, function, *args)


class Running(TestCase):
    @property
    def reactor(self) -> Any:
        from twisted.internet import reactor  # noqa: TID251 - commands are real

        return reactor

    async def problem(self, *arguments: str) -> str:
        with self.assertRaises(NoToken) as raised:
            await run(self.reactor, arguments)
        return raised.exception.reason

    async def test_its_standard_output_is_returned(self) -> None:
        script = "import sys; print('abc'); print('log', file=sys.stderr); sys.stdin.read()"
        output = await run(self.reactor, (sys.executable, "-c", script))
        self.assertEqual(output, b"abc\n")

    async def test_a_failure_is_quoted_without_what_may_be_a_token(self) -> None:
        script = "import sys; sys.exit('bad token ' + 'a' * 40)"
        problem = await self.problem(sys.executable, "-c", script)
        self.assertEqual(problem, "the command ends with status 1: bad token …")

    async def test_a_program_that_is_not_there_is_named(self) -> None:
        problem = await self.problem(str(Path(self.mktemp()).absolute()))
        self.assertTrue(problem.endswith(" cannot be run: No such file or directory"), problem)

    async def test_one_that_never_stops_printing_is_ended(self) -> None:
        script = "while True: print('a' * 10000)"
        problem = await self.problem(sys.executable, "-c", script)
        self.assertEqual(problem, "the command prints more than 65536 octets")

    async def test_one_that_hangs_is_ended(self) -> None:
        with self.assertRaises(NoToken) as raised:
            await run(
                Impatient(self.reactor), (sys.executable, "-c", "import time; time.sleep(600)")
            )
        self.assertEqual(raised.exception.reason, "the command has not ended within 30 s")


class Output(TidyTestCase):
    def test_the_first_line_is_the_token(self) -> None:
        token = token_of(b"abc\nand more\n", NOW)
        self.assertEqual(
            (token.value, token.renew_at, token.wait_at), ("abc", NOW + 240, NOW + 300)
        )

    def test_json_may_say_how_long_it_is_valid(self) -> None:
        token = token_of(b'{"access_token": "abc", "expires_in": 3600}', NOW)
        self.assertEqual((token.value, token.expires_at), ("abc", NOW + 3600))
        for seconds in ("null", "NaN", "-1", "true", '"x"'):
            token = token_of(b'{"access_token": "abc", "expires_in": %s}' % seconds.encode(), NOW)
            self.assertEqual(token.wait_at, NOW + 300)

    def test_anything_else_is_none_and_not_shown(self) -> None:
        for output in (
            b"",
            b"\xff",
            b"{",
            b"{}",
            b'{"access_token": 7}',
            b"two words",
            b"{" * 99_999,
        ):
            with self.assertRaises(NoToken) as raised:
                token_of(output, NOW)
            self.assertNotIn("two words", raised.exception.reason)
