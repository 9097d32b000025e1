"""The sign-up tests of docs/testing.rst, in pytest and in trial; the plug-in of pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.docs.test_examples import examples

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = """
import smtplib

def sign_up(address, host, port):
    with smtplib.SMTP(host, port, timeout=10) as client:
        text = f"Subject: Welcome\\r\\n\\r\\nPlease see https://app.test/confirm/1.\\r\\n"
        client.sendmail("app@app.test", [address], text)
"""
EMPTIED = """
import pytest

@pytest.mark.parametrize("number", range(4))
def test_no_mail_of_another_test_is_there(mta, number):
    assert mta.inbox == []
    sign_up("bob@user.test", mta.host, mta.port)
    assert len(mta.inbox) == 1
"""
IN_MEMORY = """
def test_five_days_pass(memory_mta):
    memory_mta.submit(b"Subject: x\\r\\n\\r\\n", sender="", recipients=["bob@localhost"])
    memory_mta.advance(5 * 86400)
    assert len(memory_mta.mail("bob")) == 1
"""
NOTHING_IMPORTED = """
import sys

def test_nothing_is_imported(request):
    assert request.config.pluginmanager.has_plugin("pytest_twisted_mta")
    names = [name for name in sys.modules if name.partition(".")[0] in ("twisted_mta", "twisted")]
    assert names == []
"""
OPTIONS = """
import smtplib
import pytest

@pytest.fixture(scope="session")
def mta_options():
    return {"users": {"ann": "secret"}}

def test_mail_needs_a_login(mta):
    with pytest.raises(smtplib.SMTPSenderRefused):
        sign_up("bob@user.test", mta.host, mta.port)
"""


def example(words: str) -> str:
    (found,) = (each for each in examples("testing.rst") if words in each)
    return found


class PlugIn(SynchronousTestCase):
    def run_tests(self, runner: list[str], text: str) -> str:
        """Run tests in a process of their own; return what the runner says."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        (directory / "test_app.py").write_text(PROGRAM + text, "utf-8")
        paths = (ROOT, ROOT / "twisted_mta" / "testing" / "plugin", directory)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
        ran = subprocess.run(
            [sys.executable, "-m", *runner],
            cwd=directory,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        self.assertEqual(ran.returncode, 0, ran.stdout)
        return ran.stdout

    def pytest(self, text: str, *options: str) -> str:
        plug_ins = ("-p", "pytest_twisted_mta", "-p", "no:cacheprovider")
        return self.run_tests(["pytest", *plug_ins, *options, "test_app.py"], text)

    def test_the_sign_up_test_in_pytest_passes_in_at_most_six_lines(self) -> None:
        test = example("(mta):")
        self.assertLessEqual(len(test.split("\n\n\n")[0].strip().splitlines()), 6)
        self.assertIn("1 passed", self.pytest(test))

    def test_the_sign_up_test_in_trial_passes_in_at_most_six_lines(self) -> None:
        test = example("(MTAMixin")
        self.assertLessEqual(len([line for line in test.splitlines() if line]), 6)
        self.assertIn("successes=1", self.run_tests(["twisted.trial", "test_app"], test))

    def test_the_server_is_emptied_for_each_test(self) -> None:
        self.assertIn("4 passed", self.pytest(EMPTIED))

    def test_each_worker_of_xdist_has_a_server(self) -> None:
        if find_spec("xdist") is None:
            raise SkipTest("pytest-xdist is missing: it comes with the extra test")
        self.assertIn("4 passed", self.pytest(EMPTIED, "-n", "2"))

    def test_the_options_of_the_server_can_be_overridden(self) -> None:
        self.assertIn("1 passed", self.pytest(OPTIONS))

    def test_an_agent_in_memory_is_a_fixture(self) -> None:
        self.assertIn("1 passed", self.pytest(IN_MEMORY))

    def test_nothing_is_imported_before_a_fixture_is_used(self) -> None:
        self.assertIn("1 passed", self.pytest(NOTHING_IMPORTED))
