"""The parameters of MAIL that outlive the session, and the form in which they are kept."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.smtp.extension.deliverby import DeliverBy
from twisted_mta.smtp.extension.envelope_parameters import envelope_parameters, reply_to_mail

NOW = 1_800_000_000.7


def kept(trusted: bool = True, **parameters: str | int | None) -> Mapping[str, str | int | None]:
    return envelope_parameters(_named(parameters), now=NOW, trusted=trusted)


def reply(trusted: bool = True, **parameters: str | int | None) -> str:
    return str(reply_to_mail(_named(parameters), now=NOW, trusted=trusted))


def _named(parameters: Mapping[str, str | int | None]) -> dict[str, str | int | None]:
    return {key.replace("_", "-"): value for key, value in parameters.items()}


class Lasting(SynchronousTestCase):
    def test_size_is_not_kept(self) -> None:
        self.assertEqual(kept(SIZE=7, BODY="8BITMIME", SMTPUTF8=None, X="y"), {
            "BODY": "8BITMIME", "SMTPUTF8": None, "X": "y",
        })  # fmt: skip

    def test_seconds_are_kept_as_wall_time(self) -> None:
        self.assertEqual(kept(BY="120;RT"), {"BY": "1800000120;RT"})
        self.assertEqual(kept(BY="-120;N"), {"BY": "1799999880;N"})
        self.assertEqual(kept(HOLDFOR=60), {"HOLDUNTIL": 1800000060})
        self.assertEqual(kept(HOLDUNTIL=1800000099), {"HOLDUNTIL": 1800000099})

    def test_requiretls_is_kept(self) -> None:
        self.assertEqual(kept(REQUIRETLS=None), {"REQUIRETLS": None})

    def test_a_priority_above_0_is_kept_for_trusted_clients(self) -> None:
        self.assertEqual(kept(MT_PRIORITY=5), {"MT-PRIORITY": 5})
        self.assertEqual(kept(MT_PRIORITY=5, trusted=False), {})
        self.assertEqual(kept(MT_PRIORITY=-5, trusted=False), {"MT-PRIORITY": -5})
        self.assertEqual(kept(MT_PRIORITY=0), {})


class Decided(SynchronousTestCase):
    def test_most_parameters_need_no_reply_of_their_own(self) -> None:
        for parameters in ({}, {"SIZE": 3}, {"MT_PRIORITY": 9}, {"HOLDFOR": 5}, {"BY": "5;R"}):
            self.assertEqual(reply(**parameters), "None")
        self.assertEqual(reply(trusted=False, MT_PRIORITY=-1), "None")

    def test_a_refused_priority_is_accepted_as_0_and_told(self) -> None:
        """RFC 6710 §4.1."""
        found = reply(trusted=False, MT_PRIORITY=1)
        self.assertEqual(found, "250 2.3.6 0 is the priority of this message")

    def test_holdfor_and_holduntil_exclude_each_other(self) -> None:
        self.assertTrue(reply(HOLDFOR=5, HOLDUNTIL=1800000005).startswith("501 5.5.4 "))

    def test_requiretls_is_refused_in_clear(self) -> None:
        """RFC 8689 §2."""
        self.assertTrue(reply(REQUIRETLS=None).startswith("530 5.7.10 "))

    def test_a_release_after_the_deadline_for_delivery_is_refused(self) -> None:
        self.assertTrue(reply(HOLDFOR=60, BY="60;R").startswith("501 5.5.4 "))
        self.assertTrue(reply(HOLDUNTIL=1800000099, BY="60;N").startswith("501 5.5.4 "))
        self.assertEqual(reply(HOLDFOR=59, BY="61;R"), "None")


class Values(SynchronousTestCase):
    @given(st.integers(-999_999_999, 999_999_999), st.booleans(), st.booleans(), st.floats(0, 1e10))
    def test_fractions_of_a_second_never_add_time(
        self, seconds: int, returned: bool, traced: bool, now: float
    ) -> None:
        by = DeliverBy(seconds, returned, traced)
        self.assertEqual(DeliverBy.of({"BY": str(by)}), by)
        there = by.moved(now).moved(-now)
        self.assertIn(there.seconds - seconds, (0, -1))
        self.assertEqual((there.returned, there.traced), (returned, traced))

    def test_without_by_there_is_no_value(self) -> None:
        self.assertIsNone(DeliverBy.of({}))
        self.assertIsNone(DeliverBy.of({"BY": None}))
