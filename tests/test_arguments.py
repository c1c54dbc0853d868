"""Whatever a caller passes that says nothing is refused by one of our own errors, for every keyword of the API."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import pytest
from support import kernels

import rumpbundle
from rumpbundle import arguments, dev_launch, formats
from rumpbundle.bundling.recipe import RecipeFields
from rumpbundle.errors import RumpbundleError, UsageError

WRONG = {
    "a number": 1.5,
    "digits": 10**5000,
    "bytes": b"x",
    "an array": bytearray(b"x"),
    "a mapping": {1: 2},
    "a thing": object(),
    "things": [object()],
    "nothings": [None],
    "numbers": [10**5000],
    "half a pair": "\ud800",
}
"""What no keyword of any function takes."""

CALLS = {
    "bundle": (rumpbundle.bundle, {"app": "app.bin", "format": "raw", "output": "new.raw"}, RecipeFields),
    "build": (rumpbundle.build, {"app": "app.bin", "names": ["raw"], "directory": "."}, RecipeFields),
    "launch": (rumpbundle.launch, {"app": "app.bin"}, dev_launch.LaunchFields),
    "run": (rumpbundle.run, {"image": "app.raw"}, dev_launch.BootFields),
    "check": (rumpbundle.check, {"app": "app.bin", "target": "ec2"}, None),
    "ls": (rumpbundle.ls, {"image": "app.raw"}, None),
    "cat": (lambda **words: list(rumpbundle.cat(**words)), {"image": "app.raw", "path": "/rumpbundle.json"}, None),
    "diff": (rumpbundle.diff, {"one": "app.raw", "other": "app.raw"}, None),
    "inspect": (rumpbundle.inspect, {"path": "app.raw"}, None),
    "verify": (rumpbundle.verify, {"path": "app.raw"}, None),
    "Unikernel.read": (rumpbundle.Unikernel.read, {"path": "app.bin"}, None),
    "ModuleFile": (rumpbundle.ModuleFile, {"path": "m"}, None),
}
SIGNATURES = {"cat": rumpbundle.cat}


def keywords():
    """Yield each call with each of its keywords."""
    for name, (function, _, fields) in CALLS.items():
        for keyword, parameter in inspect.signature(SIGNATURES.get(name, function)).parameters.items():
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                yield name, keyword
        for keyword in fields.__optional_keys__ if fields else ():
            yield name, keyword
    for format in formats.formats():
        for field in dataclasses.fields(format.options) if format.options else ():
            yield format.name, field.name


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        Path("app.bin").write_bytes(kernels.build("multiboot").read_bytes())
        rumpbundle.bundle("app.bin", "raw")
        yield place


@pytest.mark.parametrize(("name", "keyword"), sorted(set(keywords())))
def test_what_says_nothing_is_refused(place, name, keyword):
    if name in CALLS:
        function, words, _ = CALLS[name]
    else:
        function, words = formats.find(name).options, {}
    for what, value in WRONG.items():
        with pytest.raises(RumpbundleError) as caught:
            function(**{**words, keyword: value})
        assert len(str(caught.value)) < 400, what
    assert sorted(path.name for path in place.iterdir()) == ["app.bin", "app.raw"]


@pytest.mark.parametrize(
    "keyword", ["plan", "format", "output", "subformat", "options", "force", "sync", "jobs", "report"]
)
def test_a_plan_is_written_with_what_means_something(place, keyword):
    plan = rumpbundle.plan(rumpbundle.Recipe(app="app.bin"), formats=["raw"])
    for value in WRONG.values():
        with pytest.raises(RumpbundleError):
            rumpbundle.write(**{"plan": plan, "format": "raw", "output": "new.raw", keyword: value})


@pytest.mark.parametrize("keyword", ["recipe", "formats", "bus", "report"])
def test_a_plan_is_made_of_what_means_something(place, keyword):
    for value in WRONG.values():
        with pytest.raises(UsageError):
            rumpbundle.plan(**{"recipe": rumpbundle.Recipe(app="app.bin"), keyword: value})


def test_the_bus_of_a_plan_is_one_that_platforms_have(place):
    recipe = rumpbundle.Recipe(app="app.bin")
    with pytest.raises(UsageError, match=r"^bus: expected one of .*virtio-blk.*, got 'virtio'$") as caught:
        rumpbundle.plan(recipe, bus="virtio")
    assert caught.value.hint is not None
    assert rumpbundle.plan(recipe, bus="virtio-blk").bundle.bus == ""


def test_formats_and_outputs_may_be_named(place, tmp_path):
    plan = rumpbundle.plan(rumpbundle.Recipe(app="app.bin"), formats=["raw"])
    artifact, _ = rumpbundle.write(plan, "raw", str(tmp_path / "named.raw"))
    assert artifact.path.read_bytes() == Path("app.raw").read_bytes()
    assert formats.find(formats.find("raw")) is formats.find("raw")


def test_a_formats_options_take_the_command_lines_words():
    assert rumpbundle.OvaOptions(memory="64M").memory == 64 << 20
    assert rumpbundle.Ec2Options(tag=["a=b"]).tag == ("a=b",)
    for wrong in ({"controller": "floppy"}, {"nic": ""}, {"cpus": "2"}, {"memory": -1}):
        with pytest.raises(UsageError, match=f"--{next(iter(wrong))}: expected"):
            rumpbundle.OvaOptions(**wrong)


def test_a_guest_is_asked_for_what_means_something(place):
    with rumpbundle.launch("app.bin", accel="tcg") as guest:
        for value in [*WRONG.values(), "["]:
            with pytest.raises(UsageError, match=r"^pattern: "):
                guest.expect(value)
        for value in (set(WRONG) - {"a number"}, "1", -1, float("nan"), True):
            with pytest.raises(UsageError, match=r"^timeout: expected a number of seconds"):
                guest.wait(value)
        for value in (1.5, None, "\ud800", ["x"]):
            with pytest.raises(UsageError, match=r"^text: "):
                guest.send(value)
        guest.send("\udcff")
        assert guest.wait(float("inf")).good


def test_a_long_value_is_not_shown_whole():
    error = arguments.refused("size", "a size", "x" * 1000)
    assert len(str(error)) < 200
    assert str(error).endswith("…")
