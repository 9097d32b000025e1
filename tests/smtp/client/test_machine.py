"""The tables of a client session are complete, and one line changes its state."""

import ast
from pathlib import Path

from tests.tidy import TidyTestCase
from twisted_mta.smtp.client import session
from twisted_mta.smtp.client.awaited import Awaited, Deadlines
from twisted_mta.smtp.client.machine import TRANSITIONS, Event, State

SOURCE = Path(session.__file__).parent


class States(TidyTestCase):
    def test_one_line_changes_the_state_and_it_knows_no_way_but_the_table(self) -> None:
        writers = [
            ast.unparse(node)
            for path in sorted(SOURCE.glob("*.py"))
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Assign)
            and any(isinstance(to, ast.Attribute) and to.attr == "state" for to in node.targets)
        ]
        self.assertEqual(writers, ["self.state = TRANSITIONS[self.state][event]"])

    def test_every_state_has_a_row_and_every_event_is_used(self) -> None:
        self.assertEqual(set(TRANSITIONS), set(State))
        self.assertEqual({event for row in TRANSITIONS.values() for event in row}, set(Event))

    def test_every_state_is_reached_from_the_first(self) -> None:
        following = {state for row in TRANSITIONS.values() for state in row.values()}
        self.assertEqual(following | {State.OPENING}, set(State))

    def test_every_state_but_the_last_may_be_closed(self) -> None:
        for state, row in TRANSITIONS.items():
            self.assertEqual(row.get(Event.CLOSE), None if state is State.CLOSED else State.CLOSED)


class Replies(TidyTestCase):
    def test_every_reply_that_can_be_awaited_has_a_row(self) -> None:
        acts_of_the_shell = {Awaited.HANDSHAKE, Awaited.BODY}
        self.assertEqual(set(session._ACTIONS), set(Awaited) - acts_of_the_shell)

    def test_a_row_has_an_action_for_each_class_of_reply(self) -> None:
        self.assertEqual({len(row) for row in session._ACTIONS.values()}, {4})

    def test_every_wait_has_a_deadline(self) -> None:
        for awaited in Awaited:
            self.assertGreater(getattr(Deadlines(), awaited.value), 0)
