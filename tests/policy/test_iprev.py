"""The reverse name of a client, confirmed by a forward look-up (RFC 8601 §2.7.3)."""

from __future__ import annotations

from io import BytesIO

from twisted.internet.defer import Deferred

from tests.tidy import TidyTestCase
from twisted_mta.message.authentication_results import MethodResult
from twisted_mta.policy.answers import EnvelopeView
from twisted_mta.policy.examination import Examination, PolicySession
from twisted_mta.policy.iprev import NAME, ReverseName, ReverseNamePolicy, reverse_name
from twisted_mta.smtp.peer import Peer
from twisted_mta.smtp.server.session import Session
from twisted_mta.smtp.server.settings import SessionSettings
from twisted_mta.testing.resolver import FakeResolver


class Confirmation(TidyTestCase):
    def setUp(self) -> None:
        self.names = FakeResolver(
            addresses={
                "mx.example.net": ["192.0.2.1", "2001:db8::1"],
                "b.example.net": ["192.0.2.2"],
                "other.example.net": ["192.0.2.99"],
                "six.example.net": ["2001:db8::9"],
            },
            pointers={
                "192.0.2.1": ["mx.example.net"],
                "2001:db8::1": ["MX.Example.NET"],
                "192.0.2.2": ["other.example.net", "b.example.net", "gone.example.net"],
                "192.0.2.3": ["other.example.net"],
                "192.0.2.4": ["gone.example.net"],
                "192.0.2.5": ["six.example.net"],
                "192.0.2.6": ["not a\\032name", "", "[192.0.2.6]"],
                "192.0.2.7": [f"n{number:02}.example" for number in range(20)],
            },
        )

    def found(self, address: str | None) -> ReverseName:
        return self.successResultOf(Deferred.fromCoroutine(reverse_name(address, self.names)))

    def assertFound(self, address: str | None, result: str, name: str = "") -> None:
        found = self.found(address)
        self.assertEqual((found.result, found.name), (result, name), found)
        self.assertEqual(bool(found.reason), result != "pass", found)

    def test_a_name_that_has_the_address_passes(self) -> None:
        self.assertFound("192.0.2.1", "pass", "mx.example.net")
        self.assertFound("2001:db8::1", "pass", "mx.example.net")
        self.assertFound("2001:DB8:0::1%eth0", "pass", "mx.example.net")
        self.assertFound("::ffff:192.0.2.1", "pass", "mx.example.net")
        self.assertFound("192.0.2.2", "pass", "b.example.net")

    def test_a_name_that_does_not_have_the_address_fails(self) -> None:
        for address in ("192.0.2.3", "192.0.2.4", "192.0.2.5"):
            self.assertFound(address, "fail")

    def test_an_address_without_a_name_is_a_permanent_error(self) -> None:
        for address in ("192.0.2.6", "192.0.2.222", "2001:db8::dead"):
            self.assertFound(address, "permerror")

    def test_a_client_without_an_address_has_no_result(self) -> None:
        for address in (None, "", "/run/socket"):
            self.assertFound(address, "none")
        self.assertEqual(self.names.lookups, [])

    def test_a_dns_failure_is_temporary_unless_another_name_passes(self) -> None:
        self.names.fail("192.0.2.1", "no answer")
        self.assertFound("192.0.2.1", "temperror")
        self.names.fail("other.example.net", "no answer")
        self.assertFound("192.0.2.3", "temperror")
        self.assertFound("192.0.2.2", "pass", "b.example.net")
        self.names.fail("b.example.net", "no answer")
        self.assertFound("192.0.2.2", "temperror")

    def test_ten_names_are_looked_up_and_one_family(self) -> None:
        self.assertFound("192.0.2.7", "fail")
        self.assertEqual(
            self.names.lookups,
            [("PTR", "192.0.2.7"), *(("A", f"n{number:02}.example") for number in range(10))],
        )
        self.names.lookups.clear()
        self.found("2001:db8::1")
        self.assertEqual(self.names.lookups, [("PTR", "2001:db8::1"), ("AAAA", "mx.example.net")])

    def test_names_behind_the_confirmed_one_are_not_waited_for(self) -> None:
        self.names.hold("other.example.net")
        self.assertFound("192.0.2.2", "pass", "b.example.net")
        self.names.release("other.example.net")

    def test_the_result_is_one_of_the_authentication_results(self) -> None:
        self.assertEqual(
            self.found("::ffff:192.0.2.1").method_result,
            MethodResult(
                "iprev",
                "pass",
                properties=(("policy.iprev", "192.0.2.1"),),
                comment="mx.example.net",
            ),
        )
        self.assertEqual(self.found(None).method_result.properties, ())


class AsPolicy(TidyTestCase):
    def setUp(self) -> None:
        self.names = FakeResolver(
            addresses={"mx.example.net": ["192.0.2.1"]},
            pointers={"192.0.2.1": ["mx.example.net"]},
        )
        self.policy = ReverseNamePolicy(self.names)
        view = Session(SessionSettings(hostname="mx.example"), peer=Peer("192.0.2.1"))
        self.session = PolicySession(view, is_stranger=True)

    def begin(self) -> Examination:
        """Begin a transaction."""
        self.session.examination = Examination(self.session, None, awaited=(NAME,))
        self.policy.mail(self.session, None)
        return self.session.examination

    def results(self, examination: Examination) -> list[str]:
        return [each.result for each in examination.results]

    def message(self) -> Deferred[None] | None:
        return self.policy.message(self.session, EnvelopeView(None, ()), BytesIO())

    def test_the_session_goes_on_and_the_end_of_the_content_waits(self) -> None:
        self.names.hold("192.0.2.1")
        self.policy.client(self.session)
        examination = self.begin()
        waiting = self.message()
        assert waiting is not None
        self.assertNoResult(waiting)
        self.assertIsNone(self.session.reverse_name)
        self.names.release("192.0.2.1")
        self.successResultOf(waiting)
        self.assertEqual(self.session.reverse_name, "mx.example.net")
        self.assertEqual(self.results(examination), ["pass"])

    def test_one_look_up_serves_all_transactions(self) -> None:
        self.policy.client(self.session)
        for _ in range(3):
            self.assertEqual(self.results(self.begin()), ["pass"])
            self.assertIsNone(self.message())
        self.assertEqual(len(self.names.lookups), 2)

    def test_a_policy_that_was_not_asked_about_the_client_looks_it_up_at_mail(self) -> None:
        self.assertEqual(self.results(self.begin()), ["pass"])

    def test_an_internal_error_is_logged_and_is_no_answer(self) -> None:
        self.patch(self.names, "pointers", lambda address: 1 // 0)
        self.assertEqual(self.results(self.begin()), ["temperror"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_without_a_transaction_there_is_no_result(self) -> None:
        self.policy.mail(self.session, None)
        self.assertIsNone(self.message())
