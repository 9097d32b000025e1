"""The attachments of mail that an agent takes: in a policy, and in a mailbox."""

from __future__ import annotations

from email import policy
from email.message import EmailMessage
from typing import IO

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta import Reply, attachments
from twisted_mta.testing.memory_mta import MemoryMTA


class NoPrograms:
    """Refuses mail with programs."""

    def message(self, session: object, envelope: object, content: IO[bytes]) -> Reply | None:
        if any(part.safe_name.endswith(".exe") for part in attachments(content)):
            return Reply(550, "5.7.1", "no programs")
        return None


class Attachments(SynchronousTestCase):
    def setUp(self) -> None:
        self.mta = self.enterContext(MemoryMTA(application_policy=NoPrograms()))

    def submit(self, name: str) -> str:
        mail = EmailMessage(policy=policy.SMTP)
        mail.set_content("See the file.\n")
        mail.add_attachment(b"\r\n\0.", maintype="a", subtype="b", filename=name)
        return self.mta.submit_by_smtp(bytes(mail), "bob@localhost")

    def test_a_policy_refuses_mail_by_its_attachments(self) -> None:
        self.assertEqual(self.submit("Größe\u202e.exe"), "550 5.7.1 no programs")
        self.assertEqual(self.mta.mail("bob"), [])

    def test_a_file_of_a_mailbox_has_the_attachments_that_were_sent(self) -> None:
        self.assertEqual(self.submit("Größe.pdf")[:4], "250 ")
        (mail,) = self.mta.mail("bob")
        self.assertNotIn(b"\r\n", mail)
        (part,) = attachments(mail)
        self.assertEqual((part.filename, b"".join(part.chunks())), ("Größe.pdf", b"\r\n\0."))
