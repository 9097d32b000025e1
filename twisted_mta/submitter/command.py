"""The program: ``sendmail``, ``mailq`` and ``newaliases``, by the name that it is started by."""

from __future__ import annotations

import os
import pwd
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from ..message.maildrop import MOST_RECIPIENTS, WaitingEnvelope
from .addresses import AddressError, addresses, checked, qualified
from .content import Header, TooLarge, display_name, read
from .local_smtp import LocalSMTP, Reply, Sent, Unreachable, pass_through
from .options import Options, UsageError
from .settings import Settings, SettingsError
from .waiting import keep, wake

OK = os.EX_OK
"""The message is with the MTA, or waits for it on the disk."""

_TIMEOUT = 60.0  # seconds for each reply of the MTA; later, the message waits
_NAMES = {"mailq": "list", "newaliases": "aliases"}


class Failed(Exception):
    """The program ends without success.

    Attributes:
        status: of sysexits.h.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def main(words: Sequence[str] | None = None, name: str = "") -> None:
    """Run the program and exit.

    Args:
        words: the arguments; None: those of the process.
        name: that it is started by; empty: that of the process.
    """
    called = os.path.basename(name or sys.argv[0])
    try:
        status = _run(called, sys.argv[1:] if words is None else words)
    except Failed as failure:
        print(f"{called}: {failure}", file=sys.stderr)
        status = failure.status
    except KeyboardInterrupt:
        status = 130  # as a shell shows SIGINT
    sys.exit(status)


def _run(called: str, words: Sequence[str]) -> int:
    try:
        options = Options(words)
        settings = Settings(options.config)
    except UsageError as error:
        raise Failed(os.EX_USAGE, str(error)) from None
    except SettingsError as error:
        raise Failed(os.EX_CONFIG, str(error)) from None
    mode = _NAMES.get(called, options.mode)
    return _MODES[mode](options, settings)


def _nothing(options: Options, settings: Settings) -> int:
    """Do nothing: the MTA itself runs the queue (``-q``)."""
    return OK


def _list(options: Options, settings: Settings) -> int:
    """List the queue (``-bp``, ``mailq``)."""
    return _tool(["queue", "list"], settings)


def _aliases(options: Options, settings: Settings) -> int:
    """Let the MTA read its aliases again (``-bi``, ``newaliases``)."""
    return _tool(["reload"], settings)


def _tool(words: list[str], settings: Settings) -> int:
    """Run a command of the operator's tool, in this process."""
    if not os.access(settings.state_dir, os.X_OK):
        raise Failed(
            os.EX_NOPERM, f"{settings.state_dir} is for root and the user who runs the MTA alone"
        )
    from ..cli import main as tool  # which loads many libraries

    try:
        tool([*words, "--state-dir", settings.state_dir], prog_name="twisted-mta")
    except SystemExit as ended:
        return OK if not ended.code else os.EX_UNAVAILABLE
    return OK


def _smtp(options: Options, settings: Settings) -> int:
    """Speak SMTP on standard input and output (``-bs``)."""
    try:
        pass_through(settings.socket, sys.stdin.buffer, sys.stdout.buffer)
    except OSError as error:
        os.write(1, b"421 4.3.2 The mail system is not running\r\n")
        raise Failed(os.EX_TEMPFAIL, f"{settings.socket}: {error.strerror}") from None
    return OK


def _submit(options: Options, settings: Settings) -> int:
    """Read a message, and hand it over."""
    try:
        content = read(sys.stdin.buffer, dot_ends=options.dot_ends, limit=settings.max_message_size)
    except TooLarge:
        raise Failed(
            os.EX_UNAVAILABLE,
            f"found a message of more octets, expected {settings.max_message_size} at most",
        ) from None
    header = Header(content)
    user = _User(options.name)
    sender, recipients = _envelope(options, settings, header, user)
    message = header.message(_lacking(user, sender, settings))
    envelope = WaitingEnvelope(
        sender,
        tuple(recipients),
        notify=options.notify,
        returned=options.returned,
        envelope_id=options.envelope_id,
        user=os.getuid() if os.geteuid() == 0 else -1,
    )
    say: Callable[[str], object] = print if options.verbose else (lambda text: None)
    try:
        sent = _send(settings, envelope, message)
    except Unreachable as error:
        say(f"the MTA does not answer: {error}")
        sent = Sent(None, {}, list(recipients))
    if sent.taken is not None:
        say(f"the MTA has taken the message: {sent.taken}")
    if sent.deferred:
        for start in range(0, len(sent.deferred), MOST_RECIPIENTS):
            envelope.recipients = tuple(sent.deferred[start : start + MOST_RECIPIENTS])
            path = _wait(settings, envelope, message)
            say(f"the message waits for the MTA in {path}")
        wake(settings.state_dir, _TIMEOUT)
    if sent.refused:
        raise Failed(_status(list(sent.refused.values())), _shown(sent.refused))
    return OK


def _envelope(
    options: Options, settings: Settings, header: Header, user: _User
) -> tuple[str, list[str]]:
    """Return the reverse-path and the recipients."""
    try:
        written = [each for word in options.recipients for each in addresses(word)]
        if options.from_header:
            written += header.recipients()
        sender = user.login if options.sender is None else options.sender.strip()
        if sender in ("", "<>"):
            sender = ""
        else:
            (sender,) = addresses(sender) or [""]
            sender = checked(qualified(sender, settings.domain))
        recipients = [checked(qualified(each, settings.domain)) for each in written]
    except (AddressError, ValueError) as error:
        raise Failed(os.EX_DATAERR, str(error)) from None
    if not recipients:
        if options.from_header:
            raise Failed(os.EX_DATAERR, "found no recipient in the header, expected To, Cc or Bcc")
        raise Failed(os.EX_USAGE, "found no recipient, expected addresses as arguments, or -t")
    return sender, list(dict.fromkeys(recipients))


class _User:
    """The user who runs the program.

    Attributes:
        login: its name.
        name: the full name.
    """

    def __init__(self, name: str) -> None:
        number = os.getuid()
        try:
            entry = pwd.getpwuid(number)
            self.login, gecos = entry.pw_name, entry.pw_gecos
        except KeyError:
            self.login, gecos = f"uid-{number}", ""
        full = gecos.partition(",")[0].replace("&", self.login.capitalize())
        self.name = name or os.environ.get("NAME", "") or full


def _lacking(user: _User, sender: str, settings: Settings) -> Mapping[str, str]:
    """Return fields for a message without them; the MTA adds a Message-ID."""
    author = sender or qualified(user.login, settings.domain)
    now = time.localtime()
    days = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    date = (
        f"{days[now.tm_wday]}, {now.tm_mday:02} {months[now.tm_mon - 1]} {now.tm_year}"
        f" {now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02} {_zone(now.tm_gmtoff)}"
    )
    return {"Date": date, "From": f"{display_name(user.name)}<{author}>"}


def _zone(seconds: int) -> str:
    minutes = abs(seconds) // 60
    return f"{'-' if seconds < 0 else '+'}{minutes // 60:02}{minutes % 60:02}"


def _send(settings: Settings, envelope: WaitingEnvelope, message: bytes) -> Sent:
    mail = " BODY=8BITMIME"
    head, _, _ = message.partition(b"\r\n\r\n")
    if not head.isascii() or not f"{envelope.sender}{envelope.recipients}".isascii():
        mail += " SMTPUTF8"
    if envelope.returned:
        mail += f" RET={envelope.returned}"
    if envelope.envelope_id:
        mail += f" ENVID={_xtext(envelope.envelope_id)}"
    rcpt = f" NOTIFY={envelope.notify}" if envelope.notify else ""
    session = LocalSMTP(settings.socket, _TIMEOUT)
    try:
        return session.send(envelope.sender, envelope.recipients, message, mail, rcpt)
    finally:
        session.close()


def _xtext(text: str) -> str:
    """Return a value as xtext (RFC 3461 §4)."""
    return "".join(
        chr(each) if 33 <= each <= 126 and each not in b"+=" else f"+{each:02X}"
        for each in text.encode("utf-8", "replace")
    )


def _wait(settings: Settings, envelope: WaitingEnvelope, message: bytes) -> str:
    try:
        minimum_free = settings.minimum_free_disk
        return keep(settings.directory, envelope, message, minimum_free=minimum_free)
    except ValueError as error:
        raise Failed(os.EX_DATAERR, str(error)) from None
    except OSError as error:
        raise Failed(
            os.EX_TEMPFAIL,
            "the MTA does not take the message now, and it cannot wait in"
            f" {settings.directory}: {error.strerror}",
        ) from None


def _status(replies: Sequence[Reply]) -> int:
    texts = [reply.text for reply in replies]
    if all(text.startswith(("5.1.1 ", "5.1.2 ", "5.1.6 ", "5.1.10 ")) for text in texts):
        return os.EX_NOUSER
    if all(text.startswith(("5.1.3 ", "5.1.7 ", "5.5.", "5.6.")) for text in texts):
        return os.EX_DATAERR
    return os.EX_UNAVAILABLE


def _shown(refused: Mapping[str, Reply]) -> str:
    lines = [f"{each}: {reply}" for each, reply in list(refused.items())[:20]]
    if len(refused) > len(lines):
        lines.append(f"and {len(refused) - len(lines)} more")
    text = "\n  ".join(lines)
    return "".join(each if each.isprintable() or each == "\n" else "?" for each in text)


_MODES: Mapping[str, Callable[[Options, Settings], int]] = {
    "submit": _submit,
    "smtp": _smtp,
    "list": _list,
    "aliases": _aliases,
    "nothing": _nothing,
}
