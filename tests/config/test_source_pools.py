"""Settings of source pools and of actions on replies: what is refused, and in which words."""

from __future__ import annotations

import os
from datetime import date

from tests.tidy import TidyTestCase
from twisted_mta.config import Config, ReplyAction, SourceAddress, SourcePool, load
from twisted_mta.config.loading import load_leniently

POOL = """
[[source_pool]]
name = "bulk"
[[source_pool.address]]
address = "192.0.2.10"
"""


class Sending(TidyTestCase):
    def setUp(self) -> None:
        self.file = os.path.abspath(self.mktemp())

    def write(self, toml: str) -> str:
        with open(self.file, "w", encoding="utf-8") as file:
            file.write(toml)
        return self.file

    def load(self, toml: str) -> Config:
        return load({}, self.write(toml), environment={}, machine_name=lambda: "mx.example.net")

    def refusals(self, toml: str) -> list[str]:
        _, errors = load_leniently(
            {}, self.write(toml), environment={}, machine_name=lambda: "mx.example.net"
        )
        return [str(each).replace(self.file, "FILE") for each in errors]

    def assertRefused(self, toml: str, text: str) -> None:
        refusals = self.refusals(toml)
        self.assertTrue(refusals, toml)
        self.assertIn(text, refusals[0])
        self.assertTrue(refusals[0].startswith("FILE: "), refusals)

    def test_every_key_is_read(self) -> None:
        config = self.load(
            """
            [[source_pool]]
            name = "bulk"
            [[source_pool.address]]
            address = "192.0.2.10"
            helo = "out1.example.net"
            warm_up = [50, 50, 100]
            warm_up_since = 2026-12-01
            [[source_pool.address]]
            address = "2001:DB8::1"
            [[reply_action]]
            code = 421
            pattern = "rate"
            domain = ".A.example"
            exchanger = "MX.example"
            action = "suspend"
            duration = "30 min"
            """
        )
        first = SourceAddress(
            address="192.0.2.10",
            helo="out1.example.net",
            warm_up=(50, 50, 100),
            warm_up_since=date(2026, 12, 1),
        )
        pool = SourcePool(name="bulk", address=[first, SourceAddress(address="2001:db8::1")])
        self.assertEqual(config.source_pools, (pool,))
        action = ReplyAction(
            code="421",
            pattern="rate",
            domain=".a.example",
            exchanger="mx.example",
            action="suspend",
            duration=1800,
        )
        self.assertEqual(config.reply_actions, (action,))

    def test_the_days_of_an_address(self) -> None:
        address = SourceAddress(address="192.0.2.1", warm_up=[5, 10], warm_up_since="1970-01-03")
        self.assertEqual([address.limit(day) for day in range(6)], [0, 0, 5, 10, None, None])
        self.assertIsNone(SourceAddress(address="192.0.2.1").limit(0))

    def test_pools_that_are_wrong(self) -> None:
        for toml, text in (
            (POOL + POOL, '[[source_pool]] name = "bulk": found two; expected one'),
            (
                POOL + POOL.replace("bulk", "other"),
                '[[source_pool]] other, address = "192.0.2.10": found it in bulk too',
            ),
            ('[[source_pool]]\nname = "a"', "[[source_pool]] 1 has no address"),
            (
                '[[source_pool]]\nname = "a"\naddress = "192.0.2.1"',
                "found a string, expected tables, each below a line [[source_pool.address]]",
            ),
            (POOL.replace("192.0.2.10", "out.example"), 'address = "out.example"'),
            (POOL.replace("bulk", "a b"), "expected letters, digits, dots, - and _ alone"),
            (POOL + "warm_up = [5]", "192.0.2.10: warm_up_since is missing"),
            (POOL + "warm_up_since = 2026-12-01", "192.0.2.10: warm_up is missing"),
            (POOL + "warm_up = [0]\nwarm_up_since = 2026-12-01", "a whole number from 1"),
            (POOL + "warm_up = 5\nwarm_up_since = 2026-12-01", "a list of numbers"),
            (POOL + 'warm_up = [5]\nwarm_up_since = "soon"', "expected a date such as 2026-12-01"),
            (
                POOL + "warm_up = [5]\nwarm_up_since = 2026-12-01T00:00:00Z",
                "expected a date such as 2026-12-01",
            ),
            (POOL + 'name = "x"', "name: no such setting; expected address, helo, warm_up"),
            (
                POOL + '[delivery]\nsource_pool = "bulkk"',
                '[delivery] source_pool = "bulkk": there is no such [[source_pool]]; expected bulk',
            ),
            (
                '[[destination]]\ndomain = "a.example"\nsource_pool = "bulk"',
                '[[destination]] a.example, source_pool = "bulk": there is no such [[source_pool]]',
            ),
            (
                POOL + '[delivery]\nsource_pool = "bulk"\nsource_address = "192.0.2.1"',
                'source_pool = "bulk": found source_address too; expected one of them',
            ),
            (
                POOL
                + '[[destination]]\ndomain = "*"\nsource_pool = "bulk"\nsource_address = "::1"',
                'source_pool = "bulk": found source_address too; expected one of them',
            ),
        ):
            self.assertRefused(toml, text)

    def test_actions_that_are_wrong(self) -> None:
        for keys, text in (
            ('pattern = "x"', "[[reply_action]] 1 has no action"),
            ('action = "fail"', "found neither pattern nor code; expected one of them"),
            ('action = "bounce"\ncode = "4"', 'expected "defer", "suspend", "other_source" or'),
            ('action = "suspend"\ncode = "4"', "duration is missing"),
            ('action = "fail"\ncode = "4"\nduration = "1 h"', "duration says nothing here"),
            ('action = "fail"\ncode = "550"', "a 5yz fails in any case"),
            ('action = "defer"\ncode = "250"', "expected a reply code from 400 to 599"),
            ('action = "defer"\npattern = "(a"', 'pattern = "(a": a ( is not closed'),
            ('action = "defer"\ncode = "5"\ndomain = "*"', 'domain = "*"'),
            ('action = "other_source"\ncode = "5"', "there is no [[source_pool]]; expected one"),
        ):
            self.assertRefused(f"[[reply_action]]\n{keys}\n", text)
        twice = '[[reply_action]]\ncode = "5"\naction = "defer"\n'
        self.assertRefused(twice * 2, '[[reply_action]] code = "5": found two; expected one')
