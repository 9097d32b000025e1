"""Write ``docs/twisted-mta.rst`` from the commands of the operator's tool, for Sphinx and man.

    python docs/_ext/tool_page.py > docs/twisted-mta.rst

A test compares the page with the output.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from twisted_mta.cli.command import main

_INTRODUCTION = """\
.. Made by docs/_ext/tool_page.py: do not edit.

twisted-mta
===========

.. code-block:: text

   twisted-mta COMMAND [OPTIONS] [ARGUMENTS]

Looks after a mail transfer agent that ``twistd mta`` runs. It asks the running one over its control
socket (:doc:`admin`), so it is for the user that runs the MTA, and for root; ``check`` needs no
running one. On a terminal it draws tables; into a pipe it writes lines whose cells are parted by
tabs; with ``--json`` it writes JSON.
"""

_ENDING = """\
Exit status
-----------

====  ==========================================================
0     It was done.
1     It was refused, or what was asked for is not there.
2     The command was not understood.
3     No MTA is running there.
====  ==========================================================

Environment
-----------

``STATE_DIRECTORY``
    The state directory, where ``--state-dir`` does not name one. systemd sets it.

``_TWISTED_MTA_COMPLETE``
    ``bash_source`` or ``zsh_source`` writes the completion for that shell (:doc:`queue-tool`).

Files
-----

``STATE/control.sock``
    What it speaks to.
"""


def page() -> str:
    """Return the page, in reStructuredText."""
    return "\n".join((_INTRODUCTION, *_commands(main, "twisted-mta"), _ENDING))


def _commands(group: click.Group, path: str) -> Iterator[str]:
    context = click.Context(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield from _command(command, f"{path} {name}")


def _command(command: click.Command, path: str) -> Iterator[str]:
    context = click.Context(command, info_name=path)
    words = [path, *command.collect_usage_pieces(context)]
    yield f"{path}\n{'-' * len(path)}\n"
    if not isinstance(command, click.Group):
        yield f".. code-block:: text\n\n   {' '.join(words)}\n"
    yield _prose(inspect.cleandoc(command.help or "")) + "\n"
    options = [each for each in command.params if isinstance(each, click.Option)]
    for option in options:
        record = option.get_help_record(context)
        if record is not None:
            yield f"``{record[0]}``\n    {_escaped(record[1])}\n"
    if isinstance(command, click.Group):
        yield from _commands(command, path)


def _prose(text: str) -> str:
    # What click writes in `single` marks, and options, are code.
    text = _escaped(text)
    text = re.sub(r"`([^`]+)`", r"``\1``", text)
    return re.sub(r"(?<![\w`-])(--[a-z][a-z-]*)", r"``\1``", text)


def _escaped(text: str) -> str:
    return re.sub(r"([*|_](?=\s|$)|\\|\*)", r"\\\1", text)


if __name__ == "__main__":
    print(page(), end="")
