"""The command line of ``twistd mta``: its help, its values, and its errors before the start."""

import os
import shutil
import tempfile

from twisted.python import usage
from twisted.scripts.twistd import ServerOptions

from tests.tidy import TidyTestCase
from twisted_mta.daemon.options import Options
from twisted_mta.telemetry.log import Log

OF_THE_CONTRACT = (
    "config", "state-dir", "hostname", "smtp", "submission", "submissions", "lmtp",
    "local-submission", "web", "tls-certificate", "tls-key", "local-domain", "maildir",
    "recipients", "relay-from", "route", "users", "auth", "queue", "capture", "workers",
)  # fmt: skip


class Capture(TidyTestCase):
    def test_it_is_an_option_without_a_value(self) -> None:
        options = Options()
        options.parseOptions(["--capture", "--web", "off"])
        self.assertTrue(options.config.capture)
        self.assertEqual(options.config.recipients, "any")

    def test_settings_that_lead_mail_elsewhere_are_refused_with_it(self) -> None:
        for option, value, found in (
            ("--route", "*=smtp://192.0.2.1", "found routes too; expected none"),
            ("--recipients", "existing", 'found recipients = "existing"; expected "any"'),
            ("--workers", "2", "found workers = 2; expected 1"),
        ):
            error = self.assertRaises(
                usage.UsageError, Options().parseOptions, ["--capture", option, value]
            )
            self.assertIn(f"capture = true: {found}", str(error))


class Help(TidyTestCase):
    def test_every_option_is_listed_once_with_its_meaning(self) -> None:
        lines = Options().getUsage(width=80).splitlines()
        listed = [line.split()[0] for line in lines if line.startswith("  --")]
        self.assertEqual(listed, [f"--{name}" for name in (*OF_THE_CONTRACT, "version", "help")])

    def test_help_shows_the_default_of_an_option(self) -> None:
        text = Options().getUsage(width=200)
        self.assertIn("  --smtp ENDPOINT\n      where to listen for SMTP", text)
        self.assertIn("; repeatable [tcp:2525:interface=127.0.0.1]\n", text)
        self.assertIn("[$STATE_DIRECTORY, else ./mta-state]\n", text)

    def test_help_is_ascii_and_at_most_80_columns_wide(self) -> None:
        text = Options().getUsage(width=80)
        self.assertTrue(text.isascii())
        self.assertLessEqual(max(map(len, text.splitlines())), 80)


class CommandLine(TidyTestCase):
    def parse(self, *words: str) -> Options:
        options = Options()
        options.parseOptions([*words, "--hostname", "mail.example.net"])
        return options

    def refusal(self, *words: str) -> str:
        return str(self.assertRaises(usage.UsageError, self.parse, *words))

    def test_values_of_repeatable_options_add_up(self) -> None:
        config = self.parse(
            *("--smtp", "tcp:25", "--local-domain", "a.example"),
            *("--smtp=tcp:26", "--local-domain", "b.example"),
        ).config
        self.assertEqual([one.endpoint for one in config.listeners], ["tcp:25", "tcp:26"])
        self.assertEqual(config.local_domains, ("a.example", "b.example"))

    def test_the_last_value_of_other_options_holds(self) -> None:
        self.assertEqual(self.parse("--web", "tcp:1", "--web", "off").config.web, None)

    def test_an_option_wins_over_the_file(self) -> None:
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        file = os.path.join(directory, "mta.toml")
        with open(file, "w", encoding="utf-8") as written:
            written.write('[mta]\nweb = "tcp:1"\nmaildir = "/srv/mail"\n')
        config = self.parse("--config", file, "--web", "tcp:2").config
        self.assertEqual((config.web, config.maildir), ("tcp:2", "/srv/mail"))

    def test_errors_of_settings_are_usage_errors(self) -> None:
        for words, text in (
            (("--recipients", "all"), '--recipients all: expected "any" or "existing"'),
            (
                ("--auth", "memry:ann:secret"),
                '--auth ...: "memry" is not a kind of checker; did you mean memory:?',
            ),
            (("--smpt", "tcp:25"), "option --smpt not recognized; did you mean --smtp?"),
            (("mta.toml",), "mta.toml: belongs to no option"),
        ):
            self.assertEqual(self.refusal(*words), text)

    def test_twistd_prints_a_mistake_alone_and_exits_with_status_1(self) -> None:
        for words, text in (
            (("--recipients", "all"), '--recipients all: expected "any" or "existing"'),
            (("--smpt", "tcp:25"), "option --smpt not recognized; did you mean --smtp?"),
        ):
            error = self.assertRaises(SystemExit, ServerOptions().parseOptions, ["mta", *words])
            self.assertEqual(error.code, f"twistd mta: {text}")

    def test_all_errors_of_file_and_options_are_shown_one_line_each(self) -> None:
        path = os.path.join(tempfile.mkdtemp(), "mta.toml")
        self.addCleanup(shutil.rmtree, os.path.dirname(path))
        with open(path, "w", encoding="utf-8") as file:
            file.write(
                '[mta]\nhostnam = "a"\nlocal_domains = 7\n[nope]\n[queue]\nlifetime = true\n'
            )
        words = ["mta", "--config", path, "--workers", "many"]
        error = self.assertRaises(SystemExit, ServerOptions().parseOptions, words)
        lines = str(error).splitlines()
        found = ("hostnam", "local_domains = 7", "[nope]", "lifetime = true", "--workers many")
        self.assertEqual(len(lines), len(found), lines)
        for text in found:
            self.assertEqual(len([line for line in lines if text in line]), 1, text)
        self.assertTrue(all(line.startswith("twistd mta: ") for line in lines))

    def test_an_option_without_its_value_gets_no_suggestion(self) -> None:
        options = Options()
        error = self.assertRaises(usage.UsageError, options.parseOptions, ["--smtp"])
        self.assertEqual(str(error), "option --smtp requires argument")

    def test_a_route_that_cannot_be_read_is_refused_before_the_start(self) -> None:
        for url in ("smtp://", "smtp://h:99999", "error:hello", "error:2.1.1 fine"):
            with self.assertRaises(usage.UsageError) as caught:
                self.parse("--route", f"*={url}")
            self.assertTrue(
                str(caught.exception).startswith(f"--route *={url}: "), caught.exception
            )

    def test_a_route_to_a_delivery_of_an_application_is_refused(self) -> None:
        self.assertRegex(
            self.refusal("--route", "shop.example=deliver:db"),
            r"--route shop.example=deliver:db: found deliver:db, expected a URL of another kind:"
            r" only a program that holds the agent has deliveries",
        )

    def test_a_route_in_the_file_is_refused_with_the_name_of_the_file(self) -> None:
        path = self.mktemp()
        with open(path, "w") as file:
            file.write('[mta]\nroutes = {"A.Example" = "SMTP://"}\n')
        error = self.assertRaises(usage.UsageError, self.parse, "--config", path)
        self.assertTrue(
            str(error).startswith(f"{path}: [mta] routes: a.example=SMTP://: not a host"), error
        )


class LogFile(TidyTestCase):
    """The log that twistd's own options name."""

    def log(self, *words: str, toml: str = "") -> Log | None:
        twistd = ServerOptions()
        file = os.path.abspath(self.mktemp())
        with open(file, "w", encoding="utf-8") as written:
            written.write(toml)
        twistd.parseOptions([*words, "mta", "--hostname", "mta.example", "--config", file])
        log: Log | None = twistd.subOptions.log
        return log

    def path(self, *words: str) -> str | None:
        log = self.log(*words)
        assert log is not None
        return log.path

    def test_in_the_foreground_the_log_is_standard_output(self) -> None:
        for words in (["-n"], ["-n", "--logfile", "-"]):
            self.assertIsNone(self.path(*words), words)

    def test_the_path_of_the_log_is_relative_to_where_twistd_was_started(self) -> None:
        self.assertEqual(self.path("-n", "--logfile", "mta.log"), os.path.abspath("mta.log"))
        self.assertEqual(self.path("--logfile", "/var/log/mta.log"), "/var/log/mta.log")
        self.assertEqual(self.path("--rundir", "/"), os.path.abspath("twistd.log"))

    def test_other_logs_of_twistd_are_left_to_twistd(self) -> None:
        for words in (
            ["-n", "--syslog"],
            ["-n", "--logger", "twisted.logger.LogPublisher"],
            ["--logfile", "-"],
        ):
            self.assertIsNone(self.log(*words), words)

    def test_the_settings_choose_the_format_of_the_log(self) -> None:
        log = self.log("-n", toml='[log]\nformat = "json"\n')
        assert log is not None
        self.assertEqual(log.format, "json")
