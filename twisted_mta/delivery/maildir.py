"""Local delivery into Maildirs, one file per recipient, with LF line ends.

Content of ``BODY=BINARYMIME`` has no lines (RFC 3030 §3): its file is what was received octet by
octet, and the fields above it end in CR LF too, so that it is one message with one kind of line
end.

A file is written under ``tmp/``, synced, moved to ``new/``, and ``new/`` is synced: only then is
the recipient delivered. A crash before that leaves a file in ``tmp/``, which nobody reads (readers
remove those older than 36 hours), or one in ``new/`` that will be delivered again.
"""

from __future__ import annotations

import errno
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import count

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..envelope import Body, Message, NextHop, Outcome
from ..interfaces import Executor, Files, Random, WallTime, WritableFile
from ..message.trace import return_path
from ..smtp.address import Mailbox
from ..smtp.reply import Reply, printable

DELIVERED = Reply.of(250, "0.0", "Delivered to the mailbox")

_NAME = 255  # octets of a file name on every file system in use
_REMEMBERED = 4096  # Maildirs known to be there; some 300 octets each
_SMALL = 64 * 1024  # octets of a body that is converted once for all recipients
_ATTEMPTS = 5  # at a unique name; one is enough unless a clock went back over a restart

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")

# What a disk can say, as (code, subject and detail) of RFC 3463; anything else is a mailbox that is
# broken for now. All of it is deferred: a person can put it right.
_STATUSES = {
    errno.ENOSPC: (452, "3.1"),
    errno.EDQUOT: (452, "2.2"),
    errno.EIO: (451, "3.0"),
    errno.EMFILE: (451, "3.2"),
    errno.ENFILE: (451, "3.2"),
}


class NoMailbox(Exception):
    """There can be no such Maildir; carries the reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


def mailbox_directory(mailbox: Mailbox) -> tuple[str, str]:
    """Return the names of the two folders, domain and local-part, that hold a mailbox.

    The only file names that are made from what a peer sent. Local-parts fold to lower case, and
    ``user+tag`` is ``user``.

    Raises:
        NoMailbox: the names would mean something to the file system.
    """
    # Two ways to write one character (é) are one mailbox: RFC 6532 §3.1.
    local_part = unicodedata.normalize("NFC", mailbox.local_part).lower().partition("+")[0]
    for name in (mailbox.domain, local_part):
        try:
            length = len(name.encode())
        except UnicodeEncodeError:  # a lone surrogate: octets that are not UTF-8
            length = 0
        if not 0 < length <= _NAME or name[0] == "." or "/" in name or _CONTROLS.search(name):
            raise NoMailbox(Reply.of(550, "1.3", "That can be no mailbox here"))
    return mailbox.domain, local_part


def _deferred(error: BaseException | None) -> Reply:
    if not isinstance(error, OSError) or error.errno is None:
        return Reply.of(451, "3.0", f"Local delivery is broken: {printable(repr(error))}")
    name = errno.errorcode.get(error.errno, str(error.errno))
    code, status = _STATUSES.get(error.errno, (451, "2.0"))
    return Reply.of(code, status, f"The mailbox cannot be written now ({name})")


class MaildirDelivery:
    """Delivers to ``ROOT/<domain>/<local-part>/{tmp,new,cur}``.

    Args:
        root: the folder above all of them.
        files: the disk.
        executor: where its calls block; one call per message.
        wall_time: for file names.
        hostname: for file names.
        random: 64 bits of it set the file names of this object apart from those of all others that
            ever deliver here under this hostname.
    """

    def __init__(
        self,
        root: str,
        *,
        files: Files,
        executor: Executor,
        wall_time: WallTime,
        hostname: str,
        random: Random,
    ) -> None:
        self._root = root
        self._files = files
        self._executor = executor
        self._wall_time = wall_time
        self._numbers = count()
        # "/" and ":" mean something in a Maildir, and are written as Maildir readers expect.
        host = printable(hostname).replace("/", r"\057").replace(":", r"\072")
        self._origin = f"R{random.getrandbits(64):016x}", host
        # An exception is not remembered: the next message tries again.
        self._ready = lru_cache(maxsize=_REMEMBERED)(self._make_maildir)

    def exists(self, mailbox: Mailbox) -> bool:
        """Whether somebody, or an earlier delivery, made the Maildir of ``mailbox``; blocks."""
        try:
            domain, local_part = mailbox_directory(mailbox)
        except NoMailbox:
            return False
        return self._files.is_directory(f"{self._root}/{domain}/{local_part}/new")

    def deliver(self, next_hop: NextHop, message: Message) -> Deferred[Sequence[Outcome]]:
        """Deliver to each recipient (`interfaces.Deliver`); never fails.

        An outcome is ``uncertain`` where the file may be in ``new/`` and yet not be durable.
        """
        delivery = self._executor(self._deliver, message)

        def broken(failure: Failure) -> Sequence[Outcome]:
            reply = _deferred(failure.value)
            return [Outcome(recipient.number, reply) for recipient in message.envelope.recipients]

        return delivery.addErrback(broken)

    def _deliver(self, message: Message) -> Sequence[Outcome]:
        """Block until every recipient has its outcome."""
        head = return_path(message.envelope.reverse_path) + message.trace
        content = _octets if message.envelope.binary else _local_lines
        small: list[bytes] = []
        outcomes = []
        for recipient in message.envelope.recipients:
            uncertain = False
            try:
                if message.body.size <= _SMALL and not small:
                    small.append(b"".join(content(head, message.body)))
                self._write(recipient.mailbox, small or content(head, message.body))
                reply = DELIVERED
            except NoMailbox as refusal:
                reply = refusal.reply
            except _NotDurable as error:
                reply, uncertain = _deferred(error.cause), True
            except Exception as error:  # an executor's thread is no place to die in
                reply = _deferred(error)
            outcomes.append(Outcome(recipient.number, reply, uncertain=uncertain))
        return outcomes

    def _write(self, mailbox: Mailbox, content: Iterable[bytes]) -> None:
        domain, local_part = mailbox_directory(mailbox)
        maildir = f"{self._root}/{domain}/{local_part}"
        self._ready(maildir)
        try:
            name, file = self._create(maildir)
        except FileNotFoundError:
            # Somebody removed a Maildir that we remember.
            self._ready.cache_clear()
            self._ready(maildir)
            name, file = self._create(maildir)
        written, delivered = f"{maildir}/tmp/{name}", f"{maildir}/new/{name}"
        try:
            try:
                for piece in content:
                    file.write(piece)
                file.sync()
            finally:
                file.close()
            self._files.rename(written, delivered)
        except BaseException:
            self._remove(written)
            raise
        try:
            self._files.sync_directory(f"{maildir}/new")
        except OSError as error:
            # It will be delivered again, so take it back; a reader may have been faster.
            self._remove(delivered)
            raise _NotDurable(error) from error

    def _create(self, maildir: str) -> tuple[str, WritableFile]:
        """Open a new file under ``tmp/``, whose name is its own for all time."""
        origin, host = self._origin
        for attempt in range(_ATTEMPTS):
            seconds, microseconds = divmod(int(self._wall_time() * 1_000_000), 1_000_000)
            # https://cr.yp.to/proto/maildir.html: time, what sets this delivery apart, host.
            name = f"{seconds}.M{microseconds:06}{origin}Q{next(self._numbers)}.{host}"
            try:
                return name, self._files.create(f"{maildir}/tmp/{name}")
            except FileExistsError:
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("not reached")

    def _make_maildir(self, maildir: str) -> None:
        """Make what is missing of a Maildir, durably, whoever began to make it."""
        for name in ("tmp", "new", "cur"):
            self._files.make_directories(f"{maildir}/{name}")
        # They may all be there, made just before a crash that kept them only in memory.
        domain = os.path.dirname(maildir)
        for directory in (maildir, domain, self._root):
            self._files.sync_directory(directory)

    def _remove(self, path: str) -> None:
        # What brought us here is told; that this failed too would tell nobody more.
        with suppress(OSError):
            self._files.unlink(path)


class _NotDurable(Exception):
    """A file is in ``new/``, and a power cut may lose it."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _local_lines(head: bytes, body: Body) -> Iterator[bytes]:
    """Yield the file's content: ``head`` and ``body`` with LF line ends, in pieces."""
    held = head  # what goes before the next chunk: at first the trace fields, then maybe a CR
    for chunk in body.chunks():
        piece = held + chunk
        held = b"\r" if piece.endswith(b"\r") else b""  # its LF may begin the next chunk
        yield piece[: len(piece) - len(held)].replace(b"\r\n", b"\n")
    if held:
        yield held.replace(b"\r\n", b"\n")


def _octets(head: bytes, body: Body) -> Iterator[bytes]:
    """Yield the content of a file whose every octet is kept."""
    yield head
    yield from body.chunks()
