"""The readers of commands and replies, of SASL, and of PROXY headers."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress

from twisted.logger import Logger

from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.classification import classify
from twisted_mta.mail.envelope import Envelope, Recipient, RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.mail.reply import Reply
from twisted_mta.mail.tls_facts import TLSFacts
from twisted_mta.policy.delegation.answer import AnswerReader, ServiceError, read_action
from twisted_mta.server.message_delivery import _LineSink
from twisted_mta.server.proxy_header import ProxyError, read_header
from twisted_mta.smtp.client.reply_reader import BrokenReply, ReplyReader
from twisted_mta.smtp.client.session import ClientSession
from twisted_mta.smtp.client.step import SendBody, StartTLS, TransactionDone
from twisted_mta.smtp.conversation import Conversation, Overhearing, transcript
from twisted_mta.smtp.sasl.client import (
    CLIENT_MECHANISMS,
    TOKEN_MECHANISMS,
    Credentials,
    TokenCredentials,
    client_mechanism,
)
from twisted_mta.smtp.sasl.evidence import ScramSalt
from twisted_mta.smtp.sasl.exchange import SASLError
from twisted_mta.smtp.sasl.saslprep import prepared
from twisted_mta.smtp.sasl.server import MECHANISMS, Circumstances
from twisted_mta.testing.delivery import RecordingDelivery
from twisted_mta.testing.pure_wire import PureWire
from twisted_mta.testing.server_options import ServerOptions

from ..scaling import Reader

_NOW = 1_790_000_000.0
_OPTIONS = ServerOptions(
    auth="any",
    binarymime=True,
    limits=True,
    smtputf8=True,
    dsn=True,
    deliverby=1,
    futurerelease=100_000,
    mtpriority=True,
    xclient=True,
    peer="192.0.2.7",
    max_recipients=1000,
)
_EHLO = b"EHLO client.example\r\n"
_MAIL = b"MAIL FROM:<a@a.example> SMTPUTF8\r\n"
_RCPT = b"RCPT TO:<b@mx.example>\r\n"


# From clients.


def _session(*before: bytes, segment: int = 0) -> Callable[[bytes], None]:
    def read(octets: bytes) -> None:
        wire = PureWire(_OPTIONS, RecordingDelivery())
        for each in before:
            wire.receive(each)
        size = segment or max(1, len(octets))
        for at in range(0, len(octets), size):
            wire.receive(octets[at : at + size])

    return read


_COMMANDS = (
    *(b"NOOP\r\n", b"RSET\r\n", b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<a@b>\r\n", _EHLO, b"HELP\r\n"),
    *(
        b"VRFY a\r\n",
        b"x\r\n",
        b"\r\n",
        b"\r",
        b"\n",
        b"\0",
        b"a",
        b" ",
        b"=",
        b"\xc3\xa9",
        b"BDAT 0\r\n",
    ),
    *(
        b"BDAT 1\r\nx",
        b"XCLIENT ADDR=192.0.2.1\r\n",
        b"a=b ",
        b"NOOP x\r\n",
        b"AUTH PLAIN =\r\n",
        b"+41",
    ),
    b"MAIL FROM:<a@b>\r\nRSET\r\n",
    b"RCPT TO:<a@[IPv6:::1]> NOTIFY=NEVER ORCPT=rfc822;a+41b\r\n",
)
_PARAMETERS = (
    *(
        b" ",
        b"SIZE=1 ",
        b"BODY=8BITMIME ",
        b"X=",
        b"a",
        b"=",
        b"+41",
        b"ENVID=a",
        b"\xc3\xa9",
        b"1",
        b";",
    ),
    *(b"NOTIFY=", b"SUCCESS,", b",", b"\\x{E9}", b"-", b"+", b"utf-8;", b"T"),
)
_CONTENT = (
    *(
        b"\r\n",
        b"\r\n.",
        b"\r\n..",
        b".",
        b"\r",
        b"\n",
        b"\0",
        b"a",
        b"\r\n.\r",
        b"x" * 998 + b"\r\n",
    ),
    *(b"x" * 1200, b"\n.\n", b"\xe9"),
)


class _Message:
    """An application's message, which keeps nothing."""

    def lineReceived(self, line: bytes) -> None:
        pass


def _lines(octets: bytes) -> None:
    for size in (len(octets), 16):
        lines = _LineSink(lambda failure: Reply.of(451, "3.0", "x"), Logger(), per_recipient=False)
        lines.begin(_Message, lambda: b"")
        for at in range(0, len(octets), size):
            lines.write(octets[at : at + size])


def _sasl_server(octets: bytes) -> None:
    here = Circumstances(hostname="mx.example", nonce=lambda: "3rfcNHYJY1ZVvWVs7j")
    for name, new in MECHANISMS.items():
        mechanism = new(here)
        with suppress(SASLError):
            mechanism.begin(None if name in ("LOGIN", "CRAM-MD5") else octets)
        with suppress(SASLError):
            if name.startswith("SCRAM"):
                mechanism.salted(ScramSalt(b"salt", 4096))
            mechanism.respond(octets)


def _prepare(octets: bytes) -> None:
    with suppress(SASLError):
        prepared(octets.decode("utf-8", "replace"))


def _proxy(octets: bytes) -> None:
    for size in (len(octets), 16):
        held = b""
        with suppress(ProxyError):
            for at in range(0, len(octets), max(1, size)):
                held += octets[at : at + size]
                if read_header(held) is not None:
                    break


def _checked(octets: bytes) -> bytes:
    """Return a PROXY header of version 2 with a wrong checksum and other octets."""
    rest = b"\1" * 12 + b"\x03\x00\x04abcd" + b"\x04" + len(octets).to_bytes(2, "big") + octets
    return b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + min(4096, len(rest)).to_bytes(2, "big") + rest


# From servers.

_REPLIES = (
    *(
        b"250 OK\r\n",
        b"250-x\r\n",
        b"250 \r\n",
        b"250\r\n",
        b"220 x\r\n",
        b"354 x\r\n",
        b"450 x\r\n",
    ),
    *(
        b"550-x\r\n",
        b"550 5.1.1 x\r\n",
        b"334 \r\n",
        b"421 x\r\n",
        b"x\r\n",
        b"\r\n",
        b"\r",
        b"\n",
        b"\0",
    ),
    *(
        b"2",
        b" ",
        b"-",
        b"250-SIZE 1\r\n",
        b"250-LIMITS RCPTMAX=1 ",
        b"RCPTMAX=1 ",
        b"\xc3\xa9",
        b"\xff",
    ),
    *(b"250-AUTH PLAIN ", b"PLAIN ", b"5.1.1 ", b"1"),
)
_CREDENTIALS = Credentials("user", "pencil")
_TOKEN = TokenCredentials("user", "abc")


def _message() -> Message:
    recipients = tuple(
        Recipient(RecipientNumber(number), Mailbox(f"r{number}", "next.example"))
        for number in range(50)
    )
    return Message(
        id=QueueId(5),
        envelope=Envelope(Mailbox("ann", "a.example"), recipients),
        trace=b"",
        body=MemoryBody(b"Subject: x\r\n\r\nx\r\n"),
        received_at=_NOW,
        expires_at=_NOW,
    )


def _client(*before: bytes, auth: bool = False, segment: int = 0) -> Callable[[bytes], None]:
    """Return a reader of a server's octets after an earlier reply."""

    def read(octets: bytes) -> None:
        session = ClientSession(
            helo="mx.example",
            remote="next.example[192.0.2.9]:25",
            tls="may",
            credentials=_CREDENTIALS if auth else None,
            nonce=lambda: "rOprNGfwEbeRWgbNEkqO",
        )
        begun = False

        def take(octets: bytes) -> None:
            nonlocal begun
            for step in session.receive(octets):
                if isinstance(step, StartTLS):
                    session.handshake_completed(TLSFacts("TLSv1.3", "x", 256))
                elif isinstance(step, SendBody):
                    for _ in session.body():
                        pass
                elif isinstance(step, TransactionDone):
                    for outcome in step.outcomes:
                        str(outcome.reply)
            if session.idle and not begun:
                begun = True
                session.transact(_message())
            session.output()

        for each in before:
            take(each)
        size = segment or max(1, len(octets))
        for at in range(0, len(octets), size):
            take(octets[at : at + size])

    return read


def _replies(octets: bytes) -> None:
    reader = ReplyReader()
    with suppress(BrokenReply):
        for at in range(0, len(octets), 65_536):
            reader.feed(octets[at : at + 65_536])
            while (reply := reader.next()) is not None:
                str(reply)


def _challenge(octets: bytes) -> None:
    for name in (*CLIENT_MECHANISMS, *TOKEN_MECHANISMS):
        credentials = _TOKEN if name in TOKEN_MECHANISMS else _CREDENTIALS
        mechanism = client_mechanism(name, credentials, lambda: "rOprNGfwEbeRWgbNEkqO")
        assert mechanism is not None
        with suppress(SASLError):
            mechanism.initial()
            mechanism.respond(octets)
            mechanism.respond(octets)


def _converse(octets: bytes) -> None:
    conversation = Conversation()
    conversation.begin()
    for at in range(0, len(octets), 1000):
        conversation.sent(b"NOOP\r\n")
        conversation.received(octets[at : at + 1000])
    transcript(conversation.lines())
    overhearing = Overhearing(lambda line: None)
    overhearing.sent(octets)
    for line in octets.split(b"\r\n"):
        overhearing.received(line)


_GREETED = (b"220 next.example\r\n", b"250-next.example\r\n250 PIPELINING\r\n")


def _service(octets: bytes) -> None:
    """Read the answer of a policy service, in one piece and cut as small as possible."""
    for size in (len(octets) or 1, 1):
        with suppress(ServiceError):
            reader = AnswerReader()
            for at in range(0, len(octets), size):
                action = reader.feed(octets[at : at + size])
                if action is not None:
                    read_action(action)


_ACTIONS = (
    *(
        b"a=b\n",
        b"action=",
        b"action=OK\n",
        b"DUNNO",
        b" ",
        b"\n",
        b"=",
        b"\xc3\xa9",
        b"1",
        b"5.7.",
    ),
    *(b"X: ", b"a@", b"<", b'"', b"\\", b"."),
)


def _classify(octets: bytes) -> None:
    classify(Reply.of(550, None, octets.decode("latin-1")))


READERS = (
    Reader(
        name="policy service answers",
        read=_service,
        words=_ACTIONS,
        frames=(
            (b"", b""),
            (b"", b"\n\n"),
            (b"action=", b"\n\n"),
            (b"action=550 ", b"\n\n"),
            (b"action=PREPEND X: ", b"\n\n"),
            (b"action=BCC ", b"\n\n"),
        ),
    ),
    Reader(
        name="classification of replies",
        read=_classify,
        words=(
            b"over quota",
            b"user unknown",
            b"5.1.1",
            b"5.",
            b" ",
            b"\t",
            b"spf",
            b"dmarc",
            b"a",
        ),
        frames=((b"", b""), (b"5.4.7 ", b"")),
    ),
    Reader(
        name="commands",
        read=_session(),
        words=_COMMANDS,
        frames=((b"", b"\r\n"), (_EHLO, b""), (_EHLO + _MAIL, b""), (_EHLO + _MAIL + _RCPT, b"")),
        place="turns",
    ),
    Reader(
        name="commands in segments",
        read=_session(_EHLO, segment=5),
        words=_COMMANDS,
        frames=((b"", b"\r\n"), (_MAIL, b"\r\n"), (b"NOOP ", b"\r\n")),
        place="thread",
    ),
    Reader(
        name="parameters",
        read=_session(_EHLO),
        words=_PARAMETERS,
        frames=(
            (b"MAIL FROM:<a@b> ", b"\r\n"),
            (b"MAIL FROM:<a@b>", b" X\r\n"),
            (_MAIL + b"RCPT TO:<a@b> ", b"\r\n"),
            (_MAIL + b"RCPT TO:<a@b> ORCPT=rfc822;", b"\r\n"),
            (b"XCLIENT ", b"\r\n"),
            (b"XCLIENT HELO=", b"\r\n"),
            (b"AUTH ", b"\r\n"),
            (b"EHLO ", b"\r\n"),
            (b"BDAT ", b"\r\n"),
        ),
    ),
    Reader(
        name="data",
        read=_session(_EHLO, _MAIL + _RCPT, b"DATA\r\n"),
        words=_CONTENT,
        frames=((b"", b""), (b"a: b\r\n", b"\r\n.\r\n")),
    ),
    Reader(
        name="data in segments",
        read=_session(_EHLO, _MAIL + _RCPT, b"DATA\r\n", segment=100),
        words=_CONTENT,
        frames=((b"", b""), (b"a: b\r\n", b"\r\n.\r\n")),
        most=1 << 18,
        place="thread",
    ),
    Reader(
        name="chunk",
        read=_session(_EHLO, _MAIL + _RCPT, b"BDAT 1048576 LAST\r\n"),
        words=_CONTENT,
    ),
    Reader(
        name="lines for an application",
        read=_lines,
        words=(b"a", b"\r\n", b"\r", b"a\r\n", b"\n", b"a" * 998 + b"\r\n"),
        frames=((b"", b""), (b"a: b\r\n\r\n", b"\r\n")),
        most=1 << 20,
        place="turns",
    ),
    Reader(
        name="sasl of a client",
        read=_sasl_server,
        words=(
            *(
                b"a",
                b"\0",
                b",",
                b"=",
                b"n,,",
                b"n=a,",
                b"r=a,",
                b"=2C",
                b"a=",
                b"auth=",
                b"\x01",
                b",p=",
            ),
            *(
                b"AAAA",
                b"\xc3\xa9",
                b"\xcc\x81\xcc\xa3",
                b"\xe2\x80\x8b",
                b"\xd7\x90",
                b"host=x\x01",
                b" ",
            ),
        ),
        frames=(
            (b"", b""),
            (b"\0user\0", b""),
            (b"\0", b"\0x"),
            (b"n,,n=", b",r=abc"),
            (b"n,,n=a,r=", b",x"),
            (b"c=biws,r=", b",p=AAAA"),
            (b"n,,\x01auth=Bearer ", b"\x01\x01"),
            (b"n,,\x01", b"\x01"),
            (b"user=", b"\x01auth=Bearer x\x01\x01"),
        ),
        most=9216,
    ),
    Reader(
        name="saslprep",
        read=_prepare,
        words=(
            *(
                b"a",
                b"\xc3\xa9",
                b"\xcc\x81\xcc\xa3",
                b"\xcc\xa3",
                b"\xe2\x80\x8b",
                b"\xd7\x90",
                b"\xef\xb7\xba",
            ),
            *(b"\xc2\xaa", b"\xcd\x85", b"\xe1\x84\x80\xe1\x85\xa1", b"\xf0\x9d\x85\xa5"),
        ),
        most=1 << 15,
    ),
    Reader(
        name="proxy header",
        read=_proxy,
        words=(
            b"PROXY ",
            b"UNKNOWN",
            b" ",
            b"1",
            b":",
            b"1:",
            b".",
            b"\0",
            b"\r\n\r\n\0\r\nQUIT\n",
            b"\r",
            b"\xff",
        ),
        frames=(
            (b"", b""),
            (b"PROXY UNKNOWN ", b"\r\n"),
            (b"PROXY TCP6 ", b"\r\n"),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x10\x00" + b"\1" * 12, b""),
        ),
    ),
    Reader(
        name="proxy header with a checksum",
        read=lambda octets: _proxy(_checked(octets)),
        words=(b"\1",),
        most=4096,
    ),
    Reader(
        name="replies",
        read=_replies,
        words=_REPLIES,
        frames=((b"", b""), (b"250-", b"\r\n")),
        place="turns",
    ),
    Reader(
        name="server",
        read=_client(),
        words=_REPLIES,
        frames=((b"", b""), (b"220-", b"\r\n")),
    ),
    Reader(
        name="greeted server",
        read=_client(_GREETED[0]),
        words=_REPLIES,
        frames=((b"250-next.example\r\n", b"250 x\r\n"), (b"250-x\r\n250 ", b"\r\n"), (b"", b"")),
    ),
    Reader(
        name="server of a transaction",
        read=_client(*_GREETED),
        words=_REPLIES,
        frames=((b"", b""), (b"250 x\r\n", b"")),
    ),
    Reader(
        name="server of a transaction, in segments",
        read=_client(*_GREETED, segment=7),
        words=_REPLIES,
        frames=((b"", b""), (b"250 x\r\n", b"")),
        place="thread",
    ),
    Reader(
        name="server that asks for credentials",
        read=_client(
            _GREETED[0],
            b"250-x\r\n250 STARTTLS\r\n",
            b"220 x\r\n",
            b"250-x\r\n250 AUTH SCRAM-SHA-256 PLAIN\r\n",
            auth=True,
        ),
        words=(*_REPLIES, b"AAAA", b"r=", b"="),
        frames=(
            (b"334 ", b"\r\n"),
            (b"334 " + b64encode(b"r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=4096,x="), b"\r\n"),
            (b"", b""),
        ),
    ),
    Reader(
        name="sasl of a server",
        read=_challenge,
        words=(
            b"a",
            b",",
            b"=",
            b"r=rOprNGfwEbeRWgbNEkqO",
            b"s=AAAA",
            b"AAAA",
            b"i=",
            b"9",
            b"v=",
            b"e=",
        ),
        frames=(
            (b"", b""),
            (b"r=rOprNGfwEbeRWgbNEkqOx,s=", b",i=4096"),
            (b"r=rOprNGfwEbeRWgbNEkqO", b",s=AAAA,i=4096"),
            (b"r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=", b""),
            (b"r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=4096,", b"\n"),
        ),
        most=9216,
    ),
    Reader(
        name="conversation",
        read=_converse,
        words=(*_REPLIES, *_COMMANDS),
        frames=((b"", b""), (b"334 ", b"\r\n"), (b"AUTH ", b"")),
        place="turns",
    ),
)
