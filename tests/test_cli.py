"""The operator's tool: what ``twisted-mta check`` finds."""

import os
import shutil
import tempfile
from collections.abc import Mapping

from attrs import evolve
from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta import __version__
from twisted_mta.cli import findings, main
from twisted_mta.config import Config, Listener
from twisted_mta.files import DiskFiles
from twisted_mta.server.certificate import self_signed

NOW = 1_790_000_000.0


class CliTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.state = os.path.join(self.directory, "state")

    def run_tool(self, *words: str, environment: Mapping[str, str] | None = None) -> Result:
        return CliRunner().invoke(main, words, env=environment or {})

    def file(self, toml: str) -> str:
        path = os.path.join(self.directory, "mta.toml")
        with open(path, "w", encoding="utf-8") as written:
            written.write(toml)
        return path

    def certificate(self) -> str:
        path, _ = self_signed(
            self.directory, "mail.example.net", files=DiskFiles(), wall_time=lambda: NOW
        )
        return path

    def found(self, config: Config, *, now: float = NOW) -> list[str]:
        return [
            f"{finding.severity}: {finding.text}".replace(self.directory, "DIR")
            for finding in findings(config, wall_time=lambda: now)
        ]


class Tool(CliTestCase):
    def test_it_tells_its_version(self) -> None:
        result = self.run_tool("--version")
        self.assertEqual((result.exit_code, result.output), (0, f"twisted-mta {__version__}\n"))

    def test_what_is_not_built_yet_is_a_usage_error(self) -> None:
        for command in ("queue", "users", "status"):
            self.assertEqual(self.run_tool(command).exit_code, 2)
            self.assertNotIn(command, self.run_tool("--help").output)


class Check(CliTestCase):
    def test_a_good_file_ends_with_0_and_nothing_is_written(self) -> None:
        file = self.file('[mta]\nhostname = "mail.example.net"\nroutes = {"*" = "discard:"}\n')
        result = self.run_tool("check", "--config", file, "--state-dir", self.state)
        self.assertEqual(result.output, f"{file}: a start would work\n")
        self.assertEqual(result.exit_code, 0)
        self.assertFalse(os.path.exists(self.state))

    def test_an_error_in_the_file_ends_with_1(self) -> None:
        file = self.file('[mta]\nhostname = ""\n')
        result = self.run_tool("check", "--config", file)
        self.assertEqual(result.exit_code, 1)
        self.assertEqual(
            result.output,
            f'error: {file}: [mta] hostname = "":'
            " a domain name such as mail.example.net would do\n",
        )

    def test_the_state_directory_of_the_environment_is_looked_at(self) -> None:
        os.mkdir(self.state, 0o755)
        os.chmod(self.state, 0o755)
        result = self.run_tool("check", environment={"STATE_DIRECTORY": self.state})
        self.assertIn(f"warning: state_dir {self.state}: others can look into it", result.output)
        self.assertEqual(result.exit_code, 0)

    def test_a_wrong_option_ends_with_2(self) -> None:
        self.assertEqual(self.run_tool("check", "--colour").exit_code, 2)


class Findings(CliTestCase):
    def test_routes_are_read_as_a_start_would_read_them(self) -> None:
        config = Config(
            state_dir=self.state, routes=(("a.example", "smtp://b:99999"), ("*", "discard:"))
        )
        (text,) = self.found(config)
        self.assertTrue(text.startswith("error: route a.example=smtp://b:99999: "), text)

    def test_directories_that_cannot_be_are_named(self) -> None:
        file = self.file("")
        config = Config(state_dir=file, maildir=os.path.join(file, "mail"))
        self.assertEqual(
            self.found(config),
            [
                "error: state_dir DIR/mta.toml: is no directory; move it away, or name another",
                "error: maildir DIR/mta.toml/mail: DIR/mta.toml is no directory; move it away",
            ],
        )

    def test_a_state_directory_that_others_can_read_is_warned_of(self) -> None:
        os.mkdir(self.state)
        os.chmod(self.state, 0o750)
        self.assertEqual(
            self.found(Config(state_dir=self.state)),
            [
                "warning: state_dir DIR/state: others can look into it (mode 0750); chmod 0700",
            ],
        )
        os.chmod(self.state, 0o700)
        self.assertEqual(self.found(Config(state_dir=self.state)), [])

    def test_a_certificate_is_loaded(self) -> None:
        config = Config(state_dir=self.state, tls_certificate=self.certificate())
        self.assertEqual(self.found(config), [])
        (text,) = self.found(config, now=NOW + 4000 * 86400)
        self.assertTrue(
            text.startswith("warning: DIR/self-signed.pem: the certificate expired"), text
        )
        os.chmod(self.certificate(), 0o644)
        (text,) = self.found(config)
        self.assertIn("everybody can read the key (mode 0644); chmod 0600", text)
        self.assertEqual(
            self.found(Config(state_dir=self.state, tls_certificate="/nowhere.pem")),
            ["error: /nowhere.pem: cannot be read: No such file or directory"],
        )

    def test_every_file_of_a_listener_is_read(self) -> None:
        good = self.certificate()
        listener = Listener(
            endpoint="tcp:25",
            client_certificates="ask",
            client_certificate_authorities="/nobody.pem",
            sni=[
                {"names": ["a.example"], "certificate": good},
                {"names": ["b.example"], "certificate": "/nowhere.pem"},
            ],
        )
        config = Config(
            state_dir=self.state, listeners=[listener, evolve(listener, endpoint="tcp:26")]
        )
        self.assertEqual(
            self.found(config),
            [
                "error: /nowhere.pem: cannot be read: No such file or directory",
                "error: /nobody.pem: cannot be read: No such file or directory",
            ],
        )
