"""The clients that applications have, against every kind of listener: the message arrives whole.

All clients verify our certificate, against the authority that the test gives them.
"""

from __future__ import annotations

import asyncio
import os
import random
import smtplib
import ssl
import sys
from collections.abc import Callable, Sequence
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP, default
from importlib.util import find_spec
from pathlib import Path

from .machine import ROOT, cannot_run, free_port, need, run
from .mail import ProgramTestCase
from .mta import MTA, TOOL
from .senders import PASSWORD, SENDER, UNDER_TLS, USER, WITH_AUTH

TEXT = "Good morning!\n.\n..dots\n\nGrüße\n"
OCTETS = random.Random(17).randbytes(200_000)
NAME = "plans.bin"

CLEAR, STARTTLS, SUBMISSION, SUBMISSIONS, IN_CLEAR, LMTP = KINDS = (
    *("clear", "starttls", "submission", "submissions"),
    *("password", "lmtp"),
)
"""A listener without TLS; with STARTTLS; with AUTH under STARTTLS, and under implicit TLS; without
TLS, where passwords are sent in clear; LMTP."""

_SMTP = KINDS[:-1]

_TYPES = {
    # s-nail says HELO where it needs no extension.
    CLEAR: "E?SMTP",
    STARTTLS: "(ESMTPS|SMTP)",
    SUBMISSION: "ESMTPSA",
    SUBMISSIONS: "ESMTPSA",
    IN_CLEAR: "ESMTPA",
    LMTP: "LMTPS?",
}
"""The protocol in the Received field (RFC 3848), as a pattern."""

_LISTENERS = f"""
[[listener]]
endpoint = "tcp:{{{CLEAR}}}:interface=127.0.0.1"
tls = "none"

[[listener]]
endpoint = "tcp:{{{STARTTLS}}}:interface=127.0.0.1"

[[listener]]
kind = "submission"
endpoint = "tcp:{{{SUBMISSION}}}:interface=127.0.0.1"

[[listener]]
kind = "submissions"
endpoint = "tcp:{{{SUBMISSIONS}}}:interface=127.0.0.1"

[[listener]]
kind = "submission"
endpoint = "tcp:{{{IN_CLEAR}}}:interface=127.0.0.1"
tls = "none"
auth = "any"

[[listener]]
kind = "lmtp"
endpoint = "tcp:{{{LMTP}}}:interface=127.0.0.1"
"""

_NODE = """\
const nodemailer = require("nodemailer");
const [kind, port, authority, to, text, name] = process.argv.slice(2);
const fs = require("fs");
const transport = nodemailer.createTransport({
    host: "localhost",
    port: Number(port),
    secure: kind === "submissions",
    requireTLS: kind === "starttls" || kind === "submission",
    ignoreTLS: kind === "clear" || kind === "password",
    auth: ["submission", "submissions", "password"].includes(kind)
        ? { user: "ann", pass: "secret" } : undefined,
    tls: { ca: fs.readFileSync(authority) },
});
transport
    .sendMail({
        from: "ann@localhost",
        to,
        subject: "Greetings",
        text: fs.readFileSync(text, "utf8"),
        attachments: [{ filename: name, path: name }],
    })
    .catch((error) => {
        console.error(error);
        process.exit(1);
    });
"""


def message() -> bytes:
    """Return a message with lines of dots, a text of 8 bits, and an attachment."""
    mail = EmailMessage(policy=SMTP.clone(cte_type="8bit"))
    mail["From"] = SENDER
    mail["Subject"] = "Greetings"
    mail.set_content(TEXT, cte="8bit")
    mail.add_attachment(OCTETS, maintype="application", subtype="octet-stream", filename=NAME)
    return mail.as_bytes()


class Clients(ProgramTestCase):
    """An MTA with a listener of each kind."""

    def setUp(self) -> None:
        super().setUp()
        need("openssl")
        self.authority = self.home / "certificate.pem"
        made = run(
            "openssl",
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-keyout", self.home / "key.pem", "-out", self.authority, "-days", "3"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
        )
        self.assertEqual(made.returncode, 0, made.stdout)
        users = self.home / "users"
        added = run(
            TOOL,
            *("users", "add", "--file", users, "--address", SENDER, USER),
            text=f"{PASSWORD}\n",
        )
        self.assertEqual(added.returncode, 0, added.stdout)
        self.ports = {kind: free_port() for kind in KINDS}
        self.mta = self.enterContext(
            MTA(
                self.home,
                *("--users", str(users), "--tls-certificate", str(self.authority)),
                *("--tls-key", str(self.home / "key.pem")),
                toml=_LISTENERS.format_map(self.ports),
            )
        )
        self.file = self.write("message", message())
        self.text = self.write("text", TEXT.encode())
        self.write(NAME, OCTETS)

    def write(self, name: str, content: bytes) -> Path:
        path = self.home / name
        path.write_bytes(content)
        path.chmod(0o600)
        return path

    def assertArrives(self, send: Callable[[str, str], None], kinds: Sequence[str]) -> None:
        """Send to each kind of listener, each time to a mailbox of that name."""
        for kind in kinds:
            with self.subTest(kind=kind):
                send(kind, f"{kind}@localhost")
                (mail,) = self.mta.wait_for_mail("localhost", kind)
                read = message_from_bytes(mail, policy=default)
                words = " ".join(str(read["Received"]).split())
                self.assertRegex(words, f" with {_TYPES[kind]} id ")
                self.assertEqual(read["Return-Path"], f"<{SENDER}>")
                self.assertEqual(read["Subject"], "Greetings")
                text = read.get_body(("plain",))
                assert text is not None
                self.assertEqual(text.get_content().rstrip("\n"), TEXT.rstrip("\n"))
                (attached,) = read.iter_attachments()
                self.assertEqual(attached.get_filename(), NAME)
                self.assertEqual(attached.get_content(), OCTETS)

    def assertRuns(
        self, *command: str | Path | int, text: str = "", environment: Sequence[str] = ()
    ) -> None:
        """Run a program to its end, without an error."""
        done = run(*(("env", *environment) if environment else ()), *command, text=text)
        self.assertEqual(done.returncode, 0, done.stdout)

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority))


class Libraries(Clients):
    def by_program(self, library: str) -> Callable[[str, str], None]:
        def send(kind: str, to: str) -> None:
            self.assertRuns(
                *(sys.executable, "-m", "tests.functional.senders", library, kind),
                *(self.ports[kind], self.authority, self.file, to),
                environment=(
                    f"PYTHONPATH={ROOT}",
                    f"SSL_CERT_FILE={self.authority}",  # the authorities of the system
                ),
            )

        return send

    def test_sendmail_of_twisted_mail(self) -> None:
        # It begins without TLS, always.
        kinds = [kind for kind in _SMTP if kind != SUBMISSIONS]
        self.assertArrives(self.by_program("twisted"), kinds)

    def test_esmtp_sender_factory_of_twisted_mail(self) -> None:
        self.assertArrives(self.by_program("factory"), _SMTP)

    def test_sendmail_of_this_package(self) -> None:
        # It never sends a password in clear.
        self.assertArrives(
            self.by_program("sendmail"), [kind for kind in KINDS if kind != IN_CLEAR]
        )

    def test_django(self) -> None:
        if find_spec("django") is None:
            cannot_run("django is not installed")
        self.assertArrives(self.by_program("django"), _SMTP)

    def test_smtplib(self) -> None:
        def send(kind: str, to: str) -> None:
            place = "localhost", self.ports[kind]
            if kind == SUBMISSIONS:
                client: smtplib.SMTP = smtplib.SMTP_SSL(*place, context=self.context())
            else:
                client = (smtplib.LMTP if kind == LMTP else smtplib.SMTP)(*place)
            with client:
                if kind in (STARTTLS, SUBMISSION):
                    client.starttls(context=self.context())
                if kind in WITH_AUTH:
                    client.login(USER, PASSWORD)
                client.sendmail(SENDER, [to], message(), mail_options=["BODY=8BITMIME"])

        self.assertArrives(send, KINDS)

    def test_aiosmtplib(self) -> None:
        if find_spec("aiosmtplib") is None:
            cannot_run("aiosmtplib is not installed")
        import aiosmtplib

        def send(kind: str, to: str) -> None:
            with_auth = kind in WITH_AUTH
            sending = aiosmtplib.send(
                message(),
                sender=SENDER,
                recipients=[to],
                hostname="localhost",
                port=self.ports[kind],
                username=USER if with_auth else None,
                password=PASSWORD if with_auth else None,
                use_tls=kind == SUBMISSIONS,
                start_tls=kind in (STARTTLS, SUBMISSION),
                tls_context=self.context() if kind in UNDER_TLS else None,
            )
            asyncio.run(sending)

        self.assertArrives(send, _SMTP)


class Programs(Clients):
    def test_nodemailer(self) -> None:
        need("node")
        script = self.write("send.js", _NODE.encode())
        # Debian's library, also for a node of another source.
        modules = os.pathsep.join(filter(None, (os.environ.get("NODE_PATH"), "/usr/share/nodejs")))
        if not any((Path(each) / "nodemailer").is_dir() for each in modules.split(os.pathsep)):
            cannot_run("nodemailer is not installed")

        def send(kind: str, to: str) -> None:
            self.assertRuns(
                *("sh", "-c", 'cd "$0" && exec "$@"', self.home, "node", script),
                *(kind, self.ports[kind], self.authority, to, self.text, NAME),
                environment=(f"NODE_PATH={modules}",),
            )

        self.assertArrives(send, _SMTP)

    def test_msmtp(self) -> None:
        need("msmtp")

        def send(kind: str, to: str) -> None:
            settings = [
                *("account default", "host localhost", f"port {self.ports[kind]}"),
                *(f"from {SENDER}", f"protocol {'lmtp' if kind == LMTP else 'smtp'}"),
            ]
            if kind in WITH_AUTH:
                settings += ["auth plain", f"user {USER}", f"password {PASSWORD}"]
            if kind in UNDER_TLS:
                starttls = "off" if kind == SUBMISSIONS else "on"
                settings += ["tls on", f"tls_starttls {starttls}"]
                settings += [f"tls_trust_file {self.authority}"]
            file = self.write("msmtprc", "".join(f"{each}\n" for each in settings).encode())
            text = message().replace(b"\r\n", b"\n").decode()
            self.assertRuns("msmtp", "-C", file, to, text=text)

        self.assertArrives(send, KINDS)

    def test_curl(self) -> None:
        need("curl")

        def send(kind: str, to: str) -> None:
            scheme = "smtps" if kind == SUBMISSIONS else "smtp"
            self.assertRuns(
                *("curl", "--silent", "--show-error", "--noproxy", "*"),
                *(("--ssl-reqd", "--cacert", self.authority) if kind in UNDER_TLS else ()),
                *(("--user", f"{USER}:{PASSWORD}") if kind in WITH_AUTH else ()),
                *("--mail-from", SENDER, "--mail-rcpt", to, "--upload-file", self.file),
                f"{scheme}://localhost:{self.ports[kind]}/client.example",
            )

        self.assertArrives(send, _SMTP)

    def test_swaks(self) -> None:
        need("swaks")
        tls = {STARTTLS: "--tls", SUBMISSION: "--tls", SUBMISSIONS: "--tls-on-connect"}

        def send(kind: str, to: str) -> None:
            account = ("--auth", "PLAIN", "--auth-user", USER, "--auth-password", PASSWORD)
            verified = ("--tls-verify", "--tls-ca-path", self.authority)
            self.assertRuns(
                *("swaks", "--server", "localhost", "--port", self.ports[kind]),
                *("--from", SENDER, "--to", to, "--ehlo", "client.example"),
                *((tls[kind], *verified) if kind in tls else ()),
                *(account if kind in WITH_AUTH else ()),
                *(("--protocol", "LMTP") if kind == LMTP else ()),
                *("--data", f"@{self.file}", "--suppress-data"),
            )

        self.assertArrives(send, KINDS)

    def test_s_nail(self) -> None:
        need("s-nail")

        def send(kind: str, to: str) -> None:
            scheme = "smtps" if kind == SUBMISSIONS else "smtp"
            account = f"{USER}:{PASSWORD}@" if kind in WITH_AUTH else ""
            self.assertRuns(
                *("s-nail", "-:/", "-Sv15-compat", "-Ssendwait", "-Stls-verify=strict"),
                *(("-Ssmtp-use-starttls",) if kind in (STARTTLS, SUBMISSION) else ()),
                "-Ssmtp-auth=plain" if kind in WITH_AUTH else "-Ssmtp-auth=none",
                f"-Smta={scheme}://{account}localhost:{self.ports[kind]}",
                *(f"-Stls-ca-file={self.authority}", f"-Sfrom={SENDER}", "-Sttycharset=utf-8"),
                *("-a", self.home / NAME, "-s", "Greetings", to),
                text=TEXT,
            )

        self.assertArrives(send, _SMTP)
