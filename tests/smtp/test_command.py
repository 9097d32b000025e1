"""Command lines: verbs, arguments, parameters."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.mail.address import Mailbox
from twisted_mta.smtp.command import (
    CommandError,
    parse_bdat,
    parse_line,
    parse_mail,
    parse_rcpt,
    with_brackets,
)
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
            "\N{LATIN SMALL LETTER LONG S}TARTTLS".encode(),  # in upper case, STARTTLS
            "\N{KELVIN SIGN}ELO".encode(),
            "QU\N{LATIN SMALL LETTER DOTLESS I}T".encode(),
            b"\xff",
            b"a\0b",
        ):
            error = self.assertRaises(CommandError, parse_line, line)
            self.assertEqual((error.reply.code, error.reply.enhanced), (500, "5.5.2"))

    @given(st.binary(max_size=100))
    def test_anything_is_a_command_or_a_command_error(self, line: bytes) -> None:
        try:
            verb, _ = parse_line(line)
        except CommandError:
            return
        self.assertTrue(verb.isascii() and verb.isalpha() and verb.isupper())


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

    def test_an_unusual_path_is_put_into_brackets(self) -> None:
        for written, bracketed in (
            ("FROM:a@x.example", "FROM:<a@x.example>"),
            ("from:  a@x.example SIZE=1  BODY=7BIT", "from:<a@x.example> SIZE=1  BODY=7BIT"),
            ("TO:Bob B. <b@x.example>", "TO:<b@x.example>"),
            ('TO:"B, ob" <b@x.example> NOTIFY=NEVER', "TO:<b@x.example> NOTIFY=NEVER"),
            ("TO:<  b@x.example  >", "TO:<b@x.example>"),
            ('TO:"a"@x.example', 'TO:<"a"@x.example>'),
            ("FROM:Nobody <>", "FROM:<>"),
            ("FROM:", None),
            ("FROM a@x.example", None),
            ("FROM :a@x.example", None),
            ("TO:a@x.example>", None),
            ("TO:<a@x.example", None),
            ("TO:<a@x.example><b@x.example>", None),
            ("TO:<a@x.example>SIZE=1", None),
            ("TO:a@x.example <b@x.example> c", "TO:<b@x.example> c"),
        ):
            self.assertEqual(with_brackets(written), bracketed, written)

    @given(st.text(max_size=60))
    def test_any_path_in_brackets_is_read_or_refused(self, text: str) -> None:
        for argument in (text, f"FROM:{text}", f"FROM:{text}<a@x.example>", f"TO:<{text}> X"):
            bracketed = with_brackets(argument)
            if bracketed is not None:
                try:
                    parse_mail(bracketed, READERS)
                except CommandError as error:
                    self.assertIn(error.reply.code, (501, 552, 555))

    @given(st.text(max_size=100))
    def test_anything_is_read_or_refused(self, text: str) -> None:
        for argument in (text, f"FROM:{text}", f"FROM:<{text}>", f"FROM:<> {text}"):
            try:
                parse_mail(argument, READERS)
            except CommandError as error:
                self.assertIn(error.reply.code, (501, 552, 555))


class Chunks(SynchronousTestCase):
    """The argument of BDAT (RFC 3030 §2)."""

    def test_a_size_has_up_to_18_digits(self) -> None:
        for argument, chunk in (
            ("0", (0, False)),
            ("007", (7, False)),
            ("7 LAST", (7, True)),
            ("7   last", (7, True)),
            ("9" * 18, (10**18 - 1, False)),
            ("0" * 17 + "5 LAST", (5, True)),
        ):
            self.assertEqual(parse_bdat(argument), chunk)

    def test_all_other_arguments_are_refused(self) -> None:
        for argument in (
            *("", "LAST", " 5", "-1", "+5", "5.0", "0x10", "1e3", "\u0663", "5,", "1_0"),
            *("9" * 19, "0" * 19, "5LAST", "5 LASTS", "5 LAST LAST", "5\tLAST", "5 FIRST"),
        ):
            error = self.assertRaises(CommandError, parse_bdat, argument)
            self.assertEqual((error.reply.code, error.reply.enhanced), (501, "5.5.4"), argument)
