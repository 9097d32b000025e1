"""The order in which tests are tried with a change."""

from twisted.trial.unittest import SynchronousTestCase

from .__main__ import own_stages


class OwnStagesTests(SynchronousTestCase):
    def test_tests_of_the_room_that_import_the_file_come_first(self) -> None:
        room, *_ = own_stages("auth/throttle.py")
        self.assertLess(
            room.index("tests.auth.test_throttle"), room.index("tests.auth.test_accounts")
        )
        self.assertEqual([name for name in room if not name.startswith("tests.auth.")], [])

    def test_tests_of_other_rooms_follow_if_they_import_the_file(self) -> None:
        _, others = own_stages("auth/accounts.py")
        self.assertIn("tests.policy.test_submission", others)
        self.assertNotIn("tests.mailflow.test_loops", others)

    def test_a_file_without_a_room_has_the_tests_that_import_it(self) -> None:
        (others,) = own_stages("interfaces.py")
        self.assertIn("tests.server.test_admission", others)
