"""What a check says of the places where something is to be listened for."""

import os
import socket
import unittest

from tests.cli.check.checking import CheckTestCase, Stranger
from tests.server.authority import self_signed
from twisted_mta.config import DeliverySettings
from twisted_mta.queue.store.lock import StateLock

LINUX = os.path.exists("/proc/net/unix")


class TCP(CheckTestCase):
    def test_a_free_port_is_free_again_afterwards(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        for _ in range(2):
            self.assertEqual(self.found(self.config(f"tcp:{port}:interface=127.0.0.1")), [])

    def test_who_has_a_port_is_named(self) -> None:
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

    def test_two_listeners_cannot_have_one_port(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        (text,) = self.found(
            self.config(
                f"tcp:{port}:interface=127.0.0.1",
                f"tcp:interface=127.0.0.1:port={port}",
            )
        )
        self.assertIn(f"port {port} is ", text)
        if LINUX:
            self.assertIn("another listener's; each needs one of its own; tcp6:", text)

    def test_the_web_page_is_looked_at_too(self) -> None:
        stranger = Stranger(self)
        (text,) = self.found(self.config(web=f"tcp:{stranger.port}:interface=127.0.0.1"))
        self.assertTrue(text.startswith("error: [mta] web: port "), text)

    def test_an_address_of_another_machine_is_an_error(self) -> None:
        for endpoint in ("tcp:0:interface=192.0.2.1", r"tcp6:0:interface=2001\:db8\:\:1"):
            (text,) = self.found(self.config(endpoint, recipients="any"))[:1]
            self.assertIn("no network interface of this machine has the address", text)

    def test_an_address_to_deliver_from_is_tried(self) -> None:
        delivery = DeliverySettings(source_address="192.0.2.1")
        (text,) = self.found(self.config(delivery=delivery))
        self.assertIn(
            "error: [delivery] source_address: no connection can come from 192.0.2.1", text
        )
        delivery = DeliverySettings(source_address="127.0.0.1")
        self.assertEqual(self.found(self.config(delivery=delivery)), [])


class OfTheMTAThatRuns(CheckTestCase):
    def setUp(self) -> None:
        super().setUp()
        os.mkdir(self.state, 0o700)
        self.lock = StateLock(os.path.join(self.state, "lock"))
        self.addCleanup(self.lock.release)

    @unittest.skipUnless(LINUX, "only Linux tells who has a port")
    def test_its_ports_and_those_of_its_children_are_no_errors(self) -> None:
        stranger = Stranger(self)
        config = self.config(f"tcp:{stranger.port}:interface=127.0.0.1")
        self.assertEqual(len(self.found(config)), 1)
        self.lock.acquire()  # this process is the MTA now, and the other its child
        self.assertEqual(self.found(config), [])

    def test_what_it_has_presumably_is_no_error_either(self) -> None:
        stranger = Stranger(self)
        config = self.config(f"tcp:{stranger.port}:interface=127.0.0.1")
        self.lock.acquire()
        notes = self.found(config, notes=True, proc=self.directory)
        self.assertIn(
            f"note: listener tcp:{stranger.port}:interface=127.0.0.1: port {stranger.port} is in"
            f" use, by the MTA that runs (process {os.getpid()}) presumably",
            notes,
        )

    @unittest.skipUnless(LINUX, "only Linux tells who has a port")
    def test_the_ports_of_others_still_are(self) -> None:
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

    def test_a_name_that_is_free_stays_free(self) -> None:
        self.assertEqual(self.of("mode=660"), [])
        self.assertEqual(os.listdir(self.directory), [])

    def test_a_socket_that_nobody_listens_on_is_no_error(self) -> None:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(self.path("mta.sock"))
        self.assertEqual(self.of(), [])
        self.assertEqual(os.listdir(self.directory), ["mta.sock"])

    @unittest.skipUnless(LINUX, "only Linux tells who has a socket")
    def test_who_listens_there_is_named(self) -> None:
        stranger = Stranger(self, self.path("mta.sock"))
        (text,) = self.of()
        self.assertIn(f"DIR/mta.sock is in use by process {stranger.process}", text)

    def test_other_files_are_left_alone(self) -> None:
        self.write("mta.sock")
        (text,) = self.of()
        self.assertIn("error: listener unix:DIR/mta.sock: DIR/mta.sock is no socket", text)

    def test_the_directory_has_to_be_there(self) -> None:
        (text,) = self.found(self.config(f"unix:{self.path('run', 'mta.sock')}"))
        self.assertIn("DIR/run is no directory; make it", text)

    def test_a_path_can_be_too_long(self) -> None:
        (text,) = self.found(self.config(f"unix:{self.path('x' * 107)}"))
        self.assertIn("longer than 107 octets", text)

    def test_a_mode_is_octal(self) -> None:
        (text,) = self.of("mode=rw")
        self.assertIn("mode=rw is no mode", text)


class Others(CheckTestCase):
    def test_a_socket_of_systemd_is_told_of_and_not_tried(self) -> None:
        config = self.config("systemd:domain=INET:name=smtp", recipients="any")
        self.assertIn(
            "note: listener systemd:domain=INET:name=smtp: only who hands that socket over can"
            " tell whether it can be listened on",
            self.found(config, notes=True),
        )
        config = self.config("systemd:domain=INET", recipients="any")
        self.assertIn(
            "error: listener systemd:domain=INET: no socket is named", self.found(config)[0]
        )

    def test_the_files_of_a_tls_endpoint_are_read(self) -> None:
        text = self.found(self.config(r"ssl:0:interface=127.0.0.1:privateKey=/nowhere.pem"))[0]
        self.assertIn("error: listener ssl:0:interface=127.0.0.1:privateKey=/nowhere.pem:", text)
        self.assertIn("/nowhere.pem: cannot be read", text)
        file = self_signed("mail.example.net").save(self.directory, "pair.pem")
        self.assertEqual(
            self.found(self.config(f"ssl:0:interface=127.0.0.1:privateKey={file}")), []
        )
