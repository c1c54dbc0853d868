"""``--dry-run`` of several outputs: the plan of each that would be written, the error of each that would not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from rumpbundle.bundling.batch import Target
from rumpbundle.bundling.writing import Plan, check_outputs
from rumpbundle.cli.results import plan_json, plan_text
from rumpbundle.cli.streams import say, say_json, tell_error
from rumpbundle.errors import RumpbundleError
from rumpbundle.events import Report
from rumpbundle.formats import Job
from rumpbundle.host.staging import check_free


def rehearse(
    planned: Plan, wanted: Sequence[Target], report: Report, *, force: bool, parents: bool = False
) -> tuple[list[tuple[Target, Job]], list[tuple[Target, RumpbundleError]]]:
    """Return what would be written of *wanted*, and what would not; *parents* as ``make_directory`` has it."""
    jobs, failed = [], []
    for target in wanted:
        try:
            _check_place(target, force, parents)
            job = target.job(planned, report=report)
        except RumpbundleError as error:
            failed.append((target, error))
        else:
            jobs.append((target, job))
    return jobs, failed


def rehearsed(planned: Plan, wanted: Sequence[Target], report: Report, *, force: bool, as_json: bool) -> int:
    """Print what would be written of *wanted*, and what would not; return the status."""
    jobs, failed = rehearse(planned, wanted, report, force=force)
    return show(jobs, [(target.name, error) for target, error in failed], as_json=as_json)


def _check_place(target: Target, force: bool, parents: bool) -> None:
    """Raise what writing *target* would: something else is there, or its directory is not and cannot be made."""
    directory = target.output.parent
    if os.path.lexists(directory):
        check_outputs(target.format, target.output, force=force, tidy=False)
        return
    while parents and not os.path.lexists(directory.parent):
        directory = directory.parent
    check_free(directory, force=False, tidy=False)


def show(
    jobs: Sequence[tuple[Target, Job]],
    failed: Sequence[tuple[str, RumpbundleError]],
    *,
    as_json: bool,
    images: Sequence[str] = (),
) -> int:
    """Print what would be written, of *images* if a project file describes it, and what not; return the status."""
    for where, error in failed:
        tell_error(error, where)
    if as_json:
        plans: list[dict[str, Any]] = [plan_json(job, target.format) for target, job in jobs]
        say_json([{"image": image} | plan for image, plan in zip(images, plans, strict=True)] if images else plans)
    elif jobs:
        say("\n\n".join(plan_text(job, target.format) for target, job in jobs))
    return max((error.exit_code for _, error in failed), default=0)
