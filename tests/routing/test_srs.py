"""The sender rewriting scheme: rewriting, restoring, and refusing forged mailboxes."""

from tests.tidy import TidyTestCase
from twisted_mta.mail.address import Mailbox
from twisted_mta.routing.srs import BadSRS, SenderRewriting, TooOld, is_srs

DAY = 86_400.0
NOW = 20_000 * DAY + 1
KEY = b"0123456789abcdef"

US = SenderRewriting("us.example", KEY)
FIRST = SenderRewriting("first.example", b"another key, 16+")


def mailbox(text: str) -> Mailbox:
    return Mailbox.parse(text)


class Rewriting(TidyTestCase):
    def assertThereAndBack(self, sender: str) -> Mailbox:
        there = US.rewritten(mailbox(sender), NOW)
        self.assertEqual(there.domain, "us.example")
        self.assertTrue(is_srs(there))
        # It must survive the text form of the wire.
        self.assertEqual(Mailbox.parse(str(there)), there)
        self.assertEqual(US.restored(there, NOW), mailbox(sender))
        return there

    def test_a_rewritten_sender_has_the_common_form(self) -> None:
        there = self.assertThereAndBack("ann@sender.example")
        self.assertRegex(there.local_part, r"\ASRS0=[A-Z2-7]{6}=[A-Z2-7]{2}=sender\.example=ann\Z")

    def test_the_day_is_two_letters_of_base_32(self) -> None:
        # 20,000 modulo 1,024 is 544: 17 times 32, and 0.
        self.assertIn("=RA=", US.rewritten(mailbox("ann@sender.example"), NOW).local_part)

    def test_every_sender_is_restored(self) -> None:
        for sender in (
            "a=b=c@sender.example",
            '"a b@c"@sender.example',
            "Ann+tag@sender.example",
            "ann@[192.0.2.1]",
            "ann@[IPv6:2001:db8::1]",
            "d\u00f6rte@sender.example",
            "SRS2=x@sender.example",
            "SRS1=x@sender.example",
        ):
            self.assertThereAndBack(sender)

    def test_a_change_of_case_does_not_matter(self) -> None:
        there = US.rewritten(mailbox("ann@sender.example"), NOW)
        for changed in (there.local_part.lower(), there.local_part.upper()):
            back = US.restored(Mailbox(changed, there.domain), NOW)
            self.assertEqual(str(back).lower(), "ann@sender.example")

    def test_forwarding_again_does_not_grow_the_mailbox(self) -> None:
        once = FIRST.rewritten(mailbox("ann@sender.example"), NOW)
        twice = self.assertThereAndBack(str(once))
        self.assertRegex(twice.local_part, r"\ASRS1=[A-Z2-7]{6}=first\.example==.*=ann\Z")
        third = SenderRewriting("third.example", b"a third key for it").rewritten(twice, NOW)
        self.assertEqual(len(third.local_part), len(twice.local_part))
        self.assertIn("=first.example==", third.local_part)
        # The notice goes straight to the first forwarder, which knows the sender.
        back = SenderRewriting("third.example", b"a third key for it").restored(third, NOW)
        self.assertEqual(FIRST.restored(back, NOW), mailbox("ann@sender.example"))

    def test_the_separator_of_another_forwarder_is_kept(self) -> None:
        for sign in "-+=":
            self.assertThereAndBack(f"SRS0{sign}abcd=XY=sender.example=ann@first.example")

    def test_a_reverse_path_that_would_be_too_long_stays(self) -> None:
        sender = Mailbox("x" * 230, "sender.example")
        self.assertEqual(US.rewritten(sender, NOW), sender)

    def test_a_short_key_is_refused(self) -> None:
        self.assertRaises(ValueError, SenderRewriting, "us.example", b"x" * 15)


class Verifying(TidyTestCase):
    def test_a_rewritten_mailbox_is_valid_for_21_days(self) -> None:
        there = US.rewritten(mailbox("ann@sender.example"), NOW)
        self.assertEqual(US.restored(there, NOW + 21 * DAY), mailbox("ann@sender.example"))
        for days in (22, 500, 1023):
            self.assertRaises(TooOld, US.restored, there, NOW + days * DAY)

    def test_the_day_number_wraps_around(self) -> None:
        last = 1023 * DAY
        there = US.rewritten(mailbox("ann@sender.example"), last)
        self.assertEqual(US.restored(there, last + 3 * DAY), mailbox("ann@sender.example"))

    def test_a_mailbox_with_another_hash_is_refused(self) -> None:
        there = US.rewritten(mailbox("ann@sender.example"), NOW).local_part
        hash, rest = there[5:11], there[12:]
        self.assertEqual(f"SRS0={hash}={rest}", there)
        for forged in (
            f"SRS0={hash}={rest}x",
            f"SRS0={hash}={rest.replace('sender', 'victim')}",
            f"SRS0={hash}=RB{rest[2:]}",
            f"SRS0={hash[:-1]}={rest}",
            f"SRS0=={rest}",
            f"SRS0={rest}",
            f"SRS1={hash}={rest}",
            "SRS0=",
            "SRS1=",
            "SRS0===victim.example=v",
            "SRS0=\u00e4\u00f6=RA=victim.example=v",
            f"SRS0={FIRST.rewritten(mailbox('v@victim.example'), NOW).local_part[5:]}",
        ):
            self.assertRaises(BadSRS, US.restored, Mailbox(forged, "us.example"), NOW)

    def test_a_signed_mailbox_with_malformed_content_is_refused(self) -> None:
        for rest in ("", "RA", "RA=x", "R1=sender.example=a", "RAA=sender.example=a", "RA=..=a"):
            forged = Mailbox(f"SRS0={US._hash('0', rest)}={rest}", "us.example")
            self.assertRaises(BadSRS, US.restored, forged, NOW)

    def test_only_srs0_and_srs1_are_recognized(self) -> None:
        for name in ("SRS0=a", "srs1+a", "SrS0-a"):
            self.assertTrue(is_srs(Mailbox(name, "us.example")))
        for name in ("srs", "srs0", "SRS2=a", "xSRS0=a", "srs01=a"):
            self.assertFalse(is_srs(Mailbox(name, "us.example")))
