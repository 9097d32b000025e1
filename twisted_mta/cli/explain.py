"""``twisted-mta explain``."""

from __future__ import annotations

import json
from urllib.parse import quote, urlencode

import click

from ..admin.explanation_text import lines
from .client import answer_or_exit, client, json_option, require_version, state_dir_option
from .terminal import wrapped


@click.command()
@click.argument("what", metavar="ID|ADDRESS...", nargs=-1, required=True)
@state_dir_option
@click.option("--from-client", metavar="IP", help="address of the client, as 192.0.2.9")
@click.option("--sender", metavar="ADDRESS", help="reverse-path  [default: the null one]")
@click.option("--helo", metavar="NAME", help="name in its greeting  [default: its reverse name]")
@json_option
def explain(
    what: tuple[str, ...],
    state_dir: str | None,
    from_client: str | None,
    sender: str | None,
    helo: str | None,
    as_json: bool,
) -> None:
    """Explain why mail is still queued, or where mail would go.

    For an ID: of each recipient the route with its rule, what delays it now, the last attempts, and
    what happens next. For an ADDRESS: its aliases, its route, the mail exchangers in the order of
    attempts, and the terms of delivery. With --from-client, what the policies about strangers would
    say of mail of --sender from there. Nothing is sent.

    Exit status: 0 done, 1 not found or refused, 3 no MTA is running.
    """
    options = {"client": from_client, "sender": sender, "helo": helo}
    query = urlencode({name: value for name, value in options.items() if value is not None})
    suffix = f"?{query}" if query else ""
    paths = [f"/v1/explain/{quote(each, safe='@')}{suffix}" for each in what]
    answers = answer_or_exit(lambda: [client(state_dir).get(path) for path in paths])
    if as_json:
        click.echo(json.dumps(answers[0] if len(answers) == 1 else answers, indent=2))
        return
    for place, answer in enumerate(answers):
        require_version(answer)
        if place:
            click.echo()
            answer = {**answer, "forecast": None}  # the same for all
        for line in lines(answer):
            for number, piece in enumerate(wrapped(line)):
                click.echo(piece if number else _styled(piece))


_HEADINGS = (
    *("Why:", "Next:", "Route:", "Terms:", "Now:", "Attempts:", "Maildir:", "Aliases:"),
    *("Found:", "Junk:", "Suppressed:"),
)


def _styled(line: str) -> str:
    # click leaves out colors if the output is not a terminal.
    heading = line.strip().partition(" ")[0]
    if heading not in _HEADINGS:
        return click.style(line, bold=True) if line and line[0] != " " else line
    before, _, rest = line.partition(heading)
    return before + click.style(heading, fg="cyan") + rest
