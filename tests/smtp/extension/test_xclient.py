"""XCLIENT in a server session: its attributes, the new beginning, and its permission."""

from attrs import evolve

from twisted_mta.mail.tls_facts import TLSFacts
from twisted_mta.smtp.extension.xclient import xclient
from twisted_mta.smtp.peer import Peer
from twisted_mta.smtp.server.machine import State
from twisted_mta.smtp.server.session import Session
from twisted_mta.smtp.server.step import Downgrade, Represent, Violation

from .session_case import FACTS, PROXY, SessionTestCase


class XClientTestCase(SessionTestCase):
    def setUp(self) -> None:
        self.begin(xclient(lambda peer: peer == PROXY))

    def represent(self, attributes: str) -> Session:
        self.assertEqual(self.say(f"XCLIENT {attributes}\r\n".encode()), "220 mx.example ESMTP\r\n")
        return self.session


class Attributes(XClientTestCase):
    """What the session knows of the client after XCLIENT."""

    def test_every_attribute_is_known_afterwards(self) -> None:
        session = self.represent(
            "NAME=client.example ADDR=203.0.113.9 PORT=4711 PROTO=ESMTP HELO=me.example"
            " DESTADDR=198.51.100.25"
        )
        self.assertEqual(session.peer, Peer("203.0.113.9", 4711, "client.example"))
        self.assertEqual(session.local_address, "198.51.100.25")
        self.assertEqual((session.greeting, session.helo), ("EHLO", "me.example"))
        self.assertEqual(session.proxy, PROXY)
        self.assertEqual(list(map(type, self.steps)), [Represent])

    def test_the_login_is_that_of_an_authenticated_session(self) -> None:
        """What nginx sends: the address, the user and the name, in this order."""
        for written, known in (
            ("ann", "ann"),
            ("a", "a"),
            ("ann@local.test", "ann@local.test"),
            ("ann+2Bshop", "ann+shop"),
            ("ann+shop", "ann+shop"),  # nginx does not encode it
            ("j+C3+B6rg", "j\u00f6rg"),
            ("[UNAVAILABLE]", None),
        ):
            session = self.represent(f"ADDR=203.0.113.9 LOGIN={written} NAME=[UNAVAILABLE]")
            self.assertEqual(session.identity, known)
            self.assertEqual(session.peer, Peer("203.0.113.9"))

    def test_the_name_in_helo_may_have_spaces(self) -> None:
        self.assertEqual(self.represent("HELO=Office+202+20West").helo, "Office 2 West")

    def test_without_login_nobody_is_authenticated(self) -> None:
        session = self.represent("ADDR=203.0.113.9 LOGIN=ann")
        self.represent("PORT=4711")
        self.assertIsNone(session.identity)
        self.represent("LOGIN=ann")
        self.represent("ADDR=203.0.113.9")
        self.assertIsNone(session.identity)

    def test_the_account_of_a_login_is_found_by_the_keeper_of_the_accounts(self) -> None:
        self.begin(xclient(lambda peer: True, lambda login: login.partition("@")[0]))
        self.assertEqual(self.represent("LOGIN=ann@local.test").identity, "ann")

    def test_a_malformed_login_or_port_is_refused_and_changes_nothing(self) -> None:
        self.represent("ADDR=203.0.113.9 LOGIN=ann PORT=65535 DESTPORT=65535")
        for attributes in (
            "LOGIN",
            "LOGIN=",
            "LOGIN=+07",
            "LOGIN=a+00b",
            "LOGIN=a+0D+0Ab",
            "LOGIN=+FF",
            f"LOGIN={'a' * 256}",
            "LOGIN=ann LOGIN=eve",
            "PORT=65536",
            "DESTPORT=65536",
            "DESTPORT=-1",
            "DESTPORT=smtp",
        ):
            reply = self.say(f"XCLIENT {attributes}\r\n".encode())
            self.assertEqual(reply[:9], "501 5.5.4", attributes)
        self.assertEqual(self.session.identity, "ann")
        self.assertEqual(self.session.peer, Peer("203.0.113.9", 65535))
        self.represent(f"LOGIN={'a' * 255} DESTPORT=[UNAVAILABLE]")

    def test_addresses_are_kept_in_one_form(self) -> None:
        for written, known in (
            ("203.0.113.9", "203.0.113.9"),
            ("IPV6:2001:DB8:0::9", "2001:db8::9"),
            ("ipv6:2001:db8::9", "2001:db8::9"),
            ("IPV6:::ffff:203.0.113.9", "203.0.113.9"),  # RFC 4291 §2.5.5.2
            ("IPV6:::1", "::1"),
            ("[UNAVAILABLE]", None),
            ("[unavailable]", None),
            ("+32+30+33.0.113.9", "203.0.113.9"),
        ):
            session = self.represent(f"ADDR={written} DESTADDR={written}")
            self.assertEqual((session.peer.address, session.local_address), (known, known))

    def test_unavailable_attributes_are_unknown_afterwards(self) -> None:
        session = self.represent("NAME=a.example ADDR=203.0.113.9 PORT=4711")
        for written in ("NAME=[UNAVAILABLE]", "NAME=[TempUnavail]", "NAME=+5BUNAVAILABLE+5D"):
            self.represent("NAME=a.example")
            self.represent(written)
            self.assertEqual(session.peer, Peer("203.0.113.9", 4711))
        self.represent("PORT=[UNAVAILABLE] HELO=[UNAVAILABLE] PROTO=ESMTP")
        self.assertEqual(session.peer, Peer("203.0.113.9", 0))
        self.assertEqual((session.state, session.greeting), (State.START, None))

    def test_with_another_address_earlier_attributes_are_forgotten(self) -> None:
        session = self.represent("NAME=a.example ADDR=203.0.113.9 PORT=1 DESTADDR=198.51.100.1")
        self.represent("ADDR=203.0.113.10")
        self.assertEqual(session.peer, Peer("203.0.113.10"))
        self.assertIsNone(session.local_address)

    def test_attributes_of_several_commands_add_up(self) -> None:
        self.represent("ADDR=203.0.113.9 DESTADDR=198.51.100.1")
        self.represent("PORT=25")
        session = self.represent("NAME=Client.Example.")
        self.assertEqual(session.peer, Peer("203.0.113.9", 25, "client.example"))
        self.assertEqual(session.local_address, "198.51.100.1")
        self.assertEqual(session.proxy, PROXY)

    def test_without_an_address_the_client_has_that_of_the_proxy(self) -> None:
        session = self.represent("NAME=a.example")
        self.assertEqual(session.peer, evolve(PROXY, name="a.example"))
        self.assertEqual(session.local_address, "192.0.2.25")

    def test_the_greeting_to_the_proxy_counts_until_the_client_greets_us(self) -> None:
        session = self.represent("HELO=old.example")
        self.assertEqual((session.greeting, session.helo), ("HELO", "old.example"))
        self.assertEqual(self.code("MAIL FROM:<>"), "250 2.1.0")
        self.assertEqual(self.code("RSET"), "250 2.0.0")
        self.represent("HELO=new.example PROTO=ESMTP")
        self.assertEqual((session.greeting, session.helo), ("EHLO", "new.example"))
        self.code("HELO itself.example")
        self.assertEqual((session.greeting, session.helo), ("HELO", "itself.example"))
        self.represent("PROTO=ESMTP")
        self.assertEqual((session.greeting, session.helo), (None, ""))
        self.assertEqual(self.code("MAIL FROM:<>"), "503 5.5.1")

    def test_a_malformed_command_changes_nothing(self) -> None:
        session = self.represent("ADDR=203.0.113.9")
        self.code("EHLO client.example")
        self.assertEqual(self.code("XCLIENT ADDR=203.0.113.10 PORT=x"), "501 5.5.4")
        self.assertEqual(self.code("XCLIENT NAME=x ADDR=203.0.113.10 REVERSE_NAME=x"), "501 5.5.4")
        self.assertEqual(session.peer, Peer("203.0.113.9"))
        self.assertEqual((session.state, session.helo), (State.GREETED, "client.example"))

    def test_the_result_does_not_depend_on_where_the_line_is_split(self) -> None:
        octets = b"XCLIENT  NAME=client.example ADDR=203.0.113.9\r\n"
        for cut in range(1, len(octets)):
            self.begin(xclient(lambda peer: peer == PROXY))
            self.assertEqual(self.say(octets[:cut]), "", cut)
            self.assertEqual(self.say(octets[cut:]), "220 mx.example ESMTP\r\n", cut)
            self.assertEqual(self.session.peer, Peer("203.0.113.9", 0, "client.example"))

    def test_octets_after_the_line_end_the_session_before_it_is_obeyed(self) -> None:
        """RFC 2920 §3.1."""
        for behind in (b"\r", b"\0", b"E", b"EHLO x\r\n", b"QUIT\r\n"):
            session = self.begin(xclient(lambda peer: peer == PROXY))
            reply = self.say(b"XCLIENT ADDR=203.0.113.9\r\n" + behind)
            self.assertTrue(reply.startswith("554 5.5.0 "), reply)
            self.assertEqual(session.peer, PROXY)
            self.assertEqual(self.steps[0], Violation("XCLIENT"))
            self.assertIs(session.state, State.CLOSED)


class Beginning(XClientTestCase):
    """The session begins anew."""

    def test_nothing_of_the_session_before_is_left(self) -> None:
        session = self.session
        session.identity = "proxy"
        self.code("EHLO proxy.example")
        self.code("NONSENSE")
        self.assertEqual(session.errors, 1)
        self.represent("ADDR=203.0.113.9")
        self.assertEqual((session.greeting, session.helo, session.state), (None, "", State.START))
        self.assertEqual((session.identity, session.errors), (None, 0))

    def test_tls_stays_without_the_certificate_of_the_proxy(self) -> None:
        session = self.session
        session.tls_established(FACTS)
        self.represent("ADDR=203.0.113.9")
        self.assertEqual(
            session.tls, TLSFacts(FACTS.version, FACTS.cipher, 256, server_name="mx.example")
        )

    def test_permission_goes_by_the_connection_and_not_by_the_client(self) -> None:
        peers: list[Peer] = []

        def allowed(peer: Peer) -> bool:
            peers.append(peer)
            return peer == PROXY

        self.begin(xclient(allowed))
        self.represent("ADDR=203.0.113.9")
        self.represent("ADDR=203.0.113.10")
        self.assertEqual(peers, [PROXY, PROXY])
        self.begin(xclient(allowed), peer=Peer("203.0.113.9"))
        self.assertEqual(self.code("XCLIENT ADDR=192.0.2.1"), "550 5.7.0")

    def test_the_alarm_about_missing_tls_goes_by_the_connection(self) -> None:
        """RFC 3207 §6: an attacker may have removed STARTTLS between the proxy and us."""
        for address, code in (("192.0.2.1", "530 5.7.0"), ("203.0.113.9", "250 2.1.0")):
            self.begin(
                xclient(lambda peer: peer == PROXY),
                requires_tls_of=lambda peer, address=address: peer.address == address,
            )
            self.represent("ADDR=203.0.113.9")
            self.code("EHLO client.example")
            self.assertEqual(self.code("MAIL FROM:<>"), code)
            self.assertEqual(Downgrade in map(type, self.steps), code[0] == "5")
