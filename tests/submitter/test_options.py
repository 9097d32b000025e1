"""The options of ``twisted-mta-sendmail``, as programs write them."""

from tests.tidy import TidyTestCase
from twisted_mta.submitter.options import Options, UsageError


class CommandLines(TidyTestCase):
    def test_command_lines_of_programs(self) -> None:
        cron = Options(["-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root"])
        self.assertEqual(
            (cron.name, cron.dot_ends, cron.recipients), ("CronDaemon", False, ["root"])
        )
        php = Options(["-t", "-i", "-f", "www@example.net"])
        self.assertEqual(
            (php.from_header, php.sender, php.recipients), (True, "www@example.net", [])
        )
        git = Options(["-i", "-f", "ann@x", "bob@x", "eve@x"])
        self.assertEqual((git.sender, git.recipients), ("ann@x", ["bob@x", "eve@x"]))
        joined = Options(["-oi", "-odb", "-tvfann", "-N", "success,DELAY", "-Rhdrs", "-V", "id 1"])
        self.assertEqual(
            (joined.dot_ends, joined.from_header, joined.verbose, joined.sender),
            (False, True, True, "ann"),
        )
        self.assertEqual(
            (joined.notify, joined.returned, joined.envelope_id), ("SUCCESS,DELAY", "HDRS", "id 1")
        )

    def test_modes(self) -> None:
        for word, mode in (
            ("-bm", "submit"), ("-bs", "smtp"), ("-bp", "list"), ("-bi", "aliases"),
            ("-q", "nothing"), ("-q30m", "nothing"),
        ):  # fmt: skip
            self.assertEqual(Options([word]).mode, mode)

    def test_addresses_may_begin_with_a_dash_after_two_dashes_alone(self) -> None:
        self.assertEqual(Options(["-i", "--", "-ann", "bob"]).recipients, ["-ann", "bob"])
        self.assertRaises(UsageError, Options, ["ann", "-fbob"])

    def test_what_cannot_be_used_is_refused(self) -> None:
        for words in (["-f"], ["-bd"], ["-Z"], ["-N", "often"], ["-N", "never,delay"], ["-Ball"]):
            self.assertRaises(UsageError, Options, words)
