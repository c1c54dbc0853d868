"""The command line as people know it: help in sections, sizes, synonyms, completion, pages of documentation."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from support import kernels
from support.tools import require

import rumpbundle
from rumpbundle import cli, formats, knowledge
from rumpbundle.cli import main
from rumpbundle.errors import one_line
from rumpbundle.host import programs
from rumpbundle.units import NoSize, parsed_size

ROOT = Path(rumpbundle.__file__).parents[1]
PAGES = sorted(path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in (ROOT / "docs").rglob("*.md"))
RUMPBUNDLE = [sys.executable, "-m", "rumpbundle"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(kernels.build("multiboot"), "app.bin")
    return tmp_path


def commands():
    context = click.Context(cli.cli)
    return {name: cli.cli.get_command(context, name) for name in cli.cli.list_commands(context)}


def test_the_help_shows_every_command_in_a_section(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert re.findall(r"^(\w[\w ]*)(?: \(.*\))?:$", text, re.MULTILINE) == ["Options", "Formats", *cli.SECTIONS]
    for name, command in commands().items():
        assert command.hidden or re.search(rf"^  {name} ", text, re.MULTILINE), name
    assert "also: aws" in text


@pytest.mark.parametrize("name", commands())
def test_every_command_has_help_within_80_columns_and_an_example(name, capsys):
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert name in ("completion", "formats", "version") or "\nExample:\n  rumpbundle " in text
    assert [line for line in text.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("name", formats.names())
def test_a_formats_options_stand_in_groups_with_an_example_each(name, capsys):
    assert main([name, "--help"]) == 0
    groups = capsys.readouterr().out.split("\n\n")
    titled = {group.splitlines()[0]: group for group in groups}
    for title in ("The kernel:", "The guest:", "The machine:", "The output:"):
        assert "  as in: --" in titled[title] or "  as in: -c" in titled[title]


@pytest.mark.parametrize(
    "words", [["--boot", "--help"], ["--boot", "-h"], ["boot", "--help"], ["--boot", "qemu", "--help"]]
)
def test_boot_has_help(words, capsys):
    assert main(words) == 0
    assert "What runs the guest" in capsys.readouterr().out


@pytest.mark.parametrize("name", commands())
def test_the_examples_of_the_help_are_for_that_command(name, place):
    """None of their words goes to a hypervisor, or is an image; the options are those of the command."""
    command = commands()[name]
    for example in {getattr(each, "group", ("", ""))[1] for each in command.params} - {""}:
        context = command.make_context(name, ["app.bin", *shlex.split(example)], resilient_parsing=True)
        assert context.meta.get("theirs", ()) == ()
        assert context.params.get("images", ("app.bin",)) == ("app.bin",)


def test_a_finished_image_is_not_bundled_to_be_booted(place, capsys):
    assert main(["iso", "app.bin", "-q"]) == 0
    capsys.readouterr()
    assert main(["--boot", "qemu", "app.iso"]) == 2
    assert capsys.readouterr().err == "error: app.iso: is an ISO image\nhint: rumpbundle run app.iso\n"


def test_a_file_whose_name_begins_with_a_dash(place, capsys):
    Path("-dash.bin").write_bytes(Path("app.bin").read_bytes())
    assert main(["iso", "-dash.bin"]) == 2
    assert capsys.readouterr().err.splitlines()[1] == "hint: write ./-dash.bin for the file of that name"
    assert main(["iso", "./-dash.bin", "-o", "dash.iso"]) == 0


def test_version(capsys):
    assert main(["version"]) == 0
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"rumpbundle {rumpbundle.__version__}\n" * 2


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("form", ["{}", "docs/{}.md", "docs/{}.md#linux"])
def test_help_prints_every_page(page, form, capsys):
    """By the words with which the pages and ``check --json`` name them, too."""
    assert main(["help", form.format(page)]) == 0
    assert capsys.readouterr().out.strip() == (ROOT / "docs" / f"{page}.md").read_text("utf-8").strip()


def test_help_lists_topics_and_knows_commands(capsys):
    assert main(["help"]) == 0
    topics = capsys.readouterr().out.partition("Topics")[2].splitlines()[1:]
    assert "  guests " in "\n".join(topics)
    assert len({re.match(r"  \S+ +", line).end() for line in topics}) == 1  # one column
    assert main(["help", "iso"]) == 0
    assert "Bundle APP as iso" in capsys.readouterr().out
    assert main(["help", "guest"]) == 2
    assert capsys.readouterr().err == "error: no such topic: guest\nhint: did you mean guests?\n"
    assert main(["help", "guest.md"]) == 2
    assert capsys.readouterr().err == "error: no such topic: guest.md\nhint: did you mean guests?\n"


@pytest.mark.parametrize(
    ("text", "size"),
    [("512M", 512 << 20), ("1.5G", 3 << 29), ("2GiB", 2 << 30), ("2 GB", 2 << 30), ("64k", 65536),
     ("1048576", 1 << 20), ("0", 0), ("8192T", 1 << 53), ("0.5k", 512)],
)  # fmt: skip
def test_sizes(text, size):
    assert parsed_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1e3M", "1.0001K", "٣M", "1 0M", "0x10M", "9" * 99])
def test_what_is_no_size(text):
    with pytest.raises(NoSize, match="expected a size such as 512M"):
        parsed_size(text)


@pytest.mark.parametrize(
    "words",
    [["iso", "app.bin", "--size"], ["ova", "app.bin", "--memory"], ["xen", "app.bin", "--memory"],
     ["--boot", "qemu", "app.bin", "--memory"], ["volume", ".", "-o", "x", "-t", "ext2", "--free"]],
)  # fmt: skip
def test_a_bare_number_is_asked_about(place, words, capsys):
    assert main([*words, "128"]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == f"error: {words[-1]}: 128 is a number of bytes, and too small"
    assert hint == "hint: did you mean 128M?"


def test_a_bare_number_of_whole_kibibytes_may_mean_these():
    with pytest.raises(NoSize) as caught:
        parsed_size("4096")
    assert caught.value.hint == "did you mean 4096M or 4K?"


@pytest.mark.parametrize(
    ("words", "problem", "hint"),
    [
        (["vmware", "app.bin"], "no such command 'vmware'", "did you mean vmdk or ova?"),
        (["VirtualBox", "app.bin"], "no such command 'VirtualBox'", "did you mean vdi or ova?"),
        (["ISO", "app.bin"], "no such command 'ISO'", "did you mean iso?"),
        (["build", "app.bin", "-f", "vmdk", "--subformat", "stream"], "no such option '--subformat'",
         "a subformat stands behind its format, as in -f vmdk:stream"),
        (["vmdk:stream", "app.bin"], "no such command 'vmdk:stream'",
         "a subformat is given to build: rumpbundle build APP -f vmdk:stream"),
        (["build", "app.bin", "-f", "VMDK"], "no such format: VMDK", "did you mean vmdk?"),
        (["build", "app.bin", "-f", "virtualbox"], "no such format: virtualbox", "did you mean vdi or ova?"),
        (["check", "app.bin", "--target", "awss"], "no such target: awss", "did you mean aws?"),
        (["check", "app.bin", "--target", "Xen"], "no such target: Xen",
         "did you mean xen-hvm, xen-pv or xen-pvh?"),
        (["boot", "app.bin", "--boot", "VirtualBox"], "--boot: no such backend: VirtualBox", "did you mean vbox?"),
        (["iso", "app.bin", "--firmware", "efi"],
         "invalid value for '--firmware': 'efi' is not one of 'both', 'bios', 'uefi'", "did you mean uefi?"),
        (["xen", "app.bin", "--type", "PVH"],
         "invalid value for '--type': 'PVH' is not one of 'auto', 'pv', 'pvh', 'hvm'", "did you mean pvh?"),
        (["--boot", "qemu"], "missing argument 'APP | NAME'", "rumpbundle boot --help"),
        (["--boot"], "option '--boot' requires an argument", "rumpbundle boot --help"),
        (["iso", "app.bin", "-o"], "option '-o' requires an argument", "rumpbundle iso --help"),
        (["iso", "app.bin", "-cmdline", "x"], "got unexpected extra argument (x)", "did you mean --cmdline?"),
        (["boot", "app.bin", "-memory=1G"], "no such option '-m'", "did you mean --memory?"),
        (["build", "app.bin", "-f", "iso,"], "-f: expected formats with commas between them, got 'iso,'",
         "as in -f iso,ova"),
        (["convert", "app.iso", "-f", ""], "-f: expected formats with commas between them, got ''",
         "as in -f iso,ova"),
        (["build", "app.bin", "-f", "iso", "vmdk"], "expected one kernel, got 2 paths",
         "give all formats in one word, as in -f iso,ova"),
        (["build", "app.bin", "-f", "iso", "-o", "app.bin"], "app.bin: is there, and is no directory",
         "that is the directory for all that is written"),
        (["build", "app.bin", "-f", "iso", "-o", "a/b"], "a/b: cannot be made a directory: No such file or directory",
         "make a first"),
        (["iso", "app.bin", "--cpus", "2"], "no such option '--cpus'",
         "--cpus is an option of ova, convert, reconfig"),
        (["iso", "app.bin", "-f", "vmdk"], "no such option '-f'", "-f is an option of build, convert"),
        (["raw", "app.bin", "--publish", "80:80"], "no such option '--publish'",
         "rumpbundle --boot qemu APP and rumpbundle run IMAGE take --publish"),
        (["boot", "qemu", "app.bin"], "got unexpected extra argument (app.bin)",
         "the hypervisor is given as --boot qemu"),
        (["run", "xl", "app.iso"], "got unexpected extra argument (app.iso)",
         "the hypervisor is given as --boot xl"),
        (["iso", "app.bin", "--module", ":x"],
         "invalid value for '--module' / '--initrd': expected FILE[:TEXT], got ':x'",
         "rumpbundle iso --help"),
        (["check", "app.bin", "aws"], "expected one kernel, got 2 paths", "a platform is given as --target NAME"),
        (["convert", "app.bin", "-f", "vmdk"], "app.bin: is an ELF program or kernel, no disk image",
         "rumpbundle vmdk app.bin"),
        (["build", "web"], "web: no such file, and no rumpbundle.toml here or in a directory above", None),
        (["iso", "app.bin", "-o", "."], "--output: expected the name of a file, got a directory's", "as in ./NAME"),
        (["iso", "app.bin", "--size", "9000T"], "--size: expected at most 8192T, got '9000T'", None),
        (["ls", ""], "image: expected the name of a file, got ''", None),
        (["volume", "", "-o", "x"], "'': no such directory", None),
        (["iso", "app.bin", "-c", ""], "'': no such file", None),
        (["fleet", ""], "'': no such file", None),
        (["build", "app.bin", "-f", "iso", "-o", ""],
         "invalid value for '-o' / '--output': expected a name, got nothing", "rumpbundle build --help"),
        (["fleet", "-o", ""],
         "invalid value for '-o' / '--output': expected a name, got nothing", "rumpbundle fleet --help"),
        (["completion"], "missing argument '{bash|zsh|fish}'. Choose from: bash, zsh, fish",
         "rumpbundle completion --help"),
    ],
)  # fmt: skip
def test_a_near_miss_is_told_what_to_type(place, capsys, words, problem, hint):
    assert main(words) == 2
    assert capsys.readouterr().err == f"error: {problem}\n" + (f"hint: {hint}\n" if hint else "")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["build", "app.bin", "-f", "iso", "vmdk"], "give all formats in one word, as in -f iso,ova"),
        (["build", "iso", "app.bin"], "give all formats in one word, as in -f iso,ova"),
        (["check", "app.bin", "aws"], "a platform is given as --target NAME"),
    ],
)
@pytest.mark.parametrize("project", ["", "[image.web]\napp = 'app.bin'\nformats = ['iso']\n"])
def test_a_near_miss_beside_a_project_file_is_told_the_same(place, capsys, words, hint, project):
    if project:
        Path("rumpbundle.toml").write_text(project)
    assert main(words) == 2
    assert capsys.readouterr().err == f"error: expected one kernel, got 2 paths\nhint: {hint}\n"


@pytest.mark.parametrize("words", [["convert", "app.iso", "-f", "raw"], ["reconfig", "app.iso", "--cmdline", "x"]])
def test_a_directory_for_one_image_is_told_what_to_type(place, capsys, words):
    assert main(["iso", "app.bin", "-q"]) == 0
    capsys.readouterr()
    Path("there").mkdir()
    for more in ([], ["--force"]):
        assert main([*words, "-o", "there", *more]) == 2
        problem = "--output: expected the name of a file, got a directory's"
        assert capsys.readouterr().err == f"error: {problem}\nhint: as in there/NAME\n"


def test_an_image_given_as_a_kernel_is_not_to_be_overwritten(place, capsys):
    assert main(["iso", "app.bin"]) == 0
    assert main(["iso", "app.iso"]) == 2
    assert "app.iso: is an input" in capsys.readouterr().err


def test_formats_may_have_spaces_between(place, capsys):
    assert main(["build", "app.bin", "-f", "iso, vmdk:stream"]) == 0
    assert capsys.readouterr().out == "app.iso\napp.stream.vmdk\n"


def test_xen_takes_a_size(place):
    assert main(["xen", "app.bin", "--memory", "96M", "-q"]) == 0
    assert "memory = 96\n" in Path("app.xen/xl.cfg").read_text()


def test_synonyms(place, capsys):
    Path("initrd").write_text("x")
    said = []
    for words in (
        ["app.bin", "--cmdline", "a", "--module", "initrd"],
        ["--kernel", "app.bin", "--append", "a", "--initrd", "initrd"],
        ["--kernel=app.bin", "--append=a", "--initrd=initrd"],
    ):
        assert main(["iso", *words, "--dry-run"]) == 0
        said.append(capsys.readouterr().out)
        assert main(["--boot", "vbox", *words, "--dry-run"]) == 0
        assert capsys.readouterr().out.startswith("rumpbundle ")
    assert said[0] == said[1] == said[2]


def test_an_option_keeps_its_value_whatever_it_looks_like(place, capsys):
    for words in (["--cmdline", "--kernel"], ["--cmdline", "--kernel=x"]):
        assert main(["iso", "app.bin", *words, "-q", "--force"]) == 0
        assert main(["cat", "app.iso", "/boot/grub/grub.cfg"]) == 0
        assert f" '{words[1]}';" in capsys.readouterr().out


@pytest.mark.parametrize(("alias", "name"), formats.ALIASES.items())
def test_a_format_by_its_other_name(place, alias, name, capsys):
    assert main([alias, "app.bin", "--dry-run", "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == name
    assert main(["build", "app.bin", "-f", alias, "--dry-run", "-q"]) == 0


@pytest.mark.parametrize(("alias", "name"), knowledge.ALIASES.items())
def test_a_platform_by_its_other_name(alias, name):
    assert knowledge.platform(alias) == knowledge.platform(name)


def complete(*words):
    environment = os.environ | {
        "_RUMPBUNDLE_COMPLETE": "bash_complete", "COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1),
    }  # fmt: skip
    done = subprocess.run(RUMPBUNDLE, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["check", "a", "--target", "v"], ["virtualbox", "vmware"]),
        (["check", "a", "--driver", "en"], ["ena"]),
        (["gce", "a", "--driver", "gv"], ["gvnic"]),
        (["build", "a", "-f", "vmdk:"], ["vmdk:sparse", "vmdk:stream"]),
        (["build", "a", "-f", "iso,q"], ["iso,qcow2"]),
        (["--boot", "q"], ["qemu"]),
        (["--boot", "qemu", "a", "--acc"], ["--accel"]),
        (["run", "a", "--boot", "x"], ["xl"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["--b"], ["--boot"]),
        (["help", "ver"], ["verify", "version"]),
        (["xen", "a", "--type", "pv"], ["pv", "pvh"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_completion_knows_values(words, wanted):
    assert complete("rumpbundle", *words) == wanted


@pytest.mark.parametrize("command", ["build", "boot", "check", "verify"])
def test_completion_knows_the_images_of_a_project_file(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    assert complete("rumpbundle", command, "we") == ["we"]  # the shell's files
    (tmp_path / "rumpbundle.toml").write_text(
        "".join(f"[image.{name}]\napp = 'a'\n" for name in ("web", "web-2", "node"))
    )
    assert complete("rumpbundle", command, "we") == ["we", "web", "web-2"]
    (tmp_path / "rumpbundle.toml").write_text("[image.web")
    assert complete("rumpbundle", command, "we") == ["we"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_what_the_shell_reads(shell, capsys):
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert f"_RUMPBUNDLE_COMPLETE={shell}_complete" in text
    if shell == "bash":
        subprocess.run(["bash", "-n", "-c", text], check=True, timeout=10)


def test_formats_say_what_can_be_written(capsys):
    assert main(["formats"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^  vmdk:sparse +\.vmdk +VMware disk", text, re.MULTILINE)
    assert re.search(r"^  vmdk:stream$", text, re.MULTILINE)
    assert all(len(line) <= 80 for line in text.splitlines())


def test_no_format_needs_a_program(place, monkeypatch, capsys):
    """Only GRUB's images may have to be made, once."""
    assert main(["iso", "app.bin", "-q"]) == 0
    monkeypatch.setattr(programs, "run", lambda argv, **_: pytest.fail(f"it runs {argv}"))
    names = [f"{each.name}:{variant}" for each in formats.formats() for variant in each.variants or ("",)]
    assert main(["build", "app.bin", "-f", ",".join(name.rstrip(":") for name in names), "--force", "-q"]) == 0
    capsys.readouterr()
    assert main(["formats", "--json"]) == 0
    assert all(not each["missing"] for each in json.loads(capsys.readouterr().out))


def test_json_has_sizes_digests_and_commands(place, capsys):
    assert main(["iso", "app.bin", "--json", "-q"]) == 0
    (artifact,) = json.loads(capsys.readouterr().out)["artifacts"]
    sums = subprocess.run(["sha256sum", "app.iso"], capture_output=True, text=True, check=True).stdout
    assert artifact == {
        "format": "iso", "path": "app.iso", "size": Path("app.iso").stat().st_size, "sha256": sums.split()[0],
    }  # fmt: skip
    assert main(["build", "app.bin", "-f", "gce,ec2", "--json", "-q"]) == 0
    value = json.loads(capsys.readouterr().out)
    for artifact in value["artifacts"]:
        assert artifact["size"] == sum(Path(file["path"]).stat().st_size for file in artifact["files"])
        assert all(len(file["sha256"]) == 64 for file in artifact["files"])
    assert value["commands"]["gce"][1].startswith("gcloud storage cp")


def fields(value):
    """Yield the names of all fields in *value*; those of tables whose keys are values of ours are none."""
    for each in value if isinstance(value, list) else ():
        yield from fields(each)
    for key, each in value.items() if isinstance(value, dict) else ():
        yield key
        yield from () if key in ("boot", "commands", "labels", "tools") else fields(each)


JSON = {
    "iso": ["iso", "app.bin", "--sbom", "app.cdx.json"],
    "dry run": ["iso", "app.bin", "--dry-run", "--force"],
    "kit": ["ec2", "app.bin"],
    "build": ["build", "app.bin", "-f", "gce,vdi", "-o", "out", "--checksums"],
    "project": ["build"],
    "project verify": ["verify"],
    "check": ["check", "app.bin"],
    "check target": ["check", "app.bin", "--target", "ec2"],
    "verify": ["verify", "app.iso"],
    "verify key": ["verify", "app.iso", "--key", "k.pub"],
    "verify damaged": ["verify", "./torn.iso", "./none.iso", "out/SHA256SUMS"],
    "diff": ["diff", "app.iso", "torn.iso"],
    "ls": ["ls", "app.iso"],
    "formats": ["formats"],
    "volume": ["volume", "out", "-o", "out.img", "-t", "ext2"],
    "component": ["component", "app.xen", "-o", "app.o"],
    "inspect kernel": ["inspect", "app.bin"],
    "inspect": ["inspect", "app.iso"],
}


def test_every_field_of_json_is_documented(place, capsys):
    require("minisign")
    told = (ROOT / "docs" / "cli.md").read_text("utf-8").partition("\n## JSON results\n")[2]
    words = set(re.findall(r"`([a-z0-9_]+)`", told.partition("\n## ")[0]))
    assert main(["build", "app.bin", "-f", "iso,xen", "-q"]) == 0
    Path("torn.iso").write_bytes(Path("app.iso").read_bytes().replace(b"insmod", b"insmoq"))
    subprocess.run(["minisign", "-G", "-W", "-p", "k.pub", "-s", "k.key"], check=True, capture_output=True)
    assert main(["iso", "app.bin", "-q", "--force", "--sign", "k.key"]) == 0
    Path("rumpbundle.toml").write_text("[image.web]\napp = 'app.bin'\nformats = ['raw']\n")
    capsys.readouterr()
    for name, argv in JSON.items():
        assert main([*argv, "--json", *(["--force"] if name in ("iso", "kit", "build") else [])]) in (0, 1, 2, 5), (
            name
        )
        value = json.loads(capsys.readouterr().out)
        found = set(value if name.startswith("inspect") else fields(value))
        assert found - words == set(), name


def test_every_event_of_json_is_documented():
    told = (ROOT / "docs" / "cli.md").read_text("utf-8").partition("| `event` | keys |")[2].partition("\n\n")[0]
    code = "".join(path.read_text("utf-8") for path in (ROOT / "rumpbundle" / "cli").glob("*.py"))
    told_events = {
        word for row in re.findall(r"^\| (`[^|]*)\|", told, re.MULTILINE) for word in re.findall(r"`(\w+)`", row)
    }
    assert told_events == set(re.findall(r"""event(?:=|": )"(\w+)\"""", code))


def test_json_of_a_volume_and_a_component_has_size_and_digest(place, capsys):
    Path("d").mkdir()
    Path("d/file").write_text("x")
    for argv in (["volume", "d", "-o", "made"], ["component", "d", "-o", "made", "--force"]):
        assert main([*argv, "-q", "--json"]) == 0
        value = json.loads(capsys.readouterr().out)
        sums = subprocess.run(["sha256sum", "made"], capture_output=True, text=True, check=True).stdout
        assert (value["size"], value["sha256"]) == (Path("made").stat().st_size, sums.split()[0])


# -- progress


def large(place):
    with open("large", "wb") as file:
        for number in range(80):
            file.write(bytes([number + 1]) * (1 << 20))


@pytest.mark.parametrize(
    "name", ["iso", "vmdk", "vmdk:stream", "vdi", "qcow2", "vhd:fixed", "ova", "gce", "azure", "ec2:stream", "xen"]
)
def test_what_advances_adds_up_and_ends_with_the_work(place, name, capsys):
    large(place)
    format, _, subformat = name.partition(":")
    words = ["--subformat", subformat] if subformat else []
    assert main([format, "app.bin", "--module", "large", "--progress", "json", *words]) == 0
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    works = {event["work"]: event["total"] for event in events if event["event"] == "started"}
    assert any(total > 80 << 20 for total in works.values())
    for work, total in works.items():
        done = [event["done"] for event in events if event["event"] == "advanced" and event["work"] == work]
        assert done == sorted(done)
        assert not total or done[-1] == total
        assert {"event": "finished", "work": work} in events


def test_two_subformats_are_two_works(place, capsys):
    large(place)
    assert main(["build", "app.bin", "-f", "vmdk,vmdk:stream", "--module", "large", "--progress", "json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    started = [event["work"] for event in events if event["event"] == "started" and event["total"]]
    assert sorted(started) == ["app.stream.vmdk", "app.vmdk"]


@pytest.mark.parametrize(("words", "lines"), [(["-q"], 0), (["--progress", "none"], 0), ([], 1)])
def test_elsewhere_than_on_a_terminal_it_is_a_line(place, words, lines, capsys):
    large(place)
    assert main(["raw", "app.bin", "--module", "large", *words]) == 0
    said = capsys.readouterr().err.splitlines()
    assert len(said) == lines
    assert all(re.fullmatch(r"app\.raw: \d+\.\d MiB", line) for line in said)


def test_a_terminal_sees_a_bar_that_tells_the_truth(place):
    large(place)
    ours, theirs = pty.openpty()
    hostile = "h\x9b31m\N{RIGHT-TO-LEFT OVERRIDE}\x1b]0;t\x07"
    shutil.copy("app.bin", f"{hostile}.bin")
    words = ["build", f"{hostile}.bin", "-f", "raw,vmdk:stream", "--module", "large", "-o", "out"]
    with subprocess.Popen(
        [*RUMPBUNDLE, *words],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
    ) as process:
        os.close(theirs)
        said = b""
        try:
            while data := os.read(ours, 65536):
                said += data
        except OSError:
            pass
    os.close(ours)
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode())
    assert f"{one_line(hostile)}.stream.vmdk" in text
    assert not any(character in text for character in "\x9b\x1b\x07\N{RIGHT-TO-LEFT OVERRIDE}")
    assert not re.search(r"[EZ]i?B", text)
    for number, total in re.findall(r"([\d.]+)/([\d.]+) MiB", text):
        assert float(number) <= float(total)


def test_long_planning_is_shown_on_a_terminal(monkeypatch):
    import io
    import time

    from rumpbundle.cli import progress
    from rumpbundle.events import Finished, Started

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "_PATIENCE", 0.01)
    with progress.Terminal() as terminal:
        terminal(Started("planning", 0))
        while "planning" not in screen.getvalue():
            time.sleep(0.01)
        terminal(Finished("planning"))
    with progress.Terminal() as terminal:
        terminal(Started("nothing", 0))
        terminal(Finished("nothing"))
    assert "nothing" not in screen.getvalue()
