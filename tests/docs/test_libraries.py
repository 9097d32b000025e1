"""The page of libraries and the project file name the same libraries and versions."""

import re
import tomllib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent.parent


class Libraries(SynchronousTestCase):
    def test_each_dependency_is_explained_with_its_least_version(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        wanted = list(project["dependencies"])
        for extra in project["optional-dependencies"].values():
            wanted.extend(extra)
        page = (ROOT / "docs" / "libraries.rst").read_text(encoding="utf-8")
        rows = re.findall(r"^   \* - (\S+)\n     - (\S+)$", page, re.MULTILINE)
        self.assertEqual(
            sorted(f"{name.lower()}>={version}" for name, version in rows),
            sorted(re.sub(r"\[.*]", "", requirement).lower() for requirement in wanted),
        )
