"""Cases in files: the corpus that every search begins with, and findings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from .case import Case
from .coverage import Coverage
from .targets import Target

CORPUS = Path(__file__).with_name("corpus")


def load(target: str, folder: Path = CORPUS) -> list[Case]:
    """Return the cases of one target in ``folder``, in the order of their names."""
    paths = sorted(folder.glob(f"{target}-*.case"))
    return [Case.parse(path.read_text("ascii")) for path in paths]


def keep(case: Case, folder: Path, prefix: str = "", comment: str = "") -> Path:
    """Write a case to a file named after its content; return the path."""
    text = case.text()
    name = hashlib.sha256(text.encode("ascii")).hexdigest()[:10]
    path = folder / f"{prefix}{case.target}-{name}.case"
    note = "".join(f"# {ascii(line)[1:-1]}\n" for line in comment.splitlines()[:3])
    path.write_text(note + text, "ascii")
    return path


def distilled(target: Target, cases: Iterable[Case]) -> list[Case]:
    """Return a few of the cases that together reach the same lines, small ones first."""
    coverage = Coverage(target.modules)
    few = []
    lines = 0
    for case in sorted(cases, key=lambda case: case.size):
        with coverage:
            target.probe(case)
        coverage.news()
        reached, _ = coverage.lines()
        if reached > lines:
            lines = reached
            few.append(case)
    return few
