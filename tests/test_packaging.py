"""Installation: `twistd --help` lists `mta`, and the console script exists.

The README's commands install the package once as it is and once editable. The environment of the
tests is the editable one, so that only the other is made here; its dependencies are those of the
environment of the tests.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.metadata import distribution
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import twisted_mta

ROOT = Path(__file__).resolve().parent.parent
NOT_SOURCE = shutil.ignore_patterns(
    ".*", "_trial_temp*", "__pycache__", "build", "dist", "venv", "mta-state", "*.egg-info"
)
MINUTES = 60.0


class Installation(SynchronousTestCase):
    def run_program(self, *command: str | Path, cwd: str | Path = "/") -> str:
        # trial -j puts its own packages there, and pip would find nothing to install.
        environment = {name: v for name, v in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            timeout=10 * MINUTES,
            cwd=cwd,
        )
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout

    def assertListed(self, bin_directory: Path) -> None:
        output = self.run_program(bin_directory / "twistd", "--help")
        listed = [line.split()[0] for line in output.splitlines() if line.strip()]
        self.assertIn("mta", listed, output)

    def test_an_editable_package_makes_twistd_list_mta(self) -> None:
        origin = json.loads(distribution("twisted-mta").read_text("direct_url.json") or "{}")
        if not origin.get("dir_info", {}).get("editable"):
            raise SkipTest("the tests run with a package that is not editable")
        self.assertEqual(Path(twisted_mta.__file__).parent, ROOT / "twisted_mta")
        self.assertListed(Path(sys.executable).parent)
        self.assertTrue(Path(sys.executable).with_name("twisted-mta").exists())

    def test_an_installed_package_is_whole_and_makes_twistd_list_mta(self) -> None:
        home = Path(tempfile.mkdtemp(prefix="mta-installed-"))
        self.addCleanup(shutil.rmtree, home, ignore_errors=True)
        shutil.copytree(ROOT, home / "tree", ignore=NOT_SOURCE)
        venv = home / "venv"
        self.run_program(sys.executable, "-m", "venv", "--without-pip", venv)
        python = venv / "bin" / "python"
        pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
        self.run_program(*pip, "install", "--quiet", "--no-deps", home / "tree")
        (packages,) = venv.glob("lib/python*/site-packages")
        # Behind its own packages, and without the .pth file that makes ours editable there.
        (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), "utf-8")
        twistd = venv / "bin" / "twistd"
        twistd.write_text(
            f"#!{python}\nfrom twisted.scripts.twistd import run\nrun()\n", encoding="utf-8"
        )
        twistd.chmod(0o755)
        self.assertListed(twistd.parent)
        self.run_program(venv / "bin" / "twisted-mta", "--help")
        fixtures = self.run_program(python, "-m", "pytest", "--fixtures", "-q", cwd=home / "venv")
        self.assertIn("memory_mta", fixtures)
        installed = packages / "twisted_mta"
        plug_in = ROOT / "twisted_mta" / "testing" / "plugin"  # installed beside the package
        for path in (ROOT / "twisted_mta").rglob("*"):
            if path.is_file() and path.suffix != ".pyc" and plug_in not in path.parents:
                self.assertTrue((installed / path.relative_to(ROOT / "twisted_mta")).is_file())
        where = self.run_program(python, "-c", "import twisted_mta; print(twisted_mta.__file__)")
        self.assertEqual(Path(where.strip()).parent, installed)
