"""The lifecycle of a server connection: its table, and its one writer."""

import ast
import inspect

from tests.tidy import TidyTestCase
from twisted_mta.server import protocol
from twisted_mta.server.lifecycle import TRANSITIONS, Event, Lifecycle


def writers_of(attribute: str, module: object) -> list[str]:
    """Return the names of the functions in a module that assign to ``self.<attribute>``."""
    source = inspect.getsource(module)  # type: ignore[arg-type]
    return [
        function.name
        for function in ast.walk(ast.parse(source))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and node.attr == attribute
    ]


class LifecycleTests(TidyTestCase):
    def test_every_state_has_a_row(self) -> None:
        self.assertEqual(list(TRANSITIONS), list(Lifecycle))

    def test_every_state_is_reached_from_the_first_and_leads_to_the_last(self) -> None:
        reached = [Lifecycle.BUILT]
        for state in reached:
            reached += [each for each in TRANSITIONS[state].values() if each not in reached]
        self.assertEqual(set(reached), set(Lifecycle))
        self.assertEqual([state for state in Lifecycle if not TRANSITIONS[state]], [Lifecycle.LOST])

    def test_every_event_leads_somewhere(self) -> None:
        used = {event for row in TRANSITIONS.values() for event in row}
        self.assertEqual(used, set(Event))

    def test_the_connection_has_one_writer_of_its_state(self) -> None:
        self.assertEqual(writers_of("_lifecycle", protocol), ["__init__", "_move"])
