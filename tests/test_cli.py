"""The command line is a contract: exit statuses, messages, what goes to which stream."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import kernels

import rumpbundle
from rumpbundle import formats
from rumpbundle.cli import main


@pytest.fixture
def app(tmp_path, monkeypatch):
    """A kernel called app.bin in an empty current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.bin").write_bytes(kernels.build("multiboot").read_bytes())
    return "app.bin"


def run(capsys, *argv: str) -> tuple[int, str, str]:
    status = main(argv)
    out, err = capsys.readouterr()
    return status, out, err


def refused(capsys, *argv: str) -> tuple[int, list[str]]:
    """Run what must fail: nothing on standard output, nothing left behind; return status and error lines."""
    before = sorted(os.listdir("."))
    status, out, err = run(capsys, *argv)
    assert status != 0
    assert out == ""
    assert sorted(os.listdir(".")) == before
    assert len(err.splitlines()) <= 2
    return status, err.splitlines()


def test_the_default_output_is_the_stem_in_the_current_directory(app, capsys):
    assert run(capsys, "iso", app) == (0, "app.iso\n", "")
    assert run(capsys, "raw", app, "-o", "disk") == (0, "disk\n", "")
    assert os.path.getsize("disk") % (1 << 20) == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("app.bin", "app.iso"),
        ("app", "app.iso"),
        ("memtest86+x64.bin", "memtest86+x64.iso"),
        ("vmlinuz-6.1.0-18-amd64", "vmlinuz-6.1.0-18-amd64.iso"),
        (".hidden", ".hidden.iso"),
        ("a.tar.gz", "a.tar.iso"),
    ],
)
def test_only_what_looks_like_an_extension_is_cut(app, capsys, name, expected):
    if name != app:
        os.rename(app, name)
    assert run(capsys, "iso", name)[1] == f"{expected}\n"


def test_size_is_the_least_size_of_the_disk(app, capsys):
    assert run(capsys, "raw", app, "--size", "3000001")[0] == 0
    assert os.path.getsize("app.raw") == 3 << 20
    assert run(capsys, "raw", app, "--size", "2G", "--force")[0] == 0
    assert os.path.getsize("app.raw") == 2 << 30
    assert os.stat("app.raw").st_blocks * 512 < 4 << 20


def test_json_is_json(app, capsys):
    status, out, _ = run(capsys, "iso", app, "--json")
    value = json.loads(out)
    assert status == 0
    assert [(each["format"], each["path"]) for each in value["artifacts"]] == [("iso", "app.iso")]
    assert len(value["digest"]) == 64


@pytest.mark.parametrize("format", formats.names())
def test_a_dry_run_prints_the_plan_of_every_format_and_writes_nothing(app, capsys, format):
    before = sorted(os.listdir("."))
    status, out, _ = run(capsys, format, app, "--dry-run")
    assert status == 0
    assert f"({format})" in out
    status, out, _ = run(capsys, format, app, "--dry-run", "--json")
    assert status == 0
    assert json.loads(out)["format"] == format
    assert sorted(os.listdir(".")) == before


def test_verbose_shows_commands_and_quiet_shows_nothing(app, capsys):
    assert run(capsys, "vmdk", app, "-q")[2] == ""
    image = app.replace(".bin", ".vmdk")
    assert "+ qemu-img check" in run(capsys, "verify", image, "-v")[2]
    assert run(capsys, "verify", image, "-q")[2] == ""


def test_an_existing_output_stays(app, capsys):
    Path("app.iso").write_text("precious")
    status, err = refused(capsys, "iso", app)
    assert (status, err) == (
        2,
        ["error: app.iso: already exists", "hint: give --force to overwrite it, or another name"],
    )
    assert Path("app.iso").read_text() == "precious"
    assert run(capsys, "iso", app, "--force")[0] == 0


def test_the_kernel_cannot_be_its_own_output(app, capsys):
    status, err = refused(capsys, "iso", app, "-o", app, "--force")
    problem = "error: app.bin: is an input and cannot be the output too"
    assert (status, err) == (2, [problem, "hint: give another name"])


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        (["iso"], "missing argument 'APP'", "rumpbundle iso --help"),
        (["isoo", "app.bin"], "no such command 'isoo'", "did you mean iso?"),
        (["app.bin"], "no such command 'app.bin'", "what to make of it comes first, as in: rumpbundle iso app.bin"),
        (["frobnicate"], "no such command 'frobnicate'", "rumpbundle --help"),
        (["iso", "app.bin", "-o", "-"],
         "invalid value for '-o' / '--output': is not written front to back: name a file, not standard output",
         "rumpbundle iso --help"),
        (["iso", "app.bin", "--siz", "1"],
         "no such option '--siz'. (Did you mean one of: '--sign', '--size', '--strict'?)",
         "rumpbundle iso --help"),
        (["iso", "app.bin", "--size", "big"],
         "--size: expected a size such as 512M, 2G or 1.5G, got 'big'", None),
        (["iso", "app.bin", "--firmware", "coreboot"],
         "invalid value for '--firmware': 'coreboot' is not one of 'both', 'bios', 'uefi'", "rumpbundle iso --help"),
        (["iso", "no.bin"], "no.bin: no such file", None),
        (["iso", "."], ".: is a directory, expected a regular file", None),
        (["iso", "app.bin", "--module", "no.mod:text"], "no.mod: no such file", None),
        (["iso", "app.bin", "-o", "no/app.iso"], "no: no such directory",
         "make it first, or give another name"),
        (["iso", "app.bin", "--name", "a/b"], "--name: expected 1 to 100 printable characters without '/', got 'a/b'",
         None),
        (["iso", "app.bin", "--cmdline", "a\nb"],
         "'a\\nb': a newline cannot pass through the boot loader", None),
        (["iso", "app.bin", "--cmdline", "a\\b"],
         "'app.bin a\\\\b': GRUB would put a backslash before each \\ of this command line",
         "leave it out, or pass it in a module or file, which arrive byte for byte"),
        (["iso", "app.bin", "--protocol", "linux"],
         "app.bin: does not carry the linux protocol (it carries multiboot)", None),
    ],
)  # fmt: skip
def test_wrong_input_is_one_clear_line_and_status_2(app, capsys, argv, message, hint):
    status, err = refused(capsys, *argv)
    assert status == 2
    assert err[0] == f"error: {message}"
    assert err[1:] == ([f"hint: {hint}"] if hint else [])


def test_an_unprintable_name_does_not_break_the_line(app, capsys):
    status, err = refused(capsys, "iso", "no\x1b[31m\nfile")
    assert (status, err) == (2, ["error: no\\x1b[31m\\nfile: no such file"])


def test_without_arguments_the_help_is_shown_and_the_status_is_2(capsys):
    status, out, err = run(capsys)
    assert status == 2
    assert out == ""
    assert "Formats (rumpbundle FORMAT APP):" in err


def test_help_lists_every_format_and_command(capsys):
    status, out, _ = run(capsys, "--help")
    assert status == 0
    for name in formats.names():
        assert f"  {name} " in out
        assert run(capsys, name, "--help")[0] == 0


def test_source_date_epoch_is_checked(app, capsys, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    status, err = refused(capsys, "iso", app)
    assert status == 2
    assert err[0].startswith("error: SOURCE_DATE_EPOCH: expected seconds since 1970")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    assert run(capsys, "iso", app)[0] == 0
    assert b"20010909014640" in Path("app.iso").read_bytes()[0x8000:0x8800]


def test_formats_lists_the_registry(capsys):
    status, out, _ = run(capsys, "formats", "--json")
    assert status == 0
    assert [row["name"] for row in json.loads(out)] == list(formats.names())
    for name in formats.names():
        assert f"\n  {name}" in run(capsys, "formats")[1]


def test_a_reader_that_goes_away_is_no_traceback(app):
    process = subprocess.run(
        f"{sys.executable} -m rumpbundle iso --help | true",
        shell=True,
        capture_output=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(Path(rumpbundle.__file__).parents[1])},
    )
    assert process.stderr == b""


def test_names_that_are_not_utf8_work(app, capfdbinary):
    name = os.fsdecode(b"k\xff.bin")
    os.rename(app, name)
    assert main(["iso", name]) == 0
    assert capfdbinary.readouterr().out == b"k\xff.iso\n"
    assert os.path.exists(os.fsdecode(b"k\xff.iso"))


@pytest.mark.parametrize(("backend", "first"), [("qemu", "rumpbundle raw app.bin"), ("xl", "rumpbundle xen app.bin")])
def test_the_plan_of_a_boot_begins_with_the_bundling(app, capsys, backend, first):
    status, out, _ = run(
        capsys, "--boot", backend, app, "--accel=tcg" if backend == "qemu" else "--quiet", "--dry-run"
    )
    assert (status, out.splitlines()[0]) == (0, first)


def complete(*words):
    """Return what bash is offered for the last of *words*."""
    asked = {
        "_RUMPBUNDLE_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    argv = [sys.executable, "-m", "rumpbundle"]
    paths = {"PYTHONPATH": str(Path(rumpbundle.__file__).parents[1])}
    said = subprocess.run(
        argv, env=os.environ | asked | paths, capture_output=True, text=True, check=True, timeout=60
    )
    return [line.partition(",")[2] for line in said.stdout.splitlines()]


def test_the_shell_completes_commands_options_and_values():
    assert complete("rumpbundle", "v") == ["vdi", "vhd", "vhdx", "vmdk", "verify", "version", "volume"]
    assert complete("rumpbundle", "iso", "--fi") == ["--firmware"]
    assert complete("rumpbundle", "iso", "--firmware", "") == ["both", "bios", "uefi"]


def test_a_ctrl_c_while_it_starts_says_nothing():
    """Python would say where it was: there is nobody yet who takes it."""
    code = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "rumpbundle.cli":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
import rumpbundle.__main__
"""
    environment = os.environ | {"PYTHONPATH": str(Path(rumpbundle.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


def test_a_signal_in_the_middle_of_an_eval_has_our_status(tmp_path):
    """As all imports of named tuples have one: ``python -m`` would die of SIGINT at its end though we took it."""
    code = """
import signal, sys
from rumpbundle import __main__, cli
cli.cli.main = lambda *_, **__: eval("signal.raise_signal(signal.SIGTERM)")
sys.exit(__main__.main())
"""
    (tmp_path / "interrupted.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": f"{Path(rumpbundle.__file__).parents[1]}:{tmp_path}"}
    done = subprocess.run([sys.executable, "-m", "interrupted"], env=environment, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"error: interrupted\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_work_changes_nothing(number):
    leaving = f"atexit.register(os.kill, os.getpid(), {int(number)})"
    code = f"import atexit, os, sys; from rumpbundle.__main__ import main; {leaving}; sys.exit(main())"
    environment = os.environ | {"PYTHONPATH": str(Path(rumpbundle.__file__).parents[1])}
    argv = [sys.executable, "-c", code, "config", "--schema"]
    done = subprocess.run(argv, env=environment, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (["-q", "iso", "app.bin"], "no such option '-q'", "options come behind the command: rumpbundle iso -q"),
        (["--json", "aws", "a"], "no such option '--json'", "options come behind the command: rumpbundle aws --json"),
        (
            ["iso", "--", "app.bin"],
            "missing argument 'APP'",
            "the words behind -- are for the guest: APP comes before it",
        ),
    ],
)
def test_words_in_another_order_are_told_where_they_belong(capsys, words, error, hint):
    assert main(words) == 2
    assert capsys.readouterr().err == f"error: {error}\nhint: {hint}\n"


@pytest.mark.parametrize("words", [["build"], ["iso", "app.bin"], ["ls", "app.iso"]], ids=" ".join)
def test_a_current_directory_that_is_gone_is_told(tmp_path, words):
    script = 'mkdir gone; cd gone; rmdir ../gone; exec "$@"'
    argv = ["sh", "-c", script, "sh", sys.executable, "-P", "-m", "rumpbundle", *words]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode in (2, 3)
    assert len(done.stderr.splitlines()) <= 2
    assert done.stderr.startswith("error: ")


def test_no_word_at_all_is_told(capsys):
    for command in ("build", "verify", "check"):
        assert main([command, ""]) == 2
        assert capsys.readouterr().err == "error: expected a name or a path, got ''\n"


def test_json_has_no_half_of_a_pair():
    from rumpbundle.cli.streams import json_text

    words = ["\udcff", "\\udcff", "\U0001f600", "\ud800", "a\nb"]
    assert json.loads(json_text(words)) == ["\\xff", "\\udcff", "\U0001f600", "\\ud800", "a\nb"]
