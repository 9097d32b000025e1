"""The token of one account, on a clock."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.logs import logged_lines
from tests.tidy import TidyTestCase
from twisted_mta.config.token_account import TokenAccount, TokenFile
from twisted_mta.delivery.tokens.holder import TokenHolder
from twisted_mta.delivery.tokens.token import NoToken, Token

EPOCH = 1_800_000_000.0
ACCOUNT = TokenAccount("ann@example.net", TokenFile("/run/token"))


class Middle:
    def random(self) -> float:
        return 1.0


class Holding(TidyTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.asked: list[tuple[str, Deferred[Token]]] = []
        self.holder = TokenHolder(
            ACCOUNT,
            self.ask,
            clock=self.clock,
            wall_time=lambda: EPOCH + self.clock.seconds(),
            random=Middle(),  # type: ignore[arg-type]
        )

    def ask(self, refused: str) -> Deferred[Token]:
        asking: Deferred[Token] = Deferred()
        self.asked.append((refused, asking))
        return asking

    def answer(self, value: str, seconds: float = 3600.0) -> None:
        self.asked[-1][1].callback(Token.lasting(value, seconds, EPOCH + self.clock.seconds()))

    def value(self) -> str:
        """Return the token that is ready now."""
        self.successResultOf(self.holder.ready())
        return self.holder.current().token

    def problem(self) -> str:
        return self.failureResultOf(self.holder.ready(), NoToken).value.reason  # type: ignore[union-attr]

    def test_all_wait_for_one_request(self) -> None:
        first, second = self.holder.ready(), self.holder.ready()
        self.assertEqual(self.holder.status.state, "asked for")
        self.answer("one")
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(len(self.asked), 1)
        self.assertEqual(self.holder.current().username, "ann@example.net")
        self.assertEqual(self.holder.status.expires_at, EPOCH + 3600)

    def test_it_is_renewed_ahead_while_it_serves(self) -> None:
        self.holder.ready()
        self.answer("one")
        self.clock.advance(3299)
        self.assertEqual(self.value(), "one")
        self.assertEqual(len(self.asked), 1)
        self.clock.advance(2)
        self.assertEqual(self.value(), "one")  # another is asked for, and no mail waits for it
        self.assertEqual(self.holder.status.state, "being renewed")
        self.answer("two")
        self.assertEqual(self.value(), "two")
        self.assertEqual(len(self.asked), 2)

    def test_the_old_one_serves_until_its_end_while_the_source_fails(self) -> None:
        self.holder.ready()
        self.answer("one")
        self.clock.advance(3595)
        waiting = self.holder.ready()
        self.asked[-1][1].errback(NoToken("the server is away"))
        self.successResultOf(waiting)
        self.assertEqual(self.value(), "one")
        self.assertEqual(self.holder.status.problem, "the server is away")
        self.clock.advance(5)
        waiting = self.holder.ready()
        self.asked[-1][1].errback(NoToken("the server is still away"))
        self.failureResultOf(waiting, NoToken)
        self.assertEqual(self.problem(), "the server is still away")

    def test_attempts_back_off_and_are_logged_without_the_token(self) -> None:
        lines = logged_lines(self, "no token")
        waits = []
        for number in range(1, 11):
            self.holder.ready().addErrback(lambda _: None)
            self.asked[-1][1].errback(NoToken("the server is away"))
            before = self.clock.seconds()
            while len(self.asked) == number:
                self.clock.advance(1)
                self.holder.ready().addErrback(lambda _: None)
            waits.append(self.clock.seconds() - before)
        self.assertEqual(waits, [5, 10, 20, 40, 80, 160, 320, 640, 900, 900])
        self.asked[-1][1].errback(NoToken("the server is away"))
        self.assertEqual(
            lines[0],
            "no token for the account ann@example.net from /run/token: the server is away; the next"
            " attempt is in 5 s",
        )

    def test_it_waits_as_long_as_the_source_asks(self) -> None:
        self.holder.ready().addErrback(lambda _: None)
        self.asked[-1][1].errback(NoToken("slow down", retry_after=120.0))
        self.clock.advance(119)
        self.assertEqual(self.problem(), "slow down")
        self.clock.advance(1)
        self.holder.ready().addErrback(lambda _: None)
        self.assertEqual(len(self.asked), 2)
        self.answer("one")

    def test_a_refused_token_is_replaced_at_once_and_the_next_after_a_minute(self) -> None:
        self.holder.ready()
        self.answer("one")
        self.holder.refused("another")  # of a connection from before
        self.assertEqual(self.value(), "one")
        self.holder.refused("one")
        self.holder.ready()
        self.assertEqual(self.asked[-1][0], "one")
        self.answer("two")
        self.assertEqual(self.value(), "two")
        self.holder.refused("two")
        self.assertEqual(self.problem(), "the next hop has refused the token")
        self.clock.advance(60)
        self.holder.ready()
        self.answer("three")
        self.holder.accepted("three")
        self.assertEqual(self.value(), "three")

    def test_an_internal_error_shows_no_text(self) -> None:
        waiting = self.holder.ready()
        self.asked[-1][1].errback(RuntimeError("with a secret"))
        error: Any = self.failureResultOf(waiting, NoToken).value
        self.assertEqual(error.reason, "internal error: RuntimeError")

    def test_a_stop_ends_all_waits(self) -> None:
        waiting = self.holder.ready()
        self.holder.stop()
        self.failureResultOf(waiting, NoToken)
