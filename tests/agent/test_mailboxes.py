"""The next hops of mailboxes, by routes and destinations, and the reading of aliases."""

import os

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.tidy import TidyTestCase
from twisted_mta.agent.mailboxes import Mailboxes
from twisted_mta.config import Config, Destination
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.reply import Reply
from twisted_mta.routing.alias_file import AliasError
from twisted_mta.system.executors import inline_executor
from twisted_mta.system.file_table import NOTHING
from twisted_mta.system.slices import Sliced
from twisted_mta.testing.files import UnsyncedFiles


class Destinations(TidyTestCase):
    """Recipients with different settings do not wait for each other at a shared host."""

    def mailboxes(
        self, *destinations: Destination, route: str = "smtp://relay.example"
    ) -> Mailboxes:
        return Mailboxes(
            Config(
                state_dir="/nowhere",
                hostname="mta.example",
                routes=(("*", route),),
                destinations=destinations,
            ),
            in_maildir=lambda mailbox: False,
            files=UnsyncedFiles(),
            secret=bytes,
            wall_time=lambda: 0.0,
            seconds=lambda: 0.0,
        )

    def route(self, mailboxes: Mailboxes, domain: str) -> tuple[object, str]:
        next_hop = mailboxes.route(Mailbox("bob", domain))
        return next_hop, next_hop.destination

    def test_a_domain_with_its_own_destination_is_another_next_hop(self) -> None:
        mailboxes = self.mailboxes(Destination(domain=".strict.example", tls="encrypt"))
        strict, pattern = self.route(mailboxes, "a.strict.example")
        self.assertEqual(pattern, ".strict.example")
        self.assertEqual(strict, self.route(mailboxes, "b.strict.example")[0])
        others, pattern = self.route(mailboxes, "other.example")
        self.assertEqual(pattern, "")
        self.assertNotEqual(strict, others)
        self.assertEqual(str(strict), str(others))

    def test_settings_for_the_host_or_for_all_make_no_other_next_hop(self) -> None:
        for destination in (
            Destination(domain="relay.example:25", tls="encrypt"),
            Destination(domain="*", tls="encrypt"),
        ):
            mailboxes = self.mailboxes(destination)
            self.assertEqual(self.route(mailboxes, "a.example")[1], "")


class ReadInSlices(TidyTestCase):
    """A long file of aliases is read while mail comes in; until its end, the old aliases hold."""

    def setUp(self) -> None:
        self.path = self.mktemp()
        self.config = Config(
            state_dir="/nowhere",
            hostname="us.example",
            local_domains=("us.example",),
            aliases=self.path,
        )
        files = UnsyncedFiles()
        files.make_directories("/nowhere")
        self.mailboxes = Mailboxes(
            self.config,
            in_maildir=lambda mailbox: False,
            files=files,
            secret=lambda count: bytes(range(count)),
            wall_time=lambda: 0.0,
            seconds=lambda: 0.0,
        )
        self.clock = Busy()
        self.pace = Sliced(self.clock, inline_executor)
        self.write("ann")
        self.reload()
        self.clock.pump([0.002] * 200)
        self.assertEqual(self.leads_to(), "ann")

    def write(self, target: str) -> None:
        with open(self.path, "w", encoding="ascii") as file:
            file.writelines(f"list{number}: {target}\n" for number in range(3200))

    def leads_to(self) -> str:
        found = self.mailboxes.expand(Mailbox("list7", "us.example"), None)
        assert not isinstance(found, Reply)
        return found[0].mailbox.local_part

    def reload(self) -> Deferred[None]:
        async def reload() -> None:
            prepared = await self.mailboxes.prepare(self.config, self.pace, NOTHING)
            await self.mailboxes.complete(prepared, self.pace)
            self.lines, letting_go = self.mailboxes.use(prepared)
            await self.pace.work(letting_go)

        return Deferred.fromCoroutine(reload())

    def test_the_old_aliases_hold_until_all_new_ones_are_parsed(self) -> None:
        self.write("bob")
        reloaded = self.reload()
        seen = [self.leads_to()]
        while not reloaded.called:
            self.clock.advance(0.002)
            seen.append(self.leads_to())
        self.successResultOf(reloaded)
        self.assertGreater(seen.count("ann"), 10)
        self.assertEqual(seen, sorted(seen))
        self.assertEqual(seen[-1], "bob")
        (line,) = self.lines
        path = os.path.abspath(self.path)
        self.assertTrue(line.startswith(f"{path}: 3,200 aliases, changed: list0, list1, "), line)
        self.assertTrue(line.endswith(" and 3,190 more"), line)

    def test_a_changed_file_with_the_same_aliases_is_named(self) -> None:
        with open(self.path, "a", encoding="ascii") as file:
            file.write("# a comment\n")
        reloaded = self.reload()
        self.clock.pump([0.002] * 400)
        self.successResultOf(reloaded)
        path = os.path.abspath(self.path)
        self.assertEqual(self.lines, [f"{path}: 3,200 aliases, changed: none"])

    def test_an_error_in_the_last_line_keeps_all_old_aliases(self) -> None:
        self.write("bob")
        with open(self.path, "a", encoding="ascii") as file:
            file.write("last: |command\n")
        reloaded = self.reload()
        self.clock.pump([0.002] * 200)
        error = self.failureResultOf(reloaded, AliasError).value
        self.assertIn(":3201:", str(error))
        self.assertEqual(self.leads_to(), "ann")

    def test_a_file_that_has_not_changed_takes_no_slice(self) -> None:
        self.successResultOf(self.reload())
        self.assertEqual(self.lines, [])
        self.assertEqual(self.leads_to(), "ann")


class Busy(Clock):
    """A clock that advances half a millisecond at each look, as if lines were read meanwhile."""

    def seconds(self) -> float:
        self.rightNow += 0.0005
        return super().seconds()
