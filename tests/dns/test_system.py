"""resolv.conf and the hosts file, their changes, and the search list."""

from __future__ import annotations

import os
import random  # noqa: TID251 - seeded
import time
from collections.abc import Sequence
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, TestCase

from tests.dns.scripted import LOOPBACK, NameServer, listen
from tests.dns.test_nameservers import Later
from tests.tidy import TidyTestCase
from twisted_mta.dns import DNSResolver, LookupFailed, NoSuchDomain, hosts_file, resolv_conf
from twisted_mta.dns.hosts_file import read_hosts
from twisted_mta.dns.resolv_conf import parse_resolv_conf
from twisted_mta.dns.system import SystemFiles
from twisted_mta.interfaces import NoTarget
from twisted_mta.mail.next_hop import Host, NextHop
from twisted_mta.routing.exchangers import TargetLocator

KUBERNETES = """\
search mail.svc.cluster.local svc.cluster.local cluster.local
nameserver 10.96.0.10
options ndots:5
"""


class ResolvConfTests(TidyTestCase):
    def test_name_servers_search_list_and_options_are_parsed(self) -> None:
        found = parse_resolv_conf(
            "# by hand\n; or not\nnameserver 192.0.2.1\nnameserver\t2001:db8::1 # second\n"
            "nameserver fe80::1%eth0\nnameserver rubbish\nnameserver 192.0.2.1\nnameserver\n"
            "domain one.example\nsearch Two.Example. three.example\n"
            "options timeout:3 attempts:4 rotate edns0 ndots:2 no-aaaa\noptions ndots:x trust-ad\n"
        )
        self.assertEqual(
            [str(each) for each in found.nameservers],
            ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%eth0]:53"],
        )
        self.assertEqual(found.search, ("two.example", "three.example"))
        self.assertEqual((found.timeout, found.attempts, found.ndots), (3.0, 4, 2))
        self.assertTrue(found.rotate and found.no_aaaa)

    def test_defaults_are_those_of_the_c_library(self) -> None:
        found = parse_resolv_conf("", hostname="mta.example.net")
        self.assertEqual(found.nameservers, (Host("127.0.0.1", 53),))
        self.assertEqual((found.search, found.ndots), (("example.net",), 1))
        self.assertEqual(parse_resolv_conf("", hostname="mta").search, ())
        self.assertEqual(parse_resolv_conf("domain a.example b.example").search, ("a.example",))
        self.assertEqual(
            parse_resolv_conf("search a.example\ndomain b.example").search, ("b.example",)
        )
        self.assertEqual(parse_resolv_conf("search .", hostname="mta.example.net").search, ())

    def test_numbers_are_bounded(self) -> None:
        found = parse_resolv_conf("options timeout:999999999999 attempts:0 ndots:99")
        self.assertEqual((found.timeout, found.attempts, found.ndots), (30.0, 1, 15))
        many = "".join(f"nameserver 192.0.2.{number}\n" for number in range(100))
        self.assertEqual(len(parse_resolv_conf(many).nameservers), 8)
        self.assertEqual(len(parse_resolv_conf("search " + "a.example " * 1000).search), 16)

    def test_the_number_of_dots_decides_on_the_order_of_candidates(self) -> None:
        found = parse_resolv_conf(KUBERNETES)
        self.assertEqual(
            found.candidates("mailhog"),
            [
                "mailhog.mail.svc.cluster.local",
                "mailhog.svc.cluster.local",
                "mailhog.cluster.local",
                "mailhog",
            ],
        )
        self.assertEqual(found.candidates("a.b.c.d.e.f")[0], "a.b.c.d.e.f")
        self.assertEqual(found.candidates("mailhog."), ["mailhog"])
        self.assertEqual(
            parse_resolv_conf("search a.example").candidates("b.c"), ["b.c", "b.c.a.example"]
        )


class FilesTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.resolv_conf, self.hosts = self.mktemp(), self.mktemp()
        self.write(self.resolv_conf, "nameserver 192.0.2.1\n")
        self.write(self.hosts, "192.0.2.7 relay\n")

    def write(self, path: str, content: str) -> None:
        """Replace a file atomically, as DHCP clients do."""
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            file.write(content)
        os.rename(f"{path}.new", path)

    def system_files(self) -> SystemFiles:
        return SystemFiles(self.clock, resolv_conf_path=self.resolv_conf, hosts_path=self.hosts)

    def first(self, files: SystemFiles) -> str:
        return files.resolv_conf.nameservers[0].name


class Changes(FilesTestCase):
    def test_a_file_that_changes_is_read_again_within_a_second(self) -> None:
        files = self.system_files()
        files.check()
        self.write(self.resolv_conf, "nameserver 192.0.2.2\n")
        self.write(self.hosts, "192.0.2.8 relay\n")
        files.check()
        self.assertEqual((self.first(files), files.hosts["relay"]), ("192.0.2.1", ("192.0.2.7",)))
        self.clock.advance(1.0)
        files.check()
        self.assertEqual((self.first(files), files.hosts["relay"]), ("192.0.2.2", ("192.0.2.8",)))

    def test_a_missing_file_counts_as_empty_until_it_exists(self) -> None:
        os.unlink(self.resolv_conf)
        os.unlink(self.hosts)
        files = self.system_files()
        files.check()
        self.assertEqual((self.first(files), dict(files.hosts)), ("127.0.0.1", {}))
        self.write(self.resolv_conf, "nameserver 192.0.2.2\n")
        self.write(self.hosts, "192.0.2.8 relay\n")
        self.clock.advance(1.0)
        files.check()
        self.assertEqual((self.first(files), files.hosts["relay"]), ("192.0.2.2", ("192.0.2.8",)))
        os.unlink(self.resolv_conf)
        self.clock.advance(1.0)
        files.check()
        self.assertEqual(self.first(files), "127.0.0.1")

    def test_a_changed_symbolic_link_is_followed(self) -> None:
        other, link = self.mktemp(), self.mktemp()
        self.write(other, "nameserver 192.0.2.3\n")
        os.symlink(os.path.abspath(self.resolv_conf), link)
        self.resolv_conf = link
        files = self.system_files()
        self.assertEqual(self.first(files), "192.0.2.1")
        os.unlink(link)
        os.symlink(os.path.abspath(other), link)
        self.clock.advance(1.0)
        files.check()
        self.assertEqual(self.first(files), "192.0.2.3")

    def test_rereading_ignores_an_unchanged_stat(self) -> None:
        files = self.system_files()
        files.check()
        before = os.stat(self.resolv_conf)
        self.patch(os, "stat", lambda path: before)
        self.write(self.resolv_conf, "nameserver 192.0.2.2\n")
        self.clock.advance(5.0)
        files.check()
        self.assertEqual(self.first(files), "192.0.2.1")
        files.reread_resolv_conf()
        self.assertEqual(self.first(files), "192.0.2.2")

    def test_files_are_checked_once_a_second_at_most(self) -> None:
        files = self.system_files()
        files.check()
        looked: list[str] = []
        self.patch(os, "stat", looked.append)
        for _ in range(100):
            files.check()
        self.assertEqual(looked, [])


class LargeHosts(FilesTestCase):
    def test_a_large_hosts_file_is_read_in_slices_while_the_old_one_holds(self) -> None:
        lines = "".join(f"0.0.0.0 ads{number}.example\n" for number in range(50_000))
        at_once = self.clock.callLater
        # A Clock runs all due calls in one advance; a reactor serves its sockets in between.
        self.patch(self.clock, "callLater", lambda delay, *call: at_once(delay + 0.001, *call))
        files = self.system_files()
        files.check()
        self.write(self.hosts, f"{lines}192.0.2.8 relay\n")
        self.clock.advance(1.0)
        files.check()
        slices = 0
        self.assertEqual(files.hosts["relay"], ("192.0.2.7",))
        while files.hosts["relay"] == ("192.0.2.7",):
            self.clock.advance(0.001)
            slices += 1
        self.assertGreater(slices, 20)
        self.assertEqual((len(files.hosts), files.hosts["relay"]), (50_001, ("192.0.2.8",)))

    def test_of_two_changes_during_the_reading_the_last_one_holds(self) -> None:
        lines = "".join(f"0.0.0.0 ads{number}.example\n" for number in range(20_000))
        at_once = self.clock.callLater
        self.patch(self.clock, "callLater", lambda delay, *call: at_once(delay + 0.001, *call))
        files = self.system_files()
        files.check()
        for number in (8, 9):
            self.write(self.hosts, (lines if number == 8 else "") + f"192.0.2.{number} relay\n")
            files.reload()
        for _ in range(200):
            self.clock.advance(0.001)
        self.assertEqual((len(files.hosts), files.hosts["relay"]), (1, ("192.0.2.9",)))

    def test_a_stop_ends_the_reading_and_the_next_check_begins_it_again(self) -> None:
        lines = "".join(f"0.0.0.0 ads{number}.example\n" for number in range(20_000))
        at_once = self.clock.callLater
        self.patch(self.clock, "callLater", lambda delay, *call: at_once(delay + 0.001, *call))
        self.write(self.hosts, f"{lines}192.0.2.8 relay\n")
        files = self.system_files()
        files.check()
        resolver = DNSResolver(self.clock, system=files)
        self.assertNotEqual(self.clock.getDelayedCalls(), [])
        resolver.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        for _ in range(200):
            self.clock.advance(0.01)
            files.check()
        self.assertEqual((len(files.hosts), files.hosts["relay"]), (20_001, ("192.0.2.8",)))

    def test_one_slice_is_short(self) -> None:
        lines = "".join(f"10.{n >> 8}.{n & 255}.1 a{n}.example b{n}\n" for n in range(20_000))
        self.write(self.hosts, lines)
        hosts: dict[str, Sequence[str]] = {}
        times = []
        reading = hosts_file.fill_hosts(hosts, self.hosts)
        began = time.thread_time()
        for _ in reading:
            now = time.thread_time()
            times.append(now - began)
            began = now
        self.assertGreater(len(times), 20)
        self.assertLess(sorted(times)[len(times) // 2], 0.02)

    def test_the_length_of_lines_and_the_number_of_names_are_bounded(self) -> None:
        self.patch(hosts_file, "MOST_NAMES", 1000)
        self.write(
            self.hosts,
            "192.0.2.7 first\n192.0.2.9 long " + "x " * 100_000 + "last\n"
            "192.0.2.8 second\n" + "".join(f"192.0.2.10 n{number}\n" for number in range(2000)),
        )
        hosts = read_hosts(self.hosts)
        self.assertEqual(hosts["first"], ("192.0.2.7",))
        self.assertEqual(hosts["second"], ("192.0.2.8",))
        self.assertNotIn("last", hosts)
        self.assertEqual(len(hosts), 1000)


class ChangingTestCase(TestCase):
    def setUp(self) -> None:
        self.clock = Later()
        self.first, self.second = NameServer(), NameServer()
        self.ports = [listen(self, self.first), listen(self, self.second)]
        self.resolv_conf, self.hosts = self.mktemp(), self.mktemp()
        self.name(0)
        with open(self.hosts, "w", encoding="utf-8"):
            pass

    def name(self, place: int, more: str = "") -> None:
        """Let ``resolv.conf`` name one of the two name servers."""
        # resolv.conf has no ports, and only root may bind 53.
        self.patch(resolv_conf, "_PORT", self.ports[place])
        with open(self.resolv_conf, "w", encoding="utf-8") as file:
            file.write(f"nameserver {LOOPBACK}\n{more}# {place}\n")

    def resolver(self, **others: Any) -> DNSResolver:
        system = SystemFiles(self.clock, resolv_conf_path=self.resolv_conf, hosts_path=self.hosts)
        return DNSResolver(self.clock, system=system, timeout=0.5, **others)


class ChangingNameServers(ChangingTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.first.records["example. MX"] = (3600, "10 first.example.")
        self.second.records["example. MX"] = (3600, "10 second.example.")

    async def test_answers_of_the_old_name_servers_are_dropped(self) -> None:
        resolver = self.resolver()
        self.assertEqual(await resolver.mail_exchangers("example"), [(10, "first.example")])
        self.name(1)
        self.assertEqual(await resolver.mail_exchangers("example"), [(10, "first.example")])
        self.clock.offset = 2.0
        self.assertEqual(await resolver.mail_exchangers("example"), [(10, "second.example")])

    async def test_a_failed_lookup_is_repeated_with_new_name_servers(self) -> None:
        self.first.silent = True
        resolver = self.resolver()
        lookup = resolver.mail_exchangers("example")
        self.name(1)
        self.assertEqual(await lookup, [(10, "second.example")])

    async def test_an_empty_file_at_the_start_is_read_again(self) -> None:
        with open(self.resolv_conf, "w", encoding="utf-8"):
            pass
        self.patch(resolv_conf, "_PORT", 9)
        resolver = self.resolver()
        with self.assertRaises(LookupFailed):
            await resolver.mail_exchangers("example")
        self.name(0)
        self.clock.offset = 2.0
        self.assertEqual(await resolver.mail_exchangers("example"), [(10, "first.example")])

    async def test_a_reload_reads_the_files_at_once_and_describes_changes(self) -> None:
        resolver = self.resolver()
        self.assertEqual(await resolver.mail_exchangers("example"), [(10, "first.example")])
        self.assertEqual(resolver.reload(), [])
        self.name(1, "search a.example b.example\n")
        self.clock.offset = 2.0
        first, second = (f"name servers {LOOPBACK}:{port}" for port in self.ports)
        changed = f"{second}, search a.example b.example; before: {first}"
        self.assertEqual(resolver.reload(), [changed])
        self.assertEqual(resolver.reload(), [])
        self.assertEqual(await resolver.mail_exchangers("example"), [(10, "second.example")])

    async def test_configured_name_servers_stay(self) -> None:
        resolver = self.resolver(nameservers=[Host(LOOPBACK, self.ports[0])])
        self.assertEqual(resolver.nameservers, [Host(LOOPBACK, self.ports[0])])
        self.name(1)
        self.clock.offset = 2.0
        self.assertEqual(await resolver.mail_exchangers("example"), [(10, "first.example")])
        self.assertEqual(resolver.nameservers, [Host(LOOPBACK, self.ports[0])])

    async def test_a_changed_hosts_file_is_used(self) -> None:
        resolver = self.resolver()
        with self.assertRaises(NoSuchDomain):
            await resolver.addresses("relay")
        with open(self.hosts, "w", encoding="utf-8") as file:
            file.write("192.0.2.7 relay\n")
        self.clock.offset = 2.0
        self.assertEqual(list(await resolver.addresses("relay")), ["192.0.2.7"])

    async def test_the_rotate_option_rotates_name_servers(self) -> None:
        other = NameServer()
        try:
            listen(self, other, self.ports[0], interface="127.0.0.2")
        except CannotListenError:
            raise SkipTest("127.0.0.2 is not an address of this system") from None
        self.name(0, "nameserver 127.0.0.2\noptions rotate\n")
        for server in (self.first, other):
            server.records["example. MX"] = (0, "10 mx.example.")
        resolver = self.resolver()
        for _ in range(6):
            await resolver.mail_exchangers("example")
        self.assertEqual((len(self.first.queries), len(other.queries)), (3, 3))

    async def test_the_no_aaaa_option_omits_aaaa_lookups(self) -> None:
        self.name(0, "options no-aaaa\n")
        self.first.records["example. A"] = (60, "192.0.2.1")
        self.assertEqual(await self.resolver().addresses("example"), ["192.0.2.1"])
        self.assertEqual(self.first.questions(), ["example. A"])


class Searching(ChangingTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.name(0, "search ns.cluster.test cluster.test\noptions ndots:5\n")
        self.first.records["mailhog.ns.cluster.test. A"] = (60, "192.0.2.1")
        self.first.records["hub.cluster.test. A"] = (60, "192.0.2.2")
        self.first.records["deep.host.example. A"] = (60, "192.0.2.3")

    async def locate(self, next_hop: NextHop) -> list[str]:
        exchangers = TargetLocator(
            self.resolver(), random=random.Random(1), is_local=lambda name: False
        )
        return [str(each) for each in await exchangers.locate(next_hop)]

    async def of_host(self, name: str) -> list[str]:
        return await self.locate(NextHop("smtp", hosts=(Host(name, 1025),)))

    async def test_the_host_of_a_route_is_looked_up_with_the_search_list(self) -> None:
        self.assertEqual(await self.of_host("mailhog"), ["mailhog[192.0.2.1]:1025"])
        self.assertEqual(await self.of_host("hub"), ["hub[192.0.2.2]:1025"])
        self.assertEqual(
            await self.of_host("deep.host.example"), ["deep.host.example[192.0.2.3]:1025"]
        )

    async def test_the_domain_of_a_recipient_is_looked_up_without_the_search_list(self) -> None:
        with self.assertRaises(NoTarget) as raised:
            await self.locate(NextHop("smtp", domain="mailhog"))
        self.assertIn("550 5.1.2", str(raised.exception.reply))
        self.assertEqual([each for each in self.first.questions() if "cluster" in each], [])

    async def test_a_failed_lookup_ends_the_search(self) -> None:
        # The next candidate may be another host.
        self.first.drops += ["hub.ns.cluster.test. A", "hub.ns.cluster.test. AAAA"]
        with self.assertRaises(NoTarget) as raised:
            await self.of_host("hub")
        self.assertIn("451 4.4.3", str(raised.exception.reply))
        self.assertNotIn("hub.cluster.test. A", self.first.questions())

    async def test_a_host_of_a_route_that_is_not_found_defers(self) -> None:
        with self.assertRaises(NoTarget) as raised:
            await self.of_host("gone")
        self.assertIn("451 4.3.5 The route leads to no host", str(raised.exception.reply))
