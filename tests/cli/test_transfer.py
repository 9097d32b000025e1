"""``twisted-mta queue export`` and ``import``: a queue that is stopped goes to another place."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import tracemalloc
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import evolve
from click.testing import CliRunner, Result

from tests.queue.mail import DEFERRED, NOW, deferred, message, settled
from tests.tidy import TidyTestCase
from twisted_mta.cli.command import main
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.assessment import Assessment, Verdict
from twisted_mta.mail.body import Body, MemoryBody
from twisted_mta.mail.envelope import Envelope, Recipient, RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.operator.operations import Inspect, Inspected, Intervene
from twisted_mta.queue.operator.selection import Selection
from twisted_mta.queue.operator.suspended import SuspendedDestination
from twisted_mta.queue.store.contract import Accept, Lease, Operation, Want
from twisted_mta.queue.store.lock import StateLock
from twisted_mta.queue.store.spool import Spool
from twisted_mta.queue.store.sqlite import SQLiteStore
from twisted_mta.queue.store.suspended_file import SUSPENDED_FILE, SuspendedFile
from twisted_mta.system.executors import inline_executor
from twisted_mta.system.files import DiskFiles

LARGE = bytes(range(256)) * 4096  # octets of all values; 1 MiB, in a file
RICH = Message(
    id=QueueId(77),
    envelope=Envelope(
        Mailbox("ann", "sender.example"),
        (
            Recipient(
                RecipientNumber(0),
                Mailbox("bob", "next.example"),
                {"NOTIFY": "SUCCESS,DELAY", "ORCPT": "rfc822;bob+40next.example"},
            ),
            Recipient(
                RecipientNumber(1),
                Mailbox("πάτερ", "far.example"),
                original=Mailbox("list", "mta.example"),
                reverse_path=Mailbox("SRS0=x", "mta.example"),
                aliases=(Mailbox("list", "mta.example"),),
            ),
        ),
        {"RET": "HDRS", "ENVID": "QQ314159", "BODY": "BINARYMIME", "MT-PRIORITY": 3},
    ),
    trace=b"Received: by mta.example\r\n",
    body=MemoryBody(LARGE),
    received_at=NOW + 0.123456,
    expires_at=NOW + 5 * 86400,
    assessment=Assessment((Verdict("spf", "pass", "x"),), quarantine="junk", signs=True),
)


class TransferTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.home = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.home)
        self.old, self.new = self.home / "old", self.home / "new"
        self.old.mkdir(mode=0o700)
        self.new.mkdir(mode=0o700)
        self.file = self.home / "queue.jsonl"

    def do(self, place: Path, *operations: Operation) -> list[Any]:
        """Apply a batch to the queue of a stopped MTA, as its process does."""
        files = DiskFiles()
        spool = Spool(str(place / "body"), files=files, executor=inline_executor)
        store = SQLiteStore(str(place / "queue.sqlite"), spool=spool, files=files)
        store.open()
        try:
            return store.apply([_spooled(each, spool) for each in operations])
        finally:
            store.close()

    def inspected(self, place: Path, id: int) -> Inspected | None:
        (found,) = self.do(place, Inspect(QueueId(id)))
        assert found is None or isinstance(found, Inspected)
        return found

    def tool(self, place: Path, *words: str, status: int = 0, input: bytes | None = None) -> Result:
        ran = CliRunner().invoke(main, ["queue", *words, "--state-dir", str(place)], input=input)
        self.assertEqual(ran.exit_code, status, ran.output)
        return ran

    def exported(self, *words: str) -> list[Any]:
        self.file.unlink(missing_ok=True)
        self.tool(self.old, "export", *(words or ("--all",)), "--file", str(self.file))
        return [json.loads(line) for line in self.file.read_bytes().splitlines()]

    def imported(self, status: int = 0) -> str:
        return self.tool(self.new, "import", "--file", str(self.file), status=status).output


def _spooled(operation: Operation, spool: Spool) -> Operation:
    """Put a large body into its file, as a session does."""
    if not isinstance(operation, Accept):
        return operation
    message = operation.message
    writer = spool.new_body(message.id)
    for chunk in message.body.chunks():
        writer.write(chunk)
    sealed = writer.seal()
    bodies: list[Body] = []
    if hasattr(sealed, "addCallback"):
        sealed.addCallback(bodies.append)
    return evolve(operation, message=evolve(message, body=bodies[0])) if bodies else operation


class Moving(TransferTestCase):
    def test_everything_about_a_message_arrives(self) -> None:
        tried = deferred(RICH, NOW + 600, 0)
        self.do(self.old, Accept(RICH, lease=True), tried)
        self.do(self.old, Intervene("hold", Selection(to="*@far.example"), NOW + 5))
        before = self.inspected(self.old, RICH.id)
        (line,) = self.exported()
        self.assertEqual(line["id"], str(RICH.id))
        self.assertEqual(self.imported(), "imported: 2 recipients of 1 message\n")
        after = self.inspected(self.new, RICH.id)
        assert before is not None and after is not None
        first, second = after.recipients
        self.assertEqual((first.recipient.attempts, first.recipient.last_reply), (1, DEFERRED))
        self.assertEqual((first.next_attempt, second.held), (NOW + 600, NOW + 5))
        self.assertEqual(after.recipients, before.recipients)
        self.assertEqual(b"".join(after.message.body.chunks()), LARGE)
        self.assertEqual(
            evolve(after.message, body=RICH.body), evolve(before.message, body=RICH.body)
        )

    def test_an_export_names_the_destinations_that_are_suspended(self) -> None:
        self.do(self.old, Accept(message(6), False))
        SuspendedFile(str(self.old / SUSPENDED_FILE)).put(
            SuspendedDestination("far.example", NOW, reason="they move")
        )
        told = self.tool(self.old, "export", "--all", "--file", str(self.file)).stderr
        self.assertIn("far.example is suspended by the operator until it is resumed", told)
        self.assertIn("suspend it where the mail goes", told)

    def test_small_bodies_null_senders_and_postmasters_arrive(self) -> None:
        bounce = evolve(
            message(5, sender=None),
            envelope=Envelope(None, (Recipient(RecipientNumber(0), Mailbox("postmaster", "")),)),
        )
        empty = evolve(message(6), body=MemoryBody(b""))
        self.do(self.old, *(Accept(each, False) for each in (bounce, empty)))
        self.exported()
        self.imported()
        for each in (bounce, empty):
            found = self.inspected(self.new, each.id)
            assert found is not None
            self.assertEqual(found.message, each)

    def test_a_second_import_changes_nothing_even_when_the_mail_has_been_delivered(self) -> None:
        self.do(self.old, Accept(message(7, "a@x.example", "b@x.example"), False))
        self.exported()
        self.imported()
        self.assertIn(
            "imported: 0 recipients of 0 messages; here before: 2 recipients\n", self.imported()
        )
        (leased,) = self.do(self.new, Lease(NOW, (Want("x.example", 9),)))
        self.do(self.new, settled(leased.messages[0]))
        self.assertIsNone(self.inspected(self.new, 7))
        self.assertIn(
            "imported: 0 recipients of 0 messages; here before: 2 recipients\n", self.imported()
        )
        self.assertIsNone(self.inspected(self.new, 7))

    def test_mail_that_was_moved_away_comes_back_if_that_is_said(self) -> None:
        self.do(self.old, Accept(message(7), False))
        self.exported()
        self.imported()
        self.do(self.new, Intervene("remove", Selection(), NOW))
        self.assertIn("imported: 0 recipients of 0 messages; here before: 1", self.imported())
        again = ("import", "--again", "--file", str(self.file))
        for expected in ("imported: 1 recipient of 1 message\n", "0 messages; here before: 1"):
            self.assertIn(expected, self.tool(self.new, *again).output)
        self.assertIsNotNone(self.inspected(self.new, 7))

    def test_a_message_whose_body_file_has_another_one_now_waits_for_that(self) -> None:
        first = evolve(message(7), body=MemoryBody(LARGE[:70_000]))
        self.do(self.new, Accept(first, False))
        self.tool(self.new, "export", "--all", "--file", str(self.file))
        self.do(self.new, settled(first))
        files = DiskFiles()
        spool = Spool(str(self.new / "body"), files=files, executor=inline_executor, reuse=True)
        store = SQLiteStore(str(self.new / "queue.sqlite"), spool=spool, files=files)
        store.open()
        second = evolve(message(8), body=first.body)
        store.apply([_spooled(Accept(first, lease=True), spool)])
        store.apply([settled(first)])
        store.apply([_spooled(Accept(second, lease=False), spool)])
        store.close()
        said = self.imported(status=1)
        self.assertIn(f"{QueueId(7)} has another message of this queue", said)
        self.assertIsNone(self.inspected(self.new, 7))
        found = self.inspected(self.new, 8)
        assert found is not None
        self.assertEqual(b"".join(found.message.body.chunks()), LARGE[:70_000])
        self.do(self.new, Intervene("remove", Selection(), NOW))
        self.assertIn("imported: 1 recipient of 1 message", self.imported())

    def test_recipients_of_one_message_can_move_one_after_the_other(self) -> None:
        both = evolve(message(8, "a@x.example", "b@y.example"), body=MemoryBody(LARGE))
        self.do(self.old, Accept(both, False))
        for domain in ("x.example", "y.example"):
            self.exported("--domain", domain)
            self.assertIn("imported: 1 recipient of 1 message", self.imported())
        found = self.inspected(self.new, 8)
        assert found is not None
        self.assertEqual(len(found.recipients), 2)
        self.assertEqual(b"".join(found.message.body.chunks()), LARGE)

    def test_a_message_with_the_id_of_another_one_is_refused(self) -> None:
        self.do(self.old, Accept(message(9), False))
        self.do(self.new, Accept(message(9, sender="eve@evil.example"), False))
        self.exported()
        self.assertIn("line 1: id: 0000000000009 is another message", self.imported(status=1))

    def test_standard_output_goes_to_standard_input(self) -> None:
        self.do(self.old, Accept(message(3), False))
        ran = self.tool(self.old, "export", str(QueueId(3)))
        self.assertIn(
            "imported: 1 recipient of 1 message",
            self.tool(self.new, "import", input=ran.stdout_bytes.split(b"exported")[0]).output,
        )

    def test_selections_are_as_those_of_a_list(self) -> None:
        self.do(self.old, *(Accept(message(id, f"u@d{id}.example"), False) for id in (1, 2, 3)))
        self.assertEqual(
            [each["id"] for each in self.exported("--to", "*@d2.*")], [str(QueueId(2))]
        )
        self.assertEqual(len(self.exported("--all")), 3)
        self.tool(self.old, "export", status=2)
        self.tool(self.old, "export", "--all", "--to", "x@y", status=2)
        self.assertIn(
            "is not in the queue", self.tool(self.old, "export", "0" * 13, status=1).output
        )
        self.tool(self.old, "export", "--all", "--file", str(self.file), status=1)  # it is there

    def test_many_messages_of_all_sizes_move_and_none_twice(self) -> None:
        sizes = {id: (1, 100_000, 200_000, 300_000)[id % 4] if id < 20 else 10 for id in range(600)}
        sent = {
            id: evolve(message(id), body=MemoryBody(b"%d" % (id % 10) * size))
            for id, size in sizes.items()
        }
        for start in range(0, 600, 100):
            self.do(
                self.old,
                *(Accept(sent[id], lease=False) for id in range(start, start + 100)),
            )
        lines = self.exported()
        self.assertEqual([each["id"] for each in lines], [str(QueueId(id)) for id in range(600)])
        self.assertEqual(self.imported(), "imported: 600 recipients of 600 messages\n")
        for id in (0, 1, 2, 3, 19, 599):
            found = self.inspected(self.new, id)
            assert found is not None
            self.assertEqual(
                b"".join(found.message.body.chunks()), b"".join(sent[id].body.chunks())
            )
        with self.file.open("ab") as file:  # a part of what is there, twice more
            for line in (lines[3], lines[3]):
                file.write(json.dumps(line).encode() + b"\n")
        self.assertEqual(
            self.imported(),
            "imported: 0 recipients of 0 messages; here before: 602 recipients\n",
        )

    def test_a_message_that_stands_in_two_lines_is_imported_once(self) -> None:
        self.do(self.old, *(Accept(message(id), False) for id in range(1, 400)))
        self.exported()
        lines = self.file.read_bytes().splitlines(keepends=True)
        self.file.write_bytes(b"".join([*lines, lines[0]]))
        self.assertEqual(
            self.imported(),
            "imported: 399 recipients of 399 messages; here before: 1 recipient\n",
        )

    def test_one_id_of_two_messages_is_refused(self) -> None:
        self.do(self.old, Accept(message(1), False))
        (line,) = self.exported()
        other = {**line, "reverse_path": "eve@evil.example"}
        self.file.write_text(f"{json.dumps(line)}\n{json.dumps(other)}\n")
        self.assertIn("line 2: id: 0000000000001 is another message", self.imported(status=1))

    def test_a_long_message_needs_little_memory(self) -> None:
        self.do(self.old, Accept(evolve(message(4), body=MemoryBody(LARGE * 24)), False))
        self.exported()
        self.tool(self.new, "list", status=3)  # what is imported once is in the memory already
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.imported()
        _, peak = tracemalloc.get_traced_memory()
        self.assertLess(peak, 8 << 20)


class Stopped(TransferTestCase):
    def files(self) -> Mapping[str, str]:
        return {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.old.rglob("*")
            if path.is_file()
        }

    def test_list_show_and_export_read_a_stopped_queue_and_leave_it_alone(self) -> None:
        self.do(self.old, Accept(message(1), False), Accept(RICH, False))
        before = self.files()
        listing = json.loads(self.tool(self.old, "list", "--json").output)
        self.assertEqual(
            [each["id"] for each in listing["messages"]], [str(QueueId(1)), str(RICH.id)]
        )
        self.assertIn("@far.example (sent to", self.tool(self.old, "show", str(RICH.id)).output)
        body = self.tool(self.old, "show", str(RICH.id), "--body").stdout_bytes
        self.assertTrue(body.endswith(LARGE))
        self.exported()
        self.assertEqual(self.files(), before)
        self.assertIn("no MTA is running", self.tool(self.old, "hold", "--all", status=3).output)

    def test_a_stopped_queue_is_summarized(self) -> None:
        many = [Accept(message(id, f"u@d{id % 3}.example"), False) for id in range(1, 8)]
        self.do(self.old, *many, Accept(message(9, f"u@{'x' * 40}.example", sender=None), False))
        lines = self.tool(self.old, "summary").output.splitlines()
        self.assertEqual(lines[0].split("\t")[:3], ["Domain", "Recipients", "Messages"])
        self.assertEqual(
            [line.split("\t")[:2] for line in lines[1:]],
            [
                ["d1.example", "3"],
                ["d0.example", "2"],
                ["d2.example", "2"],
                [f"{'x' * 40}.example", "1"],
            ],
        )
        found = json.loads(
            self.tool(self.old, "summary", "--by", "sender", "--json", "--limit", "1").output
        )
        (group,) = found["groups"]
        self.assertEqual((group["name"], group["recipients"]), ("ann@sender.example", 7))
        self.assertEqual((found["others"]["name"], found["others"]["recipients"]), (None, 1))
        by_reason = self.tool(self.old, "summary", "--by", "reason", "--domain", ".example").output
        self.assertIn("not tried yet\t8\t8\t0\t0\t", by_reason)
        self.tool(self.old, "summary", "--by", "age", status=2)

    def test_a_queue_whose_process_was_killed_is_read_with_its_log(self) -> None:
        files = DiskFiles()
        spool = Spool(str(self.old / "body"), files=files, executor=inline_executor)
        store = SQLiteStore(str(self.old / "queue.sqlite"), spool=spool, files=files)
        store.open()
        store.apply([Accept(message(1), False)])
        shutil.copytree(self.old, self.home / "killed")
        store.close()
        self.old = self.home / "killed"
        self.assertGreater((self.old / "queue.sqlite-wal").stat().st_size, 0)
        self.assertEqual(len(self.exported()), 1)
        found = self.inspected(self.old, 1)  # and the next start finds it as well
        self.assertIsNotNone(found)

    def test_a_queue_in_use_is_neither_read_nor_written(self) -> None:
        self.do(self.old, Accept(message(1), False))
        self.exported()
        for place in (self.old, self.new):
            lock = StateLock(str(place / "queue.lock"))
            lock.acquire()
            self.addCleanup(lock.release)
        self.tool(self.old, "list", status=3)
        self.assertIn("stop that MTA, import", self.imported(status=3))

    def test_a_queue_of_another_schema_is_not_read(self) -> None:
        import sqlite3

        self.do(self.old, Accept(message(1), False))
        for version, word in ((99, "newer"), (3, "older")):
            database = sqlite3.connect(self.old / "queue.sqlite")
            database.execute(f"PRAGMA user_version = {version}")
            database.close()
            self.assertIn(word, self.tool(self.old, "list", status=1).output)

    def test_a_message_without_its_body_is_named(self) -> None:
        self.do(self.old, Accept(RICH, False), Accept(message(1), False))
        os.unlink(self.old / "body" / str(RICH.id))
        self.file.unlink(missing_ok=True)
        ran = self.tool(self.old, "export", "--all", "--file", str(self.file), status=1)
        self.assertIn(f"{RICH.id} is not exported: ", ran.output)
        self.assertEqual(len(self.file.read_bytes().splitlines()), 1)


class Hostile(TransferTestCase):
    """Lines that were not exported by this program, or not as they stand."""

    def refused(self, content: bytes) -> str:
        self.file.write_bytes(content)
        said = self.imported(status=1)
        self.assertIn("nothing was imported", said)
        self.assertNotIn("\x1b", said)
        self.assertNotIn("Traceback", said)
        listing = json.loads(self.tool(self.new, "list", "--json").output)
        self.assertEqual(listing["messages"], [])
        self.assertEqual(os.listdir(self.new / "body"), [])
        return said

    def test_a_wrong_line_is_named_and_nothing_is_imported(self) -> None:
        self.do(self.old, *(Accept(message(id), False) for id in (1, 2)))
        good, other = (json.dumps(each) for each in self.exported())
        cases: list[tuple[str | bytes, str]] = [
            ("{", "line 2: "),
            ("[]", "line 2: "),
            ("null", "line 2: "),
            (b"\xff\xfe\x00", "line 2: "),
            (other[: len(other) // 2], "line 2: "),
            (other[:-6], "line 2: "),
            (other + "x", "expected the end of the object"),
            (other.replace('"content"', '"contents"'), 'expected "content"'),
            (other.replace('"content": "', '"content": "!'), "base64"),
            (other.replace('"content": "', '"content": "AAAA'), "octets, expected the 26 of size"),
            (other.replace(str(QueueId(2)), "../../etc/x\\u001b"), "id: "),
            (other.replace('"version": 1', '"version": 2'), "version: found 2, expected 1"),
            (other.replace('"version": 1', '"version": true'), "version: found true, expected"),
            (other.replace("bob@", "bob\\r\\n@"), "recipient 1: address: "),
            (other.replace("bob@", "\\ud800@"), "recipient 1: address: "),
            (other.replace('"number": 0', '"number": -1'), "number: found -1, expected 0 or more"),
            (other.replace('"attempts": 0', '"attempts": 1e400'), "attempts: found"),
            (other.replace('"received_at": 1800000000.0', '"received_at": NaN'), "received_at: "),
            (other.replace('"parameters": {}', '"parameters": {"RET\\n": 1}', 1), "parameters: "),
            (
                other.replace('"parameters": {}', '"parameters": {"MT-PRIORITY": "x"}', 1),
                "parameters: ",
            ),
            (other.replace('"last": null', '"last": {"code": 99}'), "code: found 99, expected"),
            (other.replace('"warned": false', '"warned": 0'), "warned: found 0, expected true"),
            (other.replace('"size": ', '"more": 1, "size": '), 'found "more", which is no member'),
            (other.replace('"recipients": [', '"recipients": [], "old": ['), "recipients: found 0"),
            ("[" * 100_000, "line 2: "),
        ]
        for case, expected in cases:
            line = case if isinstance(case, bytes) else case.encode()
            self.assertNotEqual(line.decode("latin-1"), other, expected)
            self.assertIn(expected, self.refused(good.encode() + b"\n" + line + b"\n"))

    def test_a_recipient_that_stands_twice_is_an_error(self) -> None:
        self.do(self.old, Accept(message(1), False))
        (line,) = self.exported()
        line["recipients"] *= 2
        line["content"] = line.pop("content")
        self.assertIn("a number stands twice", self.refused(json.dumps(line).encode()))

    def test_a_large_content_is_not_left_when_its_line_is_wrong(self) -> None:
        self.do(self.old, Accept(RICH, False))
        (line,) = self.exported()
        line["content"] = b64encode(LARGE[:-1]).decode()
        self.refused(json.dumps(line).encode())

    def test_a_file_that_is_not_there_is_an_error(self) -> None:
        self.assertIn("No such file", self.imported(status=1))
