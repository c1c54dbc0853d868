"""``rumpbundle build``: several formats of one bundle at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from rumpbundle import formats as registry
from rumpbundle.bundling.batch import Outcome, targets, write_targets
from rumpbundle.bundling.checksums import SUMS, write_checksums
from rumpbundle.bundling.writing import check_no_inputs, plan
from rumpbundle.cli import project, rehearsal
from rumpbundle.cli.command import completed
from rumpbundle.cli.guest import GuestCommand
from rumpbundle.cli.progress import Terminal
from rumpbundle.cli.provenance import Provenance, provenance_options
from rumpbundle.cli.recipe_options import output_options, recipe_from, recipe_options, report_options
from rumpbundle.cli.results import artifacts_json, beside_json
from rumpbundle.cli.streams import say, say_json, say_path, tell_error
from rumpbundle.cli.values import Output, format_names, formats_named
from rumpbundle.errors import RumpbundleError, UsageError
from rumpbundle.formats import Folder
from rumpbundle.host.directories import filled_directory
from rumpbundle.host.staging import check_free


@click.command(
    "build",
    cls=GuestCommand,
    example="rumpbundle build app.bin -f iso,vmdk:stream,ova -o out --checksums",
    short_help="several formats of one kernel, or what the project file says",
)
@click.argument(
    "apps", metavar="[APP | NAME...]", nargs=-1, type=click.Path(readable=False), shell_complete=project.completed
)
@click.option("-f", "--formats", "names", multiple=True, metavar="FORMAT[:SUBFORMAT],…",
              shell_complete=completed(format_names),
              help="What to write, separated by commas: iso,vmdk:stream,ova; repeatable.")  # fmt: skip
@click.option("-o", "--output", "directory", type=Output(), metavar="DIRECTORY",
              help="The directory to write into; made if it is missing.  [default: the current one]")  # fmt: skip
@click.option("--checksums", is_flag=True, help="Write SHA256SUMS of everything beside it.")
@recipe_options
@output_options
@provenance_options
@report_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    apps: tuple[str, ...],
    names: tuple[str, ...],
    directory: Path | None,
    checksums: bool,
    **arguments: Any,
) -> int:
    """Bundle APP in several formats, planned once and written side by side.

    Without APP, or with bare NAMEs, what rumpbundle.toml says, here or in a directory above: all of it or these
    images, each only if it is not up to date. Options win over the file. A path has a / or a dot: ./app.

    Each output appears whole or not at all. One that fails does not take the others down: it is reported, and its
    exit status is the command's.
    """
    formats = formats_named(names)
    if project.is_named(apps, [*registry.names(), *registry.ALIASES]):
        return project.build(ctx, apps, formats, directory, checksums=checksums, arguments=arguments)
    app = project.only(apps, [*registry.names(), *registry.ALIASES], "give all formats in one word, as in -f iso,ova")
    return _build_app(app, formats, directory or Path("."), checksums, arguments)


def _build_app(app: str, formats: list[str], directory: Path, checksums: bool, arguments: dict[str, Any]) -> int:
    if not formats:
        raise UsageError("expected the formats to write", where="-f", hint="as in -f iso,ova")
    recipe = recipe_from(app, arguments)
    force, dry_run, as_json = (arguments.pop(name) for name in ("force", "dry_run", "as_json"))
    sync = not arguments.pop("no_sync")
    provenance = Provenance.of(arguments, force=force, sync=sync)
    terminal = Terminal.of(arguments)
    wanted = targets(app, formats, directory)
    sums_path = [directory / SUMS] if checksums else []
    outputs = [file for each in wanted for file in each.format.files(each.output)] + sums_path
    check_no_inputs(recipe, outputs)
    kits = [target.output for target in wanted if isinstance(target.format.product, Folder)]
    placed = directory.is_dir()
    provenance.check(recipe, outputs, kits, placed=placed, tidy=not dry_run)
    for path in sums_path if placed else ():
        check_free(path, force=force, tidy=not dry_run)
    with terminal:
        planned = plan(recipe, formats=[target.format for target in wanted], report=terminal)
        if dry_run:
            return rehearsal.rehearsed(planned, wanted, terminal, force=force, as_json=as_json)
        with filled_directory(directory):
            outcomes = write_targets(planned, wanted, force=force, sync=sync, report=terminal)
        digest = planned.bundle.identity.digest if any(outcome.artifact for outcome in outcomes) else None
    artifacts = [outcome.artifact for outcome in outcomes if outcome.artifact is not None]
    try:
        sums = write_checksums(artifacts, directory, force=force, sync=sync) if checksums and artifacts else None
        beside = provenance.write(planned.bundle, artifacts, [sums] if sums else []) if artifacts else []
    except RumpbundleError:
        show_outcomes(outcomes, digest, None, as_json=as_json)
        raise
    show_outcomes(outcomes, digest, sums, beside, as_json=as_json)
    return max((outcome.error.exit_code for outcome in outcomes if outcome.error is not None), default=0)


def show_outcomes(
    outcomes: tuple[Outcome, ...],
    digest: str | None,
    sums: Path | None,
    beside: Sequence[Path] = (),
    *,
    as_json: bool,
    print_commands: bool = False,
) -> None:
    """Print the results to standard output and the errors to standard error."""
    for outcome in outcomes:
        if outcome.error is not None:
            tell_error(outcome.error, outcome.target.name)
    made = [outcome.artifact for outcome in outcomes if outcome.artifact is not None]
    if as_json:
        failed = [
            {"format": outcome.target.name, "error": str(outcome.error), "hint": outcome.error.hint}
            for outcome in outcomes
            if outcome.error is not None
        ]
        commands = {outcome.target.format.name: list(outcome.commands) for outcome in outcomes if outcome.commands}
        value = {
            "artifacts": artifacts_json(made),
            "failed": failed,
            "digest": digest,
            **({"commands": commands} if commands else {}),
        }
        say_json(value | ({"checksums": str(sums)} if sums else {}) | beside_json(beside))
        return
    for path in [*(artifact.path for artifact in made), *([sums] if sums else []), *beside]:
        say_path(path)
    for line in (line for outcome in outcomes for line in outcome.commands) if print_commands else ():
        say(line)
