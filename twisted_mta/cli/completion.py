"""``twisted-mta completion``: scripts by which shells complete commands, options and ids."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(shell: str) -> None:
    """Write a script that completes commands, options and queue ids.

    For bash: eval "$(twisted-mta completion bash)" in ~/.bashrc, and likewise for zsh in ~/.zshrc;
    for fish: twisted-mta completion fish > ~/.config/fish/completions/twisted-mta.fish
    """
    from .command import main  # imported here: it imports this module

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(main, {}, "twisted-mta", "_TWISTED_MTA_COMPLETE").source())
