"""An application chooses its reactor when it likes."""

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

_CHOOSING = """
from twisted_mta import ESMTPFactory, MailTransferAgent
from twisted.internet import asyncioreactor
asyncioreactor.install()
"""


class Choosing(SynchronousTestCase):
    def test_a_reactor_can_be_installed_after_the_agent_is_imported(self) -> None:
        done = subprocess.run([sys.executable, "-c", _CHOOSING], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
