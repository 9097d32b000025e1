"""Parameters of MIME fields are read as mail clients write them."""

from __future__ import annotations

import encodings

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.message.mime.encoded_words import decode_words
from twisted_mta.message.mime.parameters import read_parameters


def filename(field: str | bytes) -> str | None:
    octets = field.encode("utf-8") if isinstance(field, str) else field
    return read_parameters(octets).parameters.get("filename")


class Parameters(SynchronousTestCase):
    def test_value_and_parameters(self) -> None:
        field = read_parameters(b' Text/Plain ; Charset=utf-8;name="a;b\\"c" ; x')
        self.assertEqual(field.value, "text/plain")
        self.assertEqual(field.parameters, {"charset": "utf-8", "name": 'a;b"c'})

    def test_names_of_files(self) -> None:
        for field, wanted in (
            ("attachment; filename=a.pdf", "a.pdf"),
            ("attachment; filename=two words.pdf", "two words.pdf"),
            ('attachment; filename="a.pdf', "a.pdf"),
            ('attachment; filename="unclosed \\', "unclosed \\"),
            ("attachment; FileName = 'a.pdf'", "'a.pdf'"),
            # RFC 2231 §4
            ("attachment; filename*=utf-8''%e2%82%ac%20rates", "€ rates"),
            ("attachment; filename*=iso-8859-1'en'%A3%20rates", "£ rates"),
            ("attachment; filename*=plain", "plain"),
            ("attachment; filename*=x-none''%e9", "é"),
            ("attachment; filename*=utf-8''%zz%4", "%zz%4"),
            # RFC 2231 §3, §4.1
            ("a; filename*0=one; filename*1=two", "onetwo"),
            ("a; filename*1=two; filename*0=one; filename*3=four", "onetwo"),
            ("a; filename*0*=utf-8''%C3; filename*1*=%A4; filename*2=%20.txt", "ä%20.txt"),
            ("a; filename*1*=lost", None),
            # The extended form is the better one of two.
            ("a; filename=euro.txt; filename*=utf-8''%e2%82%ac.txt", "€.txt"),
            ("a; filename*=utf-8''%e2%82%ac.txt; filename=euro.txt", "€.txt"),
            ("a; filename=first; filename=second", "first"),
            # RFC 2047 §5 forbids these, and they are common.
            ('a; filename="=?utf-8?Q?=E2=82=AC_rates.txt?="', "€ rates.txt"),
            ("a; filename==?utf-8?B?4oKsLnR4dA==?=", "€.txt"),
            ('a; filename="=?utf-8?B?4oKs?= =?utf-8?B?LnR4dA==?="', "€.txt"),
            ('a; filename="ä.txt"', "ä.txt"),
            ('a; filename=""', ""),
            ("a; filename", None),
            ("", None),
        ):
            self.assertEqual(filename(field), wanted, field)
        self.assertEqual(filename(b'a; filename="\xe9.txt"'), "é.txt")


class EncodedWords(SynchronousTestCase):
    def test_words_are_decoded_where_they_stand(self) -> None:
        for text, wanted in (
            (b"a =?iso-8859-1?q?=E9_b?= c", "a é b c"),
            (b"=?utf-8?b?w6k=?=\t =?utf-8?b?w6k=?=", "éé"),
            (b"=?utf-8?q?=C3?= =?utf-8?q?=A9?=", "é"),  # a character cut in two
            (b"=?utf-8*fr?q?=C3=A9?=", "é"),
            (b"=?utf-8?q?a?= =?latin1?q?=E9?=", "aé"),
            (b"=?utf-8?b?w6k?=", "é"),
            (b"=?utf-8?b?****?=", ""),
            (b"=?utf-8?x?a?=", "=?utf-8?x?a?="),
            (b"=?utf-8?q?a", "=?utf-8?q?a"),
            (b"", ""),
        ):
            self.assertEqual(decode_words(text), wanted, text)

    def test_codecs_that_are_no_charsets_are_not_used(self) -> None:
        for charset in (b"idna", b"punycode", b"unicode_escape", b"rot13", b"zip", b"hex"):
            self.assertEqual(decode_words(b"=?%s?q?x-a\\x41?=" % charset), "x-a\\x41", charset)

    def test_unknown_charsets_are_not_kept_in_memory(self) -> None:
        before = len(encodings._cache)  # type: ignore[attr-defined]
        for number in range(50):
            self.assertEqual(decode_words(b"=?nothing-%d?q?=C3=A9?=" % number), "é")
        self.assertEqual(len(encodings._cache), before)  # type: ignore[attr-defined]
