"""The tool's page, its man page and its completion are made from its commands."""

from pathlib import Path

from click.shell_completion import BashComplete, ShellComplete, ZshComplete
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.cli.command import main
from twisted_mta.cli.manual import page

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "twisted-mta.rst"


class Manual(SynchronousTestCase):
    def test_it_says_what_the_commands_say(self) -> None:
        self.assertEqual(
            PAGE.read_text(encoding="utf-8"),
            page(),
            "run: python -m twisted_mta.cli.manual > docs/twisted-mta.rst",
        )

    def test_it_has_every_command_and_option(self) -> None:
        said = page()
        for words in ("queue remove", "--dry-run", "--older AGE", "status", "check", "reload"):
            self.assertIn(words, said)


class Completion(SynchronousTestCase):
    def completed(self, shell: type[ShellComplete], *words: str) -> list[str]:
        *before, incomplete = words
        completion = shell(main, {}, "twisted-mta", "_TWISTED_MTA_COMPLETE")
        return [item.value for item in completion.get_completions(before, incomplete)]

    def test_commands_options_and_values_are_completed(self) -> None:
        for shell in (BashComplete, ZshComplete):
            self.assertEqual(self.completed(shell, "queue", "re"), ["release", "remove", "retry"])
            self.assertEqual(
                self.completed(shell, "queue", "list", "--st"), ["--state", "--state-dir"]
            )
            self.assertEqual(self.completed(shell, "queue", "list", "--state", "h"), ["held"])

    def test_each_shell_has_a_script(self) -> None:
        for shell in (BashComplete, ZshComplete):
            completion = shell(main, {}, "twisted-mta", "_TWISTED_MTA_COMPLETE")
            script = completion.source_template % completion.source_vars()
            self.assertIn("_TWISTED_MTA_COMPLETE", script)
