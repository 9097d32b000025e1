"""Commands: ``python -m tests.faults`` kills the MTA under load; the others have help texts."""

from __future__ import annotations

import argparse
import signal
import sys
import time

from ..functional.machine import folder
from ..functional.mta import MTA
from .campaign import Campaign
from .exhausted import ExhaustedMTA
from .gone import DetachableMTA, MountedMTA
from .machines import MachinesCampaign
from .memory import LARGE, SENDERS, grown_by
from .moves import MoveCampaign, measured
from .traced import TracedMTA


def _kill(arguments: argparse.Namespace) -> bool:
    with folder("faults") as home:
        verdict = Campaign(
            home,
            seed=arguments.seed,
            rate=arguments.rate,
            fault="CLOCK" if arguments.clock else signal.Signals[f"SIG{arguments.signal}"],
            options=arguments.option,
            workers=arguments.workers,
            program=arguments.program,
            say=lambda line: print(line, flush=True),
        ).run(arguments.rounds, arguments.drain)
    print(verdict)
    disturbances = {
        "TERM": len(verdict.explained),  # a drain makes no second copy
        "HUP": len(verdict.explained) + verdict.disturbed + verdict.refused,  # no peer notices
    }
    return verdict.good and not disturbances.get("TERM" if arguments.clock else arguments.signal)


def _memory(arguments: argparse.Namespace) -> bool:
    with folder("memory") as home:
        measured = grown_by(home, arguments.senders, arguments.size * 1024 * 1024)
    print(measured)
    return measured.within


def _move(arguments: argparse.Namespace) -> bool:
    with folder("move") as home:
        if arguments.measure:
            for speed in measured(home, arguments.measure, arguments.size):
                print(speed)
            return True
        campaign = MoveCampaign(
            home,
            seed=arguments.seed,
            messages=arguments.messages,
            say=lambda line: print(line, flush=True),
        )
        verdict = campaign.run(arguments.kills)
        print(f"{campaign.kills} moves were killed, {campaign.moves} went to their end")
    print(verdict)
    return verdict.good


def _machines(arguments: argparse.Namespace) -> bool:
    began = time.monotonic()
    with folder("machines") as home:
        campaign = MachinesCampaign(
            home,
            seed=arguments.seed,
            rate=arguments.rate,
            say=lambda line: print(f"{time.monotonic() - began:6.1f} s  {line}", flush=True),
        )
        verdict = campaign.run(arguments.messages, limit=arguments.duration)
    for second in campaign.seconds:
        print(second)
    print(verdict)
    return verdict.good


def main() -> int:
    """Run the command of the arguments; return 0 if the promise was kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=50, help="number of faults (50)")
    parser.add_argument("--seed", type=int, default=0, help="of moments and messages (0)")
    parser.add_argument("--rate", type=float, default=200.0, help="messages a second (200)")
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="processes; one of them or their parent is killed (1)",
    )
    parser.add_argument("--signal", choices=("KILL", "TERM", "HUP"), default="KILL")
    parser.add_argument(
        "--clock",
        action="store_true",
        help="set the MTA's wall clock ahead and back instead (needs a C compiler)",
    )
    parser.set_defaults(program=MTA)
    for option, program, text in (
        (
            "--calls",
            TracedMTA,
            "also kill the MTA at the n-th fsync, link, unlink or send (strace)",
        ),
        ("--gone", DetachableMTA, "move its state directory away instead"),
        ("--unmounted", MountedMTA, "unmount its state directory instead (needs root)"),
        ("--exhausted", ExhaustedMTA, "let the MTA run out of memory and threads instead"),
    ):
        parser.add_argument(option, action="store_const", dest="program", const=program, help=text)
    parser.add_argument("--drain", type=float, default=60.0, help="seconds to wait at the end (60)")
    parser.add_argument(
        "--option", action="append", default=[], metavar="OPTION", help="of twistd mta; repeatable"
    )
    parser.set_defaults(run=_kill)
    commands = parser.add_subparsers(metavar="")
    memory = commands.add_parser("memory", help="measure the memory that large messages take")
    memory.add_argument("--senders", type=int, default=SENDERS, help=f"in parallel ({SENDERS})")
    memory.add_argument("--size", type=int, default=LARGE >> 20, help="MiB of each message")
    memory.set_defaults(run=_memory)
    machines = commands.add_parser(
        "machines",
        help="kill three machines with one queue, and its database, and cut them off (needs root)",
    )
    machines.add_argument("--messages", type=int, default=50_000, help="to be offered (50,000)")
    machines.add_argument("--duration", type=float, default=3600.0, help="seconds at most (3,600)")
    machines.set_defaults(run=_machines)
    move = commands.add_parser("move", help="kill moves of a queue to PostgreSQL and back")
    move.add_argument("--kills", type=int, default=50, help="of moves (50)")
    move.add_argument("--messages", type=int, default=600, help="in the queue (600)")
    move.add_argument("--measure", type=int, default=0, help="kill none; move so many messages")
    move.add_argument("--size", type=int, default=4096, help="octets of those (4096)")
    move.set_defaults(run=_move)
    arguments = parser.parse_args()
    return 0 if arguments.run(arguments) else 1


if __name__ == "__main__":
    sys.exit(main())
