"""The control socket: its permissions, its name in the state directory, and its client."""

import errno
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet import reactor  # noqa: TID251 - it serves the sockets below
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread  # noqa: TID251 - the client blocks
from twisted.trial.unittest import TestCase

from tests.logs import logged_lines
from tests.waiting import until
from twisted_mta.admin.control import client, server
from twisted_mta.admin.control.client import NAME, ControlClient, NotRunning, Refused
from twisted_mta.admin.control.server import ControlSocket
from twisted_mta.admin.http import (
    Outlet,
    Request,
    Responder,
    Response,
    Stream,
    error_response,
    json_response,
)
from twisted_mta.system.ownership import Peer


def answer(request: Request) -> Response:
    """Return the method and the path of a request; refuse some paths."""
    if request.path == "/refused":
        return error_response("line 3 is wrong", 409)
    if request.path == "/text":
        return Response(body=b"<h1>no\x1b</h1>\n", code=500)
    return json_response({"asked": f"{request.method} {request.path}"})


class ControlTestCase(TestCase):
    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = os.path.join(self.directory, NAME)

    def start(
        self, path: str | None = None, answer: Responder = answer, **others: Any
    ) -> ControlSocket:
        served = ControlSocket(answer, path=path or self.path, reactor=reactor, **others)
        served.start()
        self.addCleanup(served.stop)
        return served

    async def ask(self, ask: Callable[[ControlClient], Any], state_dir: str | None = None) -> Any:
        asker = ControlClient(state_dir or self.directory, timeout=10.0)
        return await deferToThread(ask, asker)


class Serving(ControlTestCase):
    async def test_the_socket_answers_requests(self) -> None:
        self.start()
        for _ in range(2):
            said = await self.ask(lambda client: client.get("/v1/status"))
            self.assertEqual(said, {"asked": "GET /v1/status"})
        said = await self.ask(lambda client: client.post("/v1/reload"))
        self.assertEqual(said, {"asked": "POST /v1/reload"})

    def test_only_the_owner_can_connect_whatever_the_umask_is(self) -> None:
        modes: list[int] = []
        path = self.path

        class Watched(socket.socket):
            def bind(self, address: Any) -> None:
                super().bind(address)
                modes.append(stat.S_IMODE(os.stat(path).st_mode))

        self.patch(socket, "socket", Watched)
        self.addCleanup(os.umask, os.umask(0))
        self.start()
        modes.append(stat.S_IMODE(os.stat(path).st_mode))
        self.assertEqual(modes, [0o600, 0o600])

    def test_only_the_owner_can_connect_where_a_socket_has_no_mode_before_its_name(self) -> None:
        def refuse(descriptor: int, mode: int) -> None:
            raise OSError(errno.EINVAL, "as on BSD")

        self.patch(os, "fchmod", refuse)
        self.test_only_the_owner_can_connect_whatever_the_umask_is()
        self.assertEqual(os.umask(0), 0)

    def test_binding_leaves_the_umask_as_it_was(self) -> None:
        before = os.umask(0o027)
        self.addCleanup(os.umask, before)
        self.start()
        self.assertEqual(os.umask(0o027), 0o027)

    def test_a_stop_removes_the_name(self) -> Deferred[None]:
        served = self.start()
        stopped = served.stop()
        self.assertEqual(os.listdir(self.directory), [])
        return stopped.addCallback(lambda _: served.stop())

    async def test_a_stop_leaves_the_socket_of_a_successor_alone(self) -> None:
        first = self.start()
        os.unlink(self.path)
        second = self.start()
        await first.stop()
        said = await self.ask(lambda client: client.get("/"))
        self.assertEqual(said, {"asked": "GET /"})
        await second.stop()
        self.assertEqual(os.listdir(self.directory), [])

    async def test_the_socket_of_a_killed_process_is_replaced(self) -> None:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(self.path)
            left.listen()
        self.assertTrue(os.path.exists(self.path))
        self.start()
        said = await self.ask(lambda client: client.get("/"))
        self.assertEqual(said, {"asked": "GET /"})

    async def test_a_socket_of_another_user_is_not_trusted(self) -> None:
        self.start()

        self.patch(client, "peer", lambda connected: Peer(1, 6666))
        with self.assertRaises(Refused) as caught:
            await self.ask(lambda client: client.get("/"))
        self.assertIn("user number 6666 answers there", str(caught.exception))

    def test_a_file_that_is_no_socket_is_not_removed(self) -> None:
        with open(self.path, "w", encoding="ascii") as file:
            file.write("mine")
        error = self.assertRaises(OSError, self.start)
        self.assertIn("move it away", str(error))
        self.assertIn(self.path, str(error))
        self.assertTrue(os.path.isfile(self.path))

    async def test_a_path_may_be_longer_than_the_name_of_a_socket(self) -> None:
        deep = os.path.join(self.directory, *["a-folder-of-a-long-name"] * 8)
        os.makedirs(deep)
        path = os.path.join(deep, NAME)
        self.assertGreater(len(path), 108)
        served = self.start(path)
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        said = await self.ask(lambda client: client.get("/"), deep)
        self.assertEqual(said, {"asked": "GET /"})
        await served.stop()
        self.assertEqual(os.listdir(deep), [])

    def test_a_missing_directory_is_an_error_that_names_it(self) -> None:
        missing = os.path.join(self.directory, "missing", NAME)
        error = self.assertRaises(OSError, self.start, missing)
        self.assertIn("No such file", str(error))


class LostName(ControlTestCase):
    """Its name goes away while it is served."""

    def setUp(self) -> None:
        super().setUp()
        self.logged = logged_lines(self, "control socket")

    async def test_a_name_that_was_removed_comes_back_by_itself(self) -> None:
        self.patch(server, "_LOOK_AGAIN", 0.01)
        self.start()
        os.unlink(self.path)
        await until(lambda: os.path.exists(self.path))
        said = await self.ask(lambda client: client.get("/"))
        self.assertEqual(said, {"asked": "GET /"})
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        (line,) = self.logged
        self.assertIn("made anew", line)

    async def test_open_connections_go_on_when_the_name_is_made_anew(self) -> None:
        served = self.start()
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(self.path)
            os.unlink(self.path)
            served.look()
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = await deferToThread(client.makefile("rb").read)
        self.assertIn(b"200 OK", answer)
        await served.stop()
        self.assertEqual(os.listdir(self.directory), [])

    async def test_a_stale_socket_in_its_place_is_replaced(self) -> None:
        served = self.start()
        os.unlink(self.path)
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(self.path)
            left.listen()
        served.look()
        self.assertEqual(await self.ask(lambda client: client.get("/")), {"asked": "GET /"})

    def test_a_socket_file_that_was_touched_is_still_ours(self) -> Deferred[None]:
        served = self.start()
        os.utime(self.path, (1, 1))
        served.look()
        self.assertEqual(self.logged, [])
        stopped = served.stop()
        self.assertEqual(os.listdir(self.directory), [])
        return stopped

    def test_no_socket_is_made_where_the_state_directory_has_gone(self) -> None:
        there = [True]
        served = self.start(in_place=lambda: there[0])
        os.unlink(self.path)
        there[0] = False
        served.look()
        self.assertEqual(os.listdir(self.directory), [])
        there[0] = True
        served.look()
        self.assertEqual(os.listdir(self.directory), [NAME])

    def test_the_socket_of_another_listening_process_is_left_alone(self) -> None:
        served = self.start()
        self.patch(os, "getpid", lambda: 0)  # another process listens there
        os.unlink(self.path)
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(self.path)
            other.listen(0)
            for _ in range(3):  # the last of these find its queue full
                served.look()
            (line,) = self.logged
            self.assertIn("another process", line)
            other.accept()[0].close()  # the other process is still reached by that name
            error = self.assertRaises(OSError, self.start)
            self.assertIn("another process", str(error))
        served.look()
        self.assertIn("made anew", self.logged[-1])

    def test_a_missing_directory_is_logged_once(self) -> None:
        served = self.start()
        shutil.rmtree(self.directory)
        served.look()
        served.look()
        (line,) = self.logged
        self.assertIn("No such file", line)
        os.makedirs(self.directory)
        served.look()
        self.assertTrue(os.path.exists(self.path))

    def test_a_stopped_socket_is_not_made_anew(self) -> Deferred[None]:
        served = self.start()
        stopped = served.stop()
        served.look()
        self.assertEqual(os.listdir(self.directory), [])
        return stopped


class Asking(ControlTestCase):
    async def failure(self, kind: type[Exception], path: str = "/v1/status") -> str:
        try:
            await self.ask(lambda client: client.get(path))
        except kind as error:
            return str(error)
        raise self.failureException(f"no {kind.__name__}")

    async def test_without_an_mta_the_error_says_what_to_do(self) -> None:
        text = await self.failure(NotRunning)
        self.assertIn(self.path, text)
        self.assertIn("--state-dir", text)

    async def test_a_stale_socket_is_not_a_running_mta(self) -> None:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(self.path)
        self.assertIn(self.path, await self.failure(NotRunning))

    async def test_a_refusal_carries_its_reason(self) -> None:
        self.start()
        self.assertEqual(await self.failure(Refused, "/refused"), "line 3 is wrong")
        self.assertEqual(await self.failure(Refused, "/text"), "<h1>no\\x1b</h1>")

    async def test_a_silent_mta_is_a_timeout(self) -> None:
        self.start(answer=lambda request: Deferred())
        client = ControlClient(self.directory, timeout=0.05)
        try:
            await deferToThread(client.get, "/v1/status")
        except Refused as error:
            self.assertIn("has not answered within 0.05 s", str(error))
        else:
            self.fail("it answered")

    async def test_a_response_that_is_not_http_is_an_error(self) -> None:
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(self.path)
            other.listen()

            def serve() -> None:
                connection, _ = other.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"220 mail.example ESMTP\x1b\r\n")

            served = deferToThread(serve)
            text = await self.failure(Refused)
            await served
        self.assertIn("cannot be asked", text)
        self.assertNotIn("\x1b", text)


class Streams(ControlTestCase):
    """Contents and lines that are read piece by piece."""

    content = bytes(range(256)) * 1000  # more than one piece

    def answer(self, request: Request) -> Response | Stream:
        if request.path == "/content":
            return Response(body=self.content)
        if request.path == "/lines":
            return Stream(self.begin)
        return error_response("no such message", 404)

    def begin(self, outlet: Outlet) -> Callable[[], object]:
        for number in range(3):
            outlet.write(b"[%d]\n" % number)
        outlet.end()
        return lambda: None

    async def read(self, ask: Callable[[ControlClient], Iterator[Any]]) -> list[Any]:
        self.start(answer=self.answer)
        read: list[Any] = await self.ask(lambda client: list(ask(client)))
        return read

    async def test_a_content_is_read_to_its_end(self) -> None:
        pieces = await self.read(lambda client: client.content("/content"))
        self.assertEqual(b"".join(pieces), self.content)
        self.assertGreater(len(pieces), 1)

    async def test_each_line_of_a_stream_is_read(self) -> None:
        self.assertEqual(await self.read(lambda client: client.lines("/lines")), [[0], [1], [2]])

    async def test_a_refusal_instead_of_a_content_or_of_lines_carries_its_reason(self) -> None:
        self.start(answer=self.answer)
        for ask in (ControlClient.content, ControlClient.lines):
            with self.assertRaises(Refused) as caught:
                await self.ask(lambda client, ask=ask: list(ask(client, "/none")))
            self.assertEqual(str(caught.exception), "no such message")

    async def test_a_content_that_ends_early_is_not_taken_for_the_whole(self) -> None:
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(self.path)
            other.listen()

            def serve() -> None:
                connection, _ = other.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

            served = deferToThread(serve)
            with self.assertRaises(Refused) as caught:
                await self.ask(lambda client: list(client.content("/content")))
            await served
        self.assertRegex(str(caught.exception), "not sent all of it|cannot be asked")
