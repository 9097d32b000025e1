"""Our own policy, and the record that announces it."""

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.config import Config, MTASTSSettings
from twisted_mta.tls.mta_sts.own import own_domains, own_policy, record
from twisted_mta.tls.mta_sts.policy import Policy, record_id


class OwnPolicyTests(SynchronousTestCase):
    def test_by_default_it_tests_our_host_for_a_week(self) -> None:
        policy = own_policy(Config(hostname="MX.example"))
        self.assertEqual(policy, Policy("testing", 604_800, ("mx.example",)))

    def test_the_settings(self) -> None:
        settings = MTASTSSettings(
            mode="enforce", max_age="30 days", mx=["*.a.example", "B.example"]
        )
        policy = own_policy(Config(mta_sts=settings))
        self.assertEqual(policy, Policy("enforce", 2_592_000, ("*.a.example", "b.example")))
        self.assertEqual(Policy.parse(policy.body), policy)

    def test_the_id_of_the_record_changes_with_the_policy_alone(self) -> None:
        records = [
            record(own_policy(Config(hostname="mx.example", mta_sts=MTASTSSettings(**settings))))
            for settings in (
                {},
                {},
                {"mode": "enforce"},
                {"max_age": 86_400},
                {"mx": ["*.example"]},
            )
        ]
        self.assertEqual(records[0], records[1])
        ids = [record_id([each.encode()]) for each in records]
        self.assertEqual(len(set(ids)), 4)
        self.assertNotIn(None, ids)

    def test_its_domains_are_those_that_others_can_look_up(self) -> None:
        config = Config(
            local_domains=("localhost", "a.example", "[192.0.2.1]"),
            aliases="aliases",
            virtual_domains=("b.example",),
        )
        self.assertEqual(own_domains(config), ["a.example", "b.example"])
