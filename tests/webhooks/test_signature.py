"""Signatures are those that receivers of Standard Webhooks know."""

from base64 import b64decode

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.webhooks.signature import signature, written

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NAME, AT, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'


class Signatures(SynchronousTestCase):
    def setUp(self) -> None:
        self.secret = b64decode(SECRET.removeprefix("whsec_"))

    def test_the_signature_is_that_of_the_published_example(self) -> None:
        self.assertEqual(
            signature([self.secret], NAME, AT, BODY),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        )
        self.assertEqual(written(self.secret), SECRET)

    def test_each_secret_signs(self) -> None:
        both = signature([self.secret, b"2" * 32], NAME, AT, BODY).split(" ")
        self.assertEqual(both[0], signature([self.secret], NAME, AT, BODY))
        self.assertEqual(both[1], signature([b"2" * 32], NAME, AT, BODY))
