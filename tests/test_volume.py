"""``rumpbundle volume`` and ``rumpbundle config``: directories as disks, configurations as clean JSON."""

from __future__ import annotations

import json
import os

import pytest
from support import ext2 as ext2_reader
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
    assert "Volume id: MY_LABEL" in output_of("isoinfo", "-d", "-i", str(out))
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
