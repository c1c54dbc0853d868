"""What a Python caller may ask for: the command line's words or typed values, and one clear error for all else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import kernels, synthetic

import rumpbundle
from rumpbundle import guests
from rumpbundle.bundling.recipe import ModuleFile, Recipe
from rumpbundle.config import Config
from rumpbundle.dev_launch import Options
from rumpbundle.disk import tree
from rumpbundle.errors import ConfigError, UsageError
from rumpbundle.launcher.backend import Forward


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink(kernels.build("multiboot"), "app.bin")
    Path("site").mkdir()
    Path("site", "page").write_text("x")
    Path("initrd").write_text("x")
    Path("cfg.json").write_text('{"hostname": "web"}')
    return tmp_path


def test_a_recipe_takes_the_command_lines_words(place):
    recipe = Recipe.of(
        "app.bin",
        size="1.5G",
        config_room="64K",
        modules=["initrd:debug", Path("initrd")],
        data=["site:/srv/www"],
        volumes=["site:/state:2M"],
        config="cfg.json",
        esp="site",
    )
    root = tree.scan("site")
    assert (recipe.size, recipe.config_room) == (3 << 29, 65536)
    assert recipe.modules == (ModuleFile("initrd", "debug"), ModuleFile(Path("initrd")))
    assert [each.mount for each in (*recipe.data, *recipe.volumes)] == ["/srv/www", "/state"]
    assert recipe.volumes[0].size == 2 << 20
    assert recipe.config == Config(hostname="web")
    assert "cfg.json" in recipe.inputs
    assert [node.name for node in recipe.esp.children] == [node.name for node in root.children]


def test_a_modules_command_line_may_be_longer_than_a_files_name(place):
    text = "console=hvc0 " * 400
    assert ModuleFile.parse(f"initrd:{text}") == ModuleFile("initrd", text)


def test_typed_values_are_kept(place):
    data = (guests.Data(tree.scan("site"), "/x"),)
    recipe = Recipe(app=Path("app.bin"), data=data, config=Config(), epoch=1_000_000_000)
    assert recipe.data == data
    assert Recipe.of(recipe) is recipe


WRONG = [
    {"epoch": 0}, {"epoch": 2**33}, {"epoch": "now"}, {"firmware": "efi"}, {"firmware": None}, {"protocol": "grub"},
    {"console": "x"}, {"size": -1}, {"size": "big"}, {"size": 1.5}, {"size": True}, {"size": "128"},
    {"config_room": -1},
    {"modules": 7}, {"modules": [7]}, {"data": ["x"]}, {"data": [7]}, {"volumes": ["site:/x:big"]}, {"cmdline": 7},
    {"config": 7}, {"name": 7}, {"strict": "yes"}, {"argv0": 0}, {"esp": 7}, {"inputs": 7},
]  # fmt: skip


@pytest.mark.parametrize("fields", WRONG, ids=str)
def test_a_wrong_field_is_an_error_that_names_it(place, fields):
    (name,) = fields
    with pytest.raises(UsageError) as caught:
        Recipe(app="app.bin", **fields)
    assert caught.value.where == name
    with pytest.raises(UsageError):
        rumpbundle.bundle("app.bin", output="out.iso", **fields)
    assert not Path("out.iso").exists()


@pytest.mark.parametrize("app", [None, 7, b"app.bin", ["app.bin"]])
def test_an_app_is_a_file(app):
    with pytest.raises(UsageError, match="app: expected the name of a file"):
        Recipe(app=app)


@pytest.mark.parametrize("jobs", [-1, 0, 1.5, "2", True])
def test_jobs_are_counted(place, jobs):
    with pytest.raises(UsageError, match="jobs: expected a whole number"):
        rumpbundle.bundle("app.bin", output="out.iso", jobs=jobs)


def test_options_are_the_formats_own(place):
    with pytest.raises(UsageError, match="options: expected OvaOptions for ova"):
        rumpbundle.bundle("app.bin", "ova", options=rumpbundle.Ec2Options())
    with pytest.raises(UsageError, match="options: expected none for iso"):
        rumpbundle.bundle("app.bin", "iso", options=rumpbundle.OvaOptions())
    assert rumpbundle.bundle("app.bin", "ova", options=rumpbundle.OvaOptions(cpus=2)).paths == (Path("app.ova"),)


def test_unknown_and_doubled_keywords_are_refused(place):
    with pytest.raises(UsageError, match="there is no option 'frimware'") as caught:
        rumpbundle.bundle("app.bin", frimware="uefi")
    assert caught.value.hint == "did you mean firmware?"
    recipe = Recipe(app="app.bin")
    for call in (
        lambda: rumpbundle.bundle(recipe, cmdline="x"),
        lambda: rumpbundle.launch(recipe, cmdline="x"),
        lambda: rumpbundle.launch("app.bin", recipe=recipe),
        lambda: rumpbundle.launch("app.bin", options=Options(accel="tcg"), memory="64M"),
        lambda: rumpbundle.run("app.iso", options=Options(accel="tcg"), memory="64M"),
        lambda: rumpbundle.run("app.iso", cmdline="x"),
    ):
        with pytest.raises(UsageError, match=r"already|no option|in options"):
            call()


def test_boot_options_take_the_command_lines_words():
    options = Options(memory="64M", firmware="uefi", publish=["8080:80", Forward(1, 2)], gdb="1234", args=["-s"])
    assert options.memory == 64 << 20
    assert options.publish == (Forward(8080, 80), Forward(1, 2))
    assert (options.gdb, options.args) == (1234, ("-s",))
    assert Options(publish="8080:80").publish == (Forward(8080, 80),)


@pytest.mark.parametrize(
    "fields",
    [{"memory": "64"}, {"memory": 1}, {"memory": []}, {"accel": "fast"}, {"bus": "isa"}, {"firmware": "efi"},
     {"publish": "80"}, {"publish": [80]}, {"publish": 80}, {"gdb": 0}, {"gdb": 99999}, {"args": "-s"}, {"args": [1]},
     {"backend": "bochs"}],
    ids=str,
)  # fmt: skip
def test_wrong_boot_options_are_errors(fields):
    with pytest.raises(UsageError):
        Options(**fields)


def test_looking_is_public(place):
    rumpbundle.bundle("app.bin", output="app.iso")
    assert rumpbundle.inspect("app.bin").name == "app.bin"
    assert rumpbundle.check("app.bin", "qemu").kernel == "app.bin"
    assert ("iso9660", "/rumpbundle.json") in [(name, entry.path) for name, entry in rumpbundle.ls("app.iso")]
    assert b"".join(rumpbundle.cat("app.iso", "/boot/kernel/app.bin")) == Path("app.bin").read_bytes()
    with pytest.raises(UsageError, match="protocol: expected one of"):
        rumpbundle.check("app.bin", "qemu", protocol="grub")


def test_several_formats_in_one_call(place):
    Path("out").mkdir()
    outcomes = rumpbundle.build("app.bin", ["iso", "vmdk:stream"], "out", cmdline="x")
    assert [outcome.artifact.path.name for outcome in outcomes] == ["app.iso", "app.stream.vmdk"]


def test_a_configurations_error_names_its_file(place, capsys):
    from rumpbundle.cli import main

    Path("cfg.json").write_text('{"rc": [{"bin": "a"}, {"bin": "b"}]}')
    Path("linux").write_bytes(synthetic.bzimage())
    with pytest.raises(ConfigError, match=r"^cfg\.json: \$\."):
        rumpbundle.bundle("linux", output="out.iso", firmware="bios", config="cfg.json")
    assert main(["iso", "linux", "--firmware", "bios", "-c", "cfg.json"]) == 2
    assert capsys.readouterr().err.startswith("error: cfg.json: $.")


def test_a_configuration_may_name_its_schema(place, capsys):
    from rumpbundle import config

    Path("cfg.json").write_text('{"$schema": "config.schema.json", "hostname": "web"}')
    assert Recipe(app="app.bin", config="cfg.json").config == Config(hostname="web")
    assert config.schema()["$id"].startswith("urn:")
    assert "$schema" in config.schema()["$defs"]["Config"]["properties"]


def test_a_type_checker_finds_a_misspelt_keyword(tmp_path):
    code = tmp_path / "caller.py"
    code.write_text(
        "import rumpbundle\n"
        'rumpbundle.bundle("a", "iso", cmdline="x", size="64M", modules=["m"])\n'
        'rumpbundle.launch("a", memory="64M", publish=["1:2"])\n'
        'rumpbundle.bundle("a", "iso", cmdlin="x")\n'
        'rumpbundle.launch("a", memroy="64M")\n'
        'rumpbundle.run("a", memroy="64M")\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", "--cache-dir", tmp_path / "cache", code],
        cwd=Path(rumpbundle.__file__).parents[1], capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    found = [line.split(":")[1] for line in done.stdout.splitlines() if ": error:" in line]
    assert found == ["4", "5", "6"], done.stdout


@pytest.mark.parametrize("wrong", [None, 1, b"x", ["x"], {}, 10**30, object()])
def test_what_is_no_name_is_an_error_wherever_one_is_wanted(place, wrong):
    for call in (
        lambda: rumpbundle.bundle("app.bin", wrong),
        lambda: rumpbundle.build("app.bin", ["iso"], wrong),
        lambda: rumpbundle.build("app.bin", [wrong]),
        lambda: rumpbundle.inspect(wrong),
        lambda: rumpbundle.ls(wrong),
        lambda: next(rumpbundle.cat(wrong, "/x")),
        lambda: rumpbundle.verify(wrong),
        lambda: rumpbundle.diff(wrong, wrong),
        lambda: rumpbundle.run(wrong),
        lambda: rumpbundle.check(wrong, "qemu"),
        *([lambda: rumpbundle.bundle("app.bin", output=wrong)] if wrong is not None else []),
    ):
        with pytest.raises(UsageError, match=r"expected the name of a f(ile|ormat)"):
            call()
