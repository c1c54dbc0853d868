"""``rumpbundle volume`` and ``rumpbundle config``: directories as disks, configurations as clean JSON."""

from __future__ import annotations

import json
import os

import pytest
from support import ext2 as ext2_reader
from support import kernels
from support.tools import output_of

from rumpbundle import config, volume
from rumpbundle.cli import main


@pytest.fixture
def directory(tmp_path):
    top = tmp_path / "site"
    (top / "empty").mkdir(parents=True)
    (top / "index.html").write_text("hello")
    (top / "index.html").chmod(0o640)
    os.link(top / "index.html", top / "hard")
    (top / "link").symlink_to("index.html")
    return top


def test_ext2_is_clean_and_leaves_room(directory, tmp_path, capsys):
    out = tmp_path / "out.ext2"
    assert main(["volume", str(directory), "-o", str(out), "-t", "ext2", "--free", "40M", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["size"] == out.stat().st_size
    assert len(output_of("e2fsck", "-fn", str(out)).splitlines()) == 7
    stats = ext2_reader.debugfs(out, "stats -h")
    assert shown["uuid"] in stats
    assert "Filesystem volume name:   site" in stats
    assert int(stats.split("Free blocks:")[1].split()[0]) * 4096 >= 40 << 20


def test_iso9660_shows_everything(directory, tmp_path, capsys):
    out = tmp_path / "out.iso"
    assert main(["volume", str(directory), "-o", str(out), "--label", "My label"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    listing = output_of("isoinfo", "-R", "-l", "-i", str(out))
    assert "-rw-r-----   2    0    0               5 Jan  1 1980" in listing
    assert "link -> index.html" in listing
    assert "Volume id: My label" in output_of("isoinfo", "-d", "-i", str(out))
    assert output_of("isoinfo", "-R", "-x", "/hard", "-i", str(out)) == "hello"


def test_the_same_bytes_anywhere(directory, tmp_path, monkeypatch, capsys):
    images = []
    for turn, kind in ((1, "ext2"), (2, "ext2"), (1, "iso9660"), (2, "iso9660")):
        monkeypatch.chdir(directory if turn == 1 else tmp_path)
        os.utime(directory / "index.html", (turn, turn))
        old = os.umask(0o77 if turn == 1 else 0)
        out = tmp_path / f"{kind}{turn}"
        assert main(["volume", "." if turn == 1 else "site", "-o", str(out), "-t", kind]) == 0
        os.umask(old)
        images.append(out.read_bytes())
    assert images[0] == images[1]
    assert images[2] == images[3]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--free", "1M"], "error: --free and --size are for ext2"),
        (["-t", "ext2", "--free", "1M", "--size", "2M"], "error: --free and --size contradict"),
        (["-t", "ext2", "--size", "12K"], "cannot hold these files; they need 1 MiB"),
        (["-t", "ext4"], "'ext4' is not one of"),
    ],
)
def test_contradictions_are_refused(directory, tmp_path, words, message, capsys):
    out = tmp_path / "out"
    assert main(["volume", str(directory), "-o", str(out), *words]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_special_files_are_refused(directory, tmp_path, capsys):
    os.mkfifo(directory / "fifo")
    assert main(["volume", str(directory), "-o", str(tmp_path / "out")]) == 2
    assert "fifo: is a FIFO, expected a regular file" in capsys.readouterr().err


def test_an_output_is_not_overwritten_unasked(directory, tmp_path, capsys):
    (tmp_path / "out").write_text("precious")
    assert main(["volume", str(directory), "-o", str(tmp_path / "out")]) == 2
    assert (tmp_path / "out").read_text() == "precious"
    assert main(["volume", str(directory), "-o", str(tmp_path / "out"), "--force"]) == 0


@pytest.mark.parametrize(
    ("mount", "label"),
    [
        ("/data", "data"),
        ("/", "root"),
        ("/var/lib/My Data", "my_data"),
        ("/é", "root"),
        ("/x" + "y" * 40, "x" + "y" * 13),
    ],
)
def test_labels(mount, label):
    taken: set[str] = set()
    assert volume.label_for(mount, taken) == label
    assert volume.label_for(mount, taken) != label
    for _ in range(150):
        assert len(volume.label_for(mount, taken)) <= 16
    assert len(taken) == 152


def test_config_prints_clean_json(tmp_path, capsys):
    (tmp_path / "old.cfg").write_text('{, "env": "A=1", "env": "B=2", "cmdline": "x y", },')
    assert main(["config", str(tmp_path / "old.cfg")]) == 0
    assert json.loads(capsys.readouterr().out) == {"cmdline": "x y", "env": {"A": "1", "B": "2"}}
    assert main(["config", "--schema"]) == 0
    assert capsys.readouterr().out == config.schema_text()
    assert main(["config"]) == 2
    assert capsys.readouterr().err == "error: give a configuration, or --schema\n"


@pytest.mark.parametrize(
    ("kind", "label"),
    [
        *(("iso9660", label) for label in ("config-2", "cidata", "My label", "a" * 32, "")),
        *(("ext2", label) for label in ("config-2", "My label", "é" * 8, "x" * 16, "")),
    ],
)
def test_a_label_is_written_and_told_as_it_is(directory, tmp_path, capsys, kind, label):
    out = tmp_path / "out"
    assert main(["volume", str(directory), "-o", str(out), "-t", kind, "--label", label, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["label"] == label
    # util-linux, which cloud-init and udev ask.
    said = output_of("blkid", "-p", "-o", "value", "-s", "LABEL", str(out), check=bool(label))
    assert said == (f"{label}\n" if label else "")


@pytest.mark.parametrize(
    ("kind", "label"),
    [
        *(("iso9660", label) for label in ("a" * 33, "é", "a\nb", " a", "a ", "\udcff")),
        *(("ext2", label) for label in ("x" * 17, "é" * 9, "a\0b", "\udcff")),
    ],
)
def test_a_label_that_does_not_fit_is_refused(directory, tmp_path, capsys, kind, label):
    out = tmp_path / "out"
    assert main(["volume", str(directory), "-o", str(out), "-t", kind, "--label", label]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: --label: ")
    assert error.endswith(f" is no label for {'ext2' if kind == 'ext2' else 'ISO 9660'}")
    assert hint.startswith("hint: it has at most ")
    assert not out.exists()


@pytest.mark.parametrize(("name", "label"), [("config-2", "config-2"), ("CIDATA", "CIDATA"), ("ü" * 20, "root")])
def test_the_directorys_name_is_the_label_where_it_can_be(tmp_path, capsys, name, label):
    (tmp_path / name).mkdir()
    assert main(["volume", str(tmp_path / name), "-o", str(tmp_path / "out"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["label"] == label
    assert err == ("" if name == label else f"note: its label is {label}; {name} cannot be one\n")


def test_what_becomes_of_the_name_is_said(tmp_path, capsys):
    app = str(kernels.build("multiboot"))
    assert main(["raw", app, "--name", "web", "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert "labels       WEB (ISO 9660), WEB (EFI system partition)" in out
    assert err == ""
    assert main(["raw", app, "--name", "my-web-server-7", "--dry-run", "--json"]) == 0
    out, err = capsys.readouterr()
    labels = {"ISO 9660": "MY_WEB_SERVER_7", "EFI system partition": "MY_WEB_SERV"}
    assert json.loads(out)["labels"] == labels
    assert err == (
        "note: the name my-web-server-7 becomes these labels: MY_WEB_SERVER_7 (ISO 9660), "
        "MY_WEB_SERV (EFI system partition)\n"
    )


def test_a_name_that_is_no_utf_8_is_no_damage(tmp_path, capsys):
    """pycdlib, whose opinion verify asks for, takes no such name."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / os.fsdecode(b"b\xff")).write_text("x")
    image = tmp_path / "image"
    assert main(["volume", str(tmp_path / "tree"), "-o", str(image), "-q"]) == 0
    assert main(["verify", str(image)]) == 0
    assert "whole" in capsys.readouterr().out


def test_a_size_that_is_too_large_is_not_told_to_be_too_small(tmp_path, capsys):
    (tmp_path / "d").mkdir()
    words = ["volume", str(tmp_path / "d"), "-o", str(tmp_path / "v"), "-t", "ext2", "--size", "100T"]
    assert main(words) == 2
    assert "does not fit ext2's 32-bit block numbers" in capsys.readouterr().err
