"""Debian's Postfix as client of our MTA, and as its next hop."""

import re
import urllib.request

from .machine import LOOPBACK, eventually, need, run
from .mail import MIB, ProgramTestCase, as_stored, message, message_with_attachment, submit
from .mta import MTA
from .postfix import Postfix
from .sinks import Sink


class PostfixAsClient(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        need("postfix")
        self.mta = self.enterContext(MTA(self.home))
        self.postfix = self.enterContext(
            Postfix(
                self.home,
                {
                    "relayhost": f"[{LOOPBACK}]:{self.mta.smtp}",
                    "smtp_tls_security_level": "encrypt",
                },
            )
        )

    def assertArrives(self, content: bytes) -> None:
        (mail,) = self.mta.wait_for_mail("localhost", "bob")
        self.assertTrue(mail.endswith(as_stored(content)), mail[:2000])
        header = b" ".join(mail.split(b"\n\n", 1)[0].split())
        self.assertIn(b"Received: from postfix.example ([127.0.0.1]", header)
        self.assertIn(b" with ESMTPS ", header)
        eventually(lambda: self.postfix.queued() == 0, "Postfix has an empty queue")

    def test_mail_that_postfix_relays_arrives_over_starttls(self) -> None:
        submit(self.postfix.port, message(), "bob@localhost", starttls=False)
        self.assertArrives(message())

    def test_a_large_message_that_postfix_relays_arrives_byte_for_byte(self) -> None:
        content = message_with_attachment(3 * MIB)
        submit(self.postfix.port, content, "bob@localhost", starttls=False)
        self.assertArrives(content)

    def test_many_messages_on_one_connection_all_arrive(self) -> None:
        need("smtp-source")
        sent = run(
            "smtp-source",
            *("-s", "5", "-m", "100", "-d", "-l", "2000"),
            *("-f", "ann@sender.example", "-t", "carol@localhost"),
            f"{LOOPBACK}:{self.postfix.port}",
        )
        self.assertEqual(sent.returncode, 0, sent.stdout)
        self.mta.wait_for_mail("localhost", "carol", 100)


class PostfixResumesSessions(ProgramTestCase):
    """Postfix keeps the tickets of our listener, so most of its handshakes are short ones."""

    def test_one_of_six_handshakes_is_a_whole_one(self) -> None:
        need("postfix")
        mta = self.enterContext(MTA(self.home))
        postfix = self.enterContext(
            Postfix(
                self.home,
                {
                    "relayhost": f"[{LOOPBACK}]:{mta.smtp}",
                    "smtp_tls_security_level": "encrypt",
                    "smtp_tls_session_cache_database": "btree:$data_directory/sessions",
                    "smtp_connection_cache_on_demand": "no",
                },
            )
        )
        for number in range(1, 7):
            submit(postfix.port, message(), "bob@localhost", starttls=False)
            mta.wait_for_mail("localhost", "bob", number)
        accepted = re.findall(r'accepted: .* tls="([^"]*)"', mta.output())
        resumed = [each for each in accepted if each.endswith(", resumed")]
        self.assertEqual((len(accepted), len(resumed)), (6, 5))


class PostfixAsNextHop(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        need("postfix", "openssl")
        self.sink = self.enterContext(Sink(self.home))
        pair = self.home / "pair.pem"
        made = run(
            "openssl",
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-days", "2", "-subj", "/CN=postfix.example"),
            *("-keyout", pair, "-out", self.home / "certificate.pem"),
        )
        self.assertEqual(made.returncode, 0, made.stdout)
        with pair.open("a", encoding="ascii") as file:
            file.write((self.home / "certificate.pem").read_text("ascii"))
        self.postfix = self.enterContext(
            Postfix(
                self.home,
                {
                    "relayhost": f"[{LOOPBACK}]:{self.sink.port}",
                    "smtpd_tls_security_level": "encrypt",
                    "smtpd_tls_chain_files": str(pair),
                    "smtpd_tls_received_header": "yes",
                },
            )
        )
        route = f"*=smtp://{LOOPBACK}:{self.postfix.port}"
        self.mta = self.enterContext(MTA(self.home, "--route", route))

    def assertArrives(self, content: bytes) -> None:
        (mail,) = self.sink.wait_for_messages()
        self.assertTrue(mail.endswith(content), mail[:2000])
        header = b" ".join(mail.split(b"\r\n\r\n", 1)[0].split())
        self.assertIn(b"Received: from mta.example (", header)
        self.assertRegex(
            header, rb"\(using TLSv1\.3 .* by postfix\.example \(Postfix\) with ESMTPS "
        )

    def test_mail_for_other_domains_is_relayed_to_postfix_over_starttls(self) -> None:
        submit(self.mta.smtp, message(), "bob@elsewhere.example")
        self.assertArrives(message())

    def test_a_large_relayed_message_arrives_byte_for_byte(self) -> None:
        content = message_with_attachment(3 * MIB)
        submit(self.mta.smtp, content, "bob@elsewhere.example")
        self.assertArrives(content)

    def test_the_tool_probes_it_and_forgets_it(self) -> None:
        probed = self.mta.tool("tls", "elsewhere.example", "--probe")
        self.assertEqual(probed.returncode, 0, probed.stdout)
        for words in (
            f"{LOOPBACK}[{LOOPBACK}]:{self.postfix.port}\n",
            "  Level:     may, by default\n",
            "  Probe:     mail would go under TLS, not verified: level may does not demand it\n",
            "    S: 220 postfix.example ESMTP Postfix\n",
            "    C: STARTTLS\n    S: 220 2.0.0 Ready to start TLS\n    * TLSv1.3 ",
            "    C: QUIT\n    S: 221 2.0.0 Bye\n",
        ):
            self.assertIn(words, probed.stdout)
        hosts = self.mta.tool("tls").stdout.splitlines()
        self.assertEqual(len(hosts), 2)
        self.assertRegex(hosts[1], rf"^{LOOPBACK}\t{self.postfix.port}\t.*TLSv1.3 .*, not verified")
        forgotten = self.mta.tool("tls", "forget", LOOPBACK)
        self.assertEqual(forgotten.stdout, f"Forgotten: {LOOPBACK}, port {self.postfix.port}.\n")
        self.assertEqual(len(self.mta.tool("tls").stdout.splitlines()), 1)
        self.assertEqual(self.mta.tool("tls", "forget", LOOPBACK).returncode, 1)

    def test_one_of_six_handshakes_is_a_whole_one(self) -> None:
        """Postfix gives tickets, and our next connection has one."""
        self.mta.stop()
        toml = '[[destination]]\ndomain = "*"\nmessages_per_connection = 1\n'
        route = f"*=smtp://{LOOPBACK}:{self.postfix.port}"
        mta = self.enterContext(MTA(self.home, "--route", route, toml=toml))
        for number in range(1, 7):
            submit(mta.smtp, message(), "bob@elsewhere.example")
            self.sink.wait_for_messages(number)
        connections = self.postfix.output().count("disconnect from")
        with urllib.request.urlopen(f"http://{LOOPBACK}:{mta.web}/metrics", timeout=30) as answer:
            metrics = answer.read().decode()
        resumed = re.findall(r"(?m)^twisted_mta_tls_sessions_resumed_total (.*)$", metrics)
        self.assertEqual(resumed, ["5.0"])
        self.assertGreaterEqual(connections, 6)

    def test_a_burst_of_messages_arrives_whole(self) -> None:
        need("smtp-source")
        sent = run(
            "smtp-source",
            *("-s", "10", "-m", "200", "-d", "-l", "2000"),
            *("-f", "ann@sender.example", "-t", "carol@elsewhere.example"),
            f"{LOOPBACK}:{self.mta.smtp}",
        )
        self.assertEqual(sent.returncode, 0, sent.stdout)
        self.sink.wait_for_messages(200)
