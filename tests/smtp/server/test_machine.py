"""The table of states of a server session is complete, and nothing goes past it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import twisted_mta
from twisted_mta.smtp.server import session
from twisted_mta.smtp.server.dialect import LMTP, SMTP
from twisted_mta.smtp.server.machine import (
    LAST_IN_GROUP,
    REPLACEABLE,
    TRANSITIONS,
    WITHOUT_TLS,
    Event,
    State,
)

PACKAGE = Path(twisted_mta.__file__).parent
HOLDS_SESSIONS = ("smtp", "server", "agent/explain", "testing")
"""Where sessions of the server are at hand; other rooms have states of their own."""

COMMANDS = [event for event in Event if re.fullmatch("[A-Z]+", event)]


def writers() -> Iterator[str]:
    """Yield each statement that sets an attribute called ``state``."""
    for room in HOLDS_SESSIONS:
        for path in sorted((PACKAGE / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Assign):
                    targets = node.targets
                elif isinstance(node, ast.AnnAssign | ast.AugAssign):
                    targets = [node.target]
                else:
                    continue
                for target in (inner for each in targets for inner in ast.walk(each)):
                    if isinstance(target, ast.Attribute) and target.attr == "state":
                        yield f"{path.relative_to(PACKAGE)}: {ast.unparse(node)}"


def entered() -> set[str]:
    """Return the names of the events in the source of the session."""
    tree = ast.parse(Path(session.__file__).read_text(encoding="utf-8"))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "Event"
    }


class OneWriter(SynchronousTestCase):
    def test_one_line_changes_the_state_and_it_knows_no_way_but_the_table(self) -> None:
        found = [each for each in writers() if each.startswith("smtp/server/")]
        self.assertEqual(
            found,
            ["smtp/server/session.py: self.state = self._transitions[self.state][event]"],
        )

    def test_no_other_room_sets_the_state_of_a_session(self) -> None:
        found = [each for each in writers() if "session.state" in each.partition(" =")[0]]
        self.assertEqual(found, [])


class Complete(SynchronousTestCase):
    def test_every_state_has_a_row(self) -> None:
        self.assertEqual(list(map(str, TRANSITIONS)), list(map(str, State)))

    def test_every_state_is_reached_from_the_first(self) -> None:
        reached, waiting = {State.START}, [State.START]
        while waiting:
            for following in TRANSITIONS[waiting.pop()].values():
                if following not in reached:
                    reached.add(following)
                    waiting.append(following)
        self.assertEqual(reached, set(State))

    def test_every_state_but_the_last_can_be_closed_by_the_server(self) -> None:
        closable = [state for state, row in TRANSITIONS.items() if Event.CLOSE in row]
        self.assertEqual(closable, [state for state in State if state is not State.CLOSED])
        self.assertEqual(TRANSITIONS[State.CLOSED], {})

    def test_every_event_is_in_the_table_of_a_dialect(self) -> None:
        rows = [row for each in (SMTP, LMTP) for row in each.transitions.values()]
        self.assertEqual({event for row in rows for event in row}, set(Event))

    def test_every_event_is_one_that_the_session_enters_or_looks_for(self) -> None:
        self.assertEqual(entered(), {event.name for event in Event})

    def test_every_command_in_the_table_is_obeyed_and_no_other(self) -> None:
        self.assertEqual(set(session._COMMANDS), set(COMMANDS))

    def test_commands_beside_the_table_are_in_it(self) -> None:
        for verb in (*LAST_IN_GROUP, *WITHOUT_TLS, *REPLACEABLE):
            self.assertIn(verb, COMMANDS)

    def test_a_client_can_name_no_event_but_its_commands(self) -> None:
        """The session looks up verbs from the wire: letters in upper case."""
        for event in Event:
            self.assertEqual(event in COMMANDS, event.value == event.name, event)
            self.assertEqual(event in COMMANDS, event.isalpha(), event)


class RFC5321(SynchronousTestCase):
    """What the standards say of the order of commands, as rows of the table."""

    def states(self, event: Event) -> dict[State, State]:
        return {state: row[event] for state, row in TRANSITIONS.items() if event in row}

    def test_content_is_entered_by_data_and_bdat_alone(self) -> None:
        for row in TRANSITIONS.values():
            for event, following in row.items():
                by_verb = event in (Event.DATA, Event.BDAT)
                self.assertEqual(following is State.CONTENT, by_verb, event)

    def test_the_handshake_is_entered_by_starttls_alone(self) -> None:
        """RFC 3207 §4."""
        for row in TRANSITIONS.values():
            for event, following in row.items():
                self.assertEqual(following is State.HANDSHAKE, event is Event.STARTTLS, event)

    def test_after_a_handshake_a_session_begins_anew(self) -> None:
        """RFC 3207 §4.2: the client has to send EHLO again."""
        self.assertEqual(
            self.states(Event.TLS_SUFFICES),
            {State.START: State.START, State.HANDSHAKE: State.START},
        )

    def test_under_tls_that_does_not_suffice_only_quit_is_obeyed(self) -> None:
        """RFC 3207 §4.1."""
        row = TRANSITIONS[State.TLS_TOO_WEAK]
        self.assertEqual([event for event in row if event in COMMANDS], [Event.QUIT])

    def test_mail_comes_after_a_greeting_and_outside_of_a_transaction(self) -> None:
        self.assertEqual(self.states(Event.MAIL), {State.GREETED: State.MAIL})

    def test_auth_comes_after_a_greeting_and_outside_of_a_transaction(self) -> None:
        """RFC 4954 §4."""
        self.assertEqual(self.states(Event.AUTH), {State.GREETED: State.AUTH})

    def test_data_needs_an_accepted_recipient(self) -> None:
        self.assertEqual(self.states(Event.DATA), {State.RCPT: State.CONTENT})

    def test_rset_ends_a_transaction_and_keeps_the_greeting(self) -> None:
        """RFC 5321 §4.1.1.5."""
        self.assertEqual(
            self.states(Event.RSET),
            {
                State.START: State.START,
                **dict.fromkeys(
                    (
                        State.GREETED,
                        State.MAIL,
                        State.RCPT,
                        State.BETWEEN_CHUNKS,
                        State.CHUNK_REFUSED,
                    ),
                    State.GREETED,
                ),
            },
        )

    def test_after_a_refused_chunk_only_four_commands_are_obeyed(self) -> None:
        """RFC 3030 §2."""
        row = TRANSITIONS[State.CHUNK_REFUSED]
        commands = [event for event in row if event in COMMANDS]
        self.assertEqual(commands, [Event.RSET, Event.EHLO, Event.NOOP, Event.QUIT])

    def test_lmtp_has_lhlo_in_place_of_ehlo_and_helo(self) -> None:
        """RFC 2033 §4.1."""
        for state, row in LMTP.transitions.items():
            self.assertNotIn(Event.EHLO, row)
            self.assertNotIn(Event.HELO, row)
            self.assertEqual(row.get(Event.LHLO), TRANSITIONS[state].get(Event.EHLO))
