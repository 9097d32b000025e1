"""A client session, played against a scripted dialogue."""

from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.body import Body, MemoryBody
from twisted_mta.mail.envelope import Envelope, Recipient, RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.mail.tls_facts import TLSFacts
from twisted_mta.mail.tls_policy import TLSLevel
from twisted_mta.smtp.client.session import ClientSession
from twisted_mta.smtp.client.step import (
    Dialect,
    SendBody,
    Step,
    TransactionDone,
    Unusable,
)
from twisted_mta.smtp.sasl.client import Credentials

NONCE = "rOprNGfwEbeRWgbNEkqO"
FACTS = TLSFacts(version="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384", bits=256)


def message(
    *recipients: str,
    content: bytes = b"Subject: x\r\n\r\n.dot\r\n",
    parameters: dict[str, str | int | None] | None = None,
    sender: str | None = "a@client.example",
    body: Body | None = None,
) -> Message:
    return Message(
        id=QueueId(1),
        envelope=Envelope(
            Mailbox.parse(sender) if sender else None,
            tuple(
                Recipient(RecipientNumber(10 + place), Mailbox.parse(recipient))
                for place, recipient in enumerate(recipients or ("b@example.net",))
            ),
            parameters or {},
        ),
        trace=b"Received: by client.example\r\n",
        body=body or MemoryBody(content),
        received_at=0.0,
        expires_at=1.0,
    )


class Player:
    """Plays dialogues: ``S:`` lines arrive in one piece, and ``C:`` lines must be sent."""

    def __init__(
        self,
        *messages: Message,
        tls: TLSLevel = "none",
        at_a_time: int = 0,
        dialect: Dialect = "smtp",
        credentials: Credentials | None = None,
    ) -> None:
        self.session = ClientSession(
            helo="client.example",
            remote="mx[192.0.2.1]:25",
            tls=tls,
            dialect=dialect,
            credentials=credentials,
            nonce=lambda: NONCE,
        )
        self.messages = list(messages)
        self.at_a_time = at_a_time
        self.steps: list[Step] = []
        self.sent = ""

    def take(self, steps: list[Step]) -> None:
        self.steps += steps
        for step in steps:
            if isinstance(step, SendBody):
                self.sent += b"".join(self.session.body()).decode()
        if self.session.idle and self.messages:
            following = self.messages.pop(0)
            self.take(self.session.transact(following))
        self.sent += self.session.output().decode()

    def receive(self, octets: bytes) -> None:
        size = self.at_a_time or len(octets)
        for start in range(0, len(octets), size):
            self.take(self.session.receive(octets[start : start + size]))

    def play(self, dialogue: str) -> "Player":
        arrived = ""
        for line in [*dialogue.strip().splitlines(), ""]:
            speaker, text = line.strip()[:2], line.strip()[3:]
            if speaker == "S:":
                arrived += f"{text}\r\n"
                continue
            if arrived:
                self.receive(arrived.encode())
                arrived = ""
            if speaker == "C:":
                sent, end, self.sent = self.sent.partition("\r\n")
                assert (sent, end) == (text, "\r\n"), f"expected {text!r}, got {sent!r}"
        assert not self.sent, f"not expected: {self.sent!r}"
        return self

    @property
    def outcomes(self) -> list[Outcome]:
        return [
            outcome
            for step in self.steps
            if isinstance(step, TransactionDone)
            for outcome in step.outcomes
        ]

    @property
    def replies(self) -> list[str]:
        return [str(outcome.reply) for outcome in self.outcomes]

    @property
    def unusable(self) -> Unusable:
        [step] = [step for step in self.steps if isinstance(step, Unusable)]
        return step


OPENING = """
    S: 220 mx.example ESMTP
    C: EHLO client.example
    S: 250-mx.example greets you
    S: 250-PIPELINING
    S: 250-SIZE 1000
    S: 250 8BITMIME
"""
PLAIN_OPENING = """
    S: 220 mx.example ESMTP
    C: EHLO client.example
    S: 250 mx.example
"""
GROUP = """
    C: MAIL FROM:<a@client.example> SIZE=49
    C: RCPT TO:<b@example.net>
    C: DATA
"""
CONTENT = """
    C: Received: by client.example
    C: Subject: x
    C:
    C: ..dot
    C: .
"""
