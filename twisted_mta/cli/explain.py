"""``twisted-mta explain``."""

from __future__ import annotations

import json
from urllib.parse import quote, urlencode

import click

from .explain_words import lines
from .terminal import asked, client, same_version, state_dir_option


@click.command()
@click.argument("what", metavar="ID|ADDRESS")
@state_dir_option
@click.option("--from-client", metavar="IP", help="say what a client with this address may do")
@click.option("--sender", metavar="ADDRESS", help="the reverse-path of the mail")
@click.option("--json", "as_json", is_flag=True, help="write JSON, for programs")
def explain(
    what: str, state_dir: str | None, from_client: str | None, sender: str | None, as_json: bool
) -> None:
    """Say why a message is still here, or what would become of mail for an address.

    Nothing is sent. Of an ID: for each recipient the route and the rule that chose it, what holds
    it now, the last attempts, and what happens next. Of an ADDRESS: its aliases, its route, the
    mail exchangers in the order to try them, and on which terms.

    Exits with 0 when it could be told, with 1 when there is no such message or it was refused, with
    3 when nothing is running.
    """
    said = {"client": from_client, "sender": sender}
    query = urlencode({name: value for name, value in said.items() if value is not None})
    path = f"/v1/explain/{quote(what, safe='@')}" + (f"?{query}" if query else "")
    found = asked(lambda: client(state_dir).get(path))
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    same_version(found)
    for line in lines(found):
        click.echo(_styled(line))


_HEADINGS = ("Why:", "Next:", "Route:", "Terms:", "Now:", "Attempts:", "Maildir:", "Aliases:")


def _styled(line: str) -> str:
    # click leaves colour out where the output is no terminal.
    word = line.strip().partition(" ")[0]
    if word not in _HEADINGS:
        return click.style(line, bold=True) if line and line[0] != " " else line
    before, _, rest = line.partition(word)
    return before + click.style(word, fg="cyan") + rest
