"""``twisted-mta``: the operator's tool."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Literal

import click
from attrs import frozen

from . import __version__
from .config import Config, ConfigError
from .entropy import wall_time
from .interfaces import WallTime
from .routing.routes import parse_route
from .server.certificate import CertificateError, read_certificates
from .server.tls import load
from .smtp.reply import printable


@frozen
class Finding:
    """Something that a start would stumble over, or that an operator would want to know.

    Attributes:
        severity: a start fails on an error; a warning lets it go on.
        text: what, where, and what to do, on one printable line.
    """

    severity: Literal["error", "warning"]
    text: str


def findings(config: Config, *, wall_time: WallTime) -> Iterator[Finding]:
    """Yield what stands against a start with ``config``. Blocks; writes nothing."""
    yield from _directory(config.state_dir, "state_dir", private=True)
    yield from _directory(config.maildir, "maildir", private=False)
    for certificate, key in dict.fromkeys(_certificates(config)):
        try:
            context = load(certificate, key)
        except CertificateError as error:
            yield Finding("error", str(error))
        else:
            for warning in context.warnings(wall_time()):
                yield Finding("warning", warning)
            yield from _key(key)
    for authorities in dict.fromkeys(
        listener.client_certificate_authorities for listener in config.listeners
    ):
        if authorities is not None:
            try:
                read_certificates(authorities)
            except CertificateError as error:
                yield Finding("error", str(error))
    for pattern, url in config.routes:
        try:
            parse_route(pattern, url, default_port=config.delivery.port)
        except ValueError as error:
            yield Finding("error", f"route {pattern}={printable(url)}: {printable(str(error))}")


def _directory(path: str, setting: str, *, private: bool) -> Iterator[Finding]:
    shown = f"{setting} {printable(path)}"
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        above = os.path.dirname(path)
        while not os.path.lexists(above):
            above = os.path.dirname(above)
        if not os.path.isdir(above):
            yield Finding("error", f"{shown}: {printable(above)} is no directory; move it away")
        elif not os.access(above, os.W_OK | os.X_OK):
            yield Finding(
                "error",
                f"{shown}: cannot be made, for {printable(above)} cannot be written; make it, and"
                " give it to the user who runs the MTA",
            )
        return
    except OSError as error:
        yield Finding("error", f"{shown}: {error.strerror}; give it to the user who runs the MTA")
        return
    if not stat.S_ISDIR(found.st_mode):
        yield Finding("error", f"{shown}: is no directory; move it away, or name another")
    elif not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("error", f"{shown}: cannot be written; give it to the user who runs the MTA")
    elif private and found.st_mode & 0o077:
        yield Finding(
            "warning",
            f"{shown}: others can look into it (mode {found.st_mode & 0o777:04o}); chmod 0700",
        )


def _certificates(config: Config) -> Iterator[tuple[str, str]]:
    """Yield the files of each certificate and its key."""
    if config.tls_certificate and config.tls_key:
        yield config.tls_certificate, config.tls_key
    for listener in config.listeners:
        for named in listener.sni:
            yield named.certificate, named.key


def _key(file: str) -> Iterator[Finding]:
    mode = os.stat(file).st_mode
    if mode & 0o007:
        yield Finding(
            "warning",
            f"{printable(file)}: everybody can read the key (mode {mode & 0o777:04o}); chmod 0600",
        )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="twisted-mta", message="%(prog)s %(version)s")
def main() -> None:
    """Look after a mail transfer agent that `twistd mta` runs."""


@main.command()
@click.option("--config", "file", metavar="FILE", help="the TOML file to check")
@click.option("--state-dir", metavar="DIR", help="instead of the one that the file names")
def check(file: str | None, state_dir: str | None) -> None:
    """Check a configuration as a start would.

    Nothing is started or written. Exits with 0 when a start would work (there may be warnings),
    with 1 when it would not.
    """
    options = {} if state_dir is None else {"state-dir": state_dir}
    try:
        config = Config.load(options, file)
    except ConfigError as error:
        found = [Finding("error", str(error))]
    else:
        found = list(findings(config, wall_time=wall_time))
    for finding in found:
        click.echo(f"{finding.severity}: {finding.text}")
    if any(finding.severity == "error" for finding in found):
        raise click.exceptions.Exit(1)
    click.echo(f"{printable(file) if file else 'the defaults'}: a start would work")
