"""The log: lines of text and JSON, lines that cannot be written, files and workers."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

from twisted.logger import (
    ILogObserver,
    LegacyLogObserverWrapper,
    LogEvent,
    Logger,
    LogPublisher,
    formatEventAsClassicLogText,
)
from twisted.python.failure import Failure
from twisted.python.log import LogPublisher as LegacyPublisher
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.tidy import TidyTestCase
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.telemetry import log as log_module
from twisted_mta.telemetry.log import Log, WholeLines
from twisted_mta.telemetry.log_lines import LogFormat

WHEN = 1_795_350_252.3456  # 2026-11-22T12:24:12.3456Z


class Broken:
    """An object whose repr and str raise."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


@implementer(ILogObserver)
class Events:
    """An observer that keeps events."""

    def __init__(self) -> None:
        self.seen: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        self.seen.append(event)


def event(format: str | None = None, **fields: Any) -> LogEvent:
    """Return an event of a logger, at the time `WHEN`."""
    events = Events()
    Logger("mail.place", observer=events).info(format, **fields)
    return {**events.seen[0], "log_time": WHEN}


def failed() -> Failure:
    try:
        raise ValueError("out of cheese")
    except ValueError:
        return Failure()


def logged_by(say: Callable[[LegacyPublisher], None]) -> LogEvent:
    """Return an event of `twisted.python.log`."""
    events = Events()
    say(LegacyPublisher(observerPublisher=LogPublisher(), publishPublisher=LogPublisher(events)))
    return {**events.seen[0], "log_time": WHEN}


class LogTestCase(TidyTestCase):
    def written(
        self, *events: LogEvent, format: LogFormat = "text", worker: int | None = None
    ) -> str:
        """Return what a log writes for events."""
        octets: list[bytes] = []

        def write(descriptor: int, content: bytes | bytearray) -> int:
            octets.append(bytes(content))
            return len(content)

        log = Log(format, worker=worker, write=write)
        for each in events:
            log(each)
        return b"".join(octets).decode("utf-8")


class Text(LogTestCase):
    def test_a_log_provides_the_interface_of_observers(self) -> None:
        self.assertTrue(verifyObject(ILogObserver, Log()))

    def test_a_line_has_time_namespace_level_and_text(self) -> None:
        line = self.written(event("{id} to {who}, {delay:.2f} s", id=7, who="bob", delay=0.126))
        self.assertRegex(
            line,
            r"^2026-11-2\dT\d\d:\d\d:12\.345[+-]\d{4} \[mail\.place#info\] 7 to bob, 0\.13 s\n$",
        )

    def test_each_second_has_its_own_time_stamp(self) -> None:
        first, second = event("a"), event("b")
        second["log_time"] = WHEN + 59.7
        lines = self.written(first, second, first).splitlines()
        self.assertEqual([line[14:23] for line in lines], ["24:12.345", "25:12.045", "24:12.345"])

    def test_apart_from_milliseconds_a_line_is_that_of_twistd(self) -> None:
        class Host:
            name = "mx"

            def port(self) -> int:
                return 25

            def __getattr__(self, name: str) -> Callable[[], str]:
                return lambda: name

        source = {"host": Host(), "many": [1, {"a": 2}], "text": "é", "width": 5}
        for format in (
            *("plain", "{text} {text!r} {text:>4}", "{host.name} {many[0]} {many[1][a]}"),
            *(
                "{host.port()} {host.any()}",
                "{width:{width}d}",
                "{{}}",
                "50 %",
                "two\nlines",
                "",
                None,
            ),
            *("{missing}", "{text.nothing}", "{0}", "{", "call() {text}", b"octets", 17),
        ):
            self.assertAsTwistd(event(format, **source))  # type: ignore[arg-type]
        self.assertAsTwistd({**event("a"), "log_system": "mine"})
        self.assertAsTwistd({"log_format": "nothing else"})
        self.assertAsTwistd(event("it broke: {text}", text="x", log_failure=failed()))
        self.assertAsTwistd(event(None, log_failure=failed()))
        self.assertAsTwistd(logged_by(lambda log: log.msg("old ", "way", system="here")))
        self.assertAsTwistd(logged_by(lambda log: log.msg(format="%(x)d", x=3)))
        self.assertAsTwistd(
            logged_by(lambda log: log.msg(failure=failed(), why="Unhandled", isError=1))
        )

    def assertAsTwistd(self, each: LogEvent) -> None:
        line = re.sub(r"^([^ ]*)\.\d{3}", r"\1", self.written(each))
        expected = formatEventAsClassicLogText(each) or ""
        self.assertEqual(line, re.sub(r"(\n\t)+\n$", "\n", expected), each)

    def test_a_worker_is_named(self) -> None:
        self.assertIn(" [mail.place#info worker=2] a\n", self.written(event("a"), worker=2))

    def test_line_ends_and_control_characters_in_a_text_are_escaped(self) -> None:
        said = "a\r2026 [x#info] b\n2026 [x#info] c\x1b[2J\x00\x85\u2028\u202e\udc80é"
        self.assertTrue(
            self.written(event("{said}", said=said)).endswith(
                "] a\\r2026 [x#info] b\n\t2026 [x#info] c\\x1b[2J\\x00\\x85\\u2028\\u202e\\udc80é\n"
            )
        )

    def test_control_characters_in_a_system_name_are_escaped(self) -> None:
        line = self.written({**event("a"), "log_system": "x] b\n2026"})
        self.assertEqual(line.count("\n"), 1)

    def test_a_value_that_cannot_be_formatted_raises_nothing(self) -> None:
        for format in ("text", "json"):
            for each in (
                event("{it}", it=Broken()),
                {**event("a"), "log_system": Broken()},
                {**event("a"), "log_time": "noon", "log_level": None},
                {**event("a"), "log_time": float("nan")},
                {**event("a"), "log_failure": "none"},
                {**event("a"), "log_namespace": Broken()},
                event("{it}", it=10**5000),
                {},
            ):
                line = self.written(each, format=format)  # type: ignore[arg-type]
                self.assertLessEqual(len(re.findall(r"\n(?!\t)", line)), 1)


class JSON(LogTestCase):
    def object(self, each: LogEvent, worker: int | None = None) -> Any:
        line = self.written(each, format="json", worker=worker)
        self.assertTrue(line.isascii())
        self.assertEqual(line.count("\n"), 1)
        self.assertTrue(line.endswith("}\n"))

        def refuse(constant: str) -> None:
            self.fail(f"{constant} is no JSON")

        return json.loads(line, parse_constant=refuse)

    def test_a_line_is_an_object_with_the_fields_of_the_event(self) -> None:
        each = event(
            "{id} to {who}{_where}",
            id=QueueId(7),
            who="bób",
            _where="!",
            count=2,
            tls=None,
            delay=0.12345678,
        )
        self.assertEqual(
            self.object(each),
            {
                "time": "2026-11-22T12:24:12.345Z",
                "level": "info",
                "namespace": "mail.place",
                "message": "0000000000007 to bób!",
                "id": "0000000000007",
                "who": "bób",
                "count": 2,
                "delay": 0.123457,
                "tls": None,
            },
        )

    def test_a_worker_is_named(self) -> None:
        self.assertEqual(self.object(event("a"), worker=2)["worker"], 2)

    def test_values_of_other_types_are_written_as_text(self) -> None:
        found = self.object(
            event(
                "a",
                many=("x", 1, [None, True]),
                nan=float("nan"),
                octets=b"\xff\n",
                broken=Broken(),
                lone="\udc80\x1b\u2028\n",
                error=ValueError("no"),
            )
        )
        self.assertEqual(found["many"], ["x", 1, [None, True]])
        self.assertEqual((found["nan"], found["octets"], found["error"]), ("nan", "\\xff\n", "no"))
        self.assertEqual(found["lone"], "\udc80\x1b\u2028\n")
        self.assertIsInstance(found["broken"], str)

    def test_a_field_with_a_reserved_name_is_renamed(self) -> None:
        found = self.object({**event("{message}", message="mine", worker=9), "level": 3}, worker=1)
        self.assertEqual((found["message"], found["message_"]), ("mine", "mine"))
        self.assertEqual((found["level"], found["level_"]), ("info", 3))
        self.assertEqual((found["worker"], found["worker_"]), (1, 9))
        self.assertEqual(self.object(event("a", message=("x", "y")))["message_"], ["x", "y"])

    def test_an_event_without_a_text_is_written(self) -> None:
        self.assertEqual(self.object(event(None, count=1))["count"], 1)
        self.assertEqual(self.written(event(None), format="json"), "")

    def test_a_failure_is_one_field(self) -> None:
        found = self.object(event("it broke", log_failure=failed()))
        self.assertEqual(found["message"], "it broke")
        self.assertIn("Traceback", found["failure"])
        self.assertTrue(found["failure"].endswith("out of cheese"), found["failure"])

    def test_an_event_of_twisted_python_log_repeats_nothing(self) -> None:
        found = self.object(logged_by(lambda log: log.msg("old", system="here", extra=1)))
        self.assertEqual(
            found,
            {
                "time": "2026-11-22T12:24:12.345Z",
                "level": "info",
                "namespace": "log_legacy",
                "system": "here",
                "message": "old",
                "extra": 1,
            },
        )
        found = self.object(logged_by(lambda log: log.msg(failure=failed(), why="Ow", isError=1)))
        self.assertEqual((found["message"], found["level"]), ("Ow", "critical"))
        self.assertIn("out of cheese", found["failure"])

    def test_an_error_without_a_failure_and_a_failure_without_an_error_keep_their_texts(
        self,
    ) -> None:
        found = self.object(logged_by(lambda log: log.msg("it broke", isError=1)))
        self.assertEqual((found["message"], found["level"]), ("it broke", "critical"))
        found = self.object(event("it went on", failure=failed()))
        self.assertEqual((found["message"], found["level"]), ("it went on", "info"))

    def test_fields_that_a_legacy_observer_adds_are_left_out(self) -> None:
        each = event("{id}", id=1)
        before = self.object(each)
        LegacyLogObserverWrapper(lambda _: None)(each)
        self.assertIn("isError", each)
        self.assertEqual(self.object(each), before)


class Disk:
    """A descriptor that accepts a limited number of octets."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.content = b""

    def write(self, descriptor: int, content: bytes | bytearray) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = content[: self.room]
        self.room -= len(taken)
        self.content += taken
        return len(taken)


def text_of(octets: bytes) -> list[str]:
    """Return the texts of lines."""
    return [line.partition("] ")[2] or line for line in octets.decode().splitlines()]


class FullDisk(TidyTestCase):
    def test_lines_wait_for_space_and_stay_whole(self) -> None:
        disk = Disk(100)
        log = Log(write=disk.write)
        for number in range(5):
            log(event("line {number}", number=number))
        self.assertEqual(len(disk.content), 100)
        disk.room = 10**6
        log(event("last"))
        self.assertEqual(text_of(disk.content), [*(f"line {n}" for n in range(5)), "last"])

    def test_dropped_lines_are_counted_and_a_line_reports_their_number(self) -> None:
        disk = Disk(0)
        log = Log(write=disk.write)
        log(event("first"))
        log(event("x" * 1_100_000))
        log(event("two\nlines"))
        disk.room = 10**6
        log(event("last"))
        first, lost, last = text_of(disk.content)
        self.assertEqual((first, last), ("first", "last"))
        self.assertEqual(
            lost,
            "3 lines of the log, missing here, could not be written: No space left on device",
        )
        self.assertIn(b"[twisted_mta.telemetry.log#warn]", disk.content)
        self.assertEqual(log.dropped, 3)

    def test_lines_wait_up_to_the_last_octet_of_the_limit(self) -> None:
        line = Disk(10**6)
        Log(write=line.write)(event("line"))
        for limit, expected in ((2, ["line", "line"]), (1, ["line"])):
            self.patch(log_module, "_MOST_WAITING", limit * len(line.content))
            disk = Disk(0)
            log = Log(write=disk.write)
            log(event("line"))
            log(event("line"))
            disk.room = 10**6
            log.write_lines(b"")
            self.assertEqual(text_of(disk.content)[: len(expected)], expected)
            self.assertEqual(log.dropped, 2 - len(expected))

    def test_a_single_line_that_is_too_long_is_counted(self) -> None:
        disk = Disk(0)
        log = Log(write=disk.write)
        log(event("x" * 1_100_000))
        disk.room = 10**6
        log(event("last"))
        self.assertEqual(len(text_of(disk.content)), 2)
        self.assertTrue(text_of(disk.content)[0].startswith("1 line of"), disk.content)

    def test_the_rest_of_a_partly_written_line_follows(self) -> None:
        disk = Disk(50)
        log = Log(write=disk.write)
        log(event("x" * 100_000))
        disk.room = 10**6
        log(event("last"))
        self.assertEqual(text_of(disk.content), ["x" * 100_000, "last"])

    def test_waiting_lines_are_written_at_close(self) -> None:
        disk = Disk(0)
        log = Log(write=disk.write)
        log(event("one"))
        disk.room = 10**6
        log.close()
        self.assertEqual(text_of(disk.content), ["one"])

    def test_the_number_of_dropped_lines_is_a_line_of_json(self) -> None:
        disk = Disk(0)
        log = Log("json", write=disk.write)
        log(event("x" * 1_100_000))
        disk.room = 10**6
        log(event("last"))
        lost, _ = disk.content.splitlines()
        self.assertEqual(json.loads(lost)["count"], 1)

    def test_a_parent_that_does_not_read_does_not_block_a_worker(self) -> None:
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        log = Log(descriptor=writer, worker=1)
        log.open()
        self.assertFalse(os.get_blocking(writer))
        os.close(writer)
        self.addCleanup(log.close)
        for number in range(2000):
            log(event("{number} {fill}", number=number, fill="x" * 1000))
        os.set_blocking(reader, False)
        read = b""

        def drain() -> bytes:
            found = b""
            with contextlib.suppress(BlockingIOError):
                while piece := os.read(reader, 1 << 20):
                    found += piece
            return found

        for _ in range(40):
            read += drain()
            log(event("again"))
        read += drain()
        lines = text_of(read)
        (lost,) = (line for line in lines if "missing" in line)
        missing = int(lost.split()[0])
        self.assertEqual(len(lines), 2000 + 40 + 1 - missing)
        kept = [line.split()[0] for line in lines if line.endswith("xxx")]
        self.assertGreater(len(kept), 1000)
        self.assertEqual(kept, list(map(str, range(len(kept)))))
        self.assertEqual(lines[-1], "again")

    def full_pipe(self, later: Callable[[Callable[[], None]], object]) -> tuple[Log, int, bytes]:
        """Return a worker's log with a full pipe, the reading end, and all logged lines."""
        reader, writer = os.pipe()
        log = Log(descriptor=writer, worker=1, later=later)
        log.open()
        os.close(writer)
        self.addCleanup(os.close, reader)
        expected = b""
        for number in range(200):
            line = b"%d " % number + b"x" * 1000 + b"\n"
            log.write_lines(line)
            expected += line
        return log, reader, expected

    def test_waiting_lines_are_written_without_another_event(self) -> None:
        asked: list[Callable[[], None]] = []
        log, reader, expected = self.full_pipe(asked.append)
        self.addCleanup(log.close)
        os.set_blocking(reader, False)
        read = b""
        for _ in range(10):  # 64 KiB each, of 200
            self.assertLessEqual(len(asked), 1)
            with contextlib.suppress(BlockingIOError):
                read += os.read(reader, 1 << 20)
            if asked:
                asked.pop()()
        self.assertEqual(read, expected)
        self.assertEqual(asked, [])

    def test_close_waits_for_the_reader(self) -> None:
        log, reader, expected = self.full_pipe(lambda call: None)
        read = bytearray()

        def listen() -> None:
            while piece := os.read(reader, 8192):
                read.extend(piece)

        listener = Thread(target=listen)
        listener.start()
        log.close()
        listener.join()
        self.assertEqual(bytes(read), expected)

    def test_a_reader_that_is_gone_is_no_error(self) -> None:
        reader, writer = os.pipe()
        log = Log(descriptor=writer)
        log.open()
        os.close(writer)
        os.close(reader)
        for _ in range(100):
            log(event("x" * 1000))
        log.close()


class Files(TidyTestCase):
    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.home.mkdir(parents=True)
        self.path = self.home / "mta.log"

    @contextlib.contextmanager
    def opened(self) -> Iterator[Log]:
        log = Log(path=str(self.path))
        log.open()
        try:
            yield log
        finally:
            log.close()

    def test_an_existing_file_is_appended_to_and_a_new_one_is_for_owner_and_group(self) -> None:
        before = os.umask(0o022)
        self.addCleanup(os.umask, before)
        for said in ("one", "two"):
            with self.opened() as log:
                log(event(said))
        self.assertEqual(text_of(self.path.read_bytes()), ["one", "two"])
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o640)

    def test_without_a_path_lines_go_to_standard_output(self) -> None:
        path = self.mktemp()
        kept = os.dup(1)
        try:
            with open(path, "wb") as file:
                os.dup2(file.fileno(), 1)
            log = Log()
            log.open()
            log(event("said"))
            log.close()
        finally:
            os.dup2(kept, 1)
            os.close(kept)
        self.assertEqual(text_of(Path(path).read_bytes()), ["said"])

    def test_events_before_open_come_first(self) -> None:
        log = Log(path=str(self.path))
        log(event("early"))
        log.open()
        self.assertEqual(text_of(self.path.read_bytes()), ["early"])
        log.close()

    def test_lines_of_workers_are_written_unchanged(self) -> None:
        with self.opened() as log:
            log.write_lines(b'{"worker":1}\n{"worker":2}\n')
        self.assertEqual(self.path.read_bytes(), b'{"worker":1}\n{"worker":2}\n')

    def test_reopen_leaves_a_renamed_file_for_a_new_one(self) -> None:
        with self.opened() as log:
            log(event("one"))
            self.path.rename(self.home / "old")
            log(event("two"))
            self.assertTrue(log.reopen())
            log(event("three"))
        self.assertEqual(text_of((self.home / "old").read_bytes()), ["one", "two"])
        self.assertEqual(
            text_of(self.path.read_bytes()), [f"{self.path} was opened again", "three"]
        )

    def test_if_the_path_cannot_be_opened_the_log_continues_in_the_old_file(self) -> None:
        with self.opened() as log:
            self.path.rename(self.home / "old")
            self.path.mkdir()
            self.assertFalse(log.reopen())
            log(event("two"))
        self.assertEqual(
            text_of((self.home / "old").read_bytes()),
            [
                f"{self.path} cannot be opened, and the log continues in the old file:"
                " Is a directory",
                "two",
            ],
        )

    def test_reopen_leaks_no_descriptor(self) -> None:
        with self.opened() as log:
            log.reopen()
            free = os.dup(0)
            os.close(free)
            for _ in range(3):
                log.reopen()
            again = os.dup(0)
            os.close(again)
        self.assertEqual(again, free)

    def test_reopen_leaves_standard_output_alone(self) -> None:
        reader, writer = os.pipe()
        log = Log(descriptor=writer)
        log.open()
        self.assertTrue(os.get_blocking(writer))  # other processes share it
        os.close(writer)  # the log has its own copy
        self.assertTrue(log.reopen())
        log(event("on"))
        self.assertEqual(text_of(os.read(reader, 1000)), ["on"])
        log.close()
        os.close(reader)

    def test_a_file_that_cannot_be_created_is_an_error(self) -> None:
        self.assertRaises(OSError, Log(path=str(self.home / "none" / "log")).open)

    def test_the_descriptor_is_not_a_standard_one_and_is_not_inherited(self) -> None:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        with self.opened() as log:
            log.reopen()
            held = [
                number
                for number in range(min(limit, 1024))
                if _is(number, self.path) and not os.get_inheritable(number)
            ]
        self.assertEqual(len(held), 1)
        self.assertGreater(held[0], 2)


def _is(descriptor: int, path: Path) -> bool:
    try:
        return os.path.sameopenfile(descriptor, descriptor) and os.path.samestat(
            os.fstat(descriptor), path.stat()
        )
    except OSError:
        return False


class Workers(TidyTestCase):
    def setUp(self) -> None:
        self.passed: list[bytes] = []
        self.lines = WholeLines(self.passed.append)

    def test_lines_that_arrive_in_pieces_are_passed_on_whole(self) -> None:
        sent = b"one\ntwo\nthree\n"
        for cut in range(len(sent)):
            self.lines.received(sent[:cut])
            self.lines.received(sent[cut:])
            self.assertEqual(b"".join(self.passed), sent)
            self.assertTrue(all(piece.endswith(b"\n") for piece in self.passed))
            self.passed.clear()

    def test_an_incomplete_line_is_ended(self) -> None:
        self.lines.received(b"one\nlast wor")
        self.lines.ended()
        self.lines.ended()
        self.assertEqual(self.passed, [b"one\n", b"last wor\n"])

    def test_an_endless_line_is_broken(self) -> None:
        self.lines.received(b"x" * (3 << 20))
        self.assertTrue(self.passed)
