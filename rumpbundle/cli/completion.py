"""``rumpbundle completion``: what makes a shell complete our commands, options and their values."""

from __future__ import annotations

import click

from rumpbundle.cli.command import Command
from rumpbundle.cli.streams import say

_HOW = {
    "bash": '  eval "$(rumpbundle completion bash)"      in ~/.bashrc',
    "zsh": '  eval "$(rumpbundle completion zsh)"       in ~/.zshrc',
    "fish": "  rumpbundle completion fish | source       in ~/.config/fish/config.fish",
}


@click.command(
    "completion",
    cls=Command,
    short_help="completion for bash, zsh or fish",
    help="Print what makes SHELL complete commands, options and their values.\n\n\b\n" + "\n".join(_HOW.values()),
)
@click.argument("shell", type=click.Choice(tuple(_HOW)))
@click.pass_context
def command(ctx: click.Context, /, shell: str) -> None:
    from click.shell_completion import get_completion_class

    complete = get_completion_class(shell)
    assert complete is not None
    say(complete(ctx.find_root().command, {}, "rumpbundle", "_RUMPBUNDLE_COMPLETE").source())
