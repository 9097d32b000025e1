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

Look up a command of the operator's tool, with its options. The tool asks a running ``twistd mta``
over its control socket (:doc:`admin`), so it is for the user that runs the MTA, and for root;
``backup``, ``check``, ``dkim``, ``users``, and of ``queue`` the commands ``list``, ``show``,
``summary``, ``suspended`` and ``export`` need no running MTA; ``queue import`` and ``queue move``
need a stopped one. On a terminal it draws tables; into a pipe it writes lines with cells separated
by tabs; with ``--json`` it writes JSON. :doc:`queue-tool` shows how the commands are used.
"""

_ENDING = """\
Exit status
-----------

====  ==========================================================
0     Success.
1     Refused, or not found.
2     The command line is wrong.
3     No MTA is running.
====  ==========================================================

Environment
-----------

``STATE_DIRECTORY``
    The state directory, if ``--state-dir`` is not given. systemd sets it.

``_TWISTED_MTA_COMPLETE``
    ``bash_source`` or ``zsh_source`` writes the completion for that shell (:doc:`queue-tool`).

Files
-----

``STATE/control.sock``
    The control socket of the MTA.
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
