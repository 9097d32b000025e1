"""The client session against scripted servers, without a network."""

from attrs import evolve

from tests.tidy import TidyTestCase
from twisted_mta.mail.message import Message
from twisted_mta.smtp.client.session import ClientSession
from twisted_mta.smtp.client.step import Close, Ready, StartTLS, Unusable

from ..player import CONTENT, FACTS, GROUP, OPENING, PLAIN_OPENING, Player, message


class DialogueTests(TidyTestCase):
    """Dialogues with servers that accept or refuse."""

    def test_mail_rcpt_and_data_are_one_group(self) -> None:
        """RFC 2920 §3.1: DATA is the last of its group."""
        for at_a_time in (0, 1):
            player = Player(message(), at_a_time=at_a_time)
            player.play(f"""
                {OPENING}
                {GROUP}
                S: 250 2.1.0 Ok
                S: 250 2.1.5 Ok
                S: 354 Go on
                {CONTENT}
                S: 250 2.0.0 Queued as 1
            """)
            self.assertEqual(player.replies, ["250 2.0.0 Queued as 1"])
            self.assertEqual(player.outcomes[0].remote, "mx[192.0.2.1]:25")
            self.assertEqual(player.outcomes[0].number, 10)
            self.assertTrue(player.session.idle)

    def test_without_pipelining_each_command_waits_for_a_reply(self) -> None:
        player = Player(message("b@example.net", "c@example.net")).play(f"""
            {PLAIN_OPENING}
            C: MAIL FROM:<a@client.example>
            S: 250 Ok
            C: RCPT TO:<b@example.net>
            S: 250 Ok
            C: RCPT TO:<c@example.net>
            S: 251 Forwarded
            C: DATA
            S: 354 Go on
            {CONTENT}
            S: 250 Queued
        """)
        self.assertEqual(player.replies, ["250 Queued"] * 2)

    def test_without_pipelining_a_refusal_ends_the_transaction_at_once(self) -> None:
        player = Player(message(), message()).play(f"""
            {PLAIN_OPENING}
            C: MAIL FROM:<a@client.example>
            S: 550 5.7.1 Not you
            C: RSET
            S: 250 Ok
            C: MAIL FROM:<a@client.example>
            S: 250 Ok
            C: RCPT TO:<b@example.net>
            S: 550 5.1.1 Nobody
        """)
        self.assertEqual(player.replies, ["550 5.7.1 Not you", "550 5.1.1 Nobody"])

    def test_helo_follows_a_refused_ehlo(self) -> None:
        """RFC 5321 §3.2."""
        Player(message(sender=None)).play("""
            S: 220 old.example
            C: EHLO client.example
            S: 500 What?
            C: HELO client.example
            S: 250 old.example
            C: MAIL FROM:<>
        """)

    def test_parameters_are_sent_where_the_server_announces_them(self) -> None:
        """RFC 1870 §3, RFC 6152 §2, RFC 6531 §3.4."""
        mail = message("ü@example.net", parameters={"BODY": "8BITMIME", "SMTPUTF8": None})
        Player(mail).play("""
            S: 220 mx.example
            C: EHLO client.example
            S: 250-mx.example
            S: 250-SIZE
            S: 250-SMTPUTF8
            S: 250 8bitmime
            C: MAIL FROM:<a@client.example> SMTPUTF8 SIZE=49 BODY=8BITMIME
            S: 250 Ok
            C: RCPT TO:<ü@example.net>
        """)

    def test_each_recipient_has_its_own_outcome(self) -> None:
        names = ("b", "c", "d", "e")
        player = Player(message(*(f"{name}@example.net" for name in names))).play(f"""
            {OPENING}
            C: MAIL FROM:<a@client.example> SIZE=49
            C: RCPT TO:<b@example.net>
            C: RCPT TO:<c@example.net>
            C: RCPT TO:<d@example.net>
            C: RCPT TO:<e@example.net>
            C: DATA
            S: 250 Ok
            S: 550 5.1.1 Nobody
            S: 250 Ok
            S: 450 4.2.0 Later
            S: 552 Too many recipients
            S: 354 Go on
            {CONTENT}
            S: 250 Queued
        """)
        # RFC 5321 §4.5.3.1.10: 552 to RCPT is treated as 452.
        self.assertEqual(
            player.replies,
            ["550 5.1.1 Nobody", "250 Queued", "450 4.2.0 Later", "552 Too many recipients"],
        )
        self.assertEqual([each.deferred for each in player.outcomes], [False, False, True, True])

    def test_354_without_an_accepted_recipient_gets_a_lone_dot_and_rset_follows(self) -> None:
        """RFC 2920 §3.1."""
        player = Player(message(), message()).play(f"""
            {OPENING}
            {GROUP}
            S: 250 Ok
            S: 550 5.1.1 Nobody
            S: 354 Go on
            C: .
            S: 250 Delivered to nobody
            C: RSET
            {GROUP}
        """)
        self.assertEqual(player.replies, ["550 5.1.1 Nobody"])

    def test_refusals_that_follow_a_refused_mail_do_not_count(self) -> None:
        player = Player(message(), message()).play(f"""
            {OPENING}
            {GROUP}
            S: 451 4.7.1 Greylisted
            S: 503 5.5.1 No MAIL
            S: 503 5.5.1 No RCPT
            C: RSET
            {GROUP}
        """)
        self.assertEqual(player.replies, ["451 4.7.1 Greylisted"])

    def test_no_content_is_sent_after_a_refused_mail_even_if_data_is_accepted(self) -> None:
        player = Player(message()).play(f"""
            {OPENING}
            {GROUP}
            S: 550 5.7.1 Not you
            S: 250 Ok
            S: 354 Go on
            C: .
            S: 250 Delivered to nobody
        """)
        self.assertEqual(player.replies, ["550 5.7.1 Not you"])
        self.assertTrue(player.session.idle)

    def test_accepted_recipients_share_the_refusal_of_data_and_rset_follows(self) -> None:
        for reply in ("451 4.3.0 Not now", "554 5.5.1 No valid recipients", "503 Out of order"):
            player = Player(message("b@example.net", "c@example.net"), message()).play(f"""
                {OPENING}
                {GROUP.replace("C: DATA", "C: RCPT TO:<c@example.net>")}
                C: DATA
                S: 250 Ok
                S: 250 Ok
                S: 550 5.1.1 Nobody
                S: {reply}
                C: RSET
                {GROUP}
            """)
            self.assertEqual(player.replies, [reply, "550 5.1.1 Nobody"])

    def test_a_refused_rset_ends_the_connection(self) -> None:
        player = Player(message(), message()).play(f"""
            {OPENING}
            {GROUP}
            S: 550 5.7.1 Not you
            S: 503 5.5.1 No
            S: 503 5.5.1 No
            C: RSET
            {GROUP}
            S: 500 5.5.2 What?
        """)
        self.assertEqual(player.replies, ["550 5.7.1 Not you"])
        self.assertEqual(player.unusable.reply.code, 451)
        self.assertEqual(player.steps[-1], Close(abort=True))

    def test_a_reply_is_kept_with_its_status_and_all_lines(self) -> None:
        player = Player(message()).play(f"""
            {OPENING}
            {GROUP}
            S: 250 Ok
            S: 550-5.1.1 Nobody here
            S: 550-5.1.1 has that name;
            S: 550 5.1.1 see https://mx.example/
            S: 503 No recipients
        """)
        [outcome] = player.outcomes
        self.assertEqual((outcome.reply.code, outcome.reply.enhanced), (550, "5.1.1"))
        self.assertEqual(
            outcome.reply.lines, ("Nobody here", "has that name;", "see https://mx.example/")
        )

    def test_a_refusal_of_the_content_is_certain(self) -> None:
        for reply in ("550 5.7.1 Spam", "452 4.3.1 Full"):
            player = Player(message()).play(f"""
                {OPENING}
                {GROUP}
                S: 250 Ok
                S: 250 Ok
                S: 354 Go on
                {CONTENT}
                S: {reply}
            """)
            self.assertEqual(player.replies, [reply])
            self.assertFalse(player.outcomes[0].uncertain)

    def test_there_is_no_rset_between_successes(self) -> None:
        Player(message(), message()).play(f"""
            {OPENING}
            {GROUP}
            S: 250 Ok
            S: 250 Ok
            S: 354 Go on
            {CONTENT}
            S: 250 Queued
            {GROUP}
        """)

    def test_quit_waits_for_its_reply(self) -> None:
        """RFC 5321 §4.1.1.10."""
        player = Player().play(PLAIN_OPENING)
        self.assertEqual(player.steps, [Ready()])
        player.take(player.session.quit())
        player.play("""
            C: QUIT
            S: 221 Bye
        """)
        self.assertEqual(player.steps[1:], [Close()])

    def test_a_transaction_and_quit_need_an_idle_session(self) -> None:
        player = Player()
        for octets in (b"", b"220 mx.example\r\n"):
            player.take(player.session.receive(octets))
            self.assertRaises(RuntimeError, player.session.transact, message())
            self.assertRaises(RuntimeError, player.session.quit)

    def test_a_refusing_greeting_says_nothing_about_the_message(self) -> None:
        """RFC 5321 §3.1: QUIT follows, and 554 is not permanent."""
        for greeting, temporary in (
            ("554 No service here", True),
            ("554 5.3.2 No service here", True),
            ("450 4.3.2 Busy", False),
            ("521 5.3.2 No mail", False),
        ):
            player = Player(message()).play(f"""
                S: {greeting}
                C: QUIT
                S: 221 Bye
            """)
            self.assertEqual(str(player.unusable.reply), greeting)
            self.assertEqual(player.unusable.temporary, temporary)
            self.assertEqual(player.steps[-1], Close())

    def test_where_tls_is_mandatory_a_refusal_in_clear_is_temporary(self) -> None:
        """Anybody on the way can refuse in clear."""
        hello = "C: EHLO client.example"
        for dialogue in (
            "S: 550 5.7.1 Blocked",
            f"S: 220 mx\n{hello}\nS: 550 No\nC: HELO client.example\nS: 550 5.7.1 Blocked",
        ):
            for level, temporary in (("may", False), ("encrypt", True), ("verify", True)):
                player = Player(message(), tls=level)  # type: ignore[arg-type]
                player.play(f"{dialogue}\nC: QUIT")
                self.assertEqual(str(player.unusable.reply), "550 5.7.1 Blocked")
                self.assertEqual(player.unusable.temporary, temporary)

    def test_552_to_rcpt_defers_unless_its_code_is_of_the_mailbox_or_the_message(self) -> None:
        """RFC 5321 §4.5.3.1.10: it means 452 where it means too many recipients."""
        for reply, failed in (
            ("552 Too many recipients", False),
            ("552 5.5.3 Too many recipients", False),
            ("552 5.3.1 Out of space", False),
            ("552 4.2.2 Mailbox full", False),
            ("552 5.2.2 Mailbox full", True),
            ("552 5.2.3 Too big for you", True),
            ("552 5.3.4 Too big", True),
            ("552 5.7.0 Not with this attachment", True),
        ):
            player = Player(message()).play(f"""
                {OPENING}
                {GROUP}
                S: 250 Ok
                S: {reply}
                S: 503 No
            """)
            [outcome] = player.outcomes
            self.assertEqual(str(outcome.reply), reply)
            self.assertEqual((outcome.failed, outcome.deferred), (failed, not failed), reply)

    def test_octets_behind_the_greeting_are_a_reply_to_no_command(self) -> None:
        """They may be the reply to EHLO that an attacker wants us to read (RFC 5321 §4.3.1)."""
        for implicit_tls in (False, True):
            for behind in (b"250-mx.example\r\n250 PIPELINING\r\n", b"250-mx"):
                session = ClientSession(
                    helo="x", remote="mx", tls="encrypt", implicit_tls=implicit_tls
                )
                if implicit_tls:
                    session.handshake_completed(FACTS)
                unusable, close = session.receive(b"220 mx.example\r\n" + behind)
                assert isinstance(unusable, Unusable)
                self.assertIn("a reply to no command", unusable.reply.text)
                self.assertEqual(close, Close(abort=True))

    def test_the_last_replies_are_read_before_the_connection_is_closed(self) -> None:
        """RFC 5321 §4.1.1.10: once QUIT is answered, nothing is left that would have to be cut."""
        player = Player(message()).play("""
            S: 554 no
            C: QUIT
            S: 221 Bye
        """)
        self.assertEqual(player.steps[-1], Close(abort=False))

    def test_the_text_of_a_reply_is_kept_up_to_the_length_of_a_line(self) -> None:
        """RFC 5321 §4.5.3.1.5: 512 octets, with the code and CR LF; the rest is cut off."""
        for length in (505, 506, 507, 4092):
            player = Player(message())
            player.receive(b"554 " + length * b"x" + b"\r\n")
            self.assertEqual(player.unusable.reply.text, "x" * min(length, 506))

    def test_lines_and_replies_without_an_end_close_the_connection(self) -> None:
        """Up to 4,096 octets a line and 100 lines are read (RFC 5321 §4.5.3.1 asks for less)."""
        for octets, text in (
            (b"220 " + 4092 * b"x" + b"\r\n", ""),
            (b"220 " + 4093 * b"x" + b"\r\n", "a line of the reply does not end"),
            (b"220 " + 4093 * b"x", "a line of the reply does not end"),
            (99 * b"220-x\r\n" + b"220 x\r\n", ""),
            (100 * b"220-x\r\n", "the reply does not end"),
        ):
            player = Player(message())
            player.receive(octets)
            if text:
                self.assertIn(text, player.unusable.reply.text)
                self.assertEqual(player.steps[-1], Close(abort=True))
            else:
                self.assertEqual(player.steps, [])
                self.assertIn("EHLO", player.sent)

    def test_a_server_whose_lines_end_in_lf_alone_is_found_out_in_a_second(self) -> None:
        """RFC 5321 §2.3.8; not in the middle of a line that has an LF in it."""
        for before, octets in (
            (b"22", b"0 mx.example ESMTP\n"),
            (b"220 mx\r\n", b"250-mx.example\n250 SIZE\n"),
        ):
            player = Player(message())
            player.receive(before)
            player.receive(octets)
            self.assertEqual(player.session.deadline, 1.0)
            player.take(player.session.timed_out())
            self.assertIn("lines end in LF alone", str(player.unusable.reply))
            self.assertEqual(player.unusable.reply.enhanced, "4.5.0")
        player = Player(message())
        player.receive(b"220-mx\n")
        player.receive(b"ESMTP\r\n220 ")
        self.assertEqual(player.session.deadline, 1.0)
        player.receive(b"ready\r\n")
        self.assertEqual(player.session.deadline, 300.0)
        self.assertIn("EHLO", player.sent)


class UnsendableTests(TidyTestCase):
    """Messages that the server cannot take are not sent."""

    def assert_refused(self, mail: Message, *replies: str, extension: str = "HELP") -> None:
        player = Player(mail).play(f"""
            S: 220 mx.example
            C: EHLO client.example
            S: 250-mx.example
            S: 250 {extension}
        """)
        self.assertEqual([reply[: len(replies[0])] for reply in player.replies], list(replies))
        self.assertTrue(player.session.idle)

    def test_a_message_over_the_announced_size_fails(self) -> None:
        """RFC 1870 §6.1; 0 is no limit."""
        self.assert_refused(message(), "552 5.3.4", extension="SIZE 48")
        Player(message()).play("""
            S: 220 mx.example
            C: EHLO client.example
            S: 250-mx.example
            S: 250 SIZE 0
            C: MAIL FROM:<a@client.example> SIZE=49
        """)

    def test_content_of_8_bits_fails_without_8bitmime(self) -> None:
        """RFC 6152 §3."""
        self.assert_refused(message(parameters={"BODY": "8BITMIME"}), "554 5.6.3")

    def test_addresses_outside_ascii_fail_without_smtputf8(self) -> None:
        """RFC 6531 §3.5: one recipient, or all of them for the sender or the content."""
        self.assert_refused(message(sender="ü@client.example"), "553 5.6.7")
        self.assert_refused(message(parameters={"SMTPUTF8": None}), "550 5.6.9")
        player = Player(message("ü@example.net", "b@example.net")).play(f"""
            {OPENING}
            {GROUP}
            S: 250 Ok
            S: 250 Ok
            S: 354 Go on
            {CONTENT}
            S: 250 Queued
        """)
        self.assertEqual([str(reply)[:9] for reply in player.replies], ["553 5.6.7", "250 Queue"])
        self.assertEqual(
            [outcome.remote for outcome in player.outcomes], [None, "mx[192.0.2.1]:25"]
        )


TLS_OPENING = """
    S: 220 mx.example ESMTP
    C: EHLO client.example
    S: 250-mx.example
    S: 250-PIPELINING
    S: 250 STARTTLS
    C: STARTTLS
"""


class StartTLSTests(TidyTestCase):
    """The requirements of RFC 3207 on clients, C1 to C8."""

    def test_c1_starttls_is_last_in_its_group(self) -> None:
        """C1, §4: it is sent where the level asks for it, and nothing follows it."""
        Player(message(), tls="may").play(TLS_OPENING)
        Player(message(), tls="encrypt").play(TLS_OPENING)
        Player(message(), tls="none").play("""
            S: 220 mx.example ESMTP
            C: EHLO client.example
            S: 250-mx.example
            S: 250 STARTTLS
            C: MAIL FROM:<a@client.example>
        """)

    def test_c2_octets_behind_220_are_never_used(self) -> None:
        """C2, §4.2, §6: whole replies or fragments of any length, split anywhere."""
        injected = b"250-mx.example\r\n250 AUTH PLAIN\r\n421 Bye\r\n"
        for level in ("may", "encrypt"):
            for length in range(1, len(injected) + 1):
                for cut in range(len(b"220 Go\r\n")):
                    player = Player(message(), tls=level).play(TLS_OPENING)
                    octets = b"220 Go\r\n" + injected[:length]
                    player.receive(octets[:cut] or b"22")
                    player.receive(octets[cut or 2 :])
                    self.assertEqual(len(player.steps), 2)
                    self.assertEqual(player.steps[1], Close(abort=True))
                    self.assertEqual(player.unusable.reply.enhanced, "4.7.0")
                    self.assertIn("behind the 220", player.unusable.reply.text)
                    self.assertEqual(player.unusable.clear_retry, level == "may")
                    self.assertEqual(player.sent, "")

    def test_c2_a_reply_injected_before_starttls_was_sent_is_never_used(self) -> None:
        """The 220 and octets after it come in one piece with the reply to EHLO."""
        player = Player(message(), tls="may").play("""
            S: 220 mx.example ESMTP
            C: EHLO client.example
            S: 250-mx.example
            S: 250 STARTTLS
            S: 220 Go
            S: 250 mx.example
        """)
        self.assertEqual(player.steps[1:], [Close(abort=True)])
        self.assertEqual(player.unusable.reply.code, 451)

    def test_c3_all_that_was_learned_in_clear_is_forgotten(self) -> None:
        """C3, §4.2: EHLO is sent again; its new reply counts; there is no second STARTTLS."""
        player = Player(message(parameters={"BODY": "8BITMIME"}), tls="encrypt").play("""
            S: 220 mx.example ESMTP
            C: EHLO client.example
            S: 250-mx.example
            S: 250-PIPELINING
            S: 250-SIZE 1
            S: 250 STARTTLS
            C: STARTTLS
            S: 220 Go
        """)
        self.assertEqual(player.steps, [StartTLS()])
        self.assertEqual(player.session.deadline, 30.0)
        player.take(player.session.handshake_completed(FACTS))
        self.assertEqual(player.session.capabilities, {})
        player.play("""
            C: EHLO client.example
            S: 250-mx.example
            S: 250-STARTTLS
            S: 250 8BITMIME
            C: MAIL FROM:<a@client.example> BODY=8BITMIME
            S: 550 5.7.1 No
        """)
        self.assertEqual(player.outcomes[0].tls, FACTS)

    def test_c4_a_refused_starttls_goes_on_in_clear_where_tls_is_opportunistic(self) -> None:
        """C4, §4: 454, 5yz and any other code but 220."""
        for reply in ("454 4.7.0 Not now", "502 No", "250 Ok", "334 Well"):
            player = Player(message(), tls="may").play(f"""
                {TLS_OPENING}
                S: {reply}
                C: MAIL FROM:<a@client.example>
                C: RCPT TO:<b@example.net>
                C: DATA
            """)
            self.assertEqual(player.steps, [Ready()])

    def test_c4_a_refused_starttls_defers_where_tls_is_required(self) -> None:
        """C4, §4: QUIT, and deferred even if the refusal is a 5yz, which is kept as it was said."""
        for reply, refuses in (
            ("454 4.7.0 Not now", True),
            ("502 No", True),
            ("250 Ok", False),
            ("334 Well", False),
        ):
            player = Player(message(), tls="encrypt").play(f"""
                {TLS_OPENING}
                S: {reply}
                C: QUIT
                S: 221 Bye
            """)
            remote, text = "mx[192.0.2.1]:25", reply
            if not refuses:
                text = f"454 4.7.4 {remote}: not a reply to STARTTLS: {reply}"
            self.assertEqual(str(player.unusable.reply), text)
            self.assertEqual(player.unusable.remote, remote if refuses else None)
            self.assertEqual(player.unusable.temporary, refuses)

    def test_c4_without_starttls_mail_is_deferred_where_tls_is_required(self) -> None:
        for ehlo in ("250 mx.example", "500 What?\n C: HELO client.example\n S: 250 mx.example"):
            player = Player(message(), tls="encrypt").play(f"""
                S: 220 mx.example ESMTP
                C: EHLO client.example
                S: {ehlo}
                C: QUIT
            """)
            self.assertEqual(player.unusable.reply.enhanced, "4.7.4")

    def test_c4_421_ends_the_connection_whatever_the_level(self) -> None:
        for level in ("may", "encrypt"):
            player = Player(message(), tls=level).play(f"""
                {TLS_OPENING}
                S: 421 4.3.2 Going down
            """)
            self.assertEqual(str(player.unusable.reply), "421 4.3.2 Going down")
            self.assertEqual(player.steps[1], Close())

    def test_c6_after_a_handshake_that_does_not_suffice_quit_follows(self) -> None:
        """C6, §4.1: right after the negotiation; the mail is deferred."""
        player = Player(message(), tls="encrypt").play(f"{TLS_OPENING}\n S: 220 Go")
        player.take(player.session.handshake_completed(FACTS, "certificate of another host"))
        player.play("C: QUIT")
        self.assertEqual(player.unusable.reply.enhanced, "4.7.5")

    def test_c8_after_a_failed_handshake_an_attempt_in_clear_is_allowed(self) -> None:
        """C8, §6: only where TLS is opportunistic."""
        for level, retry in (("may", True), ("encrypt", False)):
            for stop in (ClientSession.timed_out, lambda session: session.connection_lost("alert")):
                player = Player(message(), tls=level).play(f"{TLS_OPENING}\n S: 220 Go")
                player.take(stop(player.session))
                self.assertEqual(player.unusable.clear_retry, retry)
                self.assertEqual(player.unusable.reply.enhanced, "4.7.5")
                self.assertEqual(player.steps[-1], Close(abort=True))


class RecipientTests(TidyTestCase):
    def test_a_thousand_replies_find_their_recipients(self) -> None:
        names = [f"r{number}@example.net" for number in range(1000)]
        player = Player(evolve(message(*names)))
        player.receive(b"220 mx\r\n")
        player.receive(b"250-mx\r\n250 PIPELINING\r\n")
        replies = [f"{250 if number % 3 else 550} {number}\r\n" for number in range(1000)]
        player.receive(("250 Ok\r\n" + "".join(replies) + "354 Go on\r\n").encode())
        player.receive(b"250 Queued\r\n")
        for number, outcome in enumerate(player.outcomes):
            expected = "250 Queued" if number % 3 else f"550 {number}"
            self.assertEqual((outcome.number, str(outcome.reply)), (10 + number, expected))
        self.assertEqual(len(player.outcomes), 1000)
