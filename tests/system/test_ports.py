"""Ports that one process binds and others accept from, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import resource
import socket
import ssl
import stat
from typing import Any

from twisted.internet import reactor  # noqa: TID251 - real sockets need a real one
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.threads import deferToThread  # noqa: TID251 - the clients below block
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.logs import logged_lines
from tests.server.authority import self_signed
from tests.tidy import TidyTestCase
from tests.waiting import until
from twisted_mta.system import accepting, shared_ports
from twisted_mta.system.ports import CannotListen, Ports
from twisted_mta.system.shared_counts import SharedCounts
from twisted_mta.system.timers import MonotonicReactor

LOOPBACK = "127.0.0.1"


class Greeter(Factory):
    """Sends its name to each client, and counts them."""

    noisy = False

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.taken = 0
        self.stays = False
        self.here: list[Greeting] = []
        self.third: Deferred[None] = Deferred()

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        self.taken += 1
        greeting = Greeting()
        greeting.factory = self
        self.here.append(greeting)
        if self.taken == 3:
            self.third.callback(None)
        return greeting

    async def ended(self) -> None:
        """Return when all connections have ended."""
        for greeting in self.here:
            await greeting.lost


class Greeting(Protocol):
    factory: Any
    transport: Any

    def __init__(self) -> None:
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self.factory.name)
        if not self.factory.stays:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


class PortsTestCase(TestCase):
    def setUp(self) -> None:
        self.parent = self.ports()
        self.nobody = Greeter(b"parent")

    def ports(self, counts: SharedCounts | None = None) -> Ports:
        ports = Ports(reactor, counts)
        self.addCleanup(ports.unbind)
        return ports

    def bind(self, endpoint: str) -> Any:
        """Bind a port as a parent does, and return it."""
        self.parent.bind("smtp", endpoint, self.nobody)
        return self.parent.bound[-1].port

    def worker(
        self, endpoint: str, name: bytes = b"worker", counts: SharedCounts | None = None
    ) -> tuple[Ports, Greeter]:
        """Return the ports of a worker that has inherited the parent's last port."""
        ports, factory = self.ports(counts), Greeter(name)
        port: Any = self.parent.bound[-1].port
        inherited = os.dup(port.fileno())
        try:
            ports.bind("smtp", endpoint, factory, descriptor=inherited)
        finally:
            os.close(inherited)
        return ports, factory

    def tcp(self) -> tuple[str, int]:
        """Bind a TCP port; return its endpoint string and number."""
        port = self.bind(f"tcp:0:interface={LOOPBACK}").getHost().port
        return f"tcp:{port}:interface={LOOPBACK}", port

    def path(self) -> str:
        directory = self.mktemp()
        os.makedirs(directory)
        return os.path.relpath(os.path.join(directory, "s"))

    def greeting(self, place: Any, context: ssl.SSLContext | None = None) -> Deferred[bytes]:
        def connect() -> bytes:
            family = socket.AF_UNIX if isinstance(place, str) else socket.AF_INET
            with socket.socket(family) as plain:
                plain.settimeout(10)
                plain.connect(place)
                if context is None:
                    return plain.makefile("rb").read()
                with context.wrap_socket(plain) as client:
                    return client.makefile("rb").read()

        return deferToThread(connect)


class Adopting(PortsTestCase):
    async def test_a_worker_accepts_from_its_parents_port(self) -> None:
        endpoint, port = self.tcp()
        worker, _ = self.worker(endpoint)
        self.assertEqual(str(worker.bound[0]), f"smtp tcp {LOOPBACK}:{port}")
        worker.accept_connections()
        self.assertEqual(await self.greeting((LOOPBACK, port)), b"worker")
        self.assertEqual(self.nobody.taken, 0)

    async def test_no_connection_is_accepted_before_accept_connections(self) -> None:
        endpoint, port = self.tcp()
        worker, factory = self.worker(endpoint)
        waiting = self.greeting((LOOPBACK, port))
        for _ in range(5):
            await deferToThread(lambda: None)
        self.assertEqual((factory.taken, waiting.called), (0, False))
        worker.accept_connections()
        self.assertEqual(await waiting, b"worker")

    async def test_the_parents_port_stays_when_a_worker_ends(self) -> None:
        endpoint, port = self.tcp()
        first, _ = self.worker(endpoint)
        await first.unbind()
        second, _ = self.worker(endpoint, b"successor")
        second.accept_connections()
        self.assertEqual(await self.greeting((LOOPBACK, port)), b"successor")
        await second.unbind()
        await self.parent.unbind()
        with self.assertRaises(ConnectionRefusedError):
            await self.greeting((LOOPBACK, port))

    async def test_a_worker_accepts_one_connection_at_a_time(self) -> None:
        endpoint, port = self.tcp()
        worker, factory = self.worker(endpoint)
        clients = [socket.create_connection((LOOPBACK, port), 10) for _ in range(4)]
        for client in clients:
            self.addCleanup(client.close)
        bound: Any = worker.bound[0].port
        for taken in range(1, 4):
            bound.doRead()
            self.assertEqual(factory.taken, taken)

    async def test_a_port_that_the_parent_has_closed_is_no_error(self) -> None:
        endpoint, port = self.tcp()
        worker, _ = self.worker(endpoint)
        worker.accept_connections()
        bound: Any = worker.bound[0].port
        self.parent.bound[-1].port.socket.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]
        bound.doRead()  # before the worker is told
        self.assertEqual(self.flushLoggedErrors(), [])
        bound.connectionLost(Failure(ConnectionLost()))  # now it is told
        self.assertEqual(worker.names, [f"smtp tcp {LOOPBACK}:{port}"])
        self.assertTrue(worker.reach(LOOPBACK, port))
        await worker.unbind()

    async def test_many_connections_fit_into_the_backlog(self) -> None:
        _, port = self.tcp()
        for _ in range(200):
            self.addCleanup(socket.create_connection((LOOPBACK, port), 10).close)

    async def test_a_connection_that_ends_before_it_is_accepted_does_not_affect_others(
        self,
    ) -> None:
        endpoint, port = self.tcp()
        worker, _ = self.worker(endpoint)
        bound: Any = worker.bound[0].port
        bound.socket = Refusing(bound.socket, [errno.ECONNABORTED])
        worker.accept_connections()
        self.assertEqual(await self.greeting((LOOPBACK, port)), b"worker")

    async def test_a_failing_factory_affects_only_its_connection(self) -> None:
        endpoint, port = self.tcp()
        worker, factory = self.worker(endpoint)
        worker.accept_connections()

        for kind in (RuntimeError, asyncio.CancelledError, SystemExit):

            def fail(address: object, kind: type[BaseException] = kind) -> Protocol:
                raise kind("no protocol")

            factory.buildProtocol = fail  # type: ignore[method-assign]
            with contextlib.suppress(ConnectionResetError):
                self.assertEqual(await self.greeting((LOOPBACK, port)), b"")
            self.assertEqual(len(self.flushLoggedErrors(kind)), 1)
            del factory.buildProtocol  # type: ignore[method-assign]
            self.assertEqual(await self.greeting((LOOPBACK, port)), b"worker")

    async def test_a_unix_socket_keeps_its_mode_and_name(self) -> None:
        path = self.path()
        endpoint = f"unix:{path}:mode=640"
        self.bind(endpoint)
        worker, _ = self.worker(endpoint)
        os.chmod(path, 0o604)  # workers must not change it
        worker.accept_connections()
        self.assertEqual(await self.greeting(path), b"worker")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o604)
        await worker.unbind()
        self.assertTrue(os.path.exists(path))
        second, _ = self.worker(endpoint, b"successor")
        second.accept_connections()
        self.assertEqual(await self.greeting(path), b"successor")
        await second.unbind()
        await self.parent.unbind()
        self.assertFalse(os.path.lexists(path))
        self.assertFalse(os.path.lexists(f"{path}.lock"))

    async def test_the_worker_speaks_implicit_tls(self) -> None:
        pem = self_signed("mx.example").save(self.made(), "mx.pem")
        endpoint = f"ssl:0:interface={LOOPBACK}:privateKey={pem}:certKey={pem}"
        port = self.bind(endpoint).getHost().port
        worker, _ = self.worker(endpoint)
        worker.accept_connections()
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.assertEqual(await self.greeting((LOOPBACK, port), context), b"worker")

    def made(self) -> str:
        directory = self.mktemp()
        os.makedirs(directory)
        return directory

    async def test_a_socket_of_systemd_stays_open_and_is_not_unlinked(self) -> None:
        path = self.path()
        with socket.socket(socket.AF_UNIX) as handed:
            handed.bind(path)
            handed.listen()
            mode = os.stat(path).st_mode
            # `systemd:` itself reads the environment, and then works like `fd:`.
            worker, other = self.ports(), Greeter(b"worker")
            worker.bind("smtp", "systemd:domain=UNIX:index=0", other, descriptor=handed.fileno())
            worker.accept_connections()
            self.assertEqual(await self.greeting(path), b"worker")
            await worker.unbind()
            self.assertEqual(os.stat(path).st_mode, mode)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)  # it still listens

    async def test_unbind_fires_when_the_ports_of_all_calls_are_free(self) -> None:
        _, port = self.tcp()
        first, second = self.parent.unbind(), self.parent.unbind()
        await DeferredList([second])
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind((LOOPBACK, port))
        await DeferredList([first])


class Refusing:
    """A listening socket that fails for a while."""

    def __init__(self, real: socket.socket, errors: list[int]) -> None:
        self._real = real
        self._errors = errors

    def _accept(self) -> Any:
        if self._errors:
            number = self._errors.pop()
            raise OSError(number, os.strerror(number))
        return self._real._accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class Stopping(Greeter):
    """Stops its port at each connection, as one that is full does; takes it or refuses it."""

    def __init__(self, port: Any, *, refuses: bool) -> None:
        super().__init__(b"stopping")
        self._port = port
        self._refuses = refuses

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:  # type: ignore[override]
        self._port.stopReading()
        if self._refuses:
            self.taken += 1
            return None
        return super().buildProtocol(addr)


class Descriptors(PortsTestCase):
    """Ports wait for free descriptors, in one process and in a worker."""

    def setUp(self) -> None:
        super().setUp()
        self.logged = logged_lines(self, "connections wait")
        self.patch(accepting, "_PROBE_INTERVAL", 0.01)

    def served(self) -> list[tuple[Ports, Any]]:
        """Return ports that are read from, and where they are: three kinds.

        The last one is as in an application, whose reactor has monotonic timers beside its own.
        """
        endpoint, tcp = self.tcp()
        worker, _ = self.worker(endpoint, b"worker")
        own, unix = self.ports(), self.path()
        own.bind("smtp", f"unix:{unix}", Greeter(b"own"))
        alone = Ports(MonotonicReactor(reactor))
        self.addCleanup(alone.unbind)
        alone.bind("smtp", f"tcp:0:interface={LOOPBACK}", Greeter(b"own"))
        address: Any = alone.bound[0].address
        return [(worker, (LOOPBACK, tcp)), (own, unix), (alone, (LOOPBACK, address.port))]

    async def test_without_descriptors_connections_wait_and_are_not_closed(self) -> None:
        for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            for served, place in self.served():
                port: Any = served.bound[0].port
                port.socket = Refusing(port.socket, [number] * 3)
                self.logged.clear()
                served.accept_connections()
                self.assertIn(await self.greeting(place), (b"own", b"worker"))
                (line,) = self.logged  # and not one for each time
                self.assertIn(os.strerror(number), line)

    async def test_that_connections_are_accepted_again_is_said_once_and_after_a_quiet_time(
        self,
    ) -> None:
        said = logged_lines(self, "connections are accepted again")
        self.patch(accepting, "_QUIET", 0.0)
        for served, place in self.served():
            served.accept_connections()
            await self.greeting(place)
            self.assertEqual(said, [])
            port: Any = served.bound[0].port
            port.socket = Refusing(port.socket, [errno.EMFILE])
            for _ in range(3):
                await self.greeting(place)
            self.assertEqual(said, ["connections are accepted again"])
            said.clear()
        self.patch(accepting, "_QUIET", 60.0)
        port.socket = Refusing(port.socket, [errno.EMFILE])
        for _ in range(3):
            await self.greeting(place)
        self.assertEqual(said, [])

    async def test_the_last_descriptors_are_kept_for_mail_in_progress(self) -> None:
        for served, place in self.served():
            probe = os.dup(0)
            os.close(probe)
            lowest = probe + 2  # one more is the client's socket
            self.patch(accepting, "limit", lambda lowest=lowest: lowest * 8 // 7)
            served.accept_connections()
            port: Any = served.bound[0].port
            port.factory.stays = True
            sockets = []
            for _ in range(6):
                client = socket.socket(socket.AF_UNIX if isinstance(place, str) else socket.AF_INET)
                self.addCleanup(client.close)
                client.connect(place)
                sockets.append(client)
            await until(lambda port=port: port.out_of_descriptors)  # type: ignore[misc]
            self.assertLess(port.factory.taken, 6)
            self.patch(accepting, "limit", lambda: 10_000)
            await until(lambda port=port: port.factory.taken == 6)  # type: ignore[misc]
            for client in sockets:
                client.close()
            await port.factory.ended()

    async def test_an_accepted_connection_does_not_block_and_is_not_inherited(self) -> None:
        """Whatever the program's default for sockets, which are accepted without it."""
        for default in (None, 5.0):
            self.addCleanup(socket.setdefaulttimeout, socket.getdefaulttimeout())
            for served, place in self.served():
                served.accept_connections()
                port: Any = served.bound[0].port
                port.factory.stays = True
                with socket.socket(
                    socket.AF_UNIX if isinstance(place, str) else socket.AF_INET
                ) as client:
                    client.connect(place)
                    socket.setdefaulttimeout(default)
                    taken = len(port.factory.here)
                    await until(lambda port=port, taken=taken: len(port.factory.here) > taken)
                    accepted = port.factory.here[-1].transport.socket
                    self.assertEqual(
                        (accepted.gettimeout(), accepted.get_inheritable()), (0.0, False)
                    )
                    self.assertEqual((accepted.family, accepted.type), (client.family, client.type))
                    socket.setdefaulttimeout(None)
                await port.factory.ended()

    async def test_the_status_page_answers_while_connections_with_mail_wait(self) -> None:
        ports = self.ports()
        for kind in ("smtp", "web"):
            ports.bind(kind, f"tcp:0:interface={LOOPBACK}", Greeter(b""))
        mail, page = (bound.port for bound in ports.bound)
        assert isinstance(mail, accepting.Accepting)
        assert isinstance(page, accepting.Accepting)
        self.assertLess(page.kept, mail.kept)
        most = accepting.share(accepting.limit())
        self.assertLessEqual(most, accepting.limit() * (mail.kept - page.kept))

    async def test_a_port_that_its_factory_stops_takes_no_more_of_those_that_wait(self) -> None:
        for refuses, limit in ((False, 10_000), (True, 10_000), (False, 1)):
            self.patch(accepting, "limit", lambda limit=limit: limit)
            for served, place in self.served()[1:]:  # a worker takes one at a time
                port: Any = served.bound[0].port
                port.factory = stopping = Stopping(port, refuses=refuses)
                for _ in range(3):
                    kind = socket.AF_UNIX if isinstance(place, str) else socket.AF_INET
                    client = socket.socket(kind)
                    self.addCleanup(client.close)
                    client.connect(place)
                port.doRead()
                self.assertEqual(stopping.taken, 1)
                self.assertFalse(port.out_of_descriptors)
                for greeting in stopping.here:
                    await greeting.lost

    async def test_waiting_ports_can_be_unbound(self) -> None:
        for served, _ in self.served():
            port: Any = served.bound[0].port
            port.socket = Refusing(port.socket, [errno.EMFILE] * 1000)
            port.doRead()
            await served.unbind()

    def test_the_soft_limit_is_raised_to_the_hard_limit(self) -> None:
        was = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, was)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, was[1]), was[1]))
        accepting.raise_limit()
        now = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.assertEqual(now, (min(65_536, was[1]), was[1]))


class Sharing(PortsTestCase):
    """Two workers that share their numbers of connections."""

    def setUp(self) -> None:
        super().setUp()
        self.counts = SharedCounts.of(2)
        self.addCleanup(self.counts.close)
        self.greeters: list[Greeter] = []

    def two(self, endpoint: str) -> list[Ports]:
        workers = []
        for number in range(2):
            worker, greeter = self.worker(
                endpoint, b"220 Hello\n", SharedCounts(self.counts.descriptor, number)
            )
            greeter.stays = True
            self.greeters.append(greeter)
            workers.append(worker)
        return workers

    def crowd(self, place: Any, count: int) -> Deferred[list[bytes]]:
        """Connect clients, which stay connected; fires when all have their greeting."""

        def connect() -> list[bytes]:
            family = socket.AF_UNIX if isinstance(place, str) else socket.AF_INET
            clients = [socket.socket(family) for _ in range(count)]
            for client in clients:
                client.settimeout(10)
                client.connect(place)
            lines = [client.makefile("rb").readline() for client in clients]
            for client in clients:
                client.close()
            return lines

        return deferToThread(connect)

    async def assertShared(self, place: Any, workers: list[Ports]) -> None:
        """The second worker starts late, and still gets its share."""
        self.patch(shared_ports, "_DEFERENCE", 60.0)
        SharedCounts(self.counts.descriptor, 1).serve()
        workers[0].accept_connections()
        crowd = self.crowd(place, 20)
        await self.greeters[0].third
        for _ in range(10):
            await deferToThread(lambda: None)
        self.assertEqual(self.greeters[0].taken, 3)
        workers[1].accept_connections()
        self.assertEqual(set(await crowd), {b"220 Hello\n"})
        first, second = (greeter.taken for greeter in self.greeters)
        self.assertEqual(first + second, 20)
        self.assertLessEqual(abs(first - second), 6)
        for greeter in self.greeters:
            await greeter.ended()
        self.assertEqual(list(self.counts._numbers), [0, 0])

    async def test_connections_at_the_same_time_are_shared(self) -> None:
        endpoint, port = self.tcp()
        await self.assertShared((LOOPBACK, port), self.two(endpoint))

    async def test_connections_on_a_unix_socket_are_shared(self) -> None:
        path = self.path()
        self.bind(f"unix:{path}")
        await self.assertShared(path, self.two(f"unix:{path}"))

    async def test_a_hanging_worker_delays_no_client(self) -> None:
        endpoint, port = self.tcp()
        first, _ = self.two(endpoint)
        first.accept_connections()
        SharedCounts(self.counts.descriptor, 1).serve()  # and never accepts
        self.assertEqual(set(await self.crowd((LOOPBACK, port), 20)), {b"220 Hello\n"})
        self.assertEqual([greeter.taken for greeter in self.greeters], [20, 0])
        await self.greeters[0].ended()

    async def test_a_worker_takes_connections_at_once_until_it_has_more_than_another(self) -> None:
        endpoint, port = self.tcp()
        first, _ = self.two(endpoint)
        first.accept_connections()
        other = SharedCounts(self.counts.descriptor, 1)
        other.serve()
        for _ in range(3):
            other.enter()
        clients = [socket.create_connection((LOOPBACK, port), 10) for _ in range(8)]
        for taken in (4, 5):
            first.bound[0].port.doRead()  # type: ignore[attr-defined]
            self.assertEqual(self.greeters[0].taken, taken)
        for client in clients:
            client.close()
        await first.unbind()
        await self.greeters[0].ended()

    async def test_a_worker_that_ends_while_it_defers_leaves_no_timer(self) -> None:
        endpoint, port = self.tcp()
        first, second = self.two(endpoint)
        first.accept_connections()
        other = SharedCounts(self.counts.descriptor, 1)
        other.serve()
        for _ in range(9):
            first._counts.enter()  # type: ignore[union-attr]
        with socket.create_connection((LOOPBACK, port), 10):
            first.bound[0].port.doRead()  # type: ignore[attr-defined]
            self.assertEqual(self.greeters[0].taken, 0)
            await first.unbind()
        await second.unbind()  # a pending timer fails the test


class Binding(PortsTestCase):
    def refused(self, endpoint: str, why: str) -> None:
        with self.assertRaisesRegex(CannotListen, why):
            self.bind(endpoint)
        gc.collect()  # Twisted does not close a socket that it could not bind
        self.flushWarnings()  # type: ignore[no-untyped-call]

    def test_a_failed_bind_unbinds_the_others(self) -> None:
        _, port = self.tcp()
        ports = self.ports()
        ports.bind("smtp", f"tcp:0:interface={LOOPBACK}", self.nobody)
        with self.assertRaisesRegex(CannotListen, f"cannot listen on tcp:{port}:.*in use"):
            ports.bind("smtp", f"tcp:{port}:interface={LOOPBACK}", self.nobody)
        self.assertEqual(ports.bound, [])
        return ports.unbind()  # type: ignore[return-value]

    def test_a_missing_socket_of_systemd_is_named_in_the_error(self) -> None:
        self.refused("systemd:domain=INET:index=7", "systemd has passed no such socket")
        self.patch(os, "environ", {**os.environ, "LISTEN_FDS": "1"})
        self.refused("systemd:domain=INET:index=7", "LISTEN_FDNAMES with as many names is missing")

    def test_the_stale_socket_of_a_killed_mta_is_replaced(self) -> None:
        path = self.path()
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(path)
        os.symlink(str(os.getpid()), f"{path}.lock")  # as in a container, where numbers recur
        self.bind(f"unix:{path}")
        self.assertTrue(stat.S_ISSOCK(os.stat(path).st_mode))

    def test_a_stale_lock_without_its_socket_is_removed(self) -> None:
        path = self.path()
        os.symlink(str(os.getpid()), f"{path}.lock")
        self.bind(f"unix:address={path}")

    def test_a_socket_with_a_listener_is_not_removed(self) -> None:
        path = self.path()
        with socket.socket(socket.AF_UNIX) as live:
            live.bind(path)
            live.listen()
            self.refused(f"unix:{path}", "cannot listen on unix:")
            self.assertTrue(os.path.exists(path))

    def test_a_file_that_is_not_a_socket_is_not_removed(self) -> None:
        path = self.path()
        with open(path, "wb") as file:
            file.write(b"mine")
        self.refused(f"unix:{path}", "cannot listen on unix:")
        with open(path, "rb") as file:
            self.assertEqual(file.read(), b"mine")

    def test_names_are_kept_after_unbind(self) -> None:
        _, port = self.tcp()
        unbound = self.parent.unbind()
        self.assertEqual(self.parent.names, [f"smtp tcp {LOOPBACK}:{port}"])
        return unbound  # type: ignore[return-value]


class Reach(TidyTestCase):
    """`Ports.reach`, which finds loops of mail to ourselves."""

    def reach(self, bound_to: str, *asked: tuple[str, int]) -> list[bool]:
        ports = Ports(reactor)
        ports.bound.append(_Bound(bound_to, 25))  # type: ignore[arg-type]
        return [ports.reach(*each) for each in asked]

    def test_a_port_of_one_address_is_reached_only_there(self) -> None:
        asked = (("127.0.0.1", 25), ("127.0.0.1", 26), ("127.0.0.2", 25))
        self.assertEqual(self.reach("127.0.0.1", *asked), [True, False, False])

    def test_a_port_of_all_addresses_is_reached_at_all_addresses_of_this_machine(self) -> None:
        asked = (("127.0.0.1", 25), ("127.0.0.9", 25), ("192.0.2.1", 25), ("127.0.0.1", 26))
        self.assertEqual(self.reach("0.0.0.0", *asked), [True, True, False, False])

    def test_without_ports_nothing_is_reached(self) -> None:
        self.assertFalse(Ports(reactor).reach("127.0.0.1", 25))

    def test_a_unix_socket_has_no_address(self) -> None:
        ports = Ports(reactor)
        ports.bound.append(_Bound(None, None))  # type: ignore[arg-type]
        self.assertFalse(ports.reach("127.0.0.1", 25))


class _Bound:
    """Stands for a bound port."""

    def __init__(self, host: str | None, port: int | None) -> None:
        self.host, self._port = host, port
        self.port = self

    @property
    def address(self) -> Any:
        return _Address(self.host, self._port)

    def stopListening(self) -> Deferred[None]:
        return succeed(None)


class _Address:
    def __init__(self, host: str | None, port: int | None) -> None:
        if host is not None:
            self.host, self.port = host, port
