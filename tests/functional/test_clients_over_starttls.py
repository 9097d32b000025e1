"""Mail programs that submit a message over STARTTLS with AUTH.

All but Claws Mail verify our certificate, against the authority that the test gives them.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest

from .machine import LOOPBACK, cannot_run, eventually, need, run
from .mail import ProgramTestCase, message
from .mta import MTA, TOOL
from .program import Program

TEXT = "Good morning!\n"

_NODE = """\
const nodemailer = require("nodemailer");
const [port, authority] = process.argv.slice(2);
const transport = nodemailer.createTransport({
    host: "localhost",
    port: Number(port),
    requireTLS: true,
    auth: { user: "ann", pass: "secret" },
    tls: { ca: require("fs").readFileSync(authority) },
});
transport
    .sendMail({
        from: "ann@localhost",
        to: "bob@localhost",
        subject: "Greetings",
        text: "Good morning!",
    })
    .then(
        (sent) => console.log(sent.response),
        (error) => {
            console.error(error);
            process.exit(1);
        },
    );
"""

_CLAWS_ACCOUNT = """\
[Account: 1]
account_name=ann
is_default=1
name=Ann
address=ann@localhost
protocol=5
smtp_server=localhost
set_smtpport=1
smtp_port={port}
ssl_smtp=2
use_smtp_auth=1
smtp_user_id=ann
smtp_password=secret
set_domain=1
domain=client.example
"""
_CLAWS_SETTINGS = """\
[Common]
config_version=4
enable_aspell=0
skip_ssl_cert_check=1
"""
_CLAWS_FOLDERS = """\
<?xml version="1.0" encoding="UTF-8"?>
<folderlist><folder type="mh" name="Mail" path="{mail}">
{items}
</folder></folderlist>
"""


class MailClients(ProgramTestCase):
    """A running MTA with an account, and a client with its credentials."""

    def setUp(self) -> None:
        super().setUp()
        need("openssl")
        self.certificate = self.home / "certificate.pem"
        made = run(
            "openssl",
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-keyout", self.home / "key.pem", "-out", self.certificate, "-days", "3"),
            *("-subj", "/CN=localhost"),
            *("-addext", f"subjectAltName=DNS:localhost,IP:{LOOPBACK}"),
        )
        self.assertEqual(made.returncode, 0, made.stdout)
        users = self.home / "users"
        added = run(
            TOOL,
            *("users", "add", "--file", users, "--address", "ann@localhost", "ann"),
            text="secret\n",
        )
        self.assertEqual(added.returncode, 0, added.stdout)
        self.mta = self.enterContext(
            MTA(
                self.home,
                *("--submission", f"tcp:0:interface={LOOPBACK}", "--users", str(users)),
                *("--tls-certificate", str(self.certificate)),
                *("--tls-key", str(self.home / "key.pem")),
            )
        )

    def assertSubmitted(self, client: str) -> None:
        """Assert that one message came under TLS, from an authenticated user."""
        (mail,) = self.mta.wait_for_mail("localhost", "bob")
        header, _, text = mail.partition(b"\n\n")
        self.assertTrue(mail.startswith(b"Return-Path: <ann@localhost>\n"), (client, mail))
        self.assertIn(b" with ESMTPSA id ", b" ".join(header.split()), client)
        self.assertIn(b"Subject: Greetings\n", mail, client)
        self.assertIn(b"Good morning!", text, client)

    def file(self, name: str, text: str) -> Path:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        return path

    def test_msmtp_submits_a_message(self) -> None:
        need("msmtp")
        settings = self.file(
            "msmtprc",
            f"account default\nhost localhost\nport {self.mta.submission}\nfrom ann@localhost\n"
            "auth on\nuser ann\npassword secret\n"
            f"tls on\ntls_starttls on\ntls_trust_file {self.certificate}\n",
        )
        text = message().replace(b"\r\n", b"\n").decode("ascii")
        sent = run("msmtp", "-C", settings, "bob@localhost", text=text)
        self.assertEqual(sent.returncode, 0, sent.stdout)
        self.assertSubmitted("msmtp")

    def test_curl_submits_a_message(self) -> None:
        need("curl")
        (self.home / "message").write_bytes(message())
        sent = run(
            "curl",
            *("--silent", "--show-error", "--ssl-reqd", "--noproxy", "*"),
            *("--cacert", self.certificate, "--user", "ann:secret"),
            *("--mail-from", "ann@localhost", "--mail-rcpt", "bob@localhost"),
            *("--upload-file", self.home / "message"),
            f"smtp://localhost:{self.mta.submission}/client.example",
        )
        self.assertEqual(sent.returncode, 0, sent.stdout)
        self.assertSubmitted("curl")

    def test_s_nail_submits_a_message(self) -> None:
        need("s-nail")
        sent = run(
            "s-nail",
            *("-:/", "-Sv15-compat", "-Ssendwait", "-Stls-verify=strict", "-Ssmtp-use-starttls"),
            f"-Smta=smtp://ann:secret@localhost:{self.mta.submission}",
            f"-Stls-ca-file={self.certificate}",
            *("-Sfrom=ann@localhost", "-s", "Greetings", "bob@localhost"),
            text=TEXT,
        )
        self.assertEqual(sent.returncode, 0, sent.stdout)
        self.assertSubmitted("s-nail")

    def test_nodemailer_submits_a_message(self) -> None:
        need("node")
        script = self.file("send.js", _NODE)
        # Debian's library, also for a node of another source.
        modules = os.pathsep.join(filter(None, (os.environ.get("NODE_PATH"), "/usr/share/nodejs")))
        if not any((Path(each) / "nodemailer").is_dir() for each in modules.split(os.pathsep)):
            cannot_run("nodemailer is not installed")
        sent = run(
            "env", f"NODE_PATH={modules}", "node", script, self.mta.submission, self.certificate
        )
        self.assertEqual(sent.returncode, 0, sent.stdout)
        self.assertIn("250 2.0.0 Queued as ", sent.stdout)
        self.assertSubmitted("nodemailer")

    def test_claws_mail_submits_a_message(self) -> None:
        # Not in `.ci/run`: its 400 MB take more time than all other packages.
        if os.environ.get("CI") and not os.environ.get("CLAWS_MAIL"):
            raise SkipTest(".ci/claws-mail runs this")
        need("claws-mail", "Xvfb", "xdotool")
        profile, mail = self.home / "claws", self.home / "Mail"
        self.file("claws/accountrc", _CLAWS_ACCOUNT.format(port=self.mta.submission))
        self.file("claws/clawsrc", _CLAWS_SETTINGS)
        kinds = {"inbox": "inbox", "sent": "outbox"} | {n: n for n in ("queue", "draft", "trash")}
        items = "\n".join(
            f'<folderitem name="{n}" type="{t}" path="{n}"/>' for n, t in kinds.items()
        )
        self.file("claws/folderlist.xml", _CLAWS_FOLDERS.format(mail=mail, items=items))
        for name in kinds:
            (mail / name).mkdir(parents=True)
        written = self.file("new", f"To: bob@localhost\nSubject: Greetings\n\n{TEXT}")

        screen = self.enterContext(Display(self.home))
        claws = Program(self.home, "claws.log")
        self.addCleanup(claws.kill)
        claws.spawn(
            (
                "env",
                *(f"{name}={value}" for name, value in screen.environment.items()),
                *("claws-mail", "--alternate-config-dir", profile),
                *("--compose-from-file", written),
            )
        )
        window = claws.wait_for(
            lambda: screen.window("Compose message"), "Claws Mail shows the message"
        )
        # The key for Send. A new window may not accept keys yet.
        eventually(
            lambda: not screen.press(window, "ctrl+Return") or screen.gone("Compose message"),
            "Claws Mail has sent it",
        )
        self.assertSubmitted("Claws Mail")


class Display(Program):
    """A virtual screen of Xvfb.

    Args:
        home: where programs that are shown on it have their home.
    """

    foreign = True

    def __init__(self, home: Path) -> None:
        super().__init__(home, "display.log")
        self.number = ""

    def start(self) -> None:
        # Xvfb chooses a free number: two tests that chose at a time would choose the same.
        number = self.home / "display"
        self.spawn(
            (
                *("sh", "-c", 'exec "$@" 3>display', "sh"),
                *("Xvfb", "-displayfd", "3", "-screen", "0", "1024x768x24", "-nolisten", "tcp"),
                "-noreset",  # otherwise it resets, and refuses clients, when xdotool disconnects
            )
        )
        self.number = self.wait_for(
            lambda: number.exists() and number.read_text().strip(), "Xvfb has a screen"
        )

    def stop(self) -> None:
        if self.alive():
            self.terminate()  # which removes its lock

    @property
    def environment(self) -> dict[str, str]:
        """Variables for a program on this screen."""
        return {
            "DISPLAY": f":{self.number}",
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "NO_AT_BRIDGE": "1",
        }

    def _xdotool(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        settings = (f"{name}={value}" for name, value in self.environment.items())
        return run("env", *settings, "xdotool", *arguments)

    def window(self, title: str) -> str:
        """Return the window whose title contains ``title``; empty: none."""
        found = self._xdotool("search", "--onlyvisible", "--name", title)
        return found.stdout.split()[-1] if found.returncode == 0 and found.stdout.split() else ""

    def gone(self, title: str) -> bool:
        """Whether no window has such a title."""
        return not self.window(title)

    def press(self, window: str, key: str) -> bool:
        """Press a key in a window; return whether the window still exists."""
        return self._xdotool("windowfocus", window, "key", key).returncode == 0
