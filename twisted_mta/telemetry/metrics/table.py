"""The table of all metrics, with their labels and the values of each label.

Labels are bounded: a value that is not in the table counts as ``other``, so no peer can create a
time series. Names never change their meaning; a new meaning gets a new name.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Literal

from attrs import field, frozen

from ...health.trouble import KINDS, SEVERITIES
from ...mail.classification_table import CLASSIFICATIONS

PREFIX = "twisted_mta_"
OTHER = "other"
"""The label value for all values that are not in the table."""


@frozen(eq=False)  # compared and hashed by identity, which is what counting needs to be quick
class Metric:
    """One metric.

    Attributes:
        name: as Prometheus shows it.
        kind: counter, gauge or histogram.
        help: one sentence for people.
        labels: the values of each label, beside ``other``.
        bounds: of a histogram: the upper bounds of its buckets, rising.
        fold: of a gauge: how those of several processes are combined.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: Mapping[str, tuple[str, ...]] = field(factory=dict)
    bounds: tuple[float, ...] = ()
    fold: Literal["sum", "min", "max"] = "sum"

    @property
    def combinations(self) -> int:
        """The most time series (of a histogram: histograms)."""
        return prod(len(values) + 1 for values in self.labels.values())

    def __repr__(self) -> str:
        return f"<{self.name}>"


_KIND = ("smtp", "submission", "submissions", "lmtp", "local_submission")
_REFUSING = ("4", "5")
_SUBJECT = ("0", "1", "2", "3", "4", "5", "6", "7", "none")  # RFC 3463 §3; none: no enhanced code
_TRANSPORT = ("smtp", "lmtp", "deliver", "maildir", "discard", "error")
_DISKS = ("state", "maildir")
_TLS = ("none", "TLSv1.2", "TLSv1.3")
# RFC 3848, RFC 6531 §4.3
_PROTOCOL = (
    *("SMTP", "ESMTP", "ESMTPS", "ESMTPA", "ESMTPSA"),
    *("UTF8SMTP", "UTF8SMTPS", "UTF8SMTPA", "UTF8SMTPSA"),
    *("LMTP", "LMTPS", "LMTPA", "LMTPSA"),
    *("UTF8LMTP", "UTF8LMTPS", "UTF8LMTPA", "UTF8LMTPSA"),
)
# From delivery into a Maildir to the last retry of a day.
_DELAYS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0)
# From a commit on a fast disk to one during which clients time out.
_COMMITS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

# Sessions.

CONNECTIONS_TAKEN = Metric(
    f"{PREFIX}connections_taken_total",
    "counter",
    "Connections that were accepted, by the kind of listener.",
    {"kind": _KIND},
)
CONNECTIONS_REFUSED = Metric(
    f"{PREFIX}connections_refused_total",
    "counter",
    "Connections that got 421 instead of a greeting: too many in all, too many from one address,"
    " or while draining.",
    {"kind": _KIND, "reason": ("limit", "peer_limit", "draining")},
)
CONNECTIONS_OPEN = Metric(
    f"{PREFIX}connections_open", "gauge", "Connections that are open now.", {"kind": _KIND}
)
SESSIONS = Metric(
    f"{PREFIX}sessions_total",
    "counter",
    "Sessions that have ended, by their version of TLS at the end.",
    {"kind": _KIND, "tls": _TLS},
)
EARLY_DATA = Metric(
    f"{PREFIX}early_data_total",
    "counter",
    "Sessions that were closed for octets sent before their turn (RFC 3207 §4, RFC 2920 §3.1).",
    {"kind": _KIND},
)
DOWNGRADES = Metric(
    f"{PREFIX}tls_downgrades_total",
    "counter",
    "MAIL commands in clear from networks that are known to use TLS (RFC 3207 §6).",
    {"kind": _KIND},
)
HANDSHAKES_FAILED = Metric(
    f"{PREFIX}tls_handshakes_failed_total",
    "counter",
    "TLS handshakes that failed, with our clients or with next hops.",
    {"side": ("server", "client")},
)
CERTIFICATE_EXPIRY = Metric(
    f"{PREFIX}certificate_expiry_time_seconds",
    "gauge",
    "Time at which the first of the certificates in force expires, in seconds since the epoch, by"
    " the kind of listener.",
    {"listener": _KIND},
    fold="min",
)
EXPIRY = Metric(
    f"{PREFIX}expiry_time_seconds",
    "gauge",
    "Time at which the first of its kind expires, or is to be replaced, in seconds since the epoch,"
    " by the files of the settings.",
    {"what": ("certificate", "client certificate", "DKIM key")},
    fold="min",
)

# Policies.

POLICY_VERDICTS = Metric(
    f"{PREFIX}policy_verdicts_total",
    "counter",
    "Verdicts of policies on clients and their mail.",
    {
        "policy": (
            *("spf", "dkim", "dmarc", "arc", "iprev"),
            *("allow", "deny", "dnsbl", "greylist", "policy_service", "milter", "application"),
        ),
        "result": (
            *("pass", "fail", "softfail", "neutral", "none", "policy", "temperror", "permerror"),
            *("refuse", "defer", "mark", "rewrite", "quarantine", "hold", "discard"),
        ),
    },
)

# Messages received.

MESSAGES_ACCEPTED = Metric(
    f"{PREFIX}messages_accepted_total",
    "counter",
    "Messages that were accepted.",
)
RECIPIENTS_ACCEPTED = Metric(
    f"{PREFIX}recipients_accepted_total",
    "counter",
    "Recipients of the messages that were accepted.",
)
OCTETS_ACCEPTED = Metric(
    f"{PREFIX}accepted_bytes_total",
    "counter",
    "Octets of the messages that were accepted.",
)
TRANSACTIONS = Metric(
    f"{PREFIX}transactions_total",
    "counter",
    "Messages received, by the protocol that their Received field names (RFC 3848).",
    {"protocol": _PROTOCOL},
)
REFUSED = Metric(
    f"{PREFIX}refused_total",
    "counter",
    "Senders, recipients and messages that were refused, by the class of the reply and the subject"
    " of its enhanced status code (RFC 3463 §3).",
    {"stage": ("client", "helo", "mail", "rcpt", "data"), "class": _REFUSING, "subject": _SUBJECT},
)

AUTHENTICATIONS = Metric(
    f"{PREFIX}authentications_total",
    "counter",
    "AUTH commands by result: accepted, failed, refused after too many failures, or not checked"
    " because of an error.",
    {
        "mechanism": (
            *("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"),
            *("EXTERNAL", "OAUTHBEARER", "XOAUTH2"),
        ),
        "result": ("ok", "failed", "throttled", "error"),
    },
)

ACCOUNT_LIMITS = Metric(
    f"{PREFIX}account_limit_refusals_total",
    "counter",
    "Messages and recipients that were refused by the hourly limit of their account, by the kind of"
    " account: of AUTH, a user of this machine, a client certificate, or named by an application.",
    {
        "what": ("messages", "recipients"),
        "kind": ("account", "uid", "certificate", "application"),
    },
)

SUPPRESSIONS = Metric(
    f"{PREFIX}suppression_total",
    "counter",
    "Recipients that were refused since they are on the suppression list, and addresses that came"
    " on it or left it: by the operator, or since mail was delivered.",
    {"event": ("refused", "added", "removed", "delivered")},
)

FEEDBACK = Metric(
    f"{PREFIX}feedback_reports_total",
    "counter",
    "Reports of complaints about our mail: counted, or not since SPF and DKIM do not prove the"
    " sender, since they have no id of ours, are repeated or cannot be read; by their type.",
    {
        "result": ("counted", "unverified", "unknown", "repeated", "unreadable"),
        "type": ("abuse", "fraud", "virus", "not-spam", "opt-out", "auth-failure"),
    },
)

# Messages delivered.

OUTCOMES = Metric(
    f"{PREFIX}outcomes_total",
    "counter",
    "Outcomes of attempts, one for each recipient, by transport and the subject of the enhanced"
    " status code (RFC 3463 §3).",
    {
        "transport": _TRANSPORT,
        "outcome": ("delivered", "deferred", "failed"),
        "subject": _SUBJECT,
    },
)
FAILURES = Metric(
    f"{PREFIX}failures_total",
    "counter",
    "Attempts that did not deliver, one for each recipient, by the classification of the reply.",
    {"outcome": ("deferred", "failed"), "class": CLASSIFICATIONS},
)
DELIVERY_DELAY = Metric(
    f"{PREFIX}delivery_delay_seconds",
    "histogram",
    "Time from acceptance to delivery, for each delivered recipient.",
    {"transport": _TRANSPORT},
    bounds=_DELAYS,
)
NEXT_HOP_SESSIONS = Metric(
    f"{PREFIX}next_hop_sessions_total",
    "counter",
    "Sessions that were opened with next hops, by the level of TLS that was required and by the"
    " version that they have.",
    {"level": ("none", "may", "encrypt", "verify", "dane"), "tls": _TLS},
)
NEXT_HOP_CONNECTIONS = Metric(
    f"{PREFIX}next_hop_connections_total",
    "counter",
    "Connections to next hops: opened, reused for another transaction, or failed.",
    {"result": ("opened", "reused", "failed")},
)
TRACES_OPEN = Metric(
    f"{PREFIX}traces_open",
    "gauge",
    "Live traces that are open.",
    fold="max",
)
NEXT_HOPS_SUSPENDED = Metric(
    f"{PREFIX}next_hops_suspended",
    "gauge",
    "Next hops that are suspended because no session can be opened; with several processes, the"
    " highest number of one of them.",
    fold="max",
)
DESTINATIONS_SUSPENDED = Metric(
    f"{PREFIX}destinations_suspended",
    "gauge",
    "Destinations that the operator has suspended.",
)
TLS_ALARMS = Metric(
    f"{PREFIX}tls_alarms_total",
    "counter",
    "Connections without TLS to next hops that had TLS before (RFC 3207 §6), whether mail was sent"
    " or not.",
)
TLS_RESUMED = Metric(
    f"{PREFIX}tls_sessions_resumed_total",
    "counter",
    "TLS handshakes with next hops that resumed a session.",
)
TLS_HANDSHAKE_RETRIES = Metric(
    f"{PREFIX}tls_handshake_retries_total",
    "counter",
    "Connections after a TLS handshake with a next hop that broke off: with a new session, or with"
    " a small ClientHello.",
)
TLS_CLEAR_RETRIES = Metric(
    f"{PREFIX}tls_clear_retries_total",
    "counter",
    "Connections that were repeated in clear after a failed TLS handshake.",
)
CREDENTIALS_REFUSED = Metric(
    f"{PREFIX}credentials_refused_total",
    "counter",
    "Times that a next hop refused our credentials.",
)
TOKEN_FAILURES = Metric(
    f"{PREFIX}token_failures_total",
    "counter",
    "Attempts to get an OAuth token for an account at a next hop that have failed.",
)
WEBHOOK_EVENTS = Metric(
    f"{PREFIX}webhook_events_total",
    "counter",
    "Events for webhooks: posted and taken; attempts that failed; dropped since too many waited, or"
    " expired.",
    {"result": ("posted", "failed", "dropped", "expired")},
)
WEBHOOK_WAITING = Metric(
    f"{PREFIX}webhook_events_waiting", "gauge", "Events that wait for webhooks."
)
WEBHOOKS_FAILING = Metric(
    f"{PREFIX}webhooks_failing",
    "gauge",
    "Webhooks whose last attempt has failed, or that are disabled.",
    fold="max",
)
REPLY_ACTIONS = Metric(
    f"{PREFIX}reply_actions_total",
    "counter",
    "Recipients whose attempt had a reply that a [[reply_action]] applied to, by its action.",
    {"action": ("defer", "suspend", "other_source", "fail")},
)
TLS_RESULTS = Metric(
    f"{PREFIX}tls_results_total",
    "counter",
    "Sessions with mail exchangers, and looks for their policies, by the kind of policy and by"
    " success or the result type of RFC 8460 §4.3.",
    {
        "policy": ("tlsa", "sts", "no-policy-found"),
        "result": (
            *("success", "starttls-not-supported", "certificate-host-mismatch"),
            *("certificate-expired", "certificate-not-trusted", "validation-failure"),
            *("tlsa-invalid", "dnssec-invalid", "dane-required"),
            *("sts-policy-fetch-error", "sts-policy-invalid", "sts-webpki-invalid"),
        ),
    },
)
TLS_REPORTS = Metric(
    f"{PREFIX}tls_reports_total",
    "counter",
    "Reports on TLS (RFC 8460) to one mailbox list or one collector, by the way that they took.",
    {"way": ("mail", "https"), "result": ("sent", "failed")},
)
DELIVERIES_ACTIVE = Metric(
    f"{PREFIX}deliveries_active", "gauge", "Delivery transactions under way now."
)
NOTICES = Metric(
    f"{PREFIX}notices_total",
    "counter",
    "Delivery status notifications that were written, by their action (RFC 3464 §2.3.3).",
    {"action": ("failed", "delayed", "delivered", "relayed", "expanded")},
)

# The queue.

COMMIT_BATCHES = Metric(
    f"{PREFIX}commit_batches_total", "counter", "Transactions that the queue has committed."
)
COMMIT_OPERATIONS = Metric(
    f"{PREFIX}commit_operations_total",
    "counter",
    "Operations in the committed transactions; per batch, how many shared one sync of the disk.",
)
COMMIT_DURATION = Metric(
    f"{PREFIX}commit_duration_seconds",
    "histogram",
    "Time of each transaction of the queue.",
    bounds=_COMMITS,
)
QUEUE_MESSAGES = Metric(f"{PREFIX}queue_messages", "gauge", "Messages in the queue.")
QUEUE_RECIPIENTS = Metric(
    f"{PREFIX}queue_recipients", "gauge", "Recipients in the queue, whatever their state."
)
QUEUE_DEFERRED = Metric(
    f"{PREFIX}queue_deferred_recipients", "gauge", "Recipients that were tried before."
)
QUEUE_LEASED = Metric(
    f"{PREFIX}queue_leased_recipients", "gauge", "Recipients that are leased for delivery."
)
QUEUE_QUARANTINED = Metric(
    f"{PREFIX}queue_quarantined_messages", "gauge", "Messages whose body file is lost."
)
QUEUE_AGE = Metric(
    f"{PREFIX}queue_age_recipients",
    "gauge",
    "Recipients in the queue by the age of their message: up to that age, and above the one before."
    " Counted every 30 seconds while metrics are requested.",
    {"age": ("5m", "1h", "4h", "1d", "5d", "older")},
)
QUEUE_DEFERRED_FOR = Metric(
    f"{PREFIX}queue_deferred_by_reason_recipients",
    "gauge",
    "Recipients that were tried before, by the reason of the last failure; counted like the ages.",
    {"reason": ("unreachable", "dns", "tls", "throttled", "refused", "internal")},
)
QUEUE_HELD = Metric(
    f"{PREFIX}queue_held_recipients", "gauge", "Recipients on hold by the operator."
)
OPERATED = Metric(
    f"{PREFIX}queue_operations_total",
    "counter",
    "Recipients that the operator retried, held, released or removed.",
    {"action": ("retry", "hold", "release", "remove")},
)
QUEUE_FAILURES = Metric(
    f"{PREFIX}queue_unreported_failures",
    "gauge",
    "Records of failures for which no notice was sent.",
)

LOCAL_WAITING = Metric(
    f"{PREFIX}local_submission_files",
    "gauge",
    "Files in the directory where messages of twisted-mta-sendmail wait, as of the last look:"
    " messages, and what was no message and is set aside for a week.",
    {"state": ("waiting", "set_aside")},
)

# The program.

READY = Metric(f"{PREFIX}ready", "gauge", "1 while /readyz answers 200, else 0.", fold="min")
PROCESSES = Metric(
    f"{PREFIX}processes",
    "gauge",
    "Processes that handle mail, by state.",
    {"state": ("starting", "ready", "draining", "not answering", "ended")},
)
MACHINES = Metric(
    f"{PREFIX}machines",
    "gauge",
    "Machines with this queue in the last day, by whether they are alive.",
    {"state": ("alive", "silent")},
    fold="max",
)
TROUBLE = Metric(
    f"{PREFIX}trouble",
    "gauge",
    "Troubles that are there now, by kind and severity; /v1/status describes each.",
    {"kind": tuple(KINDS), "severity": SEVERITIES},
    fold="max",
)
DISK_FREE = Metric(
    f"{PREFIX}disk_free_bytes",
    "gauge",
    "Free octets of the file system of the state directory, and of that of Maildirs if it is"
    " another one.",
    {"of": _DISKS},
    fold="min",
)
INODES_FREE = Metric(
    f"{PREFIX}disk_free_inodes",
    "gauge",
    "Free inodes of the same.",
    {"of": _DISKS},
    fold="min",
)
MEMORY = Metric(
    f"{PREFIX}resident_memory_bytes",
    "gauge",
    "Memory of all processes together that is resident; what they share counts several times.",
)
DESCRIPTORS = Metric(
    f"{PREFIX}descriptors_open",
    "gauge",
    "Descriptors in use, by the lowest number that is free; of the process that has most of them.",
    fold="max",
)
DESCRIPTORS_MOST = Metric(
    f"{PREFIX}descriptors_limit",
    "gauge",
    "Descriptors that a process may have (RLIMIT_NOFILE).",
    fold="min",
)
LOOKUPS = Metric(
    f"{PREFIX}dns_lookups_total",
    "counter",
    "Lookups in the DNS: answered, NXDOMAIN included, or failed.",
    {"result": ("answered", "failed")},
)
WORKER_HANGS = Metric(
    f"{PREFIX}worker_hangs_total",
    "counter",
    "Workers that were killed because they did not answer.",
)
WORKER_RESTARTS = Metric(
    f"{PREFIX}worker_restarts_total", "counter", "Workers that were started again."
)
RELOADS = Metric(
    f"{PREFIX}reloads_total",
    "counter",
    "Reloads of the configuration and the files that it names.",
    {"result": ("ok", "failed")},
)
LOG_LINES_DROPPED = Metric(
    f"{PREFIX}log_lines_dropped_total", "counter", "Lines of the log that could not be written."
)
START_TIME = Metric(
    f"{PREFIX}start_time_seconds",
    "gauge",
    "Time of the start, in seconds since the epoch.",
    fold="min",
)

TABLE: tuple[Metric, ...] = (
    CONNECTIONS_TAKEN,
    CONNECTIONS_REFUSED,
    CONNECTIONS_OPEN,
    SESSIONS,
    EARLY_DATA,
    DOWNGRADES,
    HANDSHAKES_FAILED,
    CERTIFICATE_EXPIRY,
    EXPIRY,
    POLICY_VERDICTS,
    MESSAGES_ACCEPTED,
    RECIPIENTS_ACCEPTED,
    OCTETS_ACCEPTED,
    TRANSACTIONS,
    REFUSED,
    AUTHENTICATIONS,
    ACCOUNT_LIMITS,
    SUPPRESSIONS,
    FEEDBACK,
    OUTCOMES,
    FAILURES,
    DELIVERY_DELAY,
    NEXT_HOP_SESSIONS,
    NEXT_HOP_CONNECTIONS,
    TRACES_OPEN,
    NEXT_HOPS_SUSPENDED,
    DESTINATIONS_SUSPENDED,
    TLS_ALARMS,
    TLS_RESUMED,
    TLS_HANDSHAKE_RETRIES,
    TLS_CLEAR_RETRIES,
    CREDENTIALS_REFUSED,
    TOKEN_FAILURES,
    WEBHOOK_EVENTS,
    WEBHOOK_WAITING,
    WEBHOOKS_FAILING,
    REPLY_ACTIONS,
    TLS_RESULTS,
    TLS_REPORTS,
    DELIVERIES_ACTIVE,
    NOTICES,
    COMMIT_BATCHES,
    COMMIT_OPERATIONS,
    COMMIT_DURATION,
    QUEUE_MESSAGES,
    QUEUE_RECIPIENTS,
    QUEUE_DEFERRED,
    QUEUE_LEASED,
    QUEUE_QUARANTINED,
    QUEUE_AGE,
    QUEUE_DEFERRED_FOR,
    QUEUE_HELD,
    OPERATED,
    QUEUE_FAILURES,
    LOCAL_WAITING,
    READY,
    PROCESSES,
    MACHINES,
    TROUBLE,
    DISK_FREE,
    INODES_FREE,
    MEMORY,
    DESCRIPTORS,
    DESCRIPTORS_MOST,
    LOOKUPS,
    WORKER_HANGS,
    WORKER_RESTARTS,
    RELOADS,
    LOG_LINES_DROPPED,
    START_TIME,
)
"""Every metric, in the order of the page."""
