"""The replies of a server session, by name (RFC 5321 §4.2, RFC 3463)."""

from __future__ import annotations

from collections.abc import Mapping

from ...mail.reply import Reply

# Success.
OK = Reply.of(250, "0.0", "OK")
SENDER_OK = Reply.of(250, "1.0", "Sender OK")
RECIPIENT_OK = Reply.of(250, "1.5", "Recipient OK")
SEND_CONTENT = Reply.of(354, None, "End with <CR><LF>.<CR><LF>")
ACCEPTED = Reply.of(250, "0.0", "Message accepted")
BYE = Reply.of(221, "0.0", "Bye")

# The order of commands.
NOT_IMPLEMENTED = Reply.of(502, "5.1", "Command not implemented")
RESET_FIRST = Reply.of(503, "5.1", "Send RSET first")
OUT_OF_STEP = Reply.of(554, "5.0", "Data was sent before its turn")  # RFC 2920 §3.1
SPEAKS_LMTP = Reply.of(500, "5.1", "This is LMTP, which begins with LHLO")  # RFC 2033 §4.1
MAIL_AFTER_LHLO = Reply.of(503, "5.1", "MAIL comes after LHLO and once in a transaction")

# STARTTLS (RFC 3207 §4).
READY_FOR_TLS = Reply.of(220, "0.0", "Ready to start TLS")
TLS_FAILED = Reply.of(454, "7.0", "TLS not available due to temporary reason")
NO_IMPLICIT_TLS = Reply.of(421, "7.0", "TLS not available due to temporary reason")
TLS_ACTIVE = Reply.of(503, "5.1", "TLS is already active")
TLS_COMES_FIRST = Reply.of(503, "5.1", "STARTTLS comes before XCLIENT")
TLS_REQUIRED = Reply.of(530, "7.0", "Must issue a STARTTLS command first")
TLS_TOO_WEAK = Reply.of(554, "7.0", "Command refused due to lack of security")  # RFC 3207 §4.1

# AUTH (RFC 4954 §4, §6); 538 is RFC 2554's.
AUTHENTICATED = Reply.of(235, "7.0", "Authentication succeeded")
NOT_AUTHENTICATED = Reply.of(535, "7.8", "Authentication credentials invalid")
AUTH_REQUIRED = Reply.of(530, "7.0", "Authentication required")
AUTH_UNAVAILABLE = Reply.of(454, "7.0", "Temporary authentication failure, try again later")
AUTH_NOT_OFFERED = Reply.of(503, "5.1", "Authentication is not offered here")
AUTHENTICATED_ALREADY = Reply.of(503, "5.1", "Authenticated already")
AUTH_SYNTAX = Reply.of(501, "5.4", "Syntax: AUTH mechanism [initial-response]")
NO_SUCH_MECHANISM = Reply.of(504, "5.4", "Mechanism not offered here and now")
ENCRYPT_FIRST = Reply.of(538, "7.11", "Encryption required: send STARTTLS before AUTH")
NOT_BASE64 = Reply.of(501, "5.2", "Not base64")
CANCELLED = Reply.of(501, "7.0", "Authentication cancelled")
EXCHANGE_TOO_LONG = Reply.of(500, "5.6", "Authentication exchange line is too long")

# Recipients.
TOO_MANY_RECIPIENTS = Reply.of(452, "5.3", "Too many recipients")  # RFC 5321 §4.5.3.1.10
NEEDS_UTF8 = Reply.of(553, "6.7", "Addresses outside ASCII need SMTPUTF8")  # RFC 6531 §3.5

# Content.
TOO_LARGE = Reply.of(552, "3.4", "Message size exceeds the limit of this server")  # RFC 1870 §6.1
BARE_NEWLINE = Reply.of(550, "6.0", "Message has a CR or LF outside CR LF, or a NUL")
LONG_LINE = Reply.of(550, "6.0", "Message has a line of more than 998 octets")
CHUNK_ACCEPTED = Reply.of(250, "0.0", "Chunk accepted")  # RFC 3030 §2
CHUNK_UNREADABLE = Reply.of(501, "5.4", "Syntax: BDAT octets [LAST]")
ONLY_CHUNKS = Reply.of(503, "5.1", "Content of BODY=BINARYMIME comes by BDAT, not by DATA")
LOCAL_ERROR = Reply.of(451, "3.0", "Local error, try again later")
WRONG_COUNT = Reply.of(451, "3.0", "Local error: not every recipient has a reply")

# VRFY and EXPN (RFC 5321 §3.5.3, §7.3).
NOT_VERIFIED = Reply.of(252, "0.0", "Cannot VRFY user, but will take mail and attempt delivery")
NOT_EXPANDED = Reply.of(252, "0.0", "Not a mailbox of this server")
ANSWER_NEEDS_UTF8 = Reply.of(252, "6.8", "The reply has characters outside ASCII: add SMTPUTF8")

# The end of a session (RFC 5321 §3.8).
TOO_MANY_ERRORS = Reply.of(421, "7.0", "Too many errors")
TOO_MANY_AUTH_FAILURES = Reply.of(421, "7.0", "Too many failed authentications")
SHUTTING_DOWN = Reply.of(421, "3.2", "Service closing, try again later")
TOO_SLOW = Reply.of(421, "4.2", "The message came too slowly")
NOT_ENDED = Reply.of(421, "4.2", "Only <CR><LF>.<CR><LF> ends a message; another line end came")
CANNOT_SERVE = Reply.of(421, "3.0", "Local error, try again later")
IDLE_TOO_LONG = Reply.of(421, "4.2", "Idle for too long")

MISPLACED: Mapping[str, Reply] = {
    "MAIL": Reply.of(503, "5.1", "MAIL comes after EHLO and once in a transaction"),
    "RCPT": Reply.of(503, "5.1", "RCPT comes after MAIL"),
    "DATA": Reply.of(503, "5.1", "DATA needs a recipient that was accepted"),
    "BDAT": Reply.of(503, "5.1", "BDAT needs a recipient that was accepted"),
    "AUTH": Reply.of(503, "5.1", "AUTH comes after EHLO, where it is offered, and not within MAIL"),
}
"""The replies to verbs where `machine.TRANSITIONS` does not have them (RFC 5321 §4.1.4)."""
