"""``rumpbundle check``: will it run there, and why not?"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import textwrap
from collections.abc import Callable, Iterator, Sequence

import click

from rumpbundle import knowledge
from rumpbundle.cli import project
from rumpbundle.cli.command import Command, completed
from rumpbundle.cli.progress import Terminal
from rumpbundle.cli.streams import say, say_json, tell
from rumpbundle.cli.values import Input, driver_names
from rumpbundle.errors import GuestError, KernelError, UsageError, one_line
from rumpbundle.kernels.unikernel import Protocol, Unikernel
from rumpbundle.knowledge.bootcode import BootCode
from rumpbundle.knowledge.check import NoFirmwareError
from rumpbundle.knowledge.check import check as judge
from rumpbundle.knowledge.verdict import Finding, Verdict

_COLOURS = {"yes": "green", "no": "red", "unknown": "yellow"}
_BASIS = {"seen": "seen here", "read": "from a source", "told": "not verified"}


@click.command(
    "check",
    cls=Command,
    example="rumpbundle check app.bin --target ec2",
    short_help="will it boot there, see its disk, reach the network? why not?",
)
@click.argument("apps", metavar="[APP | NAME...]", nargs=-1, type=Input(), shell_complete=project.completed)
@click.option(
    "--target",
    metavar="TARGET",
    shell_complete=completed(lambda: [each.name for each in knowledge.platforms()]),
    help="qemu, virtualbox (vbox), vmware (esxi), hyperv, ec2 (aws), gce (gcp), azure, xen-hvm, xen-pv or xen-pvh.  "
    "[default: all of them, as a matrix]",
)
@click.option(
    "--firmware",
    type=click.Choice(["both", "bios", "uefi"]),
    default="both",
    show_default=True,
    help="Consider this firmware only; with both, the one that suits the kernel better.",
)
@click.option(
    "--protocol",
    type=click.Choice(["auto", *(each.value for each in Protocol if each is not Protocol.DISK)]),
    default="auto",
    show_default=True,
    help="Which of the kernel's boot protocols to use.",
)
@click.option(
    "--driver",
    "drivers",
    metavar="NAME",
    multiple=True,
    shell_complete=completed(driver_names),
    help="A driver it has though its file does not show it: nvme, ena, virtio-scsi, …; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a machine-readable answer.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    apps: tuple[str, ...],
    target: str | None,
    firmware: str,
    protocol: str,
    drivers: tuple[str, ...],
    as_json: bool,
) -> None:
    """Say whether APP, a kernel or a finished image, will run on TARGET: boots, disk, network, console, clock.

    Nothing is run: the answers compare what the kernel can use with what the platform offers. The exit status is 5
    if one of them is no. Without a target the answers for all of them are printed, and the exit status is 0.

    Without APP, or with bare NAMEs, the kernels that rumpbundle.toml describes are judged.
    """
    platforms = {*knowledge.ALIASES, *(each.name for each in knowledge.platforms())}
    if not project.is_named(apps, platforms):
        app = project.only(apps, platforms, "a platform is given as --target NAME")
        _check(app, target, firmware, protocol, drivers, as_json=as_json)
        return
    found = project.kernels(ctx, apps, firmware, protocol)
    if as_json and len(found) > 1:
        raise UsageError(f"these are {len(found)} kernels: name one image", where="--json")
    noes: list[GuestError] = []
    for each in found:
        try:
            _check(each[0], target, each[1], each[2], drivers, as_json=as_json)
        except GuestError as error:
            noes.append(error)
    for no in noes[:-1]:
        tell(f"error: {no}")
    if noes:
        raise noes[-1]


def _check(
    app: str, target: str | None, firmware: str, protocol: str, drivers: tuple[str, ...], *, as_json: bool
) -> None:
    """Print what is known of *app* on *target*.

    Raises:
        GuestError: one of the answers is no.
    """
    if target is not None:
        knowledge.platform(target)
    kernel, boot_code = _subject(app)
    chosen = () if firmware == "both" else (firmware,)

    def judged(name: str) -> Verdict:
        how = None if protocol == "auto" else Protocol(protocol)
        return judge(kernel, name, firmware=chosen, protocol=how, drivers=drivers, boot_code=boot_code)

    if target is None:
        _matrix(kernel.name, [*_everywhere(judged)], as_json=as_json)
        return
    verdict = judged(target)
    if as_json:
        say_json(_described(verdict))
    else:
        say(_text(verdict), styled=True)
    if verdict.noes:
        noes = ", ".join(finding.question for finding in verdict.noes)
        raise GuestError(f"not on {verdict.title}: {noes}", where=verdict.kernel)


def _subject(app: str) -> tuple[Unikernel, BootCode | None]:
    """Return the kernel that is *app* or in it; of an image, also what it has for firmware to start."""
    try:
        return Unikernel.read(app, disk=False), None
    except KernelError as error:
        from rumpbundle.images.detect import NoImageError
        from rumpbundle.kernels.refusal import of_neither
        from rumpbundle.launcher.subject import subject

        try:
            with Terminal() as terminal:
                return subject(app, terminal)
        except NoImageError:
            raise of_neither(error) from None


def _everywhere(judged: Callable[[str], Verdict]) -> Iterator[Verdict]:
    """Yield the verdict for each platform that has the firmware asked for."""
    for platform in knowledge.platforms():
        with contextlib.suppress(NoFirmwareError):
            yield judged(platform.name)


def _matrix(name: str, verdicts: Sequence[Verdict], *, as_json: bool) -> None:
    if as_json:
        say_json({"kernel": name, "targets": [_described(verdict) for verdict in verdicts]})
        return
    head = ("target", "firmware", *(finding.question for finding in verdicts[0].findings)) if verdicts else ()
    rows = [(v.target, v.firmware, *(finding.answer for finding in v.findings)) for v in verdicts]
    widths = [max(len(row[column]) for row in (head, *rows)) + 2 for column in range(len(head))]
    lines = [one_line("".join(word.ljust(width) for word, width in zip(head, widths, strict=True)).rstrip())]
    for row in rows:
        cells = [word.ljust(width) for word, width in zip(row[:-1], widths, strict=False)] + [row[-1]]
        coloured = [click.style(cell, fg=_COLOURS.get(cell.strip())) for cell in cells[2:]]
        lines.append("".join([*cells[:2], *coloured]))
    lines.append(one_line(f"why, and what to do: rumpbundle check {name} --target TARGET"))
    say("\n".join(lines), styled=True)


def _described(verdict: Verdict) -> dict[str, object]:
    return {
        "kernel": verdict.kernel,
        "target": verdict.target,
        "firmware": verdict.firmware,
        "answers": {
            finding.question: {k: v for k, v in dataclasses.asdict(finding).items() if k != "question"}
            for finding in verdict.findings
        },
        "notes": list(verdict.notes),
    }


def _text(verdict: Verdict) -> str:
    width = max(60, min(shutil.get_terminal_size().columns, 118))
    lines = [one_line(f"{verdict.kernel} on {verdict.title}, {verdict.firmware.upper()}")]
    for finding in verdict.findings:
        lines += _rows(finding, width)
    lines += _wrapped("notes", "; ".join(verdict.notes), width) if verdict.notes else []
    return "\n".join(lines)


def _rows(finding: Finding, width: int) -> list[str]:
    answer = click.style(f"{finding.answer:<8}", fg=_COLOURS[finding.answer], bold=True)
    known = "" if finding.answer == "unknown" else f" [{_BASIS[finding.basis]}]"
    first, *more = textwrap.wrap(one_line(finding.why + known), width - 20)
    lines = [f"  {finding.question:<9}{answer} {first}", *(" " * 20 + line for line in more)]
    if finding.way:
        lines += [
            f"{' ' * 17}{'=> ' if not at else '   '}{line}"
            for at, line in enumerate(textwrap.wrap(one_line(finding.way), width - 20))
        ]
    return lines


def _wrapped(label: str, text: str, width: int) -> list[str]:
    first, *more = textwrap.wrap(one_line(text), width - 11)
    return [f"  {label:<9}{first}", *(" " * 11 + line for line in more)]
