"""Changes for the campaign: each kind is found, is made where it stands, and compiles."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import twisted_mta

from .change import changes

SOURCE = '''
def take(self, limit: int = 5) -> bool:
    """Count é one in."""
    if self.closed:
        raise Closed
    self.log.info("é")
    self.file.close()
    return self.count < limit and not self.full
'''


class ChangesTests(SynchronousTestCase):
    def test_each_kind_of_change_is_made_in_its_place(self) -> None:
        made = {(change.kind, change.before, change.after) for change in changes(SOURCE)}
        self.assertEqual(
            made,
            {
                ("number", "5", "6"),
                ("condition", "self.closed", "(not (self.closed))"),
                ("guard", "self.closed", "(False and (self.closed))"),
                ("call", "self.file.close()", "pass"),
                ("comparison", " < ", " <= "),
                ("boolean", " and ", " or "),
            },
        )

    def test_a_change_leaves_the_rest_of_the_text_alone(self) -> None:
        for change in changes(SOURCE):
            changed = change.of(SOURCE)
            self.assertNotEqual(changed, SOURCE)
            self.assertEqual(changed.replace(change.after, change.before, 1), SOURCE)

    def test_every_change_of_a_module_of_ours_compiles(self) -> None:
        path = Path(twisted_mta.__file__).parent / "smtp" / "command.py"
        source = path.read_text(encoding="utf-8")
        self.assertGreater(len(changes(source)), 20)
        for change in changes(source):
            compile(change.of(source), str(path), "exec")
