"""``rumpbundle init``: a first project file."""

from __future__ import annotations

from pathlib import Path

import click

from rumpbundle.cli.command import Command
from rumpbundle.cli.streams import say, say_path
from rumpbundle.errors import UsageError
from rumpbundle.host.putting import put
from rumpbundle.host.staging import check_free


@click.command("init", cls=Command, example="rumpbundle init build/web.bin",
               short_help="a commented rumpbundle.toml for a kernel")  # fmt: skip
@click.argument("app", metavar="[APP]", required=False, type=click.Path(readable=False))
@click.option("--force", is_flag=True, help="Overwrite an existing rumpbundle.toml.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of project files, for editors and other tools.")
def command(app: str | None, force: bool, schema: bool) -> None:
    """Write rumpbundle.toml, which describes an image of the kernel APP, with comments on what can be said of it."""
    if schema == (app is not None) or (schema and force):
        raise UsageError("give a kernel, or --schema")
    if app is None:
        from rumpbundle.project import model

        say(model.schema_text().removesuffix("\n"))
        return
    from rumpbundle.project import starter
    from rumpbundle.project.reading import NAME

    path = Path(NAME)
    check_free(path, force=force)
    put(path, starter.text(app).encode("utf-8"), force=force)
    say_path(path)
