"""``rumpbundle verify``: is a finished image whole, and what it says it is?"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from rumpbundle.bundling.minisign import PublicKey, signed_files
from rumpbundle.bundling.recipe import Recipe
from rumpbundle.cli import project
from rumpbundle.cli.command import Command
from rumpbundle.cli.guest import GuestCommand
from rumpbundle.cli.long_json import print_json
from rumpbundle.cli.progress import Terminal
from rumpbundle.cli.recipe_options import recipe_from, recipe_options, report_options
from rumpbundle.cli.streams import say, tell
from rumpbundle.cli.values import Input, end_of_options
from rumpbundle.errors import GuestError, HostError, InputError, RumpbundleError, UsageError, one_line
from rumpbundle.finished.kits import requests
from rumpbundle.finished.verify import Verification, verify
from rumpbundle.units import shown_size


class _VerifyCommand(GuestCommand):
    """With ``--rebuild`` it takes the words behind ``--`` as bundling does; without, they are images."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = args[: end_of_options(self, args)]
        rebuilds = any(word.partition("=")[0] == "--rebuild" for word in own)
        return super().parse_args(ctx, args) if rebuilds else Command.parse_args(self, ctx, args)


@click.command(
    "verify",
    cls=_VerifyCommand,
    example="rumpbundle verify app.vmdk app.iso",
    short_help="is a finished image whole, and what it says it is?",
)
@click.argument("images", metavar="[IMAGE | NAME]...", nargs=-1, type=Input(), shell_complete=project.completed)
@click.option("--rebuild", metavar="APP", type=click.Path(readable=False),
              help="Bundle the kernel APP again, with the options below and the image's own date, name and sizes, "
                   "and compare bit for bit.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print a machine-readable answer.")
@click.option(
    "--key", metavar="KEY", help="A public key of minisign, or its file: each image must be signed with it."
)
@recipe_options
@report_options
def command(images: tuple[str, ...], rebuild: str | None, as_json: bool, key: str | None, **arguments: Any) -> int:
    """Look for all that is wrong with each finished IMAGE: its container, partition tables and file systems; of one
    that rumpbundle made every single byte, against its own manifest.

    The exit status is 5 if one is damaged. A digest in the image itself proves that nothing was damaged; it does not
    prove where the image comes from. A signature does: with --key, IMAGE.minisig is checked first, and if it is not
    that key's, nothing in the image is looked at.

    Without IMAGE, or with bare NAMEs, what rumpbundle.toml describes is made again, out of sight, and compared with
    the outputs that are there.
    """
    terminal = Terminal.of(arguments)
    recipe = _recipe(images, rebuild, arguments)
    if project.is_named(images):
        for option, value in (("--key", key), ("--rebuild", rebuild)):
            if value is not None:
                raise UsageError("takes images, not what a project file describes", where=option)
        with terminal:
            return project.verify(images, terminal, as_json=as_json)
    public = None if key is None else PublicKey.read(key)
    signed = {} if public is None else _signatures(images, public)
    found: list[Verification] = []
    errors: list[tuple[str, RumpbundleError]] = []
    with terminal:
        for image in images:
            try:
                found.append(verify(image, rebuild=recipe, report=terminal))
            except (InputError, HostError) as error:
                errors.append((image, error))
    if as_json:
        described = [_described(each) | _signed_json(public, signed.get(each.path, ())) for each in found]
        print_json({"images": described + [_failed(*each) for each in errors]})
    elif found:
        say("\n".join(line for each in found for line in _lines(each, public, signed.get(each.path, ()))))
    return _status(found, [error for _, error in errors])


def _recipe(images: tuple[str, ...], rebuild: str | None, arguments: dict[str, Any]) -> Recipe | None:
    """Return what to bundle again; None if nothing is.

    Raises:
        UsageError: an option says how to bundle, and nothing is to be bundled.
    """
    if rebuild is not None:
        if len(images) != 1:
            raise UsageError("compares one image", where="--rebuild")
        return recipe_from(rebuild, arguments)
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        if name in arguments and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError("says how to bundle again: give --rebuild APP, too", where=max(parameter.opts, key=len))
    return None


Signed = Sequence[tuple[Path, str]]
"""Files with a signature each, and the trusted comments of these."""


def _signatures(images: tuple[str, ...], key: PublicKey) -> dict[str, Signed]:
    """Return what is signed of each of *images* and its request, all of it by *key*."""
    return {
        image: [
            (file, key.check(file, signature))
            for path in (Path(image), *requests(Path(image)))
            for file, signature in signed_files(path)
        ]
        for image in images
    }


def _status(found: list[Verification], errors: list[RumpbundleError]) -> int:
    """Return 0 if all is well, else raise the one error of all."""
    damaged = [each for each in found if each.damage]
    if len(errors) == 1 and not damaged:
        raise errors[0]
    for error in errors:
        tell(str(error))  # the error is one line, and follows
    if len(damaged) == 1:
        count = len(damaged[0].damage)
        raise GuestError(f"is {damaged[0].state}: {count} finding{'s' if count > 1 else ''}", where=damaged[0].path)
    if damaged:
        raise GuestError(f"{len(damaged)} images are damaged")
    if errors:
        host = all(isinstance(error, HostError) for error in errors)
        raise (HostError if host else InputError)(f"{len(errors)} images cannot be read")
    return 0


def _kind(each: Verification) -> str:
    if each.container != "checksums":
        return f"{each.container}, {shown_size(each.size)}" if each.container else "an image"
    if not each.files:
        return "a list of checksums"
    wrong = len(each.damage)
    found = f"{'at least ' if each.notes else ''}{wrong} {'is' if wrong == 1 else 'are'} not as it says"
    if not wrong:
        found = "which is as it says" if each.files == 1 else "all are as it says"
    return f"it names {each.files} file{'s' if each.files > 1 else ''}, {found}"


def _lines(each: Verification, key: PublicKey | None, signed: Signed) -> list[str]:
    kind = _kind(each)
    bundle = f", bundle {each.digest[:16]}" if each.digest else ""
    lines = [f"{each.path}: {each.state} ({kind}{bundle})"]
    lines += [f"  {'remark: ' if problem.severity == 'remark' else ''}{problem}" for problem in each.problems]
    lines += [f"  {note}" for note in each.notes]
    return lines + [f"  signed with the key {key}: {one_line(comment)}" for _, comment in signed]


def _described(each: Verification) -> dict[str, Any]:
    return {
        "path": each.path,
        "state": each.state,
        "container": each.container,
        "size": each.size,
        "digest": each.digest,
        "compared": each.compared,
        "problems": [dataclasses.asdict(problem) for problem in each.problems],
        "notes": list(each.notes),
    } | ({"files": each.files} if each.container == "checksums" else {})


def _signed_json(key: PublicKey | None, signed: Signed) -> dict[str, Any]:
    if key is None:
        return {}
    return {"key": str(key), "signed": [{"path": str(file), "comment": comment} for file, comment in signed]}


def _failed(image: str, error: RumpbundleError) -> dict[str, Any]:
    return {"path": image, "state": None, "error": str(error), "hint": error.hint}
