"""The readers of files, of HTTP requests, and of DNS answers."""

from __future__ import annotations

import os
import random  # seeded: every run gets the same numbers
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from tests.admin.agents import ScriptedAgents
from twisted_mta.admin.http import Request, ResponderSite, Response
from twisted_mta.admin.queue_answers import COUNTS
from twisted_mta.admin.queue_api import QueueAPI
from twisted_mta.admin.status import Status
from twisted_mta.admin.web.site import StatusSite
from twisted_mta.auth.account_addresses import AccountAddresses
from twisted_mta.auth.accounts import AccountsError
from twisted_mta.auth.accounts_file import read_accounts
from twisted_mta.config import ConfigError, load
from twisted_mta.dns import read_hosts
from twisted_mta.dns.message import Malformed, Unrelated, joined_strings, parse_answer
from twisted_mta.dns.resolv_conf import parse_resolv_conf
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.next_hop import NextHop
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.operator.selection import Selection
from twisted_mta.routing.alias_file import AliasError, parse_aliases
from twisted_mta.routing.exchangers import TargetLocator
from twisted_mta.routing.expansion import Expander
from twisted_mta.routing.mailbox_lookup import MailboxLookup
from twisted_mta.testing.resolver import FakeResolver
from twisted_mta.tls.memory import TLSHost

from ..scaling import Reader

_NOW = 1_790_000_000.0
_OURS = ("us.example",)


# Files.


def _aliases(octets: bytes) -> None:
    with suppress(AliasError):
        parse_aliases(octets, name="aliases", ours=_OURS)


@cache
def _lists(count: int) -> Expander:
    """A list of many members: half of them on other hosts, half of them lists."""
    members = [f"m{number}" if number % 2 else f"m{number}@away.example" for number in range(count)]
    lines = [f"list: {','.join(members)}"]
    lines += [f"m{number}: m{number + 2}" for number in range(1, count - 2, 2)]
    aliases = parse_aliases("\n".join(lines).encode(), name="aliases", ours=_OURS)
    lookup = MailboxLookup(local_domains=_OURS, aliases=aliases, wall_time=lambda: _NOW)
    return Expander(lookup)


def _expansion(octets: bytes) -> None:
    expander = _lists(max(1, len(octets) // 16))
    expander.expand(Mailbox("list", "us.example"), Mailbox("a", "sender.example"))


def _of_file(read: Callable[[str], object]) -> Callable[[bytes], None]:
    def reader(octets: bytes) -> None:
        descriptor, name = tempfile.mkstemp()
        try:
            with open(descriptor, "wb") as file:
                file.write(octets)
            read(name)
        finally:
            os.unlink(name)

    return reader


def _accounts(name: str) -> None:
    with suppress(AccountsError):
        AccountAddresses(read_accounts(name), _OURS).may_send_as("ann", Mailbox("a", "us.example"))


def _config(name: str) -> None:
    with suppress(ConfigError):
        load({}, name, environment={}, machine_name=lambda: "mx.example")


# Requests.


def _steer(shard: int, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    if name == "steer":
        Selection.parse(arguments["filters"], now=_NOW)
        return {**dict.fromkeys(COUNTS, 0), "next": None}
    raise LookupError("nothing is there")


_AGENTS = ScriptedAgents()
_AGENTS.answer_shard = _steer
_QUEUE = QueueAPI(_AGENTS, clock=Clock())
_STATUS = Status(
    hostname="mx.example", version="1", started_at=_NOW, now=_NOW, queue={}, counters={}, recent=()
)


def _page() -> Any:
    return StatusSite(lambda: _STATUS, answer=_answer, reactor=Clock())


def _socket() -> Any:
    return ResponderSite(_answer, reactor=Clock(), longest=1 << 20)


def _answer(request: Request) -> Response | Deferred[Response]:
    return _QUEUE.answer(request)


def _request(site: Callable[[], Any]) -> Callable[[bytes], None]:
    def read(octets: bytes) -> None:
        protocol = site().buildProtocol(None)
        protocol.makeConnection(StringTransport())
        for at in range(0, len(octets), 65_536):
            protocol.dataReceived(octets[at : at + 65_536])

    return read


def _wish(octets: bytes) -> None:
    answered = _QUEUE.answer(
        Request(method="POST", path="/v1/queue/retry", hosts=(), accept="", body=octets)
    )
    assert isinstance(answered, Deferred)
    answered.addErrback(lambda failure: failure.trap(LookupError))


def _pattern(octets: bytes) -> None:
    with suppress(ValueError):
        text = octets.decode("utf-8", "replace")
        chosen = Selection.parse({"from": text[:1000]}, now=_NOW)
        chosen.picks_message(QueueId(5), Mailbox(text, "a.example"))
        chosen = Selection.parse({"from": "*a*a*a*a*b"}, now=_NOW)
        chosen.picks_message(QueueId(5), Mailbox(text, "a.example"))


# The DNS.


def _dns(octets: bytes) -> None:
    with suppress(Malformed, Unrelated):
        parse_answer(octets, 1, b"\x01a\x00", 15)


def _texts(octets: bytes) -> None:
    with suppress(Malformed, Unrelated):
        for record in parse_answer(octets, 1, b"\x01a\x00", 16).records:
            joined_strings(record)


def _resolution(octets: bytes) -> None:
    parse_resolv_conf(octets.decode("utf-8", "replace"), hostname="mx.example.net")


_HEAD = b"\x00\x01\x81\x80\x00\x01\x00\xff\x00\x00\x00\x00\x01a\x00\x00\x0f\x00\x01"
_MANY = b"\x00\x01\x81\x80\x00\x01\xff\xff\x00\x00\x00\x00\x01a\x00\x00\x0f\x00\x01"
_TEXTS = b"\x00\x01\x81\x80\x00\x01\xff\xff\x00\x00\x00\x00\x01a\x00\x00\x10\x00\x01"
_TXT = b"\xc0\x0c\x00\x10\x00\x01\x00\x00\x00\x3c\x00\x04\x01a\x01b"
_EMPTY_STRINGS = b"\xc0\x0c\x00\x10\x00\x01\x00\x00\x00\x3c\xff\x00"
_MX = b"\xc0\x0c\x00\x0f\x00\x01\x00\x00\x00\x3c\x00\x05\x00\x0a\x01b\x00"
_A = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x7f\x00\x00\x01"


def _exchangers(octets: bytes) -> None:
    """As many mail exchangers as fit into an answer of one size."""
    count = len(octets) // 16
    names = [f"{octets[:8].hex()}{number}.mx.example" for number in range(count)]
    resolver = FakeResolver(
        {"next.example": [(number % 7, name) for number, name in enumerate(names)]},
        {name: [f"192.0.2.{number % 250}"] * 3 for number, name in enumerate(names)},
    )
    exchangers = TargetLocator(
        resolver,
        random=random.Random(1),
        is_local=lambda domain: domain == "us.example",
        is_own_address=lambda address, port: False,
    )
    exchangers.locate(NextHop("smtp", domain="next.example")).addErrback(lambda failure: None)


_JSON = (
    b"[",
    b'{"a":',
    b'"',
    b"\\u0041",
    b"1",
    b"-",
    b".",
    b"e1",
    b",",
    b'"a",',
    b"null,",
    b" ",
    b"{",
)

READERS = (
    Reader(
        name="aliases",
        read=_aliases,
        words=(
            *(
                b"a",
                b": ",
                b",",
                b"a,",
                b'"',
                b"\\",
                b'"a",',
                b"[",
                b"]",
                b"#",
                b" ",
                b"\n",
                b"\n ",
                b"\t",
            ),
            *(
                b"a: b\n",
                b"@",
                b"a@b,",
                b".",
                b"\xc3\xa9",
                b"\r\n",
                b"# x\n",
                b":",
                b"\xcc\x81\xcc\xa3",
            ),
        ),
        frames=((b"", b""), (b"a: ", b"\n"), (b"a: b,", b'"\n'), (b'"', b'": b\n')),
        most=1 << 18,
        place="start",
    ),
    Reader(name="expansion", read=_expansion, words=(b"a",), most=10_000 * 16),
    Reader(
        name="accounts",
        read=_of_file(_accounts),
        words=(
            *(b'{"name": "a"}\n', b'{"name": "ann", "addresses": ["a@us.example"]}\n', *_JSON),
            *(
                b"\n",
                b"# x\n",
                b'{"name": "',
                b'"addresses": ["a@us.example", ',
                b"\xcc\x81\xcc\xa3",
            ),
        ),
        frames=(
            (b"", b""),
            (b'{"name": "', b'"}\n'),
            (b'{"name": "ann", "addresses": [', b'"*"]}\n'),
        ),
        most=1 << 18,
        place="start",
    ),
    Reader(
        name="settings",
        read=_of_file(_config),
        words=(
            *(
                b"a = 1\n",
                b"[",
                b"]",
                b'"',
                b"'",
                b"#",
                b" ",
                b"\n",
                b"1",
                b"_",
                b"{a=",
                b"[[listener]]\n",
            ),
            *(
                b'address = "tcp:25"\n',
                b"\\",
                b",",
                b"[a]\n",
                b"'''",
                b"a",
                b"1979-05-27T07:32:00Z",
                b"=",
            ),
        ),
        frames=((b"", b""), (b"a = [", b"]\n"), (b'a = "', b'"\n'), (b"a = ", b"\n")),
        most=4096,  # a key with more dots takes quadratic time: a mistake of the operator alone
        place="start",
    ),
    Reader(
        name="hosts",
        read=_of_file(read_hosts),
        words=(b"192.0.2.1 a\n", b"192.0.2.1 ", b"a ", b"#", b"\n", b" ", b"::1 ", b":", b"1"),
        frames=((b"", b""), (b"192.0.2.1 ", b"\n")),
        most=1 << 18,
        place="start",
    ),
    Reader(
        name="journal of TLS",
        read=lambda octets: [TLSHost.parse(line) for line in octets.split(b"\n")],
        words=(*_JSON, b'["a",25,1,1]\n', b"\n"),
        most=1 << 18,
        place="start",
    ),
    Reader(
        name="page",
        read=_request(_page),
        words=(
            *(
                b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
                b"a: b\r\n",
                b"Host: localhost\r\n",
                b"\r\n ",
            ),
            *(
                b" ",
                b"%41",
                b"/",
                b"?a=b",
                b"&a=b",
                b"a",
                b":",
                b"\r\n",
                b"\r",
                b"\n",
                b";",
                b"\0",
                b"\xff",
            ),
            *(
                b"Transfer-Encoding: chunked\r\n",
                b"1\r\na\r\n",
                b"Content-Length: 1\r\n",
                b"Cookie: a=b;",
            ),
        ),
        frames=(
            (b"", b""),
            (b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"\r\n\r\n"),
            (b"GET /", b" HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            (b"GET /v1/queue?", b" HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            (b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", b""),
            (b"GET / HTTP/1.1\r\nHost: ", b"\r\n\r\n"),
        ),
        place="library",
    ),
    Reader(
        name="socket",
        read=_request(_socket),
        words=(*_JSON, b'"0000000000ABC",', b"1\r\na\r\n", b"a: b\r\n"),
        frames=(
            (
                b"POST /v1/queue/retry HTTP/1.1\r\nHost: a\r\nContent-Length: 65000\r\n\r\n",
                b" " * 65_000,
            ),
            (
                b"POST /v1/queue/retry HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"0\r\n\r\n",
            ),
        ),
        place="library",
    ),
    Reader(
        name="wish",
        read=_wish,
        words=(*_JSON, b'"0000000000ABC",'),
        frames=(
            (b"", b""),
            (b'{"ids": [', b'"0000000000ABC"]}'),
            (b'{"from": "', b'"}'),
            (b'{"older": ', b"}"),
        ),
        most=1 << 20,
    ),
    Reader(
        name="pattern",
        read=_pattern,
        words=(b"*", b"?", b"a", b"*a", b"[", b"]", b"!", b"\\", b"\xc3\xa9", b"@", b"aaab"),
        most=4096,
    ),
    Reader(
        name="answer of the DNS",
        read=_dns,
        words=(_MX, _A, b"\xc0\x0c", b"\x01a", b"\x00", b"\x3f" + b"a" * 63, b"\xff", b"\xc0\x1d"),
        frames=((_HEAD, b""), (_MANY, b""), (b"", b"")),
        most=65_535,
    ),
    Reader(
        name="DNS texts",
        read=_texts,
        words=(_TXT, b"\xc0\x0c", b"\x00", b"\x01a", b"\xff"),
        frames=((_TEXTS, b""), (_TEXTS + _EMPTY_STRINGS, b""), (b"", b"")),
        most=65_535,
    ),
    Reader(
        name="resolv.conf",
        read=_resolution,
        words=(b"nameserver 192.0.2.1\n", b"search ", b"a ", b"options ", b"ndots:", b"1", b"\n"),
        frames=((b"", b""), (b"search ", b"\n"), (b"options ", b"\n")),
        most=1 << 18,
        place="start",
    ),
    Reader(name="mail exchangers", read=_exchangers, words=(b"a",), most=65_535),
)
