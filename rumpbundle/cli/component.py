"""``rumpbundle component``: directories as an object that links into a rumprun unikernel."""

from __future__ import annotations

from pathlib import Path

import click

from rumpbundle.cli.command import Command
from rumpbundle.cli.progress import Terminal
from rumpbundle.cli.recipe_options import NO_SYNC, report_options
from rumpbundle.cli.results import size_and_digest
from rumpbundle.cli.streams import say, say_json, say_path
from rumpbundle.cli.values import Output
from rumpbundle.errors import one_line
from rumpbundle.guests.rumprun.component import MACHINES, Component, collect, save, split_source
from rumpbundle.host.overlap import check_apart, inode
from rumpbundle.host.staging import check_free


@click.command(
    "component",
    cls=Command,
    example="rumpbundle component site:/data -o site.o",
    short_help="a directory as an object that links into a rumprun unikernel",
)
@click.argument("directories", nargs=-1, required=True, metavar="DIR[:PREFIX]...")
@click.option("-o", "--output", type=Output(file=True), required=True, help="The object file to write.")
@click.option(
    "--machine",
    type=click.Choice(sorted(MACHINES)),
    default="x86_64",
    show_default=True,
    help="The processor of the unikernel.",
)
@click.option(
    "--follow", is_flag=True, help="Put what a symbolic link names in its place, as long as it lies in the same DIR."
)
@click.option(
    "--replace-base",
    is_flag=True,
    help="Allow /etc/hosts and the other files of librumprunfs_base: bake without that library.",
)
@click.option("--force", is_flag=True, help="Overwrite an existing output.")
@NO_SYNC
@click.option("--dry-run", is_flag=True, help="Print what the guest would see and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print a machine-readable result.")
@report_options
def command(
    directories: tuple[str, ...], output: Path, machine: str, follow: bool, replace_base: bool, force: bool,
    no_sync: bool, dry_run: bool, as_json: bool, quiet: bool, verbose: bool, progress: str,
) -> None:  # fmt: skip
    """Make DIR and all below it an object file that rumprun-bake links into a unikernel.

    The guest sees the content of DIR at PREFIX, or at / without one. Several directories become one object.
    Link it with: rumprun-bake -m "add /absolute/path/OUTPUT" hw_virtio APP.bin APP
    """
    check_free(output, force=force, tidy=not dry_run)
    with Terminal(quiet=quiet, verbose=verbose, progress=progress) as terminal:
        component = collect(
            [split_source(text) for text in directories], follow=follow, replace_base=replace_base, report=terminal
        )
        sources = [inode(split_source(text)[0]) for text in directories]
        check_apart([output], [*sources, *(each for _, content in component.files for each in content.origins())])
        if not dry_run:
            save(component, machine, output, force=force, sync=not no_sync)
    if as_json:
        say_json(_described(component, machine, output) | ({} if dry_run else size_and_digest(output)))
    elif dry_run:
        for path in component.directories:
            say(f"{one_line(path)}/")
        for path, content in component.files:
            say(f"{one_line(path)}  {content.size}")
    else:
        say_path(output)


def _described(component: Component, machine: str, output: Path) -> dict[str, object]:
    return {
        "output": str(output),
        "machine": machine,
        "memory": component.memory,
        "directories": list(component.directories),
        "files": [{"path": path, "size": content.size} for path, content in component.files],
    }
