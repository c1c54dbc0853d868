"""Every command on hostile terminals, and with hostile names: its contract's status, and nothing that acts on one."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from support import kernels

from rumpbundle import cli, formats
from rumpbundle.errors import one_line
from rumpbundle.host import shell

STATUSES = {0, 2, 3, 4, 5, 130, 141}
"""What docs/cli.md promises."""
RUMPBUNDLE = [sys.executable, "-m", "rumpbundle"]
LINES = {
    **{name: [name, "app.bin", "-o", f"out/app{formats.find(name).tail}", "--force"] for name in formats.names()},
    "boot": ["--boot", "qemu", "app.bin", "--accel", "tcg", "--dry-run"],
    "build": ["build", "app.bin", "-f", "iso,raw", "-o", "out", "--force", "--checksums"],
    "cat": ["cat", "app.iso", "/boot/grub/grub.cfg"],
    "check": ["check", "app.bin", "--target", "qemu"],
    "component": ["component", "tree", "-o", "out/app.o", "--force"],
    "config": ["config", "--schema"],
    "formats": ["formats"],
    "inspect": ["inspect", "app.iso"],
    "ls": ["ls", "app.iso"],
    "run": ["run", "app.iso", "--boot", "qemu", "--accel", "tcg", "--dry-run"],
    "volume": ["volume", "tree", "-o", "out/tree.iso", "--force"],
}
"""A line for each command that prints; any other shows its help."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    directory = tmp_path_factory.mktemp("hostile")
    with contextlib.chdir(directory):
        shutil.copy(kernels.build("multiboot"), "app.bin")
        Path("out").mkdir()
        Path("tree").mkdir()
        Path("tree", "file").write_text("x")
        assert cli.main(["iso", "app.bin", "-q"]) == 0
    return directory


def line_of(name):
    return LINES.get(name, [name, "--help"])


COMMANDS = cli.cli.list_commands(click.Context(cli.cli))
UNWRITABLE = {">&-": 3, ">/dev/full": 3, "| head -c 0": 141}
HARMLESS = ("2>&-", "2>/dev/full", "<&-", "2>&1 >/dev/null | head -c 0")
ENCODINGS = (
    {"PYTHONIOENCODING": "iso8859-15"},
    {"PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
)


def run(place, line, redirection="", **environment):
    script = f"{shell.joined([*RUMPBUNDLE, *line])} {redirection}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=place, env=os.environ | environment, capture_output=True, timeout=120,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert b"Traceback" not in done.stderr + done.stdout, done.stderr.decode()
    assert b"Exception ignored" not in done.stderr
    return done


@pytest.mark.parametrize("name", ["iso", "xen", *(name for name in COMMANDS if name not in formats.names())])
@pytest.mark.parametrize("redirection", UNWRITABLE)
def test_what_cannot_be_written_is_an_error(place, name, redirection):
    done = run(place, line_of(name), redirection)
    assert done.returncode == UNWRITABLE[redirection]
    errors = [line for line in done.stderr.decode().splitlines() if line.startswith("error: ")]
    if redirection != "| head -c 0":
        assert len(errors) == 1
        assert errors[0].startswith("error: standard output: ")
    else:
        assert not errors


@pytest.mark.parametrize("name", ["iso", "build", "check", "run", "volume"])
@pytest.mark.parametrize("redirection", HARMLESS)
def test_nobody_need_hear_the_story(place, name, redirection):
    assert run(place, [*line_of(name), *(["-v"] if name == "iso" else [])], redirection).returncode == 0


def test_a_closed_descriptor_is_not_given_to_a_file(place):
    """What is printed must not go into the image that took the closed descriptor's number."""
    expected = (place / "app.iso").read_bytes()
    for redirection in (">&-", "2>&-", ">&- 2>&- <&-"):
        run(place, ["iso", "app.bin", "-o", "out/same.iso", "--force", "-v"], redirection)
        assert (place / "out/same.iso").read_bytes() == expected


@pytest.mark.parametrize("environment", ENCODINGS, ids=lambda value: " ".join(value.values()))
@pytest.mark.parametrize("name", ["iso", "check", "formats", "inspect", "ls", "gce"])
def test_any_encoding_will_do(place, name, environment):
    shutil.copy(place / "app.bin", place / "h\N{RIGHTWARDS ARROW}\xe9.bin")
    shutil.copy(place / "app.iso", place / "h\N{RIGHTWARDS ARROW}\xe9.iso")
    line = [word.replace("app.", "h\N{RIGHTWARDS ARROW}\xe9.", 1) for word in line_of(name)]
    assert run(place, line, **environment).returncode == 0
    assert run(place, ["no\N{RIGHTWARDS ARROW}"], **environment).returncode == 2


def test_the_locale_reaches_no_image(place):
    line = [
        "iso",
        "app.bin",
        "-o",
        "out/l.iso",
        "--force",
        "--cmdline",
        "\xe9\N{RIGHTWARDS ARROW}",
        "--data",
        "tree:/\xe9",
    ]
    images = []
    for environment in ({"LC_ALL": "C.UTF-8"}, ENCODINGS[-1]):
        assert run(place, line[:-2], **environment).returncode == 0
        images.append((place / "out/l.iso").read_bytes())
    assert images[0] == images[1]


HOSTILE = {
    "escape": "\x1b[31mred\x1b]0;title\x07\x9b31m\x85\N{RIGHT-TO-LEFT OVERRIDE}cod.exe\N{LEFT-TO-RIGHT ISOLATE}",
    "lines": "a\nerror: b\r\n'\"`$(id)\\ %s {}",
    "not UTF-8": "\udcff\udc9b",
}


def check_safe(text):
    assert all(character.isprintable() or character == "\n" for character in text), ascii(text)


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("name", COMMANDS)
def test_no_name_acts_on_the_terminal(place, name, value, capsysbinary, monkeypatch):
    monkeypatch.chdir(place)
    shutil.rmtree("hostile", ignore_errors=True)
    os.makedirs(f"hostile/{value}/{value}")
    Path("hostile", value, "file").write_text("x")
    for suffix in (".bin", ".iso"):
        shutil.copy(f"app{suffix}", f"hostile/{value}{suffix}")
    line = [word.replace("app.", f"hostile/{value}.").replace("tree", f"hostile/{value}") for word in line_of(name)]
    line = [word.replace(f"out/hostile/{value}", f"out/{value}") for word in line]
    own = {
        "xen": ["--set", f"vif={value}", "--host-directory", f"/{value}"],
        "gce": ["--tag", f"a={value}"],
        "ec2": ["--tag", f"a={value}", "--description", value],
    }.get(name, [])
    bundling = ["--cmdline", value, "--name", value[:90], "--module", f"hostile/{value}.bin:{value}"]
    variants = [
        [],
        ["--json"],
        *([["--dry-run"], ["--dry-run", "--json"], bundling] if name in formats.names() else []),
    ]
    variants += [["--print-commands"], own] if own else []
    variants = variants if name in LINES else [[]]
    for more in variants:
        command = cli.cli.get_command(click.Context(cli.cli), line[0] if name != "boot" else "boot")
        known = {option for each in command.params for option in each.opts}
        if more and more[0].startswith("--") and more[0] not in known:
            continue
        status = cli.main([*line, *more])
        out, err = (each.decode("utf-8", "surrogateescape") for each in capsysbinary.readouterr())
        assert status in STATUSES, (line, more, status)
        check_safe(err)
        errors = [each for each in err.splitlines() if each.startswith("error: ")]
        assert len(errors) == bool(status), (line, more, err)
        if name in ("cat",) or (out and not status and "--json" not in more and "--dry-run" not in more):
            continue  # a file's content; or its name, to whoever reads the pipe
        if "--json" in more and not status:
            assert out.isascii()
            json.loads(out)
        check_safe(out)


def test_a_terminal_gets_safe_names(place):
    name = HOSTILE["escape"]
    shutil.copy(place / "app.bin", place / f"{name}.bin")
    ours, theirs = pty.openpty()
    line = ["gce", f"{name}.bin", "-o", f"out/{name}.tar.gz", "--force", "--print-commands", "-v"]
    done = subprocess.run([*RUMPBUNDLE, *line], cwd=place, stdout=theirs, stderr=theirs, timeout=60)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):
        while data := os.read(ours, 4096):
            said += data
    os.close(ours)
    assert done.returncode == 0
    check_safe(said.decode().replace("\r\n", "\n"))
    assert one_line(f"out/{name}.tar.gz") in said.decode()


WORDS = [*HOSTILE.values(), "", "plain", "a b", "x\n", "100%\x1b", "\\\x1b'"]


@pytest.mark.parametrize("word", WORDS, ids=map(ascii, WORDS))
def test_a_quoted_word_arrives(word):
    text = shell.quoted(word)
    check_safe(text)
    assert "\n" not in text
    for program in ("bash", *(["dash"] if not word.endswith("\n") else [])):
        done = subprocess.run([program, "-c", f"printf %s {text}"], capture_output=True, timeout=10)
        assert done.stdout == os.fsencode(word)


def test_only_one_module_writes_to_the_streams():
    package = Path(cli.__file__).parents[1]
    for path in package.rglob("*.py"):
        if path.name != "streams.py":
            found = re.findall(r"click\.s?echo\(|sys\.std(?:out|err)\.(?:write|buffer)", path.read_text("utf-8"))
            assert not found, path
