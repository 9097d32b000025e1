"""Names of files that strangers wrote are made safe."""

from __future__ import annotations

import random  # noqa: TID251 - seeded
import unicodedata

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.message.mime.safe_name import LONGEST_NAME, numbered, safe_name


class SafeName(SynchronousTestCase):
    def expect(self, name: str, wanted: str) -> None:
        self.assertEqual(safe_name(name, "default.bin"), wanted, ascii(name))

    def test_ordinary_names_stay(self) -> None:
        for name in (
            "report.pdf",
            "Übersicht 2026.ods",
            "請求書.pdf",
            "a.tar.gz",
            "Makefile",
            "_x",
        ):
            self.expect(name, name)

    def test_the_last_component_is_kept(self) -> None:
        for name in ("/etc/passwd", "../../passwd", "C:\\docs\\passwd", "a/b\\passwd"):
            self.expect(name, "passwd")

    def test_a_name_of_which_nothing_is_left_is_the_default(self) -> None:
        for name in ("", ".", "..", "...", "a/", "\0", " . ", "\u202e", "../"):
            self.expect(name, "default.bin")

    def test_hidden_files_and_options_are_not_made(self) -> None:
        self.expect(".bashrc", "bashrc")
        self.expect(". .htaccess", "htaccess")
        self.expect("-rf", "_rf")

    def test_control_and_invisible_characters_are_removed(self) -> None:
        self.expect("a\0b\r\n\x1b[31m.txt\x7f", "ab[31m.txt")
        self.expect("invoice\u202efdp.exe", "invoicefdp.exe")
        self.expect("a\u2028b\ud800.txt", "ab.txt")

    def test_names_that_windows_reserves_are_changed(self) -> None:
        for name in ("CON", "nul.txt", "Com1.tar.gz", "LPT¹", "aux .txt"):
            self.expect(name, "_" + name)
        self.expect("console.txt", "console.txt")
        self.expect('a:b<c>"d|e?f*g.txt', "a_b_c__d_e_f_g.txt")
        self.expect("a.txt. . ", "a.txt")

    def test_a_long_name_keeps_its_suffix(self) -> None:
        name = safe_name("é" * 1000 + ".pdf", "default")
        self.assertTrue(name.endswith("é.pdf"))
        self.assertLessEqual(len(name.encode()), LONGEST_NAME)
        self.assertEqual(safe_name("a" * 300, ""), "a" * LONGEST_NAME)
        self.assertEqual(safe_name("a." + "b" * 300, ""), "a." + "b" * (LONGEST_NAME - 2))

    def test_a_number_stands_before_the_suffix(self) -> None:
        self.assertEqual(numbered("a.pdf", 2), "a-2.pdf")
        self.assertEqual(numbered("a", 12), "a-12")

    def test_any_name_becomes_one_that_is_safe_and_stays_so(self) -> None:
        draw = random.Random(1)
        characters = "ab./\\ -:\0\n\u202e\u0301é漢\ud800CON\u2028\u00a0." + chr(0x1F600)
        for _ in range(3000):
            length = draw.choice((1, 3, 8, 300))
            name = safe_name("".join(draw.choices(characters, k=length)), "default.bin")
            self.assertEqual(safe_name(name, "default.bin"), name, ascii(name))
            self.assertTrue(0 < len(name.encode("utf-8")) <= LONGEST_NAME, ascii(name))
            self.assertNotIn(name[0], "./\\- ", ascii(name))
            self.assertNotIn(name[-1], ". ", ascii(name))
            for character in name:
                self.assertNotIn(character, "/\\\0:", ascii(name))
                self.assertNotIn(unicodedata.category(character), ("Cc", "Cf", "Cs"), ascii(name))
