"""One check from the file to the verdict, as the operator's tool writes it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping

from click.testing import CliRunner, Result

from tests.cli.check.checking import CheckTestCase, machine
from tests.policy.dkim.key_files import write_key
from tests.server.authority import self_signed
from twisted_mta.cli.check.finding import Finding, Report
from twisted_mta.cli.check.report import report
from twisted_mta.cli.command import main
from twisted_mta.config import ConfigError, load

GOOD = (
    '[mta]\nhostname = "mail.example.net"\nroutes = {"*" = "discard:"}\nweb = "off"\n'
    'smtp = "tcp:0:interface=127.0.0.1"\nmax_connections = 50\n'
    "[queue]\nconcurrency = 20\n"
)

EVERYTHING = """
[mta]
hostname = "mail.example.net"
aliases = "DIR/aliases"
users = "DIR/users"
relay_domains = ["backup.example"]
relay_recipients = "DIR/recipients"
tls_certificate = "DIR/tls.pem"
tls_key = "DIR/tls.pem"
smtp = "tcp:0:interface=127.0.0.1"
web = "off"
[policy]
deny = "DIR/deny"
[delivery]
authorities = "DIR/tls.pem"
[[dkim]]
domain = "example.net"
selector = "a"
key = "DIR/dkim.pem"
[[milter]]
endpoint = "unix:DIR/milter"
"""
"""Has what most checks of files look at."""

AS_ANOTHER_USER = """
import sys
from importlib.abc import MetaPathFinder
from twisted_mta.cli.check.report import report

asked = []

class Closed(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.startswith("twisted"):
            asked.append(name)

_, file, state = sys.argv
change = lambda: sys.meta_path.insert(0, Closed())
report({"state_dir": state}, file, ask_dns=False, change_user=change)
print(asked)
"""
"""Prints the modules that a check looks for after the change of the user."""


class Tool(CheckTestCase):
    def run_tool(self, *words: str, environment: Mapping[str, str] | None = None) -> Result:
        return CliRunner().invoke(main, ["check", "--no-dns", *words], env=environment or {})

    def test_a_good_file_ends_with_0_and_nothing_is_written(self) -> None:
        file = self.write("mta.toml", GOOD)
        result = self.run_tool("--config", file, "--state-dir", self.state)
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertTrue(
            result.output.splitlines()[-1].startswith(f"{file}: a start would work"), result.output
        )
        self.assertEqual(os.listdir(self.directory), ["mta.toml"])

    def test_an_error_ends_with_1(self) -> None:
        file = self.write("mta.toml", GOOD.replace('"mail.example.net"', '""'))
        result = self.run_tool("--config", file, "--state-dir", self.state)
        self.assertEqual(result.exit_code, 1)
        lines = result.output.splitlines()
        self.assertEqual(
            lines[0],
            f'error: {file}: [mta] hostname = "": expected a domain name such as mail.example.net',
        )
        self.assertIn(f"{file}: not ready to start (1 error", lines[-1])

    def test_another_user_needs_no_access_to_the_modules(self) -> None:
        for name, text in (
            ("aliases", "ann: bob@example.net\n"),
            ("deny", "192.0.2.1\n"),
            ("recipients", "ann@backup.example\n"),
            ("users", ""),
        ):
            self.write(name, text)
        write_key(self.path("dkim.pem"))
        self.write("tls.pem", self_signed("mail.example.net").pem.decode("ascii"))
        file = self.write("mta.toml", EVERYTHING.replace("DIR", self.directory))
        os.mkdir(self.state, 0o700)
        ran = subprocess.run(
            [sys.executable, "-c", AS_ANOTHER_USER, file, self.state],
            capture_output=True,
            text=True,
        )
        self.assertEqual(ran.stderr, "")
        self.assertEqual(ran.stdout, "[]\n")

    def test_the_user_changes_after_the_ports_and_before_the_files(self) -> None:
        file = self.write("mta.toml", GOOD)
        os.mkdir(self.state, 0o700)
        order: list[str] = []

        def ports(*arguments: object) -> list[Finding]:
            order.append("ports")
            return []

        def user() -> int:
            order.append("files")
            return os.geteuid()

        self.patch(sys.modules[report.__module__], "endpoints", ports)
        report(
            {"state-dir": self.state},
            file,
            ask_dns=False,
            machine=machine(user=user),
            change_user=lambda: order.append("user"),
        )
        self.assertEqual(order[:3], ["ports", "user", "files"])

    def test_a_file_that_a_reload_could_not_read_is_a_warning(self) -> None:
        file = self.write("mta.toml", GOOD)
        checked = report(
            {"state-dir": self.state},
            file,
            ask_dns=False,
            machine=machine(),
            change_user=lambda: os.rename(file, self.path("elsewhere.toml")),
        )
        (text,) = (str(each) for each in checked.findings if each.where == file)
        self.assertIn("cannot be read: No such file or directory; give it to that user", text)

    def test_an_unknown_user_is_a_usage_error(self) -> None:
        result = self.run_tool("--uid", "no-such-user")
        self.assertEqual(result.exit_code, 2)
        self.assertIn("--uid no-such-user: found no such user", result.output)

    def test_only_root_checks_for_another_user(self) -> None:
        self.patch(os, "geteuid", lambda: 1000)
        result = self.run_tool("--uid", str(os.getuid()))
        self.assertEqual(result.exit_code, 2)
        self.assertIn("only root can check for another user", result.output)

    def test_json_has_all_findings(self) -> None:
        file = self.write("mta.toml", GOOD.replace("discard:", "smtp://hub.example:0"))
        result = self.run_tool("--json", "--config", file, "--state-dir", self.state)
        told = json.loads(result.output)
        self.assertEqual((told["version"], told["of"], told["good"]), (1, file, False))
        (error,) = (each for each in told["findings"] if each["severity"] == "error")
        self.assertEqual(error["where"], "route *=smtp://hub.example:0")
        self.assertTrue(error["what"].startswith("not a host and port: "), error)
        self.assertTrue(error["do"].startswith("expected mx.example.net"), error)
        self.assertEqual(result.exit_code, 1)

    def test_the_state_directory_of_the_environment_is_checked(self) -> None:
        os.mkdir(self.state)
        os.chmod(self.state, 0o755)
        result = self.run_tool(environment={"STATE_DIRECTORY": self.state})
        self.assertIn(f"warning: [mta] state_dir: other users can read {self.state}", result.output)

    def test_a_wrong_option_ends_with_2(self) -> None:
        self.assertEqual(self.run_tool("--colour").exit_code, 2)


class EveryFault(CheckTestCase):
    def of(self, toml: str) -> Report:
        return report(
            {"state-dir": self.state},
            self.write("mta.toml", toml),
            ask_dns=False,
            machine=machine(),
            environment={},
            machine_name=lambda: "mail.example.net",
        )

    def test_all_errors_of_a_file_are_reported_at_once(self) -> None:
        toml = (
            '[mta]\nhostnam = "x.example"\nweb = "tcp:0:interface=127.0.0.1"\n'
            'tls_certificate = "/nowhere.pem"\n'
            '[queue]\nlifetime = "long"\nsmall_body = 0\n'
            '[[listener]]\nendpoint = "tcp:0:interface=127.0.0.1"\n'
            '[[listener]]\nkind = "smtp"\n'
            '[[listener]]\nendpoint = "tpc:25"\n'
            "[dsn]\ntimeout = 5\n"
        )
        starts = (
            '[mta] hostnam = "x.example": no such setting; did you mean hostname?',
            '[queue] lifetime = "long": not a duration',
            "[queue] small_body = 0: not a size",
            "[[listener]] 2 has no endpoint",
            '[[listener]] 3, endpoint = "tpc:25": "tpc" is not a kind of endpoint',
            "[dsn]: no such table; did you mean dns?",
            "/nowhere.pem: cannot be read",
        )
        found = [
            str(finding).removeprefix(f"{self.path('mta.toml')}: ")
            for finding in self.of(toml).findings
            if finding.severity == "error"
        ]
        self.assertEqual(
            [text[: len(start)] for text, start in zip(found, starts, strict=True)], list(starts)
        )

    def test_settings_that_contradict_each_other_are_an_error(self) -> None:
        finding = self.of('[queue]\nretry_minimum = "2 h"\nretry_maximum = "1 h"\n').findings[0]
        self.assertEqual(finding.where, self.path("mta.toml"))
        self.assertIn("retry_minimum", finding.what)
        self.assertEqual(finding.do, "expected at most as long")

    def test_every_item_and_every_contradiction_is_reported(self) -> None:
        toml = (
            '[mta]\nrelay_from = ["10.0.0.1/8", "x", "10.0.0.0/8"]\n'
            'routes = {"a..b" = "smtp://x", "x.example" = "ftp://x"}\n'
            'smtp = ["tcp:x", "tpc:1"]\ntls_key = "/x"\nvirtual_domains = ["localhost"]\n'
            '[queue]\nretry_minimum = "2 h"\n'
            '[[listener]]\nkind = "lmtp"\nendpoint = "tcp:25"\n'
            '[[listener]]\nendpoint = "tcp:26"\n'
            '[[listener.sni]]\nnames = ["a..b", "[1.2.3.4]"]\ncertificate = 5\n'
            '[[listener]]\nendpoint = "tcp:27"\ntls = "none"\nrequire_tls = true\n'
            '[[destination]]\ndomain = "x.example"\n'
            '[[destination]]\ndomain = "x.example"\n'
            '[[destination]]\ndomain = "y.example"\nusername = "me"\n'
            '[[destination]]\ndomain = "z.example"\nclient_key = "/x"\n'
        )
        problems = (
            '"10.0.0.1/8": bits are set',
            '"x": not a network',
            '"a..b": not a domain name',
            '"ftp://x" is not a route',
            '"tcp:x": "x" is not a port',
            '"tpc:1": "tpc" is not a kind',
            'names = ["a..b", "[1.2.3.4]"]: "a..b": not',
            '"[1.2.3.4]": SNI has no address literals',
            "certificate = 5: found a number",
            "port 25 is for SMTP alone",
            "contradicts require_tls",
            "longer than retry_maximum",
            "y.example, username",
            "z.example, client_key",
            "found two",
            "tls_certificate is missing",
            "localhost is one of local_domains too",
            "no aliases exist",
        )
        found = [str(each) for each in self.of(toml).findings if each.severity == "error"]
        for text, problem in zip(found, problems, strict=True):
            self.assertIn(problem, text)

    def test_a_file_that_is_not_toml_is_one_error(self) -> None:
        (finding,) = self.of("[mta\n").findings
        self.assertIn("not TOML", finding.what)

    def test_the_check_and_a_start_refuse_the_same(self) -> None:
        for toml in (
            GOOD,
            GOOD + "timeout = 5\n",
            GOOD + '[[listener]]\nkind = "smtp"\n',
            GOOD + '[[destination]]\ntls = "may"\n',
            "[mta]\nsmtp = 25\n",
            'mta = "x"\n',
            "[mta]\nhostname = 5\n",
        ):
            file = self.write("mta.toml", toml)
            try:
                load({}, file, environment={}, machine_name=lambda: "mail.example.net")
                refused = False
            except ConfigError:
                refused = True
            errors = [each for each in self.of(toml).findings if each.severity == "error"]
            self.assertEqual(bool(errors), refused, toml)
