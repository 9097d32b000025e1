"""The same dialogues with our server and Debian's Postfix: each difference has a reason."""

from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from ..functional.machine import need
from .servers import both_servers, compared, dialogues
from .table import PAGE, Place, by_place, load, page


class AgainstPostfix(SynchronousTestCase):
    def test_we_differ_from_others_only_where_the_table_has_it(self) -> None:
        need("postfix", "openssl")
        known = by_place(load())
        found = {}
        with both_servers() as both:
            for dialogue in dialogues():
                for place in both.play(dialogue, known):
                    found[place.dialogue, place.said] = place
        unexplained = [str(place) for key, place in found.items() if known.get(key) != place]
        self.assertEqual(unexplained, [], "differences that the table does not explain")
        gone = [str(place) for key, place in known.items() if key not in found]
        self.assertEqual(gone, [], "differences of the table that were not observed")


class Table(SynchronousTestCase):
    def test_the_page_of_differences_is_made_from_the_table(self) -> None:
        self.assertEqual(
            PAGE.read_text("utf-8"),
            page(load()),
            "run python -m tests.differential --write",
        )

    def test_each_difference_in_the_table_is_observed_and_has_a_reason(self) -> None:
        for each in load():
            self.assertTrue(each.title and len(each.reason) > 40 and each.seen, each.title)

    def test_each_place_in_the_table_is_in_a_dialogue_and_has_one_reason(self) -> None:
        said = {(dialogue.name, write) for dialogue in dialogues() for write, _ in dialogue.writes}
        places = [each for one in load() for each in one.seen]
        self.assertEqual(
            [
                str(each)
                for each in places
                if (each.dialogue, each.said) not in said and not each.said.startswith("(")
            ],
            [],
        )
        counted = Counter((each.dialogue, each.said) for each in places)
        self.assertEqual([each for each, count in counted.items() if count > 1], [])


class Comparison(SynchronousTestCase):
    def test_another_code_one_more_reply_and_one_less_message_are_differences(self) -> None:
        ours = {"MAIL": "2", "DATA": "3", ".": "2", "(message 1)": "to b: x"}
        theirs = {"MAIL": "5", "DATA": "33", ".": "2"}
        self.assertEqual(
            list(compared("d", ours, theirs)),
            [
                Place("d", "MAIL", "2", "5"),
                Place("d", "DATA", "3", "33"),
                Place("d", "(message 1)", "to b: x", "-"),
            ],
        )

    def test_equal_dialogues_are_no_difference(self) -> None:
        self.assertEqual(list(compared("d", {"QUIT": "2."}, {"QUIT": "2."})), [])

    def test_replies_after_a_closed_connection_are_not_compared(self) -> None:
        found = compared("d", {"X": "5", "NOOP": "2"}, {"X": "5.", "NOOP": ""})
        self.assertEqual(list(found), [Place("d", "X", "5", "5.")])
