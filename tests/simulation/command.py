"""``python -m tests.simulation``: run seeds, and say in which of them the promise was broken.

The exit status is 1 if there is any. Each failing seed is run again on its own by
``python -m tests.simulation replay SEED``, which prints its plan, its violations and its digest;
``shrink SEED`` leaves out what is not needed for the failure.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from attrs import frozen
from twisted.logger import globalLogBeginner

from .bugs import BUGS
from .plan import plan_of
from .run import Result, run
from .shrink import shrunk


@frozen
class Verdict:
    """What is kept of the run of a seed.

    Attributes:
        seed: the seed.
        violations: a line for each.
        kinds: of violations.
        counts: see `run.Result`.
    """

    seed: int
    violations: Sequence[str]
    kinds: Sequence[str]
    counts: dict[str, int]


def _bug(name: str | None) -> AbstractContextManager[Any]:
    return nullcontext() if name is None else BUGS[name]()


def _of_seed(job: tuple[int, str | None]) -> Verdict:
    seed, bug = job
    with _bug(bug):
        result = run(plan_of(seed))
    return Verdict(seed, list(map(str, result.violations)), result.kinds, dict(result.counts))


def _quiet() -> None:
    """Write no log."""
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)


def _verdicts(jobs: Iterator[tuple[int, str | None]], processes: int) -> Iterator[Verdict]:
    if processes == 1:
        yield from map(_of_seed, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(processes, initializer=_quiet) as pool:
        yield from pool.imap_unordered(_of_seed, jobs, chunksize=1)


def search(arguments: argparse.Namespace) -> bool:
    """Run many seeds; return whether all are good."""
    began, worked = time.monotonic(), time.process_time()

    def jobs() -> Iterator[tuple[int, str | None]]:
        for seed in range(arguments.seed, arguments.seed + arguments.count):
            if arguments.seconds and time.monotonic() - began > arguments.seconds:
                return
            yield seed, arguments.bug

    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    runs = 0
    for verdict in _verdicts(jobs(), arguments.jobs):
        runs += 1
        counts.update(verdict.counts)
        kinds.update(verdict.kinds)
        for line in verdict.violations:
            print(f"seed {verdict.seed}: {line}", flush=True)
        if verdict.violations and arguments.first:
            break
        if arguments.seconds and time.monotonic() - began > arguments.seconds:
            break  # other processes were given all seeds at once
    seconds, worked = time.monotonic() - began, time.process_time() - worked
    processor = f" ({runs / worked:.1f} of the processor)" if arguments.jobs == 1 else ""
    print(
        f"{runs} seeds in {seconds:.1f} s, {runs / seconds:.1f} a second{processor}:"
        f" {counts['messages']} messages, {counts['acknowledged']} recipients acknowledged,"
        f" {counts['attempts']} attempts, {counts['crashes']} crashes,"
        f" {counts['seconds'] / 3600:.0f} h on the clock"
    )
    for kind, number in kinds.most_common():
        print(f"{number} seeds: {kind}")
    if not kinds:
        print("the promise was kept in all of them")
    return not kinds


def replay(arguments: argparse.Namespace) -> bool:
    """Run one seed twice; return whether it is good, and the same both times."""
    plan = plan_of(arguments.seed)
    print(plan)
    with _bug(arguments.bug):
        first, second = run(plan), run(plan)
    if arguments.transcript:
        print("\n".join(first.transcript))
    _say(first)
    if first.digest != second.digest:
        print("the second run was another one")
        return False
    return not first.violations


def shrink(arguments: argparse.Namespace) -> bool:
    """Print the smallest plan that fails as a seed does; return whether the seed is good."""
    plan = plan_of(arguments.seed)
    with _bug(arguments.bug):
        first = run(plan)
        if not first.violations:
            print(f"seed {arguments.seed} does not fail")
            return True
        kind = first.kinds[0]
        small = shrunk(plan, lambda candidate: kind in run(candidate).kinds)
        result = run(small)
    print(f"{len(plan.steps)} steps became {len(small.steps)}:\n{small}")
    if arguments.transcript:
        print("\n".join(result.transcript))
    _say(result)
    return False


def _say(result: Result) -> None:
    for violation in result.violations:
        print(violation)
    if not result.violations:
        print("the promise was kept")
    print(f"digest {result.digest} of {len(result.transcript)} lines")


def main() -> int:
    """Run the command; return 0 if the promise was kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    bug = argparse.ArgumentParser(add_help=False)
    bug.add_argument("--bug", choices=BUGS, help="with a planted bug")
    parser.add_argument("--seed", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--count", type=int, default=1000, help="the number of seeds (1000)")
    parser.add_argument("--seconds", type=float, default=0.0, help="begin no seed later (no limit)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    parser.add_argument("--first", action="store_true", help="stop at the first failing seed")
    parser.add_argument("--bug", choices=BUGS, help="with a planted bug")
    parser.set_defaults(run=search)
    commands = parser.add_subparsers(metavar="")
    for name, function, text in (
        ("replay", replay, "run a seed twice; print its plan, its violations and its digest"),
        ("shrink", shrink, "print the smallest plan that fails as a seed does"),
    ):
        command = commands.add_parser(name, help=text, parents=[bug])
        command.add_argument("seed", type=int)
        command.add_argument("--transcript", action="store_true", help="print all that happened")
        command.set_defaults(run=function)
    arguments = parser.parse_args()
    _quiet()
    return 0 if arguments.run(arguments) else 1
