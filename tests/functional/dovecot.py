"""Debian's Dovecot with its own configuration: LMTP, mailboxes, and SASL for Postfix."""

from __future__ import annotations

import contextlib
import shutil
import smtplib
from pathlib import Path

from .machine import LOOPBACK, free_port, listens, path_of
from .program import Program

PASSWORD = "correct horse"

_USERS = """\
ann:{{PLAIN}}{password}::::::
bob:{{PLAIN}}{password}::::::
full:{{PLAIN}}{password}::::::userdb_quota_rule=*:storage=1B
"""

# Users are known by their local parts. The quota is checked when a message is stored, and not at
# RCPT: so the replies after the content differ by recipient.
_SETTINGS = """\
base_dir = {home}/run
state_dir = {home}/run
log_path = {home}/dovecot.log
protocols = lmtp
listen = {loopback}
ssl = {ssl}
{certificate}
hostname = dovecot.example
postmaster_address = postmaster@dovecot.example
auth_username_format = %Ln
auth_mechanisms = {mechanisms}
disable_plaintext_auth = no
auth_failure_delay = 0
mail_location = maildir:{home}/mail/%n
mail_uid = nobody
mail_gid = nogroup
first_valid_uid = 1
first_valid_gid = 1
mail_plugins = $mail_plugins quota
{tokens}
passdb {{
  driver = passwd-file
  args = {home}/users
}}
userdb {{
  driver = passwd-file
  args = {home}/users
}}
plugin {{
  quota = count:User quota
  quota_vsizes = yes
  quota_grace = 0
}}
service lmtp {{
  inet_listener lmtp {{
    address = {loopback}
    port = {port}
  }}
  unix_listener {socket} {{
    mode = 0666
  }}
}}
service auth {{
  unix_listener {auth} {{
    mode = 0666
  }}
}}
"""

_TOKENS = """\
passdb {{
  driver = oauth2
  mechanisms = oauthbearer xoauth2
  args = {home}/oauth2.conf
}}
"""

_INTROSPECTION = """\
introspection_mode = post
introspection_url = {url}
username_attribute = username
active_attribute = active
active_value = true
"""


class Dovecot(Program):
    """A Dovecot with LMTP for ``ann``, ``bob``, and ``full``, whose mailbox is full.

    Args:
        home: folder of its configuration, mailboxes and sockets.
        pair: PEM file with a certificate and its key; None: no STARTTLS.
        mechanisms: of SASL.
        introspection: the URL where it asks about OAuth 2.0 tokens; empty: it takes none.
    """

    foreign = True

    def __init__(
        self,
        home: Path,
        *,
        pair: Path | None = None,
        mechanisms: str = "plain login",
        introspection: str = "",
    ) -> None:
        super().__init__(home, "dovecot.output")
        self.port = free_port()
        self.socket = home / "lmtp"
        self.auth = home / "auth"
        self._pair = pair
        self._mechanisms = mechanisms
        self._introspection = introspection

    def start(self) -> None:
        """Start it; return when it listens."""
        (self.home / "users").write_text(_USERS.format(password=PASSWORD), encoding="utf-8")
        mail = self.home / "mail"
        mail.mkdir(exist_ok=True)
        shutil.chown(mail, "nobody", "nogroup")
        certificate = f"ssl_cert = <{self._pair}\nssl_key = <{self._pair}" if self._pair else ""
        if self._introspection:
            (self.home / "oauth2.conf").write_text(
                _INTROSPECTION.format(url=self._introspection), encoding="utf-8"
            )
        configuration = self.home / "dovecot.conf"
        configuration.write_text(
            _SETTINGS.format(
                home=self.home,
                loopback=LOOPBACK,
                ssl="yes" if self._pair else "no",
                certificate=certificate,
                mechanisms=self._mechanisms,
                tokens=_TOKENS.format(home=self.home) if self._introspection else "",
                port=self.port,
                socket=self.socket,
                auth=self.auth,
            ),
            encoding="utf-8",
        )
        self.spawn([path_of("dovecot"), "-F", "-c", configuration])
        self.wait_for(self._takes_mail, "Dovecot takes mail")

    def _takes_mail(self) -> bool:
        """Whether it knows a user by LMTP: its other processes work too then."""
        if not (self.socket.exists() and listens(self.port)):
            return False
        with contextlib.suppress(OSError), smtplib.LMTP(LOOPBACK, self.port, timeout=5.0) as client:
            client.ehlo("client.example")
            client.mail("")
            return client.rcpt("ann")[0] == 250
        return False

    def mail(self, user: str) -> list[bytes]:
        """Return the messages of a user."""
        new = self.home / "mail" / user / "new"
        return [path.read_bytes() for path in sorted(new.glob("*"))] if new.is_dir() else []

    def wait_for_mail(self, user: str, count: int = 1) -> list[bytes]:
        """Wait for ``count`` messages of a user, and return all of them."""
        self.wait_for(
            lambda: len(self.mail(user)) >= count, f"{count} messages for {user} at Dovecot"
        )
        return self.mail(user)

    def output(self) -> str:
        """Return its log, after its output before the log."""
        log = self.home / "dovecot.log"
        return super().output() + (log.read_text("utf-8", "replace") if log.exists() else "")

    def stop(self) -> None:
        if self.alive():
            self.terminate()  # which ends its child processes too
