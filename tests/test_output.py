"""Outputs are whole under their name, or not there at all."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest

from rumpbundle.errors import HostError, InputError, UsageError
from rumpbundle.host.staging import staged_directory, staged_file, staged_kit


@pytest.fixture(params=["nameless", "named"])
def staging(request, monkeypatch):
    """Try both ways to stage a file: O_TMPFILE, and a temporary name where the file system has no such thing."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE")
    return request.param


def test_a_file_appears_when_the_block_ends(tmp_path, staging):
    path = tmp_path / "out"
    with staged_file(path) as staged:
        os.write(staged.fd, b"data")
        assert not path.exists()
        with open(staged.path, "rb") as same:
            assert same.read() == b"data"
    assert path.read_bytes() == b"data"
    assert os.listdir(tmp_path) == ["out"]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_nothing_is_left_when_the_block_fails(tmp_path, staging):
    def interrupted():
        with staged_file(tmp_path / "out") as staged:
            os.write(staged.fd, b"data")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []


def test_an_existing_file_stays_without_force_and_is_replaced_with_it(tmp_path, staging):
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with pytest.raises(UsageError, match="already exists") as caught, staged_file(path):
        pass
    assert caught.value.hint == "give --force to overwrite it, or -o another name"
    with pytest.raises(ZeroDivisionError), staged_file(path, force=True):
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    with staged_file(path, force=True) as staged:
        os.write(staged.fd, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["out"]


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path, staging):
    path = tmp_path / "out"
    with pytest.raises(UsageError, match="it appeared meanwhile"), staged_file(path):
        path.write_bytes(b"somebody else's")
    assert path.read_bytes() == b"somebody else's"
    assert os.listdir(tmp_path) == ["out"]


def test_a_missing_directory_is_the_users_error(tmp_path):
    with pytest.raises(InputError, match="no such directory") as caught, staged_file(tmp_path / "no" / "out"):
        pass
    assert caught.value.where == str(tmp_path / "no")


def test_a_directory_in_the_way_is_refused_even_with_force(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="is a directory"), staged_file(tmp_path / "out", force=True):
        pass


def test_a_file_as_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is not a directory"), staged_file(tmp_path / "file" / "out"):
        pass


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "kit"
    with pytest.raises(FileNotFoundError), staged_directory(path) as new:
        (new / "half").write_text((new / "missing").read_text())
    assert os.listdir(tmp_path) == []
    with staged_directory(path) as new:
        (new / "whole").write_text("1")
        assert not path.exists()
    assert os.listdir(path) == ["whole"]
    with pytest.raises(UsageError, match="already exists"), staged_directory(path):
        pass
    with staged_directory(path, force=True) as new:
        (new / "other").write_text("2")
    assert os.listdir(path) == ["other"]


@pytest.mark.parametrize("stranger", ["thesis.tex", "src/"])
def test_a_directory_of_somebody_elses_is_not_replaced(tmp_path, stranger):
    path = tmp_path / "kit"
    path.mkdir()
    (path / "volume.raw").write_text("1")
    if stranger.endswith("/"):
        (path / stranger).mkdir()
    else:
        (path / stranger).write_text("years of work")
    before = sorted(os.listdir(path))
    with (
        pytest.raises(UsageError, match=f"holds '{stranger.rstrip('/')}', which is not rumpbundle's"),
        staged_directory(path, ("volume.*", "src"), force=True),
    ):
        pass
    assert sorted(os.listdir(path)) == before


def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    # As a device is not; a FIFO and a socket can be made without harm.
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(tmp_path):
        listener.bind("socket")
    Path(tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "socket", "link"):
        with (
            pytest.raises(UsageError, match="is no regular file") as caught,
            staged_file(tmp_path / name, force=True),
        ):
            pass
        assert caught.value.hint == "bundle to a file, then copy that: dd if=FILE of=DEVICE bs=4M conv=fsync"
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe", "socket"]


def test_the_files_of_a_kit_appear_together(tmp_path):
    path, beside = tmp_path / "a.gz", tmp_path / "a.json"
    with pytest.raises(FileNotFoundError), staged_kit(path, (beside,)) as new:
        (new / "a.gz").write_text((new / "missing").read_text())
    assert os.listdir(tmp_path) == []
    with pytest.raises(HostError), staged_kit(path, (beside,)) as new:
        (new / "a.gz").write_text("x")
    assert os.listdir(tmp_path) == []
    with staged_kit(path, (beside,)) as new:
        (new / "a.gz").write_text("x")
        (new / "a.json").write_text("y")
    assert sorted(os.listdir(tmp_path)) == ["a.gz", "a.json"]
    path.unlink()
    with pytest.raises(UsageError, match=r"a\.json: already exists"), staged_kit(path, (beside,)):
        pass
