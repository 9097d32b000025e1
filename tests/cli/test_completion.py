"""Commands, options and values are completed in bash and zsh."""

from click.shell_completion import BashComplete, ShellComplete, ZshComplete

from tests.tidy import TidyTestCase
from twisted_mta.cli.command import main


class Completion(TidyTestCase):
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
