"""Local delivery into Maildirs, one file per recipient, with LF line ends.

A content of ``BODY=BINARYMIME`` has no lines (RFC 3030 §3): it is written octet by octet, and the
header fields before it end in CR LF too, so that the message has one kind of line end.

A file is written under ``tmp/``, synced, moved to ``new/``, and ``new/`` is synced: only then is
the recipient delivered. A crash before that leaves a file in ``tmp/``, which readers ignore and
remove after 36 hours, or one in ``new/`` that will be delivered again.

A failing disk does not get another copy with each attempt. A file that was moved to ``new/`` is
delivered even if its name in ``tmp/`` cannot be removed; where ``new/`` cannot be synced, the file
is removed before another copy is written.

A message in quarantine goes into the folder Junk, the directory ``.Junk`` of the Maildir, which is
made when it is first needed (Maildir++; the file ``maildirfolder`` marks it as a folder).

Messages that arrive while others are being written wait, and are then written as a batch: all
files, then all syncs, so that the disk can combine them, and one sync for each ``new/``. The file
operations alone, on ext4 and four threads, made 4,100 files of 4 KiB a second durable one by one,
and 9,000 in batches of 16; on a disk that is busy otherwise there is no difference.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import chain, count, islice

from attrs import Factory, define
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import (
    Executor,
    Files,
    Random,
    Refused,
    Sign,
    WallTime,
    WritableFile,
    unsigned,
)
from ..mail.address import Mailbox
from ..mail.body import Body
from ..mail.envelope import Recipient, RecipientNumber
from ..mail.message import Message
from ..mail.next_hop import NextHop
from ..mail.outcome import Outcome
from ..mail.printable import printable
from ..mail.queue_id import QueueId
from ..mail.reply import Reply
from ..message.delivery_fields import delivered_to, return_path
from .mail_directories import MOST_REMEMBERED, MailDirectories
from .mailbox_directory import NoMailbox, mailbox_directory

DELIVERED = Reply.of(250, "0.0", "Delivered to the mailbox")
UNSIGNED = Reply.of(451, "3.0", "The message cannot be signed now")
JUNKED = Reply.of(250, "0.0", "Delivered to the folder Junk of the mailbox")

_JUNK = "/.Junk"
"""The directory of the folder below that of a Maildir."""

_SMALL = 64 * 1024  # octets of a body that is converted once for all recipients
_CALLS = 4  # of the executor at a time: the number of its threads
# Files of one batch, all open at a time; 32 were not faster.
_BATCH = 16
_BATCH_OCTETS = 4 << 20  # of content
_NAMES_TRIED = 5  # one is enough unless the clock went back over a restart


# Errors of a disk as (code, subject and detail) of RFC 3463; any other is a mailbox that is broken
# for now. All of them defer: an operator can correct them.
_STATUSES = {
    errno.ENOSPC: (452, "3.1"),
    errno.EDQUOT: (452, "2.2"),
    errno.EIO: (451, "3.0"),
    errno.EROFS: (451, "3.0"),
    errno.EMFILE: (451, "3.2"),
    errno.ENFILE: (451, "3.2"),
}


class _Exposed(OSError):
    """Another user of the system could redirect a delivery."""


def _deferred(error: BaseException | None) -> Reply:
    if not isinstance(error, OSError) or error.errno is None:
        return Reply.of(451, "3.0", f"Local delivery is broken: {printable(repr(error))}")
    name = errno.errorcode.get(error.errno, str(error.errno))
    code, status = _STATUSES.get(error.errno, (451, "2.0"))
    return Reply.of(code, status, f"The mailbox cannot be written now ({name})")


def _with_path(error: Exception, directory: str) -> str:
    """Return the text of an error of the disk, with the path that it is about; printable."""
    text = getattr(error, "strerror", None) or repr(error)
    if not isinstance(error, _Exposed):  # its text has the path
        path = getattr(error, "filename", None) or directory
        text = f"{os.fsdecode(path)}: {text}"
    return printable(text)


@define(eq=False)
class _Copy:
    """The file of one recipient.

    Attributes:
        id: of the message.
        recipient: of this copy.
        junk: whether it goes into the folder Junk.
        maildir: the path of the Maildir, or of its folder.
        name: of the file, the same in ``tmp/`` and ``new/``.
        file: while it is open.
        reply: why it is not delivered; None while it is written, and once it is delivered.
        uncertain: whether the file may be in ``new/`` although ``reply`` is given.
        stray: files that could not be removed, with the error.
    """

    id: QueueId
    recipient: Recipient
    junk: bool = False
    maildir: str = ""
    name: str = ""
    file: WritableFile | None = None
    reply: Reply | None = None
    uncertain: bool = False
    stray: list[tuple[str, OSError]] = Factory(list)

    @property
    def path_in_tmp(self) -> str:
        return f"{self.maildir}/tmp/{self.name}"

    @property
    def path_in_new(self) -> str:
        return f"{self.maildir}/new/{self.name}"


class MaildirDelivery:
    """Delivers to ``ROOT/<domain>/<local-part>/{tmp,new,cur}``.

    Args:
        root: the path of the directory above all of them.
        files: the disk.
        executor: runs the blocking calls, one for each batch.
        wall_time: for file names.
        hostname: for file names.
        random: 64 random bits make the file names of this object unique among all that ever
            deliver here under this hostname.
        sign: signs messages.
        calls: of the executor at a time.
    """

    _log = Logger()

    def __init__(
        self,
        root: str,
        *,
        files: Files,
        executor: Executor,
        wall_time: WallTime,
        hostname: str,
        random: Random,
        sign: Sign = unsigned,
        calls: int = _CALLS,
    ) -> None:
        self._root = root
        self._files = files
        self._executor = executor
        self._wall_time = wall_time
        self._sign = sign
        self._numbers = count()
        self._calls = calls
        self._running_calls = 0
        self._waiting: deque[tuple[Message, Deferred[Sequence[Outcome]]]] = deque()
        # Files in new/ that could be neither synced nor removed; no other copy is written before
        # they are removed.
        self._stray: dict[tuple[QueueId, RecipientNumber], str] = {}
        # "/" and ":" have a meaning in a Maildir, and are escaped as Maildir readers expect.
        host = printable(hostname).replace("/", r"\057").replace(":", r"\072")
        self._origin = f"R{random.getrandbits(64):016x}", host
        self._directories = MailDirectories(root, files=files)
        # An exception is not cached: the next message tries again.
        self._ready = lru_cache(maxsize=MOST_REMEMBERED)(self._make_maildir)

    def start(self) -> None:
        """Remember which directory the root is (`MailDirectories`). Blocks."""
        self._directories.start()

    def exists(self, mailbox: Mailbox) -> bool:
        """Whether the directory of ``mailbox`` exists, with or without a Maildir in it. Blocks.

        Raises:
            Refused: the disk cannot tell now, or the root is gone.
        """
        try:
            domain, local_part = mailbox_directory(mailbox)
        except NoMailbox:
            return False
        try:
            if self._files.is_directory(f"{self._root}/{domain}/{local_part}"):
                return True
            self._directories.check(self._root, f"{self._root}/{domain}")
        except NoMailbox as gone:
            raise Refused(gone.reply) from None
        except OSError as error:
            why = _with_path(error, self._root)
            self._log.error("mailboxes cannot be looked up: {error}", error=why)
            raise Refused(_deferred(error)) from error
        return False

    def deliver(self, next_hop: NextHop, message: Message) -> Deferred[Sequence[Outcome]]:
        """Deliver to each recipient (`interfaces.Deliver`); never fails.

        An outcome is ``uncertain`` where the file may be in ``new/`` and yet not be durable.
        """
        delivered: Deferred[Sequence[Outcome]] = Deferred()
        try:
            signed = self._sign(message)
        except Exception:
            self._not_signed(Failure(), message, delivered)
            return delivered
        if isinstance(signed, Message):
            self._put(signed, delivered)
        else:
            signed.addCallbacks(
                self._put,
                self._not_signed,
                callbackArgs=(delivered,),
                errbackArgs=(message, delivered),
            )
        return delivered

    def _put(self, message: Message, delivered: Deferred[Sequence[Outcome]]) -> None:
        self._waiting.append((message, delivered))
        self._work()

    def _not_signed(
        self, failure: Failure, message: Message, delivered: Deferred[Sequence[Outcome]]
    ) -> None:
        error = failure.value
        if isinstance(error, OSError):
            why = _with_path(error, self._root)
            self._log.error("{id} is not delivered: {error}", id=message.id, error=why)
        else:
            self._log.failure("Cannot sign {id}", failure, id=str(message.id))
        delivered.callback(
            [Outcome(recipient.number, UNSIGNED) for recipient in message.envelope.recipients]
        )

    def _work(self) -> None:
        while self._waiting and self._running_calls < self._calls:
            self._running_calls += 1
            batch = list(self._batch())
            messages = [message for message, _ in batch]
            maybeDeferred(self._executor, self._deliver, messages).addBoth(self._done, batch)

    def _batch(self) -> Iterator[tuple[Message, Deferred[Sequence[Outcome]]]]:
        """Take the messages of one batch: at least one, large ones alone."""
        taken = copies = octets = 0
        while self._waiting:
            message, _ = self._waiting[0]
            copies += len(message.envelope.recipients)
            octets += message.body.size
            if taken and (copies > _BATCH or octets > _BATCH_OCTETS):
                return
            taken += 1
            yield self._waiting.popleft()

    def _done(
        self,
        outcomes: Sequence[Sequence[Outcome]] | Failure,
        batch: Sequence[tuple[Message, Deferred[Sequence[Outcome]]]],
    ) -> None:
        self._running_calls -= 1
        if isinstance(outcomes, Failure):
            reply = _deferred(outcomes.value)
            outcomes = [
                [Outcome(recipient.number, reply) for recipient in message.envelope.recipients]
                for message, _ in batch
            ]
        for (_, delivered), each in zip(batch, outcomes, strict=True):
            delivered.callback(each)
        self._work()

    def _deliver(self, messages: Sequence[Message]) -> Sequence[Sequence[Outcome]]:
        """Block until every recipient of every message has its outcome."""
        copies = [
            [
                _Copy(message.id, each, junk=bool(message.assessment.quarantine))
                for each in message.envelope.recipients
            ]
            for message in messages
        ]
        written = self._written(messages, copies)
        while batch := list(islice(written, _BATCH)):
            self._publish(batch)
        for copy in chain.from_iterable(copies):
            for path, error in copy.stray:
                self._log.warn(
                    "{id} {path} should not be there any more, and cannot be removed: {error}",
                    id=copy.id,
                    path=printable(path),
                    error=error.strerror,
                )
        return [
            [
                Outcome(
                    copy.recipient.number,
                    copy.reply or (JUNKED if copy.junk else DELIVERED),
                    uncertain=copy.uncertain,
                )
                for copy in each
            ]
            for each in copies
        ]

    def _written(
        self, messages: Sequence[Message], copies: Sequence[Sequence[_Copy]]
    ) -> Iterator[_Copy]:
        """Yield each copy whose file is written, still open and not synced; skip failures."""
        for message, its_copies in zip(messages, copies, strict=True):
            head = return_path(message.envelope.reverse_path)
            content = _octets if message.envelope.binary else _local_lines
            small: list[bytes] = []
            for copy in its_copies:
                recipient = copy.recipient
                own = head + delivered_to(recipient.mailbox, recipient.original) + message.trace
                try:
                    if message.body.size <= _SMALL and not small:
                        small.append(b"".join(content(message.body)))
                    if content is _local_lines:
                        own = own.replace(b"\r\n", b"\n")
                    self._write(copy, own, small or content(message.body))
                except NoMailbox as refusal:
                    copy.reply = refusal.reply
                except Exception as error:  # would end the thread of the executor
                    self._fail(copy, error)
                else:
                    yield copy

    def _write(self, copy: _Copy, head: bytes, content: Iterable[bytes]) -> None:
        domain, local_part = mailbox_directory(copy.recipient.mailbox)
        folder = _JUNK if copy.junk else ""
        copy.maildir = maildir = f"{self._root}/{domain}/{local_part}{folder}"
        key = copy.id, copy.recipient.number
        if key in self._stray:
            # Otherwise the stray file would be hidden by a mount, and not gone.
            self._directories.check(*self._directories.above)
            self._files.unlink(self._stray[key])
            del self._stray[key]
        self._ready(maildir)
        try:
            copy.name, copy.file = self._create(maildir)
        except FileNotFoundError:
            # A Maildir that `_ready` knows was removed.
            self._ready.cache_clear()
            self._ready(maildir)
            copy.name, copy.file = self._create(maildir)
        try:
            # The rename stays within this file system: it has to be the right one now.
            self._directories.check(self._root)
            for piece in content:
                copy.file.write(head + piece)
                head = b""
            if head:
                copy.file.write(head)
        except BaseException:
            with suppress(OSError):
                copy.file.close()
            self._remove(copy, copy.path_in_tmp)
            raise

    def _publish(self, copies: Sequence[_Copy]) -> None:
        """Sync written files, move them to ``new/``, and sync that."""
        for copy in copies:
            assert copy.file is not None
            try:
                try:
                    copy.file.sync()
                finally:
                    with suppress(OSError):  # a synced file is durable even if closing fails
                        copy.file.close()
                    copy.file = None
                error_in_tmp = self._files.rename(copy.path_in_tmp, copy.path_in_new)
                if error_in_tmp is not None:
                    copy.stray.append((copy.path_in_tmp, error_in_tmp))
            except Exception as error:
                self._remove(copy, copy.path_in_tmp)
                self._fail(copy, error)
        by_maildir: dict[str, list[_Copy]] = {}
        for copy in copies:
            if copy.reply is None:
                by_maildir.setdefault(copy.maildir, []).append(copy)
        for maildir, moved in by_maildir.items():
            try:
                self._files.sync_directory(f"{maildir}/new")
            except Exception as error:
                # They will be delivered again, so remove them; a reader may have been faster.
                for copy in moved:
                    if not self._remove(copy, copy.path_in_new):
                        while len(self._stray) >= MOST_REMEMBERED:
                            self._stray.pop(next(iter(self._stray)))
                        self._stray[copy.id, copy.recipient.number] = copy.path_in_new
                    self._fail(copy, error)
                    copy.uncertain = True

    def _fail(self, copy: _Copy, error: Exception) -> None:
        """Defer a recipient. Its reply may go to strangers: only the log has the path."""
        copy.reply = _deferred(error)
        why = _with_path(error, copy.maildir)
        self._log.error("{id} is not delivered: {error}", id=copy.id, error=why)

    def _create(self, maildir: str) -> tuple[str, WritableFile]:
        """Create a file under ``tmp/`` with a name that is unique for all time."""
        origin, host = self._origin
        for attempt in range(_NAMES_TRIED):
            seconds, microseconds = divmod(int(self._wall_time() * 1_000_000), 1_000_000)
            # https://cr.yp.to/proto/maildir.html: time, unique delivery identifier, host.
            name = f"{seconds}.M{microseconds:06}{origin}Q{next(self._numbers)}.{host}"
            try:
                return name, self._files.create(f"{maildir}/tmp/{name}")
            except FileExistsError:
                if attempt == _NAMES_TRIED - 1:
                    raise
        raise AssertionError("not reached")

    def _make_maildir(self, maildir: str) -> None:
        """Create the missing directories of a Maildir, or of its folder Junk, durably."""
        if maildir.endswith(_JUNK):
            self._ready(maildir.removesuffix(_JUNK))
            self._make_junk(maildir)
            return
        domain = os.path.dirname(maildir)
        above = self._directories.above
        self._directories.check(*above, domain, maildir)
        for name in ("tmp", "new", "cur"):
            self._files.make_directories(f"{maildir}/{name}")
        # Directories that exist may have been created just before a crash, and not be durable.
        durable: dict[str, tuple[int, int]] = {}
        for directory in (maildir, domain, self._root):
            self._files.sync_directory(directory)
            durable[directory] = self._files.identity(directory)
        self._find_fault(maildir)
        self._directories.check(*above)  # they may have gone just now
        self._directories.remember(durable)

    def _make_junk(self, folder: str) -> None:
        """Create the missing parts of a folder, durably; its Maildir exists."""
        maildir = os.path.dirname(folder)
        above = self._directories.above
        self._directories.check(*above, os.path.dirname(maildir), maildir)
        for name in ("tmp", "new", "cur"):
            self._files.make_directories(f"{folder}/{name}")
        self._find_fault(folder)
        with suppress(FileExistsError):
            self._files.create(f"{folder}/maildirfolder").close()
        for directory in (folder, maildir):
            self._files.sync_directory(directory)
        self._directories.check(*above, maildir)

    def _find_fault(self, maildir: str) -> None:
        """Raise where another user could redirect what is written into a Maildir or folder."""
        for name in ("tmp", "new"):
            fault = self._files.mailbox_fault(self._root, f"{maildir}/{name}")
            if fault:
                raise _Exposed(errno.EPERM, fault)

    def _remove(self, copy: _Copy, path: str) -> bool:
        """Remove a file; return whether it is gone."""
        try:
            self._files.unlink(path)
        except OSError as error:
            copy.stray.append((path, error))
            return False
        return True


def _local_lines(body: Body) -> Iterator[bytes]:
    """Yield a body with LF line ends, in pieces."""
    held = b""  # a CR whose LF may be the first octet of the next chunk
    for chunk in body.chunks():
        piece = held + chunk
        held = b"\r" if piece.endswith(b"\r") else b""
        yield piece[: len(piece) - len(held)].replace(b"\r\n", b"\n")
    if held:
        yield held


def _octets(body: Body) -> Iterator[bytes]:
    """Yield a body whose every octet is kept."""
    return body.chunks()
