"""The test kit, for tests of this program and of programs that use it; public, and kept stable.

memory_mta
    `MemoryMTA`: a whole mail transfer agent on a clock that the test moves, with real STARTTLS.
world, world_network
    `World`: several agents and other hosts on one network with one clock and one seed; crashes and
    other faults, and exact replay.
running_mta
    `running`: a real listener in a thread, for blocking programs.
mixin
    `MTAMixin`: the same for each test of a test case of trial. The fixtures for pytest are in the
    module ``pytest_twisted_mta``.
fake_hop
    `FakeHop`: a next hop that accepts mail, or fails on cue.
transcript, server_options
    Dialogues in C:/S: notation, played against the pure session at every cut of the octets, against
    the protocol in memory, or over TCP; and the options of the server.
network, reactor
    Connections in memory, on that clock, with TLS and back-pressure; and ports to listen on.
peer
    `ScriptedPeer`: a server that follows a script.
client
    `MemoryClient` and `SMTPClientEnd`: the client's end of a connection.
tls
    A certificate for tests, and TLS for both ends of a connection.
delivery
    `RecordingDelivery`: accepts or refuses mail as told, at once or late.
files
    `UnsyncedFiles`: a disk that loses in a crash what was not synced, is full, or fails on cue.
commits
    `Commits`: runs the transactions of a queue, which fail or crash the machine on cue.
machine
    `Machine`: timers, ports and connections of one agent, which can crash.
resolver, zone_text
    `FakeResolver`: names and their failures, from a dictionary or a master file.
inventory
    The doubles that a test makes, and what it leaves open in them.
store
    `MemoryStore`: a store of the queue that fails on cue.
pure_wire
    `PureWire`: a session without a protocol.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..inbox_message import InboxMessage
    from .fake_hop import FakeHop
    from .memory_mta import MemoryMTA
    from .mixin import MTAMixin
    from .running_mta import RunningMTA, running
    from .world import World

__all__ = ["FakeHop", "InboxMessage", "MTAMixin", "MemoryMTA", "RunningMTA", "World", "running"]

_MODULES = {
    "FakeHop": ".fake_hop",
    "InboxMessage": "..inbox_message",
    "MTAMixin": ".mixin",
    "MemoryMTA": ".memory_mta",
    "RunningMTA": ".running_mta",
    "World": ".world",
    "running": ".running_mta",
}


def __getattr__(name: str) -> object:
    """Import a name when it is first used (PEP 562): `running` needs half of what the rest does."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
