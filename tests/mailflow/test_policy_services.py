"""Policy services are asked about mail as it comes in, and what they say is done."""

from __future__ import annotations

from functools import partial
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from tests.logs import logged_lines
from tests.policy.delegation.scripted import Attributes, ScriptedService
from tests.tidy import TidyTestCase
from twisted_mta.admin.explanation_text import lines
from twisted_mta.agent.explain.explainer import AddressQuery
from twisted_mta.config import Listener, PolicyServiceSettings
from twisted_mta.telemetry.metrics import table
from twisted_mta.testing.client import MemoryClient
from twisted_mta.testing.memory_mta import MemoryMTA

from .strangers import OFF, STRANGER, TAKEN

HOST = "192.0.2.99"
MESSAGE = (
    b"From: Ann <ann@sender.example>\r\nSubject: Hi\r\n"
    b"Date: Mon, 30 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@sender.example>\r\n"
    b"\r\nHello.\r\n"
)
DEFERRED = ["451 4.7.1"]
NAMED = f"""
    7.2.0.192.in-addr.arpa. PTR client.host.example.
    client.host.example.    A   {STRANGER}
"""


class Services(TidyTestCase):
    def mta(self, *services: ScriptedService, more: Any = None, **settings: Any) -> MemoryMTA:
        """Start an MTA with services; ``more`` has further settings of each."""
        tables = [
            PolicyServiceSettings(endpoint=f"tcp:{HOST}:{10023 + number}", **each)
            for number, each in enumerate(more or [{}] * len(services))
        ]
        mta = MemoryMTA(
            **{
                "policy": OFF,
                "policy_services": tables,
                "local_domains": ("us.example",),
                **settings,
            },
        )
        for number, service in enumerate(services):
            mta.reactor.listenTCP(10023 + number, service, interface=HOST)
        self.addCleanup(self.stop, mta)
        mta.start()
        return mta

    def stop(self, mta: MemoryMTA) -> None:
        mta.stop()
        for port in list(mta.reactor.ports.values()):
            port.stopListening()

    def replies(
        self,
        mta: MemoryMTA,
        *recipients: str,
        sender: str = "ann@sender.example",
        client: MemoryClient | None = None,
    ) -> list[str]:
        """Return the replies to RCPT, and to the content, if any is accepted; or to MAIL."""
        client = client or mta.connect(source=STRANGER)
        began = client.say(f"MAIL FROM:<{sender}>")[-1]
        if not began.startswith("250"):
            return [began]
        replies = [client.say(f"RCPT TO:<{to}>")[-1] for to in recipients or ("bob@us.example",)]
        if any(each.startswith("250") for each in replies):
            begun = client.say("DATA")[-1]
            sent = begun.startswith("354")
            replies += client.send(MESSAGE + b".\r\n")[-1:] if sent else [begun]
        return replies

    def codes(self, mta: MemoryMTA, *recipients: str, **how: Any) -> list[str]:
        return [each[:9] for each in self.replies(mta, *recipients, **how)]

    def after(self, *answers: str, at: str = "rcpt") -> list[str]:
        """Return the replies where each of several services answers the same always."""
        services = [ScriptedService(each) for each in answers]
        return self.replies(self.mta(*services, more=[{"at": at}] * len(services)))


class Asked(Services):
    def test_a_service_is_asked_about_each_recipient_of_a_stranger(self) -> None:
        service = ScriptedService()
        mta = self.mta(service, zone=NAMED, more=[{"policy_context": "mx"}])
        client = mta.connect(source=STRANGER)
        client.say("MAIL FROM:<ann@sender.example> SIZE=1234")
        client.say("RCPT TO:<bob@us.example>", "RCPT TO:<carol@us.example>", "RSET")
        self.assertEqual([each["recipient"][:3] for each in service.asked], ["bob", "car"])
        first, _ = service.asked
        self.assertRegex(first.pop("instance"), "^[0-9A-Za-z]+$")
        self.assertNotEqual(first.pop("client_port"), "0")
        self.assertEqual(
            first,
            {
                "request": "smtpd_access_policy",
                "protocol_state": "RCPT",
                "protocol_name": "ESMTP",
                "client_address": STRANGER,
                "client_name": "client.host.example",
                "reverse_client_name": "client.host.example",
                "server_address": "127.0.0.1",
                "server_port": "25",
                "helo_name": "client.example",
                "sender": "ann@sender.example",
                "recipient": "bob@us.example",
                "recipient_count": "0",
                "queue_id": "",
                "size": "1234",
                "etrn_domain": "",
                "stress": "",
                "sasl_method": "",
                "sasl_username": "",
                "sasl_sender": "",
                "ccert_subject": "",
                "ccert_issuer": "",
                "ccert_fingerprint": "",
                "ccert_pubkey_fingerprint": "",
                "encryption_protocol": "",
                "encryption_cipher": "",
                "encryption_keysize": "0",
                "policy_context": "mx",
            },
        )

    def test_the_name_of_a_client_is_waited_for_ten_seconds(self) -> None:
        for seconds, name in ((5, "client.host.example"), (11, "unknown")):
            service = ScriptedService()
            mta = self.mta(service, zone=NAMED)
            mta.resolver.hold(STRANGER)
            client = mta.connect(source=STRANGER)
            client.say("MAIL FROM:<ann@sender.example>")
            self.assertEqual(client.send(b"RCPT TO:<bob@us.example>\r\n"), [])
            mta.advance(seconds)
            mta.resolver.release(STRANGER)
            mta.reactor.settle()
            self.assertEqual(client.heard()[0][:3], "250")
            self.assertEqual([each["client_name"] for each in service.asked], [name])

    def test_requests_about_one_message_have_one_instance(self) -> None:
        services = [ScriptedService(), ScriptedService()]
        mta = self.mta(*services, more=[{}, {"at": "end"}])
        for _ in range(2):
            self.replies(mta, "bob@us.example", "carol@us.example")
        found = [[each["instance"] for each in service.asked] for service in services]
        (a, b, c, d), (e, f) = found
        self.assertEqual((a, c), (b, d))
        self.assertEqual((a, c), (e, f))
        self.assertNotEqual(a, c)

    def test_a_service_is_asked_at_the_stage_of_its_table(self) -> None:
        for at, state, count, size in (
            ("mail", "MAIL", "0", "0"),
            ("rcpt", "RCPT", "0", "0"),
            ("data", "DATA", "2", "0"),
            ("end", "END-OF-MESSAGE", "2", str(len(MESSAGE))),
        ):
            service = ScriptedService()
            mta = self.mta(service, more=[{"at": at}])
            self.assertEqual(self.codes(mta, "bob@us.example", "carol@us.example")[-1], TAKEN[-1])
            asked = service.asked[-1]
            self.assertEqual(len(service.asked), 2 if at == "rcpt" else 1)
            found = [asked[name] for name in ("protocol_state", "recipient_count", "size")]
            self.assertEqual(found, [state, count, size])
            self.assertEqual(bool(asked["recipient"]), at == "rcpt")
            self.assertEqual(bool(asked["queue_id"]), at == "end")

    def test_with_one_recipient_it_is_named_to_the_end(self) -> None:
        for at in ("data", "end"):
            service = ScriptedService()
            self.codes(self.mta(service, more=[{"at": at}]))
            self.assertEqual(service.asked[0]["recipient"], "bob@us.example")

    def test_refusals_are_told_at_the_stage(self) -> None:
        for at, stage in (("mail", 1), ("rcpt", 1), ("data", 2), ("end", 2)):
            replies = self.after("550 5.7.9 Not you", at=at)
            self.assertEqual((replies[-1], len(replies)), ("550 5.7.9 Not you", stage), at)

    def test_clients_of_our_own_are_not_asked_about_unless_the_table_says_so(self) -> None:
        some, every = ScriptedService("REJECT"), ScriptedService()
        mta = self.mta(some, every, more=[{}, {"clients": "all"}], relay_from=(f"{STRANGER}/32",))
        self.assertEqual(self.codes(mta), TAKEN)
        self.assertEqual((len(some.asked), len(every.asked)), (0, 1))

    def test_other_listeners_than_smtp_have_services_for_all_clients_alone(self) -> None:
        some, every = ScriptedService("REJECT"), ScriptedService()
        mta = self.mta(
            *(some, every),
            more=[{}, {"clients": "all"}],
            listeners=(Listener(kind="lmtp", endpoint="tcp:24:interface=127.0.0.1"),),
        )
        client = mta.connect(("127.0.0.1", 24), source=STRANGER, greet=False)
        client.say("LHLO client.example")
        self.assertEqual(self.codes(mta, client=client), TAKEN)
        self.assertEqual((len(some.asked), len(every.asked)), (0, 1))
        self.assertEqual(every.asked[0]["protocol_name"], "LMTP")

    def test_a_peer_writes_no_line_of_a_request(self) -> None:
        service = ScriptedService()
        mta = self.mta(service)
        client = mta.connect(source=STRANGER, greet=False)
        client.say("EHLO a\tb=c")
        client.say(r'MAIL FROM:<"x\	y=z"@sender.example>', "RCPT TO:<bob@us.example>")
        for each in service.asked:
            self.assertEqual(len(each), 29)
            self.assertTrue(all(value.isprintable() for value in each.values()), each)

    def test_one_connection_serves_one_request_after_the_other(self) -> None:
        service = ScriptedService()
        mta = self.mta(service)
        for _ in range(3):
            self.codes(mta, "bob@us.example", "carol@us.example")
        self.assertEqual((service.connections, service.open), (1, 1))
        mta.advance(61)
        self.assertEqual(service.open, 0)

    def test_requests_at_the_same_time_have_a_connection_each(self) -> None:
        service = ScriptedService(b"")
        mta = self.mta(service)
        clients = [mta.connect(source=STRANGER) for _ in range(3)]
        for client in clients:
            client.say("MAIL FROM:<ann@sender.example>")
            client.send(b"RCPT TO:<bob@us.example>\r\n")
        self.assertEqual((service.connections, len(service.asked)), (3, 3))
        for protocol in service.protocols:
            protocol.say(b"action=OK\n\n")
        mta.reactor.settle()
        for client in clients:
            self.assertEqual(client.heard()[0][:3], "250")

    def test_a_service_has_a_hundred_connections_at_most(self) -> None:
        service = ScriptedService(b"")
        mta = self.mta(service)
        clients = [mta.connect(source=f"192.0.2.{number}") for number in range(1, 103)]
        for client in clients:
            client.say("MAIL FROM:<ann@sender.example>")
            client.send(b"RCPT TO:<bob@us.example>\r\n")
        self.assertEqual((service.connections, len(service.asked)), (100, 100))
        service.protocols[0].say(b"action=OK\n\n")
        mta.reactor.settle()
        self.assertEqual((service.connections, len(service.asked)), (100, 101))
        mta.advance(30)
        self.assertEqual(service.open, 0)
        replies = [client.heard()[0][:3] for client in clients]
        self.assertEqual((replies.count("250"), replies.count("451")), (1, 101))


class Actions(Services):
    def mail(self, *answers: str, at: str = "rcpt") -> bytes:
        """Return what bob's mailbox has of a message."""
        services = [ScriptedService(each) for each in answers]
        mta = self.mta(*services, more=[{"at": at}] * len(services))
        self.assertEqual(self.codes(mta)[-1], TAKEN[-1])
        (mail,) = mta.mail("bob")
        return mail

    def test_the_first_refusal_counts(self) -> None:
        self.assertEqual(self.after("DUNNO", "REJECT No", "450 Later"), ["554 5.7.1 No"])
        self.assertEqual(self.after("450 Later", "REJECT No"), ["450 4.7.1 Later"])

    def test_what_one_permits_no_other_is_asked_about(self) -> None:
        answers = {"bob": "OK", "carol": "DUNNO"}

        def answer(asked: Attributes) -> str:
            return answers[asked["recipient"].partition("@")[0]]

        second = ScriptedService("REJECT")
        mta = self.mta(ScriptedService(answer), second)
        replies = self.codes(mta, "bob@us.example", "carol@us.example", "bob@us.example")
        self.assertEqual(replies[:3], ["250 2.1.5", "554 5.7.1", "250 2.1.5"])
        self.assertEqual([each["recipient"] for each in second.asked], ["carol@us.example"])

    def test_a_deferral_waits_for_refusals_by_others(self) -> None:
        self.assertEqual(self.after("DEFER_IF_PERMIT 4.2.0 Later"), ["450 4.2.0 Later"])
        self.assertEqual(self.after("DEFER_IF_PERMIT Later", "DUNNO"), ["450 4.7.1 Later"])
        self.assertEqual(self.after("DEFER_IF_PERMIT Later", "OK", "REJECT"), ["450 4.7.1 Later"])
        self.assertEqual(self.after("DEFER_IF_PERMIT Later", "REJECT No"), ["554 5.7.1 No"])
        for at in ("mail", "data", "end"):
            self.assertEqual(self.after("DEFER_IF_PERMIT 4.2.0 a", at=at)[-1], "450 4.2.0 a")

    def test_a_refusal_may_be_made_a_deferral(self) -> None:
        self.assertEqual([each[:9] for each in self.after("DEFER_IF_REJECT x")], TAKEN)
        self.assertEqual(self.after("DEFER_IF_REJECT x", "REJECT No"), ["450 4.7.1 x"])
        self.assertEqual(self.after("DEFER_IF_REJECT x", "500 No"), ["450 4.7.1 x"])
        self.assertEqual(self.after("DEFER_IF_REJECT x", "421 No"), ["421 4.7.1 No"])

    def test_a_field_is_prepended(self) -> None:
        for at in ("mail", "rcpt", "data", "end"):
            mail = self.mail("PREPEND X-One: 1", "PREPEND X-Two: a=b; c", at=at)
            header = mail[: mail.index(b"\nReceived:")]
            self.assertIn(b"\nX-One: 1\nX-Two: a=b; c", header)

    def test_hold_holds_the_message_until_it_is_released(self) -> None:
        for at in ("rcpt", "end"):
            mta = self.mta(ScriptedService("HOLD looks odd"), more=[{"at": at}])
            self.assertEqual(self.codes(mta), TAKEN)
            self.assertEqual((mta.mail("bob"), mta.status().queue["held"]), ([], 1))
            (entry,) = mta._result(mta.mta.queue.list())
            shown = mta._result(mta.mta.queue.show(entry["id"]))
            self.assertEqual(shown["assessment"]["hold"], "looks odd")
            verdict = {"policy": "policy_service", "result": "hold"}
            verdict["text"] = f"tcp:{HOST}:10023: looks odd"
            self.assertIn(verdict, shown["assessment"]["verdicts"])

    def test_discard_accepts_the_message_for_no_one(self) -> None:
        for at in ("mail", "rcpt", "data", "end"):
            second = ScriptedService("REJECT")
            log = logged_lines(self, "discards a message")
            mta = self.mta(ScriptedService("DISCARD spam"), second, more=[{"at": at}, {"at": at}])
            self.assertEqual(self.codes(mta)[-1], TAKEN[-1])
            self.assertEqual((mta.mail("bob"), second.asked), ([], []))
            self.assertIn(f"tcp:{HOST}:10023 discards a message: spam", log[0])

    def test_redirect_and_bcc_lead_elsewhere(self) -> None:
        for at in ("rcpt", "data", "end"):
            for answer, found in (
                ("REDIRECT carol@us.example", [0, 1]),
                ("BCC carol@us.example", [1, 1]),
            ):
                mta = self.mta(ScriptedService(answer), more=[{"at": at}])
                self.assertEqual(self.codes(mta)[-1], TAKEN[-1])
                self.assertEqual([len(mta.mail(name)) for name in ("bob", "carol")], found)

    def test_what_one_discards_no_other_sends_elsewhere(self) -> None:
        for answer in ("REDIRECT carol@us.example", "BCC carol@us.example"):
            more = [{"at": "data"}, {"at": "rcpt"}]
            mta = self.mta(ScriptedService("DISCARD"), ScriptedService(answer), more=more)
            self.assertEqual(self.codes(mta)[-1], TAKEN[-1])
            self.assertEqual((mta.mail("bob"), mta.mail("carol")), ([], []))

    def test_lines_for_the_log_are_logged(self) -> None:
        log = logged_lines(self, "says: ")
        self.mail("WARN look\tat this", "INFO nothing")
        self.assertEqual(len(log), 2)
        self.assertIn(rf"the policy service tcp:{HOST}:10023 says: look\tat this", log[0])

    def test_verdicts_are_logged_counted_and_kept(self) -> None:
        log = logged_lines(self, "checked: ")
        services = [ScriptedService(each) for each in ("DUNNO", "PREPEND X: 1")]
        mta = self.mta(*services)
        self.codes(mta)
        self.assertIn(f"policy_service=mark (tcp:{HOST}:10024)", log[0])
        self.assertIn(f"policy_service=pass (tcp:{HOST}:10023)", log[0])
        services[0].answer = "REJECT"
        self.codes(mta)
        services[0].answer = "DEFER_IF_PERMIT"
        self.codes(mta)
        counted = mta.mta.agent.metrics.snapshot()
        for result, number in (("mark", 2), ("pass", 1), ("refuse", 1), ("defer", 1)):
            total = counted.total(table.POLICY_VERDICTS, policy="policy_service", result=result)
            self.assertEqual(total, number, result)

    def test_explain_asks_no_service_and_names_it(self) -> None:
        service = ScriptedService("REJECT")
        mta = self.mta(service)
        query = AddressQuery(address="bob@us.example", client=STRANGER, sender="x@y.example")
        explaining: Deferred[Any] = mta.mta.agent.explainer.address(query)
        mta.reactor.settle()
        facts = self.successResultOf(explaining)
        self.assertEqual(service.asked, [])
        self.assertEqual(facts["forecast"]["not_asked"], [f"policy_service tcp:{HOST}:10023"])
        self.assertIn(f"  Not asked: policy_service tcp:{HOST}:10023", [*lines(facts)])


class Faults(Services):
    def reply(self, service: ScriptedService, action: str = "defer", at: str = "rcpt") -> str:
        """Return the last reply to a message; the session goes on after it."""
        more = {"default_action": action, "timeout": 10, "at": at}
        mta = self.mta(service, more=[more])
        client = mta.connect(source=STRANGER)
        replies: list[str] = []
        for octets in (
            b"MAIL FROM:<ann@sender.example>\r\n",
            b"RCPT TO:<bob@us.example>\r\n",
            b"DATA\r\n",
            MESSAGE + b".\r\n",
        ):
            replies = client.send(octets)
            if not replies:
                mta.advance(10)
                replies = client.heard()
            if replies[-1][0] not in "23":
                break
        self.assertEqual(client.say("NOOP")[0][:3], "250")
        return replies[-1]

    def test_a_service_that_does_not_answer(self) -> None:
        for at in ("mail", "rcpt", "data", "end"):
            silent = ScriptedService(b"")
            self.assertEqual(self.reply(silent, at=at)[:9], "451 4.7.1")
            self.assertEqual(silent.open, 0)
            self.assertEqual(self.reply(ScriptedService(b"action="), at=at)[:9], "451 4.7.1")
            self.assertEqual(self.reply(ScriptedService(b""), "accept", at=at)[:4], "250 ")
            self.assertEqual(
                self.reply(ScriptedService(b""), "refuse", at=at), "550 5.7.1 Service unavailable"
            )

    def test_a_service_that_lies(self) -> None:
        for answer, error in (
            (b"\n", "without an action"),
            (b"action=OK\n\naction=OK\n\n", "octets behind its answer"),
            (b"action=OK\naction=REJECT\n\n", "two actions"),
            (b"action=OK\0\n\n", r"found action=OK\x00, expected name=value"),
            (b"action=" + b"x" * 100_000, "no end of its answer within 16384 octets"),
            (b"HTTP/1.1 400 Bad Request\r\n\n\n", "octets behind"),
            (b"HTTP/1.1 400 Bad Request\r\n\n", r"found HTTP/1.1 400 Bad Request\r, expected"),
            (b"action=FILTER smtp:x\n\n", "FILTER: routes depend"),
            (b"action=PREPEND X: 1\n\n\n", "octets behind its answer"),
            (b"action=\x1b[2Jclear\n\n", r"found action=\x1b[2Jclear"),
        ):
            log = logged_lines(self, "failed: ")
            service = ScriptedService(answer)
            self.assertEqual(self.reply(service)[:9], "451 4.7.1", answer)
            self.assertIn(error, log[0])
            self.assertEqual(service.open, 0 if b"FILTER" not in answer else 1)

    def closing(self, service: ScriptedService, said: bytes, asked: Attributes) -> bytes:
        service.protocols[0].say(said)
        service.protocols[0].transport.loseConnection()
        return b""

    def test_a_service_that_closes_the_connection(self) -> None:
        for said in (b"", b"action=O"):
            service = ScriptedService(b"")

            service.answer = partial(self.closing, service, said)
            self.assertEqual(self.reply(service)[:9], "451 4.7.1")

    def test_a_service_that_is_not_there(self) -> None:
        mta = self.mta(more=[{}, {"default_action": "accept"}])
        self.assertEqual(self.codes(mta), DEFERRED)
        log = logged_lines(self, "checked: ")
        mta = self.mta(more=[{"default_action": "accept"}])
        self.assertEqual(self.codes(mta), TAKEN)
        self.assertIn(f"policy_service=temperror (tcp:{HOST}:10023)", log[0])

    def test_a_connection_that_was_closed_meanwhile_is_opened_anew(self) -> None:
        service = ScriptedService()
        mta = self.mta(service)
        self.assertEqual(self.codes(mta), TAKEN)
        service.protocols[0].transport.loseConnection()
        self.assertEqual(self.codes(mta), TAKEN)
        seen: list[Attributes] = []

        def once(attributes: Attributes) -> str | bytes:
            seen.append(attributes)
            if len(seen) == 1:
                service.protocols[0].transport.loseConnection()
                return b""
            return "DUNNO"

        service.answer = once
        self.assertEqual(self.codes(mta), TAKEN)
        self.assertEqual((len(seen), service.connections), (2, 3))

    def test_what_comes_without_a_request_ends_the_connection(self) -> None:
        service = ScriptedService()
        mta = self.mta(service)
        self.assertEqual(self.codes(mta), TAKEN)
        service.protocols[0].say(b"action=REJECT\n\n")
        mta.reactor.settle()
        self.assertEqual((service.open, self.codes(mta)), (0, TAKEN))

    def test_a_client_that_goes_away_leaves_no_request_behind(self) -> None:
        service = ScriptedService(b"")
        mta = self.mta(service)
        client = mta.connect(source=STRANGER)
        client.say("MAIL FROM:<ann@sender.example>")
        client.send(b"RCPT TO:<bob@us.example>\r\n")
        client.transport.loseConnection()
        mta.advance(31)
        self.assertEqual(service.open, 0)


class Reloaded(Services):
    def reload(self, mta: MemoryMTA, **changes: Any) -> list[str]:
        lines: list[str] = self.successResultOf(mta.mta.reload(evolve(mta.mta.config, **changes)))
        return lines

    def test_services_come_and_go_with_a_reload(self) -> None:
        service = ScriptedService("REJECT No")
        mta = self.mta(service)
        self.assertEqual(self.replies(mta), ["554 5.7.1 No"])
        tables = mta.mta.config.policy_services
        lines = self.reload(mta, policy_services=())
        self.assertIn(f'policy_services = []; before: ["tcp:{HOST}:10023 at rcpt"]', lines)
        mta.reactor.settle()
        self.assertEqual((service.open, self.codes(mta)), (0, TAKEN))
        self.reload(mta, policy_services=tables)
        self.assertEqual(self.replies(mta), ["554 5.7.1 No"])
