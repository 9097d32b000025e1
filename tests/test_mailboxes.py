"""Where mail goes next, by the routes and by what is special about some destinations."""

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.config import Config, Destination
from twisted_mta.mailboxes import Mailboxes
from twisted_mta.smtp.address import Mailbox
from twisted_mta.testing.files import UnsyncedFiles


class Terms(SynchronousTestCase):
    """Recipients for whom other terms hold are not to wait for each other at a shared host."""

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
        )

    def route(self, mailboxes: Mailboxes, domain: str) -> tuple[object, str]:
        next_hop = mailboxes.route(Mailbox("bob", domain))
        return next_hop, next_hop.destination

    def test_a_domain_with_terms_of_its_own_is_another_next_hop(self) -> None:
        mailboxes = self.mailboxes(Destination(domain=".strict.example", tls="encrypt"))
        strict, pattern = self.route(mailboxes, "a.strict.example")
        self.assertEqual(pattern, ".strict.example")
        self.assertEqual(strict, self.route(mailboxes, "b.strict.example")[0])
        others, pattern = self.route(mailboxes, "other.example")
        self.assertEqual(pattern, "")
        self.assertNotEqual(strict, others)
        self.assertEqual(str(strict), str(others))

    def test_what_holds_for_the_host_or_for_all_makes_no_other(self) -> None:
        for destination in (
            Destination(domain="relay.example:25", tls="encrypt"),
            Destination(domain="*", tls="encrypt"),
        ):
            mailboxes = self.mailboxes(destination)
            self.assertEqual(self.route(mailboxes, "a.example")[1], "")
