"""Tag lists: what is read, and what is refused."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.policy.dkim.tags import TagError, names, parse_tags, without_white_space


class TagLists(SynchronousTestCase):
    def test_tags_are_read_in_their_order(self) -> None:
        self.assertEqual(list(parse_tags(b"v=1; a=x;\r\n\tb=")), ["v", "a", "b"])

    def test_white_space_around_names_and_values_is_no_part_of_them(self) -> None:
        self.assertEqual(parse_tags(b" \r\n a \t=\r\n 1 2\r\n ;"), {"a": "1 2"})

    def test_a_value_may_be_empty_and_may_contain_equals_signs(self) -> None:
        self.assertEqual(parse_tags(b"p=;b=YQ==;"), {"p": "", "b": "YQ=="})

    def test_names_differ_by_case(self) -> None:
        self.assertEqual(parse_tags(b"A=1;a=2"), {"A": "1", "a": "2"})

    def test_an_international_domain_is_read(self) -> None:
        self.assertEqual(parse_tags("d=bücher.example".encode()), {"d": "bücher.example"})

    def test_an_empty_list_has_no_tags(self) -> None:
        self.assertEqual(parse_tags(b" "), {})

    def test_what_is_no_tag_list_is_refused(self) -> None:
        for text in (
            b"a=1;a=2",  # "Tags with duplicate names MUST NOT occur"
            b"a=1;;b=2",
            b"a",
            b"=1",
            b"1a=1",
            b"a-b=1",
            b"a=\x00",
            b"a=\xff",
            b"a=1;" * 3,
            b"; a=1",
        ):
            with self.assertRaises(TagError, msg=text):
                parse_tags(text)

    def test_a_list_has_limits(self) -> None:
        self.assertEqual(len(parse_tags(b";".join(b"a%d=" % n for n in range(100)))), 100)
        with self.assertRaises(TagError):
            parse_tags(b";".join(b"a%d=" % n for n in range(101)))
        with self.assertRaises(TagError):
            parse_tags(b"a=" + b"x" * 16_383)

    @settings(deadline=None)
    @given(st.binary(max_size=60) | st.text("a=; \r\nv1\t", max_size=30).map(str.encode))
    def test_no_octets_are_an_error_of_another_kind(self, text: bytes) -> None:
        try:
            tags = parse_tags(text)
        except TagError:
            return
        again = ";".join(f"{name}={value}" for name, value in tags.items())
        self.assertEqual(parse_tags(again.encode()), tags)

    def test_lists_within_values(self) -> None:
        self.assertEqual(names("From :\r\n To:Cc"), ("From", "To", "Cc"))
        self.assertEqual(without_white_space("YQ\r\n\t= ="), "YQ==")
