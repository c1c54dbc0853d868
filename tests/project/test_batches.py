"""A batch of a fleet, as a worker makes it."""

from __future__ import annotations

import contextlib
import os
import weakref

import pytest
from support import fleet as support

from rumpbundle.errors import HostError
from rumpbundle.project import batches, fleet, reading, record
from rumpbundle.project.entry import entries


class Idle:
    """Stands for Dask's client: one worker, which is never asked."""

    def nthreads(self):
        return {"a": 1}


@pytest.fixture
def project(tmp_path, monkeypatch):
    support.make_project(tmp_path, 12)
    monkeypatch.chdir(tmp_path)
    return reading.read("rumpbundle.toml")


def batch_of(project, kept):
    """Return the first batch of *project*, of three bundles."""
    found = list(entries(project))
    (_, batch), *_ = fleet._Run(Idle(), project, kept, found[:3], None, True, print, print)._batches()
    return batch


def test_no_plan_is_kept_longer_than_its_bundle_takes(project, monkeypatch):
    plans, most = [], []
    real = batches._stock.plan

    def plan(*args):
        most.append(sum(each() is not None for each in plans))
        plans.append(weakref.ref(made := real(*args)))
        return made

    monkeypatch.setattr(batches._stock, "plan", plan)
    kept = record.BuildRecord(".")
    for made in (1, 0):  # new, and standing already
        done = batches.run(batch_of(project, kept))
        assert [each.made for each in done] == [made] * 3
        kept.add(output for each in done for output in each.outputs)
    assert most == [0] * 6


def test_where_nothing_can_be_named_what_stands_still_stands(project, monkeypatch):
    kept = record.BuildRecord(".")
    for each in batches.run(batch_of(project, kept)):
        kept.add(each.outputs)
    os.unlink("out/node-n0.iso")

    @contextlib.contextmanager
    def staged_batch(place, sync):
        place = place / "x"
        place.mkdir()
        yield place
        raise HostError("no space left on device")

    monkeypatch.setattr(batches, "staged_batch", staged_batch)
    first, *others = batches.run(batch_of(project, kept))
    assert first.failure is not None
    assert first.outputs == ()
    assert [(each.failure, len(each.outputs)) for each in others] == [(None, 1), (None, 1)]

    def refused(place, sync):
        raise PermissionError(13, "no")

    monkeypatch.setattr(batches, "staged_batch", refused)
    first, *others = batches.run(batch_of(project, kept))
    assert first.failure.problem.endswith("out: cannot be written: Permission denied")
    assert [(each.failure, len(each.outputs)) for each in others] == [(None, 1), (None, 1)]


def test_an_error_names_the_output_and_not_where_it_is_made(project, monkeypatch):
    def full(plan, format, output, **options):
        raise HostError("no space left on the output's file system", where=output)

    monkeypatch.setattr(batches, "write", full)
    first, *_ = batches.run(batch_of(project, record.BuildRecord(".")))
    assert first.failure.problem == f"{os.path.abspath('out/node-n0.iso')}: no space left on the output's file system"


def spoiled(project, name, text='formats = ["raw"]\nmodules = ["node-n0.raw"]'):
    """Return *project* with outputs beside it, and a batch of it."""
    with open("rumpbundle.toml") as file:
        said = file.read().replace('formats = ["iso"]', text).replace('output = "out"\n', "").replace("cmdline", "#")
    with open("rumpbundle.toml", "w") as file:
        file.write(said)
    return batch_of(reading.read("rumpbundle.toml"), record.BuildRecord("."))


def test_no_output_takes_the_place_of_an_input(project):
    with open("node-n0.raw", "w") as file:
        file.write("a module")
    first, *others = batches.run(spoiled(project, "node-n0.raw"))
    assert first.failure.problem.endswith("node-n0.raw: is an input and cannot be the output too")
    assert [each.failure for each in others] == [None, None]
    with open("node-n0.raw") as file:
        assert file.read() == "a module"


@pytest.mark.parametrize(("format", "name"), [("iso", "node-n0.iso"), ("ec2", "node-n0.ec2")])
def test_a_directory_of_the_users_stays(project, format, name):
    os.mkdir(name)
    with open(f"{name}/mine", "w") as file:
        file.write("mine")
    first, *others = batches.run(spoiled(project, name, f'formats = ["{format}"]'))
    assert name in first.failure.problem
    assert [each.failure for each in others] == [None, None]
    assert os.listdir(name) == ["mine"]
