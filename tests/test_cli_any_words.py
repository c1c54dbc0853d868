"""Whatever words are given: at most one error, in one line, and never a traceback."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import click
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support import kernels

from rumpbundle import cli

# No device and nothing above the scratch directory is among them: if --force ever replaced it, the host would suffer.
WORDS = (
    *("", "-", "--", "0", "-1", "1", "64M", "1e9", "0x10", "٣", "é", "\udcff", "a\nb", "x" * 5000),
    *("%s", "{", "'", '"', "$(x)", ".*", "[", "k=v", "=", "a=b=c", "8080:80", "vioif0,inet,dhcp", "x,inet,static"),
    *("app.bin", "app.bin/", "app.iso", "cfg.json", "none", "none:/x", "no/such", "pipe", "pipe:/x"),
    *("tree", "tree/", "tree:/data", "tree:/", "tree:/data:1M", "tree:x", "iso", "iso,vmdk", "vmdk:stream", "ec2"),
)  # fmt: skip
KEPT = {"app.bin", "app.iso", "tree", "pipe", "cfg.json"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with something of every kind to name."""
    directory = tmp_path_factory.mktemp("words")
    with contextlib.chdir(directory):
        shutil.copy(kernels.build("multiboot"), "app.bin")
        Path("cfg.json").write_text('{"rumpbundle": 1}')
        Path("tree").mkdir()
        Path("tree", "file").write_text("x")
        Path("tree", "link").symlink_to("/etc/passwd")
        os.mkfifo("pipe")
        assert cli.main(["iso", "app.bin"]) == 0
        yield directory


@st.composite
def command_lines(draw):
    """A command, words where its arguments stand, and some of its options with words for values."""
    context = click.Context(cli.cli)
    name = draw(st.sampled_from(cli.cli.list_commands(context)))
    command = cli.cli.get_command(context, name)
    line = [name, *draw(st.lists(st.sampled_from(WORDS), max_size=2))]
    options = [each for each in command.params if isinstance(each, click.Option)]
    for option in draw(st.lists(st.sampled_from(options), max_size=4)) if options else ():
        line.append(option.opts[-1])
        if not option.is_flag:
            choices = option.type.choices if isinstance(option.type, click.Choice) else ()
            line.append(draw(st.sampled_from((*choices, *WORDS))))
    return [*line, "--dry-run"] if name in ("boot", "run") else line


@settings(
    max_examples=1000, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(command_lines())
@example(["raw", "tree/", "--arg", "word"])
def test_any_words(place, capsys, line):
    capsys.readouterr()
    with contextlib.chdir(place):
        status = cli.main(line)
        for name in set(os.listdir()) - KEPT:
            path = Path(name)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    errors = [each for each in capsys.readouterr().err.splitlines() if each.startswith("error: ")]
    assert len(errors) == (1 if status else 0), (line, status, errors)
