"""Next hops."""

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.mail.next_hop import Host, NextHop


class Names(SynchronousTestCase):
    def test_a_changed_next_hop_has_a_name_of_its_own(self) -> None:
        hop = NextHop("smtp", domain="example.net")
        self.assertEqual(str(hop), "smtp:example.net")
        self.assertEqual(str(evolve(hop, domain="example.org")), "smtp:example.org")
        hosts = Host("mx.example"), Host("2001:db8::1", 587)
        named = evolve(hop, hosts=hosts, implicit_tls=True)
        self.assertEqual(str(named), "smtps:mx.example:25,[2001:db8::1]:587")
        self.assertEqual(str(NextHop("deliver", delivery="archive")), "deliver:archive")

    def test_the_limits_of_exchangers_are_those_of_their_destination(self) -> None:
        hop = NextHop("smtp", domain="example.net", exchanger=".mx.example")
        self.assertEqual(hop.limit_name, ("smtp:exchanger=.mx.example",))
        other = evolve(hop, domain="example.org")
        self.assertEqual(other.limit_name, hop.limit_name)
        bulk = NextHop("smtp", hosts=(Host("mx.example"),), destination="example.com")
        self.assertEqual(bulk.limit_name, ("smtp:mx.example:25", "example.com"))
