"""The status page: its content, the requests that it answers, and those that it refuses."""

import json
import os
from base64 import b64encode
from hashlib import sha256

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.http import Request as WebRequest

from tests.tidy import TidyTestCase
from twisted_mta.admin.http import Request, Responder, Response
from twisted_mta.admin.report import Connections, RecentMessage, SuspendedHop
from twisted_mta.admin.status import ProcessStatus, Status
from twisted_mta.admin.web.site import StatusReport, StatusSite
from twisted_mta.health.trouble import Trouble
from twisted_mta.webhooks.status import WebhookStatus

MESSAGE = RecentMessage(
    id="0000000000ABC",
    received_at=1_790_000_000.0,
    reverse_path="alice@example.net",
    recipients=("bob@localhost", "carol@localhost"),
    size=1536,
    state="delivered",
    last="250 2.0.0 Ok",
)
DRAINING = Trouble(kind="drain", text="draining", stops=True)
NOW = 1_790_000_000.0
STATUS = Status(
    hostname="mail.example.net",
    version="1.2.3",
    started_at=1_790_000_000.0 - 93_600,
    now=1_790_000_000.0,
    queue={"queued": 12345, "due": 7},
    counters={"accepted": 3, "delivered": 2, "deferred": 1, "failed": 0},
    recent=(MESSAGE,),
)
WORKERS = tuple(
    ProcessStatus(
        number=number,
        pid=4000 + number,
        state=state,
        started_at=1_790_000_000.0 - 120,
        restarts=3 * number,
        queue_open=True,
        connections=Connections(2, 1234),
        accepted=56,
        deliveries=1,
    )
    for number, state in ((0, "ready"), (1, "not answering"))
)
HOSTS = ("mail.example.net",)


def answer(request: Request) -> Response:
    """Stand in for the API."""
    return Response(body=f"{request.method} {request.path}".encode("ascii"), content_type="x/y")


def whole(body: str) -> str:
    """Return a page without the places where its names may break."""
    return body.replace("<wbr />", "")


class RawResponse:
    """A response as it was written, parsed."""

    def __init__(self, octets: bytes) -> None:
        head, _, body = octets.partition(b"\r\n\r\n")
        status, *fields = head.decode("ascii").split("\r\n")
        self.code = int(status.split()[1])
        self.reason = status.split(" ", 2)[2]
        self.headers = {
            name.lower(): value for name, value in (field.split(": ", 1) for field in fields)
        }
        self.body = body.decode("utf-8")


class PageTestCase(TidyTestCase):
    answer: Responder | None = staticmethod(answer)

    def send(self, request: bytes, status: StatusReport = lambda: STATUS) -> StringTransport:
        self.clock = Clock()
        site = StatusSite(status, hosts=HOSTS, answer=self.answer, reactor=self.clock)
        self.site = site
        self.requests: list[WebRequest] = []
        make = site.requestFactory

        def remembered(channel: HTTPChannel, queued: bool) -> WebRequest:
            self.requests.append(make(channel, queued))
            return self.requests[-1]

        site.requestFactory = remembered
        self.connection = site.buildProtocol(None)
        self.connection.makeConnection(transport := StringTransport())
        self.connection.dataReceived(request)
        return transport

    def ask(
        self,
        path: str = "/",
        *,
        method: str = "GET",
        host: str = "127.0.0.1:8025",
        status: StatusReport = lambda: STATUS,
    ) -> RawResponse:
        request = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        return RawResponse(self.send(request.encode("utf-8"), status).value())


class Page(PageTestCase):
    def test_the_page_shows_queue_counters_and_messages(self) -> None:
        page = self.ask()
        self.assertEqual(
            (page.code, page.headers["content-type"]), (200, "text/html; charset=utf-8")
        )
        self.assertTrue(page.body.startswith("<!DOCTYPE html>\n<html lang="))
        for text in (
            "<h1>mail.example.net</h1>",
            "twisted-mta 1.2.3, up for 1 d 2 h, as of ",
            "<dt>queued</dt><dd>12,345</dd>",
            "<dt>deferred</dt><dd>1</dd>",
            '<time datetime="2026-09-21T14:13:20Z">2026-09-21 14:13:20</time>',
            "<div>bob@localhost</div><div>carol@localhost</div>",
            "1.5 KiB",
            '<span class="delivered">delivered</span>',
            "250 2.0.0 Ok",
            "<code>0000000000ABC</code>",
        ):
            self.assertIn(text, whole(page.body))

    def test_the_page_says_that_no_message_has_come_yet(self) -> None:
        page = self.ask(status=lambda: evolve(STATUS, recent=()))
        self.assertIn("None yet.", page.body)
        self.assertNotIn("<table", page.body)

    def test_the_null_reverse_path_is_shown_as_it_is_written(self) -> None:
        page = self.ask(status=lambda: evolve(STATUS, recent=(evolve(MESSAGE, reverse_path=None),)))
        self.assertIn("<div>&lt;&gt;</div>", page.body)

    def test_texts_of_peers_are_escaped(self) -> None:
        evil = "<script>alert('1')</script>\"&\x1b[2J\u202e\r\n"
        message = evolve(
            MESSAGE, id=evil, reverse_path=evil, recipients=(evil,), state=evil, last=evil
        )
        status = evolve(
            STATUS,
            hostname=evil,
            version=evil,
            queue={evil: 1},
            counters={evil: 2},
            recent=(message,),
        )
        body = whole(self.ask(status=lambda: status).body)
        self.assertEqual(body.count("<script"), 1)  # ours
        self.assertNotIn('</script>"', body)
        self.assertNotIn("\x1b", body)
        self.assertNotIn("\u202e", body)
        self.assertNotIn('class="&lt;', body)
        self.assertEqual(body.count("&lt;script&gt;alert("), 10)

    def test_listeners_show_their_connections(self) -> None:
        status = evolve(
            STATUS,
            listeners=("smtp tcp 127.0.0.1:25", "web tcp 127.0.0.1:8025"),
            connections={"smtp tcp 127.0.0.1:25": Connections(7, 12345)},
            deliveries=3,
        )
        body = whole(self.ask(status=lambda: status).body)
        for text in (
            "<dt>connections</dt><dd>7</dd>",
            "<dt>deliveries</dt><dd>3</dd>",
            "<div>smtp tcp 127.0.0.1:25</div>",
            "<div>web tcp 127.0.0.1:8025</div>",
            '<td class="whole" data-label="Accepted" role="cell"><div>12,345</div></td>',
        ):
            self.assertIn(text, body)

    def test_workers_are_shown_where_there_are_several(self) -> None:
        self.assertNotIn("Workers", self.ask().body)
        one = evolve(STATUS, processes=WORKERS[:1])
        self.assertNotIn("Workers", self.ask(status=lambda: one).body)
        two = evolve(STATUS, processes=WORKERS)
        body = self.ask(status=lambda: two).body
        for text in (
            "<h2>Workers</h2>",
            '<td class="whole" data-label="Process" role="cell"><div>4001</div></td>',
            '<span class="failed">not answering</span>',
            '<td class="whole" data-label="Restarts" role="cell"><div>3</div></td>',
            '<td class="whole" data-label="Up for" role="cell"><div>2 min</div></td>',
        ):
            self.assertIn(text, body)

    def test_next_hops_that_cannot_be_reached_are_shown(self) -> None:
        self.assertNotIn("cannot be reached", self.ask().body)
        hop = SuspendedHop(
            next_hop="smtp:<b>.example", seconds=125.0, times=3, last="451 4.4.1 <i>Refused\x07"
        )
        body = whole(self.ask(status=lambda: evolve(STATUS, suspended=(hop,))).body)
        for text in (
            "<h2>Suspended next hops</h2>",
            "smtp:&lt;b&gt;.example",
            ">2 min 5 s<",
            r"451 4.4.1 &lt;i&gt;Refused\x07",
        ):
            self.assertIn(text, body)

    def test_webhooks_are_shown(self) -> None:
        self.assertNotIn("Webhooks", self.ask().body)
        hook = WebhookStatus(
            key="k",
            url="https://app.example/<hook>",
            state="failing",
            waiting=1234,
            failing_since=STATUS.now - 65,
            error="it answers <b>",
        )
        body = whole(self.ask(status=lambda: evolve(STATUS, webhooks=(hook,))).body)
        for text in (
            "<h2>Webhooks</h2>",
            "https://app.example/&lt;hook&gt;",
            ">failing, 1 min 5 s<",
            ">1,234<",
            "it answers &lt;b&gt;",
        ):
            self.assertIn(text, body)

    def test_the_number_of_other_recipients_is_shown(self) -> None:
        status = evolve(STATUS, recent=(evolve(MESSAGE, more=1000),))
        self.assertIn(
            '<div class="faint">and 1,000 more</div>', self.ask(status=lambda: status).body
        )

    def test_the_page_says_why_the_mta_is_not_ready(self) -> None:
        self.assertNotIn("not ready", self.ask().body)
        status = evolve(STATUS, troubles=(DRAINING,))
        self.assertIn("not ready: draining", self.ask(status=lambda: status).body)

    def test_the_page_runs_no_script_and_is_not_cached(self) -> None:
        page = self.ask()
        self.assertIn(
            "default-src 'none'; style-src 'sha256-", page.headers["content-security-policy"]
        )
        self.assertIn("frame-ancestors 'none'", page.headers["content-security-policy"])
        self.assertEqual(page.headers["cache-control"], "no-store")
        self.assertEqual(page.headers["x-content-type-options"], "nosniff")
        self.assertNotIn("Twisted", page.headers["server"])

    def test_the_policy_has_the_hash_of_the_style(self) -> None:
        page = self.ask()
        style = page.body.partition("<style>")[2].partition("</style>")[0]
        digest = b64encode(sha256(style.encode("utf-8")).digest()).decode("ascii")
        self.assertIn(f"'sha256-{digest}'", page.headers["content-security-policy"])


class Programs(PageTestCase):
    def test_the_json_of_the_page_has_the_same_facts(self) -> None:
        answer = self.ask("/status.json")
        self.assertEqual(answer.headers["content-type"], "application/json")
        facts = json.loads(answer.body)
        self.assertEqual(facts["queue"], {"queued": 12345, "due": 7})
        self.assertEqual(facts["recent"][0]["recipients"], ["bob@localhost", "carol@localhost"])
        self.assertEqual(facts["now"], 1_790_000_000.0)

    def test_all_pages_are_503_where_the_status_fails(self) -> None:
        answer = self.ask("/healthz")
        self.assertEqual((answer.code, answer.body), (200, "ok\n"))

        def fail() -> Status:
            raise OSError("the disk is gone: secret.example")

        for path in ("/healthz", "/readyz", "/", "/status.json"):
            answer = self.ask(path, status=fail)
            self.assertEqual(answer.code, 503)
            self.assertNotIn("secret", answer.body)
            self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_healthz_is_200_while_a_queue_is_open(self) -> None:
        answer = self.ask("/healthz", status=lambda: evolve(STATUS, healthy=False))
        self.assertEqual((answer.code, answer.body), (503, "the queue is closed\n"))

    def test_readyz_is_200_while_connections_may_come(self) -> None:
        answer = self.ask("/readyz")
        self.assertEqual((answer.code, answer.body), (200, "ready\n"))
        starting = Trouble(kind="start", text="worker 1 is starting", stops=True)
        answer = self.ask("/readyz", status=lambda: evolve(STATUS, troubles=(starting,)))
        self.assertEqual((answer.code, answer.body), (503, "worker 1 is starting\n"))
        answer = self.ask("/healthz", status=lambda: evolve(STATUS, troubles=(DRAINING,)))
        self.assertEqual(answer.code, 200)

    def test_readyz_lists_other_troubles(self) -> None:
        full = Trouble(kind="disk", text="12 octets are free", stops=True)
        log = Trouble(kind="log", text="the log cannot be written: <b>", since=NOW, seconds=61.0)
        ended = "worker 1 has ended"
        troubled = evolve(STATUS, troubles=(full, log), incomplete=(ended,))
        answer = self.ask("/readyz", status=lambda: troubled)
        lines = "12 octets are free\nthe log cannot be written: <b>\nworker 1 has ended\n"
        self.assertEqual((answer.code, answer.body), (503, lines))
        page = self.ask("/", status=lambda: troubled).body
        for text in ("not ready: 12 octets are free", "written: &lt;b&gt;", ended):
            self.assertIn(text, page)
        for text in ("critical<", "for 1 min 1 s (since <time", "twisted-mta reopen-logs"):
            self.assertIn(text, page)

    def test_readyz_names_no_peers_and_the_page_does(self) -> None:
        dead = Trouble(kind="next_hops", text="smtp:dead.example waits: 421 \x07<b>")
        answer = self.ask("/readyz", status=lambda: evolve(STATUS, troubles=(dead,)))
        lines = "ready\nnext hops are suspended, and mail for them waits\n"
        self.assertEqual((answer.code, answer.body), (200, lines))
        page = self.ask("/", status=lambda: evolve(STATUS, troubles=(dead,))).body
        self.assertIn(r"smtp:dead.example waits: 421 \x07&lt;b&gt;", page)

    def test_reading_requests_are_passed_on_to_the_api(self) -> None:
        for path in ("/metrics", "/v1/status", "/v1/metrics"):
            answer = self.ask(path)
            self.assertEqual((answer.code, answer.body), (200, f"GET {path}"))
            self.assertEqual(answer.headers["content-type"], "x/y")
            self.assertIn("content-security-policy", answer.headers)
            known = 200 if path == "/metrics" else 421
            self.assertEqual(self.ask(path, host="evil.example").code, known)

    def test_actions_are_404(self) -> None:
        for method in ("GET", "POST"):
            for path in ("/v1/reload", "/v1/reopen-logs", "/v1/", "/v1/status/"):
                self.assertEqual(self.ask(path, method=method).code, 404)

    def test_without_an_api_there_are_only_the_pages(self) -> None:
        self.answer = None
        self.assertEqual(self.ask("/metrics").code, 404)
        self.assertEqual(self.ask("/").code, 200)


class Requests(PageTestCase):
    def test_a_request_has_one_host_field(self) -> None:
        # RFC 9112 §3.2
        for request in (
            b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            b"GET / HTTP/1.0\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        ):
            answer = RawResponse(self.send(request).value())
            self.assertEqual(answer.code, 400, request)
            self.assertNotIn("queued", answer.body)
        self.assertEqual(RawResponse(self.send(b"GET / HTTP/1.0\r\n\r\n").value()).code, 200)

    def test_a_response_waits_for_the_status(self) -> None:
        status: Deferred[Status] = Deferred()
        transport = self.send(b"GET / HTTP/1.0\r\n\r\n", lambda: status)
        self.assertEqual(transport.value(), b"")
        status.callback(STATUS)
        self.assertEqual(RawResponse(transport.value()).code, 200)

    def test_a_client_that_has_hung_up_is_not_answered(self) -> None:
        status: Deferred[Status] = Deferred()
        transport = self.send(b"GET / HTTP/1.0\r\n\r\n", lambda: status)
        self.connection.connectionLost(Failure(ConnectionError()))
        status.callback(STATUS)
        self.assertEqual(transport.value(), b"")

    def test_other_methods_are_405(self) -> None:
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            for path in ("/", "/status.json", "/healthz", "/readyz", "/metrics", "/v1/status"):
                answer = self.ask(path, method=method)
                self.assertEqual((answer.code, answer.headers["allow"]), (405, "GET, HEAD"))

    def test_a_client_may_ask_whether_there_is_a_server_at_all(self) -> None:
        # RFC 9110 §9.3.7; whoever it is, and whatever it calls this host.
        there = self.ask("*", method="OPTIONS", host="elsewhere.example")
        self.assertEqual((there.code, there.headers["content-length"]), (200, "0"))
        self.assertEqual((there.body, there.headers["server"]), ("", "twisted-mta"))
        for method in ("GET", "HEAD", "POST"):
            refused = self.ask("*", method=method)
            self.assertEqual((refused.code, refused.headers["allow"]), (405, "OPTIONS"))

    def test_head_has_no_body(self) -> None:
        answer = self.ask(method="HEAD")
        self.assertEqual((answer.code, answer.body), (200, ""))
        self.assertEqual(
            answer.headers["content-length"], str(len(self.ask().body.encode("utf-8")))
        )

    def test_other_paths_are_404(self) -> None:
        for path in ("/status", "//", "/healthz/", "/../etc/passwd", "/%00"):
            self.assertEqual(self.ask(path).code, 404, path)

    def test_a_request_for_another_host_name_is_421(self) -> None:
        # A hostile page makes its own name lead here, to read what its visitor can.
        for host in (
            "evil.example", "evil.example:8025", "localhost.evil.example", "", "[evil]",
            "127.0.0.1:80@evil.example", "[::1].evil.example", "[::1]:80@evil.example",
            "127.0.0.1:evil.example", "localhost:80:evil.example", "127.0.0.1.evil.example",
            "evil.example#localhost", "user@localhost", "localhost:80/", "localhost, evil.example",
            "::1", "[127.0.0.1]", "[::1", "[::1%25eth0]", "localhost..", "127.0.0.1:123456", "*",
            "localhost\x01", "127.1", "0x7f.0.0.1",
        ):  # fmt: skip
            answer = self.ask(host=host)
            self.assertEqual((answer.code, answer.reason), (421, "Misdirected Request"), host)
            self.assertNotIn("queued", answer.body)
        for host in (
            "localhost:8025", "127.0.0.1", "[::1]:8025", "192.0.2.1:8025", "MAIL.example.net.",
            "localhost:", "[2001:DB8::1]", "[::ffff:127.0.0.1]:1",
        ):  # fmt: skip
            self.assertEqual(self.ask(host=host).code, 200, host)

    def test_monitors_may_use_any_host_name(self) -> None:
        for host in ("evil.example", "10.0.0.1:80", "my_pod", "", "a@b"):
            for path in ("/metrics", "/healthz", "/readyz"):
                self.assertEqual(self.ask(path, host=host).code, 200, (path, host))

    def test_the_host_in_the_target_replaces_the_host_field(self) -> None:
        # RFC 9112 §3.2.2
        for target, host, code in (
            ("http://localhost:8025/healthz", "evil.example", 200),
            ("http://localhost:8025/status.json?a", "evil.example", 200),
            ("HTTP://127.0.0.1", "localhost", 200),
            ("http://evil.example/", "localhost", 421),
            ("http://localhost@evil.example/", "localhost", 421),
            ("http://evil.example/?http://localhost/", "localhost", 421),
            ("ftp://localhost/", "localhost", 404),
            ("localhost/", "localhost", 404),
        ):
            self.assertEqual(self.ask(target, host=host).code, code, target)
        two = b"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n"
        none = b"GET http://localhost/ HTTP/1.1\r\n\r\n"
        self.assertEqual(RawResponse(self.send(two).value()).code, 400)
        self.assertEqual(RawResponse(self.send(none).value()).code, 400)

    def test_requests_from_pages_of_other_origins_are_403(self) -> None:
        for origin, path, code in (
            ("http://localhost:8025", "/", 200),
            ("https://mail.example.net", "/v1/status", 200),
            ("http://evil.example", "/", 403),
            ("null", "/status.json", 403),
            ("http://localhost.evil.example", "/v1/queue", 403),
            ("http://localhost@evil.example", "/", 403),
            ("http://evil.example", "/healthz", 200),
        ):
            request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\r\n"
            answer = RawResponse(self.send(request.encode("ascii")).value())
            self.assertEqual(answer.code, code, (origin, path))

    def test_a_slow_response_is_reused_while_other_requests_wait(self) -> None:
        asked: list[float] = []

        def status() -> Status:
            asked.append(round(self.clock.seconds(), 2))
            self.clock.rightNow += 0.02
            return STATUS

        for path in ("/", "/status.json", "/healthz", "/readyz"):
            asked.clear()
            request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode("ascii")
            transports = [self.send(request, status)]
            for _ in range(3):
                another = self.site.buildProtocol(None)
                another.makeConnection(transport := StringTransport())
                another.dataReceived(request)
                transports.append(transport)
            for _ in range(4):
                self.clock.advance(0.1)
            for transport in transports:
                self.assertEqual(RawResponse(transport.value()).code, 200)
            self.assertEqual(len(asked), 2)  # the first and the last, which no other follows

    def test_a_single_request_gets_the_present_status(self) -> None:
        asked: list[float] = []

        def status() -> Status:
            asked.append(self.clock.seconds())
            self.clock.rightNow += 0.02
            return STATUS

        request = b"GET /status.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        self.send(request, status)
        for number in range(2, 5):
            self.clock.advance(0.07)
            self.connection.dataReceived(request)
            self.clock.advance(0.07)
            self.assertEqual(len(asked), number)

    def test_a_body_is_read_past_and_never_kept(self) -> None:
        request = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n"
        transport = self.send(request)
        for _ in range(19):
            self.connection.dataReceived(b"x" * 10000)
        (unfinished,) = self.requests
        self.assertEqual(unfinished.content.seek(0, os.SEEK_END), 0)
        self.connection.dataReceived(b"x" * 10000)
        self.assertEqual(RawResponse(transport.value()).code, 405)
        self.connection.dataReceived(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.clock.advance(0)  # the next request has its turn
        self.assertTrue(transport.value().endswith(b"\r\n\r\nok\n"))


class QueueRequests(PageTestCase):
    """A look through the queue takes time from mail: there is one at a time."""

    REQUEST = b"GET /v1/queue?from=x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

    def setUp(self) -> None:
        self.asked: list[Deferred[Response]] = []
        self.answer = self.ask_of_it
        self.first = self.send(self.REQUEST)

    def ask_of_it(self, request: Request) -> Deferred[Response]:
        self.asked.append(Deferred())
        return self.asked[-1]

    def another(self) -> tuple[HTTPChannel, StringTransport]:
        connection = self.site.buildProtocol(None)
        connection.makeConnection(transport := StringTransport())
        connection.dataReceived(self.REQUEST)
        self.clock.advance(1)
        return connection, transport

    def test_the_next_request_has_its_turn_when_the_one_before_fails(self) -> None:
        (_, second), (_, third) = self.another(), self.another()
        self.assertEqual((len(self.asked), second.value()), (1, b""))
        self.asked[0].callback(Response(body=b"1"))
        self.assertEqual((len(self.asked), self.first.value()[-1:]), (2, b"1"))
        self.asked[1].errback(RuntimeError("no"))
        self.assertEqual((len(self.asked), RawResponse(second.value()).code), (3, 503))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.asked[2].callback(Response(body=b"3"))
        self.assertEqual(third.value()[-1:], b"3")

    def test_nothing_is_asked_for_clients_that_have_hung_up(self) -> None:
        for _ in range(3000):
            connection, _transport = self.another()
            connection.connectionLost(Failure(ConnectionDone()))
        _, last = self.another()
        self.assertEqual(len(self.asked), 1)
        self.asked[0].callback(Response(body=b"1"))
        self.assertEqual(len(self.asked), 2)
        self.asked[1].callback(Response(body=b"2"))
        self.assertEqual(last.value()[-1:], b"2")
