"""``twisted-mta tls records``: what to publish about the TLS of our own domains."""

from __future__ import annotations

import click

from ..client import answer_or_exit, client, failure, require_version, state_dir_option


@click.command("records")
@state_dir_option
@click.option(
    "--config", "file", metavar="FILE", help="TOML file, in place of the settings of a running MTA"
)
def records(state_dir: str | None, file: str | None) -> None:
    """Print what to publish about the TLS of our domains.

    These are lines of a zone file: TLSA records of our host (DANE), and for each domain the records
    of MTA-STS and of reports on TLS. Below them stands the MTA-STS policy, with the addresses where
    other hosts fetch it.

    Exit status: 0 done, 1 a certificate cannot be read, 3 no MTA is running.
    """
    if file is None:
        answer = answer_or_exit(lambda: client(state_dir).get("/v1/tls-records"))
        require_version(answer)
    else:
        from ...config import ConfigError, load  # imported here: they take a while to load
        from ...tls.certificates import CertificateError
        from ...tls.own_records import own_records

        try:
            answer = own_records(load({} if state_dir is None else {"state-dir": state_dir}, file))
        except ConfigError as error:
            raise click.UsageError(str(error)) from None
        except CertificateError as error:
            raise failure(str(error)) from None
    for line in answer["records"]:
        click.echo(line)
    if answer["urls"]:
        click.echo()
        for url in answer["urls"]:
            click.echo(f"; {url}")
        click.echo(answer["policy"].replace("\r\n", "\n"), nl=False)
