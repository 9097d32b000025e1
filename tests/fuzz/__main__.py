"""``python -m tests.fuzz``: look for inputs that break a property, for as long as it is told to.

Everything is drawn from the seed. What is found is made small and written to a file that this
command takes as an argument, to run it again. It ends with 1 if anything was found, or if memory
grew.
"""

from __future__ import annotations

import argparse
import faulthandler
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from .case import Case, Unreadable
from .corpus import CORPUS, distilled, keep, load
from .engine import Finding, Search, growth
from .targets.all import TARGETS

_HANG = 120.0  # seconds after which one turn that does not end is shown, and the process ended
_TURN = 20.0  # seconds of one target before it is the next one's turn
_REPEATED = 100_000
_SMALL = 2_000  # octets of a case that is repeated
_GROWTH = 64 * 1024  # octets that so many cases may leave behind: counters, caches that fill up


def resident() -> float:
    """Return the memory of this process in MiB, 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) / 256
    except OSError:
        return 0.0


def replay(paths: Sequence[Path]) -> bool:
    """Run the cases in files and show what is wrong with them; return whether nothing is."""
    good = True
    for path in paths:
        try:
            case = Case.parse(path.read_text("ascii"))
            TARGETS[case.target].check(case)
        except (Unreadable, KeyError) as error:
            sys.exit(f"{path} holds no case: {error}")
        except Exception:
            good = False
            print(f"{path}:\n{traceback.format_exc()}")
        else:
            print(f"{path}: every property holds")
    return good


def report(finding: Finding, folder: Path) -> None:
    """Write a finding to a file, and print what runs it again."""
    path = keep(finding.case, folder, "failure-", finding.error)
    print(f"\n{finding.trace}\n{finding.case.text()}")
    print(f"run it again: python -m tests.fuzz {path}\n", flush=True)


def search(searches: Sequence[Search], seconds: float, folder: Path) -> None:
    """Search all targets by turns, and report what is found as it is found."""
    reported = dict.fromkeys((each.target.name for each in searches), 0)
    began = time.monotonic()
    while (left := seconds - (time.monotonic() - began)) > 0:
        for each in searches:
            turn = min(_TURN, left / len(searches))
            faulthandler.dump_traceback_later(turn + _HANG, exit=True)
            result = each.run(turn)
            for finding in result.findings[reported[each.target.name] :]:
                report(finding, folder)
            reported[each.target.name] = len(result.findings)
            print(f"{result}, resident {resident():.0f} MiB", flush=True)
    faulthandler.cancel_dump_traceback_later()


def steady(searches: Sequence[Search], executions: int) -> bool:
    """Run what was kept again and again; return whether memory stays what it is."""
    good = True
    for each in searches:
        cases = [case for case in each.result.kept if case.size <= _SMALL]
        if cases:
            grown = growth(each.target, cases, executions)
            good = good and grown < _GROWTH
            print(f"{each.target.name}: {grown} octets more after {executions} cases", flush=True)
    return good


def main() -> int:
    """Do what was asked for; 0 if every property holds."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="in all (600)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (0)")
    parser.add_argument("--target", choices=(*TARGETS, "all"), default="all", help="(all)")
    parser.add_argument("--failures", type=Path, default=Path(), help="where they go (here)")
    parser.add_argument(
        "--repeat", type=int, default=_REPEATED, help="cases, to see whether memory grows (100000)"
    )
    parser.add_argument(
        "--keep", action="store_true", help="put cases that reach something new into the corpus"
    )
    parser.add_argument("--missed", action="store_true", help="show the lines that none reached")
    parser.add_argument("case", nargs="*", type=Path, help="files of cases to run instead")
    arguments = parser.parse_args()
    if arguments.case:
        return 0 if replay(arguments.case) else 1
    names = TARGETS if arguments.target == "all" else (arguments.target,)
    searches = [Search(TARGETS[name], seed=arguments.seed, corpus=load(name)) for name in names]
    print(f"seed {arguments.seed}, resident {resident():.0f} MiB")
    search(searches, arguments.seconds, arguments.failures)
    good = steady(searches, arguments.repeat)
    print(f"resident {resident():.0f} MiB")
    for each in searches:
        if arguments.missed:
            print(f"{each.target.name} did not reach: {', '.join(each.missed()) or '-'}")
        if arguments.keep:
            for path in CORPUS.glob(f"{each.target.name}-*.case"):
                path.unlink()
            for case in distilled(each.target, each.result.kept):
                keep(case, CORPUS)
    return 0 if good and not any(each.result.findings for each in searches) else 1


if __name__ == "__main__":
    sys.exit(main())
