"""A plan: the traffic and the faults of one run, as a list of steps that a seed gives.

A plan is data. It can be printed, and runs as well with some of its steps left out, which is how a
failing one is made small.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from attrs import frozen

AGENTS = ("a.test", "b.test", "c.test")
"""The agents: a receives from all, b is another domain, c sends all its mail through a."""

HOPS = ("one.example", "two.example", "three.example")
"""The domains of next hops, each with one of its own."""

ALIAS = "team@a.test"
MEMBERS = ("ann@a.test", "ben@b.test", "cat@one.example")
"""An alias of the first agent, and the mailboxes that it stands for."""

DISCARDED = "void.example"
UNKNOWN = "nowhere.example"

TRAFFIC = 120.0
"""Seconds in which mail is sent and faults begin."""

MENDED = 180.0
"""When all faults are ended, seconds from the start."""

STORM = 5
"""One plan of so many has faults of all kinds, and up to 40 of them."""

OPERATED = ("send", "submit", "act", "suspend", "resume")
"""Steps that are no faults: mail, and actions of the operator."""

Value = str | int | float | bool | tuple[str, ...]


@frozen
class Step:
    """One step of a plan.

    Attributes:
        at: seconds from the start.
        what: the name of a method of `run.Run`, without ``do_``.
        arguments: of that method.
    """

    at: float
    what: str
    arguments: tuple[Value, ...]

    @property
    def is_fault(self) -> bool:
        """Whether it is a fault, and not mail or an action of the operator."""
        return self.what not in OPERATED

    def __str__(self) -> str:
        """One line."""
        words = (
            " ".join(each) if isinstance(each, tuple) else str(each) for each in self.arguments
        )
        return f"{self.at:8.3f} s  {self.what} {', '.join(words)}"


@frozen
class Plan:
    """The steps of one run, and what the run draws by itself.

    Attributes:
        seed: of latencies, queue ids and all else that the world draws.
        agents: how many there are, the first ones of `AGENTS`.
        speed: the seconds of the slowest latency, commit and disk call.
        lifetime: seconds after which undelivered mail is returned.
        steps: in the order of time.
    """

    seed: int
    agents: int
    speed: tuple[float, float, float]
    lifetime: float
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        """The steps, one a line."""
        latency, commit, disk = self.speed
        head = (
            f"seed {self.seed}: {', '.join(AGENTS[: self.agents])}; up to {latency:g} s on the"
            f" network, {commit:g} s for a commit, {disk:g} s for a call of the disk;"
            f" mail is returned after {self.lifetime:g} s"
        )
        return "\n".join([head, *map(str, self.steps)])


def message_id(number: int) -> str:
    """Return the Message-ID of a message of a plan."""
    return f"<m{number}@sim>"


def content(number: int, size: int) -> bytes:
    """Return the content of a message: at least ``size`` octets, some lines with a leading dot."""
    head = (
        f"From: s{number}@a.test\r\nTo: undisclosed:;\r\nSubject: {number}\r\n"
        f"Date: Fri, 15 Jan 2027 08:00:00 +0000\r\nMessage-ID: {message_id(number)}\r\n\r\n"
    )
    lines = [head]
    length = len(head)
    count = 0
    while length < size:
        line = f"{'.' * (count % 3)}{number} {count} {'x' * (count % 60)}\r\n"
        lines.append(line)
        length += len(line)
        count += 1
    return "".join(lines).encode()


def plan_of(seed: int) -> Plan:
    """Return the plan of a seed."""
    draw = random.Random(f"plan {seed}")
    agents = draw.choice((1, 2, 2, 3))
    speed = (
        draw.choice((0.0, 0.02, 0.5)),
        draw.choice((0.0, 0.01, 0.3)),
        draw.choice((0.0, 0.01, 0.2)),
    )
    steps = _traffic(draw, AGENTS[:agents])
    if draw.random() < 0.9:  # some runs have no fault: they must be without any second copy
        most = 40 if seed % STORM == STORM - 1 else 14
        steps += _faults(draw, AGENTS[:agents], steps, most)
    # With numbers of their own: the other steps of a seed stay what they were.
    steps += _suspensions(random.Random(f"suspensions {seed}"), AGENTS[:agents])
    lifetime = draw.choice((1800.0, 1800.0, 100.0))
    return Plan(seed, agents, speed, lifetime, tuple(sorted(steps, key=lambda step: step.at)))


def _time(draw: random.Random) -> float:
    return round(TRAFFIC * draw.random() ** 2, 3)


def _traffic(draw: random.Random, agents: Sequence[str]) -> list[Step]:
    domains = (*agents, *HOPS)
    steps: list[Step] = []
    for number in range(1, draw.randint(3, 15)):
        at = _time(draw)
        recipients: list[str] = []
        for each in range(draw.choice((1, 1, 2, 3, 5))):
            domain = draw.choices((draw.choice(domains), DISCARDED, UNKNOWN), weights=(20, 1, 1))[0]
            recipients.append(f"m{number}r{each}@{domain}")
        if draw.random() < 0.15:
            recipients.append(ALIAS)
        sender = (
            "" if draw.random() < 0.1 else f"s{number}@{draw.choice((*domains, *agents, UNKNOWN))}"
        )
        size = int(10 ** draw.uniform(2.0, 4.5))
        agent = draw.choice(agents)
        notify = draw.choices(("", "NEVER"), weights=(9, 1))[0]
        what = draw.choice(("send", "send", "submit"))
        steps.append(Step(at, what, (agent, number, sender, tuple(recipients), size, notify)))
        if draw.random() < 0.15:
            for action in draw.choice((("hold", "release"), ("hold",), ("remove",), ("retry",))):
                at = round(at + draw.expovariate(0.05), 3)
                steps.append(Step(at, "act", (action, draw.choice(agents), number)))
    return steps


def _suspensions(draw: random.Random, agents: Sequence[str]) -> list[Step]:
    """Return suspensions of destinations by the operator, in one run of three."""
    steps: list[Step] = []
    for _ in range(draw.choice((0, 0, 0, 0, 1, 3))):
        at, seconds = _time(draw), round(5.0 + 50.0 * draw.random(), 3)
        agent, destination = draw.choice(agents), draw.choice((*agents, *HOPS))
        steps.append(Step(at, "suspend", (agent, destination, seconds)))
        if draw.random() < 0.5:
            at = round(at + seconds * draw.random(), 3)
            steps.append(Step(at, "resume", (agent, draw.choice((destination, "")))))
    return steps


def _faults(
    draw: random.Random, agents: Sequence[str], traffic: Sequence[Step], most: int
) -> list[Step]:
    # A run with few kinds of faults meets each of them often.
    kinds = 3 if most < 20 else len(FAULTS)
    some = draw.choices(tuple(FAULTS), weights=[each.weight for each in FAULTS.values()], k=kinds)
    steps: list[Step] = []
    for _ in range(draw.randint(1, most)):
        kind = draw.choice(some)
        at = _time(draw)
        if draw.random() < 0.8:  # most faults meet a message on its way
            at = draw.choice(traffic).at
            at += draw.expovariate(0.5) if FAULTS[kind].is_now else -0.001
        at = round(min(max(at, 0.0), TRAFFIC), 3)
        steps.append(Step(at, kind, FAULTS[kind].arguments(draw, agents)))
    return steps


def _seconds(draw: random.Random) -> float:
    return round(draw.choice((2.0, 30.0, 60.0)) * draw.random(), 3)


def _host(draw: random.Random, agents: Sequence[str]) -> str:
    return draw.choice((*agents, *HOPS))


def _hop(draw: random.Random, agents: Sequence[str]) -> tuple[Value, ...]:
    act = draw.choice(("defer", "refuse", "close", "hang", "drop", "drop"))
    stage = draw.choice(("connect", "ehlo", "mail", "rcpt", "rcpt", "data", "dot", "dot"))
    to = draw.choice(("*", "*r[02]@*", "*r1@*")) if stage == "rcpt" else "*"
    return draw.choice(HOPS), act, draw.randint(1, 4), stage, to


@frozen
class Fault:
    """A kind of fault.

    Attributes:
        weight: how often it is drawn, compared with others.
        arguments: draws its arguments.
        is_now: whether it happens at its time, and not at the next call that it is about.
    """

    weight: int
    arguments: Callable[[random.Random, Sequence[str]], tuple[Value, ...]]
    is_now: bool = True


FAULTS: dict[str, Fault] = {
    "crash": Fault(1, lambda draw, agents: (draw.choice(agents),)),
    "crash_at_write": Fault(
        3,
        lambda draw, agents: (draw.choice(agents), int(draw.expovariate(0.06))),
        is_now=False,
    ),
    "crash_at_commit": Fault(
        4,
        lambda draw, agents: (
            draw.choice(agents),
            int(draw.expovariate(0.3)),
            draw.random() < 0.5,
        ),
        is_now=False,
    ),
    "fail_commit": Fault(
        2,
        lambda draw, agents: (
            draw.choice(agents),
            int(draw.expovariate(0.3)),
            draw.random() < 0.5,
        ),
        is_now=False,
    ),
    "disk_error": Fault(
        3,
        lambda draw, agents: (
            draw.choice(agents),
            draw.choice(
                (
                    *("create", "open", "rename", "rename's unlink", "unlink", "make_directories"),
                    *("sync_directory", "write", "sync", "close"),
                )
            ),
            draw.choice(("EIO", "ENOSPC")),
            int(draw.expovariate(0.5)),
        ),
        is_now=False,
    ),
    "disk_full": Fault(
        1,
        lambda draw, agents: (
            draw.choice(agents),
            int(draw.expovariate(1e-4)),
            _seconds(draw),
        ),
    ),
    "restart": Fault(1, lambda draw, agents: (draw.choice(agents),)),
    "clock": Fault(
        1,
        lambda draw, agents: (
            draw.choice(agents),
            draw.choice((-86_400.0, -600.0, -1.0, 1.0, 300.0, 86_400.0)),
        ),
    ),
    "names": Fault(
        1,
        lambda draw, agents: (
            _host(draw, agents),
            draw.choice(("SERVFAIL", "timeout", "silent", "denied")),
            _seconds(draw),
        ),
    ),
    "hop": Fault(5, _hop, is_now=False),
    "slow": Fault(1, lambda draw, agents: (draw.choice(HOPS), round(20 * draw.random(), 3))),
    "cut_next": Fault(
        2,
        lambda draw, agents: (
            _host(draw, agents),
            draw.choice(("octets", "dot", "reply", "reply")),
            int(20_000 ** draw.random()),
        ),
        is_now=False,
    ),
    "cut_all": Fault(1, lambda draw, agents: (_host(draw, agents),)),
    "part": Fault(1, lambda draw, agents: (_host(draw, agents), _seconds(draw))),
    "loss": Fault(1, lambda draw, agents: (round(0.5 * draw.random(), 2), _seconds(draw))),
    "silent_crashes": Fault(1, lambda draw, agents: (round(draw.random(), 2), _seconds(draw))),
}
"""All kinds of faults, by the name of their method of `run.Run`."""
