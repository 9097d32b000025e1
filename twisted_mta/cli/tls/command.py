"""``twisted-mta tls``: the group of its commands."""

from __future__ import annotations

import click

from .hosts import forget, show_hosts
from .records import records
from .report import report


class _Tls(click.Group):
    """A group with a default: ``tls example.net`` is ``tls show example.net``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = args[0] if args else ""
        if first not in self.commands and first not in ctx.help_option_names:
            args = [show_hosts.name or "", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Tls)
def tls() -> None:
    """Show TLS with other hosts, report it to their domains, and print what to publish.

    Without a command: `tls show`, so that `tls example.net` shows the hosts of that domain.
    """


for _command in (show_hosts, forget, report, records):
    tls.add_command(_command)
