"""The directory of messages that wait for the MTA, from ``twisted-mta-sendmail``.

Users of this machine write into it, and any of them may be hostile. The MTA looks into it at its
start, every few seconds, and when it is told to (``POST /v1/take-in``). It takes regular files with
one name only, follows no links, waits for no pipe, and believes the owner of a file, not its
content, about the user. What cannot be read is set aside, under another name, and logged. A file is
removed once its message is in the queue: after a crash in between, the message is sent twice rather
than not at all.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice, zip_longest
from typing import BinaryIO, Protocol

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..health.trouble import Trouble
from ..interfaces import Clock, Executor, WallTime
from ..mail.address import AddressError, Mailbox
from ..mail.body import MemoryBody
from ..mail.counted import counted
from ..mail.envelope import NO_PARAMETERS, Envelope, Parameters, Recipient, RecipientNumber
from ..mail.message import Message
from ..mail.outcome import Outcome
from ..mail.printable import printable
from ..mail.queue_id import QueueId
from ..mail.reply import Reply
from ..mail.xtext import encode_xtext
from ..message.dsn.delivery_status import ReportedRecipient
from ..message.dsn.notice import Notice, notice
from ..message.maildrop import LONGEST_ENVELOPE, PARTIAL, READY, WaitingEnvelope, read_envelope
from ..queue.ids import first_id
from ..server.application_mail import Receipt, SubmissionRefused
from ..smtp.command import CommandError
from ..smtp.extension.dsn import DSN
from ..system.repetition import Repetition
from .maildrop_counts import SET_ASIDE, Counts

_PRIVATE = 0o700
# All users may write files, only their owners and we remove them, and the MTA's group reads them.
_SHARED = 0o3733
_INTERVAL = 5.0  # seconds between two looks
_MOST_RESTING = 100_000  # deferred messages whose time is kept
_MOST_AT_A_LOOK = 1_000  # messages
_AT_ONCE = 20  # messages that are on their way into the queue
_SHARE = 20.0  # times what a look at the names took, until the next one
_REST = 60.0  # seconds until a deferred message is tried again
_ABANDONED = 86_400.0  # seconds after which a file that was never completed is removed
_LONGEST_KEPT = 7 * 86_400.0  # seconds that a file stays set aside
_LONGEST_ID = 33  # characters; RFC 3461 §4.4: 100 as xtext
_RETURNED = 1 << 20  # octets of a message that a notice returns; of a longer one, only the header

NOT_A_MAILBOX = Reply.of(553, "1.3", "Not a mailbox")
TOO_LARGE = Reply.of(552, "3.4", "Message exceeds the limit of this server")
UNUSABLE = Reply.of(554, "6.0", "The message cannot be read")


class Submit(Protocol):
    """Puts a message of a local user into the queue; fires after the commit.

    Fails with `SubmissionRefused`; with `ValueError` or `TypeError` where it cannot be used.
    """

    def __call__(
        self,
        message: BinaryIO | bytes,
        *,
        sender: str,
        recipients: Sequence[Mailbox],
        notify: str | None = None,
        parameters: Parameters = NO_PARAMETERS,
        user: int | None = None,
    ) -> Deferred[Receipt]:
        """Submit a message."""
        ...


@frozen(eq=False)
class _Waiting:
    """A message that waits: its open file stands at the content."""

    name: str
    file: BinaryIO
    envelope: WaitingEnvelope
    sender: str
    recipients: Sequence[Mailbox]
    malformed: Sequence[str]
    start: int
    size: int
    user: int


class Maildrop:
    """Takes in messages that wait.

    Args:
        directory: where they wait.
        shared: whether users of this machine write there; else its owner and root alone.
        submit: puts a message into the queue.
        executor: where files are read.
        clock: for timers.
        wall_time: the time of day.
        limit: returns the octets that a message may have.
        hostname: our name in notices.
        notice_domain: the domain of their author.

    Attributes:
        counts: of its files.
    """

    _log = Logger()

    def __init__(
        self,
        directory: str,
        *,
        shared: bool,
        submit: Submit,
        executor: Executor,
        clock: Clock,
        wall_time: WallTime,
        limit: Callable[[], int],
        hostname: str,
        notice_domain: Callable[[], str],
    ) -> None:
        self._directory = directory
        self._shared = shared
        self._submit = submit
        self._executor = executor
        self._clock = clock
        self._wall_time = wall_time
        self._limit = limit
        self._hostname = hostname
        self._notice_domain = notice_domain
        self._looking: Deferred[None] | None = None
        self._again = False
        self._stopped = False
        self._rests_until = 0.0
        self._trouble = ""
        self.counts = Counts()
        self._notices = 0
        self._not_before: dict[str, float] = {}  # by name: deferred messages
        # By name: messages of which only a notice is left to send, with what was refused.
        self._half_done: dict[str, Mapping[str, Reply]] = {}
        self._repetition = Repetition(self._look_again, clock)

    def start(self) -> None:
        """Make the directory, look into it, and again every few seconds."""
        self._repetition.start(_INTERVAL)
        self.take_in()

    def stop(self) -> Deferred[None]:
        """Begin no more messages; fires when those under way are in the queue, or are not."""
        self._stopped = True
        if self._repetition.running:
            self._repetition.stop()
        return self._ended()

    def take_in(self) -> Deferred[None]:
        """Take in what waits now; fires when it is done. It never fails."""
        if self._stopped:
            return succeed(None)
        self._again = True
        if self._looking is None:
            self._looking = looking = Deferred.fromCoroutine(self._look())
            looking.addErrback(self._failed).addCallback(self._looked)
        return self._ended()

    def troubles(self) -> Iterator[Trouble]:
        """Yield that mail cannot be taken in."""
        now = self._clock.seconds()
        resting = sum(until > now for until in self._not_before.values())
        text = ""
        if self._trouble:
            text = f"mail that waits in {self._directory} cannot be taken in: {self._trouble}"
        elif resting:
            text = f"{counted(resting, 'message')} in {self._directory} could not be taken in yet"
        if text:
            yield Trouble(kind="waiting", text=printable(text))

    def _look_again(self) -> Deferred[None] | None:
        return self.take_in() if self._clock.seconds() >= self._rests_until else None

    def _ended(self) -> Deferred[None]:
        ended: Deferred[None] = Deferred()
        if self._looking is None:
            return succeed(None)

        def pass_on(result: None) -> None:
            ended.callback(None)

        self._looking.addCallback(pass_on)
        return ended

    def _looked(self, _: object) -> None:
        self._looking = None

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, OSError):
            why = f"{error.strerror or error}"
            if why != self._trouble:
                self._log.error(
                    "mail that waits in {directory} cannot be taken in: {why}",
                    directory=printable(self._directory),
                    why=why,
                )
            self._trouble = why
        else:
            self._log.failure("mail that waits could not be taken in", failure)

    async def _look(self) -> None:
        while self._again and not self._stopped:
            self._again = False
            await self._executor(_prepare, self._directory, _SHARED if self._shared else _PRIVATE)
            now = self._clock.seconds()
            resting = {name: None for name, until in self._not_before.items() if until > now}
            names: Sequence[str]
            names, self.counts = await self._executor(
                _ready, self._directory, self._wall_time(), resting
            )
            # Whoever fills the directory does not keep the processor busy with it.
            ended = self._clock.seconds()
            self._rests_until = ended + _SHARE * (ended - now)
            self._trouble = ""
            left = iter(names)
            while not self._stopped and (some := list(islice(left, _AT_ONCE))):
                await DeferredList([self._take(name) for name in some])

    def _take(self, name: str) -> Deferred[None]:
        def failed(failure: Failure) -> None:
            self._defer(name)
            self._log.failure("{name} waits, and could not be taken in", failure, name=name)

        return Deferred.fromCoroutine(self._take_one(name)).addErrback(failed)

    def _defer(self, name: str) -> None:
        if len(self._not_before) >= _MOST_RESTING:
            self._not_before.clear()
        self._not_before[name] = self._clock.seconds() + _REST

    async def _take_one(self, name: str) -> None:
        path = os.path.join(self._directory, name)
        try:
            waiting: _Waiting = await self._executor(_open, path, name)
        except (FileNotFoundError, PermissionError) as error:
            if isinstance(error, PermissionError):
                self._log.warn("{name} waits, and may not be read", name=name)
                self._defer(name)
            return
        except (OSError, ValueError) as error:
            await self._set_aside(name, error)
            return
        try:
            done = await self._submitted(waiting)
        except (ValueError, TypeError) as error:
            await self._set_aside(name, error)
            return
        finally:
            await self._executor(waiting.file.close)
        if not done:
            self._defer(name)
            return
        await self._executor(_remove, path)
        self.counts = evolve(self.counts, waiting=max(0, self.counts.waiting - 1))
        self._not_before.pop(name, None)
        self._half_done.pop(name, None)

    async def _set_aside(self, name: str, error: Exception) -> None:
        self._log.warn(
            "{name} waits in {directory}, and is no message, so it is set aside: {why}",
            name=printable(name),
            directory=printable(self._directory),
            why=printable(str(error)),
        )
        path = os.path.join(self._directory, name)
        await self._executor(os.rename, path, os.path.join(self._directory, SET_ASIDE + name))
        waiting, set_aside = max(0, self.counts.waiting - 1), self.counts.set_aside + 1
        self.counts = Counts(waiting, set_aside)

    async def _submitted(self, waiting: _Waiting) -> bool:
        """Put a message into the queue, and a notice of what is refused; False: try again."""
        envelope, sender = waiting.envelope, waiting.sender
        if waiting.name in self._half_done:
            return await self._noticed(waiting, sender, self._half_done[waiting.name])
        recipients = waiting.recipients
        refused = dict.fromkeys(waiting.malformed, NOT_A_MAILBOX)
        if waiting.size > self._limit():
            refused.update(dict.fromkeys(map(str, recipients), TOO_LARGE))
            recipients = []
        while recipients:
            try:
                await self._executor(waiting.file.seek, waiting.start)
                await self._submit(
                    waiting.file,
                    sender=sender,
                    recipients=recipients,
                    notify=_notify(envelope.notify),
                    parameters=_parameters(envelope),
                    user=waiting.user,
                )
                break
            except SubmissionRefused as error:
                if error.reply.code < 500 and not error.recipients:
                    return False
                deferred = [each for each in error.recipients.values() if each.code < 500]
                if deferred:
                    return False
                permanent = error.recipients or dict.fromkeys(map(str, recipients), error.reply)
                refused.update(permanent)
                recipients = [each for each in recipients if str(each) not in permanent]
        if not refused:
            return True
        self._half_done[waiting.name] = refused
        return await self._noticed(waiting, sender, refused)

    async def _noticed(self, waiting: _Waiting, sender: str, refused: Mapping[str, Reply]) -> bool:
        for text, reply in islice(refused.items(), 10):
            self._log.info(
                "{name} is refused: from=<{sender}> to=<{recipient}> user=uid:{user}: {reply}",
                name=waiting.name,
                sender=printable(sender),
                recipient=printable(text),
                user=waiting.user,
                reply=reply,
            )
        if not sender or waiting.envelope.notify == "NEVER":
            return True
        content: bytes = await self._executor(_returned, waiting)
        self._notices = (self._notices + 1) % 10_000
        id = QueueId(first_id(self._wall_time()) + self._notices)
        written: Notice = await self._executor(
            notice,
            "failed",
            _message(id, sender, waiting, content, self._wall_time()),
            [_reported(number, each) for number, each in enumerate(refused.items())],
            hostname=self._hostname,
            domain=self._notice_domain(),
            id=id,
            time=self._wall_time(),
        )
        try:
            await self._submit(
                written.content, sender="", recipients=[Mailbox.parse(sender)], notify="NEVER"
            )
        except SubmissionRefused as error:
            if error.reply.code < 500:
                return False
            self._log.warn(
                "no notice about {name} to <{sender}>: {reply}",
                name=waiting.name,
                sender=printable(sender),
                reply=error.reply,
            )
        return True


def _notify(text: str) -> str | None:
    try:
        return str(DSN.rcpt["NOTIFY"](text)) if text else None
    except CommandError:
        return None


def _parameters(envelope: WaitingEnvelope) -> Parameters:
    parameters: dict[str, str | int | None] = {}
    if envelope.returned in ("FULL", "HDRS"):
        parameters["RET"] = envelope.returned
    if envelope.envelope_id and len(envelope.envelope_id) <= _LONGEST_ID:
        parameters["ENVID"] = encode_xtext(envelope.envelope_id)
    return parameters


def _message(id: QueueId, sender: str, waiting: _Waiting, content: bytes, now: float) -> Message:
    return Message(
        id=id,
        envelope=Envelope(Mailbox.parse(sender), (), _parameters(waiting.envelope)),
        trace=b"",
        body=MemoryBody(content),
        received_at=now,
        expires_at=now,
    )


def _reported(number: int, refused: tuple[str, Reply]) -> ReportedRecipient:
    text, reply = refused
    try:
        mailbox = Mailbox.parse(text)
    except AddressError:
        mailbox = Mailbox(printable(text)[:200], "invalid")
    recipient = Recipient(RecipientNumber(number), mailbox)
    return ReportedRecipient(recipient, Outcome(recipient.number, reply), attempted=False)


# What blocks, in a thread.


def _prepare(directory: str, mode: int) -> None:
    """Make the directory, or give it its mode.

    Raises:
        OSError: it cannot be used.
    """
    try:
        status = os.lstat(directory)
    except FileNotFoundError:
        os.mkdir(directory, _PRIVATE)
        status = os.lstat(directory)
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(f"{directory} is no directory")
    if stat.S_IMODE(status.st_mode) != mode:
        os.chmod(directory, mode)


def _ready(directory: str, now: float, resting: Mapping[str, None]) -> tuple[list[str], Counts]:
    """Return the names of messages that are ready, those of each user in turn, and the counts.

    Files that were never completed, and those that were set aside, are removed in time.
    """
    by_user: dict[int, list[str]] = {}
    waiting = set_aside = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            name = entry.name
            longest = {PARTIAL: _ABANDONED, SET_ASIDE: _LONGEST_KEPT}.get(
                f"{name.partition('-')[0]}-"
            )
            if not name.startswith(READY) and longest is None:
                continue
            waiting += longest is None
            set_aside += name.startswith(SET_ASIDE)
            if name in resting:
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if longest is None:
                names = by_user.setdefault(status.st_uid, [])
                if len(names) < _MOST_AT_A_LOOK:
                    names.append(name)
            elif now - max(status.st_mtime, status.st_ctime) > longest:
                _remove(os.path.join(directory, name))
    in_turn = chain.from_iterable(zip_longest(*by_user.values()))
    some = islice((name for name in in_turn if name is not None), _MOST_AT_A_LOOK)
    return list(some), Counts(waiting, set_aside)


def _open(path: str, name: str) -> _Waiting:
    """Open a message.

    Raises:
        FileNotFoundError: it is gone.
        PermissionError: it may not be read.
        OSError: it cannot be read.
        ValueError: it is no message of one user.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    opened = os.open(path, flags)
    status = os.fstat(opened)
    if not stat.S_ISREG(status.st_mode):
        os.close(opened)
        raise ValueError("found a special file, expected a regular one")
    file = os.fdopen(opened, "rb", buffering=0)
    try:
        if status.st_nlink != 1:
            raise ValueError(f"found a file with {status.st_nlink} names, expected one")
        envelope, start = read_envelope(file.read(LONGEST_ENVELOPE))
        user = status.st_uid
        if envelope.user >= 0 and user in (0, os.geteuid()):
            user = envelope.user
        sender = str(Mailbox.parse(envelope.sender)) if envelope.sender else ""
        recipients, malformed = _recipients(envelope)
        size = status.st_size - start
        return _Waiting(name, file, envelope, sender, recipients, malformed, start, size, user)
    except BaseException:
        file.close()
        raise


def _recipients(envelope: WaitingEnvelope) -> tuple[Sequence[Mailbox], Sequence[str]]:
    """Return the recipients, and what is no mailbox."""
    recipients: list[Mailbox] = []
    malformed: list[str] = []
    for text in dict.fromkeys(envelope.recipients):
        try:
            recipients.append(Mailbox.parse(text))
        except AddressError:
            malformed.append(text)
    return recipients, malformed


def _returned(waiting: _Waiting) -> bytes:
    """Return the content for a notice, with CR LF line ends; of a long one, the beginning."""
    waiting.file.seek(waiting.start)
    content = waiting.file.read(_RETURNED + 1)
    if len(content) > _RETURNED:
        content = content[:_RETURNED].partition(b"\r\n\r\n")[0] + b"\r\n"
    return content


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        return  # it is gone, or was no file of sendmail
