"""An intake whose queue is in memory, and sessions that talk to it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from ipaddress import ip_network
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from tests.tidy import TidyTestCase
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.final_recipient import FinalRecipient
from twisted_mta.mail.message import Message
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.mail.reply import Reply
from twisted_mta.policy.capacity import Capacity
from twisted_mta.server.intake import Intake
from twisted_mta.server.intake_policy import IntakePolicy
from twisted_mta.smtp.peer import Peer
from twisted_mta.smtp.server.session import Session
from twisted_mta.smtp.server.step import Finish, Mail, Open, Rcpt, Write
from twisted_mta.testing.server_options import ServerOptions

STRANGER, FRIEND, OWN = "198.51.100.9", "192.0.2.7", "203.0.113.1"
NO_SUCH = Reply.of(550, "1.1", "No such mailbox here")


LOCAL = ("mx.example", "xn--bcher-kva.example")


class Queue:
    """Takes messages, and records each body."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.refusal: Exception | None = None
        self.error: Exception | None = None
        self.late = False  # the error comes when the body is sealed
        self.begun = 0
        self.discarded = 0
        self.existing: list[Mailbox] | None = None
        self.aliases: dict[str, Reply | list[FinalRecipient]] = {}
        self.expanded: list[tuple[str, str]] = []
        self.clock = Clock()
        self.free = 5000

    @cached_property
    def capacity(self) -> Capacity:
        """Memory for two messages, and a disk with ``self.free`` free octets."""
        return Capacity(
            memory=250, share=100, minimum_free=1000, free=lambda: self.free, clock=self.clock
        )

    def accept(self, message: Message) -> Deferred[None]:
        if self.refusal is not None:
            return fail(self.refusal)
        self.messages.append(message)
        return succeed(None)

    def new_body(self, id: QueueId) -> Any:
        self.begun += 1
        return Writer(self)

    def exists(self, mailbox: Mailbox) -> bool:
        return self.existing is None or mailbox in self.existing

    def expand(
        self, mailbox: Mailbox, reverse_path: Mailbox | None
    ) -> Reply | Sequence[FinalRecipient]:
        self.expanded.append((str(mailbox), str(reverse_path)))
        return self.aliases.get(str(mailbox), [FinalRecipient(mailbox)])

    def intake_for(self, network: str) -> Intake:
        return self.intake(relay_from=(ip_network(network),))

    def intake(self, **policy: Any) -> Intake:
        ids = iter(range(1, 1000))
        return Intake(
            IntakePolicy(
                hostname="mx.example",
                local_domains=LOCAL,
                **{
                    "relay_from": (ip_network("192.0.2.0/24"), ip_network("::1/128")),
                    **policy,
                },
            ),
            accept=self.accept,
            new_body=self.new_body,
            exists=self.exists,
            expand=self.expand,
            ids=lambda: QueueId(next(ids)),
            wall_time=lambda: 1_790_000_000.0,
            capacity=self.capacity,
        )


class Writer:
    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.pieces: list[bytes] = []
        self.discarded = False

    def write(self, content: bytes) -> None:
        assert not self.discarded
        if self.queue.error is not None and not self.queue.late:
            raise self.queue.error
        self.pieces.append(content)

    def seal(self) -> MemoryBody | Deferred[MemoryBody]:
        assert not self.discarded
        if self.queue.error is not None:
            self.discard()
            return fail(self.queue.error)
        return MemoryBody(b"".join(self.pieces))

    def discard(self) -> None:
        if not self.discarded:
            self.discarded = True
            self.queue.discarded += 1


class IntakeTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.queue = Queue()
        self.intake = self.queue.intake()

    def begin(self, peer: str | None, *, hostname: str = OWN) -> Session:
        session = self.begin_session(peer, hostname=hostname)
        self.send(session, "MAIL FROM:<a@sender.example>")
        session.output()
        return session

    def begin_session(self, peer: str | None, *, hostname: str = OWN) -> Session:
        session = Session(
            ServerOptions(max_errors=10_000).settings(), peer=Peer(peer), local_address=hostname
        )
        session.receive(b"EHLO client.example\r\n")
        assert session.step() is None
        session.output()
        return session

    def send(self, session: Session, line: str) -> str:
        session.output()
        session.receive(line.encode() + b"\r\n")
        while (step := session.step()) is not None:
            if isinstance(step, Mail):
                session.answer(self.intake.mail(session, *step))
            elif isinstance(step, Rcpt):
                session.answer(self.intake.rcpt(session, *step))
            else:
                assert isinstance(step, Open)
                opened = self.intake.open(session)
                if isinstance(opened, Reply):
                    session.answer(opened)
                else:
                    self.sink = opened
                    session.answer()
        return session.output().decode("ascii")[:9]

    def content(self, session: Session, *pieces: bytes) -> Reply:
        """Return the decision on a content."""
        self.send(session, "DATA")
        for piece in pieces:
            session.receive(piece)
            while (step := session.step()) is not None:
                assert isinstance(step, Write)
                self.sink.write(step.content)
        session.receive(b"\r\n.\r\n")
        while True:
            step = session.step()
            if isinstance(step, Finish):
                break
            assert isinstance(step, Write)
            self.sink.write(step.content)
        decision = self.sink.finish()
        if isinstance(decision, Deferred):
            decision = self.successResultOf(decision)
        assert decision is not None
        session.answer(decision)
        return decision


class StoringTestCase(IntakeTestCase):
    def ready(self) -> Session:
        session = self.begin(STRANGER)
        self.send(session, "RCPT TO:<u@mx.example>")
        return session
