"""What the explainer says, in words: paragraphs of short lines, all of them printable.

Pure: facts as `explainer.Explainer` gives them (and as JSON has them) in, lines out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..admin.status import short_duration
from ..mail.printable import printable

Facts = Mapping[str, Any]

_MOST_TARGETS = 12  # that are written out

_FINDINGS = {
    "sender": "SRS made it here; it leads back to {to}",
    "alias": "alias in line {line}: {to}",
    "catch-all": "the catch-all of its domain, line {line}: {to}",
    "mailbox": "a mailbox here",
    "elsewhere": "goes on to another domain",
    "itself": "an alias leads back to it: the mailbox of that name",
    "again": "was come by before: cut here",
    "postmaster": "every domain has one (RFC 5321 4.5.1): {to}",
    "nobody": "there is no such mailbox",
}
_WHERE = {
    "local": "a mailbox of a local domain",
    "virtual": "a name in a virtual domain, where aliases alone are",
    "srs": "a name in the domain of rewritten reverse-paths",
    "elsewhere": "not ours",
}

_LIMITS = frozenset(("connections", "concurrency", "limits"))  # holds that end when others do


def lines(facts: Facts) -> Iterator[str]:
    """Yield what is to be written of an answer, without line ends; empty lines part paragraphs."""
    said = _message(facts) if "id" in facts else _address(facts)
    for line in (*said, *_troubles(facts)):
        yield printable(line)


def moment(time: float) -> str:
    """Return a wall time as people read it, in UTC."""
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M:%S}"


def _troubles(facts: Facts) -> Iterator[str]:
    """Yield what is wrong with the MTA as a whole, whatever was asked for."""
    unready = facts.get("unready", "")
    more = [each["text"] for each in facts.get("troubles", ()) if each["text"] not in unready]
    if unready or more:
        yield ""
    if unready:
        yield f"No mail is taken now: {unready}"
    for text in more:
        yield f"Trouble: {text}"


# A message.


def _message(facts: Facts) -> Iterator[str]:
    now = facts["now"]
    sender = "<>" if facts["reverse_path"] is None else f"<{facts['reverse_path']}>"
    yield (
        f"{facts['id']}: from {sender}, {facts['size']} octets, received"
        f" {moment(facts['received_at'])} ({short_duration(now - facts['received_at'])} ago)"
    )
    for recipient in facts["recipients"]:
        yield ""
        yield from _recipient(recipient, now)


def _recipient(recipient: Facts, now: float) -> Iterator[str]:
    original = recipient["original"]
    by_alias = f", written as <{original}>" if original else ""
    tried = recipient["tried"]
    times = "not tried yet" if not tried else f"tried {tried} time{'s' if tried > 1 else ''}"
    yield f"To <{recipient['mailbox']}>{by_alias}: {recipient['state']}, {times}."
    yield f"  Why: {why(recipient, now)}"
    yield f"  Next: {following(recipient, now)}"
    way = recipient["way"]
    if way is not None:
        yield from _indented(_way(way, brief=True))
    attempts = recipient["attempts"]
    if attempts:
        yield "  Attempts:"
    for attempt in attempts:
        yield from _attempt(attempt)


def why(recipient: Facts, now: float) -> str:
    """Return in a sentence or two why a recipient is still here."""
    return " ".join(_hold(each, recipient, now) for each in recipient["holds"])


def _hold(hold: Facts, recipient: Facts, now: float) -> str:
    kind = hold["kind"]
    if kind == "quarantine":
        return f"It is quarantined: {hold['why']}. It is never tried."
    if kind == "held":
        return f"The operator holds it since {moment(hold['since'])}."
    if kind == "removing":
        return "The operator has removed it; it goes when what is under way has ended."
    if kind == "delivery":
        return "It is being delivered right now."
    if kind == "retry":
        said = recipient["last_reply"]
        if not said:
            return "It waits for its time."
        by = f"{recipient['last_remote']} said" if recipient["last_remote"] else "The last try"
        return f"{by}: {_stopped(said)} It waits for its time."
    if kind == "suspended":
        times = "" if hold["times"] == 1 else f" {hold['times']} times in a row"
        # The same words as those of the last try need not stand there twice.
        known = hold["reply"] == recipient["last_reply"]
        reply = "" if known else f": {hold['reply'].removesuffix('.')}"
        return (
            f"Its next hop could not be reached{times}{reply}. It is left alone, and probed in"
            f" {short_duration(hold['seconds'])}."
        )
    if kind == "connections":
        return (
            f"Its next hop has {hold['active']} transactions under way and gets"
            f" {hold['allowed']} at once."
        )
    if kind == "concurrency":
        return (
            f"{hold['active']} transactions with other hosts are under way, and no more are"
            f" allowed than {hold['allowed']}."
        )
    if kind == "limits":
        rate = f" or in the rate {hold['rate']}" if hold["rate"] else ""
        return f"It waits for a place in what all processes share{rate}."
    return "It is due, and has its turn in a moment."


def _stopped(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def following(recipient: Facts, now: float) -> str:
    """Return in a sentence or two what happens next with a recipient."""
    kinds = [each["kind"] for each in recipient["holds"]]
    if "delivery" in kinds:
        return "what the next hop answers decides."
    time = recipient["next_attempt"]
    if time is None:
        if "held" in kinds:
            return "nothing, until it is released (twisted-mta queue release)."
        return "nothing, until somebody does something about it."
    soon = "as soon as it may be" if _LIMITS.intersection(kinds) else "at once"
    when = soon if time <= now else f"{moment(time)}, in {short_duration(time - now)}"
    if "suspended" in kinds:
        when += (
            " at the earliest: one message goes as a probe, and the others follow if it is heard"
        )
    return f"tried {when}. {_end(recipient['expires_at'], now)}"


def _end(expires_at: float, now: float) -> str:
    if expires_at <= now:
        return "Its lifetime is over: if that fails, it is returned."
    left = short_duration(expires_at - now)
    return f"Returned if it is not delivered by {moment(expires_at)} (in {left})."


def _attempt(attempt: Facts) -> Iterator[str]:
    who = attempt["remote"] or attempt["next_hop"]
    tls = attempt["tls"]
    under = f" ({tls['version']})" if tls else ""
    maybe = "; it may have been delivered" if attempt["uncertain"] else ""
    yield (
        f"    {attempt['attempt']}. {moment(attempt['ended_at'])} {who}{under}:"
        f" {attempt['reply']}{maybe}"
    )


# An address.


def _address(facts: Facts) -> Iterator[str]:
    where = _WHERE[facts["where"]]
    if facts["where"] == "local" and facts["refused"]:
        where = "a name in a local domain"
    yield f"<{facts['mailbox']}>: {where}."
    if facts["client"] is not None:
        verdict = "refused" if facts["refused"] else "taken"
        yield f"From the client {facts['client']} it is {verdict}."
    if facts["refused"]:
        yield f"Refused at RCPT: {facts['refused']}"
    interesting = [each for each in facts["steps"] if each["finding"] != "mailbox"]
    if interesting:
        yield ""
        yield "Aliases:"
        for step in facts["steps"]:
            words = _FINDINGS[step["finding"]].format(
                to=", ".join(f"<{each}>" for each in step["leads_to"]), line=step["line"]
            )
            yield f"  {'  ' * step['depth']}<{step['mailbox']}>: {words}"
        if facts["more_steps"]:
            yield f"  and {facts['more_steps']} more"
    for recipient in facts["recipients"]:
        yield ""
        yield f"To <{recipient['mailbox']}>:"
        if recipient["refused"]:
            told = f"<{recipient['owner']}>" if recipient["owner"] else "the sender"
            yield f"  Refused: {recipient['refused']}"
            yield f"  The others get the mail, and {told} a notice."
        if recipient["reverse_path"]:
            yield f"  Reverse-path: becomes <{recipient['reverse_path']}> (SRS)"
        yield from _indented(_way(recipient["way"]))
    if facts["more_recipients"]:
        yield f"and {facts['more_recipients']} more recipients"


# A way.


def _way(way: Facts, *, brief: bool = False) -> Iterator[str]:
    yield f"Route: {way['next_hop']} ({way['rule']})"
    if way["transport"] == "error":
        yield f"Refused: {way['reply']}"
    elif way["transport"] == "maildir":
        yield f"Maildir: {way['maildir']}"
    elif way["transport"] == "discard":
        yield "Discarded: nobody gets it"
    if "terms" not in way:
        return
    yield from _lookup(way)
    yield f"Terms: {_terms(way['terms'])}"
    for standing in way["standings"]:
        yield f"Now: {_standing(standing, brief=brief)}"


def _lookup(way: Facts) -> Iterator[str]:
    for each in way["exchangers"]:
        addresses = ", ".join(each["addresses"])
        yield f"MX {each['preference']} {each['host'] or '.'}: {each['problem'] or addresses}"
    if way["failure"] is not None:
        yield f"No target: {way['failure']}"
    equal = len({each["preference"] for each in way["exchangers"]}) < len(way["exchangers"])
    targets = way["targets"]
    if targets:
        yield "Tried in this order" + (
            " (at random among those of one preference, anew each time):" if equal else ":"
        )
    for number, target in enumerate(targets[:_MOST_TARGETS], 1):
        yield f"  {number}. {_target(target)}"
    if len(targets) > _MOST_TARGETS:
        yield f"  and {len(targets) - _MOST_TARGETS} more"


def _target(target: Facts) -> str:
    address = target["address"]
    name = address if address[:1] == "/" else f"{target['host']}[{address}]:{target['port']}"
    tls = target["tls"]
    words = f"TLS {tls['level']} ({tls['from']})"
    memory = tls["memory"]
    if memory is not None:
        words += f", had since {moment(memory['first'])}"
        if memory["missing"] is not None:
            words += f", MISSING since {moment(memory['missing'])}"
    if target["connection_open"]:
        words += ", a connection is open"
    if target["passed_over"]:
        words += f"; not now: {target['passed_over']}"
    return f"{name}: {words}"


_LABELS = (
    ("connections", "connections"),
    ("recipients_per_message", "recipients a message"),
    ("rate", "rate"),
    ("retry_minimum", "retry after"),
    ("retry_maximum", "at the most"),
    ("lifetime", "for"),
    ("source_address", "from"),
    ("account", "account"),
    ("client_certificate", "certificate"),
)
_DURATIONS = ("retry_minimum", "retry_maximum", "lifetime")


def _terms(terms: Facts) -> str:
    words = []
    for name, label in _LABELS:
        value, origin = terms[name]["value"], terms[name]["from"]
        if value is None:
            continue
        if name in _DURATIONS:
            value = short_duration(value)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            value = ", ".join(value)
        words.append(f"{label} {value}" + ("" if origin == "default" else f" ({origin})"))
    return ", ".join(words)


def _standing(standing: Facts, *, brief: bool) -> str:
    worker = standing.get("worker")
    words = "" if worker is None else f"worker {worker}: "
    suspended = standing["suspended"]
    if suspended is not None:
        words += (
            f"left alone for {short_duration(suspended['seconds'])}, since it could not be reached"
        )
        if suspended["times"] > 1:
            words += f" ({suspended['times']} times in a row)"
        return words if brief else f"{words}: {suspended['reply']}"
    words += f"open, {standing['active']} of {standing['allowed']} transactions under way"
    if standing["waiting"]:
        words += f", {standing['waiting']} waiting"
    return words


def _indented(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield f"  {line}"
