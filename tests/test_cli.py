"""The operator's tool."""

from collections.abc import Mapping

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta import __version__
from twisted_mta.cli import main


class CliTestCase(SynchronousTestCase):
    def run_tool(self, *words: str, environment: Mapping[str, str] | None = None) -> Result:
        return CliRunner().invoke(main, words, env=environment or {})


class Tool(CliTestCase):
    def test_it_tells_its_version(self) -> None:
        result = self.run_tool("--version")
        self.assertEqual((result.exit_code, result.output), (0, f"twisted-mta {__version__}\n"))

    def test_a_command_that_there_is_not_is_a_usage_error(self) -> None:
        self.assertEqual(self.run_tool("postpone").exit_code, 2)
