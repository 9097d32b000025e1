"""Reads exported messages line by line, and puts them into the queue of a stopped MTA."""

from __future__ import annotations

import binascii
import json
import os
import re
from array import array
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import IO, Any

from attrs import define

from ...agent.shard import QUEUE
from ...agent.shared_state import known_url
from ...mail.body import Body
from ...mail.printable import printable
from ...mail.queue_id import QueueId
from ...queue.operator.operations import FindKnown, Known, Restore
from ...queue.operator.transfer import Imported
from ...queue.store.contract import Store
from ...queue.store.lock import StateLock
from ...queue.store.spool import Spool
from ...queue.store.sqlite import SQLiteStore
from ...system.executors import inline_executor
from ...system.files import DiskFiles
from ...system.real_world import monotonic_microseconds, secret_octets, wall_time

_HEAD = 16 << 20  # octets of a line before its content
_PIECE = 1 << 16  # octets that are read at once; a multiple of 4
_BATCH = 256  # messages of one transaction
_BATCH_RECIPIENTS = 10_000  # or somewhat more
_BATCH_OCTETS = 4 << 20  # of their contents in memory, or somewhat more
_CONTENT = re.compile(rb',\s*"content"\s*:\s*"')
_END = re.compile(rb'"\s*\}\s*\Z')


class WrongLine(ValueError):
    """A line cannot be imported; the text has its number, and what was expected.

    Attributes:
        number: of the line, where it is not the one that was read last; 0: it is.
    """

    def __init__(self, text: str, number: int = 0) -> None:
        super().__init__(text)
        self.number = number


@define
class Result:
    """What an import did.

    Attributes:
        messages: with a recipient that was imported.
        recipients: that were imported.
        known: recipients that are in the queue, or were imported before.
    """

    messages: int = 0
    recipients: int = 0
    known: int = 0


class Importer:
    """Imports messages into the queue in a state directory, or in the database that it names.

    Args:
        directory: the state directory, which belongs to the user of this process.
        again: whether recipients are imported that were imported before, and have left.
    """

    def __init__(self, directory: str, *, again: bool = False) -> None:
        self._again = again
        self._result = Result()
        self._pending: dict[QueueId, Restore] = {}
        self._unchecked: list[tuple[int, Imported]] = []
        self._unchecked_recipients = 0
        self._ids = array("Q")  # of all lines
        self._unknown = bytearray()  # whether the queue knew nothing of the message of a line
        self._repeated: frozenset[int] = frozenset()  # ids of several lines
        self._sweep = True
        self._octets = 0
        self._bodies_are_copies = False  # of what the database has
        self._files = DiskFiles()
        self._locks = [StateLock(os.path.join(directory, name)) for name in ("lock", "queue.lock")]
        self._spool = Spool(
            os.path.join(directory, "body"), files=self._files, executor=inline_executor
        )
        self._store = self._store_of(directory)

    def _store_of(self, directory: str) -> Store:
        path = os.path.join(directory, QUEUE)
        url = None if os.path.exists(path) else known_url(directory, self._files)
        if url is None:
            return SQLiteStore(path, spool=self._spool, files=self._files, lock=self._locks[1])
        # The client of PostgreSQL takes longer to import than the rest.
        from ...agent.shared_queue import shared_store

        self._bodies_are_copies = True
        return shared_store(
            url,
            directory,
            worker=0,
            spool=self._spool,
            files=self._files,
            secret=secret_octets,
            seconds=lambda: monotonic_microseconds() / 1e6,
        )

    def run(self, file: IO[bytes]) -> Result:
        """Check all lines of a file, then import their messages.

        Args:
            file: can be read twice.

        Raises:
            WrongLine: a line is wrong; nothing was imported.
            StateInUse: an MTA is running.
            StoreError, StoreFull, OSError: the queue cannot be written. Messages that were imported
                before are there, and the same file can be imported again.
        """
        held = []
        try:
            for lock in self._locks:
                lock.acquire()
                held.append(lock)
            self._store.open()
            self._each(file, self._check, "nothing was imported")
            ordered = sorted(self._ids)
            self._repeated = frozenset(one for one, next in pairwise(ordered) if one == next)
            self._ids = array("Q")
            file.seek(0)
            self._each(file, self._take, "the messages before it were imported")
            self._flush()
        finally:
            self._store.close()
            for lock in held:
                lock.release()
        return self._result

    def _each(
        self, file: IO[bytes], handle: Callable[[Imported, _Line, int], None], state: str
    ) -> None:
        number = 0
        while True:
            number += 1
            line = _Line(file)
            try:
                if line.is_end:
                    self._check_known()
                    return
                handle(Imported(line.values()), line, number)
                line.finish()
                if (
                    len(self._unchecked) >= _BATCH
                    or self._unchecked_recipients >= _BATCH_RECIPIENTS
                ):
                    self._check_known()
            except WrongLine as error:
                self._flush()
                raise WrongLine(f"line {error.number or number}: {error}; {state}") from None
            except (ValueError, RecursionError) as error:
                self._flush()
                raise WrongLine(f"line {number}: {printable(str(error))}; {state}") from None

    def _known(self, messages: Sequence[Imported]) -> list[Known]:
        found = self._store.apply([FindKnown(each.id, self._again) for each in messages])
        return [each for each in found if isinstance(each, Known)]

    def _check(self, message: Imported, line: _Line, number: int) -> None:
        size = sum(map(len, line.content()))
        if size != message.size:
            raise ValueError(f"content: found {size} octets, expected the {message.size} of size")
        self._ids.append(message.id)
        self._unchecked.append((number, message))
        self._unchecked_recipients += len(message.numbers())

    def _check_known(self) -> None:
        """Compare messages with the queue, many at once: each look is a transaction."""
        unchecked, self._unchecked = self._unchecked, []
        self._unchecked_recipients = 0
        if not unchecked:
            return
        found = self._known([message for _, message in unchecked])
        for (number, message), known in zip(unchecked, found, strict=True):
            self._require_same(message, known, number)
            self._unknown.append(known.message is None and not known.numbers)

    def _require_same(self, message: Imported, known: Known, number: int) -> None:
        if known.message is not None and message.is_other_than(known.message):
            raise WrongLine(f"id: {message.id} is another message in this queue", number)

    def _take(self, message: Imported, line: _Line, number: int) -> None:
        if message.id in self._pending:
            self._flush()
        if self._unknown[number - 1] and message.id not in self._repeated:
            known = Known(None, frozenset())
        else:
            (known,) = self._known([message])
            self._require_same(message, known, number)
        new = message.numbers(known.numbers)
        self._result.known += len(message.numbers()) - len(new)
        if not new or known.message is not None:
            for _ in line.content():  # it is here
                pass
        if not new:
            return
        body = self._body(message.id, line) if known.message is None else known.message.body
        self._pending[message.id] = message.restore(
            body, wall_time(), again=self._again, sweep=self._sweep
        )
        self._sweep = False
        self._octets += min(body.size, _PIECE)
        self._result.messages += 1
        self._result.recipients += len(new)
        if len(self._pending) >= _BATCH or self._octets >= _BATCH_OCTETS:
            self._flush()

    def _body(self, id: QueueId, line: _Line) -> Body:
        writer = self._spool.new_body(id)
        try:
            for piece in line.content():
                writer.write(piece)
            bodies: list[Body] = []
            sealed: Any = writer.seal()
            if hasattr(sealed, "addCallback"):
                failures: list[Any] = []
                sealed.addCallbacks(bodies.append, failures.append)
                for failure in failures:
                    failure.raiseException()
            else:
                bodies.append(sealed)
        except FileExistsError:
            # It was made for this message before that left, and is used for another one now.
            raise ValueError(
                f"id: the body file {id} has another message of this queue;"
                " import this one again when that one has left"
            ) from None
        except BaseException:
            writer.discard()
            raise
        return bodies[0]

    def _flush(self) -> None:
        if self._pending:
            self._store.apply(list(self._pending.values()))
            if self._bodies_are_copies:
                for restore in self._pending.values():
                    self._spool.forget(restore.message.body)
        self._pending.clear()
        self._octets = 0


class _Line:
    """One line of a file: a JSON object whose last member is the content, which may be long."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._rest = b""
        self._ended = False
        self._begun = b""
        while not self._begun and not self._ended:  # empty lines do no harm at the end
            piece = file.readline(_PIECE)
            if not piece:
                self._ended = True
            self._begun = piece if piece.strip() else b""
        self.is_end = not self._begun

    def values(self) -> Any:
        """Return the object without its content.

        Raises:
            WrongLine: it is none.
        """
        head = bytearray(self._begun)
        start = 0
        while True:
            found = _CONTENT.search(head, start)
            if found or head.endswith(b"\n"):
                break
            start = max(0, len(head) - 64)
            if len(head) > _HEAD:
                raise WrongLine(f"found {_HEAD >> 20} MiB without a content, expected one")
            piece = self._file.readline(_PIECE)
            if not piece:
                break
            head += piece
        if not found:
            json.loads(head)  # a clearer error where it is no JSON at all
            raise WrongLine('expected "content" as the last member, a text in base64')
        self._rest = bytes(head[found.end() :])
        return json.loads(bytes(head[: found.start()]) + b"}")

    def content(self) -> Any:
        """Yield the content, decoded, piece by piece.

        Raises:
            WrongLine: it is no base64, or the line ends within it.
        """
        text = self._rest
        while True:
            end = text.find(b'"')
            if end >= 0:
                yield _decoded(text[:end])
                self._rest = text[end:]
                return
            if text.endswith(b"\n"):
                raise WrongLine("the line ends within the content")
            whole = len(text) - len(text) % 4
            if b"=" in text[:whole]:
                raise WrongLine("content: expected base64")
            yield _decoded(text[:whole])
            piece = self._file.readline(_PIECE)
            if not piece:
                raise WrongLine("the file ends within the content")
            text = text[whole:] + piece

    def finish(self) -> None:
        """Require that nothing follows the content.

        Raises:
            WrongLine: something does.
        """
        while not self._rest.endswith(b"\n") and len(self._rest) < 64:
            piece = self._file.readline(64)
            if not piece:
                break
            self._rest += piece
        if not _END.match(self._rest):
            raise WrongLine("expected the end of the object behind its content")


def _decoded(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True) if text else b""
    except binascii.Error as error:
        raise WrongLine(f"content: expected base64: {error}") from None
