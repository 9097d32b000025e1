"""``python -m tests.fuzz``: search for inputs that break a property, for a given time.

All random choices follow from the seed. A finding is reduced and written to a file, which this
command takes as an argument to run it again. The exit status is 1 if there is a finding or memory
grows.
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
from .search import Finding, Search, growth
from .targets.all import TARGETS

_HANG = 120.0  # seconds beyond its turn after which a search is killed with a traceback
_TURN = 20.0  # seconds of one target before the next one
_REPEATED = 100_000
_SMALL = 2_000  # octets of a case that is repeated for the memory check
_GROWTH = 64 * 1024  # octets that all these may leave in memory: counters, caches


def resident() -> float:
    """Return the resident memory of this process in MiB; 0: unknown."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) / 256
    except OSError:
        return 0.0


def replay(paths: Sequence[Path]) -> bool:
    """Run the cases in files and print their failures; return whether there are none."""
    good = True
    for path in paths:
        try:
            case = Case.parse(path.read_text("ascii"))
            TARGETS[case.target].check(case)
        except (Unreadable, KeyError) as error:
            sys.exit(f"{path} is not a case: {error}")
        except Exception:
            good = False
            print(f"{path}:\n{traceback.format_exc()}")
        else:
            print(f"{path}: every property holds")
    return good


def report(finding: Finding, folder: Path) -> None:
    """Write a finding to a file, and print the command that runs it again."""
    path = keep(finding.case, folder, "failure-", finding.error)
    print(f"\n{finding.trace}\n{finding.case.text()}")
    print(f"run it again: python -m tests.fuzz {path}\n", flush=True)


def search(searches: Sequence[Search], seconds: float, folder: Path) -> None:
    """Search all targets in turn, and report each finding at once."""
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
    """Run the kept cases again and again; return whether memory does not grow."""
    good = True
    for each in searches:
        cases = [case for case in each.result.kept if case.size <= _SMALL]
        if cases:
            grown = growth(each.target, cases, executions)
            good = good and grown < _GROWTH
            print(f"{each.target.name}: {grown} octets more after {executions} cases", flush=True)
    return good


def main() -> int:
    """Run the command; return 0 if every property holds."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="of the whole search (600)")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices (0)")
    parser.add_argument("--target", choices=(*TARGETS, "all"), default="all", help="(all)")
    parser.add_argument("--failures", type=Path, default=Path(), help="folder for findings (here)")
    parser.add_argument(
        "--repeat", type=int, default=_REPEATED, help="cases of the memory check (100000)"
    )
    parser.add_argument(
        "--keep", action="store_true", help="write the cases that reach new lines into the corpus"
    )
    parser.add_argument(
        "--missed", action="store_true", help="print the lines that no case reached"
    )
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
