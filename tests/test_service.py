"""`MailTransferAgent`: start, mail on its way, faults and stop."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import smtplib
import socket
import sqlite3
import threading
from typing import Any

from twisted.application.service import MultiService
from twisted.internet import reactor  # noqa: TID251 - the tests below on loopback are run by it
from twisted.internet.threads import deferToThread  # noqa: TID251 - smtplib blocks
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from tests.tidy import TidyTestCase, descriptors, new_descriptors
from tests.waiting import until
from twisted_mta import Config, MailTransferAgent
from twisted_mta.config import Listener, QueueSettings, WebSettings
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.store.contract import NewerSchema, StateInUse, StoreError
from twisted_mta.queue.store.lock import StateLock
from twisted_mta.service import CannotReload
from twisted_mta.system.ownership import NotOurs
from twisted_mta.system.ports import CannotListen
from twisted_mta.testing.files import UnsyncedFiles
from twisted_mta.testing.memory_mta import SMTP, MemoryMTA
from twisted_mta.testing.peer import ScriptedPeer, ScriptStep
from twisted_mta.testing.reactor import MemoryReactor
from twisted_mta.tls.certificates import CertificateError

MAIL = b"Subject: Hello\r\n\r\nGood morning!\r\n"
LARGE = b"Subject: Large\r\n\r\n" + b"0123456789abcdef\r\n" * 10_000
NEXT = "192.0.2.1"
RELAYED = (("next.example", f"smtp://{NEXT}"),)


def next_hop(*replies: bytes) -> ScriptedPeer:
    """Return a server that takes one message for each of the replies to final dots."""
    script: list[ScriptStep] = [
        ("send", b"220 mx.example ESMTP\r\n"),
        ("expect", b"EHLO mta.example\r\n"),
        ("send", b"250 mx.example\r\n"),
    ]
    for reply in replies or (b"",):
        script += [
            ("expect", b"MAIL FROM:<ann@sender.example>\r\n"),
            ("send", b"250 ok\r\n"),
            ("expect", b"RCPT TO:<bob@next.example>\r\n"),
            ("send", b"250 ok\r\n"),
            ("expect", b"DATA\r\n"),
            ("send", b"354 go\r\n"),
            ("content",),
            ("send", reply),
        ]
    return ScriptedPeer(script)


class InMemory(TidyTestCase):
    """An MTA in memory, on a test's clock."""

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        self.files = UnsyncedFiles()

    def make(self, **settings: Any) -> MemoryMTA:
        mta = MemoryMTA(settings.pop("directory", self.directory), files=self.files, **settings)
        self.addCleanup(lambda: mta.stop() if mta.mta.running else None)
        return mta

    def started(self, **settings: Any) -> MemoryMTA:
        mta = self.make(**settings)
        mta.start()
        return mta


class Mail(InMemory):
    def test_mail_for_a_local_mailbox_is_in_its_maildir(self) -> None:
        mta = self.started()
        answer = mta.submit_by_smtp(MAIL, "bob@localhost")
        self.assertTrue(answer.startswith("250 2.0.0 Queued as "), answer)
        (mail,) = mta.mail("bob")
        self.assertEqual(mta.mail("Bob+tag"), [mail])
        head = b"Return-Path: <ann@sender.example>\nDelivered-To: bob@localhost\nReceived: from "
        self.assertTrue(mail.startswith(head))
        self.assertTrue(mail.endswith(b"\n" + MAIL.replace(b"\r\n", b"\n")))

    def test_mail_over_tls_for_a_local_mailbox_is_in_its_maildir(self) -> None:
        mta = self.started()
        client = mta.connect()
        client.start_tls()
        client.say("EHLO client.example")
        self.assertTrue(client.mail(MAIL, "bob@localhost")[0].startswith("250 "))
        (mail,) = mta.mail("bob")
        self.assertIn(b"with ESMTPS id", mail)

    def test_the_body_file_of_a_large_message_is_used_again_and_removed_by_a_stop(self) -> None:
        mta = self.started()
        bodies = os.path.join(self.directory, "body")
        self.assertTrue(mta.submit_by_smtp(LARGE, "bob@localhost").startswith("250 "))
        (mail,) = mta.mail("bob")
        self.assertTrue(mail.endswith(LARGE.replace(b"\r\n", b"\n")))
        (made,) = self.files.names(bodies)
        other = LARGE.replace(b"Large", b"Other").replace(b"0123", b"9876")
        self.assertTrue(mta.submit_by_smtp(other, "eve@localhost").startswith("250 "))
        (mail,) = mta.mail("eve")
        self.assertTrue(mail.endswith(other.replace(b"\r\n", b"\n")))
        self.assertEqual(self.files.names(bodies), [made])
        mta.stop()
        self.assertEqual(self.files.names(bodies), [])

    def test_mail_for_another_domain_goes_to_its_next_hop(self) -> None:
        mta = self.started(routes=RELAYED)
        peer = next_hop(b"250 taken\r\n")
        mta.reactor.listen(NEXT, 25, peer)
        self.assertTrue(mta.submit_by_smtp(MAIL, "bob@next.example").startswith("250 "))
        self.assertEqual(peer.problems, [])
        self.assertIn(b"Good morning!", peer.contents[0])
        self.assertEqual(mta.status().queue["messages"], 0)

    def test_mail_for_a_next_hop_that_is_down_is_retried(self) -> None:
        mta = self.started(routes=RELAYED)
        mta.submit_by_smtp(MAIL, "bob@next.example")
        self.assertEqual(mta.status().queue["deferred"], 1)
        peer = next_hop(b"250 taken\r\n")
        mta.reactor.listen(NEXT, 25, peer)
        mta.advance(400)
        self.assertEqual(len(peer.contents), 1)

    def test_a_message_is_returned_after_five_days(self) -> None:
        mta = self.started(routes=RELAYED)
        mta.submit_by_smtp(MAIL, "bob@next.example", sender="ann@localhost")
        for _ in range(5 * 24):
            self.assertLessEqual(len(mta.mail("ann")), 1)  # the delay notice
            mta.advance(3600)
        # Its next hop is suspended: the message expires after one more attempt.
        mta.advance(mta.mta.config.queue.retry_maximum)
        delayed, notice = mta.mail("ann")
        self.assertIn(b"Action: delayed", delayed)
        self.assertTrue(notice.startswith(b"Return-Path: <>\n"))
        self.assertIn(b"Status: 5.4.7", notice)
        self.assertEqual(mta.status().queue["messages"], 0)

    def test_the_same_seed_gives_the_same_run(self) -> None:
        runs = []
        for seed in (1, 1, 2):
            directory = os.path.abspath(self.mktemp())
            mta = self.started(directory=directory, seed=seed, routes=RELAYED)
            answer = mta.submit_by_smtp(MAIL, "bob@next.example")
            times = [call.getTime() for call in mta.reactor.getDelayedCalls()]
            runs.append((answer, sorted(times)))
            mta.stop()
        self.assertEqual(runs[0], runs[1])
        self.assertNotEqual(runs[0], runs[2])

    def test_the_status_counts_messages_and_outcomes(self) -> None:
        mta = self.started(routes=RELAYED)
        mta.submit_by_smtp(MAIL, "bob@localhost")
        mta.submit_by_smtp(MAIL, "bob@next.example")
        mta.advance(10)
        status = mta.status()
        self.assertEqual(status.hostname, "mta.example")
        self.assertEqual(status.now - status.started_at, 10)
        self.assertEqual((status.queue["messages"], status.queue["deferred"]), (1, 1))
        self.assertEqual((status.counters["accepted"], status.counters["delivered"]), (2, 1))
        self.assertEqual([each.state for each in status.recent], ["deferred", "delivered"])

    def test_the_status_can_be_asked_before_the_start(self) -> None:
        status = self.make().status()
        self.assertEqual((status.queue, status.healthy), ({}, False))
        self.assertEqual(status.unready, "the process is starting")


class Starting(InMemory):
    def test_making_the_service_touches_neither_disk_nor_network(self) -> None:
        threads = set(threading.enumerate())
        directory = os.path.abspath(self.mktemp())
        MailTransferAgent(
            Config(
                state_dir=directory,
                listeners=(Listener(endpoint="tcp:2525:interface=127.0.0.1"),),
                web="tcp:8025:interface=127.0.0.1",
            ),
            reactor=MemoryReactor(),
        )
        self.assertFalse(os.path.exists(directory))
        self.assertLessEqual(set(threading.enumerate()), threads)

    def test_privileged_start_binds_ports_and_takes_no_connections(self) -> None:
        mta = self.make()
        mta.mta.privilegedStartService()
        self.assertEqual(list(mta.reactor.ports), [SMTP])
        self.assertRaises(ConnectionError, mta.connect)
        self.assertFalse(os.path.exists(os.path.join(self.directory, "queue.sqlite")))
        mta.mta.startService()
        self.assertTrue(mta.connect().received.startswith(b"220 mta.example "))

    def test_a_start_without_privileges_binds_the_ports(self) -> None:
        mta = self.make()
        mta.mta.startService()
        mta.connect()

    def test_when_ready_fires_once_connections_are_taken(self) -> None:
        mta = self.make()
        ready = mta.mta.when_ready()
        self.assertNoResult(ready)
        mta.start()
        self.successResultOf(ready)
        self.successResultOf(mta.mta.when_ready())

    def test_the_service_sets_no_signal_handler_and_no_log_observer(self) -> None:
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        handlers = [signal.getsignal(number) for number in numbers]
        observers = list(globalLogPublisher._observers)
        mta = self.started()
        self.assertEqual([signal.getsignal(number) for number in numbers], handlers)
        self.assertEqual(list(globalLogPublisher._observers), observers)
        mta.stop()

    def test_several_services_in_one_process_send_each_other_mail(self) -> None:
        one = self.started()
        with MemoryMTA(domain="other.example", beside=one) as there:
            one.submit_by_smtp(MAIL, "bob@other.example")
            (mail,) = there.inbox
            self.assertIn(b"by mta.other.example with ESMTPS", mail.raw)


class Refusing(InMemory):
    """A failed start leaves nothing behind."""

    def assertNothingLeft(self, mta: MemoryMTA) -> None:
        self.assertEqual(mta.mta.bound, [])
        self.assertEqual(mta.reactor.ports, {})
        self.assertEqual(mta.reactor.getDelayedCalls(), [])
        self.assertFalse(mta.mta.running)
        again = MemoryMTA(self.directory, files=self.files)
        again.start()
        again.stop()

    def refused(self, mta: MemoryMTA, error: type[Exception]) -> Exception:
        ready = mta.mta.when_ready()
        refusal = self.assertRaises(error, mta.mta.startService)
        self.failureResultOf(ready, error)
        return refusal

    def test_a_state_directory_in_use_is_refused(self) -> None:
        first = self.started()
        second = self.make()
        refusal = self.refused(second, StateInUse)
        self.assertIn(self.directory, str(refusal))
        self.assertIn(str(os.getpid()), str(refusal))
        self.assertEqual(second.reactor.ports, {})
        self.assertTrue(first.submit_by_smtp(MAIL, "bob@localhost").startswith("250 "))
        first.stop()
        self.assertNothingLeft(second)

    def test_a_state_directory_that_others_may_write_to_is_refused(self) -> None:
        os.makedirs(self.directory, exist_ok=True)
        os.chmod(self.directory, 0o777)
        mta = self.make()
        self.assertIn("mode 0777) is writable by other users", str(self.refused(mta, NotOurs)))
        os.chmod(self.directory, 0o700)
        self.assertNothingLeft(mta)

    def test_a_lock_that_is_a_symbolic_link_is_refused(self) -> None:
        os.makedirs(self.directory, exist_ok=True)
        with open(f"{self.directory}/victim", "w", encoding="ascii") as file:
            file.write("precious")
        os.symlink("victim", f"{self.directory}/lock")
        mta = self.make()
        self.assertIn("lock", str(self.refused(mta, NotOurs)))
        with open(f"{self.directory}/victim", encoding="ascii") as file:
            self.assertEqual(file.read(), "precious")
        self.assertRaises(OSError, StateLock(f"{self.directory}/lock").acquire)

    def test_a_port_in_use_is_refused(self) -> None:
        mta = self.make(
            listeners=(
                Listener(endpoint="tcp:25:interface=127.0.0.1"),
                Listener(endpoint="tcp:26:interface=127.0.0.1"),
            )
        )
        taken = MemoryReactor.listenTCP(mta.reactor, 26, _Nothing(), 50, "127.0.0.1")
        refusal = self.refused(mta, CannotListen)
        self.assertIn("tcp:26:interface=127.0.0.1 (smtp)", str(refusal))
        self.assertIn("ddress already in use", str(refusal))
        taken.stopListening()
        self.assertNothingLeft(mta)

    def test_a_queue_of_a_newer_version_is_refused(self) -> None:
        mta = self.make()
        database = sqlite3.connect(os.path.join(self.directory, "queue.sqlite"))
        database.execute("PRAGMA user_version = 99")
        database.close()
        self.refused(mta, NewerSchema)
        os.unlink(os.path.join(self.directory, "queue.sqlite"))
        self.assertNothingLeft(mta)

    def test_a_queue_that_cannot_be_opened_fails_the_start(self) -> None:
        mta = self.make()
        os.mkdir(os.path.join(self.directory, "queue.sqlite"))
        self.refused(mta, StoreError)
        os.rmdir(os.path.join(self.directory, "queue.sqlite"))
        self.assertNothingLeft(mta)

    def test_a_file_that_is_no_certificate_is_refused(self) -> None:
        nothing = self.mktemp()
        with open(nothing, "wb"):
            pass
        mta = self.make(tls_certificate=nothing)
        self.refused(mta, CertificateError)
        self.assertNothingLeft(mta)

    def test_a_service_that_runs_does_not_start_again(self) -> None:
        mta = self.started()
        self.assertRaisesRegex(RuntimeError, "this one runs", mta.mta.startService)
        self.assertTrue(mta.submit_by_smtp(MAIL, "bob@localhost").startswith("250 "))

    def test_a_stopped_service_does_not_start_again(self) -> None:
        mta = self.started()
        mta.stop()
        for start in (mta.mta.startService, mta.mta.privilegedStartService):
            self.assertRaises(RuntimeError, start)
            self.assertNothingLeft(mta)
        self.failureResultOf(mta.mta.when_ready(), RuntimeError)
        again = self.started()  # a new one takes its place
        self.assertTrue(again.submit_by_smtp(MAIL, "bob@localhost").startswith("250 "))

    def test_a_service_that_is_being_stopped_does_not_start(self) -> None:
        mta = self.started()
        client = mta.connect()
        client.say("MAIL FROM:<ann@sender.example>", "RCPT TO:<bob@localhost>", "DATA")
        stopped = mta.mta.stopService()
        mta.reactor.settle()
        self.assertNoResult(stopped)
        for start in (mta.mta.startService, mta.mta.privilegedStartService):
            self.assertRaises(RuntimeError, start)
        mta.advance(60)
        self.successResultOf(stopped)
        self.assertNothingLeft(mta)


class _Nothing:
    noisy = False

    def doStart(self) -> None: ...

    def doStop(self) -> None: ...


class Stopping(InMemory):
    def test_a_stop_leaves_no_timer_connection_or_lock(self) -> None:
        mta = self.started()
        mta.submit_by_smtp(MAIL, "bob@localhost")
        mta.stop()
        self.assertEqual(mta.reactor.ports, {})
        self.assertEqual(mta.reactor.getDelayedCalls(), [])
        again = self.started()
        self.assertEqual(again.status().queue["messages"], 0)

    def test_a_service_that_was_not_started_can_be_stopped(self) -> None:
        mta = self.make()
        ready = mta.mta.when_ready()
        mta.stop()
        self.failureResultOf(ready, RuntimeError)
        self.assertEqual(mta.reactor.getDelayedCalls(), [])

    def test_a_stop_frees_ports_that_were_bound_without_a_start(self) -> None:
        mta = self.make()
        mta.mta.privilegedStartService()
        mta.stop()
        self.assertEqual(mta.reactor.ports, {})

    def test_a_service_may_be_stopped_twice(self) -> None:
        mta = self.started()
        first = mta.mta.stopService()
        second = mta.mta.stopService()
        mta.advance(60)
        self.successResultOf(first)
        self.successResultOf(second)

    def test_a_stop_sends_421_to_an_idle_session(self) -> None:
        mta = self.started()
        client = mta.connect()
        mta.stop()
        self.assertTrue(client.heard()[-1].startswith("421 "))
        self.assertTrue(client.lost)

    def test_an_open_transaction_may_end_within_the_drain_timeout(self) -> None:
        mta = self.started()
        client = mta.connect()
        client.say("MAIL FROM:<ann@sender.example>", "RCPT TO:<bob@localhost>", "DATA")
        stopped = mta.mta.stopService()
        mta.advance(5)
        self.assertNoResult(stopped)
        answer = client.send(b"Subject: Hello\r\n\r\n.\r\n")
        self.assertTrue(answer[0].startswith("250 "), answer)
        self.assertTrue(answer[1].startswith("421 "), answer)
        self.successResultOf(stopped)
        self.assertTrue(client.lost)
        again = self.started()
        self.assertEqual(len(again.mail("bob")), 1)

    def test_a_transaction_that_outlasts_the_drain_timeout_gets_421(self) -> None:
        mta = self.started()
        client = mta.connect()
        client.say("MAIL FROM:<ann@sender.example>", "RCPT TO:<bob@localhost>", "DATA")
        stopped = mta.mta.stopService()
        mta.advance(mta.mta.config.drain_timeout)
        self.successResultOf(stopped)
        self.assertTrue(client.lost)
        again = self.started()
        self.assertEqual(again.status().queue["messages"], 0)

    def test_a_stop_lets_a_delivery_under_way_end(self) -> None:
        mta = self.started(routes=RELAYED)
        peer = next_hop()
        mta.reactor.listen(NEXT, 25, peer)
        mta.submit_by_smtp(MAIL, "bob@next.example")
        self.assertEqual(len(peer.contents), 1)
        stopped = mta.mta.stopService()
        mta.advance(1)
        self.assertNoResult(stopped)
        peer.transport.write(b"250 taken\r\n")
        mta.reactor.settle()
        peer.transport.loseConnection()
        mta.reactor.settle()
        self.successResultOf(stopped)
        again = self.started(routes=RELAYED)
        self.assertEqual(again.status().queue["messages"], 0)

    def test_a_delivery_that_outlasts_the_drain_timeout_is_made_after_the_next_start(self) -> None:
        mta = self.started(routes=RELAYED)
        mta.reactor.listen(NEXT, 25, next_hop())
        mta.submit_by_smtp(MAIL, "bob@next.example")
        stopped = mta.mta.stopService()
        # A delivery that waits for the reply to its final dot has a minute more.
        mta.advance(2 * mta.mta.config.drain_timeout)
        self.assertNoResult(stopped)
        mta.advance(60)
        self.successResultOf(stopped)
        peer = next_hop(b"250 taken\r\n")
        again = self.make(routes=RELAYED)
        again.reactor.listen(NEXT, 25, peer)
        again.start()
        again.advance(600)
        self.assertEqual(len(peer.contents), 1)

    def test_deferred_mail_is_still_queued_at_the_next_start(self) -> None:
        mta = self.started(routes=RELAYED)
        mta.submit_by_smtp(MAIL, "bob@next.example")
        mta.submit_by_smtp(LARGE, "bob@next.example")
        mta.stop()
        again = self.started(routes=RELAYED)
        self.assertEqual(again.status().queue["messages"], 2)
        peer = next_hop(b"250 taken\r\n", b"250 taken\r\n")
        again.reactor.listen(NEXT, 25, peer)
        again.advance(400)
        self.assertEqual((len(peer.contents), peer.problems), (2, []))

    def test_a_full_disk_does_not_prevent_the_stop(self) -> None:
        mta = self.started(routes=RELAYED)
        peer = next_hop()
        mta.reactor.listen(NEXT, 25, peer)
        mta.submit_by_smtp(MAIL, "bob@next.example")
        store: Any = mta.mta.agent.shards[0].store
        store._database.execute("PRAGMA query_only = ON")
        store.open = self.cannot_open
        peer.transport.write(b"250 taken\r\n")
        mta.reactor.settle()
        mta.advance(5)
        mta.stop()
        self.flushLoggedErrors(StoreError)
        again = self.started(routes=RELAYED)
        self.assertEqual(again.status().queue["messages"], 1)

    def cannot_open(self) -> None:
        raise StoreError("disk I/O error")


class Faults(InMemory):
    def test_a_full_disk_for_bodies_is_452_until_it_has_room(self) -> None:
        mta = self.started()
        self.files.capacity = 50_000
        answer = mta.submit_by_smtp(LARGE, "bob@localhost")
        self.assertTrue(answer.startswith("452 4.3.1 "), answer)
        self.files.capacity = None
        mta.advance(1)
        self.assertTrue(mta.submit_by_smtp(LARGE, "bob@localhost").startswith("250 "))

    def test_a_body_that_cannot_be_synced_is_451(self) -> None:
        mta = self.started()
        self.files.fail_next("sync", OSError(5, "Input/output error"))
        answer = mta.submit_by_smtp(LARGE, "bob@localhost")
        self.assertTrue(answer.startswith("451 4.3.0 "), answer)
        self.assertEqual(self.files.names(os.path.join(self.directory, "body")), [])

    def test_a_failed_commit_is_451_and_the_queue_opens_again(self) -> None:
        mta = self.started()
        store: Any = mta.mta.agent.shards[0].store
        store._database.execute("PRAGMA query_only = ON")
        self.assertTrue(mta.submit_by_smtp(LARGE, "bob@localhost").startswith("451 4.3.0 "))
        self.assertTrue(mta.submit_by_smtp(MAIL, "bob@localhost").startswith("451 4.3.0 "))
        mta.advance(2)
        self.assertEqual(self.files.names(os.path.join(self.directory, "body")), [])
        self.assertTrue(mta.submit_by_smtp(MAIL, "bob@localhost").startswith("250 "))
        self.assertEqual(len(mta.mail("bob")), 1)
        self.assertEqual(len(self.flushLoggedErrors(StoreError)), 1)

    def test_a_maildir_that_cannot_be_written_to_defers(self) -> None:
        mta = self.started()
        self.files.fail_next("rename", OSError(5, "Input/output error"))
        self.assertTrue(mta.submit_by_smtp(MAIL, "bob@localhost").startswith("250 "))
        self.assertEqual(mta.mail("bob"), [])
        mta.advance(400)
        self.assertEqual(len(mta.mail("bob")), 1)

    def test_a_message_without_its_body_is_neither_sent_nor_forgotten(self) -> None:
        mta = self.started(routes=RELAYED)
        answer = mta.submit_by_smtp(LARGE, "bob@next.example")
        id = QueueId.parse(answer.split()[-1])
        self.files.unlink(os.path.join(self.directory, "body", str(id)))
        mta.stop()
        again = self.started(routes=RELAYED)
        again.advance(10_000)
        queue = again.status().queue
        self.assertEqual((queue["messages"], queue["quarantined"]), (1, 1))

    def test_acknowledged_mail_survives_a_power_failure(self) -> None:
        mta = self.started(routes=RELAYED)
        mta.submit_by_smtp(LARGE, "bob@next.example")
        mta.stop()
        self.files.crash()
        self.files.make_directories(self.directory)
        again = self.make(routes=RELAYED)
        peer = next_hop(b"250 taken\r\n")
        again.reactor.listen(NEXT, 25, peer)
        again.start()
        again.advance(400)
        self.assertTrue(peer.contents[0].endswith(LARGE + b".\r\n"))


class OnLoopback(TestCase):
    """An MTA with real threads, sockets and files."""

    timeout = 60

    def make(self, directory: str | None = None, **settings: Any) -> MailTransferAgent:
        listener = Listener(endpoint="tcp:0:interface=127.0.0.1")
        mta = MailTransferAgent(
            Config(
                state_dir=directory or self.mktemp(),
                queue=QueueSettings(small_body=1000),
                **{"listeners": (listener,), **settings},
            ),
            reactor=reactor,
        )
        # Its threads would prevent the end of the run where a test fails.
        self.addCleanup(mta.stopService)
        return mta

    def port(self, mta: MailTransferAgent) -> int:
        address: Any = mta.bound[0].port.getHost()
        return int(address.port)

    async def submit(self, port: int, content: bytes) -> None:
        def send() -> None:
            with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
                client.starttls()
                client.sendmail("ann@sender.example", ["bob@localhost"], content)

        await deferToThread(send)

    async def delivered(self, mta: MailTransferAgent, count: int) -> None:
        await until(lambda: mta.activity.delivered >= count)

    def mail(self, mta: MailTransferAgent) -> list[bytes]:
        new = os.path.join(mta.config.maildir, "localhost", "bob", "new")
        contents = []
        for name in sorted(os.listdir(new)):
            with open(os.path.join(new, name), "rb") as file:
                contents.append(file.read())
        return contents

    async def test_a_message_goes_from_a_socket_to_a_maildir(self) -> None:
        mta = self.make(web="tcp:0:interface=127.0.0.1")
        mta.startService()
        await mta.when_ready()
        self.assertEqual([each.kind for each in mta.bound], ["smtp", "web"])
        port = self.port(mta)
        for content in (MAIL, LARGE):
            await self.submit(port, content)
        await self.delivered(mta, 2)
        self.assertEqual(
            sorted(len(each.partition(b"\nSubject")[2]) for each in self.mail(mta)),
            sorted(len(each.replace(b"\r\n", b"\n")) - len(b"Subject") for each in (MAIL, LARGE)),
        )
        await mta.stopService()
        self.assertEqual(mta.bound, [])
        with socket.socket() as probe:
            self.assertNotEqual(probe.connect_ex(("127.0.0.1", port)), 0)
        # smtplib ran on a thread of the reactor.
        names = [thread.name for thread in threading.enumerate()]
        self.assertEqual([name for name in names if "twisted-mta" in name], [])

    async def test_the_page_answers_to_its_configured_names_and_metrics_to_any(self) -> None:
        mta = self.make(
            web="tcp:0:interface=127.0.0.1", web_page=WebSettings(hosts=("Page.example",))
        )
        mta.startService()
        await mta.when_ready()
        address: Any = mta.bound[1].port.getHost()

        def code(path: str, host: str) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", address.port, timeout=30)
            connection.request("GET", path, headers={"Host": host, "Connection": "close"})
            with contextlib.closing(connection):
                return connection.getresponse().status

        for path, host, expected in (
            ("/", "page.example:8025", 200),
            ("/", mta.config.hostname, 200),
            ("/", "prometheus", 421),
            ("/metrics", "prometheus:9090", 200),
            ("/healthz", "prometheus", 200),
            ("/readyz", "prometheus", 200),
        ):
            self.assertEqual(await deferToThread(code, path, host), expected, (path, host))
        await mta.stopService()

    async def test_fifty_deliveries_leave_only_spare_body_files_open(self) -> None:
        mta = self.make(local_domains=("localhost", "us.example"))
        mta.startService()
        await mta.when_ready()

        def send(count: int) -> None:
            with smtplib.SMTP("127.0.0.1", self.port(mta), timeout=30) as client:
                for _ in range(count):
                    client.sendmail(
                        "ann@sender.example", ["bob@localhost", "eve@us.example"], LARGE
                    )

        await deferToThread(send, 2)
        await self.delivered(mta, 4)
        before = descriptors()
        await deferToThread(send, 50)
        await self.delivered(mta, 104)
        bodies = os.path.join(os.path.realpath(mta.config.state_dir), "body", "")
        await until(lambda: all(each.startswith(bodies) for each in new_descriptors(before)))
        # The next message comes when the one before is delivered, or being delivered.
        self.assertLess(len(os.listdir(bodies)), 10)
        await mta.stopService()
        self.assertFalse([each for each in descriptors().values() if each.startswith(bodies)])

    async def test_a_reload_makes_no_certificate_where_the_state_directory_has_gone(self) -> None:
        mta = self.make()
        mta.startService()
        await mta.when_ready()
        directory = mta.config.state_dir
        os.rename(directory, f"{directory}.away")
        os.mkdir(directory, 0o700)
        failure = await self.assertFailure(mta.reload(), CannotReload)
        self.assertIn("self-signed.pem", str(failure))
        self.assertEqual(os.listdir(directory), [])
        os.rmdir(directory)
        os.rename(f"{directory}.away", directory)
        await mta.reload()
        await mta.stopService()

    async def test_a_new_service_continues_where_a_stopped_one_was(self) -> None:
        directory = self.mktemp()
        down = (("*", "smtp://127.0.0.1:1"),)
        first = self.make(directory, routes=down, local_domains=("elsewhere.example",))
        first.startService()
        await self.submit(self.port(first), LARGE)
        await first.stopService()
        second = self.make(directory)
        second.startService()
        status = await second.status()
        self.assertEqual(status.queue["messages"], 1)
        await second.stopService()

    async def test_ports_are_free_after_the_stop(self) -> None:
        first = self.make()
        first.startService()
        port = self.port(first)
        await first.stopService()
        second = self.make(listeners=(Listener(endpoint=f"tcp:{port}:interface=127.0.0.1"),))
        second.startService()
        self.assertEqual(self.port(second), port)
        await second.stopService()

    async def test_a_port_in_use_leaves_nothing_bound(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            mta = self.make(
                listeners=(
                    Listener(endpoint="tcp:0:interface=127.0.0.1"),
                    Listener(endpoint=f"tcp:{port}:interface=127.0.0.1"),
                )
            )
            refusal = self.assertRaises(CannotListen, mta.privilegedStartService)
            self.assertIn(str(port), str(refusal))
            self.assertEqual(mta.bound, [])

    async def test_the_service_can_be_part_of_an_application(self) -> None:
        parent = MultiService()
        parent.startService()
        mta = self.make()
        mta.setServiceParent(parent)
        await mta.when_ready()
        await self.submit(self.port(mta), MAIL)
        await self.delivered(mta, 1)
        await parent.stopService()
        self.assertEqual(mta.bound, [])
