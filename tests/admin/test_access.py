"""Who may do what over TCP: logins, sessions, tokens, and what hostile clients try with them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from errno import ENOSPC
from functools import cache
from io import BufferedRandom, FileIO
from typing import Any
from urllib.parse import urlencode

from attrs import evolve
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tests.tidy import TidyTestCase
from twisted_mta import Config
from twisted_mta.admin import http
from twisted_mta.admin.http import Request, Response, json_response
from twisted_mta.admin.status import Status
from twisted_mta.admin.web.access import Access
from twisted_mta.admin.web.sessions import IDLE, LIFETIME, Sessions
from twisted_mta.admin.web.site import StatusSite
from twisted_mta.auth.accounts import Account
from twisted_mta.auth.tokens import Token
from twisted_mta.config.tables import WebSettings
from twisted_mta.system.executors import inline_executor
from twisted_mta.system.real_world import secret_octets
from twisted_mta.system.work import finished

HOST = "mta.example:8025"
LONGEST_MESSAGE = 3_000_000
STATUS = Status(
    hostname="mta.example",
    version="1",
    started_at=0.0,
    now=1.0,
    queue={},
    counters={"accepted": 0, "delivered": 0, "deferred": 0, "failed": 0},
    recent=(),
)


@cache
def account(name: str, password: str) -> Account:
    return Account.of(name, password, secret=secret_octets)


class Answered:
    """A response as it was written, parsed."""

    def __init__(self, octets: bytes) -> None:
        head, _, body = octets.partition(b"\r\n\r\n")
        status, *lines = head.decode("ascii").split("\r\n")
        self.code = int(status.split()[1])
        self.headers = {
            name.lower(): value for name, value in (line.split(": ", 1) for line in lines)
        }
        self.body = body.decode()

    @property
    def cookie(self) -> str:
        return self.headers["set-cookie"].partition(";")[0]


class AccessTestCase(TidyTestCase):
    on_loopback = False

    def setUp(self) -> None:
        self.clock = Clock()
        self.hashed: list[str | None] = []
        self.directory = os.path.abspath(self.mktemp())
        os.makedirs(self.directory)
        self.reached: list[Request] = []
        self.tokens: dict[str, str] = {}
        lines = []
        for scopes in ("read", "act", "submit", "read,act"):
            token, text = Token.new(scopes, scopes.split(","), secret_octets)
            self.tokens[scopes] = text
            lines.append(token.line())
        self.config = Config(
            hostname="mta.example",
            web_page=WebSettings(
                users=self.write("users", account("ann", "opensesame").line()),
                tokens=self.write("tokens", "\n".join(lines)),
            ),
        )
        self.access = self.make()
        self.load(self.config)
        self.site = StatusSite(
            lambda: STATUS,
            hosts=("mta.example",),
            access=self.access,
            spool=self.directory,
            answer=self.answer,
            reactor=self.clock,
        )

    def make(self) -> Access:
        def execute(function: Callable[..., bool], argon2: str | None, text: str) -> Deferred[bool]:
            self.hashed.append(argon2)
            return inline_executor(function, argon2, text)

        return Access(
            clock=self.clock,
            secret=secret_octets,
            executor=execute,  # type: ignore[arg-type]
            longest_message=lambda: LONGEST_MESSAGE,
            on_loopback=self.on_loopback,
        )

    def load(self, config: Config) -> list[str]:
        return list(finished(self.access.load(config))())

    def write(self, name: str, text: str) -> str:
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"{text}\n")
        os.chmod(path, 0o600)
        return path

    def answer(self, request: Request) -> Response:
        """Stand in for the API."""
        self.reached.append(request)
        self.content = request.content.read()
        return json_response({"method": request.method, "path": request.path})

    def send(self, octets: bytes, client: str = "192.0.2.7") -> StringTransport:
        connection: Any = self.site.buildProtocol(None)
        self.connection = connection
        transport = StringTransport(peerAddress=IPv4Address("TCP", client, 40000))
        connection.makeConnection(transport)
        connection.dataReceived(octets)
        return transport

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        fields: Mapping[str, str] | None = None,
        body: str = "",
        client: str = "192.0.2.7",
        more: str = "",
    ) -> Answered:
        lines = {"Host": HOST, "Connection": "close", **(fields or {})}
        if body:
            lines["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        transport = self.send(
            f"{method} {path} HTTP/1.1\r\n{head}{more}\r\n{body}".encode(), client
        )
        if not transport.value():
            self.clock.advance(1.0)  # a failed login is answered later
        self.connection.connectionLost(Failure(ConnectionDone()))
        return Answered(transport.value())

    def bearer(self, scopes: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[scopes]}"}

    def log_in(
        self,
        name: str = "ann",
        password: str = "opensesame",
        client: str = "192.0.2.7",
        **more: str,
    ) -> Answered:
        fields = {"Content-Type": "application/x-www-form-urlencoded", "Origin": f"http://{HOST}"}
        return self.ask(
            "/login",
            method="POST",
            fields={**fields, **more},
            body=urlencode({"name": name, "password": password}),
            client=client,
        )

    def csrf(self, cookie: str) -> str:
        session = self.ask("/v1/session", fields={"Cookie": cookie})
        text: str = json.loads(session.body)["csrf"]
        return text


class Elsewhere(AccessTestCase):
    """An address that other machines can reach."""

    def test_nothing_but_health_and_metrics_is_there_for_anybody(self) -> None:
        for path in ("/healthz", "/readyz", "/metrics"):
            self.assertIn(self.ask(path).code, (200, 503), path)
        for path in ("/", "/status.json", "/v1/status", "/v1/queue", "/v1/trace", "/nothing"):
            refused = self.ask(path)
            self.assertEqual(refused.code, 401, path)
            self.assertEqual(refused.headers["www-authenticate"], 'Bearer realm="twisted-mta"')
        self.assertEqual([each.path for each in self.reached], ["/metrics"])

    def test_a_browser_is_led_to_the_login(self) -> None:
        led = self.ask("/", fields={"Accept": "text/html,*/*"})
        self.assertEqual((led.code, led.headers["location"]), (303, "/login"))
        page = self.ask("/login")
        self.assertEqual(page.code, 200)
        self.assertIn('<form method="post" action="/login">', page.body)
        self.assertIn("form-action 'self'", page.headers["content-security-policy"])

    def test_each_scope_is_for_its_own_requests(self) -> None:
        requests = {
            ("GET", "/v1/queue/A/body"): "read",
            ("HEAD", "/v1/trace"): "read",
            ("POST", "/v1/queue/hold"): "act",
            ("POST", "/v1/reload"): "act",
            ("DELETE", "/v1/suppression/a@b.example"): "act",
            ("POST", "/v1/messages"): "submit",
        }
        for (method, path), scope in requests.items():
            for scopes in self.tokens:
                allowed = scope in scopes.split(",")
                got = self.ask(path, method=method, fields=self.bearer(scopes))
                self.assertEqual(got.code, 200 if allowed else 403, (method, path, scopes))
                if not allowed:
                    self.assertIn(
                        f'error="insufficient_scope", scope="{scope}"',
                        got.headers["www-authenticate"],
                    )
        self.assertEqual({each.public for each in self.reached}, {False})
        self.assertIn("read (token)", {each.user for each in self.reached})

    def test_a_token_that_is_not_known_is_refused_in_every_place(self) -> None:
        text = self.tokens["read"]
        for wrong in (
            f"Bearer {text[:-1]}",
            f"Bearer {text}x",
            "Bearer",
            "Bearer ",
            f"Basic {text}",
            text,
            f"Bearer {text}, Bearer {text}",
            "Bearer " + "x" * 9000,
        ):
            refused = self.ask("/v1/status", fields={"Authorization": wrong})
            self.assertEqual(refused.code, 401, wrong)
            self.assertIn('error="invalid_token"', refused.headers["www-authenticate"])
        twice = self.ask(
            "/v1/status",
            fields=self.bearer("read"),
            more=f"Authorization: Bearer {self.tokens['act']}\r\n",
        )
        self.assertEqual(twice.code, 400)
        self.assertEqual(self.reached, [])

    def test_a_token_in_the_url_is_refused_even_beside_a_good_one(self) -> None:
        text = self.tokens["read"]
        for path in (
            f"/v1/status?access_token={text}",
            f"/v1/status?x={text}",
            f"/v1/queue/{text}",
            "/v1/status?a=1&token=abc",
        ):
            refused = self.ask(path, fields=self.bearer("read"))
            self.assertEqual(refused.code, 400, path)
            self.assertIn("URL", refused.body)
            self.assertNotIn(text, refused.body)

    def test_a_login_reads_and_acts_and_ends_at_the_logout(self) -> None:
        answered = self.log_in()
        self.assertEqual((answered.code, answered.headers["location"]), (303, "/"))
        self.assertRegex(
            answered.headers["set-cookie"],
            r"^twisted-mta=[\w-]{43}; Path=/; HttpOnly; SameSite=Strict$",
        )
        cookie = answered.cookie
        self.assertEqual(self.ask("/v1/queue/A/body", fields={"Cookie": cookie}).code, 200)
        fields = {"Cookie": cookie, "X-CSRF-Token": self.csrf(cookie)}
        self.assertEqual(self.ask("/v1/queue/hold", method="POST", fields=fields).code, 200)
        self.assertEqual(self.reached[-1].user, "ann (login)")
        left = self.ask("/logout", method="POST", fields=fields)
        self.assertEqual((left.code, left.headers["location"]), (303, "/login"))
        self.assertIn("Max-Age=0", left.headers["set-cookie"])
        self.assertEqual(self.ask("/v1/status", fields={"Cookie": cookie}).code, 401)

    def test_a_browser_under_tls_gets_a_cookie_for_https_and_this_host_alone(self) -> None:
        answered = self.log_in(Origin=f"https://{HOST}")  # a proxy has TLS
        self.assertRegex(
            answered.headers["set-cookie"],
            r"^__Host-twisted-mta=[\w-]{43}; Path=/; HttpOnly; SameSite=Strict; Secure$",
        )
        self.assertEqual(self.ask("/v1/status", fields={"Cookie": answered.cookie}).code, 200)

    def test_an_action_without_the_token_of_its_session_is_refused(self) -> None:
        cookie, other = self.log_in().cookie, self.log_in().cookie
        for wrong in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": self.csrf(other)}):
            fields = {"Cookie": cookie, **wrong}
            for path in ("/v1/queue/hold", "/v1/messages", "/logout"):
                refused = self.ask(path, method="POST", fields=fields)
                self.assertEqual(refused.code, 403, (path, wrong))
                self.assertIn("X-CSRF-Token", refused.body)
        self.assertEqual(self.reached, [])

    def test_pages_of_other_origins_are_refused_even_with_that_token(self) -> None:
        cookie = self.log_in().cookie
        fields = {"Cookie": cookie, "X-CSRF-Token": self.csrf(cookie)}
        for origin in (
            "http://evil.example",
            "null",
            "http://mta.example:9999",
            "http://mta.example",
            "http://192.0.2.1:8025",
            f"http://{HOST}.evil.example",
            f"http://evil@{HOST}",
            "",
        ):
            refused = self.ask("/v1/queue/hold", method="POST", fields={**fields, "Origin": origin})
            self.assertEqual(refused.code, 403, origin)
        for site in ("cross-site", "same-site"):
            refused = self.ask(
                "/v1/queue/hold", method="POST", fields={**fields, "Sec-Fetch-Site": site}
            )
            self.assertEqual(refused.code, 403, site)
        self.assertEqual(self.reached, [])
        ours = {**fields, "Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"}
        self.assertEqual(self.ask("/v1/queue/hold", method="POST", fields=ours).code, 200)

    def test_a_page_of_another_origin_cannot_log_its_visitor_in(self) -> None:
        for origin in ("http://evil.example", "null", "http://mta.example:9999"):
            self.assertEqual(self.log_in(Origin=origin).code, 403, origin)

    def test_a_name_that_was_made_to_lead_here_gets_nothing(self) -> None:
        cookie = self.log_in().cookie
        for path in ("/", "/login", "/v1/session", "/v1/status"):
            fields = {"Host": "evil.example", "Cookie": cookie}
            self.assertEqual(self.ask(path, fields=fields).code, 421, path)
        fields = {**self.bearer("read"), "Host": "evil.example"}
        self.assertEqual(self.ask("/v1/status", fields=fields).code, 421)

    def test_two_cookies_of_our_name_are_none(self) -> None:
        cookie, other = self.log_in().cookie, self.log_in().cookie
        for written in (f"{cookie}; {other}", f"{cookie}; {cookie}", f"{cookie}x", "twisted-mta="):
            self.assertEqual(self.ask("/v1/status", fields={"Cookie": written}).code, 401, written)
        spread = self.ask("/v1/status", fields={"Cookie": cookie}, more=f"Cookie: {other}\r\n")
        self.assertEqual(spread.code, 401)
        among = f"a=b; {cookie}; c; =d"
        self.assertEqual(self.ask("/v1/status", fields={"Cookie": among}).code, 200)

    def test_huge_cookies_and_many_fields_are_refused(self) -> None:
        long = f"GET /v1/status HTTP/1.1\r\nHost: {HOST}\r\nCookie: a={'x' * 20_000}\r\n\r\n"
        self.assertEqual(Answered(self.send(long.encode()).value()).code, 431)
        self.assertEqual(self.ask("/v1/status", more="A: b\r\n" * 1000).code, 400)
        several = f"Cookie: a={'x' * 8_000}\r\n" * 3
        self.assertEqual(self.ask("/v1/status", more=several).code, 400)

    def test_requests_that_two_programs_read_differently_are_refused(self) -> None:
        token = f"Authorization: Bearer {self.tokens['act']}\r\n"
        for head in (
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: +5\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Content-Length : 5\r\n",
            "X: a\x00b\r\n",
            " folded into the token\r\n",
        ):
            octets = f"POST /v1/reload HTTP/1.1\r\nHost: {HOST}\r\n{token}{head}\r\nhello"
            refused = Answered(self.send(octets.encode("latin-1")).value())
            self.assertIn(refused.code, (400, 401, 501), head)
        self.assertEqual(self.reached, [])

    def test_a_wrong_name_and_a_wrong_password_look_the_same(self) -> None:
        answers = [
            self.log_in("ann", "wrong"),
            self.log_in("nobody", "opensesame"),
            self.log_in("ann\x00", "opensesame"),
            self.log_in("", ""),
        ]
        self.assertEqual({each.code for each in answers}, {403})
        self.assertEqual(len({each.body for each in answers}), 1)
        self.assertNotIn("set-cookie", answers[0].headers)
        self.assertEqual(len(self.hashed), 4)

    def test_a_failed_login_is_answered_after_a_second(self) -> None:
        body = urlencode({"name": "ann", "password": "wrong"})
        transport = self.send(
            f"POST /login HTTP/1.1\r\nHost: {HOST}\r\nContent-Type:"
            " application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        self.clock.advance(0.9)
        self.assertEqual(transport.value(), b"")
        self.clock.advance(0.1)
        self.assertEqual(Answered(transport.value()).code, 403)

    def test_an_account_is_not_judged_after_twenty_failures(self) -> None:
        for number in range(20):
            self.assertEqual(self.log_in("Ann", "wrong", f"192.0.2.{number}").code, 403)
        hashed = len(self.hashed)
        refused = self.log_in(client="192.0.2.200")
        self.assertEqual((refused.code, refused.headers["retry-after"]), (429, "600"))
        self.assertEqual(len(self.hashed), hashed)
        self.clock.advance(600)
        self.assertEqual(self.log_in().code, 303)

    def test_an_address_is_not_judged_after_fifty_failures(self) -> None:
        for number in range(50):
            self.log_in(f"user{number}", "wrong")
        self.assertEqual(self.log_in().code, 429)
        self.assertEqual(self.log_in(client="192.0.2.200").code, 303)

    def test_a_session_ends_when_its_account_changes(self) -> None:
        cookie = self.log_in().cookie
        self.assertEqual(self.load(self.config), [])
        self.assertEqual(self.ask("/v1/status", fields={"Cookie": cookie}).code, 200)
        path = self.write("users", account("ann", "another").line())
        self.assertEqual(self.load(self.config), [f"{path}: 1 account"])
        self.assertEqual(self.ask("/v1/status", fields={"Cookie": cookie}).code, 401)

    def test_a_removed_token_is_refused_after_a_reload(self) -> None:
        path = self.write("tokens", "# none")
        self.assertEqual(self.load(self.config), [f"{path}: 0 tokens"])
        self.assertEqual(self.ask("/v1/status", fields=self.bearer("read")).code, 401)

    def test_a_file_that_cannot_be_used_changes_nothing(self) -> None:
        os.chmod(self.write("tokens", "{}"), 0o644)
        with self.assertRaisesRegex(ValueError, "found mode 0644"):
            self.load(self.config)
        self.assertEqual(self.ask("/v1/status", fields=self.bearer("read")).code, 200)

    def test_only_a_login_has_its_body_kept(self) -> None:
        body = "x" * 5000
        self.ask("/v1/queue/hold", method="POST", fields=self.bearer("act"), body=body)
        self.assertEqual(self.reached.pop().body, body.encode())
        for fields in ({}, {"Authorization": "Bearer wrong"}):
            refused = self.ask("/v1/queue/hold", method="POST", fields=fields, body=body)
            self.assertEqual(refused.code, 401)
        self.assertEqual(self.ask("/login", method="POST", body=body).code, 413)

    def test_a_long_message_is_kept_in_a_file_and_a_longer_one_is_refused(self) -> None:
        fields = self.bearer("submit")
        body = "x" * LONGEST_MESSAGE
        self.assertEqual(
            self.ask("/v1/messages", method="POST", fields=fields, body=body).code, 200
        )
        self.assertEqual(self.reached[-1].body, b"")
        self.assertEqual(self.content, body.encode())
        self.assertEqual(os.listdir(self.directory), ["users", "tokens"])
        for path, scopes in (("/v1/messages", "act"), ("/v1/queue/hold", "act")):
            refused = self.ask(path, method="POST", fields=self.bearer(scopes), body=body)
            self.assertEqual(refused.code, 413, path)
        long = {**fields, "Content-Length": str(LONGEST_MESSAGE + 1)}
        self.assertEqual(self.ask("/v1/messages", method="POST", fields=long).code, 413)

    def test_four_long_messages_are_taken_at_a_time(self) -> None:
        head = (
            f"POST /v1/messages HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer"
            f" {self.tokens['submit']}\r\nContent-Length: {LONGEST_MESSAGE}\r\n\r\n"
        ).encode()
        most = b"x" * (LONGEST_MESSAGE - 1)
        connections = []
        for number in range(4):
            self.assertEqual(self.send(head + most, f"192.0.2.{number}").value(), b"")
            connections.append(self.connection)
        refused = Answered(self.send(head + most + b"x").value())
        self.assertEqual((refused.code, refused.headers["retry-after"]), (503, "5"))
        connections.pop().connectionLost(Failure(ConnectionDone()))
        self.assertEqual(Answered(self.send(head + most + b"x").value()).code, 200)
        for each in connections:
            each.connectionLost(Failure(ConnectionDone()))

    def test_a_long_message_that_a_full_disk_does_not_take_is_503(self) -> None:
        def full(dir: str) -> Any:
            return open("/dev/full", "w+b")

        class Last(BufferedRandom):
            """A disk that is full when the last octets of a message come."""

            def seek(self, *arguments: int) -> int:
                raise OSError(ENOSPC, os.strerror(ENOSPC))

        def full_at_last(dir: str) -> Any:
            return Last(FileIO(self.write("long", ""), "w+"))

        for make in (full, full_at_last):
            self.patch(http, "TemporaryFile", make)
            for _ in range(5):
                fields, body = self.bearer("submit"), "x" * LONGEST_MESSAGE
                refused = self.ask("/v1/messages", method="POST", fields=fields, body=body)
                self.assertEqual((refused.code, refused.headers["retry-after"]), (503, "5"))
                self.assertEqual(
                    json.loads(refused.body),
                    {"error": "the body cannot be stored: No space left on device"},
                )
        self.assertEqual(self.reached, [])

    def test_a_long_message_may_take_its_time_as_long_as_it_goes_on(self) -> None:
        transport = self.send(
            f"POST /v1/messages HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer"
            f" {self.tokens['submit']}\r\nContent-Length: {LONGEST_MESSAGE}\r\n\r\n".encode()
        )
        self.connection.dataReceived(b"x" * 1_500_000)
        for _ in range(5):
            self.clock.advance(15)
            self.connection.dataReceived(b"x" * 40_000)
        self.assertEqual(transport.value(), b"")
        self.clock.advance(20)
        self.assertEqual(Answered(transport.value()).code, 408)
        self.connection.connectionLost(Failure(ConnectionDone()))

    def test_the_file_of_auth_is_warned_of(self) -> None:
        users = self.config.web_page.users
        (line,) = self.load(evolve(self.config, users=users))
        self.assertRegex(line, r"^warning: \[web\] users is the file of AUTH too")

    def test_without_accounts_and_tokens_it_says_what_is_missing(self) -> None:
        self.load(evolve(self.config, web_page=WebSettings()))
        for method in ("GET", "POST"):
            refused = self.ask("/v1/status", method=method)
            self.assertEqual(refused.code, 403)
            self.assertIn("users", refused.body)
        self.assertEqual(self.ask("/healthz").code, 200)
        self.assertEqual(self.ask("/login").code, 403)


class OnLoopback(AccessTestCase):
    on_loopback = True

    def test_anybody_may_read_without_contents_and_do_nothing_else(self) -> None:
        for path in ("/", "/status.json", "/v1/status", "/v1/queue", "/v1/queue/A"):
            self.assertEqual(self.ask(path).code, 200, path)
        self.assertEqual({each.public for each in self.reached}, {True})
        self.reached.clear()
        for method, path in (("GET", "/v1/trace"), ("POST", "/v1/reload"), ("DELETE", "/v1/queue")):
            self.assertEqual(self.ask(path, method=method).code, 401, path)
        self.assertEqual(self.reached, [])
        self.assertEqual(self.ask("/nothing").code, 404)

    def test_a_wrong_token_is_said_even_where_anybody_may_read(self) -> None:
        refused = self.ask("/v1/status", fields={"Authorization": "Bearer wrong"})
        self.assertEqual(refused.code, 401)

    def test_without_accounts_and_tokens_it_can_only_be_read(self) -> None:
        self.load(evolve(self.config, web_page=WebSettings()))
        self.assertEqual(self.ask("/v1/status").code, 200)
        self.assertEqual(self.ask("/v1/status", method="POST").code, 405)
        self.assertEqual(self.ask("/v1/reload", method="POST").code, 404)
        self.assertEqual(self.ask("/login").code, 404)
        self.assertFalse(any(not each.public for each in self.reached))


class SessionTable(TidyTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.sessions = Sessions(clock=self.clock, secret=secret_octets)

    def test_it_ends_an_hour_after_its_last_request(self) -> None:
        id = self.sessions.begin("ann", "")
        for _ in range(3):
            self.clock.advance(IDLE - 1)
            self.assertTrue(self.sessions.find(id))
        self.clock.advance(IDLE)
        self.assertIsNone(self.sessions.find(id))

    def test_it_ends_twelve_hours_after_the_login_however_it_is_used(self) -> None:
        id = self.sessions.begin("ann", "")
        for _ in range(int(LIFETIME / IDLE * 2) - 1):
            self.clock.advance(IDLE / 2)
            self.assertTrue(self.sessions.find(id))
        self.clock.advance(IDLE / 2)
        self.assertIsNone(self.sessions.find(id))

    def test_the_oldest_session_of_an_account_gives_way_to_its_twenty_first(self) -> None:
        other = self.sessions.begin("bob", "")
        ids = [self.sessions.begin("ann", "") for _ in range(21)]
        found = [self.sessions.find(id) is not None for id in ids]
        self.assertEqual(found, [False, *[True] * 20])
        self.assertTrue(self.sessions.find(other))
