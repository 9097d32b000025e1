"""Command lines: verbs, arguments, parameters."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.mail.address import Mailbox
from twisted_mta.smtp.command import CommandError, parse_line, parse_mail, parse_rcpt
from twisted_mta.smtp.extension.eightbitmime import EIGHT_BIT_MIME
from twisted_mta.smtp.extension.size import size

READERS = {**size(1000).mail, **EIGHT_BIT_MIME.mail}


class Lines(SynchronousTestCase):
    def test_a_line_is_split_into_verb_and_argument(self) -> None:
        for line, verb, argument in (
            (b"NOOP", "NOOP", ""),
            (b"noop \t ", "NOOP", ""),
            (b"NOOP\t", "NOOP", ""),
            (b"Mail  FROM:<> ", "MAIL", "FROM:<>"),
            ("HELP ü".encode(), "HELP", "ü"),
        ):
            self.assertEqual(parse_line(line), (verb, argument))

    def test_lines_that_are_not_commands_are_refused(self) -> None:
        for line in (
            b"",
            b" NOOP",
            b"NO-OP",
            b"QUIT\x0b",
            b"QUIT\x1c",
            b"QUIT\xc2\x85",
            b"\xff",
            b"a\0b",
        ):
            error = self.assertRaises(CommandError, parse_line, line)
            self.assertEqual((error.reply.code, error.reply.enhanced), (500, "5.5.2"))

    @given(st.binary(max_size=100))
    def test_anything_is_a_command_or_a_command_error(self, line: bytes) -> None:
        try:
            command = parse_line(line)
        except CommandError:
            return
        self.assertTrue(
            command.verb.isascii() and command.verb.isalpha() and command.verb.isupper()
        )


class PathCommands(SynchronousTestCase):
    def test_parameters_are_read_by_the_readers_of_extensions(self) -> None:
        command = parse_mail("FROM:<a@x.example> size=5 BODY=8bitmime", READERS)
        self.assertEqual(command.path, Mailbox("a", "x.example"))
        self.assertEqual(command.parameters, {"SIZE": 5, "BODY": "8BITMIME"})

    def test_a_path_of_u_labels_is_not_ascii(self) -> None:
        self.assertFalse(parse_rcpt("TO:<a@bücher.example>", {}).is_ascii)
        self.assertTrue(parse_rcpt("TO:<a@xn--bcher-kva.example>", {}).is_ascii)

    def test_only_spaces_separate_parameters(self) -> None:
        for white in ("\t", "\x0b", "\x1c", "\x85", "\u00a0", "\u2028"):
            error = self.assertRaises(
                CommandError, parse_mail, f"FROM:<a@x.example> BODY=7BIT{white}SIZE=1", READERS
            )
            self.assertEqual((error.reply.code, error.reply.enhanced), (501, "5.5.4"))

    @given(st.text(max_size=100))
    def test_anything_is_read_or_refused(self, text: str) -> None:
        for argument in (text, f"FROM:{text}", f"FROM:<{text}>", f"FROM:<> {text}"):
            try:
                parse_mail(argument, READERS)
            except CommandError as error:
                self.assertIn(error.reply.code, (501, 552, 555))
