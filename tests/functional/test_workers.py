"""``--workers N``: the program survives the death of any process."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import smtplib
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from urllib.request import urlopen

from tests.server.authority import self_signed

from .machine import LOOPBACK, children, eventually, free_port, listens, need_proc, run, runs
from .mail import ProgramTestCase, message, submit, trusting
from .mta import MTA
from .sinks import Sink


class Workers(ProgramTestCase):
    def setUp(self) -> None:
        need_proc()
        super().setUp()

    def mta(self, *options: str, workers: int = 2, toml: str = "") -> MTA:
        return MTA(self.home, "--workers", str(workers), *options, toml=toml)

    def workers(self, mta: MTA, count: int = 2) -> list[int]:
        """Wait until there are ``count`` workers."""
        return mta.wait_for(
            lambda: found if len(found := children(mta.pid)) == count else [],
            f"{count} workers",
        )

    def taken_by(self, mta: MTA) -> Counter[str]:
        """Return the number of messages that each worker has accepted, by the log."""
        accepted = [line for line in mta.output().splitlines() if " accepted: " in line]
        return Counter(line.partition(" worker=")[2].partition("]")[0] for line in accepted)

    def connections(self, mta: MTA) -> list[int]:
        """Return the number of open connections of each worker, by the status page."""
        with urlopen(f"http://{LOOPBACK}:{mta.web}/status.json", timeout=30) as answer:
            processes = json.load(answer)["processes"]
        return [process["connections"]["open"] for process in processes]

    def client(self, mta: MTA) -> smtplib.SMTP:
        client = smtplib.SMTP(LOOPBACK, mta.smtp, timeout=30)
        self.addCleanup(client.close)
        return client


class Life(Workers):
    def test_connections_are_spread_evenly(self) -> None:
        with self.mta() as mta:
            # So many that short delays of a worker do not matter.
            for _ in range(120):
                submit(mta.smtp, message(), "bob@localhost")
            mta.wait_for_mail("localhost", "bob", 120)
            mta.wait_for(lambda: self.taken_by(mta).total() == 120, "a line for each")
            taken = self.taken_by(mta)
            self.assertEqual(mta.terminate(), 0, mta.output())
        self.assertEqual(sum(taken.values()), 120)
        self.assertGreaterEqual(min(taken["0"], taken["1"]), 30, taken)

    def test_a_burst_is_spread_evenly(self) -> None:
        """A worker that accepted all waiting connections in a loop would get nearly all."""
        with self.mta() as mta:
            # A worker without processor time accepts nothing: the burst is repeated then.
            spread = [self.burst(mta) for _ in range(3)]
        self.assertGreaterEqual(max(map(min, spread)), 8, spread)

    def burst(self, mta: MTA) -> list[int]:
        """Return how many of 40 simultaneous connections each worker accepts."""
        clients = [socket.create_connection((LOOPBACK, mta.smtp), 30) for _ in range(40)]
        for client in clients:
            self.assertEqual(client.makefile("rb").readline()[:3], b"220")
        taken = self.connections(mta)
        self.assertEqual(sum(taken), 40)
        for client in clients:
            client.shutdown(socket.SHUT_RDWR)
            client.close()
        eventually(lambda: not any(self.connections(mta)), "their end")
        return taken

    def test_a_killed_worker_is_replaced_without_effect_on_the_other(self) -> None:
        with self.mta() as mta:
            first, second = self.workers(mta)
            clients = [self.client(mta) for _ in range(8)]
            while not all(self.connections(mta)):
                clients.append(self.client(mta))
            os.kill(first, signal.SIGKILL)
            mta.wait_for(lambda: " works again" in mta.output(), "the successor")
            self.assertIn("worker 0 was ended by SIGKILL", mta.output())
            alive = 0
            for client in clients:
                with contextlib.suppress(OSError, smtplib.SMTPException):
                    client.sendmail("ann@sender.example", ["bob@localhost"], message())
                    alive += 1
            self.assertGreaterEqual(alive, 1)
            self.assertLess(alive, len(clients))
            workers = self.workers(mta)
            self.assertIn(second, workers)
            self.assertNotIn(first, workers)
            submit(mta.smtp, message(), "bob@localhost")
            mta.wait_for_mail("localhost", "bob", alive + 1)
            self.assertEqual(mta.terminate(), 0, mta.output())

    def test_workers_continue_while_the_parent_is_stopped(self) -> None:
        with self.mta() as mta:
            workers = self.workers(mta)
            submit(mta.smtp, message(), "bob@localhost")
            os.kill(mta.pid, signal.SIGSTOP)
            try:
                for _ in range(30):
                    submit(mta.smtp, message(), "bob@localhost")
            finally:
                os.kill(mta.pid, signal.SIGCONT)
            submit(mta.smtp, message(), "bob@localhost")
            self.assertEqual(self.workers(mta), workers)
            self.assertEqual(mta.terminate(), 0, mta.output())

    def test_workers_end_when_the_parent_is_killed(self) -> None:
        with self.mta() as mta:
            workers = self.workers(mta)
            client = self.client(mta)
            client.ehlo()
            struck = time.monotonic()
            mta.kill()
            eventually(lambda: not any(map(runs, workers)), "their end")
            self.assertLess(time.monotonic() - struck, 1.0)
            assert client.sock is not None
            with contextlib.suppress(ConnectionResetError), client.sock.makefile("rb") as rest:
                self.assertIn(rest.read()[:4], (b"", b"421 "))
            self.assertFalse(listens(mta.smtp))
            mta.start()
            submit(mta.smtp, message(), "bob@localhost")
            mta.wait_for_mail("localhost", "bob")
            self.assertEqual(mta.terminate(), 0, mta.output())

    def test_even_a_stopped_worker_ends_when_the_parent_is_killed(self) -> None:
        if sys.platform != "linux":
            self.skipTest("Linux alone wakes a process when its parent dies")
        with self.mta() as mta:
            workers = self.workers(mta)
            os.kill(workers[0], signal.SIGSTOP)
            try:
                mta.kill()
                eventually(lambda: not any(map(runs, workers)), "their end")
            finally:
                for worker in filter(runs, workers):
                    os.kill(worker, signal.SIGKILL)

    def test_a_start_after_a_kill_waits_for_no_old_worker(self) -> None:
        for workers in (2, 1):
            with self.mta() as mta:
                mta.kill()
            with self.mta(workers=workers) as mta:
                submit(mta.smtp, message(), "bob@localhost")
                self.assertEqual(mta.terminate(), 0, mta.output())

    def test_a_second_mta_on_the_same_state_is_refused(self) -> None:
        with self.mta() as mta:
            other = MTA(self.home, "--workers", "2", "--web", "off")
            ended = run(*other.command())
            self.assertEqual(ended.returncode, 1)
            self.assertIn(f"is in use by another MTA (process {mta.pid})", ended.stdout)
            submit(mta.smtp, message(), "bob@localhost")

    def test_after_a_start_with_fewer_workers_all_queued_mail_is_delivered(self) -> None:
        sink = Sink(self.home, port=free_port())
        self.addCleanup(sink.kill)
        toml = '[queue]\nretry_minimum = "1 s"\nretry_maximum = "1 s"\n'
        route = ("--route", f"relay.example=smtp://{LOOPBACK}:{sink.port}")
        with self.mta(*route, workers=3, toml=toml) as mta:
            # The kernel chooses the worker; connections are held until each has one.
            clients = [self.client(mta)]
            while sum(map(bool, self.connections(mta))) < 2:
                clients.append(self.client(mta))
            for client in clients:
                client.sendmail("ann@sender.example", ["bob@relay.example"], message())
            # Each logs it in its own time.
            mta.wait_for(lambda: len(self.taken_by(mta)) >= 2, "what two of them have to deliver")
            self.assertEqual(mta.terminate(), 0, mta.output())
        sink.start()
        with self.mta(*route, workers=1, toml=toml) as mta:
            sink.wait_for_messages(len(clients))
            self.assertIn("of a former worker is taken over", mta.output())
            self.assertEqual(mta.terminate(), 0, mta.output())
        self.assertEqual(len(sink.received()), len(clients))

    def test_a_start_fails_if_a_queue_cannot_be_opened(self) -> None:
        shard = self.home / "mta-state" / "shard-1"
        shard.mkdir(parents=True, mode=0o700)
        (shard / "queue.sqlite").write_bytes(b"this is no database" * 1000)
        mta = self.mta()
        mta.spawn(mta.command())
        self.assertEqual(mta.wait(), 1)
        self.assertIn("twisted-mta: ", mta.output())
        self.assertIn("queue.sqlite cannot be opened", mta.output())
        self.assertNotIn("Traceback", mta.output())


class Limits(Workers):
    def test_the_limit_of_connections_per_peer_covers_all_workers(self) -> None:
        toml = "[mta]\nmax_connections_per_peer = 5\n"
        with self.mta(toml=toml) as mta:
            for _ in range(3):
                sockets = [socket.create_connection((LOOPBACK, mta.smtp), 30) for _ in range(12)]
                greetings = Counter(each.makefile("rb").readline()[:3] for each in sockets)
                self.assertEqual(greetings, {b"220": 5, b"421": 7})
                for each in sockets:
                    each.shutdown(socket.SHUT_RDWR)
                    each.close()
                eventually(lambda: not any(self.connections(mta)), "their end")

    def greeted(self, mta: MTA) -> bytes:
        with socket.create_connection((LOOPBACK, mta.smtp), 30) as client:
            return client.makefile("rb").readline()[:3]

    def test_limits_used_by_a_dead_worker_are_free_again(self) -> None:
        with self.mta(toml="[mta]\nmax_connections = 6\n") as mta:
            sockets = [socket.create_connection((LOOPBACK, mta.smtp), 30) for _ in range(6)]
            for each in sockets:
                self.assertEqual(each.makefile("rb").readline()[:3], b"220")
            self.assertEqual(self.greeted(mta), b"421")
            for worker in self.workers(mta):
                os.kill(worker, signal.SIGKILL)
            mta.wait_for(lambda: mta.output().count(" works again") == 2, "the successors")
            again = [socket.create_connection((LOOPBACK, mta.smtp), 30) for _ in range(8)]
            greetings = Counter(each.makefile("rb").readline()[:3] for each in again)
            self.assertEqual(greetings, {b"220": 6, b"421": 2})
            for each in (*sockets, *again):
                each.close()


class Endpoints(Workers):
    def test_a_unix_socket_keeps_its_mode_and_is_unlinked_once(self) -> None:
        path = self.home / "mta.sock"
        with self.mta("--smtp", f"unix:{path}:mode=600") as mta:
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
            os.kill(self.workers(mta)[0], signal.SIGKILL)
            mta.wait_for(lambda: " works again" in mta.output(), "the successor")
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
            for _ in range(4):
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(str(path))
                    self.assertEqual(client.makefile("rb").readline()[:3], b"220")
            self.assertEqual(mta.terminate(), 0, mta.output())
            self.assertNotIn("Traceback", mta.output())
        self.assertFalse(path.exists())

    def test_the_stale_socket_of_a_killed_mta_is_replaced(self) -> None:
        path = self.home / "mta.sock"
        with self.mta("--smtp", f"unix:{path}") as mta:
            mta.kill()
            self.assertTrue(path.exists())
            # In a container the new process has the number of the old one.
            lock = self.home / "mta.sock.lock"
            lock.unlink(missing_ok=True)
            lock.symlink_to(str(os.getpid()))
            mta.start()
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                self.assertEqual(client.makefile("rb").readline()[:3], b"220")

    def test_implicit_tls_works_with_workers(self) -> None:
        path = self_signed("mx.example").save(str(self.home), "mx.pem")
        port, other = free_port(), free_port()
        toml = (
            f'[[listener]]\nkind = "smtp"\nimplicit_tls = true\n'
            f'endpoint = "tcp:{port}:interface={LOOPBACK}"\n'
        )
        ssl_endpoint = f"ssl:{other}:interface={LOOPBACK}:privateKey={path}:certKey={path}"
        with self.mta("--tls-certificate", path, "--smtp", ssl_endpoint, toml=toml) as mta:
            for each in (port, other) * 2:
                with smtplib.SMTP_SSL(LOOPBACK, each, timeout=30, context=trusting()) as client:
                    assert isinstance(client.sock, ssl.SSLSocket)
                    client.sendmail("ann@sender.example", ["bob@localhost"], message())
            mta.wait_for_mail("localhost", "bob", 4)

    def test_a_socket_passed_by_systemd_is_used_by_workers(self) -> None:
        with socket.socket() as handed:
            handed.bind((LOOPBACK, 0))
            handed.listen()
            port = handed.getsockname()[1]
            mta = self.mta("--smtp", "systemd:domain=INET:index=0", "--recipients", "any")
            # systemd sets these variables for the process that it starts.
            command = [
                *(
                    "/bin/sh",
                    "-c",
                    'exec env LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=smtp "$@" 3<&0',
                    "sh",
                ),
                *map(str, mta.command()),
            ]
            log = self.home / "systemd.log"
            with log.open("wb") as out:
                process = subprocess.Popen(command, stdin=handed, stdout=out, stderr=out)
            try:
                eventually(lambda: b"ready" in log.read_bytes(), "the start")
                for _ in range(4):
                    submit(port, message(), "bob@localhost")
                mta.process = process  # type: ignore[assignment]
                eventually(lambda: len(mta.mail("localhost", "bob")) == 4, "the mail")
                process.send_signal(signal.SIGTERM)
                self.assertEqual(process.wait(30), 0, log.read_text())
            finally:
                process.kill()
                process.wait()
            # The socket belongs to systemd, and still listens.
            self.assertTrue(listens(port))


class Signals(Workers):
    def test_a_transaction_that_does_not_end_in_time_gets_421(self) -> None:
        for workers in (1, 2):
            with self.mta(workers=workers, toml='[mta]\ndrain_timeout = "1 s"\n') as mta:
                clients = [self.client(mta) for _ in range(4)]
                for number, client in enumerate(clients):
                    client.ehlo("client.example")
                    client.docmd("MAIL FROM:<ann@sender.example>")
                    client.docmd("RCPT TO:<bob@localhost>")
                    if number % 2:
                        client.docmd("DATA")
                        client.send(b"Subject: half of it\r\n")
                self.assertEqual(mta.terminate(), 0, mta.output())
                for client in clients:
                    self.assertEqual(client.getreply()[0], 421)
                    client.close()

    def test_a_second_signal_ends_the_drain(self) -> None:
        for workers in (1, 2):
            with self.mta(workers=workers, toml='[mta]\ndrain_timeout = "10 min"\n') as mta:
                client = self.client(mta)
                client.ehlo("client.example")
                client.docmd("MAIL FROM:<ann@sender.example>")
                os.kill(mta.pid, signal.SIGTERM)
                mta.wait_for(lambda: "Closed)" in mta.output(), "the drain")
                time.sleep(0.6)  # two signals within half a second count as one
                self.assertTrue(mta.alive())
                self.assertEqual(mta.terminate(), 0, mta.output())
                self.assertEqual(client.getreply()[0], 421)
                client.close()

    def test_an_open_transaction_is_completed_during_the_drain(self) -> None:
        with self.mta() as mta:
            clients = [self.client(mta) for _ in range(4)]
            for client in clients:
                client.ehlo("client.example")
                client.docmd("MAIL FROM:<ann@sender.example>")
            os.kill(mta.pid, signal.SIGTERM)
            mta.wait_for(lambda: mta.output().count("Closed)") >= 2, "the drain")
            for client in clients:
                client.docmd("RCPT TO:<bob@localhost>")
                self.assertEqual(client.data(message())[0], 250)
            self.assertEqual(mta.wait(), 0, mta.output())
        with self.mta() as mta:
            mta.wait_for_mail("localhost", "bob", 4)

    def test_sighup_reloads_all_workers_or_none(self) -> None:
        toml = """
[mta]
max_message_size = "1 MiB"
routes = {"a.example" = "error:5.1.1 gone"}
"""
        with self.mta(toml=toml) as mta:
            self.assertEqual(self.sizes(mta), {str(1 << 20)})
            config = self.home / "mta.toml"
            config.write_text(toml.replace("1 MiB", "2 MiB"), encoding="utf-8")
            os.kill(mta.pid, signal.SIGHUP)
            mta.wait_for(lambda: "reloaded: " in mta.output(), "the reload")
            self.assertIn("max_message_size = 2097152; before: 1048576", mta.output())
            self.assertEqual(self.sizes(mta), {str(2 << 20)})
            for wrong, why in (
                ('max_message_size = "much"', "max_message_size"),
                ('routes = {"x.example" = "smtp://"}', "x.example"),
                ('message_memory = "9 MiB"', "only a start can change this"),
                ('tls_certificate = "/nowhere.pem"', "/nowhere.pem"),
            ):
                config.write_text(f"[mta]\n{wrong}\n", encoding="utf-8")
                refused = mta.output().count("nothing was reloaded")
                os.kill(mta.pid, signal.SIGHUP)
                mta.wait_for(
                    lambda: mta.output().count("nothing was reloaded") > refused,  # noqa: B023
                    "the refusal",
                )
                last = [line for line in mta.output().splitlines() if "nothing was" in line][-1]
                self.assertIn(why, last)
                self.assertEqual(self.sizes(mta), {str(2 << 20)})
            # A new worker has the settings in force, not those of the file.
            os.kill(self.workers(mta)[0], signal.SIGKILL)
            mta.wait_for(lambda: " works again" in mta.output(), "the successor")
            self.assertEqual(self.sizes(mta), {str(2 << 20)})
            self.assertEqual(mta.terminate(), 0, mta.output())

    def sizes(self, mta: MTA) -> set[str]:
        """Return the limits in the replies to ten sessions, of any workers."""
        found = set()
        for _ in range(10):
            with smtplib.SMTP(LOOPBACK, mta.smtp, timeout=30) as client:
                client.ehlo("client.example")
                found.add(client.esmtp_features["size"])
        return found

    def test_signals_of_the_terminal_are_handled_by_the_parent_alone(self) -> None:
        with self.mta() as mta:
            workers = self.workers(mta)
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
                for worker in workers:
                    os.kill(worker, number)
            submit(mta.smtp, message(), "bob@localhost")
            self.assertEqual(self.workers(mta), workers)

    def test_sigterm_to_all_processes_drains_once(self) -> None:
        with self.mta() as mta:
            workers = self.workers(mta)
            for process in (*workers, mta.pid):
                os.kill(process, signal.SIGTERM)
            self.assertEqual(mta.wait(), 0, mta.output())
            self.assertFalse(any(map(runs, workers)))


class Privileges(Workers):
    def setUp(self) -> None:
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest("only root can drop privileges")

    def test_running_as_root_on_a_public_or_privileged_port_is_refused(self) -> None:
        for endpoint in ("tcp:0", f"tcp:1023:interface={LOOPBACK}"):
            mta = self.mta("--smtp", endpoint)
            mta.spawn(mta.command())
            self.assertEqual(mta.wait(), 1, mta.output())
            self.assertIn("as root; twistd --uid USER --gid GROUP", mta.output())

    def test_ports_are_bound_before_and_the_queue_opened_after_dropping_privileges(
        self,
    ) -> None:
        nobody = pwd.getpwnam("nobody")
        if not _usable_by(sys.executable, nobody):
            self.skipTest(f"{sys.executable} is not usable by all users")
        state = self.home / "state"
        state.mkdir(mode=0o700)
        os.chown(state, nobody.pw_uid, nobody.pw_gid)
        for folder in (self.home, *self.home.parents):
            with contextlib.suppress(PermissionError):
                folder.chmod(folder.stat().st_mode | 0o055)
        for workers in (1, 2):
            port = _low_port()
            mta = self.mta(workers=workers)
            command = mta.command()
            place = command.index("mta")
            shed = [
                *command[:place],
                *("--uid", str(nobody.pw_uid), "--gid", str(nobody.pw_gid)),
                *command[place:],
            ]
            shed[shed.index("--state-dir") + 1] = state
            shed[shed.index("--smtp") + 1] = f"tcp:{port}:interface={LOOPBACK}"
            mta.state = state
            mta.spawn(shed)
            with contextlib.closing(_Killed(mta)):
                mta.wait_for(lambda: "ready: " in mta.output(), "the start")  # noqa: B023
                for pid in (mta.pid, *children(mta.pid)):
                    status = Path(f"/proc/{pid}/status").read_text("ascii")
                    uids = next(line for line in status.splitlines() if line.startswith("Uid:"))
                    self.assertEqual(uids.split()[1:], [str(nobody.pw_uid)] * 4)
                submit(port, message(), "bob@localhost")
                mta.wait_for_mail("localhost", "bob", workers)
                self.assertEqual((state / "queue.sqlite").stat().st_uid, nobody.pw_uid)
                self.assertEqual(mta.terminate(), 0, mta.output())


def _usable_by(interpreter: str, user: pwd.struct_passwd) -> bool:
    """Whether ``user`` can run this Python with all imported modules."""
    try:
        seen = subprocess.run(
            [interpreter, "-c", "import importlib.readers, twisted_mta"],
            user=user.pw_uid,
            group=user.pw_gid,
            capture_output=True,
        )
    except PermissionError:
        return False
    return seen.returncode == 0


class _Killed:
    """Kills an MTA that was started in another way."""

    def __init__(self, mta: MTA) -> None:
        self.close = mta.kill


def _low_port() -> int:
    for port in range(700, 1024):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind((LOOPBACK, port))
            return port
    raise AssertionError(f"no free port below 1024 for {sys.executable}")
