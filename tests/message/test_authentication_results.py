"""The Authentication-Results field: written, read, and removed in our own name."""

from __future__ import annotations

import re
from collections.abc import Iterator

import authres
from hypothesis import given
from hypothesis import strategies as st

from tests.tidy import TidyTestCase
from twisted_mta.message.authentication_results import (
    MethodResult,
    authentication_results,
    authserv_id,
    without_own,
)

OWN = "mx.example.net"

HOSTILE = (
    "x; dkim=pass header.d=bank.example",
    "x\r\nAuthentication-Results: mx.example.net; dkim=pass",
    "x\r\n\r\nbody",
    'x" ; dkim=pass (',
    "x\\",
    '\\\\"\\',
    ") dkim=pass (",
    "((((",
    "a\0b\x1b[31m",
    "\u2028dkim=pass\x85",
    "caf\xe9 \udc80",
    "",
    " ",
    "x" * 5000,
    "x " * 2500,
    '"quoted; local"@example.net',
    "prvs=1=ann@example.net",
    "ann@example.net dkim=pass",
    "=?utf-8?q?dkim=3Dpass?=",
)

# RFC 8601 §2.2, read strictly, with a blank between the parts: what the writer promises.
_TOKEN = r"[!#$%&'*+.0-9A-Z^_`a-z{|}~-]+"
_QUOTED = r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e\xa1-\U0010ffff]|\\[\x20-\x7e])*"'
_ATOM = r"[!#$%&'*+0-9A-Z^_`a-z{|}~\u00a1-\U0010ffff-]+"
_MAILBOX = rf"(?:{_ATOM}(?:\.{_ATOM})*)?@[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_COMMENT = r"\((?:[\x20-\x27\x2a-\x5b\x5d-\x7e]|\\[\x20-\x7e])*\)"
_RESULT = re.compile(
    rf"; ([a-z]+)=([a-z]+)(?: ({_COMMENT}))?(?: reason=({_QUOTED}))?"
    rf"((?: [a-z]+\.[a-z]+=(?:{_QUOTED}|{_MAILBOX}|{_TOKEN}(?![@])))*)"
)
_PROPERTY = re.compile(rf" ([a-z]+\.[a-z]+)=({_QUOTED}|{_MAILBOX}|{_TOKEN})")


def unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text[:1] in ('"', "(") else text


def read(field: bytes) -> Iterator[MethodResult]:
    """Yield the results of a field that is exactly as the grammar wants it."""
    start = "Authentication-Results: mx.example.net"
    text = field.decode()
    assert text.endswith("\r\n") and text.startswith(start), text
    text = re.sub(r"\r\n(?= )", "", text[len(start) : -2])
    assert "\r" not in text and "\n" not in text, text
    if text == "; none":
        return
    while text:
        match = _RESULT.match(text)
        assert match is not None, text
        method, result, comment, reason, properties = match.groups()
        yield MethodResult(
            method,
            result,
            reason=unquoted(reason or ""),
            properties=tuple((name, unquoted(v)) for name, v in _PROPERTY.findall(properties)),
            comment=unquoted(comment or ""),
        )
        text = text[match.end() :]


TEXT = st.text('ab=;.,@()"\\ \r\n\t\0\x7f\x85\xa0\xe9\u2028\udc80\U0001f600', max_size=20)
RESULTS = st.lists(
    st.builds(
        MethodResult,
        st.sampled_from(("spf", "dkim", "dmarc")),
        st.sampled_from(("pass", "fail", "none")),
        reason=TEXT | st.sampled_from(HOSTILE),
        properties=st.lists(
            st.tuples(st.sampled_from(("smtp.helo", "header.d")), TEXT | st.sampled_from(HOSTILE)),
            max_size=3,
        ).map(tuple),
        comment=TEXT | st.sampled_from(HOSTILE),
    ),
    max_size=3,
)


class Writing(TidyTestCase):
    def written(self, *results: MethodResult, smtputf8: bool = False) -> str:
        return authentication_results(OWN, results, smtputf8=smtputf8).decode()

    def of(self, name: str, value: str, *, smtputf8: bool = False) -> str:
        result = MethodResult("spf", "pass", properties=((name, value),))
        field = self.written(result, smtputf8=smtputf8)
        match = re.fullmatch(rf"[^;]*;\s+spf=pass\s+{name}=(.*)\r\n", field)
        assert match is not None, field
        return match[1]

    def test_each_result_has_its_lines(self) -> None:
        field = self.written(
            MethodResult("spf", "none", properties=(("smtp.helo", "mail.example.org"),)),
            MethodResult(
                "dkim",
                "fail",
                reason="the body hash did not verify",
                comment="2048 bits",
                properties=(
                    ("header.d", "example.org"),
                    ("header.i", "@example.org"),
                    ("header.s", "s2026"),
                    ("header.b", "Zm9vYmFy"),
                ),
            ),
            MethodResult("spf", "pass", properties=(("smtp.mailfrom", "ann@example.org"),)),
        )
        self.assertEqual(
            field,
            "Authentication-Results: mx.example.net;\r\n"
            " spf=none smtp.helo=mail.example.org;\r\n"
            ' dkim=fail (2048 bits) reason="the body hash did not verify"\r\n'
            " header.d=example.org header.i=@example.org header.s=s2026 header.b=Zm9vYmFy;\r\n"
            " spf=pass smtp.mailfrom=example.org\r\n",
        )

    def test_no_result_is_said_so(self) -> None:
        self.assertEqual(self.written(), "Authentication-Results: mx.example.net;\r\n none\r\n")

    def test_values_with_special_characters_are_quoted(self) -> None:
        for value in (
            "example.net",
            "_spf.example.net",
            "192.0.2.1",
            "ann@example.net",
            "ann+tag.x@mail.example.net",
            "@example.net",
            "rsa-sha256",
        ):
            self.assertEqual(self.of("header.x", value), value)
        for value in ("2001:db8::1", "[192.0.2.1]", "a/b==", "prvs=1=ann@example.net", "a b", ""):
            self.assertEqual(self.of("header.x", value), f'"{value}"')
        self.assertEqual(self.of("header.x", '"a b"@example.net'), r'"\"a b\"@example.net"')
        self.assertEqual(self.of("header.x", "a\r\nb\x7f\xe9"), r'"a\\r\\nb\\x7f\\xe9"')

    def test_quoted_values_come_last(self) -> None:
        field = self.written(
            MethodResult(
                "dkim", "pass", properties=(("header.b", "a/b"), ("header.d", "example.net"))
            )
        )
        self.assertIn('dkim=pass header.d=example.net header.b="a/b"\r\n', field)

    def test_a_mailbox_beyond_ascii_is_written_only_where_utf8_is_allowed(self) -> None:
        mailbox = "j\xfcrgen@xn--bcher-kva.example"
        self.assertEqual(self.of("header.i", mailbox, smtputf8=True), mailbox)
        # The local part is optional (RFC 8601 §2.2), and has no form in ASCII.
        self.assertEqual(self.of("header.i", mailbox), "@xn--bcher-kva.example")
        self.assertEqual(
            self.of("header.i", "j\xfc\x85;x@example.net", smtputf8=True),
            '"j\xfc\\\\x85;x@example.net"',
        )

    def test_text_that_is_no_mailbox_is_never_written_in_utf8(self) -> None:
        for smtputf8 in (False, True):
            shown = self.of("smtp.helo", "b\xfccher.example", smtputf8=smtputf8)
            self.assertEqual(shown, r'"b\\xfccher.example"')

    def test_long_text_is_cut_and_a_long_mailbox_shown_by_its_domain(self) -> None:
        field = self.written(MethodResult("spf", "pass", reason="x" * 999, comment="y" * 999))
        self.assertIn(f'reason="{"x" * 200}..."', field)
        self.assertIn(f"({'y' * 200}...)", field)
        self.assertEqual(self.of("header.i", f"{'x' * 999}@example.net"), "@example.net")
        self.assertEqual(self.of("header.i", "x" * 999), f'"{"x" * 500}..."')

    def test_of_the_reverse_path_the_domain_is_shown(self) -> None:
        for value in ("ann@example.net", "@example.net", '"a@b"@example.net', "example.net"):
            result = MethodResult("spf", "pass", properties=(("smtp.mailfrom", value),))
            self.assertIn(" spf=pass smtp.mailfrom=example.net\r\n", self.written(result))
        result = MethodResult("auth", "pass", properties=(("smtp.mailfrom", "ann@example.net"),))
        self.assertIn(" auth=pass smtp.mailfrom=ann@example.net\r\n", self.written(result))

    def test_only_keywords_are_taken_as_names(self) -> None:
        for wrong in ("", "dkim=pass", "a b", "a;", "d\xe9", "a-"):
            self.assertRaises(ValueError, MethodResult, wrong, "pass")
            self.assertRaises(ValueError, MethodResult, "spf", wrong)
            for name in (wrong, f"smtp.{wrong}", f"{wrong}.helo"):
                with self.assertRaises(ValueError):
                    MethodResult("spf", "pass", properties=((name, "x"),))

    @given(RESULTS, st.booleans())
    def test_no_text_forges_a_result_or_ends_the_field(
        self, results: list[MethodResult], smtputf8: bool
    ) -> None:
        field = authentication_results(OWN, results, smtputf8=smtputf8)
        self.assertTrue(smtputf8 or field.isascii())
        self.assertEqual(
            [
                (each.method, each.result, sorted(name for name, _ in each.properties))
                for each in read(field)
            ],
            [
                (each.method, each.result, sorted(name for name, _ in each.properties))
                for each in results
            ],
        )
        for line in field.decode().split("\r\n")[:-1]:
            self.assertLess(len(line.encode()), 998)
            self.assertTrue(line.strip(), field)
            if len(line) > 78:  # one word, which cannot be folded
                self.assertRegex(line, r"^ [^ ]*=[^=]*$|^ [(]?[^ ]*$|^ [a-z.]+=\".*\";?$")

    @given(st.text([chr(number) for number in range(0x21, 0x7F)], max_size=60))
    def test_text_of_plain_characters_is_read_as_it_was(self, text: str) -> None:
        result = MethodResult(
            "spf", "fail", reason=text, comment=text, properties=(("smtp.helo", text),)
        )
        self.assertEqual(list(read(authentication_results(OWN, [result]))), [result])

    def test_another_reader_reads_the_same(self) -> None:
        """The library authres, which reads no property behind a quoted one."""
        for value in ("example.net", "ann@example.net", "@example.net", "192.0.2.7", "2001:db8::1"):
            results = [
                MethodResult(
                    method,
                    "pass",
                    reason=reason,
                    comment="a (nested) comment",
                    properties=(("header.x", value), ("header.d", "example.net")),
                )
                for method in ("spf", "dkim", "dmarc", "iprev", "auth", "arc")
                for reason in ("", "all is well; dkim=fail")
            ]
            field = authentication_results(OWN, results).decode().strip()
            parsed = authres.AuthenticationResultsHeader.parse(field)
            self.assertEqual(parsed.authserv_id, OWN)
            self.assertEqual(
                [
                    (
                        *(each.method, each.result, each.reason or ""),
                        *sorted((f"{p.type}.{p.name}", p.value) for p in each.properties),
                    )
                    for each in parsed.results
                ],
                [
                    (each.method, each.result, each.reason, *sorted(each.properties))
                    for each in results
                ],
            )
        self.assertEqual(
            authres.AuthenticationResultsHeader.parse(self.written().strip()).results, []
        )


OURS = (
    b"mx.example.net; none",
    b" mx.example.net; dkim=pass",
    b"MX.Example.NET; dkim=pass",
    b"mx.example.net.; dkim=pass",
    b"mx.example.net 1; dkim=pass",
    b"mx.example.net",
    b"mx.example.net/1; dkim=pass",
    b"mx.example.net(comment); dkim=pass",
    b"\r\n mx.example.net;\r\n\tdkim=pass",
    b"\r\n \r\n\t\r\n mx.example.net; dkim=pass",
    b"\n mx.example.net; dkim=pass\n\theader.d=bank.example",
    b"(a comment) mx.example.net; dkim=pass",
    b"(other.example;) (b) mx.example.net; dkim=pass",
    b'(a (nested; \\) ( "comment) ) still)\r\n (and another)mx.example.net; dkim=pass',
    b'"mx.example.net"; dkim=pass',
    b'"mx.ex\\ample.net" 1; dkim=pass',
    b'" mx.example.net "; dkim=pass',
    b"mx.example.net\0; dkim=pass",
    b"mx.example.net\xff; dkim=pass (not a name)"[:14] + b"; dkim=pass",
    # These cannot be read, and might be taken for ours.
    b"(never closed mx.example.net; dkim=pass",
    b'"never closed mx.example.net; dkim=pass',
    b'"never closed MX.ex\\ample.net; dkim=pass',
    b"()" * 100 + b"mx.example.net; dkim=pass",
    b" " * 5000 + b"mx.example.net; dkim=pass",
    b"\0mx.example.net; dkim=pass",
)

OTHERS = (
    b"other.example; dkim=pass",
    b"mx.example.net.other.example; dkim=pass",
    b"other-mx.example.net; dkim=pass",
    b"example.net; dkim=pass",
    b"(mx.example.net) other.example; dkim=pass",
    b"other.example (mx.example.net); dkim=pass header.d=mx.example.net",
    b'"other.example; mx.example.net"; dkim=pass',
    b"dkim=pass header.d=mx.example.org",
    b"",
    b" ",
    b";",
    b"(never closed; dkim=pass",
    b"i=1; mx.example.org; dkim=pass",
)

NAMES = (
    b"Authentication-Results:",
    b"authentication-results:",
    b"AUTHENTICATION-RESULTS: ",
    b"Authentication-Results \t:",
    b"Authentication-Results\r\n :",
    b"Authentication-Results\n\t :",
    b"Authentication-Results\x0b:",
)

OTHER_NAMES = (
    b"ARC-Authentication-Results: ",
    b"X-Authentication-Results: ",
    b"Authentication-Results-X: ",
    b"Subject: Authentication-Results: ",
    b" Authentication-Results: ",
    b"Authentication-Results ",
)


class Removing(TidyTestCase):
    def assertRemoved(self, header: bytes, expected: bytes, own: str = OWN) -> None:
        self.assertEqual(without_own(header, own), expected, header)

    def test_fields_in_our_name_are_removed_in_every_spelling(self) -> None:
        for name in NAMES:
            for value in OURS:
                field = name + value
                for end in (b"\r\n", b"\n", b"\r"):
                    before, after = b"Subject: x" + end, b"To: y\r\n \r\n folded\r\n\r\n"
                    self.assertRemoved(before + field + end + after, before + after)
                    self.assertRemoved(field + end + after, after)
                    self.assertRemoved(before + field + end, before)
                    self.assertRemoved(before + field, before)

    def test_fields_of_others_stay_octet_by_octet(self) -> None:
        for end in (b"\r\n", b"\n", b"\r"):
            for name in NAMES:
                for value in OTHERS:
                    header = b"Subject: x" + end + name + value + end + b"To: y" + end
                    self.assertRemoved(header, header)
                    self.assertRemoved(header + name + OURS[0] + end, header)
            for name in OTHER_NAMES:
                header = b"Subject: x" + end + name + OURS[0] + end + b"To: y" + end
                self.assertRemoved(header, header)

    def test_our_name_may_be_written_in_u_labels(self) -> None:
        for own in ("mx.xn--bcher-kva.example", "mx.b\xfccher.example", "MX.B\xdcCHER.example."):
            for name in (
                "mx.b\xfccher.example",
                "mx.B\xdcCHER.example",
                "mx.xn--bcher-KVA.example",
            ):
                field = f"Authentication-Results: {name}; dkim=pass\r\n".encode()
                self.assertRemoved(b"A: b\r\n" + field, b"A: b\r\n", own)
            unclosed = "Authentication-Results: (mx.b\xfccher.example; dkim=pass\r\n".encode()
            self.assertRemoved(unclosed, b"", own)
        invalid = b"Authentication-Results: b\xfccher.example; none\r\n"
        self.assertRemoved(invalid, invalid)

    def test_many_fields_in_our_name_are_removed(self) -> None:
        field = b"Authentication-Results: mx.example.net; dkim=pass\r\n"
        self.assertRemoved(
            field * 3 + b"A: b\r\n" + field * 5000 + b"C: d\r\n", b"A: b\r\nC: d\r\n"
        )

    def test_fields_are_looked_at_up_to_a_limit_and_removed_behind_it(self) -> None:
        field = b"Authentication-Results: other.example; dkim=pass\r\n"
        self.assertRemoved(field * 5000 + b"A: b\r\n", field * 200 + b"A: b\r\n")
        between = b"A: b\r\n c\r\n"
        self.assertRemoved((field + between) * 300, (field + between) * 200 + between * 100)
        folded = b"AUTHENTICATION-results \r\n : x;\r\n y\r\n"
        self.assertRemoved((folded + between) * 300, (folded + between) * 200 + between * 100)

    def test_what_was_written_is_removed(self) -> None:
        for own in (OWN, "a b", 'a"b', "x" * 80):
            field = authentication_results(own, [MethodResult("spf", "pass")])
            self.assertRemoved(b"A: b\r\n" + field + b"C: d\r\n", b"A: b\r\nC: d\r\n", own)

    @given(
        st.lists(
            st.sampled_from(
                (
                    *(b"Authentication-Results", b":", b"mx.example.net", b";", b"(", b")", b'"'),
                    *(b"\\", b"\r\n", b"\n", b"\r", b" ", b"\t", b"other.example", b"A: b\r\n"),
                )
            )
        ).map(b"".join)
    )
    def test_removing_again_changes_nothing(self, header: bytes) -> None:
        once = without_own(header, OWN)
        self.assertEqual(without_own(once, OWN), once)
        if b"mx.example.net" not in header.replace(b"\\", b""):
            self.assertEqual(once, header)


class Reading(TidyTestCase):
    def test_the_authserv_id_is_read(self) -> None:
        for value, expected in (
            (b" mx.example.net; none", "mx.example.net"),
            (b'(x)\r\n "Some Thing" 1; spf=pass', "some thing"),
            (b"B\xc3\xbccher.example; none", "xn--bcher-kva.example"),
            (b"b\xfccher; none", "b\ufffdcher"),
            (b"(x", None),
            (b"", None),
            (b"; none", None),
        ):
            self.assertEqual(authserv_id(value), expected, value)
