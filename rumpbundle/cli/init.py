"""``rumpbundle init``: a first project file."""

from __future__ import annotations

from pathlib import Path

import click

from rumpbundle.cli.command import Command
from rumpbundle.cli.streams import say_path
from rumpbundle.disk.flat import disk_errors, write_all
from rumpbundle.host.staging import check_free, staged_file


@click.command("init", cls=Command, example="rumpbundle init build/web.bin",
               short_help="a commented rumpbundle.toml for a kernel")  # fmt: skip
@click.argument("app", type=click.Path(readable=False))
@click.option("--force", is_flag=True, help="Overwrite an existing rumpbundle.toml.")
def command(app: str, force: bool) -> None:
    """Write rumpbundle.toml, which describes an image of the kernel APP, with comments on what can be said of it."""
    from rumpbundle.project import starter
    from rumpbundle.project.reading import NAME

    path = Path(NAME)
    check_free(path, force=force)
    text = starter.text(app)
    with staged_file(path, force=force) as staged, disk_errors():
        write_all(staged.fd, text.encode("utf-8"), 0)
    say_path(path)
