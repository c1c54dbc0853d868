"""The printed command lines, run by a real shell with programs that only write down what they were given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.clouds import kit
from support.kernels import build

from rumpbundle import formats

PROGRAMS = ("aws", "coldsnap", "gcloud", "az", "azcopy", "xl", "xenstore-write")
NAME = 'it\'s $(touch pwned) `touch pwned` "a"; touch pwned #'


@pytest.fixture(scope="module")
def recorder(tmp_path_factory):
    """A directory of programs that append their arguments, as JSON, to the file LOG names, and print ``7``."""
    directory = tmp_path_factory.mktemp("bin")
    for program in PROGRAMS:
        path = directory / program
        path.write_text(
            f"#!{sys.executable}\nimport json, os, sys\n"
            "open(os.environ['LOG'], 'a').write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + '\\n')\n"
            "print(7)\n"
        )
        path.chmod(0o755)
    return directory


def with_commands():
    return [format.name for format in formats.formats() if format.commands is not None]


def run(lines, recorder, cwd, log):
    script = "\n".join(lines)
    env = {"PATH": f"{recorder}:{os.environ['PATH']}", "LOG": str(log)}
    done = subprocess.run(["sh", "-eu", "-c", script], cwd=cwd, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.mark.parametrize("name", with_commands())
def test_a_shell_gives_the_programs_what_was_meant(name, recorder, tmp_path):
    place = tmp_path / NAME
    place.mkdir()
    kernel = place / f"-{NAME}.bin"
    kernel.write_bytes(build("multiboot").read_bytes())
    written, commands = kit(kernel, place / f"{NAME}{formats.find(name).suffix.rstrip('/')}", name)
    calls = run(commands, recorder, tmp_path, tmp_path / "log")
    assert {call[0] for call in calls} <= set(PROGRAMS)
    assert not list(tmp_path.rglob("pwned"))
    if name != "xen":  # whose commands enter the directory first
        paths = [word for call in calls for word in call if word.startswith(str(tmp_path))]
        assert paths
        assert all(Path(path).is_relative_to(written[0]) and Path(path).exists() for path in paths)


@pytest.mark.parametrize("name", with_commands())
def test_a_relative_path_is_no_option(name, recorder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kernel = tmp_path / "app.bin"
    kernel.write_bytes(build("multiboot").read_bytes())
    _, commands = kit(kernel, Path("-v" + formats.find(name).suffix.rstrip("/")), name)
    calls = run(commands, recorder, tmp_path, tmp_path / "log")
    assert not [word for call in calls for word in call if word.startswith("-v")]
