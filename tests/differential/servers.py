"""Both servers, each with a next hop, and the comparison of their replies and messages."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from attrs import frozen

from ..functional.machine import LOOPBACK, Unready, eventually, folder, run
from ..functional.mta import MTA
from ..functional.postfix import Postfix
from ..functional.sinks import Sink
from .player import PATIENCE, Dialogue, Player
from .table import Place

HERE = Path(__file__).parent
FOLDERS = (HERE / "dialogues", HERE.parent / "transcripts")

_TRACE = re.compile(
    rb"\AReceived:[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*"
    # Added by us where they are missing, as they are in all dialogues.
    rb"(?:Date:[^\r\n]*\r\nMessage-ID:[^\r\n]*\r\n)?"
)
_LONGEST = 60  # octets of a content that are shown; a longer content is compared by its hash

# The defaults of Debian, except for settings that both servers need (limits, names, unchanged
# contents), and with the protections that later versions turn on by default, for every client.
_POSTFIX = {
    "smtpd_forbid_bare_newline": "normalize",
    "smtpd_forbid_bare_newline_exclusions": "",
    "smtpd_forbid_unauth_pipelining": "yes",
    "myhostname": "mta.example",
    "local_header_rewrite_clients": "",
    "message_size_limit": str(50 * 1024 * 1024),
    "smtpd_client_connection_count_limit": "0",
    "smtpd_error_sleep_time": "0",
    "smtpd_hard_error_limit": "1000",
    "smtpd_soft_error_limit": "1000",
    "smtpd_junk_command_limit": "1000",
    "smtpd_tls_security_level": "may",
}
_OURS = """\
[[listener]]
kind = "smtp"
endpoint = "tcp:0:interface=127.0.0.1"
max_errors = 1000
error_delay = "0 s"
bare_newlines = "reject"
"""


def dialogues() -> list[Dialogue]:
    """Return all dialogues that both servers can hold."""
    paths = [path for each in FOLDERS for path in sorted(each.glob("*.smtp"))]
    return [dialogue for path in paths if (dialogue := Dialogue.load(path)) is not None]


@frozen
class Server:
    """A running server and its next hop."""

    port: int
    sink: Sink

    def play(self, dialogue: Dialogue, expected: Sequence[str], patience: float) -> dict[str, str]:
        """Return the replies by write, and the messages at the next hop by number."""
        before = len(self._entered())
        player = Player(self.port, patience)
        try:
            exchanges = player.play(dialogue, expected)
        finally:
            player.close()
        with contextlib.suppress(Unready):
            eventually(
                lambda: len(self.sink.received()) >= before + player.accepted,
                "messages at the next hop",
                patience + 2,
            )
        rows = {each.said: each.replies for each in exchanges}
        for number, message in enumerate(sorted(self._messages(before)), 1):
            rows[f"(message {number})"] = message
        return rows

    def _entered(self) -> list[list[str]]:
        # The last line may be unfinished.
        lines = self.sink.ledger.read_text("utf-8").split("\n")[:-1]
        return [line.split(" ") for line in lines]

    def _messages(self, before: int) -> Iterator[str]:
        contents = {
            hashlib.sha256(content).hexdigest(): content for content in self.sink.received()
        }
        for words in self._entered()[before:]:
            content = _TRACE.sub(b"", contents[words[2]], count=1)
            shown = content.decode("latin-1").encode("unicode_escape").decode("ascii")
            shown = shown.replace("|", "\\x7c")
            if len(shown) > _LONGEST:
                digest = hashlib.sha256(content).hexdigest()[:8]
                shown = f"{shown[:_LONGEST]}... ({len(content)} octets, {digest})"
            yield f"to {' '.join(words[4:])}: {shown or '(empty)'}"


@contextlib.contextmanager
def both_servers() -> Iterator[BothServers]:
    """Start both servers and their next hops; stop them at the end."""
    with contextlib.ExitStack() as stack:
        ours, theirs = (Path(stack.enter_context(folder(name))) for name in ("ours", "theirs"))
        sinks = [stack.enter_context(Sink(home)) for home in (ours, theirs)]
        routes = [
            f"--route={domain}=smtp://{LOOPBACK}:{sinks[0].port}"
            for domain in ("*", "localhost", "mta.example")
        ]
        mta = MTA(ours, *routes, toml=_OURS)
        mta = stack.enter_context(mta)
        postfix = stack.enter_context(
            Postfix(
                theirs,
                {
                    **_POSTFIX,
                    "relayhost": f"[{LOOPBACK}]:{sinks[1].port}",
                    "smtpd_tls_chain_files": str(_pair(theirs)),
                },
            )
        )
        yield BothServers(Server(mta.smtp, sinks[0]), Server(postfix.port, sinks[1]))


def _pair(home: Path) -> Path:
    pair = home / "pair.pem"
    key, certificate = home / "key.pem", home / "certificate.pem"
    run(
        "openssl",
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-nodes", "-days", "2", "-subj", "/CN=mta.example", "-keyout", key, "-out", certificate),
    )
    pair.write_bytes(key.read_bytes() + certificate.read_bytes())
    return pair


@frozen
class BothServers:
    """Our server and Postfix, running."""

    ours: Server
    theirs: Server

    def play(
        self,
        dialogue: Dialogue,
        known: Mapping[tuple[str, str], Place],
        patience: float = PATIENCE,
    ) -> list[Place]:
        """Hold ``dialogue`` with both servers; return the places where they differ.

        Args:
            dialogue: the dialogue.
            known: the known differences, which say how many replies to wait for.
            patience: seconds to wait for each expected reply.

        Raises:
            AssertionError: our server deviates from the transcript.
        """
        theirs = [
            known[dialogue.name, said].theirs.replace("-", "")
            if (dialogue.name, said) in known
            else expected
            for (said, _), expected in zip(dialogue.writes, dialogue.expected, strict=True)
        ]
        with ThreadPoolExecutor(2) as threads:
            here = threads.submit(self.ours.play, dialogue, dialogue.expected, patience)
            there = threads.submit(self.theirs.play, dialogue, theirs, patience)
            ours = here.result()
        for (said, _), expected in zip(dialogue.writes, dialogue.expected, strict=True):
            if ours[said].rstrip(".") != expected.rstrip("."):
                raise AssertionError(
                    f"{dialogue.name}: {said!r} gets {ours[said]!r} from us, expected {expected!r}"
                )
        return list(compared(dialogue.name, ours, there.result()))


def compared(name: str, ours: Mapping[str, str], theirs: Mapping[str, str]) -> Iterator[Place]:
    """Yield the places of a dialogue where our replies and messages differ from theirs."""
    closed = False
    for said in {**ours, **theirs}:
        here, there = ours.get(said) or "-", theirs.get(said) or "-"
        message = said.startswith("(message")
        # After one of them has closed the connection, only messages are compared.
        if here != there and (message or not closed):
            yield Place(name, said, here, there)
        closed = closed or here.endswith(".") or there.endswith(".")
