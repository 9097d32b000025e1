"""A limit is divided among machines: nothing is wasted, and none waits forever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.tidy import TidyTestCase
from twisted_mta.cluster.fair_parts import Claim, fair_parts

claims = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 20), st.floats(0, 100), st.integers(0, 20)),
    max_size=6,
).map(
    lambda each: [
        Claim(f"m{number}", held, wanted, since, min(spare, held))
        for number, (held, wanted, since, spare) in enumerate(each)
    ]
)


class FairParts(TidyTestCase):
    @given(limit=st.integers(0, 40), claims=claims)
    def test_the_parts_are_within_the_limit_and_nothing_is_wasted(
        self, limit: int, claims: list[Claim]
    ) -> None:
        parts = fair_parts(limit, claims)
        claimed = {each.machine: each.need for each in claims}
        self.assertEqual(sum(parts.values()), min(limit, sum(claimed.values())))
        for machine, part in parts.items():
            self.assertLessEqual(part, claimed[machine])

    @given(limit=st.integers(0, 40), claims=claims)
    def test_who_has_less_than_another_has_what_it_claims(
        self, limit: int, claims: list[Claim]
    ) -> None:
        parts = fair_parts(limit, claims)
        most = max(parts.values(), default=0)
        for each in claims:
            if parts[each.machine] < most - 1:
                self.assertEqual(parts[each.machine], each.need)

    def test_one_credit_goes_to_the_machine_that_waits_longest(self) -> None:
        busy, late, early = Claim("a", 1, 5, 1.0), Claim("b", 0, 1, 3.0), Claim("c", 0, 1, 2.0)
        self.assertEqual(fair_parts(1, [busy, late, early]), {"a": 0, "b": 0, "c": 1})

    def test_a_remainder_stays_where_it_is(self) -> None:
        more, less = Claim("b", 2, 5, 2.0), Claim("a", 1, 5, 1.0)
        self.assertEqual(fair_parts(3, [more, less]), {"a": 1, "b": 2})
