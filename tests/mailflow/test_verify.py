"""VRFY and EXPN for the networks that may use them, and HELP."""

from ipaddress import ip_network

from tests.tidy import TidyTestCase
from twisted_mta.config import Listener
from twisted_mta.testing.client import MemoryClient
from twisted_mta.testing.memory_mta import MemoryMTA

ADDRESS = ("127.0.0.1", 2525)
LOOPBACK = (ip_network("127.0.0.0/8"),)


class Verification(TidyTestCase):
    def client(self, **listener: object) -> MemoryClient:
        aliases = self.mktemp()
        with open(aliases, "w", encoding="utf-8") as file:
            file.write("team: bob, eve@elsewhere.example\none: bob\nfriends: jürgen\n")
            file.write("noreply: /dev/null\nmost: bob, /dev/null\n")
        mta = MemoryMTA(
            self.mktemp(),
            listeners=(Listener(endpoint="tcp:2525:interface=127.0.0.1", **listener),),  # type: ignore[arg-type]
            aliases=aliases,
            recipients="existing",
            local_domains=("here.example", "localhost"),
        )
        for name in ("bob", "jürgen"):
            mta.files.make_directories(f"{mta.mta.config.maildir}/here.example/{name}/new")
        mta.start()
        self.addCleanup(mta.stop)
        client = mta.connect(ADDRESS, greet=False)
        self.announced = [line[4:] for line in client.say("EHLO client.example")]
        return client

    def test_vrfy_and_expn_reveal_nothing_to_other_networks(self) -> None:
        elsewhere = (ip_network("192.0.2.0/24"),)
        for networks in ((), elsewhere):
            client = self.client(vrfy_from=networks, expn_from=networks)
            self.assertNotIn("VRFY", self.announced)
            self.assertNotIn("EXPN", self.announced)
            for name in ("bob", "nobody"):
                self.assertEqual(client.say(f"VRFY {name}")[0][:9], "252 2.0.0")
                self.assertEqual(client.say(f"EXPN {name}")[0][:9], "502 5.5.1")

    def test_vrfy_names_existing_mailboxes(self) -> None:
        client = self.client(vrfy_from=LOOPBACK)
        self.assertIn("VRFY", self.announced)
        self.assertNotIn("EXPN", self.announced)
        for command, reply in (
            ("bob", "250 2.1.5 <bob@here.example>"),
            ("<bob@HERE.example>", "250 2.1.5 <bob@here.example>"),
            ("bob+x@here.example", "250 2.1.5 <bob+x@here.example>"),
            ("team", "250 2.1.5 <team@here.example>"),
            ("postmaster", "250 2.1.5 <postmaster@here.example>"),
            ("nobody", "550 5.1.1 No such mailbox here"),
            ("bob@localhost", "550 5.1.1 No such mailbox here"),
        ):
            self.assertEqual(client.say(f"VRFY {command}"), [reply], command)
        self.assertEqual(client.say("VRFY bob@elsewhere.example")[0][:9], "252 2.0.0")

    def test_discarded_mail_is_no_member(self) -> None:
        client = self.client(vrfy_from=LOOPBACK, expn_from=LOOPBACK)
        noreply = ["250 2.1.5 <noreply@here.example>"]
        self.assertEqual(client.say("VRFY noreply"), noreply)
        self.assertEqual(client.say("EXPN noreply"), noreply)
        self.assertEqual(client.say("EXPN most"), ["250 2.1.5 <bob@here.example>"])

    def test_expn_lists_the_members_of_an_alias(self) -> None:
        client = self.client(expn_from=LOOPBACK)
        self.assertIn("EXPN", self.announced)
        self.assertEqual(
            client.say("EXPN team"),
            ["250-2.1.5 <bob@here.example>", "250 2.1.5 <eve@elsewhere.example>"],
        )
        self.assertEqual(client.say("EXPN one"), ["250 2.1.5 <bob@here.example>"])
        self.assertEqual(client.say("EXPN bob"), ["250 2.1.5 <bob@here.example>"])
        self.assertEqual(client.say("EXPN nobody")[0][:9], "550 5.1.1")
        self.assertEqual(client.say("VRFY nobody")[0][:9], "252 2.0.0")

    def test_a_malformed_vrfy_is_refused(self) -> None:
        client = self.client(vrfy_from=LOOPBACK)
        for command, reply in (
            ("VRFY", "501 5.5.4"),
            ("VRFY <>", "501 5.5.4"),
            ("VRFY a b", "501 5.1.3"),
            ("VRFY bob@", "501 5.1.3"),
            ("VRFY bøb", "553 5.6.7"),
        ):
            self.assertEqual(client.say(command)[0][:9], reply, command)

    def test_an_international_answer_needs_the_smtputf8_parameter(self) -> None:
        client = self.client(vrfy_from=LOOPBACK, expn_from=LOOPBACK)
        for command, reply in (
            ("VRFY jürgen", "553 5.6.7 Addresses outside ASCII need SMTPUTF8"),
            ("VRFY jürgen SMTPUTF8", "250 2.1.5 <jürgen@here.example>"),
            ("EXPN friends", "252 2.6.8 The reply has characters outside ASCII"),
            ("EXPN friends SMTPUTF8", "250 2.1.5 <jürgen@here.example>"),
            ("VRFY bob smtputf8", "250 2.1.5 <bob@here.example>"),
        ):
            (line,) = client.say(command)
            self.assertTrue(line.startswith(reply), (command, line))

    def test_vrfy_is_allowed_inside_a_transaction(self) -> None:
        client = self.client(vrfy_from=LOOPBACK)
        client.say("MAIL FROM:<ann@sender.example>")
        self.assertEqual(client.say("VRFY bob"), ["250 2.1.5 <bob@here.example>"])
        self.assertEqual(client.say("RCPT TO:<bob@here.example>")[0][:3], "250")

    def test_help_lists_the_commands_of_the_listener(self) -> None:
        (line,) = self.client(expn_from=LOOPBACK).say("HELP")
        self.assertTrue(line.startswith("214 2.0.0 Commands: EHLO HELO STARTTLS MAIL"), line)
        self.assertIn(" VRFY ", line)
        self.assertIn(" EXPN ", line)
        self.assertNotIn("LHLO", line)
        (line,) = self.client(kind="lmtp").say("HELP")
        self.assertIn(" LHLO ", line)
        self.assertNotIn("EHLO", line)
        self.assertNotIn("EXPN", line)
