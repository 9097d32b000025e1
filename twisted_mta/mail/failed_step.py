"""The step at which an attempt failed before the next hop had a session for us, in words."""

from __future__ import annotations

import re

from .outcome import Outcome

# By subject and detail (RFC 3463) of a reply of our own.
_OWN = {
    "3.0": "it failed",
    "4.1": "no connection could be made",
    "4.2": "the connection ended before a session was open",
    "4.3": "the DNS lookup failed",
    "4.4": "there is no address to connect to",
    "5.0": "its replies break the protocol",
    "7.0": "STARTTLS failed",
    "7.4": "TLS is required, and STARTTLS cannot be used",
    "7.5": "TLS failed",
    "7.8": "our credentials could not be used",
}
_COMMANDS = ("EHLO", "LHLO", "HELO", "STARTTLS", "AUTH")
_UNKNOWN_COMMAND = (500, 501, 502)  # RFC 5321 §4.2.4
# The line of a transcript with which the dialogue with a server begins.
_SERVER = re.compile(r"\* (?:/.*|[^ ]*\[[^ \]]*\]:[0-9]+)")


def failed_step(outcome: Outcome) -> str:
    """Return the step at which a next hop failed, as a clause without its reply.

    Args:
        outcome: of an attempt that did not get a session (`Outcome.unreachable`).
    """
    reply = outcome.reply
    if outcome.suspends is not None:
        return "a [[reply_action]] says so"
    if outcome.remote is not None:
        return _refusal(reply.code, _refused_at(outcome.transcript, outcome.remote))
    if len(reply.lines) > 1 and reply.status == "4.1":
        return "none of its hosts could be used"
    if reply.status == "7.5" and outcome.tls is not None:
        return "its certificate was not accepted"
    return _OWN.get(reply.status or "", "no session could be opened")


def _refusal(code: int, step: str) -> str:
    if step.startswith("AUTH") and code >= 500:
        of_token = step.removeprefix("AUTH ") in ("OAUTHBEARER", "XOAUTH2")
        return f"it refused our account and {'token' if of_token else 'password'}"
    if step == "LHLO" and code in _UNKNOWN_COMMAND:
        return "it does not speak LMTP"
    if step == "STARTTLS":
        return "TLS is required, and it refused STARTTLS"
    command = "AUTH" if step.startswith("AUTH") else step
    return f"it refused the session at {command}"


def _refused_at(transcript: str, remote: str) -> str:
    """Return the last command before QUIT that a server got; its greeting where there is none.

    AUTH comes with its mechanism.
    """
    step, theirs = "its greeting", True  # a long transcript may lack the line with the server
    for line in transcript.splitlines():
        if line.startswith("* ") and _SERVER.fullmatch(line):
            theirs = line == f"* {remote}"
            step = "its greeting" if theirs else step
        elif theirs and line.startswith("C: "):
            command, _, rest = line.removeprefix("C: ").upper().partition(" ")
            if command == "AUTH":
                step = f"AUTH {rest.partition(' ')[0]}"
            elif command in _COMMANDS:
                step = command
    return step
