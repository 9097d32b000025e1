"""Commands, options, values and queue ids are completed in bash, zsh and fish."""

import subprocess

from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete
from click.testing import CliRunner

from tests.cli.test_queue import ID, QueueCommandTestCase, listed, page
from tests.tidy import TidyTestCase
from twisted_mta.cli.command import main


class Completion(TidyTestCase):
    def completed(self, shell: type[ShellComplete], *words: str) -> list[str]:
        *before, incomplete = words
        completion = shell(main, {}, "twisted-mta", "_TWISTED_MTA_COMPLETE")
        return [item.value for item in completion.get_completions(before, incomplete)]

    def test_commands_options_and_values_are_completed(self) -> None:
        for shell in (BashComplete, ZshComplete, FishComplete):
            self.assertEqual(self.completed(shell, "re"), ["reload", "reopen-logs"])
            self.assertIn("--state-dir", self.completed(shell, "--"))
            self.assertEqual(
                self.completed(shell, "queue", "re"), ["release", "remove", "resume", "retry"]
            )
            self.assertEqual(
                self.completed(shell, "queue", "list", "--st"), ["--state", "--state-dir"]
            )
            self.assertEqual(self.completed(shell, "queue", "list", "--state", "h"), ["held"])

    def test_each_shell_has_a_script(self) -> None:
        for shell in ("bash", "zsh", "fish"):
            result = CliRunner().invoke(main, ["completion", shell])
            self.assertEqual(result.exit_code, 0, result.output)
            self.assertIn(f"_TWISTED_MTA_COMPLETE={shell}_complete", result.output)

    def test_the_scripts_are_read_by_their_shells(self) -> None:
        script = CliRunner().invoke(main, ["completion", "bash"]).output
        done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))


class Ids(QueueCommandTestCase):
    def test_ids_of_the_queue_are_offered(self) -> None:
        other = "1M81ARNJN5BZZ"
        words = {
            "COMP_WORDS": f"twisted-mta queue show --state-dir {self.state} 1m81",
            "COMP_CWORD": "5",
        }
        result = self.run_tool(
            answers=[page(listed(ID), listed(other), listed("2" * 13))], complete=words
        )
        self.assertEqual(result.output.split(), [f"plain,{ID}", f"plain,{other}"])
        self.assertEqual(self.requests[0][0], "GET /v1/queue?limit=50&after=1M80ZZZZZZZZZ")

    def test_without_an_mta_no_ids_are_offered(self) -> None:
        words = {
            "COMP_WORDS": f"twisted-mta queue show --state-dir {self.state} x",
            "COMP_CWORD": "5",
        }
        self.assertEqual(self.run_tool(complete=words).output.strip(), "")
