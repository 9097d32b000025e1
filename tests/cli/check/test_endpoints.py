"""Findings about endpoints of listeners, and source addresses."""

import os
import socket
import unittest

from tests.cli.check.checking import CheckTestCase, Stranger
from tests.server.authority import self_signed
from twisted_mta.config import DeliverySettings, MTASTSSettings
from twisted_mta.queue.store.lock import StateLock

LINUX = os.path.exists("/proc/net/unix")


class TCP(CheckTestCase):
    def test_a_free_port_stays_free(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        for _ in range(2):
            self.assertEqual(self.found(self.config(f"tcp:{port}:interface=127.0.0.1")), [])

    def test_the_process_that_listens_on_a_port_is_named(self) -> None:
        stranger = Stranger(self)
        config = self.config(f"tcp:{stranger.port}:interface=127.0.0.1")
        (text,) = self.found(config)
        self.assertTrue(
            text.startswith(
                f"error: listener tcp:{stranger.port}:interface=127.0.0.1:"
                f" port {stranger.port} is in use by "
            ),
            text,
        )
        if LINUX:
            self.assertIn(f"process {stranger.process} (python", text)

    @unittest.skipUnless(LINUX, "only Linux shows who listens on a port")
    def test_a_process_on_the_same_port_of_another_address_is_not_blamed(self) -> None:
        stranger = Stranger(self)
        with socket.create_server(("127.0.0.2", stranger.port)):
            (text,) = self.found(self.config(f"tcp:{stranger.port}:interface=127.0.0.1"))
            self.assertIn(f"in use by process {stranger.process} ", text)
            (text,) = self.found(self.config(f"tcp:{stranger.port}:interface=127.0.0.2"))
            self.assertIn("belongs to another listener", text)

    @unittest.skipUnless(socket.has_ipv6, "this machine has no IPv6")
    def test_a_port_of_ipv6_is_tried_with_ipv6(self) -> None:
        with socket.socket(socket.AF_INET6) as other:
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                other.bind(("::1", 0))
            except OSError:
                raise unittest.SkipTest("this machine has no IPv6 address") from None
            other.listen()
            port = other.getsockname()[1]
            for endpoint in (f"tcp6:{port}", rf"tcp6:{port}:interface=\:\:1"):
                found = self.found(self.config(endpoint))
                (text,) = (each for each in found if each.startswith("error: "))
                self.assertIn(f"port {port} ", text)
            self.assertEqual(self.found(self.config(f"tcp:{port}:interface=127.0.0.1")), [])

    def test_two_listeners_on_one_port_are_an_error(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        (text,) = self.found(
            self.config(
                f"tcp:{port}:interface=127.0.0.1",
                f"tcp:interface=127.0.0.1:port={port}",
            )
        )
        self.assertIn(f"port {port} ", text)
        if LINUX:
            self.assertIn("belongs to another listener; expected a different one; tcp6:", text)

    def test_the_port_of_the_status_page_is_checked(self) -> None:
        stranger = Stranger(self)
        (text,) = self.found(self.config(web=f"tcp:{stranger.port}:interface=127.0.0.1"))
        self.assertTrue(text.startswith("error: [mta] web: port "), text)

    def test_the_port_of_our_policy_is_checked(self) -> None:
        stranger = Stranger(self)
        settings = MTASTSSettings(publish=f"tcp:{stranger.port}:interface=127.0.0.1")
        (text,) = self.found(self.config(mta_sts=settings))
        self.assertTrue(text.startswith("error: [mta_sts] publish: port "), text)

    def test_an_address_of_another_machine_is_an_error(self) -> None:
        for endpoint in ("tcp:0:interface=192.0.2.1", r"tcp6:0:interface=2001\:db8\:\:1"):
            (text,) = self.found(self.config(endpoint, recipients="any"))[:1]
            self.assertIn("is not an address of this machine", text)

    def test_a_source_address_is_tried(self) -> None:
        delivery = DeliverySettings(source_address="192.0.2.1")
        (text,) = self.found(self.config(delivery=delivery))
        self.assertIn("error: [delivery] source_address: 192.0.2.1 cannot be used: ", text)
        delivery = DeliverySettings(source_address="127.0.0.1")
        self.assertEqual(self.found(self.config(delivery=delivery)), [])


class RunningMTA(CheckTestCase):
    def setUp(self) -> None:
        super().setUp()
        os.mkdir(self.state, 0o700)
        self.lock = StateLock(os.path.join(self.state, "lock"))
        self.addCleanup(self.lock.release)

    @unittest.skipUnless(LINUX, "only Linux shows who listens on a port")
    def test_ports_of_the_running_mta_and_its_children_are_no_finding(self) -> None:
        stranger = Stranger(self)
        config = self.config(f"tcp:{stranger.port}:interface=127.0.0.1")
        self.assertEqual(len(self.found(config)), 1)
        self.lock.acquire()  # this process is the MTA now, and the other its child
        self.assertEqual(self.found(config), [])

    def test_a_port_of_an_unknown_process_is_presumably_the_running_mtas(self) -> None:
        stranger = Stranger(self)
        config = self.config(f"tcp:{stranger.port}:interface=127.0.0.1")
        self.lock.acquire()
        notes = self.found(config, notes=True, proc=self.directory)
        self.assertIn(
            f"note: listener tcp:{stranger.port}:interface=127.0.0.1: port {stranger.port} is in"
            f" use, presumably by the running MTA (process {os.getpid()})",
            notes,
        )

    @unittest.skipUnless(LINUX, "only Linux shows who listens on a port")
    def test_a_port_of_another_process_is_an_error(self) -> None:
        stranger, other = Stranger(self), Stranger(self)
        config = self.config(f"tcp:{stranger.port}:interface=127.0.0.1")
        self.lock.acquire()
        with open(os.path.join(self.state, "lock"), "w", encoding="ascii") as lock:
            lock.write(f"{other.process}\n")
        (text,) = self.found(config)
        self.assertIn(f"port {stranger.port} is in use by process {stranger.process}", text)


class UNIX(CheckTestCase):
    def of(self, *words: str) -> list[str]:
        return self.found(self.config(":".join(["unix", self.path("mta.sock"), *words])))

    def test_a_free_path_stays_free(self) -> None:
        self.assertEqual(self.of("mode=660"), [])
        self.assertEqual(os.listdir(self.directory), [])

    def test_a_stale_socket_is_no_finding(self) -> None:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(self.path("mta.sock"))
        self.assertEqual(self.of(), [])
        self.assertEqual(os.listdir(self.directory), ["mta.sock"])

    @unittest.skipUnless(LINUX, "only Linux shows who listens on a socket")
    def test_the_process_that_listens_on_a_socket_is_named(self) -> None:
        stranger = Stranger(self, self.path("mta.sock"))
        (text,) = self.of()
        self.assertIn(f"DIR/mta.sock is in use by process {stranger.process}", text)

    def test_a_file_in_the_place_of_the_socket_is_an_error(self) -> None:
        self.write("mta.sock")
        (text,) = self.of()
        self.assertIn("error: listener unix:DIR/mta.sock: DIR/mta.sock is not a socket", text)

    def test_a_missing_directory_is_an_error(self) -> None:
        (text,) = self.found(self.config(f"unix:{self.path('run', 'mta.sock')}"))
        self.assertIn("DIR/run is not a directory; create it", text)

    def test_a_path_of_more_than_107_octets_is_an_error(self) -> None:
        (text,) = self.found(self.config(f"unix:{self.path('x' * 107)}"))
        self.assertIn("expected at most 107", text)

    def test_a_mode_that_is_not_octal_is_an_error(self) -> None:
        (text,) = self.of("mode=rw")
        self.assertIn("mode=rw is not a mode", text)


class Others(CheckTestCase):
    def test_a_socket_of_systemd_is_a_note(self) -> None:
        config = self.config("systemd:domain=INET:name=smtp", recipients="any")
        self.assertIn(
            "note: listener systemd:domain=INET:name=smtp: sockets that are passed to the MTA are"
            " not checked",
            self.found(config, notes=True),
        )
        config = self.config("systemd:domain=INET", recipients="any")
        self.assertIn(
            "error: listener systemd:domain=INET: it names no socket", self.found(config)[0]
        )

    def test_the_files_of_a_tls_endpoint_are_read(self) -> None:
        text = self.found(self.config(r"ssl:0:interface=127.0.0.1:privateKey=/nowhere.pem"))[0]
        self.assertIn("error: listener ssl:0:interface=127.0.0.1:privateKey=/nowhere.pem:", text)
        self.assertIn("/nowhere.pem: cannot be read", text)
        file = self_signed("mail.example.net").save(self.directory, "pair.pem")
        self.assertEqual(
            self.found(self.config(f"ssl:0:interface=127.0.0.1:privateKey={file}")), []
        )
