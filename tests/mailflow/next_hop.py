"""Next hops in memory: what a `FakeHop` was told, and peers that follow a script octet by octet."""

from __future__ import annotations

import re

from twisted_mta.testing.fake_hop import FakeHop
from twisted_mta.testing.network import MemoryNetwork
from twisted_mta.testing.peer import ScriptedPeer, ScriptStep

NEXT = "192.0.2.1"
QUIT: tuple[ScriptStep, ...] = (("expect", b"QUIT\r\n"), ("close",))


def mail_commands(hop: FakeHop) -> list[str]:
    """Return the MAIL commands that a hop was sent, without their verb."""
    start = "MAIL FROM:"
    return [line.removeprefix(start) for line in hop.commands if line.startswith(start)]


def announcing(*keywords: str, hello: str = "EHLO") -> tuple[ScriptStep, ...]:
    """Return the steps up to the reply to EHLO, which announces ``keywords``."""
    lines = ["mx.example", *keywords]
    reply = "".join(f"250-{line}\r\n" for line in lines[:-1]) + f"250 {lines[-1]}\r\n"
    return (
        ("send", b"220 mx.example\r\n"),
        ("expect", f"{hello} mta.example\r\n".encode()),
        ("send", reply.encode()),
    )


def accepting(
    mail: str | re.Pattern[bytes], *recipients: str, reply: str = "250 2.0.0 ok"
) -> tuple[ScriptStep, ...]:
    """Return the steps of a transaction that is accepted; ``mail`` is the MAIL command."""
    steps: list[ScriptStep] = [
        ("expect", f"{mail}\r\n".encode() if isinstance(mail, str) else mail),
        ("send", b"250 ok\r\n"),
    ]
    for recipient in recipients:
        steps += [("expect", f"RCPT TO:<{recipient}>\r\n".encode()), ("send", b"250 ok\r\n")]
    steps += [("expect", b"DATA\r\n"), ("send", b"354 go\r\n")]
    steps += [("content",), ("send", f"{reply}\r\n".encode())]
    return tuple(steps)


def listen(
    network: MemoryNetwork, *steps: ScriptStep, address: str = NEXT, port: int = 25
) -> ScriptedPeer:
    """Return a next hop at an address of ``network`` that follows ``steps``."""
    peer = ScriptedPeer(list(steps))
    network.listen(address, port, peer)
    return peer
