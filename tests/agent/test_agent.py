"""The agent of one process: reloads, a state directory that goes away, shards, start and stop."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from tests.logs import logged_lines
from tests.policy.dkim.key_files import write_key
from tests.server.authority import Authority, self_signed
from tests.tidy import TidyTestCase
from twisted_mta import Config
from twisted_mta.admin.reporter import process_report
from twisted_mta.agent.shard import shard_directory
from twisted_mta.config import DKIMKey, Listener
from twisted_mta.config.destination import Destination
from twisted_mta.queue.store.contract import StateInUse, StoreError
from twisted_mta.queue.store.lock import StateLock
from twisted_mta.service import CannotReload
from twisted_mta.system import accepting
from twisted_mta.testing.files import UnsyncedFiles
from twisted_mta.testing.memory_mta import SMTP, MemoryMTA
from twisted_mta.testing.peer import ScriptedPeer

MAIL = b"Subject: Hello\r\n\r\nGood morning!\r\n"
ENDPOINT = f"tcp:{SMTP[1]}:interface={SMTP[0]}"
NEXT = "192.0.2.1"
RELAYED = (("next.example", f"smtp://{NEXT}"),)


OLD: Mapping[str, Any] = {
    "team@localhost": "250",
    "crew@localhost": "550",
    "x@gone.example": "550",
    "size": f"SIZE {1 << 20}",
    "name": "old.example",
}
NEW: Mapping[str, Any] = {
    "team@localhost": "550",
    "crew@localhost": "250",
    "x@gone.example": "250",
    "size": f"SIZE {2 << 20}",
    "name": "new.example",
    "connections": 3,
}


class InMemory(TidyTestCase):
    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.makedirs(self.directory)
        self.files = UnsyncedFiles()

    def make(self, **settings: Any) -> MemoryMTA:
        mta = MemoryMTA(self.directory, files=self.files, **settings)
        self.addCleanup(lambda: mta.stop() if mta.mta.running else None)
        return mta

    def started(self, **settings: Any) -> MemoryMTA:
        mta = self.make(**settings)
        mta.start()
        return mta

    def write(self, name: str, content: str) -> str:
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)
        return path


class Pausing(InMemory):
    def test_slices_leave_time_to_mail_while_there_are_sessions(self) -> None:
        mta = self.started(routes=(("far.example", "smtp://192.0.2.1"),))
        is_busy = mta.mta.agent._resources.sliced.is_busy
        self.assertFalse(is_busy())
        client = mta.connect()
        self.assertTrue(is_busy())
        client.say("QUIT")
        mta.advance(1)
        self.assertFalse(is_busy())
        hop = mta.hop("192.0.2.1").hang()
        mta.submit(
            b"Subject: Hi\r\n\r\nHello\r\n", sender="a@localhost", recipients=["b@far.example"]
        )
        mta.advance_until(lambda: hop.connections)
        self.assertTrue(is_busy())


class Reloading(InMemory):
    """Replies to clients show which settings are in force."""

    def setUp(self) -> None:
        super().setUp()
        self.aliases = self.write("aliases", "team: bob@localhost\n")
        self.certificate = self_signed("old.example").save(self.directory, "mx.pem")
        self.files.make_directories(os.path.join(self.directory, "maildir/localhost/bob/new"))
        self.mta = self.started(
            aliases=self.aliases,
            recipients="existing",
            routes=(("gone.example", "error:5.1.1 gone"),),
            tls_certificate=self.certificate,
            listeners=(Listener(endpoint=ENDPOINT, max_message_size=1 << 20),),
        )
        self.before = self.mta.mta.config

    def change(self) -> Config:
        """Change all files, and return settings that differ in all kinds."""
        self.write("aliases", "crew: bob@localhost\n")
        self_signed("new.example").save(self.directory, "mx.pem")
        return evolve(
            self.before,
            routes=(("gone.example", "discard:"),),
            listeners=(Listener(endpoint=ENDPOINT, max_message_size=2 << 20),),
            destinations=(Destination(domain="far.example", connections=3),),
        )

    def told(self) -> dict[str, Any]:
        """Return what a client sees."""
        client = self.mta.connect(greet=False)
        features = client.say("EHLO client.example")
        client.say("MAIL FROM:<ann@sender.example>")
        codes = {
            name: client.say(f"RCPT TO:<{name}>")[-1][:3]
            for name in ("team@localhost", "crew@localhost", "x@gone.example")
        }
        client.say("RSET")
        client.start_tls()
        shown = client.transport.getHandle().get_peer_certificate(as_cryptography=True)
        client.say("QUIT")
        (size,) = [line[4:] for line in features if " SIZE " in line or "-SIZE " in line]
        far = self.mta.mta.agent.config.destination_for("far.example", ())
        return {
            **codes,
            "size": size,
            "name": shown.subject.rfc4514_string().removeprefix("CN="),
            "connections": far.connections,
        }

    def reload(self, config: Config | None = None) -> Deferred[list[str]]:
        reloaded = self.mta.mta.reload(config)
        self.mta.reactor.settle()
        return reloaded

    def test_a_reload_puts_all_changes_in_force_and_lists_them(self) -> None:
        self.assertLess(OLD.items(), self.told().items())
        lines = self.successResultOf(self.reload(self.change()))
        self.assertEqual(self.told(), NEW)
        said = "\n".join(lines)
        for word in ("routes = ", "max_message_size = ", "destinations = ", "mx.pem"):
            self.assertIn(word, said)

    def test_one_setting_that_cannot_be_used_keeps_all_others_as_they_were(self) -> None:
        wrong = {
            "a route": {"routes": (("x.example", "smtp://"),)},
            "its certificate": {"tls_certificate": "/nowhere.pem"},
            "a certificate authority": {
                "listeners": (
                    Listener(
                        endpoint=ENDPOINT,
                        client_certificates="ask",
                        client_certificate_authorities="/nowhere.pem",
                    ),
                )
            },
            "the aliases": {"aliases": "/nowhere"},
            "a password": {
                "destinations": (
                    Destination(
                        domain="far.example",
                        tls="verify",
                        username="mta",
                        password_file="/nowhere",
                    ),
                )
            },
            "a key that signs": {
                "dkim_keys": (DKIMKey(domain="far.example", selector="s1", key="/nowhere"),)
            },
            "what only a start can change": {"maildir": "/elsewhere"},
        }
        before = self.told()
        for what, settings in wrong.items():
            config = evolve(self.change(), **settings)
            error = self.failureResultOf(self.reload(config), CannotReload).value
            self.assertTrue(str(error).isprintable(), what)
            self.assertEqual(self.told(), before, what)
            self.assertIs(self.mta.mta.config, self.before)
        self.successResultOf(self.reload(self.change()))
        self.assertEqual(self.told(), NEW)

    def test_a_file_that_cannot_be_used_keeps_all_settings_as_they_were(self) -> None:
        before = self.told()
        for name in ("aliases", "mx.pem"):
            config = self.change()
            self.write(name, ":::\n")
            self.failureResultOf(self.reload(config), CannotReload)
            self.assertEqual(self.told(), before, name)

    def test_a_reload_without_settings_reads_the_files_again(self) -> None:
        self.change()
        self.successResultOf(self.reload())
        told = self.told()
        self.assertEqual((told["crew@localhost"], told["name"]), ("250", "new.example"))
        self.assertEqual((told["x@gone.example"], told["size"]), ("550", OLD["size"]))

    def test_a_session_keeps_the_rules_that_it_began_with(self) -> None:
        client = self.mta.connect()
        client.say("MAIL FROM:<ann@sender.example>", "RCPT TO:<team@localhost>")
        self.successResultOf(self.reload(self.change()))
        client.say("DATA")
        self.assertTrue(client.send(MAIL + b".\r\n")[-1].startswith("250 "))
        self.assertEqual(len(self.mta.mail("bob")), 1)

    def test_a_reload_changes_minimum_free_disk(self) -> None:
        self.files.capacity = 10 << 20
        self.successResultOf(self.reload(evolve(self.before, minimum_free_disk=1 << 40)))
        self.mta.advance(2)
        self.assertTrue(self.mta.submit_by_smtp(MAIL, "team@localhost").startswith("452 4.3.1 "))

    def test_spare_body_files_give_way_before_mail_is_refused(self) -> None:
        large = MAIL + b"x" * 70 * 1024 + b"\r\n"
        self.mta.submit_by_smtp(large, "bob@localhost")
        (shard,) = self.mta.mta.agent.shards
        self.assertEqual(len(self.files.names(shard.spool.directory)), 1)
        minimum = self.mta.mta.agent.capacity.minimum_free
        self.files.capacity = self.files.used + minimum - 60 * 1024
        self.mta.advance(2)
        self.assertTrue(self.mta.submit_by_smtp(MAIL, "bob@localhost").startswith("250 "))
        self.assertEqual(self.files.names(shard.spool.directory), [])

    def test_two_reloads_at_once_are_done_one_after_the_other(self) -> None:
        first, second = self.reload(self.change()), self.reload(self.before)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(self.told()["size"], OLD["size"])


class StateDirectoryGone(InMemory):
    """The queue goes away while mail comes in, and comes back."""

    def reports(self, mta: MemoryMTA) -> bool:
        """Ask as a health check does; return whether the queue is open."""
        for _ in range(2):
            mta.advance(2)
            report = process_report(mta.mta.agent, pid=1, state="ready", names=("smtp",))
        return report.queue_open

    def test_mail_is_refused_while_the_queue_is_gone_and_accepted_when_it_is_back(self) -> None:
        mta = self.started(routes=RELAYED)
        path = os.path.join(self.directory, "queue.sqlite")
        self.assertTrue(self.reports(mta))
        os.rename(path, f"{path}.away")
        self.assertTrue(mta.submit_by_smtp(MAIL, "bob@localhost").startswith("451 4.3.0 "))
        self.assertFalse(self.reports(mta))
        mta.advance(300)
        self.assertFalse(os.path.exists(path))
        os.rename(f"{path}.away", path)
        mta.advance(60)
        self.assertTrue(self.reports(mta))
        self.assertTrue(mta.submit_by_smtp(MAIL, "bob@localhost").startswith("250 "))
        mta.advance(1)
        self.assertEqual(len(mta.mail("bob")), 1)
        self.flushLoggedErrors(StoreError)

    def test_a_queue_that_has_gone_is_noticed_without_any_mail(self) -> None:
        mta = self.started()
        path = os.path.join(self.directory, "queue.sqlite")
        os.rename(path, f"{path}.away")
        self.assertFalse(self.reports(mta))
        os.rename(f"{path}.away", path)
        mta.advance(300)
        self.assertTrue(self.reports(mta))
        self.flushLoggedErrors(StoreError)

    def test_a_reload_makes_no_key_in_place_of_one_that_has_gone(self) -> None:
        aliases = self.write("aliases", "team: bob@far.example\n")
        users = self.write("users", "")
        os.chmod(users, 0o600)
        mta = self.started(aliases=aliases, srs_domain="localhost", users=users)
        for name in ("srs.key", "auth.key"):
            path = os.path.join(self.directory, name)
            self.files.unlink(path)
            self.successResultOf(mta.mta.reload(mta.mta.config))
            self.assertNotIn(path, self.files.tree())

    def test_a_mailbox_is_not_refused_while_its_maildir_is_gone(self) -> None:
        mta = self.started(recipients="existing")
        maildir = mta.mta.config.maildir
        self.files.make_directories(f"{maildir}/localhost/bob/new")
        self.assertTrue(mta.submit_by_smtp(MAIL, "bob@localhost").startswith("250 "))
        mta.advance(1)
        above, _, name = maildir.rpartition("/")
        mounted = self.files._directory(above).names.pop(name)
        self.files.make_directories(maildir)
        self.assertTrue(mta.submit_by_smtp(MAIL, "bob@localhost").startswith("451 4.3.0 "))
        self.files._directory(above).names[name] = mounted
        self.assertTrue(mta.submit_by_smtp(MAIL, "bob@localhost").startswith("250 "))
        self.assertTrue(mta.submit_by_smtp(MAIL, "eve@localhost").startswith("550 "))


class ChangedFiles(InMemory):
    """Reloads where only the content of files has changed."""

    def setUp(self) -> None:
        super().setUp()
        self.lines = logged_lines(self)

    def secret(self, name: str, content: bytes) -> str:
        path = os.path.join(self.directory, name)
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, 0o600)
        return path

    def reload(self, mta: MemoryMTA) -> list[str]:
        reloaded = mta.mta.reload()
        mta.reactor.settle()
        lines = self.successResultOf(reloaded)
        mta.advance(1)
        return lines

    def attempts(self) -> int:
        return sum(" deferred: " in line for line in self.lines)

    def test_a_new_password_is_named_without_its_text_and_its_next_hop_tried_at_once(self) -> None:
        path = self.secret("password", b"wrong")
        account = Destination(domain="next.example", username="us", password_file=path)
        other = ("other.example", "smtp://192.0.2.2")
        mta = self.started(routes=(*RELAYED, other), destinations=(account,))
        for name in ("bob@next.example", "ann@next.example", "eve@other.example"):
            mta.submit_by_smtp(MAIL, name)
        mta.advance(1)
        tried = self.attempts()
        self.assertEqual(self.reload(mta), [])
        self.assertEqual(self.attempts(), tried)
        self.secret("password", b"right")
        self.assertEqual(
            self.reload(mta),
            [
                f"{path}: a new password for the account us ([[destination]] next.example)",
                f"smtp:{NEXT}:25 is tried again",
            ],
        )
        self.assertEqual(self.attempts(), tried + 1)  # the probe; the others follow if it succeeds
        self.assertIn("to=<bob@next.example> by=a reload", "\n".join(self.lines))
        self.assertNotIn("to=<eve@other.example> by=a reload", "\n".join(self.lines))

    def test_new_authorities_of_a_next_hop_are_named_and_it_is_tried_at_once(self) -> None:
        first, second = Authority("One"), Authority("Two")
        path = first.issued.save(self.directory, "ca.pem")
        verified = Destination(domain="next.example", tls="verify", authorities=path)
        mta = self.started(routes=RELAYED, destinations=(verified,))
        mta.submit_by_smtp(MAIL, "bob@next.example")
        mta.advance(1)
        tried = self.attempts()
        second.issued.save(self.directory, "ca.pem")
        self.assertEqual(
            self.reload(mta),
            [
                f"{path}: authorities for next hops: 1 (CN=Two); before: 1 (CN=One)",
                f"smtp:{NEXT}:25 is tried again",
            ],
        )
        self.assertEqual(self.attempts(), tried + 1)

    def test_a_certificate_that_has_expired_or_soon_will_is_warned_about(self) -> None:
        authority = Authority()
        path = authority.issue("mx.example").save(self.directory, "mx.pem")
        mta = self.started(tls_certificate=path)
        real = time.time()  # noqa: TID251 - certificates are made by it
        now = int((mta.mta.agent.wall_time() - real) // 86400)
        for end, warning in ((now - 3, "expired on"), (now + 3, "expires on")):
            authority.issue("mx.example", days=(-90, end)).save(self.directory, "mx.pem")
            change, warned = self.reload(mta)
            self.assertTrue(change.startswith(f"{path}: CN=mx.example, valid until "), change)
            text = f"warning: {path}: the certificate {warning}"
            self.assertTrue(warned.startswith(text), warned)
            self.assertIn(warned.removeprefix("warning: "), self.lines)

    def test_a_new_key_that_signs_is_named_and_warnings_about_it_are_repeated(self) -> None:
        path = write_key(os.path.join(self.directory, "s1.pem"))
        mta = self.started(
            dkim_keys=(DKIMKey(domain="a.example", selector="s1", key=path),),
        )
        self.assertEqual(self.reload(mta), [])
        write_key(path, "rsa-1024")
        change, warned = self.reload(mta)
        self.assertEqual(change, f"{path}: a new key (rsa, 1024 bits) for s1._domainkey.a.example")
        self.assertTrue(warned.startswith(f"warning: {path}: an RSA key of 1024 bits"), warned)
        self.assertIn(warned.removeprefix("warning: "), self.lines)

    def test_a_file_without_a_key_leaves_the_old_key_in_force(self) -> None:
        path = write_key(os.path.join(self.directory, "s1.pem"))
        mta = self.started(dkim_keys=(DKIMKey(domain="a.example", selector="s1", key=path),))
        before = mta.mta.agent.signing_keys.of("a.example")
        self.secret("s1.pem", b"")
        reloaded = mta.mta.reload()
        mta.reactor.settle()
        error = self.failureResultOf(reloaded, CannotReload).value
        self.assertIn(f"{path}: holds no private key in PEM form", str(error))
        self.assertEqual(mta.mta.agent.signing_keys.of("a.example"), before)

    def test_changed_aliases_are_named(self) -> None:
        path = self.write("aliases", "team: ann\ncrew: ann\n")
        mta = self.started(aliases=path)
        self.write("aliases", "# moved\nteam: bob\ncrew: ann\n")
        self.assertEqual(self.reload(mta), [f"{path}: 2 aliases, changed: team"])
        self.write("aliases", "team: bob\ncrew: ann\n")
        self.assertEqual(self.reload(mta), [f"{path}: 2 aliases, changed: none"])
        self.assertEqual(self.reload(mta), [])


class Shards(InMemory):
    def test_mail_of_a_former_worker_is_delivered_by_the_agent_that_has_its_shard(self) -> None:
        left = self.make(routes=RELAYED)
        os.makedirs(shard_directory(self.directory, 3))
        left.start()
        there = left.mta.agent.shards[1]
        self.assertEqual(there.number, 3)
        left.mta.agent._home = there  # as in the worker whose own shard it was
        self.assertTrue(left.submit_by_smtp(MAIL, "bob@next.example").startswith("250 "))
        left.stop()
        again = self.make()
        lines = logged_lines(self)
        again.start()
        self.assertIn("shard 3 of a former worker is taken over: 1 message", lines)
        self.assertEqual(again.mta.agent.shards[1].commit.census().messages, 1)

    def test_new_mail_goes_to_the_agents_own_shard(self) -> None:
        os.makedirs(shard_directory(self.directory, 1))
        mta = self.started(routes=RELAYED)
        mta.submit_by_smtp(MAIL, "bob@next.example")
        counted = [shard.commit.census().messages for shard in mta.mta.agent.shards]
        self.assertEqual(counted, [1, 0])


class InUse(InMemory):
    """The workers of a parent that was killed still have the queue."""

    def setUp(self) -> None:
        super().setUp()
        self.orphan = StateLock(os.path.join(self.directory, "queue.lock"))
        self.orphan.acquire()
        self.addCleanup(self.orphan.release)
        self.mta = self.make()
        self.ready = self.mta.mta.when_ready()
        self.mta.start()

    def assertFree(self, name: str) -> None:
        """Nothing holds a lock of the state directory."""
        lock = StateLock(os.path.join(self.directory, name))
        lock.acquire()
        lock.release()

    def test_a_start_waits_for_the_end_of_those_workers(self) -> None:
        self.mta.advance(1)
        self.assertNoResult(self.ready)
        with self.assertRaises(ConnectionError):
            self.mta.connect()
        self.orphan.release()
        self.mta.advance(0.1)
        self.successResultOf(self.ready)
        self.assertTrue(self.mta.submit_by_smtp(MAIL, "bob@localhost").startswith("250 "))

    def test_a_start_fails_where_they_do_not_end_within_five_seconds(self) -> None:
        for _ in range(60):
            self.mta.advance(0.1)
        self.failureResultOf(self.ready, StateInUse)
        self.failureResultOf(self.mta.mta.when_ready(), StateInUse)
        self.assertFree("lock")
        self.assertEqual(self.mta.reactor.ports, {})

    def test_a_stop_during_the_wait_opens_nothing(self) -> None:
        self.mta.stop()
        self.failureResultOf(self.ready, RuntimeError)
        self.orphan.release()
        self.mta.advance(10)
        self.assertFalse(self.mta.mta.agent.shards[0].commit.is_open)
        self.assertEqual(self.mta.reactor.getDelayedCalls(), [])
        self.assertFree("queue.lock")
        self.failureResultOf(self.mta.mta.when_ready(), RuntimeError)

    def test_a_reload_during_the_wait_is_done_after_the_start(self) -> None:
        config = evolve(self.mta.mta.config, drain_timeout=3.0)
        reloaded = self.mta.mta.reload(config)
        self.mta.advance(1)
        self.assertNoResult(reloaded)
        self.orphan.release()
        self.mta.advance(0.1)
        self.assertEqual(len(self.successResultOf(reloaded)), 1)
        self.assertEqual(self.mta.mta.agent.config.drain_timeout, 3.0)

    def test_a_reload_is_refused_where_the_start_fails(self) -> None:
        reloaded = self.mta.mta.reload()
        self.mta.stop()
        self.failureResultOf(reloaded, CannotReload)
        self.failureResultOf(self.ready, RuntimeError)


class Hurrying(InMemory):
    def test_a_silent_next_hop_does_not_delay_a_hurried_stop(self) -> None:
        peer = ScriptedPeer(
            [
                ("send", b"220 mx.example ESMTP\r\n"),
                ("expect", b"EHLO mta.example\r\n"),
                ("send", b"250 mx.example\r\n"),
                ("expect", b"MAIL FROM:<ann@sender.example>\r\n"),
                ("send", b"250 ok\r\n"),
                ("expect", b"RCPT TO:<bob@next.example>\r\n"),
                ("send", b"250 ok\r\n"),
                ("expect", b"DATA\r\n"),
                ("send", b"354 go\r\n"),
                ("content",),
            ]
        )
        mta = self.started(routes=RELAYED, drain_timeout=600.0)
        mta.reactor.listen(NEXT, 25, peer)
        mta.submit_by_smtp(MAIL, "bob@next.example")
        self.assertEqual(len(peer.contents), 1)
        stopped = mta.mta.stopService()
        mta.advance(60)
        self.assertNoResult(stopped)
        mta.mta.hurry()
        for _ in range(4):
            mta.advance(1)
        self.successResultOf(stopped)

    def test_a_hurry_before_the_stop_shortens_the_stop(self) -> None:
        mta = self.started(drain_timeout=600.0)
        client = mta.connect()
        client.say("MAIL FROM:<ann@sender.example>")
        mta.mta.hurry()
        self.assertEqual(client.say("NOOP")[0][:3], "250")
        mta.stop(patience=10)
        self.assertTrue(client.heard()[-1].startswith("421 "))


class IdleConnections(InMemory):
    def test_they_are_fewer_where_a_process_may_have_few_descriptors(self) -> None:
        """The limit may be raised between the making of an agent and its start."""
        mta = self.make()
        self.patch(accepting, "limit", lambda: 1024)
        mta.start()
        self.assertEqual(mta.mta._agent.connections.pool.most, 64)
