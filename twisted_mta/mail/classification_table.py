"""The words by which large receivers and common servers say why they do not take mail.

Each row has the source of its words. The first row that fits counts, so that rows with particular
words stand above those with general ones. A row fits where all its words occur in the text of a
reply, in lower case and with single spaces, and the detail of its enhanced status code is one of
the row's, if the row has any.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from attrs import frozen

Classification = Literal[
    "mailbox-full",
    "unknown-user",
    "inactive",
    "unknown-domain",
    "blocked",
    "spam",
    "policy",
    "authentication",
    "rate",
    "too-large",
    "unreachable",
    "temporary",
    "other",
]
"""Why mail was not taken.

* ``mailbox-full``: the mailbox has no room.
* ``unknown-user``: there is no such mailbox.
* ``inactive``: the mailbox exists, and takes no mail: disabled, abandoned, closed.
* ``unknown-domain``: the domain does not exist, or takes no mail (RFC 7505).
* ``blocked``: the address, network or domain of the sender is on a list.
* ``spam``: the content looks like spam.
* ``policy``: a rule of the receiver, about this sender, this recipient or the content.
* ``authentication``: SPF, DKIM, DMARC or the reverse name of the client do not pass.
* ``rate``: too much mail, too many connections or recipients for now.
* ``too-large``: the message is.
* ``unreachable``: no server answered, or none could be found.
* ``temporary``: any other failure that may pass.
* ``other``: any other failure for good.
"""

CLASSIFICATIONS: tuple[Classification, ...] = get_args(Classification)
"""All of them."""


@frozen
class Row:
    """Words of one kind of reply.

    Attributes:
        classification: of the reply.
        words: in lower case; all of them occur.
        source: whose replies have them.
        details: subject and detail of the enhanced status code; empty: any, or none.
        codes: first digit of the reply code; empty: any.
    """

    classification: Classification
    words: tuple[str, ...]
    source: str
    details: tuple[str, ...] = ()
    codes: str = ""


ROWS: tuple[Row, ...] = (
    # SPF, DKIM, DMARC and reverse names: before rates and lists, of which such texts speak too.
    Row("authentication", ("sender is unauthenticated",), "Gmail, 5.7.26"),
    Row("authentication", ("unauthenticated email",), "Gmail, 5.7.26 by DMARC"),
    Row("authentication", ("aligned with either the authenticated",), "Gmail, 4.7.32"),
    Row("authentication", ("required authentication level",), "Outlook, 5.7.515"),
    Row("authentication", ("does not pass dmarc",), "Exchange Online, 5.7.509"),
    Row("authentication", ("failed dmarc",), "OpenDMARC, and proxies of companies"),
    Row("authentication", ("dmarc policy",), "Yahoo, GMX, Postfix with OpenDMARC"),
    Row("authentication", ("dmarc", "reject"), "Apple, Fastmail, Rspamd"),
    Row("authentication", ("dkim", "fail"), "Gmail, Rspamd, OpenDKIM"),
    Row("authentication", ("dkim", "required"), "Gmail, Yahoo"),
    Row("authentication", ("spf", "fail"), "Exchange Online, policyd-spf, Barracuda"),
    Row("authentication", ("spf", "not authorized"), "policyd-spf"),
    Row("authentication", ("spf", "reject"), "Exim, Mimecast"),
    Row("authentication", ("sender policy framework",), "RFC 7208 libraries"),
    Row("authentication", ("openspf",), "policyd-spf, with the address of its page"),
    Row("authentication", ("ptr record",), "Gmail, 5.7.25; AOL"),
    Row("authentication", ("reverse dns",), "Comcast, Exim, Mimecast"),
    Row("authentication", ("reverse lookup",), "Barracuda"),
    Row("authentication", ("cannot find your",), "Postfix, reject_unknown_client_hostname"),
    Row("authentication", ("forward confirmed",), "GMX, T-Online"),
    # No room.
    Row("mailbox-full", ("over quota",), "Gmail, 5.2.2; Apple; Postfix with Dovecot"),
    Row("mailbox-full", ("overquota",), "Gmail, the address of its page"),
    Row("mailbox-full", ("out of storage space",), "Gmail, 4.2.2"),
    Row("mailbox-full", ("quotaexceeded",), "Exchange, QuotaExceededException"),
    Row("mailbox-full", ("quota exceeded",), "Dovecot, Exim, GMX"),
    Row("mailbox-full", ("quota", "exceed"), "Courier, cPanel, Zimbra"),
    Row("mailbox-full", ("exceeded storage allocation",), "RFC 5321, 552; Yahoo"),
    Row("mailbox-full", ("mailbox", "full"), "Exchange, Yahoo, Dovecot, qmail"),
    Row("mailbox-full", ("mailfolder is full",), "Sendmail with procmail"),
    Row("mailbox-full", ("inbox is full",), "webmail providers"),
    Row("mailbox-full", ("not enough storage",), "Exchange"),
    Row("mailbox-full", ("user disk quota",), "Exim, cPanel"),
    # Rates: before lists and spam, of which such texts speak too.
    Row("rate", ("unusual rate",), "Gmail, 4.7.28"),
    Row("rate", ("receiving mail at a rate",), "Gmail, 4.2.1"),
    Row("rate", ("receiving mail too quickly",), "Gmail, 4.2.1"),
    Row("rate", ("sending limit",), "Gmail, 5.4.5; providers of hosting"),
    Row("rate", ("send limit exceeded",), "GMX and web.de"),
    Row("rate", ("rate limit",), "Outlook, RP-001 and 4.7.650; Mimecast; Rspamd"),
    Row("rate", ("ratelimit",), "Exim, Rspamd"),
    Row("rate", ("throttl",), "Exchange, Proofpoint, Comcast"),
    Row("rate", ("unexpected volume",), "Yahoo, TSS04"),
    Row("rate", ("[ts04]",), "Yahoo, TS04"),
    Row("rate", ("rp-001",), "Outlook, RP-001"),
    Row("rate", ("too many connections",), "Postfix, Exim, Comcast"),
    Row("rate", ("too many concurrent",), "Orange, Exim"),
    Row("rate", ("too many sessions",), "Comcast"),
    Row("rate", ("too many messages",), "Postfix, qmail"),
    Row("rate", ("too many recipients",), "Postfix, Exim, Gmail"),
    Row("rate", ("too much mail",), "Postfix, anvil"),
    Row("rate", ("per hour",), "Exim with cPanel"),
    Row("rate", ("recipientlimit",), "Exchange, 5.2.121"),
    Row("rate", ("exceeded", "limit", "messages"), "Exchange Online, 5.2.122"),
    # No such mailbox.
    Row("unknown-user", ("nosuchuser",), "Gmail, the address of its page"),
    Row("unknown-user", ("tried to reach does not exist",), "Gmail, 5.1.1"),
    Row("unknown-user", ("recipientnotfound",), "Exchange Online, 5.1.10"),
    Row("unknown-user", ("recipient not found",), "Exchange Online, 5.1.10"),
    Row(
        "unknown-user",
        ("recipient address rejected: access denied",),
        "Exchange Online, 5.4.1, for addresses that its directory does not have",
        ("4.1",),
    ),
    Row("unknown-user", ("doesn't have a", "account"), "Yahoo, dd"),
    Row("unknown-user", ("mailbox not found",), "Yahoo, 552 1"),
    Row("unknown-user", ("no such user",), "cPanel, Sendmail, Mail.ru"),
    Row("unknown-user", ("no such mailbox",), "this MTA, Apple"),
    Row("unknown-user", ("no such recipient",), "Zoho, Sendmail"),
    Row("unknown-user", ("no such address",), "Fastmail, Exim"),
    Row("unknown-user", ("no mailbox here by that name",), "qmail"),
    Row("unknown-user", ("no mailbox by that name",), "qmail"),
    Row("unknown-user", ("user unknown",), "Postfix, Sendmail"),
    Row("unknown-user", ("unknown user",), "Exim, Courier, Apple"),
    Row("unknown-user", ("unknown recipient",), "MDaemon"),
    Row("unknown-user", ("unknown local part",), "Exim"),
    Row("unknown-user", ("recipient unknown",), "Proofpoint"),
    Row("unknown-user", ("address unknown",), "Proofpoint"),
    Row("unknown-user", ("unknown address",), "Proofpoint, Lotus"),
    Row("unknown-user", ("user not found",), "Zimbra, Mail.ru"),
    Row("unknown-user", ("account not found",), "Yandex"),
    Row("unknown-user", ("user does not exist",), "Apple, Dovecot"),
    Row("unknown-user", ("user doesn't exist",), "Dovecot"),
    Row("unknown-user", ("mailbox does not exist",), "T-Online, Libero"),
    Row("unknown-user", ("account does not exist",), "Zoho"),
    Row("unknown-user", ("address does not exist",), "Postfix by verification, Orange"),
    Row("unknown-user", ("recipient does not exist",), "Barracuda"),
    Row("unknown-user", ("invalid recipient",), "Mimecast, Proofpoint, Exchange"),
    Row("unknown-user", ("invalid mailbox",), "qmail, Lotus"),
    Row("unknown-user", ("unrouteable address",), "Exim"),
    Row("unknown-user", ("undeliverable address",), "Postfix by verification", codes="5"),
    Row("unknown-user", ("not listed in domino directory",), "Lotus Domino"),
    Row("unknown-user", ("unknown in virtual",), "Postfix"),
    Row("unknown-user", ("unknown in local recipient table",), "Postfix"),
    # The mailbox exists, and takes nothing.
    Row("inactive", ("tried to reach is disabled",), "Gmail, 5.2.1"),
    Row("inactive", ("tried to reach is inactive",), "Gmail, 5.2.1"),
    Row("inactive", ("account", "disabled"), "Zimbra, Mail.ru, Yahoo"),
    Row("inactive", ("mailbox", "disabled"), "Exchange, Barracuda"),
    Row("inactive", ("user", "disabled"), "Zoho, cPanel"),
    Row("inactive", ("account", "inactive"), "Gmail, Rediff"),
    Row("inactive", ("mailbox is inactive",), "providers of access"),
    Row("inactive", ("account", "suspended"), "cPanel"),
    Row("inactive", ("no longer accepting mail",), "AOL"),
    Row("inactive", ("not accepting messages",), "Exchange"),
    Row("inactive", ("account", "closed"), "Orange"),
    # No such domain.
    Row("unknown-domain", ("null mx",), "RFC 7505, Postfix, Exim"),
    Row("unknown-domain", ("does not accept mail",), "RFC 7505, Postfix", ("1.10",)),
    Row("unknown-domain", ("domain", "does not exist"), "Exchange Online, 5.4.310", codes="5"),
    Row("unknown-domain", ("domain not found",), "Postfix", codes="5"),
    Row("unknown-domain", ("domain name not found",), "Postfix, 5.4.4", codes="5"),
    Row("unknown-domain", ("unknown domain",), "Exim", codes="5"),
    Row("unknown-domain", ("host unknown",), "Sendmail", codes="5"),
    # Lists.
    Row("blocked", ("banned send",), "Exchange Online, 5.7.606 and 5.7.511"),
    Row("blocked", ("block list",), "Outlook, S3140 and S3150; Gmail"),
    Row("blocked", ("blocklist",), "Spamhaus's words, Abusix, Fastmail"),
    Row("blocked", ("blacklist",), "Exim, SpamCop, Barracuda"),
    Row("blocked", ("black list",), "GMX, Exim"),
    Row("blocked", ("blocked using",), "Postfix, with the name of a list"),
    Row("blocked", ("spamhaus",), "Spamhaus's lists; Yahoo, BL21; Apple"),
    Row("blocked", ("spamcop",), "SpamCop's list"),
    Row("blocked", ("barracudacentral",), "Barracuda's list"),
    Row("blocked", ("sorbs",), "SORBS"),
    Row("blocked", ("uceprotect",), "UCEPROTECT"),
    Row("blocked", ("ipcheck.proofpoint",), "Proofpoint"),
    Row("blocked", ("dynamic ip",), "lists of dial-up addresses"),
    Row("blocked", ("permanently deferred",), "Yahoo, TS03 and TSS09"),
    Row("blocked", ("[ts03]",), "Yahoo, TS03"),
    Row("blocked", ("connections will not be accepted from",), "Yahoo"),
    Row("blocked", ("traffic not accepted from this ip",), "Exchange Online, 5.7.708"),
    Row("blocked", ("poor reputation",), "Mimecast, Cisco"),
    Row("blocked", ("low reputation",), "Gmail, 5.7.1"),
    Row("blocked", ("reputation",), "Cisco Talos, AT&T, Trend Micro"),
    Row("blocked", (":blocked)",), "Barracuda"),
    Row("blocked", ("tosa@rx.t-online.de",), "T-Online"),
    Row("blocked", ("comcast block",), "Comcast"),
    Row("blocked", ("dy-001",), "Outlook, DY-001"),
    Row("blocked", ("sc-001",), "Outlook, SC-001"),
    Row("blocked", ("your ip", "blocked"), "AT&T, cPanel"),
    Row("blocked", ("ip address", "blocked"), "Zoho, Orange"),
    Row("blocked", ("listed at",), "Exim, with the name of a list"),
    Row("blocked", ("listed in",), "Sendmail, with the name of a list"),
    Row("blocked", ("listed by",), "Rspamd"),
    # Content.
    Row("spam", ("likely unsolicited",), "Gmail, 5.7.1"),
    Row("spam", ("unsolicited",), "Gmail, Yahoo, Mail.ru"),
    Row("spam", ("looks like spam",), "Libero, Zoho"),
    Row("spam", ("classified as spam",), "Exim with SpamAssassin"),
    Row("spam", ("identified as spam",), "Barracuda, IONOS"),
    Row("spam", ("detected as spam",), "Trend Micro, Zoho"),
    Row("spam", ("rejected as spam",), "Exchange, Content Filtering"),
    Row("spam", ("considered spam",), "AOL, SpamAssassin"),
    Row("spam", ("spam message",), "Rspamd"),
    Row("spam", ("spamsignature",), "Mimecast"),
    Row("spam", ("spam score",), "cPanel, SpamAssassin"),
    Row("spam", ("spam content",), "Proofpoint, Cisco"),
    Row("spam", ("spam-like",), "Mail.ru"),
    Row("spam", ("suspected spam",), "Yandex, Mail.ru"),
    Row("spam", ("bulk mail",), "Naver, QQ"),
    # Size.
    Row("too-large", ("message size limit",), "Gmail, 5.3.4"),
    Row("too-large", ("size exceeds",), "Postfix, Exim, qmail"),
    Row("too-large", ("message exceeds", "limit"), "this MTA, Sendmail"),
    Row("too-large", ("message too large",), "Exchange, Courier"),
    Row("too-large", ("message too big",), "Mail.ru, Lotus"),
    Row("too-large", ("message is too large",), "Exchange, Apple"),
    Row("too-large", ("recipsizelimit",), "Exchange, 5.2.3"),
    Row("too-large", ("maximum message size",), "Yahoo, Sendmail"),
    # Rules.
    Row("policy", ("relay",), "Postfix, Exim, Exchange: the domain is not served there", codes="5"),
    Row("policy", ("relay access denied",), "Postfix, deferred"),
    Row("policy", ("rcpthosts",), "qmail"),
    Row("policy", ("potential security issue",), "Gmail, 5.7.0"),
    Row("policy", ("policy that prohibited",), "Gmail, 5.7.1"),
    Row("policy", ("policy reasons",), "Yahoo, 5.7.9 and PH01"),
    Row("policy", ("local policy",), "Apple, CS01; Proofpoint"),
    Row("policy", ("policy restrictions",), "GMX and web.de"),
    Row("policy", ("administrative prohibition",), "Mimecast, Exim"),
    Row("policy", ("administratively",), "Exim"),
    Row("policy", ("blocked senders",), "Mimecast"),
    Row("policy", ("security polic",), "Mimecast"),
    Row("policy", ("transport.rules",), "Exchange, rules of a company"),
    Row("policy", ("resolver.rst",), "Exchange, rules of a recipient or a group"),
    Row("policy", ("sender denied",), "Exchange, 5.1.0"),
    Row("policy", ("sender verify failed",), "Exim"),
    Row("policy", ("virus",), "ClamAV, Exim, Sophos"),
    Row("policy", ("malware",), "Gmail, Proofpoint"),
    Row("policy", ("attachment",), "Barracuda, Yahoo"),
    Row("policy", ("user complaints",), "Yahoo, AOL"),
    Row("policy", ("policy",), "any"),
    # What may pass.
    Row("temporary", ("greylist",), "RFC 6647, Postgrey, Rspamd"),
    Row("temporary", ("graylist",), "likewise"),
    Row("temporary", ("grey-list",), "likewise"),
    Row("temporary", ("grey listed",), "likewise"),
    # The words of RFC 5321 §4.2.3, which some large receivers write about unknown users.
    Row(
        "unknown-user",
        ("mailbox unavailable",),
        "Outlook, 5.5.0; GMX and web.de, 550",
        codes="5",
    ),
)
"""The rows, in order."""

BY_DETAIL: Mapping[str, Classification] = {
    "1.1": "unknown-user",
    "1.2": "unknown-domain",
    "1.3": "unknown-user",
    "1.6": "unknown-user",  # moved, and no forwarding address
    "1.10": "unknown-domain",  # RFC 7505 §4.1
    "2.1": "inactive",
    "2.2": "mailbox-full",
    "2.3": "too-large",
    "3.4": "too-large",
    "4.4": "unknown-domain",
    "5.3": "rate",  # too many recipients
    "7.20": "authentication",  # RFC 7372, to 7.26
    "7.21": "authentication",
    "7.22": "authentication",
    "7.23": "authentication",
    "7.24": "authentication",
    "7.25": "authentication",
    "7.26": "authentication",
    "7.28": "rate",  # registered for a flood of mail
}
"""By subject and detail of the enhanced status code (RFC 3463 §3), where no words tell."""

BY_DETAIL_DEFERRED: Mapping[str, Classification] = {
    "4.1": "unreachable",
    "4.2": "unreachable",
    "4.3": "unreachable",
    "4.4": "unreachable",
}
"""The same for ``4yz``, before the others."""
