"""The command line's words for the guest: they all end in the same configuration, data and volumes."""

from __future__ import annotations

import io
import json
import re
import sys

import click
import pytest
from support import synthetic

from rumpbundle.cli import main, one_format
from rumpbundle.cli.guest import GUEST_OPTIONS
from rumpbundle.config import Block, Config, Network, Program
from rumpbundle.errors import InputError, RumpbundleError
from rumpbundle.formats import find


@pytest.fixture
def recipe(monkeypatch):
    """Return a function that gives the recipe a command line stands for; nothing is bundled."""

    class Stop(Exception):
        pass

    def plan(recipe, **_):
        raise Stop(recipe)

    monkeypatch.setattr(one_format, "plan", plan)

    def parse(*words):
        with pytest.raises(Stop) as caught:
            one_format.format_command(find("raw")).main(
                ["app.bin", "--dry-run", *words], prog_name="raw", standalone_mode=False
            )
        return caught.value.args[0]

    return parse


def test_without_any_of_them_nothing_is_configured(recipe):
    found = recipe()
    assert (found.config, found.data, found.volumes) == (None, (), ())


def test_options_and_words_after_dashes(recipe):
    found = recipe(
        *("-e", "A=1", "--env", "B=x y", "--hostname", "web1", "--net", "vioif0,inet,dhcp"),
        *("--arg", "-d", "--arg=/data", "--", "--verbose", "-x", "--", "a b"),
    )
    assert found.config == Config(
        env={"A": "1", "B": "x y"},
        hostname="web1",
        net=(Network(interface="vioif0", type="inet", method="dhcp"),),
        rc=(Program(bin="app", argv=("-d", "/data", "--verbose", "-x", "--", "a b")),),
    )


def test_dashes_can_be_an_argument(recipe):
    for words in (("--arg", "--"), ("--arg=--",), ("--", "--")):
        assert recipe(*words, *(["--"] if words[0] == "--arg" else [])).config.rc[0].argv == ("--",)
    assert recipe("--arg", "--", "--arg", "-x", "--", "last").config.rc[0].argv == ("--", "-x", "last")


def test_options_change_what_the_file_says(recipe, tmp_path):
    (tmp_path / "cfg.json").write_text('{"cmdline": "httpd", "env": {"A": "file", "B": "file"}}')
    found = recipe("-c", str(tmp_path / "cfg.json"), "-e", "A=option")
    assert found.config == Config(cmdline="httpd", env={"A": "option", "B": "file"})


def test_the_help_shows_networks_that_a_guest_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.bin").write_bytes(synthetic.rumprun())
    (option,) = (each for each in GUEST_OPTIONS if "--net" in each(lambda: None).__click_params__[0].opts)
    shown = re.findall(r"\w+,inet6?,[^; ]*\w", option(lambda: None).__click_params__[0].help)
    assert len(shown) == 3
    for network in shown:
        assert main(["iso", "app.bin", "--force", "--net", network]) == 0


def test_standard_input(recipe, monkeypatch):
    text = b'{"blk": [{"source": "dev", "path": "/dev/ld1a"}]}'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert recipe("-c", "-").config == Config(blk=(Block(source="dev", path="/dev/ld1a"),))


def test_directories(recipe, tmp_path):
    (tmp_path / "a:b").mkdir()
    (tmp_path / "a:b" / "file").write_text("x")
    found = recipe(
        "--data", f"{tmp_path}/a:b:/data", "--volume", f"{tmp_path}/a:b:/db:64M", "--volume", f"{tmp_path}:/c"
    )
    assert [(d.mount, [n.name for n in d.tree.children]) for d in found.data] == [("/data", ["file"])]
    assert [(v.mount, v.size) for v in found.volumes] == [("/db", 64 << 20), ("/c", None)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-c", "missing.json"], "missing.json: no such file"),
        (["-e", "A"], "-e: expected KEY=VALUE, got 'A'"),
        (["--net", "vioif0"], "--net: expected IF,inet,dhcp"),
        (["--data", "missing:/data"], "missing: no such directory"),
        (["--data", ".:/a/../b"], "mount point: expected an absolute path without"),
        (["--hostname", "a b"], "hostname: expected letters"),
    ],
)
def test_wrong_values_are_refused(words, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    command = one_format.format_command(find("raw"))
    with pytest.raises(RumpbundleError) as caught:
        command.main(["app.bin", *words], prog_name="raw", standalone_mode=False)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "words", [["--data", "."], ["--data", ".:data"], ["--volume", ".:/data:x"], ["--volume", "."]]
)
def test_wrong_forms_are_usage_errors(words):
    with pytest.raises((click.UsageError, RumpbundleError), match="expected"):
        one_format.format_command(find("raw")).main(["app.bin", *words], prog_name="raw", standalone_mode=False)


def test_an_endless_configuration_is_not_read_whole(tmp_path):
    with open(tmp_path / "cfg.json", "wb") as file:
        file.truncate(1 << 40)
    command = one_format.format_command(find("raw"))
    with pytest.raises(InputError, match="larger than 1 MiB"):
        command.main(["app.bin", "-c", str(tmp_path / "cfg.json")], prog_name="raw", standalone_mode=False)


def test_the_json_plan_shows_what_the_guest_gets(tmp_path, capsys, monkeypatch):
    from support import kernels

    monkeypatch.chdir(tmp_path)
    argv = [str(kernels.build("multiboot")), "--dry-run", "--json", "--cmdline", "a b"]
    one_format.format_command(find("raw")).main(argv, prog_name="raw", standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["cmdline"] == "multiboot a b"
