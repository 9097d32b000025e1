"""The text of an explanation: what ``twisted-mta explain`` prints of the MTA's answer.

Pure: takes the facts of `agent.explain.explainer` (as JSON has them), returns printable lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..mail.counted import counted
from ..mail.printable import printable
from .status import moment, short_duration

Facts = Mapping[str, Any]

_MOST_TARGETS = 12  # that are listed

_FINDINGS = {
    "sender": "SRS made this address; it leads back to {to}",
    "alias": "alias in line {line}: {to}",
    "catch-all": "catch-all of the domain, line {line}: {to}",
    "mailbox": "a mailbox here",
    "elsewhere": "relayed to another domain",
    "discarded": "the mail is accepted and dropped",
    "itself": "an alias leads back to it: the mailbox of that name",
    "again": "expanded before: cut here",
    "postmaster": "every domain has one (RFC 5321 §4.5.1): {to}",
    "nobody": "no such mailbox",
}
_ROUTED = {
    "deliver": "a delivery of the application, {next_hop}",
    "discard": "the mail is accepted and dropped",
    "error": "the mail is refused",
}
_WHERE = {
    "local": "a name in a local domain",
    "virtual": "a name in a virtual domain, which has only aliases",
    "relay": "a name in a relay domain, which is not ours and which all hosts may send to",
    "srs": "a name in the domain of rewritten reverse-paths",
    "elsewhere": "not ours",
}

_LIMITS = frozenset(("connections", "concurrency", "limits"))  # end when other deliveries end


def lines(facts: Facts) -> Iterator[str]:
    """Yield the lines of an answer, without line ends; empty lines separate paragraphs."""
    answer = _message(facts) if "id" in facts else _address(facts)
    for line in (*answer, *_troubles(facts)):
        yield printable(line)


def _troubles(facts: Facts) -> Iterator[str]:
    """Yield the troubles of the MTA as a whole."""
    unready = facts.get("unready", "")
    more = [each["text"] for each in facts.get("troubles", ()) if each["text"] not in unready]
    if unready or more:
        yield ""
    if unready:
        yield f"No mail is accepted now: {unready}"
    for text in more:
        yield f"Trouble: {text}"


# A message.


def _message(facts: Facts) -> Iterator[str]:
    now = facts["now"]
    sender = "<>" if facts["reverse_path"] is None else f"<{facts['reverse_path']}>"
    by = f" by {facts['machine']}" if facts.get("machine") else ""
    yield (
        f"{facts['id']}: from {sender}, {facts['size']} octets, received{by}"
        f" {moment(facts['received_at'])} ({short_duration(now - facts['received_at'])} ago)"
    )
    yield from _assessment(facts.get("assessment") or {})
    for recipient in facts["recipients"]:
        yield ""
        yield from _recipient(recipient, now)


def _assessment(assessment: Facts) -> Iterator[str]:
    """Yield what policies found out about a message when it came."""
    verdicts = [_verdict(each) for each in assessment.get("verdicts", ())]
    if verdicts:
        yield f"Found: {', '.join(verdicts)}"
    if assessment.get("quarantine"):
        yield f"Junk: {assessment['quarantine']}"
    if assessment.get("hold"):
        yield f"Held when it came: {assessment['hold']}"


def _verdict(verdict: Facts) -> str:
    text = f" ({verdict['text']})" if verdict["text"] else ""
    return f"{verdict['policy']}={verdict['result']}{text}"


def _recipient(recipient: Facts, now: float) -> Iterator[str]:
    original = recipient["original"]
    by_alias = f", sent to <{original}>" if original else ""
    tried = recipient["tried"]
    times = "not tried yet" if not tried else f"tried {tried} time{'s' if tried > 1 else ''}"
    yield f"To <{recipient['mailbox']}>{by_alias}: {recipient['state']}, {times}."
    if recipient.get("leased_to"):
        yield f"  Leased to: {recipient['leased_to']}"
    yield f"  Why: {why(recipient)}"
    if recipient.get("reply_action"):
        yield f"  [[reply_action]] for that reply: {recipient['reply_action']}"
    yield f"  Next: {following(recipient, now)}"
    way = recipient["way"]
    if way is not None:
        yield from _indented(_way(way, brief=True))
    attempts = recipient["attempts"]
    if attempts:
        yield "  Attempts:"
    for attempt in attempts:
        yield from _attempt(attempt)


def why(recipient: Facts) -> str:
    """Return why a recipient is still queued, in whole sentences."""
    return " ".join(_hold(hold, recipient) for hold in recipient["holds"])


def _hold(hold: Facts, recipient: Facts) -> str:
    kind = hold["kind"]
    if kind == "quarantine":
        return f"Quarantined: {hold['why']}. It is never tried."
    if kind == "held":
        return f"On hold since {moment(hold['since'])} (by the operator)."
    if kind == "removing":
        return "The operator has removed it; it disappears when the delivery under way ends."
    if kind == "delivery":
        return "Delivery is under way."
    if kind == "elsewhere":
        return "Another machine has leased it: it waits for its turn there, or is in delivery."
    if kind == "retry":
        reply = recipient["last_reply"]
        if not reply:
            return "It waits for its retry time."
        by = f"{recipient['last_remote']} replied" if recipient["last_remote"] else "Last attempt"
        return f"{by}: {_sentence(reply)}{_classified(recipient)} It waits for its retry time."
    if kind == "suspended_by_operator":
        return _by_operator(hold)
    if kind == "suspended":
        times = "" if hold["times"] == 1 else f" (failed {hold['times']} times in a row)"
        # The reply of the last attempt may have been shown already.
        known = hold["reply"] == recipient["last_reply"]
        reply = "" if known else f": {hold['reply'].removesuffix('.')}"
        return (
            f"Its next hop is suspended{times}: {_failed(hold)}{reply}. The next probe is in"
            f" {short_duration(hold['seconds'])}."
        )
    if kind == "connections":
        return (
            f"Its next hop has {hold['active']} transactions under way, of {hold['allowed']}"
            " allowed."
        )
    if kind == "concurrency":
        return (
            f"{hold['active']} transactions with other hosts are under way, of {hold['allowed']}"
            " allowed."
        )
    if kind == "limits":
        if hold.get("known"):
            return f"It waits for the rate limit {hold['rate']}."
        rate = f" or the rate limit {hold['rate']}" if hold["rate"] else ""
        return f"It waits for a delivery slot that all processes share{rate}."
    return "It is due, and starts within a moment."


def _by_operator(facts: Facts) -> str:
    until = facts["until"]
    end = "until it is resumed" if until is None else f"until {moment(until)}"
    reason = f": {facts['reason'].removesuffix('.')}" if facts["reason"] else ""
    return (
        f"Its destination {facts['destination']} is suspended by the operator since"
        f" {moment(facts['since'])}, {end}{reason}."
    )


def _classified(facts: Facts) -> str:
    known = facts.get("classification")  # an MTA of 0.1 has none
    return f" ({known})" if known else ""


def _failed(suspension: Facts) -> str:
    failed: str = suspension.get("failed", "no session could be opened")
    return failed


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def following(recipient: Facts, now: float) -> str:
    """Return what happens next with a recipient, in whole sentences."""
    kinds = [hold["kind"] for hold in recipient["holds"]]
    if "delivery" in kinds:
        return "decided by the reply of the next hop."
    if "elsewhere" in kinds:
        return "decided by that machine; twisted-mta explain says more there."
    time = recipient["next_attempt"]
    if time is None:
        if "held" in kinds:
            return "nothing, until it is released (twisted-mta queue release)."
        if "suspended_by_operator" in kinds:
            resumed = "nothing, until it is resumed (twisted-mta queue resume)."
            return f"{resumed} {_expiry(recipient['expires_at'], now)}"
        return "nothing, until an operator acts."
    soon = "as soon as a limit allows it" if _LIMITS.intersection(kinds) else "at once"
    when = soon if time <= now else f"{moment(time)}, in {short_duration(time - now)}"
    if "suspended" in kinds:
        when += " at the earliest: one message is the probe, and the others follow if it succeeds"
    return f"tried {when}. {_expiry(recipient['expires_at'], now)}"


def _expiry(expires_at: float, now: float) -> str:
    if expires_at <= now:
        return "Its lifetime has ended: if that attempt fails, it is returned."
    left = short_duration(expires_at - now)
    return f"Returned if it is not delivered by {moment(expires_at)} (in {left})."


def _attempt(attempt: Facts) -> Iterator[str]:
    server = attempt["remote"] or attempt["next_hop"]
    tls = attempt["tls"]
    version = f" ({tls['version']})" if tls else ""
    uncertain = "; it may have been delivered" if attempt["uncertain"] else ""
    by = f" from {attempt['machine']} to" if attempt.get("machine") else ""
    yield (
        f"    {attempt['attempt']}. {moment(attempt['ended_at'])}{by} {server}{version}:"
        f" {attempt['reply']}{_classified(attempt)}{uncertain}"
    )


# An address.


def _address(facts: Facts) -> Iterator[str]:
    where = _WHERE[facts["where"]]
    if facts["where"] == "local" and _is_mailbox(facts):
        where = "a mailbox of a local domain"
    yield f"<{facts['mailbox']}>: {where}."
    if facts["client"] is not None:
        by_policy = (facts.get("forecast") or {}).get("refusals")
        verdict = "refused" if facts["refused"] or by_policy else "accepted"
        yield f"From the client {facts['client']} it is {verdict}."
    if facts["refused"]:
        yield f"Refused at RCPT: {facts['refused']}"
    yield from _forecast(facts)
    if any(step["finding"] != "mailbox" for step in facts["steps"]):
        yield ""
        yield "Aliases:"
        for step in facts["steps"]:
            yield f"  {'  ' * step['depth']}<{step['mailbox']}>: {_finding(step)}"
        if facts["more_steps"]:
            yield f"  and {facts['more_steps']} more"
    for recipient in facts["recipients"]:
        yield ""
        yield f"To <{recipient['mailbox']}>:"
        if recipient["refused"]:
            notified = f"<{recipient['owner']}>" if recipient["owner"] else "the sender"
            yield f"  Refused: {recipient['refused']}"
            yield f"  The others get the mail, and {notified} a notice."
        yield from _suppressed(recipient.get("suppressed"))
        if recipient.get("suspended_by_operator"):
            yield f"    {_by_operator(recipient['suspended_by_operator'])}"
        if recipient["reverse_path"]:
            yield f"  Reverse-path: becomes <{recipient['reverse_path']}> (SRS)"
        yield from _indented(_way(recipient["way"]))
    if facts["more_recipients"]:
        yield f"and {counted(facts['more_recipients'], 'more recipient')}"


def _suppressed(entry: Facts | None) -> Iterator[str]:
    if entry is None:
        return
    until = "until it is removed"
    if entry["until"] is not None:
        until = f"until {moment(entry['until'])}"
    why = f": {entry['reply']}" if entry["reply"] else ""
    bounces = entry["bounces"]
    times = f" ({bounces} bounce{'s' if bounces > 1 else ''})" if bounces else ""
    yield (
        f"  Suppressed: since {moment(entry['since'])}, {until}; mail of our users is refused"
        f"{times}{why}"
    )


_ACTIONS = {
    "none": "accepted",
    "quarantine": "accepted as junk",
    "reject": "refused, unless it has a List-Id",
}


def _forecast(facts: Facts) -> Iterator[str]:
    """Yield what policies would say of mail from the client."""
    forecast = facts.get("forecast")
    if forecast is None:
        return
    yield ""
    if not forecast["stranger"]:
        yield f"Policies: {facts['client']} may relay, so that those about strangers are not asked."
        return
    if not forecast["verdicts"]:
        yield "Policies: those about strangers are off."
        return
    yield f"Policies, if {facts['client']} greets as {forecast['helo']}:"
    for verdict in forecast["verdicts"]:
        yield f"  {_verdict(verdict)}"
    dmarc = forecast["dmarc"]
    if dmarc is not None:
        yield f"  {_verdict(dmarc)}"
    for each in forecast["refusals"]:
        yield f"  Refused by {each['policy']}: {each['reply']}"
    for each in forecast.get("not_asked", ()):
        yield f"  Not asked: {each}"
    if dmarc is not None and dmarc["result"] == "fail":
        yield (
            "  Mail with that domain in From, in which no DKIM signature passes, is"
            f" {_ACTIONS[dmarc['action']]}."
        )


def _is_mailbox(facts: Facts) -> bool:
    """Whether an address is that of a Maildir here, and not of an alias or a route alone."""
    return not facts["refused"] and any(
        recipient["mailbox"] == facts["mailbox"]
        and recipient["way"] is not None
        and recipient["way"]["transport"] == "maildir"
        for recipient in facts["recipients"]
    )


def _finding(step: Facts) -> str:
    finding, transport = step["finding"], step.get("transport", "maildir")
    if finding in ("mailbox", "itself") and transport != "maildir":
        routed = _ROUTED.get(transport, "relayed to {next_hop}").format(next_hop=step["next_hop"])
        return f"no alias, and a route for its domain: {routed}"
    return _FINDINGS[finding].format(
        to=", ".join(f"<{target}>" for target in step["leads_to"]), line=step["line"]
    )


# The way to a next hop.


def _way(way: Facts, *, brief: bool = False) -> Iterator[str]:
    yield f"Route: {way['next_hop']} ({way['rule']})"
    if way["transport"] == "error":
        yield f"Refused: {way['reply']}"
    elif way["transport"] == "maildir":
        is_new = way.get("maildir_exists") is False
        yield f"Maildir: {way['maildir']}{' (made with its first message)' if is_new else ''}"
    elif way["transport"] == "discard":
        yield "Discarded: the mail is accepted and dropped"
    if "terms" not in way:
        return
    yield from _lookup(way)
    if way.get("group"):
        yield f"Group: limits and suspension are those of all domains at exchanger {way['group']}"
    yield f"Terms: {_terms(way['terms'])}"
    for token in way.get("tokens", ()):
        yield f"Token: {_token(token)}"
    yield from _sources(way.get("sources"))
    for standing in way["standings"]:
        yield f"Now: {_standing(standing, brief=brief)}"


def _sources(sources: Facts | None) -> Iterator[str]:
    """Yield the addresses of source pools, with their messages of today."""
    if sources is None:
        return
    if sources["problem"]:
        yield f"Source pools: their messages cannot be counted: {sources['problem']}"
    for name, addresses in sources["pools"].items():
        yield f"Source pool {name}:"
        for each in addresses:
            words = each["address"] + (f" ({each['helo']})" if each["helo"] else "")
            sent, limit = each["sent"], each["limit"]
            if limit is None:
                words += ": no limit"
            elif sent < limit:
                words += f": {sent:,} of {counted(limit, 'message')} today"
            else:
                used_up = counted(limit, "message of today is", "messages of today are")
                words += f": its {used_up} used up, until {sources['tomorrow']}"
            yield f"  {words}{'; refused there of late' if each['refused'] else ''}"


def _lookup(way: Facts) -> Iterator[str]:
    exchangers, targets = way["exchangers"], way["targets"]
    for each in exchangers:
        addresses = ", ".join(each["addresses"])
        yield f"MX {each['preference']} {each['host'] or '.'}: {each['problem'] or addresses}"
    if way["failure"] is not None:
        yield f"No target: {way['failure']}"
    has_equals = len({each["preference"] for each in exchangers}) < len(exchangers)
    if targets:
        yield "Tried in this order" + (
            " (random among those of one preference):" if has_equals else ":"
        )
    for number, target in enumerate(targets[:_MOST_TARGETS], 1):
        yield f"  {number}. {_target(target)}"
    if len(targets) > _MOST_TARGETS:
        yield f"  and {len(targets) - _MOST_TARGETS} more"


def _target(target: Facts) -> str:
    address = target["address"]
    name = address if address[:1] == "/" else f"{target['host']}[{address}]:{target['port']}"
    tls = target["tls"]
    since = "" if tls["since"] is None else f", since {moment(tls['since'])}"
    words = f"TLS {tls['level']} ({tls['from']}{since})"
    memory = tls["memory"]
    if memory is not None:
        words += f", had TLS since {moment(memory['first'])}"
        if memory["missing"] is not None:
            words += f", MISSING since {moment(memory['missing'])}"
    if target["connection_open"]:
        words += ", a connection is open"
    if tls["problem"] is not None:
        words += f"; not now: {tls['problem']}"
    if target["passed_over"]:
        words += f"; not now: {target['passed_over']}"
    return f"{name}: {words}"


_LABELS = (
    ("connections", "connections"),
    ("recipients_per_message", "recipients per message"),
    ("rate", "rate"),
    ("retry_minimum", "first retry after"),
    ("retry_maximum", "retries at least every"),
    ("lifetime", "lifetime"),
    ("source_address", "source address"),
    ("source_pool", "source pool"),
    ("account", "account"),
    ("client_certificate", "client certificate"),
)
_DURATIONS = ("retry_minimum", "retry_maximum", "lifetime")


def _terms(terms: Facts) -> str:
    words = []
    for name, label in _LABELS:
        if name not in terms or terms[name]["value"] is None:
            continue
        value, origin = terms[name]["value"], terms[name]["from"]
        if name in _DURATIONS:
            value = short_duration(value)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            value = ", ".join(value)
        words.append(f"{label} {value}" + ("" if origin == "default" else f" ({origin})"))
    return ", ".join(words)


def _token(token: Facts) -> str:
    state = token["state"]
    if state == "none":
        state = "none yet, the next mail asks for one"
    words = f"of {token['username']}, from {token['source']}: {state}"
    if token["expires_at"] is not None:
        words += f" until {moment(token['expires_at'])}"
    if token["problem"]:
        words += f"; since {moment(token['since'])}: {token['problem']}"
    return words


def _standing(standing: Facts, *, brief: bool) -> str:
    worker = standing.get("worker")
    words = "" if worker is None else f"worker {worker}: "
    suspended = standing["suspended"]
    if suspended is not None:
        left = short_duration(suspended["seconds"])
        words += f"suspended for {left}: {_failed(suspended)}"
        if suspended["times"] > 1:
            words += f" (failed {suspended['times']} times in a row)"
        return words if brief else f"{words}: {suspended['reply']}"
    words += f"open, {standing['active']} of {standing['allowed']} transactions under way"
    if standing["waiting"]:
        words += f", {standing['waiting']} waiting"
    return words


def _indented(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield f"  {line}"
