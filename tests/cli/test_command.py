"""``twisted-mta``: version, unknown commands, and what a command imports."""

import os
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from importlib import import_module

from click.testing import CliRunner, Result

from tests.tidy import TidyTestCase
from twisted_mta import __version__
from twisted_mta.cli.command import COMMANDS, main


class CliTestCase(TidyTestCase):
    def run_tool(self, *words: str, environment: Mapping[str, str] | None = None) -> Result:
        return CliRunner().invoke(main, words, env=environment or {})


class Tool(CliTestCase):
    def test_the_version_is_shown(self) -> None:
        result = self.run_tool("--version")
        self.assertEqual((result.exit_code, result.output), (0, f"twisted-mta {__version__}\n"))

    def test_an_unknown_command_is_a_usage_error(self) -> None:
        self.assertEqual(self.run_tool("postpone").exit_code, 2)

    def test_the_nearest_command_or_option_is_named(self) -> None:
        for words, nearest in (
            ("statsu", "status"),
            ("queue lst", "list"),
            ("queue list --formm x", "--from"),
        ):
            result = self.run_tool(*words.split())
            self.assertEqual(result.exit_code, 2)
            self.assertIn(nearest, result.output)

    def test_a_dumb_terminal_gets_no_colors(self) -> None:
        result = CliRunner().invoke(
            main, ["check", "--config", "/nowhere"], env={"TERM": "dumb"}, color=True
        )
        self.assertNotIn("\x1b[", result.output)

    def test_no_color_leaves_colors_out_also_on_a_terminal(self) -> None:
        for variable, colored in (("", True), ("1", False)):
            result = CliRunner().invoke(
                main, ["check", "--config", "/nowhere"], env={"NO_COLOR": variable}, color=True
            )
            self.assertEqual("\x1b[" in result.output, colored, variable)

    def test_output_that_cannot_be_written_is_an_error_without_a_traceback(self) -> None:
        # The text is short, so that it is written at the end alone.
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-c", "from twisted_mta.cli import main; main()", "--help"],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
            )
        self.assertEqual(
            (done.returncode, done.stderr),
            (1, "twisted-mta: cannot write the output: No space left on device\n"),
        )

    def test_a_closed_standard_output_causes_no_traceback(self) -> None:
        command = [sys.executable, "-c", "from twisted_mta.cli import main; main()"]
        for words in (["--help"], ["check", "--config", "/nowhere"]):
            done = subprocess.run(
                ["sh", "-c", 'exec "$@" >&-', "sh", *command, *words],
                stderr=subprocess.PIPE,
                text=True,
            )
            self.assertNotIn("Traceback", done.stderr)

    def test_an_argument_that_is_not_utf_8_is_an_error_without_a_traceback(self) -> None:
        command = [sys.executable, "-c", "from twisted_mta.cli import main; main()", "explain"]
        done = subprocess.run(
            [*command, b"b\xff@example.net", "--state-dir", "/nowhere"],
            stderr=subprocess.PIPE,
            text=True,
        )
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("found \\udcff in an argument, expected text in UTF-8", done.stderr)
        self.assertNotIn("Traceback", done.stderr)

    def test_a_reader_that_stops_early_causes_no_message(self) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        with open(writing, "w") as broken:
            done = subprocess.run(
                [sys.executable, "-c", "from twisted_mta.cli import main; main()", "--help"],
                stdout=broken,
                stderr=subprocess.PIPE,
                text=True,
            )
        self.assertEqual((done.returncode, done.stderr), (1, ""))


_LOADED = """
import sys
from click.testing import CliRunner
from twisted_mta.cli import main
print(CliRunner().invoke(main, sys.argv[1:]).exit_code)
print(*sorted(name for name in sys.modules if name.startswith(("twisted.", "twisted_mta."))))
"""


class Quickness(CliTestCase):
    def loaded(self, *words: str) -> tuple[str, list[str]]:
        """Return the exit status of a command, and which modules of Twisted and ours it loads."""
        asked = [sys.executable, "-c", _LOADED, *words]
        done = subprocess.run(asked, capture_output=True, text=True, check=True)
        status, loaded = done.stdout.splitlines()
        return status, loaded.split()

    def test_the_list_of_commands_imports_none_of_them(self) -> None:
        for words in ("--help", "--version", "check --help"):
            status, loaded = self.loaded(*words.split())
            self.assertEqual(status, "0", words)
            self.assertEqual([name for name in loaded if name.startswith("twisted.")], [])
            self.assertLess(len(loaded), 12, loaded)

    def test_the_list_says_of_each_command_what_its_own_help_says(self) -> None:
        for name, listed in COMMANDS.items():
            module = import_module(f"twisted_mta.cli.{listed.module}")
            own = getattr(module, name.replace("-", "_")).help
            self.assertEqual(listed.help, " ".join(own.split("\n\n")[0].split()))

    def test_accounts_are_listed_without_the_settings_and_the_reactor(self) -> None:
        file = self.mktemp()
        with open(file, "x", opener=partial(os.open, mode=0o600)):
            pass
        status, loaded = self.loaded("users", "list", "--file", file)
        self.assertEqual(status, "0")
        for name in ("twisted.cred", "twisted.internet.reactor", "twisted_mta.config.config"):
            self.assertNotIn(name, loaded)

    def test_commands_that_ask_a_running_mta_do_not_import_it(self) -> None:
        # Importing the whole MTA takes most of a second: too long for each call of a script.
        for words in ("status", "queue list", "queue show 0ABC", "explain a@b.example", "trace"):
            status, loaded = self.loaded(*words.split(), "--state-dir", "/nonexistent")
            self.assertIn(status, "23", words)
            self.assertNotIn("twisted.internet", loaded, words)
            self.assertNotIn("twisted_mta.config", loaded, words)
