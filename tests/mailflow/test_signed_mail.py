"""Signed mail of strangers: the results of DKIM and ARC, and what they change for DMARC."""

from __future__ import annotations

from typing import Any

from tests.policy.arc.chains import BODY, HEADER, LISTS, RELAY, chain
from tests.policy.dkim.keys import key, record
from twisted_mta.config import PolicySettings
from twisted_mta.policy.dkim.body_hashes import body_hash
from twisted_mta.policy.dkim.signing import sign
from twisted_mta.testing import MemoryMTA

from .strangers import STRANGER, StrangersTestCase, field

SIGNED = sign(HEADER, body_hash([BODY]), key(), time=1) + HEADER


class SignedMail(StrangersTestCase):
    zone = '_dmarc.example.net. TXT "v=DMARC1; p=reject"'

    def mta(self, **settings: Any) -> MemoryMTA:
        mta = self.started(policy=PolicySettings(dmarc="enforce", **settings))
        for each in (key(), LISTS, RELAY):
            self.resolver.texts[each.record_name] = [record(each)]
        return mta

    def reply(self, mta: MemoryMTA, header: bytes, body: bytes = BODY) -> str:
        content = header + b"\r\n" + body
        return self.replies(mta, sender="ann@elsewhere.example", content=content)[-1]

    def results(self, mta: MemoryMTA, header: bytes, body: bytes = BODY) -> str:
        self.assertEqual(self.reply(mta, header, body)[:3], "250")
        (mail,) = mta.inbox_of("bob@us.example")
        return field(mail.raw)

    def test_a_valid_signature_passes_and_so_does_dmarc(self) -> None:
        found = self.results(self.mta(), SIGNED)
        self.assertIn("dkim=pass (2048-bit key) header.d=example.net", found)
        self.assertIn("arc=none", found)
        self.assertIn("dmarc=pass", found)

    def test_a_signature_of_a_changed_body_fails(self) -> None:
        mta = self.mta()
        self.assertEqual(self.reply(mta, SIGNED, BODY + b"x\r\n")[:10], "550 5.7.26")
        self.assertEqual(mta.inbox, [])

    def test_mail_of_a_trusted_sealer_goes_among_junk_instead_of_being_refused(self) -> None:
        self.assertEqual(self.reply(self.mta(), chain(2))[:10], "550 5.7.26")
        mta = self.mta(trusted_sealers=("relay.example",))
        self.assertEqual(self.reply(mta, chain(2))[:3], "250")
        junk = f"{mta.mta.config.maildir}/us.example/bob/.Junk/new"
        (name,) = mta.files.names(junk)
        mail = mta.files.content(f"{junk}/{name}")
        self.assertIn("arc=pass", field(mail))
        self.assertIn("header.oldest-pass=0", field(mail))
        self.assertIn(f"smtp.remote-ip={STRANGER}", field(mail))

    def test_arc_can_be_turned_off(self) -> None:
        self.assertNotIn(" arc=", self.results(self.mta(arc="off"), SIGNED))
