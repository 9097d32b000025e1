"""The Python blocks of the pages for applications pass ``mypy --strict``, as the examples do."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from inspect import signature
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta import Config

from .test_examples import DOCS, examples

ROOT = DOCS.parent
# What an application has, and a block of a page only names.
PAGES = ("embedding.rst", "from-twisted-mail.rst")
GIVEN = """\
from collections.abc import Callable
from twisted.cred.portal import Portal
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from twisted.mail.interfaces import IMessageDelivery
from twisted_mta import Config, ESMTPFactory, MailTransferAgent

agent: MailTransferAgent
config: Config
factory: ESMTPFactory
certificate: PrivateCertificate
delivery: IMessageDelivery
portal: Portal
options: CertificateOptions
my_delivery: IMessageDelivery
ConsoleMessageDelivery: Callable[[], IMessageDelivery]
"""


class Types(SynchronousTestCase):
    timeout = 300  # seconds: the first run has no cache

    def checked(self, *files: str) -> str:
        """Return what mypy finds in files."""
        if find_spec("mypy") is None:
            self.skipTest("mypy is missing: it comes with the extra lint")
        command = [sys.executable, "-m", "mypy", "--strict", "--no-pretty", *files]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        return found.stdout + found.stderr

    def test_the_blocks_of_the_pages_are_typed(self) -> None:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        files = []
        blocks = [block for page in PAGES for block in examples(page)]
        for number, block in enumerate(blocks):
            # A block may define what others are given.
            given = [line for line in GIVEN.splitlines() if not _defines(block, line)]
            file = directory / f"block_{number}.py"
            file.write_text("\n".join([*given, block]), encoding="utf-8")
            files.append(str(file))
        self.assertGreater(len(files), 10)
        found = self.checked(*files)
        self.assertTrue(found.startswith("Success: no issues found"), found)

    def test_settings_take_what_is_written_and_nothing_else(self) -> None:
        file = Path(f"{self.mktemp()}.py").absolute()
        file.write_text(
            "from twisted_mta import Config, Destination, Listener\n"
            "Listener(endpoint='tcp:0', max_message_size='1 MiB', command_timeout='5 min')\n"
            "Destination(domain='*', rate='5/min', source_address='192.0.2.1')\n"
            "Config(local_domains=['a.example'], relay_from=['10.0.0.0/8'], drain_timeout='1 s')\n"
            "Config(routes={'*': 'discard:'})\n"
            "wide: float = Config().drain_timeout + Config().message_memory\n"
            "Config(drain_timeout=['1 s'])\n"
            "Config(recipients='none')\n",
            encoding="utf-8",
        )
        lines = self.checked(str(file)).splitlines()
        self.assertEqual([line.split(":")[1] for line in lines[:-1]], ["7", "8"])

    def test_help_shows_what_settings_take(self) -> None:
        parameters = signature(Config).parameters
        self.assertEqual(parameters["drain_timeout"].annotation, "float | str")
        self.assertEqual(parameters["local_domains"].annotation, "Iterable[str]")
        self.assertEqual(parameters["hostname"].annotation, "str")


def _defines(block: str, line: str) -> bool:
    name = line.partition(":")[0]
    return ": " in line and any(each.startswith(f"{name} = ") for each in block.splitlines())
