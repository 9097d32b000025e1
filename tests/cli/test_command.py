"""``twisted-mta``: version, unknown commands, and what a command imports."""

import subprocess
import sys
from collections.abc import Mapping

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta import __version__
from twisted_mta.cli.command import main


class CliTestCase(SynchronousTestCase):
    def run_tool(self, *words: str, environment: Mapping[str, str] | None = None) -> Result:
        return CliRunner().invoke(main, words, env=environment or {})


class Tool(CliTestCase):
    def test_the_version_is_shown(self) -> None:
        result = self.run_tool("--version")
        self.assertEqual((result.exit_code, result.output), (0, f"twisted-mta {__version__}\n"))

    def test_an_unknown_command_is_a_usage_error(self) -> None:
        self.assertEqual(self.run_tool("postpone").exit_code, 2)


_LOADED = """
import sys
from click.testing import CliRunner
from twisted_mta.cli import main
print(CliRunner().invoke(main, sys.argv[1:]).exit_code)
print(*sorted(name for name in sys.modules if name.startswith(("twisted.", "twisted_mta."))))
"""


class Quickness(CliTestCase):
    def test_commands_that_ask_a_running_mta_do_not_import_it(self) -> None:
        # Importing the whole MTA takes most of a second: too long for each call of a script.
        for words in ("status", "queue list", "queue show 0ABC", "explain a@b.example", "trace"):
            asked = [sys.executable, "-c", _LOADED, *words.split(), "--state-dir", "/nonexistent"]
            done = subprocess.run(asked, capture_output=True, text=True, check=True)
            status, loaded = done.stdout.splitlines()
            self.assertIn(status, "23", words)
            self.assertNotIn("twisted.internet", loaded, words)
            self.assertNotIn("twisted_mta.config", loaded, words)
