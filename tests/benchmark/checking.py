"""``python -m tests.benchmark.checking``: what the checks on mail of strangers cost a message.

MTAs with no check, with all, and with all but one get the same message of 4 KiB with an RSA
signature of 2,048 bits, one MTA after the other in each round, and discard it. A name server on
this machine has the records, and the MTAs keep them in their caches. The cost is the difference in
CPU time to the MTA without checks, of the whole process; the figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from twisted_mta.config import DKIMKey
from twisted_mta.policy.dkim.body_hashes import body_hash
from twisted_mta.policy.dkim.signing import sign
from twisted_mta.policy.dkim.signing_keys import SigningKey

from ..functional.machine import LOOPBACK, folder
from ..functional.mta import MTA
from ..functional.nsd import NSD
from ..policy.dkim.key_files import write_key
from .processes import cpu_seconds

_ALL = ("spf", "dkim", "dmarc", "arc")
_CHECKS = {
    "none": (),
    "SPF": ("spf",),
    "DKIM": ("dkim",),
    "ARC": ("arc",),
    "SPF, DKIM, DMARC": ("spf", "dkim", "dmarc"),
    "all": _ALL,
}
_SESSIONS = 10

_HEADER = (
    b"From: Ann <ann@sender.example>\r\nTo: bob@here.example\r\nSubject: Hello\r\n"
    b"Date: Mon, 30 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@sender.example>\r\n"
    b"MIME-Version: 1.0\r\nContent-Type: text/plain\r\n"
)
_BODY = b"This is a line of a message, of about the usual length.\r\n" * 64


def signed(key: SigningKey) -> bytes:
    """Return the message with its signature."""
    return sign(_HEADER, body_hash([_BODY]), key, time=1_790_000_000) + _HEADER + b"\r\n" + _BODY


@contextlib.contextmanager
def running(home: Path, checks: Sequence[str], nameserver: int) -> Iterator[MTA]:
    """Run an MTA that may not relay for this machine, with some checks."""
    home.mkdir()
    policy = "\n".join(f'{each} = "{"check" if each in checks else "off"}"' for each in _ALL)
    toml = (
        '[mta]\nlocal_domains = ["here.example"]\nrelay_from = ["192.0.2.0/24"]\n'
        'routes = { "here.example" = "discard:" }\n'
        f'[dns]\nnameservers = ["{LOOPBACK}:{nameserver}"]\n[policy]\n{policy}\n'
    )
    with MTA(home, toml=toml) as mta:
        yield mta


class Session:
    """A client that sends the message again and again."""

    def __init__(self, port: int, content: bytes) -> None:
        self._content = content
        self._socket = socket.create_connection((LOOPBACK, port))
        self._replies = self._socket.makefile("rb")
        self._say(b"")
        self._say(b"EHLO mx.sender.example\r\n")

    def _say(self, octets: bytes, replies: int = 1) -> None:
        if octets:
            self._socket.sendall(octets)
        while replies:
            line = self._replies.readline()
            if line[:1] not in b"23" or not line:
                raise RuntimeError(f"found {line!r}, expected a reply of 2yz or 3yz")
            replies -= line[3:4] == b" "

    def send(self, messages: int) -> None:
        """Send so many messages."""
        envelope = b"MAIL FROM:<ann@sender.example>\r\nRCPT TO:<bob@here.example>\r\nDATA\r\n"
        for _ in range(messages):
            self._say(envelope, 3)
            self._say(self._content + b".\r\n")

    def close(self) -> None:
        """End the session."""
        self._say(b"QUIT\r\n")
        self._replies.close()
        self._socket.close()


def cost(mta: MTA, content: bytes, messages: int) -> float:
    """Return the CPU time (µs) of a message."""
    sessions = [Session(mta.smtp, content) for _ in range(_SESSIONS)]
    before = cpu_seconds(mta.pid)
    threads = [
        threading.Thread(target=each.send, args=(messages // _SESSIONS,)) for each in sessions
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    time.sleep(0.3)  # work after the last message costs CPU time too
    found = (cpu_seconds(mta.pid) - before) * 1e6 / messages
    for each in sessions:
        each.close()
    return found


def zones(key: SigningKey) -> dict[str, str]:
    """Return the records of the sender, and of its address."""
    value = f"v=DKIM1; p={b64encode(key.public).decode()}"
    strings = " ".join(f'"{value[at : at + 200]}"' for at in range(0, len(value), 200))
    return {
        "example": "",  # the walk of DMARC asks for it
        "sender.example": (
            f'mx A {LOOPBACK}\n@ TXT "v=spf1 a:mx.sender.example -all"\n'
            f'mx TXT "v=spf1 a -all"\n_dmarc TXT "v=DMARC1; p=reject"\n'
            f"{key.selector}._domainkey TXT {strings}\n"
        ),
        "127.in-addr.arpa": "1.0.0 PTR mx.sender.example.\n",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.checking", description=__doc__)
    parser.add_argument("--messages", type=int, default=1000, help="in each round (1000)")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    with folder("checking") as place, contextlib.ExitStack() as stack:
        file = write_key(str(place / "key.pem"), "rsa-2048")
        key = SigningKey.read(DKIMKey(domain="sender.example", selector="s1", key=file))
        nsd = stack.enter_context(NSD(place, zones(key)))
        mtas = [
            stack.enter_context(running(place / f"mta-{number}", checks, nsd.port))
            for number, checks in enumerate(_CHECKS.values())
        ]
        content = signed(key)
        found: list[list[float]] = [[] for _ in mtas]
        for number in range(options.rounds + 1):
            for mta, figures in zip(mtas, found, strict=True):
                each = cost(mta, content, options.messages)
                if number:  # the first round warms them up
                    figures.append(each)
    print("checks".ljust(18), "CPU µs/message", "  of them")
    for name, figures in zip(_CHECKS, found, strict=True):
        more = median(each - none for each, none in zip(figures, found[0], strict=True))
        print(name.ljust(18), f"{median(figures):14.0f} {more:9.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
