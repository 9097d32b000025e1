"""The tags of a signature: what they mean, and which signatures are refused."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.policy.dkim.signature import Signature, SignatureError, parse_signature

LEAST = "v=1; a=rsa-sha256; d=example.net; s=s1; h=From; bh=YQ==; b=YQ=="


def changed(**tags: str | None) -> bytes:
    """Return the least signature with other tags; None: without that tag."""
    parts = {**dict(part.strip().split("=", 1) for part in LEAST.split(";")), **tags}
    return "; ".join(f"{k}={v}" for k, v in parts.items() if v is not None).encode()


class Signatures(SynchronousTestCase):
    def read(self, **tags: str | None) -> Signature:
        _, signature = parse_signature(changed(**tags))
        assert isinstance(signature, Signature), signature
        return signature

    def assertRefused(self, result: str, reason: str, **tags: str | None) -> None:
        _, error = parse_signature(changed(**tags))
        assert isinstance(error, SignatureError), tags
        self.assertEqual(error.result, result)
        self.assertIn(reason, str(error))

    def test_the_least_signature_covers_all_in_simple_form(self) -> None:
        signature = self.read()
        self.assertEqual(signature.header_canonicalization, "simple")
        self.assertEqual(signature.body_canonicalization, "simple")
        self.assertEqual(signature.identity_domain, "example.net")
        self.assertEqual(signature.signer.key_id[0], "s1._domainkey.example.net")
        self.assertIsNone(signature.length)
        self.assertIsNone(signature.expires)

    def test_one_canonicalization_is_that_of_the_header(self) -> None:
        signature = self.read(c="relaxed")
        self.assertEqual(signature.header_canonicalization, "relaxed")
        self.assertEqual(signature.body_canonicalization, "simple")
        self.assertEqual(self.read(c="simple/relaxed").body_canonicalization, "relaxed")

    def test_names_have_no_case(self) -> None:
        signature = self.read(d="Example.NET", s="S1.Mail", h="From : tO", i="Ann@eng.EXAMPLE.net")
        self.assertEqual(signature.signer.key_id[0], "s1.mail._domainkey.example.net")
        self.assertEqual(signature.fields, (b"from", b"to"))
        self.assertEqual(signature.identity_domain, "eng.example.net")

    def test_international_names_become_a_labels(self) -> None:
        """RFC 8616 §5."""
        signature = self.read(d="bücher.example", s="schlüssel", i="jörg@bücher.example")
        self.assertEqual(signature.signer.domain, "xn--bcher-kva.example")
        self.assertEqual(signature.signer.selector, "xn--schlssel-95a")

    def test_each_required_tag_is_demanded(self) -> None:
        for name in ["a", "b", "bh", "d", "h", "s"]:
            self.assertRefused("permerror", f"found no {name}=", **{name: None})
        self.assertRefused("permerror", "expected v=1", v=None)
        self.assertRefused("permerror", "expected v=1", v="2")

    def test_rsa_sha1_and_unknown_algorithms_are_refused(self) -> None:
        self.assertRefused("permerror", "found a='rsa-sha1'", a="rsa-sha1")
        self.assertRefused("permerror", "found a='x'", a="x")

    def test_from_has_to_be_signed(self) -> None:
        self.assertRefused("permerror", "From is not signed", h="to:subject")

    def test_the_identity_is_of_the_domain_or_below_it(self) -> None:
        for identity in ("@example.com", "@ample.net", "@net", "a@xexample.net"):
            self.assertRefused("permerror", "not d=, nor below it", i=identity)
        self.assertRefused("neutral", "expected an address", i="example.net")

    def test_other_queries_and_canonicalizations_are_refused(self) -> None:
        self.assertRefused("permerror", "expected dns/txt", q="http")
        self.assertEqual(self.read(q="http:dns/txt").signer.domain, "example.net")
        for value in ("nofws", "simple/simple/simple", "/", ""):
            self.assertRefused("permerror", "expected simple or relaxed", c=value)

    def test_expiration_is_later_than_the_signature(self) -> None:
        self.assertEqual(self.read(t="5", x="6").expires, 6)
        self.assertRefused("permerror", "not later", t="5", x="5")

    def test_errors_of_the_syntax_are_neutral(self) -> None:
        for tags in (
            {"b": "*"},
            {"bh": "YQ"},
            {"d": "net"},
            {"d": "[192.0.2.1]"},
            {"d": "-.net x"},
            {"d": "a" * 64 + ".net"},
            {"s": ".."},
            {"s": "a" * 64},
            {"s": "a." * 127 + "a"},
            {"h": "From::To"},
            {"h": "From:Été"},
            {"l": "-1"},
            {"l": "1" * 77},
            {"t": "now"},
            {"x": "1" * 13},
        ):
            self.assertRefused("neutral", "found ", **tags)

    def test_a_signature_names_a_thousand_fields_at_most(self) -> None:
        self.assertEqual(len(self.read(h="from" + ":to" * 999).fields), 1000)
        self.assertRefused("permerror", "found 1001 names", h="from" + ":to" * 1000)

    def test_the_name_of_a_key_has_253_octets_at_most(self) -> None:
        labels = ["a" * 63] * 3 + ["a" * (253 - 3 * 64 - len("._domainkey.example.net"))]
        self.assertEqual(len(self.read(s=".".join(labels)).signer.key_id[0]), 253)
        self.assertRefused("neutral", "expected a selector", s=".".join(labels) + "a")

    def test_a_field_that_is_no_tag_list_is_neutral(self) -> None:
        tags, error = parse_signature(b"v=1; a")
        assert isinstance(error, SignatureError)
        self.assertEqual((tags, error.result), ({}, "neutral"))

    @settings(deadline=None)
    @given(st.text("vabdhsiltxqc=;: \r\n1rsa-sha256.@FromYQ==/\xfc", max_size=80))
    def test_no_text_is_an_error_of_another_kind(self, text: str) -> None:
        for value in (text.encode(), text.encode("latin-1"), f"{LEAST};{text}".encode()):
            parse_signature(value)
