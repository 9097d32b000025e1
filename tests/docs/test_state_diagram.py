"""Diagrams of state machines are drawn from the tables that the program runs on."""

import runpy
from enum import Enum
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

EXTENSIONS = Path(__file__).resolve().parent.parent.parent / "docs" / "_ext"


class Door(Enum):
    OPEN = 1
    CLOSED = "closed, and maybe locked"
    AWAITING_EHLO = 3


class Event(Enum):
    PUSH = "push"
    KNOCK = "knock, once or twice"
    QUIT = 3


MAPPING = {
    Door.OPEN: {Event.PUSH: Door.CLOSED},
    Door.CLOSED: {Event.KNOCK: Door.CLOSED, Event.PUSH: Door.OPEN, Event.QUIT: Door.AWAITING_EHLO},
    Door.AWAITING_EHLO: {},
}
ROWS = [(state, event, after) for state, row in MAPPING.items() for event, after in row.items()]


class StateDiagram(SynchronousTestCase):
    def setUp(self) -> None:
        self.module: dict[str, Any] = runpy.run_path(str(EXTENSIONS / "state_diagram.py"))

    def drawing(self, table: object) -> list[str]:
        """Return the texts of a drawing, in its order."""
        svg = self.module["draw"](table)
        root = ElementTree.fromstring(svg)
        return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]

    def test_a_mapping_and_rows_give_the_same_transitions(self) -> None:
        expected = [
            ("open", "push", "closed"),
            ("closed", "knock, once or twice", "closed"),
            ("closed", "push", "open"),
            ("closed", "QUIT", "awaiting EHLO"),
        ]
        self.assertEqual(self.module["rows"](MAPPING), expected)
        self.assertEqual(self.module["rows"](ROWS), expected)

    def test_states_stand_in_the_order_of_their_enum(self) -> None:
        self.assertEqual(self.module["order"](ROWS[::-1]), ["open", "closed", "awaiting EHLO"])

    def test_every_state_and_every_event_is_drawn(self) -> None:
        texts = self.drawing(MAPPING)
        for text in ("open", "closed", "awaiting EHLO", "QUIT", "stays: knock, once or twice"):
            self.assertIn(text, texts)
        self.assertEqual(texts.count("push"), 2)

    def test_the_value_of_a_state_that_says_more_than_its_name_is_drawn(self) -> None:
        self.assertIn("closed, and maybe locked", self.drawing(MAPPING))

    def test_an_event_that_leads_to_one_state_from_everywhere_is_drawn_once(self) -> None:
        State = Enum("State", "A B C D E END")
        table = [(state, Event.QUIT, State.END) for state in State if state is not State.END]
        table += [(State.A, Event.PUSH, State.B), (State.B, Event.PUSH, State.C)]
        self.assertEqual(self.drawing(table).count("QUIT, in any other state"), 1)
        self.assertNotIn("QUIT", self.drawing(table))

    def test_a_value_that_is_no_table_is_refused(self) -> None:
        for value in (3, {Door.OPEN: Door.CLOSED}, [(Door.OPEN, Door.CLOSED)]):
            with self.assertRaises(TypeError):
                self.module["rows"](value)
