"""An application chooses its reactor when it likes."""

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

_CHOOSING = """
from twisted_mta import ESMTPFactory, MailTransferAgent
from twisted.internet import asyncioreactor
asyncioreactor.install()
"""


_USING = """
import sys
import twisted_mta

def loaded():
    return [each for each in LATE if each in sys.modules]

LATE = ("twisted.internet.reactor", "twisted.mail.smtp")

for name in twisted_mta.__all__:
    getattr(twisted_mta, name)
import twisted_mta.testing
assert not loaded(), loaded()
from twisted.internet.task import Clock
factory = twisted_mta.ESMTPFactory(hostname="mx.example")
agent = twisted_mta.MailTransferAgent(twisted_mta.Config(state_dir="none"), reactor=Clock())
assert not loaded(), loaded()
from zope.interface import implementer
from twisted.mail.interfaces import IMessageDelivery

@implementer(IMessageDelivery)
class Stock:
    pass

twisted_mta.ESMTPFactory(Stock(), hostname="mx.example")
assert "twisted.mail.smtp" in loaded()
"""


class Choosing(SynchronousTestCase):
    def test_a_reactor_can_be_installed_after_the_agent_is_imported(self) -> None:
        self.run_alone(_CHOOSING)

    def test_no_public_name_installs_a_reactor_and_only_a_stock_delivery_loads_twisted_mail(
        self,
    ) -> None:
        self.run_alone(_USING)

    def run_alone(self, program: str) -> None:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
