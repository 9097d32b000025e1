"""Installation: `twistd --help` lists `mta`, and the console script exists."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent
NOT_SOURCE = shutil.ignore_patterns(
    ".*", "_trial_temp*", "__pycache__", "build", "dist", "venv", "mta-state", "*.egg-info"
)
MINUTES = 60.0

INSTALL_AND_ASK = """
set -e
{python} -m venv {home}/venv
{home}/venv/bin/python -m pip install --quiet --disable-pip-version-check {how} {home}/tree
cd {home}
{home}/venv/bin/twistd --help
test -x {home}/venv/bin/twisted-mta
"""


class Installation(SynchronousTestCase):
    def test_an_installed_and_an_editable_package_make_twistd_list_mta(self) -> None:
        # In parallel: fetching and unpacking the dependencies takes most of the time.
        running = {}
        # trial -j puts its own packages there, and pip would find nothing to install.
        environment = {name: v for name, v in os.environ.items() if name != "PYTHONPATH"}
        for name, how in (("installed", ""), ("editable", "--editable")):
            home = Path(tempfile.mkdtemp(prefix=f"mta-{name}-"))
            self.addCleanup(shutil.rmtree, home, ignore_errors=True)
            shutil.copytree(ROOT, home / "tree", ignore=NOT_SOURCE)
            running[name] = subprocess.Popen(
                ["sh", "-c", INSTALL_AND_ASK.format(python=sys.executable, home=home, how=how)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=environment,
            )
            self.addCleanup(running[name].kill)
        for name, process in running.items():
            output, _ = process.communicate(timeout=10 * MINUTES)
            self.assertEqual(process.returncode, 0, f"{name}:\n{output}")
            listed = [line.split()[0] for line in output.splitlines() if line.strip()]
            self.assertIn("mta", listed, f"{name}:\n{output}")
