"""Command: ``python -m tests.mutants`` changes the program and counts what tests notice."""

from __future__ import annotations

import argparse
import ast
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from queue import SimpleQueue

from attrs import frozen

from .change import Change, changes

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = "twisted_mta"
SLOW = (
    "applications",
    "benchmark",
    "differential",
    "docs",
    "faults",
    "functional",
    "fuzz",
    "mutants",
)
"""Tests that start programs or search for seconds: too slow to be run for each change."""

_MEMORY = 4 << 30  # octets of address space: a change may make a loop endless


@frozen
class Mutant:
    """A file of the package with one change in it."""

    file: str  # from the package's folder: tls/memory.py
    change: Change

    @property
    def room(self) -> str:
        """The folder of the file, with a slash."""
        return f"{self.file.split('/')[0]}/"

    def __str__(self) -> str:
        before, after = (" ".join(text.split()) for text in (self.change.before, self.change.after))
        return f"{self.file}:{self.change.line} {self.change.kind}: {before} → {after}"


class Tree:
    """A copy of the project in which one change at a time is tried."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in (PACKAGE, "tests", "twisted", "docs"):
            shutil.copytree(
                ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__")
            )
        for name in ("README.md", "pyproject.toml", "setup.cfg"):
            shutil.copy(ROOT / name, root / name)

    def passes(self, tests: Sequence[str], timeout: float) -> bool:
        """Return whether all of ``tests`` (dotted names) pass within ``timeout`` seconds."""
        environment = {**os.environ, "PYTHONPATH": str(self.root)}
        command = [sys.executable, "-m", "twisted.trial", "--exitfirst", "--reporter=summary"]
        process = subprocess.Popen(
            [*command, f"--temp-directory={self.root}/_trial", *tests],
            cwd=self.root,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return process.wait(timeout) == 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            return False

    @contextmanager
    def changed(self, mutant: Mutant) -> Iterator[None]:
        """Make the change while the context lasts."""
        path = self.root / PACKAGE / mutant.file
        source = path.read_text(encoding="utf-8")
        _write(path, mutant.change.of(source))
        try:
            yield
        finally:
            _write(path, source)


def _write(path: Path, source: str) -> None:
    path.write_text(source, encoding="utf-8")
    # A compiled file counts as long as the time, in seconds, and the size of its source stay.
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


def rooms() -> list[str]:
    """Return the folders of tests that are quick."""
    return sorted(
        path.name
        for path in (ROOT / "tests").iterdir()
        if (path / "__init__.py").exists() and path.name not in SLOW
    )


def all_stages(file: str) -> list[list[str]]:
    """Return the tests that a file's change is tried with: its own room's, then all quick ones."""
    room = file.split("/")[0]
    own = [f"tests.{room}"] if room in rooms() else []
    others = [f"tests.{name}" for name in rooms() if name != room]
    return [stage for stage in (own, others) if stage]


def own_stages(file: str) -> list[list[str]]:
    """Return a file's own tests: those of its room, then others that import the file.

    Those of the room that import the file come first, as they notice most changes.
    """
    room = f"tests.{file.split('/')[0]}."
    module = f"{PACKAGE}.{file}".removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    importing = [name for name, imports in _test_modules().items() if module in imports]
    inside = [name for name in _test_modules() if name.startswith(room)]
    inside.sort(key=lambda name: name not in importing)
    outside = [name for name in importing if name not in inside]
    return [stage for stage in (inside, outside) if stage]


@cache
def _test_modules() -> dict[str, set[str]]:
    """Return the modules of quick tests, and for each the absolute names that it imports."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): _imports(path.read_text("utf-8"))
        for name in rooms()
        for path in sorted((ROOT / "tests" / name).rglob("test_*.py"))
    }


def _imports(source: str) -> set[str]:
    """Return the absolute names that a module imports, and the modules that they are from."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def choose(files: Sequence[str], kinds: Sequence[str], count: int, seed: int) -> list[Mutant]:
    """Return ``count`` changes drawn from the seed, of the files and kinds wanted (empty: all)."""
    found = [
        Mutant(file, change)
        for path in sorted((ROOT / PACKAGE).rglob("*.py"))
        for file in [str(path.relative_to(ROOT / PACKAGE))]
        if not files or file.startswith(tuple(files))
        for change in changes(path.read_text(encoding="utf-8"))
        if not kinds or change.kind in kinds
    ]
    draw = random.Random(seed)
    return draw.sample(found, min(count, len(found)))


def _run(arguments: argparse.Namespace) -> int:
    mutants = choose(arguments.file, arguments.kind, arguments.count, arguments.seed)
    if not mutants:
        print("no change can be made of these files", file=sys.stderr)
        return 2
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    noticed: Counter[str] = Counter()
    made: Counter[str] = Counter()
    took: dict[frozenset[str], float] = {}
    lock = threading.Lock()
    with tempfile.TemporaryDirectory(prefix="mutants") as home:
        trees: SimpleQueue[Tree] = SimpleQueue()
        for number in range(arguments.jobs):
            trees.put(Tree(Path(home, str(number))))

        def timeout(stage: list[str], tree: Tree) -> float:
            if frozenset(stage) not in took:
                began = time.monotonic()
                if not tree.passes(stage, 3600.0):
                    raise SystemExit(f"without a change, {' '.join(stage)} fails")
                took[frozenset(stage)] = time.monotonic() - began
            return 3 * took[frozenset(stage)] + float(arguments.patience)

        def notices(stage: list[str], tree: Tree, mutant: Mutant) -> bool:
            limit = timeout(stage, tree)
            with tree.changed(mutant):
                return not tree.passes(stage, limit)

        def attempt(mutant: Mutant) -> None:
            stages = own_stages if arguments.own else all_stages
            tree = trees.get()
            try:
                seen = any(notices(stage, tree, mutant) for stage in stages(mutant.file))
            finally:
                trees.put(tree)
            with lock:
                for group in ("all", mutant.room, mutant.file, f"({mutant.change.kind})"):
                    made[group] += 1
                    noticed[group] += seen
                print(f"{'noticed  ' if seen else 'UNNOTICED'} {mutant}", flush=True)

        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(attempt, mutants))
    print()
    for group in sorted(made):
        score = noticed[group] / made[group]
        print(f"{noticed[group]:5} of {made[group]:5}  {score:4.0%}  {group}")
    return 0


def main() -> int:
    """Run the campaign; 0 when it ran to its end, whatever the score."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("file", nargs="*", help="files or rooms, as auth/throttle.py or tls/ (all)")
    parser.add_argument("--count", type=int, default=100, help="how many changes (100)")
    parser.add_argument("--kind", action="append", default=[], help="only changes of this kind")
    parser.add_argument("--seed", type=int, default=0, help="the changes are drawn from it (0)")
    parser.add_argument(
        "--own", action="store_true", help="try only tests of the file's room and of its importers"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=60.0,
        help="seconds beyond three times what the tests take, after which a change is noticed (60)",
    )
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (2)")
    return _run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
